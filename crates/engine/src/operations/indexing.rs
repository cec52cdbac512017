//! `x[...]`: reading and writing with any mix of integers, slices, ellipsis, new axes and index tensors.

use pellucid_graph::{DType, IndexItem};

use super::arguments::Call;
use super::number::{Computation, Number, store};
use super::shape::copy_strided;
use super::walk::{broadcast_shape, broadcast_strides, contiguous_strides, gather, walk};
use super::{OperationError, Result};
use crate::tensor::{Tensor, element_count, with_stored};

/// A place counted from the beginning, where it may be counted from the end; an error outside of the dimension.
pub(super) fn place_of(call: &Call<'_>, place: i64, length: usize, from_end: bool) -> Result<usize> {
    let counted = if place < 0 && from_end { place.saturating_add(length as i64) } else { place };
    match usize::try_from(counted) {
        Ok(counted) if counted < length => Ok(counted),
        _ => Err(call.error(format!("the index {place} is out of range for a dimension of size {length}"))),
    }
}

/// The cells that an index names in a strided tensor, in the order of the result.
pub(super) struct Region {
    /// The result's shape.
    pub(super) shape: Vec<usize>,
    /// Where the cells begin.
    start: isize,
    /// Sizes and strides of the result's dimensions before those of the index tensors.
    before: (Vec<usize>, Vec<isize>),
    /// How far from the beginning each cell of the index tensors points; none: there are no index tensors.
    table: Option<Vec<isize>>,
    /// Sizes and strides of the dimensions after them, or of all.
    after: (Vec<usize>, Vec<isize>),
}

impl Region {
    /// Whole slices along one dimension.
    pub(super) fn select(
        shape: &[usize],
        strides: &[isize],
        start: usize,
        place: usize,
        places: &[isize],
    ) -> Region {
        let mut result = shape.to_vec();
        result[place] = places.len();
        Region {
            shape: result,
            start: start as isize,
            before: (shape[..place].to_vec(), strides[..place].to_vec()),
            table: Some(places.iter().map(|at| at * strides[place]).collect()),
            after: (shape[place + 1..].to_vec(), strides[place + 1..].to_vec()),
        }
    }

    /// Calls `run(start, length, step)` for each run of cells, in the order of the result.
    fn runs(&self, mut run: impl FnMut(isize, usize, isize)) {
        let Some(table) = &self.table else {
            walk(&self.after.0, [&self.after.1], [self.start], |[at], length, [step]| run(at, length, step));
            return;
        };
        let mut inner = Vec::new();
        walk(&self.after.0, [&self.after.1], [0], |[at], length, [step]| inner.push((at, length, step)));
        walk(&self.before.0, [&self.before.1], [self.start], |[at], length, [step]| {
            for count in 0..length as isize {
                for cell in table {
                    for &(further, length, inner_step) in &inner {
                        run(at + count * step + cell + further, length, inner_step);
                    }
                }
            }
        });
    }

    /// The cells of a tensor with these strides.
    pub(super) fn read<T: Copy>(&self, source: &[T]) -> Vec<T> {
        let mut elements = Vec::with_capacity(self.shape.iter().product());
        self.runs(|at, length, step| match step {
            1 => elements.extend_from_slice(&source[at as usize..at as usize + length]),
            _ => elements.extend((0..length as isize).map(|count| source[(at + count * step) as usize])),
        });
        elements
    }

    /// Combines the cells with new values, which lie in the order of the result.
    fn write<T: Copy>(&self, target: &mut [T], values: &[T], combine: impl Fn(T, T) -> T) {
        let mut values = values.iter();
        self.runs(|at, length, step| {
            for (count, &value) in (0..length as isize).zip(values.by_ref()) {
                let cell = &mut target[(at + count * step) as usize];
                *cell = combine(*cell, value);
            }
        });
    }
}

/// A dimension of the result while an index is read.
enum Axis {
    /// Cells at equal distances.
    Steps(usize, isize),
    /// One that an index tensor points into: the tensor's shape, and how far each of its cells points.
    Pointed(Vec<usize>, Vec<isize>),
}

/// How many dimensions of the input an item stands for.
fn consumed(call: &Call<'_>, item: &IndexItem) -> usize {
    match item {
        IndexItem::Integer(_) | IndexItem::Slice { .. } => 1,
        IndexItem::Ellipsis | IndexItem::NewAxis => 0,
        IndexItem::Tensor(value) => {
            let tensor = call.value(*value);
            if tensor.dtype() == DType::Bool { tensor.rank() } else { 1 }
        }
    }
}

/// The first place and the number of places of a slice, clamped as in Python.
fn slice(
    call: &Call<'_>,
    (start, stop, step): (Option<i64>, Option<i64>, i64),
    length: usize,
) -> Result<(usize, usize)> {
    if step < 1 {
        return Err(call
            .error(format!("a slice's step must be at least 1, not {step}"))
            .hint("use flip to reverse"));
    }
    let length = length as i64;
    let clamped =
        |place: i64| (if place < 0 { place.saturating_add(length) } else { place }).clamp(0, length);
    let (start, stop) = (clamped(start.unwrap_or(0)), clamped(stop.unwrap_or(length)));
    let count = (stop - start).max(0) as u64;
    Ok((start as usize, count.div_ceil(step as u64) as usize))
}

/// Finds the region that an index names in a tensor of that shape and those strides.
fn region(
    call: &Call<'_>,
    items: &[IndexItem],
    shape: &[usize],
    strides: &[isize],
    start: usize,
    writing: bool,
) -> Result<Region> {
    let named: usize = items.iter().map(|item| consumed(call, item)).sum();
    let left = shape.len().checked_sub(named);
    let left =
        left.ok_or_else(|| call.error(format!("the index has more items than the shape {shape:?}")))?;
    if items.iter().filter(|item| **item == IndexItem::Ellipsis).count() > 1 {
        return Err(call.error("an index has at most one ellipsis"));
    }
    let mut axes = Vec::with_capacity(items.len() + left);
    let mut start = start as isize;
    let mut place = 0;
    let end = [IndexItem::Ellipsis];
    let closing = if items.contains(&IndexItem::Ellipsis) { &[][..] } else { &end[..] };
    for item in items.iter().chain(closing) {
        match item {
            IndexItem::Integer(at) => {
                start += place_of(call, *at, shape[place], true)? as isize * strides[place];
                place += 1;
            }
            IndexItem::Slice { start: from, stop, step } => {
                let (first, count) = slice(call, (*from, *stop, *step), shape[place])?;
                if count > 0 {
                    start += first as isize * strides[place];
                }
                axes.push(Axis::Steps(count, strides[place].saturating_mul(*step as isize)));
                place += 1;
            }
            IndexItem::Ellipsis => {
                axes.extend((place..place + left).map(|place| Axis::Steps(shape[place], strides[place])));
                place += left;
            }
            IndexItem::NewAxis => axes.push(Axis::Steps(1, 0)),
            IndexItem::Tensor(value) => {
                let tensor = call.value(*value);
                if tensor.dtype() == DType::Bool {
                    axes.push(mask(call, &tensor, &shape[place..], &strides[place..], writing)?);
                    place += tensor.rank();
                    continue;
                }
                if !tensor.dtype().is_integer() {
                    let message = format!(
                        "an index must be of whole numbers or truth values, not of {}",
                        tensor.dtype()
                    );
                    return Err(call.error(message));
                }
                let places = tensor.integers()?;
                let mut offsets = Vec::with_capacity(places.len());
                for &at in places.iter() {
                    offsets.push(place_of(call, at, shape[place], true)? as isize * strides[place]);
                }
                // A lone number is as good as an integer: PyTorch lets it select.
                match (tensor.rank(), offsets.first()) {
                    (0, Some(offset)) => start += offset,
                    _ => axes.push(Axis::Pointed(tensor.shape().to_vec(), offsets)),
                }
                place += 1;
            }
        }
    }
    assembled(call, axes, start)
}

/// A mask as an index tensor: of the cells where it holds.
fn mask(call: &Call<'_>, mask: &Tensor, shape: &[usize], strides: &[isize], writing: bool) -> Result<Axis> {
    if !writing {
        return Err(call
            .error("a mask cannot be read with: the result's shape would depend on its values")
            .hint("use where(mask, x, 0), or write with the mask"));
    }
    if !shape.starts_with(mask.shape()) {
        let message = format!("a mask of shape {:?} does not fit the dimensions {shape:?}", mask.shape());
        return Err(call.error(message));
    }
    let truths = mask.truths()?;
    let mut offsets = Vec::new();
    let mut at = 0;
    walk(mask.shape(), [&strides[..mask.rank()]], [0], |[offset], length, [step]| {
        for count in 0..length as isize {
            if truths[at] {
                offsets.push(offset + count * step);
            }
            at += 1;
        }
    });
    Ok(Axis::Pointed(vec![offsets.len()], offsets))
}

/// The region of these dimensions: index tensors are broadcast together, and stand where they stood if they stood side
/// by side, else first.
fn assembled(call: &Call<'_>, axes: Vec<Axis>, start: isize) -> Result<Region> {
    let pointed: Vec<usize> = (0..axes.len()).filter(|&at| matches!(axes[at], Axis::Pointed(..))).collect();
    let steps = |axes: &[Axis]| -> (Vec<usize>, Vec<isize>) {
        axes.iter()
            .filter_map(|axis| match axis {
                Axis::Steps(size, stride) => Some((*size, *stride)),
                Axis::Pointed(..) => None,
            })
            .unzip()
    };
    let (Some(&first), Some(&last)) = (pointed.first(), pointed.last()) else {
        let after = steps(&axes);
        element_count(&after.0)?;
        return Ok(Region { shape: after.0.clone(), start, before: Default::default(), table: None, after });
    };
    let tensors: Vec<(&Vec<usize>, &Vec<isize>)> = axes
        .iter()
        .filter_map(|axis| match axis {
            Axis::Pointed(shape, offsets) => Some((shape, offsets)),
            Axis::Steps(..) => None,
        })
        .collect();
    let shapes: Vec<&[usize]> = tensors.iter().map(|(shape, _)| shape.as_slice()).collect();
    let shape = broadcast_shape(&shapes).ok_or_else(|| {
        call.error(format!("the index tensors' shapes {shapes:?} do not broadcast together"))
    })?;
    let mut table = vec![0isize; element_count(&shape)?];
    for (own, offsets) in tensors {
        let expanded = gather(offsets, 0, &shape, &broadcast_strides(own, &shape));
        table.iter_mut().zip(expanded).for_each(|(sum, offset)| *sum += offset);
    }
    let side_by_side = last - first + 1 == pointed.len();
    let (before, after) = if side_by_side {
        (steps(&axes[..first]), steps(&axes[last + 1..]))
    } else {
        (Default::default(), steps(&axes))
    };
    let shape: Vec<usize> = before.0.iter().chain(&shape).chain(&after.0).copied().collect();
    element_count(&shape)?;
    Ok(Region { shape, start, before, table: Some(table), after })
}

pub(super) fn get_item(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let items = call.index(1)?;
    if let Some(view) = view(call, &input, items)? {
        return Ok(view);
    }
    with_stored!(input.dtype(), T => {
        let (elements, shape) = input.with_strided::<T, _>(|source, start, strides| {
            let region = region(call, items, input.shape(), strides, start, false)?;
            Ok::<_, OperationError>((region.read(source), region.shape))
        })??;
        Tensor::from_stored(elements, &shape, input.dtype())
    })
}

/// The input seen through an index of integers, whole steps, ellipsis and new axes; none: it needs a copy.
fn view(call: &Call<'_>, input: &Tensor, items: &[IndexItem]) -> Result<Option<Tensor>> {
    let mut named = 0;
    let mut ellipses = 0;
    for item in items {
        match item {
            IndexItem::Integer(_) | IndexItem::Slice { step: 1, .. } => named += 1,
            IndexItem::NewAxis => {}
            IndexItem::Ellipsis => ellipses += 1,
            _ => return Ok(None),
        }
    }
    let Some(left) = input.rank().checked_sub(named) else { return Ok(None) };
    if ellipses > 1 {
        return Ok(None);
    }
    let mut data = input.data().clone();
    let mut place = 0;
    for item in items {
        match item {
            IndexItem::Integer(at) => {
                let at = place_of(call, *at, data.dims()[place], true)?;
                data = data.narrow(place, at, 1)?.squeeze(place)?;
            }
            IndexItem::Slice { start, stop, step } => {
                let length = data.dims()[place];
                let (first, count) = slice(call, (*start, *stop, *step), length)?;
                if count < length {
                    data = data.narrow(place, if count == 0 { 0 } else { first }, count)?;
                }
                place += 1;
            }
            IndexItem::NewAxis => {
                data = data.unsqueeze(place)?;
                place += 1;
            }
            _ => place += left,
        }
    }
    Ok(Some(input.view(data)))
}

pub(super) fn index_put(call: &Call<'_>) -> Result<Tensor> {
    let (input, values) = (call.tensor(0)?, call.operand(2)?);
    write_at(call, &input, call.index(1)?, &values.cast(input.dtype())?, call.boolean(3)?)
}

/// A tensor with values of its number type written (or added) at an index.
pub(super) fn write_at(
    call: &Call<'_>,
    input: &Tensor,
    items: &[IndexItem],
    values: &Tensor,
    accumulate: bool,
) -> Result<Tensor> {
    let strides = contiguous_strides(input.shape());
    let region = region(call, items, input.shape(), &strides, 0, true)?;
    let values = fitting(call, values, &region.shape)?;
    if !accumulate {
        return replaced(input, &region, &values);
    }
    match Computation::of(input.dtype()) {
        Computation::Double => accumulated::<f64>(input, &region, &values),
        Computation::Single => accumulated::<f32>(input, &region, &values),
        Computation::Integer => accumulated::<i64>(input, &region, &values),
    }
}

/// What stands at the places that an index for writing names, masks included.
pub(super) fn read_at(call: &Call<'_>, input: &Tensor, items: &[IndexItem]) -> Result<Tensor> {
    with_stored!(input.dtype(), T => {
        let (elements, shape) = input.with_strided::<T, _>(|source, start, strides| {
            let region = region(call, items, input.shape(), strides, start, true)?;
            Ok::<_, OperationError>((region.read(source), region.shape))
        })??;
        Tensor::from_stored(elements, &shape, input.dtype())
    })
}

/// New values seen in the region's shape. Leading dimensions of size 1 too many go, as in PyTorch.
fn fitting(call: &Call<'_>, values: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let fault =
        || call.error(format!("values of shape {:?} do not fit into the shape {shape:?}", values.shape()));
    let mut data = values.data().clone();
    while data.rank() > shape.len() && data.dims().first() == Some(&1) {
        data = data.squeeze(0)?;
    }
    if broadcast_shape(&[data.dims(), shape]).as_deref() != Some(shape) || data.rank() > shape.len() {
        return Err(fault());
    }
    Ok(values.view(data.broadcast_as(shape)?))
}

fn replaced(input: &Tensor, region: &Region, values: &Tensor) -> Result<Tensor> {
    with_stored!(input.dtype(), T => {
        let mut elements = input.read::<T>()?.into_vec();
        if region.table.is_none() {
            let (shape, strides) = (&region.after.0, &region.after.1);
            values.with_strided::<T, _>(|source, start, own| {
                copy_strided(source, start as isize, own, &mut elements, region.start, strides, shape);
            })?;
        } else {
            region.write(&mut elements, &values.read::<T>()?, |_, value| value);
        }
        Tensor::from_stored(elements, input.shape(), input.dtype())
    })
}

fn accumulated<N: Number>(input: &Tensor, region: &Region, values: &Tensor) -> Result<Tensor> {
    let mut elements = N::elements(input)?.into_vec();
    region.write(&mut elements, &N::elements(values)?, N::plus);
    store(elements, input.shape(), input.dtype())
}
