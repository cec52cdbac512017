//! Reading an operation's arguments.

use pellucid_graph::{Argument, DType, IndexItem, Operation, OperationKind, Scalar, Size, Value};

use super::{Noise, OperationError, Result};
use crate::tensor::{Tensor, element_count};

/// One use of an operation, with what it needs to be evaluated.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    operation: &'a Operation,
    values: &'a dyn Fn(Value) -> Tensor,
    pub(crate) noise: &'a Noise,
}

/// A value or a literal number.
#[derive(Clone, Debug)]
pub(crate) enum Operand {
    Tensor(Tensor),
    Scalar(Scalar),
}

impl Operand {
    /// The shape; a literal has no dimensions.
    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Operand::Tensor(tensor) => tensor.shape(),
            Operand::Scalar(_) => &[],
        }
    }

    /// A tensor of that number type.
    pub(crate) fn cast(&self, dtype: DType) -> Result<Tensor> {
        match self {
            Operand::Tensor(tensor) => tensor.cast(dtype),
            Operand::Scalar(scalar) => Tensor::from_scalar(*scalar, dtype),
        }
    }
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        operation: &'a Operation,
        values: &'a dyn Fn(Value) -> Tensor,
        noise: &'a Noise,
    ) -> Self {
        Call { operation, values, noise }
    }

    pub(crate) fn kind(&self) -> OperationKind {
        self.operation.kind
    }

    /// An argument; the default of one that was left out.
    fn argument(&self, place: usize) -> &'a Argument {
        match self.operation.arguments.get(place) {
            None | Some(Argument::Absent) => {
                let parameter = self.operation.kind.definition().parameters.get(place);
                parameter.and_then(|parameter| parameter.default.as_ref()).unwrap_or(&Argument::Absent)
            }
            Some(argument) => argument,
        }
    }

    fn mismatch(&self, place: usize, wanted: &str) -> OperationError {
        let definition = self.operation.kind.definition();
        let name = definition.parameters.get(place).map_or("argument", |parameter| parameter.name);
        OperationError::new(format!("{}: `{name}` must be {wanted}", definition.name))
            .hint(format!("the signature is {}", definition.signature))
    }

    pub(crate) fn tensor(&self, place: usize) -> Result<Tensor> {
        match self.argument(place) {
            Argument::Value(value) => Ok((self.values)(*value)),
            _ => Err(self.mismatch(place, "a value")),
        }
    }

    pub(crate) fn optional_tensor(&self, place: usize) -> Result<Option<Tensor>> {
        match self.argument(place) {
            Argument::Absent => Ok(None),
            _ => self.tensor(place).map(Some),
        }
    }

    pub(crate) fn tensors(&self, place: usize) -> Result<Vec<Tensor>> {
        match self.argument(place) {
            Argument::Values(values) => Ok(values.iter().map(|&value| (self.values)(value)).collect()),
            Argument::Value(value) => Ok(vec![(self.values)(*value)]),
            _ => Err(self.mismatch(place, "a list of values")),
        }
    }

    pub(crate) fn operand(&self, place: usize) -> Result<Operand> {
        match self.argument(place) {
            Argument::Value(value) => Ok(Operand::Tensor((self.values)(*value))),
            Argument::Scalar(scalar) => Ok(Operand::Scalar(*scalar)),
            _ => Err(self.mismatch(place, "a value or a number")),
        }
    }

    pub(crate) fn optional_number(&self, place: usize) -> Result<Option<Scalar>> {
        match self.argument(place) {
            Argument::Absent => Ok(None),
            Argument::Scalar(scalar) => Ok(Some(*scalar)),
            _ => Err(self.mismatch(place, "a number")),
        }
    }

    pub(crate) fn number(&self, place: usize) -> Result<Scalar> {
        self.optional_number(place)?.ok_or_else(|| self.mismatch(place, "a number"))
    }

    pub(crate) fn optional_integer(&self, place: usize) -> Result<Option<i64>> {
        match self.argument(place) {
            Argument::Absent => Ok(None),
            Argument::Scalar(scalar) => {
                scalar.as_i64().map(Some).ok_or_else(|| self.mismatch(place, "a whole number"))
            }
            Argument::Integers(list) if list.len() == 1 => Ok(list.first().copied()),
            _ => Err(self.mismatch(place, "a whole number")),
        }
    }

    pub(crate) fn integer(&self, place: usize) -> Result<i64> {
        self.optional_integer(place)?.ok_or_else(|| self.mismatch(place, "a whole number"))
    }

    pub(crate) fn optional_integers(&self, place: usize) -> Result<Option<Vec<i64>>> {
        match self.argument(place) {
            Argument::Absent => Ok(None),
            Argument::Integers(list) => Ok(Some(list.clone())),
            Argument::Scalar(scalar) => match scalar.as_i64() {
                Some(integer) => Ok(Some(vec![integer])),
                None => Err(self.mismatch(place, "a list of whole numbers")),
            },
            _ => Err(self.mismatch(place, "a list of whole numbers")),
        }
    }

    pub(crate) fn integers(&self, place: usize) -> Result<Vec<i64>> {
        self.optional_integers(place)?.ok_or_else(|| self.mismatch(place, "a list of whole numbers"))
    }

    /// Whether a list argument is one number, or a list of one, which means the same.
    pub(crate) fn is_single(&self, place: usize) -> bool {
        match self.argument(place) {
            Argument::Scalar(_) => true,
            Argument::Integers(list) => list.len() == 1,
            _ => false,
        }
    }

    /// A shape whose items may be −1.
    pub(crate) fn sizes(&self, place: usize) -> Result<Vec<i64>> {
        match self.argument(place) {
            Argument::Sizes(sizes) => sizes.iter().map(|&size| self.size(size)).collect(),
            _ => self.integers(place),
        }
    }

    fn size(&self, size: Size) -> Result<i64> {
        match size {
            Size::Literal(size) => Ok(size),
            Size::Of { value, dimension } => {
                let tensor = (self.values)(value);
                let dimension = self.dimension(dimension, tensor.rank())?;
                Ok(tensor.shape().get(dimension).copied().unwrap_or(1) as i64)
            }
        }
    }

    /// A shape without −1, of no more elements than a tensor may have.
    pub(crate) fn shape(&self, place: usize) -> Result<Vec<usize>> {
        let sizes = self.sizes(place)?;
        let shape: Option<Vec<usize>> = sizes.iter().map(|&size| usize::try_from(size).ok()).collect();
        let shape = shape.ok_or_else(|| self.error(format!("a size is negative in {sizes:?}")))?;
        element_count(&shape)?;
        Ok(shape)
    }

    pub(crate) fn boolean(&self, place: usize) -> Result<bool> {
        match self.argument(place) {
            Argument::Absent => Ok(false),
            Argument::Scalar(scalar) => Ok(scalar.as_f64() != 0.0),
            _ => Err(self.mismatch(place, "true or false")),
        }
    }

    pub(crate) fn text(&self, place: usize) -> Result<&'a str> {
        match self.argument(place) {
            Argument::Text(text) => Ok(text),
            _ => Err(self.mismatch(place, "a text")),
        }
    }

    pub(crate) fn optional_dtype(&self, place: usize) -> Result<Option<DType>> {
        match self.argument(place) {
            Argument::Absent => Ok(None),
            Argument::DType(dtype) => Ok(Some(*dtype)),
            _ => Err(self.mismatch(place, "a number type")),
        }
    }

    pub(crate) fn dtype(&self, place: usize) -> Result<DType> {
        self.optional_dtype(place)?.ok_or_else(|| self.mismatch(place, "a number type"))
    }

    pub(crate) fn index(&self, place: usize) -> Result<&'a [IndexItem]> {
        match self.argument(place) {
            Argument::Index(items) => Ok(items),
            _ => Err(self.mismatch(place, "an index")),
        }
    }

    pub(crate) fn value(&self, value: Value) -> Tensor {
        (self.values)(value)
    }

    /// An error under the operation's name.
    pub(crate) fn error(&self, message: impl std::fmt::Display) -> OperationError {
        OperationError::new(format!("{}: {message}", self.operation.kind.name()))
    }

    /// A dimension of a tensor of so many, counted from the end if negative. A tensor without dimensions has the
    /// dimension 0, as in PyTorch.
    pub(crate) fn dimension(&self, dimension: i64, rank: usize) -> Result<usize> {
        let count = rank.max(1) as i64;
        let place = if dimension < 0 { dimension.saturating_add(count) } else { dimension };
        if place < 0 || place >= count {
            let message = format!("there is no dimension {dimension} in a tensor of {rank} dimensions");
            return Err(self.error(message));
        }
        Ok(place as usize)
    }

    /// Several dimensions, in the order given; an error where one is named twice.
    pub(crate) fn dimensions(&self, dimensions: &[i64], rank: usize) -> Result<Vec<usize>> {
        let mut places = Vec::with_capacity(dimensions.len());
        for &dimension in dimensions {
            let place = self.dimension(dimension, rank)?;
            if places.contains(&place) {
                return Err(self.error(format!("the dimension {dimension} is named twice")));
            }
            places.push(place);
        }
        Ok(places)
    }
}
