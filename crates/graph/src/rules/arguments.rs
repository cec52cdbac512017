//! Reading an operation's arguments: each accessor gives the argument of a parameter, its default if it is left out, or an
//! error that says what was expected.

use crate::dtype::DType;
use crate::limits;
use crate::operation::{Argument, IndexItem, Size};
use crate::program::Value;
use crate::rules::promotion::Operand;
use crate::rules::{RuleContext, RuleError, shape_text};
use crate::scalar::Scalar;
use crate::shape::{Dimension, TensorType};

impl<'a> RuleContext<'a> {
    /// The argument; where it is absent, the parameter's default.
    fn argument(&self, name: &str) -> &'a Argument {
        let definition = self.operation.kind.definition();
        match self.operation.argument(name) {
            Argument::Absent => definition
                .parameter(name)
                .and_then(|place| definition.parameters[place].default.as_ref())
                .unwrap_or(&Argument::Absent),
            argument => argument,
        }
    }

    fn expected(&self, name: &str, what: &str) -> RuleError {
        match self.argument(name) {
            Argument::Absent => self.error(format!("needs `{name}`: {what}")),
            _ => self.error(format!("takes as `{name}` {what}")),
        }
    }

    /// A value's type.
    pub(super) fn tensor(&self, name: &str) -> Result<TensorType, RuleError> {
        self.optional_tensor(name)?.ok_or_else(|| self.expected(name, "a tensor"))
    }

    /// A value's type, or none.
    pub(super) fn optional_tensor(&self, name: &str) -> Result<Option<TensorType>, RuleError> {
        match self.argument(name) {
            Argument::Value(value) => Ok(Some((self.type_of)(*value))),
            Argument::Absent => Ok(None),
            _ => Err(self.expected(name, "a tensor")),
        }
    }

    /// A value or a literal number.
    pub(super) fn operand(&self, name: &str) -> Result<Operand, RuleError> {
        match self.argument(name) {
            Argument::Value(value) => Ok(Operand::Tensor(*value, (self.type_of)(*value))),
            Argument::Scalar(number) => Ok(Operand::Number(*number)),
            _ => Err(self.expected(name, "a tensor or a number")),
        }
    }

    /// A list of at least one value.
    pub(super) fn tensors(&self, name: &str) -> Result<Vec<TensorType>, RuleError> {
        let values: &[Value] = match self.argument(name) {
            Argument::Values(values) => values,
            Argument::Value(value) => std::slice::from_ref(value),
            _ => return Err(self.expected(name, "a list of tensors")),
        };
        if values.is_empty() {
            return Err(self.error(format!("needs at least one tensor in `{name}`")));
        }
        self.listed(name, values.len())?;
        Ok(values.iter().map(|&value| (self.type_of)(value)).collect())
    }

    fn listed(&self, name: &str, length: usize) -> Result<(), RuleError> {
        if length > limits::LIST_ARGUMENTS {
            let most = limits::LIST_ARGUMENTS;
            return Err(self.error(format!("has {length} items in `{name}`, and {most} is the most")));
        }
        Ok(())
    }

    /// A literal number.
    pub(super) fn number(&self, name: &str) -> Result<Scalar, RuleError> {
        self.optional_number(name)?.ok_or_else(|| self.expected(name, "a number"))
    }

    /// A literal number, or none.
    pub(super) fn optional_number(&self, name: &str) -> Result<Option<Scalar>, RuleError> {
        match self.argument(name) {
            Argument::Scalar(number) => Ok(Some(*number)),
            Argument::Absent => Ok(None),
            _ => Err(self.expected(name, "a number")),
        }
    }

    /// A whole number.
    pub(super) fn integer(&self, name: &str) -> Result<i64, RuleError> {
        self.optional_integer(name)?.ok_or_else(|| self.expected(name, "a whole number"))
    }

    /// A whole number, or none.
    pub(super) fn optional_integer(&self, name: &str) -> Result<Option<i64>, RuleError> {
        match self.argument(name) {
            Argument::Absent => Ok(None),
            Argument::Integers(list) if list.len() == 1 => Ok(Some(list[0])),
            Argument::Scalar(number) => {
                number.as_i64().map(Some).ok_or_else(|| self.expected(name, "a whole number"))
            }
            _ => Err(self.expected(name, "a whole number")),
        }
    }

    /// A list of whole numbers, or one.
    pub(super) fn integers(&self, name: &str) -> Result<Vec<i64>, RuleError> {
        self.optional_integers(name)?.ok_or_else(|| self.expected(name, "a list of whole numbers"))
    }

    /// A list of whole numbers, one, or none.
    pub(super) fn optional_integers(&self, name: &str) -> Result<Option<Vec<i64>>, RuleError> {
        match self.argument(name) {
            Argument::Absent => Ok(None),
            Argument::Integers(list) => {
                self.listed(name, list.len())?;
                Ok(Some(list.clone()))
            }
            Argument::Scalar(number) => match number.as_i64() {
                Some(one) => Ok(Some(vec![one])),
                None => Err(self.expected(name, "a list of whole numbers")),
            },
            _ => Err(self.expected(name, "a list of whole numbers")),
        }
    }

    /// A truth value.
    pub(super) fn boolean(&self, name: &str) -> Result<bool, RuleError> {
        match self.argument(name) {
            Argument::Scalar(Scalar::Bool(value)) => Ok(*value),
            _ => Err(self.expected(name, "true or false")),
        }
    }

    /// A word.
    pub(super) fn text(&self, name: &str) -> Result<&'a str, RuleError> {
        match self.argument(name) {
            Argument::Text(text) => Ok(text),
            _ => Err(self.expected(name, "a text")),
        }
    }

    /// A number type.
    pub(super) fn dtype(&self, name: &str) -> Result<DType, RuleError> {
        self.optional_dtype(name)?.ok_or_else(|| self.expected(name, "a number type"))
    }

    /// A number type, or none.
    pub(super) fn optional_dtype(&self, name: &str) -> Result<Option<DType>, RuleError> {
        match self.argument(name) {
            Argument::DType(dtype) => Ok(Some(*dtype)),
            Argument::Absent => Ok(None),
            _ => Err(self.expected(name, "a number type")),
        }
    }

    /// What stands between the brackets.
    pub(super) fn index(&self, name: &str) -> Result<&'a [IndexItem], RuleError> {
        match self.argument(name) {
            Argument::Index(items) => Ok(items),
            _ => Err(self.expected(name, "an index")),
        }
    }

    /// A shape; none where the item is −1.
    pub(super) fn inferred_sizes(&self, name: &str) -> Result<Vec<Option<Dimension>>, RuleError> {
        let given: Vec<Size> = match self.argument(name) {
            Argument::Sizes(sizes) => sizes.clone(),
            Argument::Integers(list) => list.iter().map(|&size| Size::Literal(size)).collect(),
            Argument::Scalar(number) if number.as_i64().is_some() => {
                number.as_i64().into_iter().map(Size::Literal).collect()
            }
            _ => return Err(self.expected(name, "a shape")),
        };
        if given.len() > limits::DIMENSIONS {
            let most = limits::DIMENSIONS;
            return Err(
                self.error(format!("names {} sizes in `{name}`, and {most} is the most", given.len()))
            );
        }
        let size = |size: &Size| match *size {
            Size::Literal(-1) => Ok(None),
            Size::Literal(literal) => {
                u64::try_from(literal).map(|literal| Some(Dimension::known(literal))).map_err(|_| {
                    self.error(format!("has a size of {literal} in `{name}`; sizes are not negative"))
                })
            }
            Size::Of { value, dimension } => {
                let tensor = (self.type_of)(value);
                let place = self.axis(&tensor, dimension)?;
                match tensor.shape.get(place) {
                    Some(dimension) => Ok(Some(dimension.clone())),
                    None => Err(self.error(format!("takes a size of {tensor}, which has no dimensions"))),
                }
            }
        };
        given.iter().map(size).collect()
    }

    /// A shape without −1.
    pub(super) fn sizes(&self, name: &str) -> Result<Vec<Dimension>, RuleError> {
        let sizes = self.inferred_sizes(name)?;
        let known = |size: Option<Dimension>| {
            size.ok_or_else(|| {
                self.error(format!("has a size of -1 in `{name}`; there is nothing to infer it from"))
            })
        };
        sizes.into_iter().map(known).collect()
    }

    /// A size that is not negative.
    pub(super) fn size(&self, name: &str) -> Result<u64, RuleError> {
        let size = self.integer(name)?;
        u64::try_from(size)
            .map_err(|_| self.error(format!("takes as `{name}` a number from 0 on, not {size}")))
    }

    /// The place of a dimension, counted from the end when negative. A tensor without dimensions has, as in PyTorch, the
    /// dimensions 0 and −1, both at place 0.
    pub(super) fn axis(&self, tensor: &TensorType, dimension: i64) -> Result<usize, RuleError> {
        self.axis_among(tensor.shape.len(), dimension).ok_or_else(|| {
            let count = tensor.shape.len().max(1);
            let error = self.error(format!(
                "has no dimension {dimension}: {tensor} has dimensions {} to {}",
                -(count as i64),
                count as i64 - 1
            ));
            if tensor.shape.is_empty() {
                error.hint("it is a single number, without dimensions")
            } else {
                error
            }
        })
    }

    /// The place of a dimension among so many.
    pub(super) fn axis_among(&self, count: usize, dimension: i64) -> Option<usize> {
        let count = i64::try_from(count.max(1)).ok()?;
        let place = if dimension < 0 { dimension.checked_add(count)? } else { dimension };
        usize::try_from(place).ok().filter(|_| place < count)
    }

    /// The places of several dimensions, none of them twice.
    pub(super) fn axes(&self, tensor: &TensorType, dimensions: &[i64]) -> Result<Vec<usize>, RuleError> {
        let mut places = Vec::new();
        for &dimension in dimensions {
            let place = self.axis(tensor, dimension)?;
            if places.contains(&place) {
                return Err(self.error(format!("names dimension {place} of {tensor} twice")));
            }
            places.push(place);
        }
        Ok(places)
    }

    /// A number as one of that number type.
    pub(super) fn fits(&self, number: Scalar, dtype: DType) -> Result<(), RuleError> {
        if number.fits(dtype) {
            return Ok(());
        }
        Err(self
            .error(format!("writes {number}, which is out of range for {dtype}"))
            .hint("use a wider number type"))
    }

    /// Refuses what is not a float.
    pub(super) fn float(&self, tensor: &TensorType) -> Result<(), RuleError> {
        if tensor.dtype.is_float() {
            return Ok(());
        }
        Err(self
            .error(format!("needs floating-point numbers, not {tensor}"))
            .hint("cast it first: `to(…, f32)`"))
    }

    /// Refuses what does not index: anything but i64 and i32.
    pub(super) fn indices(&self, tensor: &TensorType) -> Result<(), RuleError> {
        if matches!(tensor.dtype, DType::I64 | DType::I32) {
            return Ok(());
        }
        Err(self
            .error(format!("takes indices of i64 or i32, not {tensor}"))
            .hint("cast it first: `to(…, i64)`"))
    }

    /// The size of two dimensions that must be equal; where one is not known, what is known of them.
    pub(super) fn same_size(&self, a: &Dimension, b: &Dimension) -> Option<Dimension> {
        match (a.value(), b.value()) {
            _ if a == b => Some(a.clone()),
            (Some(_), Some(_)) => None,
            (None, Some(_)) if a.could_equal(b) => Some(b.clone()),
            _ if a.could_equal(b) => Some(a.clone()),
            _ => None,
        }
    }

    /// Two operands' shape together.
    pub(super) fn broadcast(&mut self, a: &Operand, b: &Operand) -> Result<Vec<Dimension>, RuleError> {
        let (first, second) = (a.shape().to_vec(), b.shape().to_vec());
        self.broadcast_shapes(&first, &second)
    }

    /// Two shapes together.
    pub(super) fn broadcast_shapes(
        &mut self,
        a: &[Dimension],
        b: &[Dimension],
    ) -> Result<Vec<Dimension>, RuleError> {
        let result = crate::rules::broadcast::shapes(a, b, &mut || self.fresh());
        result.map_err(|place| {
            let size = |shape: &[Dimension]| shape[shape.len() - place].clone();
            self.error(format!(
                "cannot broadcast {} with {}: sizes {} and {} differ at dimension -{place}, and neither is 1",
                shape_text(a),
                shape_text(b),
                size(a),
                size(b)
            ))
            .hint("shapes are aligned at their last dimension; `unsqueeze` or `transpose` one of them")
        })
    }
}
