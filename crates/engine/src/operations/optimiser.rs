//! One step of an optimiser, as `torch.optim` takes it. Computed in `f64`, rounded once.

use pellucid_graph::DType;

use super::arguments::{Call, Operand};
use super::number::store;
use super::reduction::norm;
use super::{OperationError, Result};
use crate::tensor::Tensor;

/// A number that is a literal or a value without dimensions.
fn lone(call: &Call<'_>, place: usize) -> Result<f64> {
    match call.operand(place)? {
        Operand::Scalar(scalar) => Ok(scalar.as_f64()),
        Operand::Tensor(tensor) => match tensor.to_vec_f64()?.as_slice() {
            [number] => Ok(*number),
            _ => Err(call.error(format!("a step takes one number, not the shape {:?}", tensor.shape()))),
        },
    }
}

fn mismatch(call: &Call<'_>, parameter: &Tensor, other: &Tensor) -> OperationError {
    call.error(format!(
        "a parameter of shape {:?} does not go with a tensor of shape {:?}",
        parameter.shape(),
        other.shape()
    ))
}

pub(super) fn sgd_step(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (parameter, gradient, buffer) = (call.tensor(0)?, call.tensor(1)?, call.optional_tensor(3)?);
    let (rate, momentum) = (lone(call, 2)?, call.number(4)?.as_f64());
    let (dampening, decay) = (call.number(5)?.as_f64(), call.number(6)?.as_f64());
    let nesterov = call.boolean(7)?;
    for other in buffer.iter().chain([&gradient]) {
        if other.shape() != parameter.shape() {
            return Err(mismatch(call, &parameter, other));
        }
    }
    let mut parameters = parameter.to_vec_f64()?;
    // As in torch.optim, the buffer is the gradient itself at first.
    let mut buffers = match &buffer {
        Some(buffer) => buffer.to_vec_f64()?,
        None => vec![0.0; parameters.len()],
    };
    let (kept, added) = if buffer.is_some() { (momentum, 1.0 - dampening) } else { (0.0, 1.0) };
    let gradients = gradient.doubles()?;
    for ((parameter, buffer), gradient) in parameters.iter_mut().zip(&mut buffers).zip(gradients.iter()) {
        let gradient = gradient + decay * *parameter;
        let mut step = gradient;
        if momentum != 0.0 {
            *buffer = kept * *buffer + added * gradient;
            step = if nesterov { gradient + momentum * *buffer } else { *buffer };
        }
        *parameter -= rate * step;
    }
    let (shape, dtype) = (parameter.shape(), parameter.dtype());
    Ok(vec![store(parameters, shape, dtype)?, store(buffers, shape, dtype)?])
}

pub(super) fn adam_step(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (parameter, gradient) = (call.tensor(0)?, call.tensor(1)?);
    let (mean, square) = (call.tensor(2)?, call.tensor(3)?);
    let (step, rate) = (lone(call, 4)?, lone(call, 5)?);
    let [beta1, beta2, epsilon, decay] = [6, 7, 8, 9].map(|place| call.number(place));
    let (beta1, beta2) = (beta1?.as_f64(), beta2?.as_f64());
    let (epsilon, decay, decoupled) = (epsilon?.as_f64(), decay?.as_f64(), call.boolean(10)?);
    if step.is_nan() || step < 1.0 {
        return Err(call
            .error(format!("steps count from 1 on, and this is step {step}"))
            .hint("add 1 to a counter that starts at 0"));
    }
    for other in [&gradient, &mean, &square] {
        if other.shape() != parameter.shape() {
            return Err(mismatch(call, &parameter, other));
        }
    }
    let mut parameters = parameter.to_vec_f64()?;
    let (mut means, mut squares) = (mean.to_vec_f64()?, square.to_vec_f64()?);
    let (correction1, correction2) = (1.0 - beta1.powf(step), (1.0 - beta2.powf(step)).sqrt());
    let state = means.iter_mut().zip(&mut squares);
    for ((parameter, (mean, square)), gradient) in
        parameters.iter_mut().zip(state).zip(gradient.doubles()?.iter())
    {
        let mut gradient = *gradient;
        if decoupled {
            *parameter -= rate * decay * *parameter;
        } else {
            gradient += decay * *parameter;
        }
        *mean += (1.0 - beta1) * (gradient - *mean);
        *square = beta2 * *square + (1.0 - beta2) * gradient * gradient;
        *parameter -= rate / correction1 * *mean / (square.sqrt() / correction2 + epsilon);
    }
    let (shape, dtype) = (parameter.shape(), parameter.dtype());
    Ok(vec![store(parameters, shape, dtype)?, store(means, shape, dtype)?, store(squares, shape, dtype)?])
}

pub(super) fn clip_grad_norm(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let (gradients, most, p) = (call.tensors(0)?, call.number(1)?.as_f64(), call.number(2)?.as_f64());
    let elements: Vec<Vec<f64>> = gradients.iter().map(Tensor::to_vec_f64).collect::<Result<_>>()?;
    let norms: Vec<f64> = elements.iter().map(|elements| norm::<f64>(elements, p)).collect();
    let total = norm::<f64>(&norms, p);
    let scale = (most / (total + 1e-6)).min(1.0);
    let mut outputs = Vec::with_capacity(gradients.len().saturating_add(1));
    let mut promoted = None;
    for (gradient, elements) in gradients.iter().zip(elements) {
        let scaled = elements.into_iter().map(|element| element * scale).collect();
        outputs.push(store::<f64>(scaled, gradient.shape(), gradient.dtype())?);
        promoted = Some(promoted.map_or(gradient.dtype(), |dtype: DType| dtype.promote(gradient.dtype())));
    }
    let dtype = promoted.ok_or_else(|| call.error("there are no gradients"))?;
    if !dtype.is_float() {
        return Err(call.error(format!("gradients are floating-point numbers, not {dtype}")));
    }
    outputs.push(store(vec![total], &[], dtype)?);
    Ok(outputs)
}
