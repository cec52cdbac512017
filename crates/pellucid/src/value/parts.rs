//! Methods for order, and for reading and writing parts.

use pellucid_graph::OperationKind;

use super::arguments::{boolean, integer};
use super::{Given, Index, Operand, Value};

/// Order.
impl Value {
    /// The `k` largest along a dimension, the largest first, and their places; of equals the lowest place first.
    #[track_caller]
    pub fn topk(&self, k: i64, along: i64) -> (Value, Value) {
        let arguments = [Given::Value(self), integer(k), integer(along), boolean(true)];
        let values = self.writer().operation(OperationKind::TopK, arguments);
        (values.output(0), values.output(1))
    }

    /// The `k` smallest along a dimension, the smallest first, and their places; of equals the lowest place first.
    #[track_caller]
    pub fn topk_smallest(&self, k: i64, along: i64) -> (Value, Value) {
        let arguments = [Given::Value(self), integer(k), integer(along), boolean(false)];
        let values = self.writer().operation(OperationKind::TopK, arguments);
        (values.output(0), values.output(1))
    }

    /// Sorted along a dimension, and the places; equals stay in order.
    #[track_caller]
    pub fn sort(&self, along: i64, descending: bool) -> (Value, Value) {
        let arguments = [Given::Value(self), integer(along), boolean(descending)];
        let values = self.writer().operation(OperationKind::Sort, arguments);
        (values.output(0), values.output(1))
    }

    /// The places that would sort it along a dimension; equals stay in order.
    #[track_caller]
    pub fn argsort(&self, along: i64, descending: bool) -> Value {
        let arguments = [Given::Value(self), integer(along), boolean(descending)];
        self.writer().operation(OperationKind::ArgSort, arguments)
    }
}

/// Reading and writing parts.
impl Value {
    /// `x[index]`: see [`s!`](crate::s).
    #[track_caller]
    pub fn index(&self, index: impl Into<Index>) -> Value {
        self.writer().operation(OperationKind::GetItem, [Given::Value(self), Given::Index(index.into())])
    }

    /// As it is, but with `x[index] = values`: see [`s!`](crate::s).
    #[track_caller]
    pub fn index_put(&self, index: impl Into<Index>, values: impl Into<Operand>) -> Value {
        let (index, values) = (Given::Index(index.into()), Given::Operand(values.into()));
        self.writer().operation(OperationKind::IndexPut, [Given::Value(self), index, values, boolean(false)])
    }

    /// As it is, but with `x[index] += values`; a place that the index names twice gets both.
    #[track_caller]
    pub fn index_add(&self, index: impl Into<Index>, values: impl Into<Operand>) -> Value {
        let (index, values) = (Given::Index(index.into()), Given::Operand(values.into()));
        self.writer().operation(OperationKind::IndexPut, [Given::Value(self), index, values, boolean(true)])
    }

    /// Picks along a dimension, place by place.
    #[track_caller]
    pub fn gather(&self, along: i64, index: &Value) -> Value {
        self.writer()
            .operation(OperationKind::Gather, [Given::Value(self), integer(along), Given::Value(index)])
    }

    /// Writes along a dimension, place by place; later wins.
    #[track_caller]
    pub fn scatter(&self, along: i64, index: &Value, source: impl Into<Operand>) -> Value {
        let arguments =
            [Given::Value(self), integer(along), Given::Value(index), Given::Operand(source.into())];
        self.writer().operation(OperationKind::Scatter, arguments)
    }

    /// Adds along a dimension, place by place, in order.
    #[track_caller]
    pub fn scatter_add(&self, along: i64, index: &Value, source: &Value) -> Value {
        let arguments = [Given::Value(self), integer(along), Given::Value(index), Given::Value(source)];
        self.writer().operation(OperationKind::ScatterAdd, arguments)
    }

    /// Picks whole slices along a dimension.
    #[track_caller]
    pub fn index_select(&self, along: i64, index: &Value) -> Value {
        self.writer()
            .operation(OperationKind::IndexSelect, [Given::Value(self), integer(along), Given::Value(index)])
    }

    /// Gathers along a dimension, with broadcasting.
    #[track_caller]
    pub fn take_along_dim(&self, indices: &Value, along: i64) -> Value {
        let arguments = [Given::Value(self), Given::Value(indices), integer(along)];
        self.writer().operation(OperationKind::TakeAlongDim, arguments)
    }
}
