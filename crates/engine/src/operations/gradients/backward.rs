//! What a gradient rule reads and gives; and operations on tensors, for rules to be made of.

use pellucid_graph::{Argument, DType, NodeId, Operation, OperationKind, Scalar, Size, Value};

use super::super::arguments::{Call, Operand};
use super::super::{Noise, OperationError, Result, evaluate};
use crate::tensor::Tensor;

/// One operation on the way back.
pub(super) struct Backward<'a> {
    /// The operation's arguments.
    pub(super) call: Call<'a>,
    inputs: &'a [Tensor],
    outputs: &'a [Tensor],
    cotangents: &'a [Option<Tensor>],
    wanted: &'a [bool],
    /// For each parameter, where its first value stands among `inputs`, and how many it has.
    places: Vec<(usize, usize)>,
    found: Vec<Option<Tensor>>,
}

impl<'a> Backward<'a> {
    pub(super) fn new(
        call: Call<'a>,
        operation: &Operation,
        inputs: &'a [Tensor],
        outputs: &'a [Tensor],
        cotangents: &'a [Option<Tensor>],
        wanted: &'a [bool],
    ) -> Self {
        let mut start = 0;
        let places = operation.arguments.iter().map(|argument| {
            let count = argument.values().len();
            start += count;
            (start - count, count)
        });
        let places = places.collect();
        Backward { call, inputs, outputs, cotangents, wanted, places, found: vec![None; inputs.len()] }
    }

    /// The gradients that were given.
    pub(super) fn found(self) -> Vec<Option<Tensor>> {
        self.found
    }

    pub(super) fn kind(&self) -> OperationKind {
        self.call.kind()
    }

    /// An output.
    pub(super) fn output(&self, place: usize) -> Result<Tensor> {
        self.outputs.get(place).cloned().ok_or_else(|| self.call.error(format!("there is no output {place}")))
    }

    /// The gradient of an output, in the output's number type; zeros if it has none.
    pub(super) fn cotangent_of(&self, place: usize) -> Result<Tensor> {
        let output = self.output(place)?;
        match self.cotangents.get(place) {
            Some(Some(cotangent)) => cotangent.cast(output.dtype()),
            _ => zeros(output.shape(), output.dtype()),
        }
    }

    /// The gradient of the first output.
    pub(super) fn cotangent(&self) -> Result<Tensor> {
        self.cotangent_of(0)
    }

    /// How many outputs there are.
    pub(super) fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// Where the value of a parameter stands among what is read; none: it has no value, or its gradient is not wanted, or
    /// it is not a float and has none.
    fn place(&self, parameter: usize, item: usize) -> Option<usize> {
        let &(start, count) = self.places.get(parameter)?;
        let place = if item < count { start.checked_add(item)? } else { return None };
        let float = self.inputs.get(place)?.dtype().is_float();
        (float && self.wanted.get(place).copied()?).then_some(place)
    }

    /// Gives the gradient of a parameter, if it is wanted. Dimensions along which the operand was broadcast are summed,
    /// and the result is cast to the operand's number type.
    pub(super) fn give(
        &mut self,
        parameter: usize,
        gradient: impl FnOnce(&Self) -> Result<Tensor>,
    ) -> Result<()> {
        self.give_item(parameter, 0, gradient)
    }

    /// The same for an item of a list.
    pub(super) fn give_item(
        &mut self,
        parameter: usize,
        item: usize,
        gradient: impl FnOnce(&Self) -> Result<Tensor>,
    ) -> Result<()> {
        let Some(place) = self.place(parameter, item) else { return Ok(()) };
        let gradient = gradient(self)?;
        if let (Some(input), Some(found)) = (self.inputs.get(place), self.found.get_mut(place)) {
            *found = Some(sum_to(&gradient, input.shape())?.cast(input.dtype())?);
        }
        Ok(())
    }
}

/// An argument of [`compute`].
pub(super) enum Part<'a> {
    /// A tensor.
    Of(&'a Tensor),
    /// Anything that is no tensor.
    Is(Argument),
}

impl<'a> From<&'a Tensor> for Part<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Part::Of(tensor)
    }
}

impl<'a> From<&'a Operand> for Part<'a> {
    fn from(operand: &'a Operand) -> Self {
        match operand {
            Operand::Tensor(tensor) => Part::Of(tensor),
            Operand::Scalar(scalar) => Part::Is(Argument::Scalar(*scalar)),
        }
    }
}

impl From<f64> for Part<'_> {
    fn from(number: f64) -> Self {
        Part::Is(Argument::Scalar(Scalar::Float(number)))
    }
}

impl From<i64> for Part<'_> {
    fn from(number: i64) -> Self {
        Part::Is(Argument::Scalar(Scalar::Int(number)))
    }
}

impl From<usize> for Part<'_> {
    fn from(number: usize) -> Self {
        Part::from(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Part<'_> {
    fn from(truth: bool) -> Self {
        Part::Is(Argument::Scalar(Scalar::Bool(truth)))
    }
}

impl From<Vec<i64>> for Part<'_> {
    fn from(list: Vec<i64>) -> Self {
        Part::Is(Argument::Integers(list))
    }
}

/// The first output of an operation on tensors and literals; parameters that are left out have their defaults.
pub(super) fn compute<const N: usize>(kind: OperationKind, parts: [Part<'_>; N]) -> Result<Tensor> {
    let mut tensors: Vec<&Tensor> = Vec::new();
    let mut number = |tensor| {
        tensors.push(tensor);
        Value::from(NodeId(u32::try_from(tensors.len()).unwrap_or(u32::MAX).saturating_sub(1)))
    };
    let arguments = parts.into_iter().map(|part| match part {
        Part::Of(tensor) => Argument::Value(number(tensor)),
        Part::Is(argument) => argument,
    });
    let operation = Operation { kind, arguments: arguments.collect() };
    let empty = Tensor::from_f32(Vec::new(), &[0])?;
    let lookup = |value: Value| {
        tensors.get(value.node.index()).map_or_else(|| empty.clone(), |&tensor| tensor.clone())
    };
    let outputs = evaluate(&operation, &lookup, &Noise::default())?;
    outputs.into_iter().next().ok_or_else(|| OperationError::new(format!("{} has no output", kind.name())))
}

/// A tensor of zeros.
pub(super) fn zeros(shape: &[usize], dtype: DType) -> Result<Tensor> {
    let zero = Tensor::from_scalar(Scalar::Int(0), dtype)?;
    // One element seen everywhere: a copy is made only by what needs one.
    Ok(zero.view(zero.data().broadcast_as(shape)?))
}

/// The same elements in another shape.
pub(super) fn reshape(tensor: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let sizes = shape.iter().map(|&size| Size::Literal(i64::try_from(size).unwrap_or(i64::MAX)));
    compute(OperationKind::Reshape, [tensor.into(), Part::Is(Argument::Sizes(sizes.collect()))])
}

/// The tensor repeated along new dimensions and those of size 1, without a copy.
pub(super) fn expand(tensor: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if tensor.shape() == shape {
        return Ok(tensor.clone());
    }
    Ok(tensor.view(tensor.data().broadcast_as(shape)?))
}

/// Two dimensions swapped, without a copy.
pub(super) fn transpose(tensor: &Tensor, first: usize, second: usize) -> Result<Tensor> {
    if first == second {
        return Ok(tensor.clone());
    }
    Ok(tensor.view(tensor.data().transpose(first, second)?))
}

/// The last two dimensions swapped.
pub(super) fn turned(tensor: &Tensor) -> Result<Tensor> {
    match tensor.rank() {
        0 | 1 => Ok(tensor.clone()),
        rank => transpose(tensor, rank - 2, rank - 1),
    }
}

/// A gradient of a broadcast shape as one of the operand's: summed where the operand was repeated.
pub(super) fn sum_to(gradient: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if gradient.shape() == shape {
        return Ok(gradient.clone());
    }
    // An operand may have had leading dimensions of size 1 too many.
    let leading = shape.len().saturating_sub(gradient.rank());
    let own = shape.get(leading..).unwrap_or(&[]);
    let new = gradient.rank().saturating_sub(own.len());
    let repeated = |place: usize| match place.checked_sub(new).and_then(|place| own.get(place)) {
        None => true,
        Some(&size) => size == 1 && gradient.shape().get(place) != Some(&1),
    };
    let places: Vec<i64> =
        (0..gradient.rank()).filter(|&place| repeated(place)).map(|place| place as i64).collect();
    if places.is_empty() {
        return reshape(gradient, shape);
    }
    reshape(&compute(OperationKind::Sum, [gradient.into(), places.into()])?, shape)
}
