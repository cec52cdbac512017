//! Operations on each element by itself, with broadcasting.

use candle_core::cpu::erf::{erf_f32, erf_f64};
use pellucid_graph::{DType, OperationKind, Scalar};
use pellucid_kernels::{Activation, activation, elementwise as kernels};

use super::Result;
use super::arguments::{Call, Operand};
use super::number::{Computation, Number, float_type, number, result_type, rounded, store};
use super::walk::{broadcast, broadcast_shape, broadcast_strides, walk};
use crate::tensor::{Elements, Tensor, element_count, with_stored};

/// The shape that the operands broadcast to.
fn common_shape(call: &Call<'_>, shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let shape = broadcast_shape(shapes).ok_or_else(|| {
        let shapes: Vec<String> = shapes.iter().map(|shape| format!("{shape:?}")).collect();
        call.error(format!("the shapes {} do not broadcast together", shapes.join(" and ")))
    })?;
    element_count(&shape)?;
    Ok(shape)
}

/// A number operand's elements, rounded to the common number type and ready to compute with.
fn elements<N: Number>(operand: &Operand, common: DType) -> Result<Elements<'_, N>> {
    match operand {
        Operand::Scalar(scalar) => Ok(Elements::Owned(vec![rounded(*scalar, common)])),
        Operand::Tensor(tensor) if tensor.dtype() == common => N::elements(tensor),
        Operand::Tensor(tensor) => Ok(Elements::Owned(N::elements(&tensor.cast(common)?)?.into_vec())),
    }
}

/// As [`elements`], but beside 16-bit floats a lone number keeps its own precision, as PyTorch's `mul` and `div` have it
/// for their second operand.
fn precise_elements<N: Number>(operand: &Operand, common: DType) -> Result<Elements<'_, N>> {
    match operand {
        Operand::Scalar(scalar) if matches!(common, DType::Bf16 | DType::F16) => {
            Ok(Elements::Owned(vec![number(*scalar)]))
        }
        Operand::Tensor(tensor) if matches!(common, DType::Bf16 | DType::F16) && tensor.elements() == 1 => {
            N::elements(tensor)
        }
        operand => elements(operand, common),
    }
}

pub(super) fn arithmetic(call: &Call<'_>) -> Result<Tensor> {
    let (left, right) = (call.operand(0)?, call.operand(1)?);
    let common = result_type(&[&left, &right]);
    let shape = common_shape(call, &[left.shape(), right.shape()])?;
    match Computation::of(common) {
        Computation::Double => compute::<f64>(call, &left, &right, common, &shape),
        Computation::Single => compute::<f32>(call, &left, &right, common, &shape),
        Computation::Integer => {
            let divides = matches!(call.kind(), OperationKind::FloorDivide | OperationKind::Remainder);
            if divides && elements::<i64>(&right, common)?.contains(&0) {
                return Err(call
                    .error("an integer is divided by 0")
                    .hint("divide floats, or replace the zeros first"));
            }
            if let (OperationKind::Pow, Operand::Scalar(exponent)) = (call.kind(), &right)
                && exponent.as_f64() < 0.0
            {
                return Err(call
                    .error("an integer cannot be raised to a negative power")
                    .hint("cast it to f32 first"));
            }
            compute::<i64>(call, &left, &right, common, &shape)
        }
    }
}

fn compute<N: Number>(
    call: &Call<'_>,
    left: &Operand,
    right: &Operand,
    common: DType,
    shape: &[usize],
) -> Result<Tensor> {
    use OperationKind::*;
    let a = match left {
        Operand::Scalar(_) if call.kind() == Mul => precise_elements::<N>(left, common)?,
        _ => elements::<N>(left, common)?,
    };
    let b = if call.kind() == Mul {
        precise_elements::<N>(right, common)?
    } else {
        elements::<N>(right, common)?
    };
    let (a, b) = ((&a[..], left.shape()), (&b[..], right.shape()));
    let result = match call.kind() {
        Add => broadcast(shape, a, b, N::plus),
        Sub => broadcast(shape, a, b, N::minus),
        Mul => broadcast(shape, a, b, N::times),
        FloorDivide => broadcast(shape, a, b, N::floor_divide),
        Remainder => broadcast(shape, a, b, N::remainder),
        Pow => match right {
            // PyTorch computes these powers in closed form, so their roundings (and the root of −∞) are those.
            Operand::Scalar(exponent) if common.is_float() => power(a.0, exponent.as_f64(), b.0),
            _ => broadcast(shape, a, b, N::power),
        },
        Maximum => broadcast(shape, a, b, |a, b| if a > b || a.is_nan() { a } else { b }),
        _ => broadcast(shape, a, b, |a, b| if a < b || a.is_nan() { a } else { b }),
    };
    store(result, shape, common)
}

fn power<N: Number>(elements: &[N], exponent: f64, rounded: &[N]) -> Vec<N> {
    let one = N::from_integer(1);
    let each = |function: fn(N, N) -> N| elements.iter().map(|&x| function(x, one)).collect();
    if exponent == 2.0 {
        each(|x, _| x.times(x))
    } else if exponent == 3.0 {
        each(|x, _| x.times(x).times(x))
    } else if exponent == -1.0 {
        each(|x, one| one / x)
    } else if exponent == -2.0 {
        each(|x, one| one / x.times(x))
    } else if exponent == 0.5 {
        each(|x, _| N::from_double(x.double().sqrt()))
    } else if exponent == -0.5 {
        each(|x, one| one / N::from_double(x.double().sqrt()))
    } else {
        let exponent = rounded.first().copied().unwrap_or_default();
        elements.iter().map(|x| x.power(exponent)).collect()
    }
}

pub(super) fn true_division(call: &Call<'_>) -> Result<Tensor> {
    let (left, right) = (call.operand(0)?, call.operand(1)?);
    let common = float_type(result_type(&[&left, &right]));
    let shape = common_shape(call, &[left.shape(), right.shape()])?;
    if common == DType::F64 {
        let (a, b) = (elements::<f64>(&left, common)?, elements::<f64>(&right, common)?);
        return store(
            broadcast(&shape, (&a, left.shape()), (&b, right.shape()), |a, b| a / b),
            &shape,
            common,
        );
    }
    let (a, b) = (elements::<f32>(&left, common)?, precise_elements::<f32>(&right, common)?);
    store(broadcast(&shape, (&a, left.shape()), (&b, right.shape()), |a, b| a / b), &shape, common)
}

pub(super) fn comparison(call: &Call<'_>) -> Result<Tensor> {
    let (left, right) = (call.operand(0)?, call.operand(1)?);
    let common = result_type(&[&left, &right]);
    let shape = common_shape(call, &[left.shape(), right.shape()])?;
    let truths = match Computation::of(common) {
        Computation::Double => compare::<f64>(call, &left, &right, common, &shape)?,
        Computation::Single => compare::<f32>(call, &left, &right, common, &shape)?,
        Computation::Integer => compare::<i64>(call, &left, &right, common, &shape)?,
    };
    Tensor::from_stored(truths, &shape, DType::Bool)
}

fn compare<N: Number>(
    call: &Call<'_>,
    left: &Operand,
    right: &Operand,
    common: DType,
    shape: &[usize],
) -> Result<Vec<u8>> {
    use OperationKind::*;
    let (a, b) = (elements::<N>(left, common)?, elements::<N>(right, common)?);
    let (a, b) = ((&a[..], left.shape()), (&b[..], right.shape()));
    Ok(match call.kind() {
        Eq => broadcast(shape, a, b, |a, b| u8::from(a == b)),
        Ne => broadcast(shape, a, b, |a, b| u8::from(a != b)),
        Lt => broadcast(shape, a, b, |a, b| u8::from(a < b)),
        Le => broadcast(shape, a, b, |a, b| u8::from(a <= b)),
        Gt => broadcast(shape, a, b, |a, b| u8::from(a > b)),
        _ => broadcast(shape, a, b, |a, b| u8::from(a >= b)),
    })
}

fn truths(operand: &Operand) -> Result<Vec<bool>> {
    match operand {
        Operand::Tensor(tensor) => tensor.truths(),
        Operand::Scalar(scalar) => Ok(vec![scalar.as_f64() != 0.0]),
    }
}

pub(super) fn logic(call: &Call<'_>) -> Result<Tensor> {
    let (left, right) = (call.operand(0)?, call.operand(1)?);
    let shape = common_shape(call, &[left.shape(), right.shape()])?;
    let (a, b) = (truths(&left)?, truths(&right)?);
    let (a, b) = ((&a[..], left.shape()), (&b[..], right.shape()));
    let result = match call.kind() {
        OperationKind::LogicalAnd => broadcast(&shape, a, b, |a, b| u8::from(a && b)),
        OperationKind::LogicalOr => broadcast(&shape, a, b, |a, b| u8::from(a || b)),
        _ => broadcast(&shape, a, b, |a, b| u8::from(a != b)),
    };
    Tensor::from_stored(result, &shape, DType::Bool)
}

pub(super) fn predicate(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let truths: Vec<bool> = match call.kind() {
        OperationKind::LogicalNot => input.truths()?.into_iter().map(|truth| !truth).collect(),
        kind if input.dtype().is_float() => {
            let elements = input.doubles()?;
            match kind {
                OperationKind::IsNan => elements.iter().map(|x| x.is_nan()).collect(),
                OperationKind::IsInf => elements.iter().map(|x| x.is_infinite()).collect(),
                _ => elements.iter().map(|x| x.is_finite()).collect(),
            }
        }
        kind => vec![kind == OperationKind::IsFinite; input.elements()],
    };
    Tensor::from_bool(&truths, input.shape())
}

/// Applies a function to each element.
fn each<T: Copy>(elements: &[T], function: impl Fn(T) -> T) -> Vec<T> {
    elements.iter().map(|&element| function(element)).collect()
}

macro_rules! same_type_of_floats {
    ($name:ident, $type:ty) => {
        fn $name(kind: OperationKind, elements: &[$type]) -> Vec<$type> {
            use OperationKind::*;
            match kind {
                Neg => each(elements, |x| -x),
                Abs => each(elements, <$type>::abs),
                Sign => each(elements, |x| {
                    if x > 0.0 {
                        1.0
                    } else if x < 0.0 {
                        -1.0
                    } else {
                        0.0
                    }
                }),
                Floor => each(elements, <$type>::floor),
                Ceil => each(elements, <$type>::ceil),
                Round => each(elements, <$type>::round_ties_even),
                Trunc => each(elements, <$type>::trunc),
                _ => each(elements, |x| if x < 0.0 { 0.0 } else { x }),
            }
        }
    };
}
same_type_of_floats!(same_type_of_singles, f32);
same_type_of_floats!(same_type_of_doubles, f64);

pub(super) fn same_type(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let (dtype, shape) = (input.dtype(), input.shape());
    match Computation::of(dtype) {
        Computation::Double => store(same_type_of_doubles(call.kind(), &input.doubles()?), shape, dtype),
        Computation::Single => store(same_type_of_singles(call.kind(), &input.singles()?), shape, dtype),
        Computation::Integer => {
            let elements = input.integers()?;
            let result = match call.kind() {
                OperationKind::Neg => each(&elements, i64::wrapping_neg),
                OperationKind::Abs => each(&elements, i64::wrapping_abs),
                OperationKind::Sign => each(&elements, i64::signum),
                OperationKind::Relu => each(&elements, |x| x.max(0)),
                _ => elements.into_vec(),
            };
            store(result, shape, dtype)
        }
    }
}

pub(super) fn clamp(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let (low, high) = (call.optional_number(1)?, call.optional_number(2)?);
    let operand = Operand::Tensor(input.clone());
    let bounds: Vec<Operand> = [low, high].into_iter().flatten().map(Operand::Scalar).collect();
    let dtype = result_type(&std::iter::once(&operand).chain(&bounds).collect::<Vec<_>>());
    match Computation::of(dtype) {
        Computation::Double => clamped::<f64>(&operand, low, high, dtype),
        Computation::Single => clamped::<f32>(&operand, low, high, dtype),
        Computation::Integer => clamped::<i64>(&operand, low, high, dtype),
    }
}

fn clamped<N: Number>(
    input: &Operand,
    low: Option<Scalar>,
    high: Option<Scalar>,
    dtype: DType,
) -> Result<Tensor> {
    let elements = elements::<N>(input, dtype)?;
    // A bound beyond the number type bounds nothing; one on the other side, which would leave nothing, was refused.
    let within = |bound: &Scalar| bound.side(dtype) == 0;
    let low: Option<N> = low.filter(within).map(|low| rounded(low, dtype));
    let high: Option<N> = high.filter(within).map(|high| rounded(high, dtype));
    // A NaN among the bounds makes all NaN; where the bounds cross, the upper one holds.
    let at_least = |x: N, low: N| if low.is_nan() || x < low { low } else { x };
    let at_most = |x: N, high: N| if high.is_nan() || x > high { high } else { x };
    let result = match (low, high) {
        (Some(low), Some(high)) => each(&elements, |x| at_most(at_least(x, low), high)),
        (Some(low), None) => each(&elements, |x| at_least(x, low)),
        (None, Some(high)) => each(&elements, |x| at_most(x, high)),
        (None, None) => elements.into_vec(),
    };
    store(result, input.shape(), dtype)
}

macro_rules! function_of_floats {
    ($name:ident, $type:ident, $erf:ident) => {
        fn $name(kind: OperationKind, tanh_gelu: bool, elements: &[$type]) -> Vec<$type> {
            use OperationKind::*;
            use std::$type::consts;
            match kind {
                Exp => each(elements, $type::exp),
                Expm1 => each(elements, $type::exp_m1),
                Log => each(elements, $type::ln),
                Log2 => each(elements, $type::log2),
                Log1p => each(elements, $type::ln_1p),
                Sqrt => each(elements, $type::sqrt),
                Rsqrt => each(elements, |x| 1.0 / x.sqrt()),
                Reciprocal => each(elements, |x| 1.0 / x),
                Sin => each(elements, $type::sin),
                Cos => each(elements, $type::cos),
                Tanh => each(elements, $type::tanh),
                Sigmoid => each(elements, |x| 1.0 / (1.0 + (-x).exp())),
                Erf => each(elements, $erf),
                Gelu if tanh_gelu => each(elements, |x| {
                    let inner = consts::FRAC_2_SQRT_PI * consts::FRAC_1_SQRT_2 * (x + 0.044715 * x * x * x);
                    0.5 * x * (1.0 + inner.tanh())
                }),
                Gelu => each(elements, |x| 0.5 * x * (1.0 + $erf(x * consts::FRAC_1_SQRT_2))),
                Silu => each(elements, |x| x / (1.0 + (-x).exp())),
                _ => each(elements, |x| if x > 20.0 { x } else { x.exp().ln_1p() }),
            }
        }
    };
}
function_of_floats!(function_of_singles, f32, erf_f32);
function_of_floats!(function_of_doubles, f64, erf_f64);

pub(super) fn float_function(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let dtype = float_type(input.dtype());
    let tanh_gelu = call.kind() == OperationKind::Gelu
        && match call.text(1).unwrap_or("none") {
            "none" => false,
            "tanh" => true,
            other => return Err(call.error(format!("`approximate` is none or tanh, not {other:?}"))),
        };
    if dtype == DType::F64 {
        let result = function_of_doubles(call.kind(), tanh_gelu, &input.doubles()?);
        return store(result, input.shape(), dtype);
    }
    let singles = input.singles()?;
    let result = match vectorised(call.kind(), tanh_gelu) {
        Some(kernel) => {
            let mut elements = singles.into_vec();
            kernel(&mut elements);
            elements
        }
        None => function_of_singles(call.kind(), tanh_gelu, &singles),
    };
    store(result, input.shape(), dtype)
}

/// The functions for which there is a vectorised kernel, in place.
fn vectorised(kind: OperationKind, tanh_gelu: bool) -> Option<fn(&mut [f32])> {
    Some(match kind {
        OperationKind::Exp => kernels::exp,
        OperationKind::Log => kernels::log,
        OperationKind::Tanh => kernels::tanh,
        OperationKind::Erf => kernels::erf,
        OperationKind::Sigmoid => |elements| activation::apply(Activation::Sigmoid, elements),
        OperationKind::Gelu if tanh_gelu => |elements| activation::apply(Activation::GeluTanh, elements),
        OperationKind::Gelu => |elements| activation::apply(Activation::Gelu, elements),
        OperationKind::Silu => |elements| activation::apply(Activation::Silu, elements),
        _ => return None,
    })
}

pub(super) fn choose(call: &Call<'_>) -> Result<Tensor> {
    let condition = call.tensor(0)?;
    let (input, other) = (call.operand(1)?, call.operand(2)?);
    let dtype = result_type(&[&input, &other]);
    let shape = common_shape(call, &[condition.shape(), input.shape(), other.shape()])?;
    select(&condition, &input.cast(dtype)?, &other.cast(dtype)?, &shape)
}

pub(super) fn masked_fill(call: &Call<'_>) -> Result<Tensor> {
    let (input, mask, value) = (call.tensor(0)?, call.tensor(1)?, call.operand(2)?);
    let shape = common_shape(call, &[input.shape(), mask.shape()])?;
    if !value.shape().is_empty() {
        return Err(call.error(format!("`value` must have no dimensions, not the shape {:?}", value.shape())));
    }
    select(&mask, &value.cast(input.dtype())?, &input, &shape)
}

/// One of two tensors of the same number type, by a condition; all three are broadcast.
fn select(condition: &Tensor, input: &Tensor, other: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let truths = condition.truths()?;
    let strides = [condition, input, other].map(|tensor| broadcast_strides(tensor.shape(), shape));
    with_stored!(input.dtype(), T => {
        let (a, b) = (input.read::<T>()?, other.read::<T>()?);
        let (a, b): (&[T], &[T]) = (&a, &b);
        let mut chosen: Vec<T> = Vec::with_capacity(element_count(shape)?);
        walk(shape, [&strides[0], &strides[1], &strides[2]], [0; 3], |at, length, steps| {
            let [truth, mine, yours] = at.map(|at| at as usize);
            match steps {
                [1, 1, 1] => {
                    let pairs = a[mine..mine + length].iter().zip(&b[yours..yours + length]);
                    let truths = &truths[truth..truth + length];
                    chosen.extend(truths.iter().zip(pairs).map(|(&truth, (&a, &b))| pick(truth, a, b)));
                }
                [1, 1, 0] => {
                    let truths = &truths[truth..truth + length];
                    let (mine, yours) = (&a[mine..mine + length], b[yours]);
                    chosen.extend(truths.iter().zip(mine).map(|(&truth, &a)| pick(truth, a, yours)));
                }
                [1, 0, 1] => {
                    let truths = &truths[truth..truth + length];
                    let (mine, yours) = (a[mine], &b[yours..yours + length]);
                    chosen.extend(truths.iter().zip(yours).map(|(&truth, &b)| pick(truth, mine, b)));
                }
                _ => {
                    let steps = steps.map(|step| step as usize);
                    chosen.extend((0..length).map(|count| {
                        let truth = truths[truth + count * steps[0]];
                        pick(truth, a[mine + count * steps[1]], b[yours + count * steps[2]])
                    }));
                }
            }
        });
        Tensor::from_stored(chosen, shape, input.dtype())
    })
}

fn pick<T>(truth: bool, a: T, b: T) -> T {
    if truth { a } else { b }
}
