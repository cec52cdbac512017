//! Methods for shapes.

use pellucid_graph::{OperationKind, Scalar};

use super::arguments::{dimensions, integer, integers, scalar};
use super::{Dimensions, Given, Shape, Size, Value};

impl Value {
    /// The size along a dimension (negative: from the end), where a method takes a shape.
    pub fn size(&self, dimension: i64) -> Size {
        Size::Of(self.clone(), dimension)
    }

    /// The same elements in another shape; −1 is inferred.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Value {
        self.writer().operation(OperationKind::Reshape, [Given::Value(self), Given::Sizes(shape.into())])
    }

    /// The dimensions from `start` to `end` (included) made one.
    #[track_caller]
    pub fn flatten(&self, start: i64, end: i64) -> Value {
        self.writer().operation(OperationKind::Flatten, [Given::Value(self), integer(start), integer(end)])
    }

    /// One dimension made several; −1 is inferred.
    #[track_caller]
    pub fn unflatten(&self, dimension: i64, sizes: impl Into<Shape>) -> Value {
        let arguments = [Given::Value(self), integer(dimension), Given::Sizes(sizes.into())];
        self.writer().operation(OperationKind::Unflatten, arguments)
    }

    /// Two dimensions swapped.
    #[track_caller]
    pub fn transpose(&self, one: i64, other: i64) -> Value {
        self.writer().operation(OperationKind::Transpose, [Given::Value(self), integer(one), integer(other)])
    }

    /// Dimensions in another order.
    #[track_caller]
    pub fn permute(&self, order: impl Into<Dimensions>) -> Value {
        self.writer().operation(OperationKind::Permute, [Given::Value(self), dimensions(order)])
    }

    /// Dimensions moved elsewhere.
    #[track_caller]
    pub fn movedim(&self, source: impl Into<Dimensions>, destination: impl Into<Dimensions>) -> Value {
        let arguments = [Given::Value(self), dimensions(source), dimensions(destination)];
        self.writer().operation(OperationKind::MoveDim, arguments)
    }

    /// Dimensions of size 1 gone: those named, or all (`..`).
    #[track_caller]
    pub fn squeeze(&self, over: impl Into<Dimensions>) -> Value {
        self.writer().operation(OperationKind::Squeeze, [Given::Value(self), dimensions(over)])
    }

    /// A new dimension of size 1 at that place.
    #[track_caller]
    pub fn unsqueeze(&self, place: i64) -> Value {
        self.writer().operation(OperationKind::Unsqueeze, [Given::Value(self), integer(place)])
    }

    /// Dimensions of size 1 repeated; −1 leaves one as it is.
    #[track_caller]
    pub fn expand(&self, shape: impl Into<Shape>) -> Value {
        self.writer().operation(OperationKind::Expand, [Given::Value(self), Given::Sizes(shape.into())])
    }

    /// Tiled, so often along each dimension.
    #[track_caller]
    pub fn repeat(&self, repeats: impl Into<Dimensions>) -> Value {
        self.writer().operation(OperationKind::Repeat, [Given::Value(self), dimensions(repeats)])
    }

    /// Cut along a dimension into pieces of a size, the last one perhaps smaller.
    #[track_caller]
    pub fn split(&self, size: i64, along: i64) -> Pieces {
        let arguments = [Given::Value(self), integers(&[size]), integer(along)];
        Pieces(self.writer().operation(OperationKind::Split, arguments))
    }

    /// Cut along a dimension into pieces of those sizes.
    #[track_caller]
    pub fn split_sizes<const N: usize>(&self, sizes: [i64; N], along: i64) -> [Value; N] {
        let arguments = [Given::Value(self), integers(&sizes), integer(along)];
        let pieces = self.writer().operation(OperationKind::Split, arguments);
        std::array::from_fn(|place| pieces.output(place as u32))
    }

    /// Cut along a dimension into so many pieces, or fewer where its size does not suffice.
    #[track_caller]
    pub fn chunk(&self, chunks: i64, along: i64) -> Pieces {
        let arguments = [Given::Value(self), integer(chunks), integer(along)];
        Pieces(self.writer().operation(OperationKind::Chunk, arguments))
    }

    /// A constant around it: pairs (before, after) from the last dimension on.
    #[track_caller]
    pub fn pad(&self, pairs: &[i64], value: impl Into<Scalar>) -> Value {
        self.writer().operation(OperationKind::Pad, [Given::Value(self), integers(pairs), scalar(value)])
    }

    /// Reversed along dimensions.
    #[track_caller]
    pub fn flip(&self, along: impl Into<Dimensions>) -> Value {
        self.writer().operation(OperationKind::Flip, [Given::Value(self), dimensions(along)])
    }

    /// Shifted round along dimensions.
    #[track_caller]
    pub fn roll(&self, shifts: impl Into<Dimensions>, along: impl Into<Dimensions>) -> Value {
        let arguments = [Given::Value(self), dimensions(shifts), dimensions(along)];
        self.writer().operation(OperationKind::Roll, arguments)
    }

    /// 0 above a diagonal of the last two dimensions.
    #[track_caller]
    pub fn tril(&self, diagonal: i64) -> Value {
        self.writer().operation(OperationKind::Tril, [Given::Value(self), integer(diagonal)])
    }

    /// 0 below a diagonal of the last two dimensions.
    #[track_caller]
    pub fn triu(&self, diagonal: i64) -> Value {
        self.writer().operation(OperationKind::Triu, [Given::Value(self), integer(diagonal)])
    }

    /// A diagonal of two dimensions, as the last dimension.
    #[track_caller]
    pub fn diagonal(&self, offset: i64, one: i64, other: i64) -> Value {
        let arguments = [Given::Value(self), integer(offset), integer(one), integer(other)];
        self.writer().operation(OperationKind::Diagonal, arguments)
    }

    /// 1 at each number's place, in a new last dimension of that size.
    #[track_caller]
    pub fn one_hot(&self, classes: i64) -> Value {
        self.writer().operation(OperationKind::OneHot, [Given::Value(self), integer(classes)])
    }
}

/// The pieces of a value that was cut; how many there are is known when the program is checked.
#[derive(Clone, Debug)]
pub struct Pieces(Value);

impl Pieces {
    /// The piece at that place, from 0. A piece that is not there is a fault, reported when the program is checked.
    pub fn piece(&self, place: u32) -> Value {
        self.0.output(place)
    }
}
