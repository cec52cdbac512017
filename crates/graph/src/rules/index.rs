//! What stands between the brackets of `x[...]`, made plain: which places of each dimension, and the shape that results.
//! The semantics are PyTorch's: integers, and index tensors without dimensions, take one place and the dimension goes;
//! index tensors broadcast together and stand where the first of them stood, or in front when something keeps them apart.

use crate::dtype::DType;
use crate::limits;
use crate::operation::IndexItem;
use crate::program::Value;
use crate::rules::room::{product, together};
use crate::rules::{RuleError, broadcast, shape_text};
use crate::shape::{Dimension, Symbol, TensorType};

/// Whether an index reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Masks are refused: the result's shape would depend on data.
    Read,
    /// A mask chooses places that are written.
    Write,
}

/// What is taken of one dimension, or put between two.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// One place, counted from the beginning; the dimension goes.
    Place {
        /// Of the input.
        dimension: usize,
        /// From 0.
        place: Dimension,
    },
    /// The place that an index tensor without dimensions names, perhaps from the end; the dimension goes.
    PlaceOf {
        /// Of the input.
        dimension: usize,
        /// The index tensor.
        value: Value,
    },
    /// Every `step`-th place; the whole dimension where nothing was said of it.
    Range {
        /// Of the input.
        dimension: usize,
        /// The first place, from 0.
        start: Dimension,
        /// How many.
        length: Dimension,
        /// The distance from one to the next, at least 1.
        step: u64,
    },
    /// A new dimension of size 1.
    New,
    /// The places that an index tensor names, perhaps from the end.
    Picked {
        /// Of the input.
        dimension: usize,
        /// The index tensor.
        value: Value,
    },
    /// The places where a mask holds, in row-major order: an index tensor of one dimension, whose size depends on data.
    /// The mask's dimensions are the input's from `dimension` on.
    Masked {
        /// The first of the input.
        dimension: usize,
        /// How many dimensions the mask has.
        count: usize,
        /// The mask.
        value: Value,
    },
}

/// An index on a shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What is taken of each dimension, in order, with new dimensions between.
    pub parts: Vec<Part>,
    /// The shape of the index tensors and masks together, and the place of its first dimension in `shape`.
    pub picked: Option<(Vec<Dimension>, usize)>,
    /// The shape of what is read, or of what a written value expands to.
    pub shape: Vec<Dimension>,
}

/// Where a slice starts, and how long it is. Exact where that is linear whatever the lengths; else not known yet.
pub fn slice(
    size: &Dimension,
    start: Option<i64>,
    stop: Option<i64>,
    step: u64,
    fresh: &mut dyn FnMut() -> Symbol,
) -> (Dimension, Dimension) {
    let start = clamped(size, start.unwrap_or(0));
    let stop = stop.map_or_else(|| Some(size.clone()), |stop| clamped(size, stop));
    let length = match (&start, &stop) {
        (Some(start), Some(stop)) => count(&stop.minus(start), step),
        _ => None,
    };
    let known = |dimension: Option<Dimension>, fresh: &mut dyn FnMut() -> Symbol| {
        dimension.unwrap_or_else(|| Dimension::symbol(fresh()))
    };
    let length = known(length, fresh);
    (known(start, fresh), length)
}

/// A bound of a slice, as Python clamps it, where that is certain.
fn clamped(size: &Dimension, bound: i64) -> Option<Dimension> {
    if let Some(known) = size.value() {
        let known = i64::try_from(known).unwrap_or(i64::MAX);
        let place = if bound < 0 { known.saturating_add(bound).max(0) } else { bound.min(known) };
        return Some(Dimension::known(place.unsigned_abs()));
    }
    if bound.unsigned_abs() > size.minimum() {
        return None;
    }
    Some(if bound < 0 { size.offset(bound) } else { Dimension::known(bound.unsigned_abs()) })
}

/// How many steps fit in a distance, where that is linear.
fn count(distance: &Dimension, step: u64) -> Option<Dimension> {
    if distance.upper().is_some_and(|most| most <= 0) {
        return Some(Dimension::known(0));
    }
    if distance.terms().is_empty() {
        return Some(Dimension::known(distance.constant().unsigned_abs().div_ceil(step.max(1))));
    }
    if distance.lower().is_none_or(|least| least < 0) {
        return None;
    }
    let signed = i64::try_from(step).ok().filter(|&step| step > 0)?;
    // Rounded up to a multiple of the step: exact, since the unknown part is a multiple already, or nothing comes of it.
    let rest = (-i128::from(distance.constant())).rem_euclid(i128::from(signed));
    distance.offset(i64::try_from(rest).ok()?).divided(step)
}

/// The index's form on a tensor of this shape. Places and masks are checked as far as sizes are known.
pub fn plan(
    items: &[IndexItem],
    shape: &[Dimension],
    access: Access,
    type_of: &dyn Fn(Value) -> TensorType,
    fresh: &mut dyn FnMut() -> Symbol,
) -> Result<Plan, RuleError> {
    if items.len() > limits::INDEX_ITEMS {
        let (length, most) = (items.len(), limits::INDEX_ITEMS);
        return Err(RuleError::new(format!("the index has {length} items, and {most} is the most")));
    }
    let taken: usize = items.iter().map(|item| covered(item, type_of)).sum();
    let Some(left) = shape.len().checked_sub(taken) else {
        return Err(RuleError::new(format!(
            "the index names {taken} dimensions, and the tensor has {}: {}",
            shape.len(),
            shape_text(shape)
        )));
    };
    let mut builder = Builder { shape, parts: Vec::new(), next: 0 };
    let mut seen_ellipsis = false;
    for item in items {
        match item {
            IndexItem::Ellipsis if seen_ellipsis => {
                return Err(
                    RuleError::new("the index has two ellipses").hint("write `:` for one whole dimension")
                );
            }
            IndexItem::Ellipsis => {
                seen_ellipsis = true;
                (0..left).for_each(|_| builder.whole());
            }
            IndexItem::NewAxis => builder.parts.push(Part::New),
            IndexItem::Integer(place) => builder.place(*place)?,
            IndexItem::Slice { start, stop, step } => {
                let Some(step) = u64::try_from(*step).ok().filter(|&step| step > 0) else {
                    return Err(RuleError::new(format!("a slice has the step {step}; steps are at least 1"))
                        .hint("reverse a dimension with `flip`"));
                };
                let dimension = builder.next;
                let (start, length) = slice(&shape[dimension], *start, *stop, step, fresh);
                builder.take(|dimension| Part::Range { dimension, start, length, step });
            }
            IndexItem::Tensor(value) => builder.tensor(*value, &type_of(*value), access)?,
        }
    }
    while builder.next < shape.len() {
        builder.whole();
    }
    finish(builder.parts, shape, type_of, fresh)
}

struct Builder<'a> {
    shape: &'a [Dimension],
    parts: Vec<Part>,
    next: usize,
}

impl Builder<'_> {
    fn take(&mut self, part: impl FnOnce(usize) -> Part) {
        self.parts.push(part(self.next));
        self.next += 1;
    }

    fn whole(&mut self) {
        let length = self.shape[self.next].clone();
        self.take(|dimension| Part::Range { dimension, start: Dimension::known(0), length, step: 1 });
    }

    fn place(&mut self, place: i64) -> Result<(), RuleError> {
        let size = &self.shape[self.next];
        let from_start = if place < 0 { size.offset(place) } else { Dimension::known(place.unsigned_abs()) };
        let after = size.minus(&from_start).upper();
        if from_start.upper().is_some_and(|most| most < 0) || after.is_some_and(|most| most < 1) {
            let range = match size.value() {
                Some(0) => "it has no places".to_owned(),
                Some(size) => format!("places go from -{size} to {}", size - 1),
                None => "no length makes it valid".to_owned(),
            };
            return Err(RuleError::new(format!(
                "index {place} is out of range for dimension {}, of size {size}, of {}: {range}",
                self.next,
                shape_text(self.shape)
            )));
        }
        self.take(|dimension| Part::Place { dimension, place: from_start });
        Ok(())
    }

    fn tensor(&mut self, value: Value, tensor: &TensorType, access: Access) -> Result<(), RuleError> {
        match tensor.dtype {
            DType::I64 | DType::I32 if tensor.shape.is_empty() => {
                self.take(|dimension| Part::PlaceOf { dimension, value });
            }
            DType::I64 | DType::I32 => self.take(|dimension| Part::Picked { dimension, value }),
            DType::Bool if access == Access::Read => {
                return Err(RuleError::new(format!(
                    "a mask {tensor} cannot choose what is read: the result's shape would depend on data"
                ))
                .hint("use `where(mask, x, 0)`, which keeps the shape; masks are allowed in writing"));
            }
            DType::Bool => {
                let (dimension, count) = (self.next, tensor.shape.len());
                let target = &self.shape[dimension..dimension + count];
                if !tensor.shape.iter().zip(target).all(|(mask, size)| mask.could_equal(size)) {
                    return Err(RuleError::new(format!(
                        "the mask {tensor} does not have the sizes of the dimensions it stands for, {} of {}",
                        shape_text(target),
                        shape_text(self.shape)
                    )));
                }
                self.parts.push(Part::Masked { dimension, count, value });
                self.next += count;
            }
            _ => {
                return Err(RuleError::new(format!("an index tensor holds i64, i32 or bool, not {tensor}"))
                    .hint("cast it first: `to(…, i64)`, or `to(…, bool)` for a mask"));
            }
        }
        Ok(())
    }
}

/// Puts the result's shape together.
fn finish(
    parts: Vec<Part>,
    input: &[Dimension],
    type_of: &dyn Fn(Value) -> TensorType,
    fresh: &mut dyn FnMut() -> Symbol,
) -> Result<Plan, RuleError> {
    let mut together: Option<Vec<Dimension>> = None;
    let mut shape = Vec::new();
    // Where the index tensors stand among the dimensions that stay, and whether something stands between them.
    let (mut first, mut last, mut apart) = (0, 0, false);
    for part in &parts {
        let pointing = match part {
            Part::Place { .. } | Part::PlaceOf { .. } => continue,
            Part::New => {
                shape.push(Dimension::known(1));
                continue;
            }
            Part::Range { length, .. } => {
                shape.push(length.clone());
                continue;
            }
            Part::Picked { value, .. } => type_of(*value).shape,
            Part::Masked { .. } => vec![Dimension::symbol(fresh())],
        };
        together = Some(match together {
            None => {
                first = shape.len();
                pointing
            }
            Some(before) => {
                apart |= last != shape.len();
                broadcast::shapes(&before, &pointing, fresh).map_err(|_| {
                    RuleError::new(format!(
                        "index tensors of shapes {} and {} do not broadcast together",
                        shape_text(&before),
                        shape_text(&pointing)
                    ))
                })?
            }
        });
        last = shape.len();
    }
    let nothing_picked = together.iter().flatten().any(|size| size.minimum() == 0);
    for part in &parts {
        let dimension = match part {
            Part::PlaceOf { dimension, .. } => *dimension,
            Part::Picked { dimension, .. } if !nothing_picked => *dimension,
            _ => continue,
        };
        if input[dimension].value() == Some(0) {
            return Err(RuleError::new(format!(
                "an index tensor points into dimension {dimension} of {}, which has no places",
                shape_text(input)
            )));
        }
    }
    let picked = together.map(|together| (together, if apart { 0 } else { first }));
    if let Some((together, place)) = &picked {
        shape.splice(*place..*place, together.iter().cloned());
    }
    if shape.len() > limits::DIMENSIONS {
        return Err(RuleError::new(format!(
            "the index makes {} dimensions, and {} is the most",
            shape.len(),
            limits::DIMENSIONS
        )));
    }
    Ok(Plan { parts, picked, shape })
}

/// What an index names; of a mask all of its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The places that its index tensors name together; none: it has no index tensors.
    pub places: Option<u64>,
    /// All cells.
    pub cells: u64,
    /// The runs of cells of one place, at most: along the last dimension that no index tensor points into.
    pub runs: u64,
}

/// Dimensions that an item says something of.
fn covered(item: &IndexItem, type_of: &dyn Fn(Value) -> TensorType) -> usize {
    match item {
        IndexItem::Ellipsis | IndexItem::NewAxis => 0,
        IndexItem::Tensor(value) => match type_of(*value) {
            TensorType { dtype: DType::Bool, shape } => shape.len(),
            _ => 1,
        },
        _ => 1,
    }
}

/// What an index names in a tensor of those sizes.
pub(crate) fn named(
    items: &[IndexItem],
    sizes: &[u64],
    type_of: &dyn Fn(Value) -> TensorType,
    assumed: u64,
) -> Named {
    let left = sizes.len().saturating_sub(items.iter().map(|item| covered(item, type_of)).sum());
    let mut pointing: Vec<Vec<u64>> = Vec::new();
    let mut steps: Vec<u64> = Vec::new();
    let mut at = 0;
    for item in items {
        match item {
            IndexItem::Slice { start, stop, step } => {
                let size = sizes.get(at).copied().unwrap_or(1);
                let place = |place: i64| {
                    let from_end = size.saturating_sub(place.unsigned_abs());
                    if place < 0 { from_end } else { place.unsigned_abs().min(size) }
                };
                let length = stop.map_or(size, place).saturating_sub(start.map_or(0, place));
                steps.push(length.div_ceil(step.unsigned_abs().max(1)));
            }
            IndexItem::Ellipsis => {
                steps.extend(sizes.iter().skip(at).take(left));
                at += left;
            }
            IndexItem::Tensor(value) => {
                let tensor = type_of(*value);
                match tensor.dtype {
                    DType::Bool => pointing.push(vec![tensor.elements(assumed)]),
                    _ if tensor.shape.is_empty() => {}
                    _ => pointing.push(tensor.shape.iter().map(|size| size.assume(assumed)).collect()),
                }
            }
            IndexItem::Integer(_) | IndexItem::NewAxis => {}
        }
        at += covered(item, type_of);
    }
    // What nothing is said of is whole.
    steps.extend(sizes.iter().skip(at));
    let places = (!pointing.is_empty()).then(|| product(&together(&pointing)));
    let others = product(&steps);
    let last = steps.iter().rev().copied().find(|&size| size != 1).unwrap_or(1);
    Named { places, cells: others.saturating_mul(places.unwrap_or(1)), runs: others / last.max(1) }
}
