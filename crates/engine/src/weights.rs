//! Weights of a model for programs: reading them, and running with others in their place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use pellucid_graph::{Argument, IndexItem, NodeId, Operation, OperationKind, Value};
use pellucid_models::stage::WeightId;
use pellucid_models::{Model, ModelWeight};

use crate::operations::{self, Noise, OperationError};
use crate::tensor::Tensor;

/// A model's weights as a pass sees them: the model's own, but for those that a program has set.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    model: &'a Model,
    set: Option<&'a WeightSet>,
}

impl<'a> Weights<'a> {
    pub fn new(model: &'a Model, set: Option<&'a WeightSet>) -> Self {
        Weights { model, set }
    }

    /// A weight, in the forms that kernels take.
    pub fn get(self, weight: WeightId) -> Option<&'a ModelWeight> {
        let set = self.set.and_then(|set| set.0.get(&weight));
        set.map(Arc::as_ref).or_else(|| self.model.weight(weight))
    }

    /// The numbers of a norm's weight or a bias.
    pub fn vector(self, weight: WeightId) -> Option<&'a [f32]> {
        self.get(weight)?.vector()
    }
}

/// The weights that a program has set for an invoke.
#[derive(Debug, Default)]
pub(crate) struct WeightSet(BTreeMap<WeightId, Arc<ModelWeight>>);

impl WeightSet {
    /// Puts a weight in another's place.
    pub fn insert(&mut self, weight: WeightId, replaced: Arc<ModelWeight>) {
        self.0.insert(weight, replaced);
    }
}

/// A parameter's place among the model's weights: they stand in the same order.
pub(crate) fn weight_id(parameter: usize) -> Result<WeightId, OperationError> {
    u32::try_from(parameter).map(WeightId).map_err(|_| OperationError::new("its parameter was not found"))
}

/// A value in a parameter's place, in the forms that kernels take.
pub(crate) fn replaced(
    model: &Model,
    parameter: usize,
    value: &Tensor,
) -> Result<ModelWeight, OperationError> {
    let weight = weight_id(parameter)?;
    let own = model.weight(weight).ok_or_else(|| OperationError::new("its parameter was not found"))?;
    let shape = own.parameter().shape().to_vec();
    if value.shape() != shape {
        let given = value.shape();
        return Err(OperationError::new(format!(
            "the parameter has shape {shape:?}, but it is set to {given:?}"
        )));
    }
    let replaced = model.replaced(weight, value.to_vec_f32()?);
    replaced.ok_or_else(|| OperationError::new("its parameter was not found"))
}

/// A parameter as f32 in the checkpoint's layout, or the part of it that an index names. Where the index begins with a
/// place or a slice, only those rows are read.
pub(crate) fn read(
    model: &Model,
    parameter: usize,
    index: Option<&[IndexItem]>,
    lookup: &dyn Fn(Value) -> Tensor,
) -> Result<Tensor, OperationError> {
    let own = model.weight(weight_id(parameter)?);
    let own = own.ok_or_else(|| OperationError::new("its parameter was not found"))?.parameter();
    let Some(items) = index else { return Tensor::from_f32(own.to_f32(), own.shape()) };
    let mut items = items.to_vec();
    let rows = own.shape().first().copied().and_then(|rows| first_rows(items.first_mut()?, rows));
    let whole = match rows {
        Some(rows) => {
            let mut shape = own.shape().to_vec();
            shape[0] = rows.len();
            Tensor::from_f32(own.rows_to_f32(rows), &shape)?
        }
        None => Tensor::from_f32(own.to_f32(), own.shape())?,
    };
    // No node has this number, so that no index tensor can be taken for the parameter.
    let read = Value::from(NodeId(u32::MAX));
    let operation = Operation {
        kind: OperationKind::GetItem,
        arguments: vec![Argument::Value(read), Argument::Index(items)],
    };
    let noise = Noise { seed: 0, label: String::new(), coordinates: Vec::new() };
    let lookup = |value: Value| if value == read { whole.clone() } else { lookup(value) };
    let part = operations::evaluate(&operation, &lookup, &noise)?.into_iter().next();
    part.ok_or_else(|| OperationError::new("the index gave nothing"))?.contiguous()
}

/// The rows that an index's first item takes, and the item made to take them from those rows alone; none: it is not a
/// place or a slice.
fn first_rows(item: &mut IndexItem, rows: usize) -> Option<Range<usize>> {
    let count = i64::try_from(rows).ok()?;
    let place = |place: i64| if place < 0 { place.saturating_add(count) } else { place };
    match item {
        IndexItem::Integer(at) => {
            let row = usize::try_from(place(*at)).ok().filter(|&row| row < rows)?;
            *at = 0;
            Some(row..row + 1)
        }
        IndexItem::Slice { start, stop, .. } => {
            let from = start.map_or(0, place).clamp(0, count);
            let to = stop.map_or(count, place).clamp(from, count);
            (*start, *stop) = (None, None);
            Some(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
        }
        _ => None,
    }
}
