//! One step of an optimiser: parameter and state in, parameter and state out.

use crate::rules::promotion::Operand;
use crate::rules::{RuleContext, RuleError, RuleResult, cost};
use crate::shape::TensorType;

/// A number that is a literal or a value without dimensions.
fn lone(context: &RuleContext<'_>, name: &str, operand: &Operand) -> Result<(), RuleError> {
    match operand {
        Operand::Tensor(_, tensor) if !tensor.shape.is_empty() || tensor.dtype == crate::DType::Bool => {
            Err(context.error(format!("takes as `{name}` one number, not {tensor}")))
        }
        _ => Ok(()),
    }
}

/// A number from `low` up to and without `high`.
fn within(context: &RuleContext<'_>, name: &str, low: f64, high: f64) -> Result<(), RuleError> {
    let number = context.number(name)?.as_f64();
    if (low..high).contains(&number) {
        return Ok(());
    }
    let range =
        if high.is_finite() { format!("from {low} to below {high}") } else { format!("from {low} on") };
    Err(context.error(format!("takes as `{name}` a number {range}, not {number}")))
}

/// The parameter's type, which every other tensor of the step has.
fn parameter(context: &RuleContext<'_>, others: &[&str]) -> Result<TensorType, RuleError> {
    let parameter = context.tensor("parameter")?;
    context.float(&parameter)?;
    for name in others {
        let Some(other) = context.optional_tensor(name)? else { continue };
        let fits = other.dtype == parameter.dtype
            && other.shape.len() == parameter.shape.len()
            && other.shape.iter().zip(&parameter.shape).all(|(a, b)| a.could_equal(b));
        if !fits {
            return Err(
                context.error(format!("takes a `{name}` of the parameter's type {parameter}, not {other}"))
            );
        }
    }
    lone(context, "lr", &context.operand("lr")?)?;
    Ok(parameter)
}

/// The new parameter and momentum buffer.
pub(crate) fn sgd_step(context: &mut RuleContext<'_>) -> RuleResult {
    let parameter = parameter(context, &["gradient", "momentum_buffer"])?;
    for name in ["momentum", "weight_decay"] {
        within(context, name, 0.0, f64::INFINITY)?;
    }
    let dampening = context.number("dampening")?.as_f64();
    if context.boolean("nesterov")? && (context.number("momentum")?.as_f64() == 0.0 || dampening != 0.0) {
        return Err(context.error("with `nesterov` needs a `momentum`, and no `dampening`"));
    }
    let flops = cost(&parameter, 6);
    context.all(vec![parameter.clone(), parameter], flops)
}

/// The new parameter, and the running means of the gradient and of its square.
pub(crate) fn adam_step(context: &mut RuleContext<'_>) -> RuleResult {
    let parameter = parameter(context, &["gradient", "exp_avg", "exp_avg_sq"])?;
    lone(context, "step", &context.operand("step")?)?;
    if let Operand::Number(step) = context.operand("step")?
        && !(1.0..).contains(&step.as_f64())
    {
        return Err(context.error(format!("counts steps from 1 on, not {step}")));
    }
    within(context, "beta1", 0.0, 1.0)?;
    within(context, "beta2", 0.0, 1.0)?;
    within(context, "eps", 0.0, f64::INFINITY)?;
    within(context, "weight_decay", 0.0, f64::INFINITY)?;
    context.boolean("decoupled")?;
    let flops = cost(&parameter, 16);
    context.all(vec![parameter.clone(), parameter.clone(), parameter], flops)
}

/// Each gradient scaled, and last the norm that all had together.
pub(crate) fn clip_grad_norm(context: &mut RuleContext<'_>) -> RuleResult {
    let mut gradients = context.tensors("gradients")?;
    within(context, "max_norm", 0.0, f64::INFINITY)?;
    context.number("norm_type")?;
    for gradient in &gradients {
        context.float(gradient)?;
    }
    let flops = gradients.iter().fold(0u64, |sum, gradient| sum.saturating_add(cost(gradient, 3)));
    let dtype = gradients.iter().map(|gradient| gradient.dtype).reduce(|a, b| a.promote(b));
    gradients.push(TensorType { dtype: dtype.unwrap_or(crate::DType::F32), shape: Vec::new() });
    context.all(gradients, flops)
}
