//! Gradients of element-wise operations.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, LN_2};

use candle_core::cpu::erf::erf_f64;
use pellucid_graph::OperationKind;

use super::super::Result;
use super::super::arguments::Operand;
use super::super::number::{float_type, result_type, rounded, store};
use super::super::walk::{broadcast_strides, walk};
use super::backward::{Backward, compute, zeros};
use crate::tensor::{Stored, Tensor, with_stored};

/// Sums, differences, products, quotients and remainders: each factor of these is itself an operation.
pub(super) fn arithmetic(backward: &mut Backward<'_>) -> Result<()> {
    use OperationKind::*;
    let kind = backward.kind();
    let (a, b) = (backward.call.operand(0)?, backward.call.operand(1)?);
    let cotangent = backward.cotangent()?;
    let gradient = &cotangent;
    backward.give(0, |_| match kind {
        Mul => compute(Mul, [gradient.into(), (&b).into()]),
        Div => compute(Div, [gradient.into(), (&b).into()]),
        _ => Ok(gradient.clone()),
    })?;
    backward.give(1, |backward| match kind {
        Sub => compute(Neg, [gradient.into()]),
        Mul => compute(Mul, [gradient.into(), (&a).into()]),
        Div => {
            let slope = compute(Div, [(&backward.output(0)?).into(), (&b).into()])?;
            compute(Neg, [(&compute(Mul, [gradient.into(), (&slope).into()])?).into()])
        }
        Remainder => {
            let quotient = compute(FloorDivide, [(&a).into(), (&b).into()])?;
            compute(Neg, [(&compute(Mul, [gradient.into(), (&quotient).into()])?).into()])
        }
        _ => Ok(gradient.clone()),
    })
}

/// Powers, and the larger and smaller of two: equal operands share the gradient.
pub(super) fn pair(backward: &mut Backward<'_>) -> Result<()> {
    use OperationKind::*;
    let kind = backward.kind();
    let operands = [backward.call.operand(0)?, backward.call.operand(1)?];
    let common = float_type(result_type(&[&operands[0], &operands[1]]));
    let number = |operand: &Operand| match operand {
        // Literals are rounded as the forward computation rounds them.
        Operand::Scalar(scalar) => Tensor::from_f64(vec![rounded(*scalar, common)], &[]),
        Operand::Tensor(tensor) => Ok(tensor.clone()),
    };
    let (a, b) = (number(&operands[0])?, number(&operands[1])?);
    let gradient = backward.cotangent()?;
    let first: fn(f64, f64, f64) -> f64 = match kind {
        Pow => |g, a, b| if b == 0.0 { 0.0 } else { g * (b * a.powf(b - 1.0)) },
        Maximum => |g, a, b| shared(g, a == b, a < b),
        _ => |g, a, b| shared(g, a == b, a > b),
    };
    let second: fn(f64, f64, f64) -> f64 = match kind {
        Pow => |g, a, b| if a == 0.0 && b >= 0.0 { 0.0 } else { g * (a.powf(b) * a.ln()) },
        Maximum => |g, a, b| shared(g, a == b, a > b),
        _ => |g, a, b| shared(g, a == b, a < b),
    };
    backward.give(0, |_| combined(&gradient, &a, &b, first))?;
    backward.give(1, |_| combined(&gradient, &a, &b, second))
}

fn shared(gradient: f64, equal: bool, lost: bool) -> f64 {
    if equal {
        gradient / 2.0
    } else if lost {
        0.0
    } else {
        gradient
    }
}

/// A function of a gradient and two operands that are broadcast to its shape; the result has its shape and number type.
pub(super) fn combined(
    gradient: &Tensor,
    a: &Tensor,
    b: &Tensor,
    function: impl Fn(f64, f64, f64) -> f64,
) -> Result<Tensor> {
    let shape = gradient.shape();
    let strides = [gradient, a, b].map(|tensor| broadcast_strides(tensor.shape(), shape));
    let (own, a, b) = (gradient.doubles()?, a.doubles()?, b.doubles()?);
    let (own, a, b): (&[f64], &[f64], &[f64]) = (&own, &a, &b);
    let mut elements = Vec::with_capacity(own.len());
    walk(shape, [&strides[0], &strides[1], &strides[2]], [0; 3], |at, length, steps| {
        let ([at, at_a, at_b], [step, step_a, step_b]) =
            (at.map(|at| at as usize), steps.map(|step| step as usize));
        elements.extend((0..length).map(|count| {
            function(own[at + count * step], a[at_a + count * step_a], b[at_b + count * step_b])
        }));
    });
    store(elements, shape, gradient.dtype())
}

/// Functions of one float: the derivative by the cotangent, the input and the output.
pub(super) fn function(backward: &mut Backward<'_>) -> Result<()> {
    let kind = backward.kind();
    let tanh_gelu = kind == OperationKind::Gelu && backward.call.text(1).unwrap_or("none") == "tanh";
    let derivative = derivative(kind, tanh_gelu);
    backward.give(0, |backward| {
        let (gradient, input, output) =
            (backward.cotangent()?, backward.call.tensor(0)?, backward.output(0)?);
        if input.dtype() != output.dtype() {
            return Err(backward.call.error("the output is not of the input's number type"));
        }
        let elements: Vec<f64> = with_stored!(input.dtype(), T => {
            let (g, x, y) = (gradient.read::<T>()?, input.read::<T>()?, output.read::<T>()?);
            g.iter().zip(x.iter().zip(y.iter())).map(|(g, (x, y))| {
                derivative(Stored::double(*g), Stored::double(*x), Stored::double(*y))
            }).collect()
        });
        store(elements, input.shape(), input.dtype())
    })
}

/// `∂L/∂x` of `y = f(x)`, from `∂L/∂y`, `x` and `y`.
fn derivative(kind: OperationKind, tanh_gelu: bool) -> fn(f64, f64, f64) -> f64 {
    use OperationKind::*;
    match kind {
        Neg => |g, _, _| -g,
        Abs => |g, x, _| g * sign(x),
        Exp => |g, _, y| g * y,
        Expm1 => |g, _, y| g * (y + 1.0),
        Log => |g, x, _| g / x,
        Log2 => |g, x, _| g / (x * LN_2),
        Log1p => |g, x, _| g / (x + 1.0),
        Sqrt => |g, _, y| g / (2.0 * y),
        Rsqrt => |g, _, y| -0.5 * g * y * y * y,
        Reciprocal => |g, _, y| -g * y * y,
        Sin => |g, x, _| g * x.cos(),
        Cos => |g, x, _| -g * x.sin(),
        Tanh => |g, _, y| g * (1.0 - y * y),
        Sigmoid => |g, _, y| g * (1.0 - y) * y,
        Erf => |g, x, _| g * FRAC_2_SQRT_PI * (-x * x).exp(),
        Relu => |g, _, y| if y <= 0.0 { 0.0 } else { g },
        Gelu if tanh_gelu => |g, x, _| {
            let scale = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
            let inner = (scale * (x + 0.044715 * x * x * x)).tanh();
            let slope = scale * (1.0 + 3.0 * 0.044715 * x * x);
            g * (0.5 * (1.0 + inner) + 0.5 * x * (1.0 - inner * inner) * slope)
        },
        Gelu => |g, x, _| {
            let cumulative = 0.5 * (1.0 + erf_f64(x * FRAC_1_SQRT_2));
            let density = 0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * (-0.5 * x * x).exp();
            g * (cumulative + x * density)
        },
        Silu => |g, x, _| {
            let sigmoid = 1.0 / (1.0 + (-x).exp());
            g * sigmoid * (1.0 + x * (1.0 - sigmoid))
        },
        // As the forward computation, linear from 20 on.
        Softplus => |g, x, _| if x > 20.0 { g } else { g / (1.0 + (-x).exp()) },
        // Sign and the roundings are flat.
        _ => |_, _, _| 0.0,
    }
}

/// −1, 0 or 1.
pub(super) fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// All of the gradient between the bounds and on them, none outside.
/// What was kept as it is; at a bound itself nothing passes, as in PyTorch.
pub(super) fn clamp(backward: &mut Backward<'_>) -> Result<()> {
    backward.give(0, |backward| {
        let (input, gradient) = (backward.call.tensor(0)?, backward.cotangent()?);
        let bound = |place: usize, absent: f64| -> Result<f64> {
            let bound = backward.call.optional_number(place)?;
            Ok(bound.map_or(absent, |bound| rounded(bound, float_type(input.dtype()))))
        };
        let (low, high) = (bound(1, f64::NEG_INFINITY)?, bound(2, f64::INFINITY)?);
        combined(&gradient, &input, &input, |g, x, _| if x > low && x < high { g } else { 0.0 })
    })
}

/// The gradient goes where the choice came from.
pub(super) fn choose(backward: &mut Backward<'_>) -> Result<()> {
    use OperationKind::Where;
    let (condition, gradient) = (backward.call.tensor(0)?, backward.cotangent()?);
    let nothing = zeros(&[], gradient.dtype())?;
    backward.give(1, |_| compute(Where, [(&condition).into(), (&gradient).into(), (&nothing).into()]))?;
    backward.give(2, |_| compute(Where, [(&condition).into(), (&nothing).into(), (&gradient).into()]))
}

pub(super) fn masked_fill(backward: &mut Backward<'_>) -> Result<()> {
    use OperationKind::Where;
    let (mask, gradient) = (backward.call.tensor(1)?, backward.cotangent()?);
    let nothing = zeros(&[], gradient.dtype())?;
    backward.give(0, |_| compute(Where, [(&mask).into(), (&nothing).into(), (&gradient).into()]))?;
    backward.give(2, |_| compute(Where, [(&mask).into(), (&gradient).into(), (&nothing).into()]))
}
