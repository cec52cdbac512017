//! The vector-Jacobian products of linear layers, norms, activations, softmax and rotary embedding: against the
//! reference, the reference against finite differences, and a row alone against the row among others, bit for bit.

mod common;

use common::{assert_same_bits, normal, on_every_isa};
use pellucid_kernels::rotary::{RotaryStyle, RotaryTable, rotary, rotary_backward};
use pellucid_kernels::{
    Activation, Epilogue, HeadsViewMut, PackedMatrix, WeightLayout, activation, elementwise, matmul,
    matmul_weight_backward, norm, pool, reduce, reference,
};

const WIDTHS: [usize; 7] = [1, 3, 16, 64, 65, 128, 769];

/// Asserts |got − want| ≤ bound · max(1, max|want|).
#[track_caller]
fn assert_close(what: &str, got: &[f32], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    let size = want.iter().fold(1.0_f64, |size, x| size.max(x.abs()));
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= bound * size, "{what}: element {index}: {got} for {want}");
    }
}

/// Σ cotangent · f(x) by central differences in each x: what a vector-Jacobian product should give.
fn differences(x: &[f32], step: f32, f: impl Fn(&[f32]) -> f64) -> Vec<f64> {
    let mut moved = x.to_vec();
    let each = |index: usize| {
        let (above, below) = (x[index] + step, x[index] - step);
        moved[index] = above;
        let high = f(&moved);
        moved[index] = below;
        let low = f(&moved);
        moved[index] = x[index];
        (high - low) / (f64::from(above) - f64::from(below))
    };
    (0..x.len()).map(each).collect()
}

fn product(values: &[f64], cotangent: &[f32]) -> f64 {
    values.iter().zip(cotangent).map(|(value, c)| value * f64::from(*c)).sum()
}

#[test]
fn activation_derivatives_agree_with_the_reference_and_that_with_differences() {
    for activation in Activation::ALL {
        for x in [-9.0, -3.3, -1.0, -0.3, 0.2, 0.7, 2.5, 8.0] {
            let h = 1e-5;
            let rise = reference::activation(activation, x + h) - reference::activation(activation, x - h);
            let slope = reference::activation_derivative(activation, x);
            assert!((rise / (2.0 * h) - slope).abs() < 1e-8, "{activation:?} at {x}");
        }
    }
    on_every_isa(|isa| {
        let mut x: Vec<f32> = (-30_000..30_000).map(|i| i as f32 * 5e-4).collect();
        x.extend([-1e30, -200.0, -40.0, 40.0, 200.0, 1e30, f32::INFINITY, f32::NEG_INFINITY]);
        for activation in Activation::ALL {
            let mut got = vec![1.0; x.len()];
            activation::apply_backward(activation, &x, &mut got);
            for (x, got) in x.iter().zip(&got) {
                let want = match (activation, x.is_infinite() || x.abs() > 1e20) {
                    (Activation::Gelu | Activation::GeluTanh | Activation::Silu, true) => f64::from(*x > 0.0),
                    _ => reference::activation_derivative(activation, f64::from(*x)),
                };
                let exact = f64::from(*got) == want;
                // The tail of tanh' is 1 - t², which has an absolute error of t's own rounding, times up to 8.
                assert!(
                    exact || (f64::from(*got) - want).abs() <= 2e-6 * want.abs().max(1.0),
                    "{} {activation:?} at {x}: {got} for {want}",
                    isa.name()
                );
            }
            let mut got = [2.0; 3];
            activation::apply_backward(activation, &[f32::NAN, 1.0, f32::NAN], &mut got);
            let kept = !matches!(activation, Activation::Relu);
            assert!(got[0].is_nan() == kept && !got[1].is_nan(), "{activation:?} of NaN: {got:?}");
        }
        let x = normal(1, 20_000);
        let cotangent = normal(2, x.len());
        let mut whole = cotangent.clone();
        activation::apply_backward(Activation::Gelu, &x, &mut whole);
        let mut parts = cotangent.clone();
        for (x, part) in x.chunks(7).zip(parts.chunks_mut(7)) {
            activation::apply_backward(Activation::Gelu, x, part);
        }
        assert_same_bits("an activation in parts", &whole, &parts);
    });
}

#[test]
fn softcap_gives_one_less_the_square_of_tanh() {
    on_every_isa(|_| {
        let x: Vec<f32> = (-200..200).map(|i| i as f32 * 0.1).collect();
        let mut got = vec![3.0; x.len()];
        elementwise::softcap_backward(&x, 4.0, &mut got);
        let want: Vec<f64> = x.iter().map(|x| 3.0 * (1.0 - (f64::from(*x) / 4.0).tanh().powi(2))).collect();
        assert_close("softcap", &got, &want, 4e-7);
    });
}

/// What a norm's backward functions give for some rows.
struct NormRows {
    of_scale: Vec<f32>,
    through_apply: Vec<f32>,
    through_scale: Vec<f32>,
    whole: Vec<f32>,
}

fn norm_rows(
    layer: bool,
    x: &[f32],
    scale: &[f32],
    weight: &[f32],
    offset: f32,
    cotangent: &[f32],
) -> NormRows {
    let width = weight.len();
    let (mut of_scale, mut through_apply) = (vec![0.0; scale.len()], vec![0.0; x.len()]);
    let (mut through_scale, mut whole) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    if layer {
        norm::layer_norm_apply_backward(x, scale, weight, cotangent, &mut of_scale, &mut through_apply);
        norm::layer_norm_scale_backward(x, width, scale, &of_scale, &mut through_scale);
        norm::layer_norm_backward(x, scale, weight, cotangent, &mut whole);
    } else {
        norm::rms_norm_apply_backward(x, scale, weight, offset, cotangent, &mut of_scale, &mut through_apply);
        norm::rms_norm_scale_backward(x, width, scale, &of_scale, &mut through_scale);
        norm::rms_norm_backward(x, scale, weight, offset, cotangent, &mut whole);
    }
    NormRows { of_scale, through_apply, through_scale, whole }
}

#[test]
fn norms_agree_with_the_reference_and_the_whole_has_the_bits_of_the_steps() {
    on_every_isa(|isa| {
        for width in WIDTHS {
            let rows = 9;
            let x: Vec<f32> = normal(width as u64, rows * width).iter().map(|x| 2.0 * x + 0.5).collect();
            let (weight, cotangent) = (normal(100, width), normal(101, rows * width));
            for (layer, offset) in [(true, 0.0), (false, 0.0), (false, 1.0)] {
                let what = format!("{} width {width}, layer norm: {layer}", isa.name());
                let mut scale = vec![0.0; rows];
                if layer {
                    norm::layer_norm_scale(&x, width, 0.5, &mut scale);
                } else {
                    norm::rms_norm_scale(&x, width, 0.5, &mut scale);
                }
                let got = norm_rows(layer, &x, &scale, &weight, offset, &cotangent);
                let sum: Vec<f32> =
                    got.through_apply.iter().zip(&got.through_scale).map(|(a, b)| a + b).collect();
                assert_same_bits(&what, &got.whole, &sum);
                let shifted: Vec<f64> = weight.iter().map(|w| f64::from(*w) + f64::from(offset)).collect();
                for row in 0..rows {
                    let range = row * width..(row + 1) * width;
                    let (x, cotangent) = (&x[range.clone()], &cotangent[range.clone()]);
                    let want = reference::norm_backward(x, layer, f64::from(scale[row]), &shifted, cotangent);
                    assert_close(&what, &got.through_apply[range.clone()], &want.through_apply, 2e-6);
                    assert_close(&what, &got.of_scale[row..=row], &[want.scale], 1e-5);
                    assert_close(&what, &got.whole[range.clone()], &want.whole, 5e-6);
                    let alone = norm_rows(layer, x, &scale[row..=row], &weight, offset, cotangent);
                    assert_same_bits(&what, &alone.whole, &got.whole[range]);
                }
            }
        }
    });
}

#[test]
fn the_norms_reference_agrees_with_differences() {
    for width in [1, 2, 5, 33] {
        let (x, weight, cotangent) = (normal(5, width), normal(6, width), normal(7, width));
        let plain: Vec<f64> = weight.iter().map(|w| f64::from(*w)).collect();
        let layer = |x: &[f32]| product(&reference::layer_norm(x, 0.5, &weight, None), &cotangent);
        let scale = reference::layer_norm_scale(&x, 0.5);
        let got = reference::norm_backward(&x, true, scale, &plain, &cotangent).whole;
        for (got, want) in got.iter().zip(differences(&x, 1e-3, layer)) {
            assert!((got - want).abs() < 1e-5, "layer norm of {width}: {got} for {want}");
        }
        let rms = |x: &[f32]| product(&reference::rms_norm(x, 0.5, &weight, 0.0), &cotangent);
        let scale = reference::rms_norm_scale(&x, 0.5);
        let got = reference::norm_backward(&x, false, scale, &plain, &cotangent).whole;
        for (got, want) in got.iter().zip(differences(&x, 1e-3, rms)) {
            assert!((got - want).abs() < 1e-5, "rms norm of {width}: {got} for {want}");
        }
    }
}

#[test]
fn weights_of_norms_get_one_chain_over_the_rows() {
    on_every_isa(|_| {
        let (rows, width) = (21, 700);
        let (x, cotangent) = (normal(8, rows * width), normal(9, rows * width));
        let mut scale = vec![0.0; rows];
        norm::layer_norm_scale(&x, width, 1e-5, &mut scale);
        let (mut of_weight, mut of_bias) = (vec![0.0; width], vec![0.0; width]);
        norm::layer_norm_weight_backward(&x, &scale, &cotangent, &mut of_weight, Some(&mut of_bias));
        let mut of_rms_weight = vec![0.0; width];
        norm::rms_norm_weight_backward(&x, &scale, &cotangent, &mut of_rms_weight);
        let means: Vec<f64> = x
            .chunks(width)
            .map(|row| row.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64)
            .collect();
        let sums = |term: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
            (0..width)
                .map(|column| {
                    let term =
                        |row| term(row, row * width + column) * f64::from(cotangent[row * width + column]);
                    (0..rows).map(term).sum()
                })
                .collect()
        };
        let want = sums(&|row, place| (f64::from(x[place]) - means[row]) / f64::from(scale[row]));
        assert_close("layer norm's weight", &of_weight, &want, 2e-6);
        assert_close("its bias", &of_bias, &sums(&|_, _| 1.0), 2e-6);
        let want = sums(&|row, place| f64::from(x[place]) / f64::from(scale[row]));
        assert_close("rms norm's weight", &of_rms_weight, &want, 2e-6);
    });
}

#[test]
fn softmax_agrees_with_the_reference_and_a_weight_of_zero_takes_no_part() {
    on_every_isa(|isa| {
        for width in WIDTHS {
            let rows = 5;
            let mut probabilities: Vec<f32> = normal(3, rows * width).iter().map(|x| 3.0 * x).collect();
            reduce::softmax(&mut probabilities, width);
            let cotangent = normal(4, rows * width);
            let mut got = cotangent.clone();
            reduce::softmax_backward(&probabilities, width, &mut got);
            for (row, got) in got.chunks(width).enumerate() {
                let range = row * width..(row + 1) * width;
                let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
                let want = reference::softmax_backward(
                    &wide(&probabilities[range.clone()]),
                    &wide(&cotangent[range.clone()]),
                );
                assert_close(&format!("{} width {width}", isa.name()), got, &want, 2e-6);
                let mut alone = cotangent[range.clone()].to_vec();
                reduce::softmax_backward(&probabilities[range], width, &mut alone);
                assert_same_bits("a row alone", &alone, got);
            }
        }
        let mut got = [f32::NAN, 2.0, f32::INFINITY, 4.0];
        reduce::softmax_backward(&[0.0, 0.5, 0.0, 0.5], 4, &mut got);
        assert_eq!(got, [0.0, -0.5, 0.0, 0.5]);
    });
}

#[test]
fn rotary_turns_back_what_it_turned() {
    on_every_isa(|_| {
        let (tokens, heads, size) = (5, 3, 20);
        let table = RotaryTable::new(&[0, 1, 7, 1000, 40_000], &[1.0, 0.3, 0.01], 1.0);
        for style in [RotaryStyle::Half, RotaryStyle::Interleaved] {
            let (x, cotangent) = (normal(1, tokens * heads * size), normal(2, tokens * heads * size));
            fn view(data: &mut [f32]) -> HeadsViewMut<'_> {
                HeadsViewMut::new(data, 5, 3, 20, 60)
            }
            let (mut turned, mut back) = (x.clone(), cotangent.clone());
            rotary(view(&mut turned), &table, style);
            rotary_backward(view(&mut back), &table, style);
            // The transposed map: ⟨cotangent, R x⟩ = ⟨Rᵀ cotangent, x⟩, head by head.
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            for head in 0..tokens * heads {
                let range = head * size..(head + 1) * size;
                let left = dot(&cotangent[range.clone()], &turned[range.clone()]);
                let right = dot(&back[range.clone()], &x[range]);
                assert!((left - right).abs() < 1e-5, "{style:?}: {left} and {right}");
            }
            rotary_backward(view(&mut turned), &table, style);
            let want: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            assert_close("there and back", &turned, &want, 3e-7);
        }
    });
}

#[test]
fn a_linear_layers_inputs_get_the_product_with_the_weight_packed_the_other_way() {
    on_every_isa(|isa| {
        let (rows, k, n) = (17, 70, 45);
        let weight = normal(1, k * n);
        let cotangent = normal(2, rows * n);
        for (stored, other) in [
            (WeightLayout::OutputMajor, WeightLayout::InputMajor),
            (WeightLayout::InputMajor, WeightLayout::OutputMajor),
        ] {
            let back = PackedMatrix::pack_f32(n, k, &weight, other);
            let run = |cotangent: &[f32]| {
                let rows = cotangent.len() / n;
                let mut out = vec![f32::NAN; rows * k];
                matmul(cotangent, n, rows, &back, &Epilogue::default(), &mut out, k);
                out
            };
            let got = run(&cotangent);
            let at = |input: usize, output: usize| match stored {
                WeightLayout::OutputMajor => weight[output * k + input],
                WeightLayout::InputMajor => weight[input * n + output],
            };
            let want: Vec<f64> = (0..rows * k)
                .map(|place| {
                    let (row, input) = (place / k, place % k);
                    let term = |output| f64::from(cotangent[row * n + output]) * f64::from(at(input, output));
                    (0..n).map(term).sum()
                })
                .collect();
            assert_close(&format!("{} {stored:?}", isa.name()), &got, &want, 2e-6);
            for row in 0..rows {
                let alone = run(&cotangent[row * n..(row + 1) * n]);
                assert_same_bits("a row alone", &alone, &got[row * k..(row + 1) * k]);
            }
        }
    });
}

#[test]
fn a_linear_layers_weight_gets_one_chain_over_the_rows_in_either_layout() {
    on_every_isa(|isa| {
        for (rows, k, n) in [(0, 3, 4), (1, 1, 1), (5, 33, 17), (900, 20, 40), (3, 40, 100)] {
            let (x, cotangent) = (normal(1, rows * k), normal(2, rows * n));
            let (mut stored, mut turned) = (vec![f32::NAN; k * n], vec![f32::NAN; k * n]);
            matmul_weight_backward(&x, &cotangent, rows, k, n, WeightLayout::InputMajor, &mut stored);
            matmul_weight_backward(&x, &cotangent, rows, k, n, WeightLayout::OutputMajor, &mut turned);
            let mut back = vec![0.0; k * n];
            elementwise::transpose(&turned, k, n, k, &mut back, n);
            assert_same_bits(&format!("{} both layouts", isa.name()), &stored, &back);
            let want: Vec<f64> = (0..k * n)
                .map(|place| {
                    let (input, output) = (place / n, place % n);
                    let term = |row| f64::from(x[row * k + input]) * f64::from(cotangent[row * n + output]);
                    (0..rows).map(term).sum()
                })
                .collect();
            assert_close(&format!("{} {rows} rows", isa.name()), &stored, &want, 4e-6);
            let serial = pool::with_threads(1, || {
                let mut out = vec![f32::NAN; k * n];
                matmul_weight_backward(&x, &cotangent, rows, k, n, WeightLayout::InputMajor, &mut out);
                out
            });
            assert_same_bits("on one thread", &serial, &stored);
        }
        let mut sums = [0.0; 3];
        reduce::sum_of_rows(&[1.0, 2.0, 3.0, 10.0, 20.0, 30.0], 3, &mut sums);
        assert_eq!(sums, [11.0, 22.0, 33.0]);
    });
}
