//! A plain interpreter of stage lists for one sequence: an independent reading of what each kernel means.
//!
//! Sums run in f64, values between stages are f32.

use std::collections::HashMap;

use pellucid_models::Blueprint;
use pellucid_models::stage::{
    ActivationKind, Attention, HookLayout, Kernel, LinearLayout, Norm, NormKind, SlotShape, WeightId,
};
use pellucid_models::weights::RawTensor;

/// A slot's value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Ids(Vec<i64>),
    /// `[tokens, inner…]`, or scores and patterns `[heads, length, context]`.
    Numbers(Vec<f32>),
}

/// A hook point's value as its view for one prompt, row-major.
pub(crate) type Views = HashMap<String, Value>;

/// A setter: a hook point's path, and what becomes of its packed value `[length, inner…]`.
pub(crate) type Edit<'a> = (&'a str, &'a dyn Fn(&mut [f32]));

pub(crate) struct Interpreter<'a> {
    pub(crate) blueprint: &'a Blueprint,
    pub(crate) weights: &'a dyn Fn(WeightId) -> RawTensor,
}

impl Interpreter<'_> {
    /// Every hook point's value for these tokens, under these edits.
    pub(crate) fn run(&self, tokens: &[i64], edits: &[Edit<'_>]) -> Views {
        let length = tokens.len();
        let list = &self.blueprint.stages;
        let mut slots: Vec<Option<Value>> = vec![None; list.slots as usize];
        slots[0] = Some(Value::Ids(tokens.to_vec()));
        slots[1] = Some(Value::Ids((0..length as i64).collect()));
        let mut views = Views::new();
        for stage in &list.stages {
            let input = |index: usize| slots[stage.inputs[index].0 as usize].as_ref().unwrap();
            let numbers = |index: usize| match input(index) {
                Value::Numbers(numbers) => numbers.as_slice(),
                Value::Ids(_) => panic!("{stage:?}: ids where numbers are needed"),
            };
            let ids = |index: usize| match input(index) {
                Value::Ids(ids) => ids.as_slice(),
                Value::Numbers(_) => panic!("{stage:?}: numbers where ids are needed"),
            };
            let shape = |index: usize| match &list.shapes[stage.inputs[index].0 as usize] {
                SlotShape::Inner(inner) => inner.as_slice(),
                _ => &[],
            };
            let map = |f: &dyn Fn(f64) -> f64| numbers(0).iter().map(|x| f(f64::from(*x)) as f32).collect();
            let zip = |f: &dyn Fn(f32, f32) -> f32| -> Vec<f32> {
                assert_eq!(numbers(0).len(), numbers(1).len());
                numbers(0).iter().zip(numbers(1)).map(|(x, y)| f(*x, *y)).collect()
            };
            let value = match &stage.kernel {
                Kernel::Hook { point, layout } => {
                    let path = self.blueprint.spec.hook_points[*point].path();
                    let mut value = input(0).clone();
                    for (_, edit) in edits.iter().filter(|(edited, _)| *edited == path) {
                        match &mut value {
                            Value::Numbers(numbers) => edit(numbers),
                            Value::Ids(_) => panic!("{path} holds ids"),
                        }
                    }
                    let view = match (&value, layout) {
                        (Value::Numbers(numbers), HookLayout::HeadsFirst) => {
                            Value::Numbers(heads_first(numbers, shape(0)))
                        }
                        (value, _) => value.clone(),
                    };
                    assert!(views.insert(path, view).is_none());
                    value
                }
                Kernel::Embed { table, offset, scale } => {
                    let table = (self.weights)(*table);
                    let row = |id: &i64| {
                        let row = (id + offset) as usize;
                        table.rows_to_f32(row..row + 1)
                    };
                    Value::Numbers(ids(0).iter().flat_map(row).map(|x| x * scale).collect())
                }
                Kernel::Linear { weight, bias, layout } => {
                    let weight = (self.weights)(*weight);
                    let bias = bias.map(|bias| (self.weights)(bias).to_f32());
                    Value::Numbers(linear(numbers(0), &weight, bias.as_deref(), *layout))
                }
                Kernel::Add => Value::Numbers(zip(&|x, y| x + y)),
                Kernel::Multiply => Value::Numbers(zip(&|x, y| x * y)),
                Kernel::Scale(factor) => Value::Numbers(map(&|x| x * f64::from(*factor))),
                Kernel::SoftCap(cap) => Value::Numbers(map(&|x| soft_cap(x, *cap))),
                Kernel::Activation(kind) => Value::Numbers(map(&|x| activation(x, *kind))),
                Kernel::NormScale(norm) => {
                    Value::Numbers(norm_scale(numbers(0), *shape(0).last().unwrap(), norm))
                }
                Kernel::NormApply(norm) => {
                    Value::Numbers(self.norm_apply(numbers(0), numbers(1), *shape(0).last().unwrap(), norm))
                }
                Kernel::View { offset, dimensions } => {
                    let width = numbers(0).len() / length;
                    let tokens = numbers(0).chunks(width);
                    Value::Numbers(tokens.flat_map(|token| view(token, *offset, dimensions)).collect())
                }
                Kernel::Rotary { table } => {
                    let table = &list.rotary[*table];
                    let (half, size) = (table.inverse_frequencies.len(), *shape(0).last().unwrap());
                    let (mut cosines, mut sines) = (vec![0.0; half], vec![0.0; half]);
                    let mut result = numbers(0).to_vec();
                    let width = result.len() / length;
                    for (token, position) in result.chunks_mut(width).zip(ids(1)) {
                        table.angles(*position, &mut cosines, &mut sines);
                        for head in token.chunks_mut(size) {
                            for pair in 0..half {
                                let (x, y) = (head[pair], head[pair + half]);
                                head[pair] = x * cosines[pair] - y * sines[pair];
                                head[pair + half] = y * cosines[pair] + x * sines[pair];
                            }
                        }
                    }
                    Value::Numbers(result)
                }
                Kernel::AttentionScores(attention) => {
                    Value::Numbers(scores(numbers(0), numbers(1), length, attention))
                }
                Kernel::AttentionPattern(_) => {
                    Value::Numbers(numbers(0).chunks(length).flat_map(softmax).collect())
                }
                Kernel::AttentionMixed(attention) => {
                    Value::Numbers(mixed(numbers(1), numbers(2), length, attention))
                }
            };
            assert_eq!(stage.outputs.len(), 1);
            let output = stage.outputs[0].0 as usize;
            if let (SlotShape::Inner(inner), Value::Numbers(numbers)) = (&list.shapes[output], &value) {
                assert_eq!(
                    numbers.len(),
                    length * inner.iter().product::<usize>(),
                    "{stage:?}: its declared shape"
                );
            }
            slots[output] = Some(value);
        }
        views
    }

    fn norm_apply(&self, x: &[f32], scales: &[f32], width: usize, norm: &Norm) -> Vec<f32> {
        let values = |weight: Option<WeightId>| weight.map(|weight| (self.weights)(weight).to_f32());
        let (weight, bias) = (values(norm.weight), values(norm.bias));
        let rows = x.chunks(width).zip(scales);
        rows.flat_map(|(row, scale)| {
            let mean = match norm.kind {
                NormKind::Layer => mean(row, |x| x),
                NormKind::Rms => 0.0,
            };
            let value = |index: usize| {
                let weight =
                    weight.as_ref().map_or(1.0, |weight| f64::from(weight[index] + norm.weight_offset));
                let bias = bias.as_ref().map_or(0.0, |bias| f64::from(bias[index]));
                ((f64::from(row[index]) - mean) / f64::from(*scale) * weight + bias) as f32
            };
            (0..width).map(value).collect::<Vec<_>>()
        })
        .collect()
    }
}

fn mean(row: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    row.iter().map(|x| f(f64::from(*x))).sum::<f64>() / row.len() as f64
}

fn norm_scale(x: &[f32], width: usize, norm: &Norm) -> Vec<f32> {
    let scale = |row: &[f32]| {
        let centre = match norm.kind {
            NormKind::Layer => mean(row, |x| x),
            NormKind::Rms => 0.0,
        };
        (mean(row, |x| (x - centre) * (x - centre)) + f64::from(norm.epsilon)).sqrt() as f32
    };
    x.chunks(width).map(scale).collect()
}

fn linear(x: &[f32], weight: &RawTensor, bias: Option<&[f32]>, layout: LinearLayout) -> Vec<f32> {
    let values = weight.to_f32();
    let (rows, columns) = (weight.shape[0], weight.shape[1]);
    let (k, n) = match layout {
        LinearLayout::OutputInput => (columns, rows),
        LinearLayout::InputOutput => (rows, columns),
    };
    let element = |row: &[f32], output: usize| {
        let product = |input: usize| {
            let weight = match layout {
                LinearLayout::OutputInput => values[output * k + input],
                LinearLayout::InputOutput => values[input * n + output],
            };
            f64::from(row[input]) * f64::from(weight)
        };
        let bias = bias.map_or(0.0, |bias| f64::from(bias[output]));
        ((0..k).map(product).sum::<f64>() + bias) as f32
    };
    x.chunks(k).flat_map(|row| (0..n).map(|output| element(row, output)).collect::<Vec<_>>()).collect()
}

fn view(token: &[f32], offset: usize, dimensions: &[(usize, usize)]) -> Vec<f32> {
    let Some(((size, stride), rest)) = dimensions.split_first() else { return vec![token[offset]] };
    (0..*size).flat_map(|index| view(token, offset + index * stride, rest)).collect()
}

/// `[length, heads, size]` to `[heads, length, size]`.
fn heads_first(x: &[f32], inner: &[usize]) -> Vec<f32> {
    let (heads, size) = (inner[0], inner[1]);
    let tokens: Vec<_> = x.chunks(heads * size).collect();
    let row = |head: usize| tokens.iter().flat_map(move |token| &token[head * size..(head + 1) * size]);
    (0..heads).flat_map(row).copied().collect()
}

fn soft_cap(x: f64, cap: f32) -> f64 {
    f64::from(cap) * (x / f64::from(cap)).tanh()
}

fn activation(x: f64, kind: ActivationKind) -> f64 {
    match kind {
        ActivationKind::Gelu => 0.5 * x * (1.0 + error_function(x / std::f64::consts::SQRT_2)),
        ActivationKind::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        ActivationKind::Silu => x / (1.0 + (-x).exp()),
        ActivationKind::Relu => x.max(0.0),
    }
}

/// By its Maclaurin series, which is exact enough where it is not yet 1.
fn error_function(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    2.0 / std::f64::consts::PI.sqrt() * sum
}

fn scores(query: &[f32], key: &[f32], length: usize, attention: &Attention) -> Vec<f32> {
    let size = attention.head_size;
    let group = attention.heads / attention.key_value_heads;
    let mut result = Vec::with_capacity(attention.heads * length * length);
    for head in 0..attention.heads {
        for q in 0..length {
            for k in 0..length {
                let seen = k <= q && attention.window.is_none_or(|window| q - k < window);
                let from = (q * attention.heads + head) * size;
                let to = (k * attention.key_value_heads + head / group) * size;
                let products = query[from..from + size].iter().zip(&key[to..to + size]);
                let product: f64 = products.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                let scaled = product * f64::from(attention.scale);
                let capped = attention.soft_cap.map_or(scaled, |cap| soft_cap(scaled, cap));
                result.push(if seen { capped as f32 } else { f32::NEG_INFINITY });
            }
        }
    }
    result
}

fn softmax(row: &[f32]) -> Vec<f32> {
    let greatest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let exponentials: Vec<_> = row.iter().map(|x| (f64::from(*x) - greatest).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|x| (x / sum) as f32).collect()
}

fn mixed(pattern: &[f32], value: &[f32], length: usize, attention: &Attention) -> Vec<f32> {
    let size = attention.head_size;
    let group = attention.heads / attention.key_value_heads;
    let mut result = Vec::with_capacity(length * attention.heads * size);
    for q in 0..length {
        for head in 0..attention.heads {
            let row = &pattern[(head * length + q) * length..][..length];
            for index in 0..size {
                let value = |k: usize| value[(k * attention.key_value_heads + head / group) * size + index];
                let products = row.iter().enumerate().map(|(k, p)| f64::from(*p) * f64::from(value(k)));
                result.push(products.sum::<f64>() as f32);
            }
        }
    }
    result
}
