//! Operations that move elements without computing.

use pellucid_graph::OperationKind;

use super::Result;
use super::arguments::{Call, Operand};
use super::constructor::filled;
use super::number::result_type;
use super::walk::{contiguous_strides, gather, walk};
use crate::tensor::{Stored, Tensor, element_count, stored_scalar, with_stored};

/// The tensor in another shape of as many elements.
fn reshaped(call: &Call<'_>, input: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if element_count(shape)? != input.elements() {
        let message = format!("a tensor of shape {:?} cannot take the shape {shape:?}", input.shape());
        return Err(call.error(message));
    }
    let input = input.contiguous()?;
    Ok(input.view(input.data().reshape(shape)?))
}

/// A shape in which one −1 stands for what is left of `elements`.
fn inferred(call: &Call<'_>, sizes: &[i64], elements: usize) -> Result<Vec<usize>> {
    let fault = || call.error(format!("{elements} elements do not fill the shape {sizes:?}"));
    let known = sizes.iter().filter(|&&size| size != -1);
    let product =
        known.clone().try_fold(1usize, |product, &size| product.checked_mul(usize::try_from(size).ok()?));
    let product = product.ok_or_else(fault)?;
    if known.count() + 1 < sizes.len() {
        return Err(call.error("only one size can be -1"));
    }
    let rest = elements.checked_div(product).unwrap_or(0);
    if sizes.contains(&-1) && (product == 0 || rest * product != elements) {
        return Err(fault());
    }
    Ok(sizes.iter().map(|&size| if size == -1 { rest } else { size as usize }).collect())
}

pub(super) fn reshape(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let shape = inferred(call, &call.sizes(1)?, input.elements())?;
    reshaped(call, &input, &shape)
}

pub(super) fn flatten(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let first = call.dimension(call.integer(1)?, input.rank())?;
    let last = call.dimension(call.integer(2)?, input.rank())?;
    if last < first {
        return Err(call.error("the first dimension stands behind the last"));
    }
    let shape = input.shape();
    let Some(middle) = shape.get(first..=last) else {
        return reshaped(call, &input, &[1]);
    };
    let joined = middle.iter().product();
    let shape: Vec<usize> =
        shape[..first].iter().copied().chain([joined]).chain(shape[last + 1..].iter().copied()).collect();
    reshaped(call, &input, &shape)
}

pub(super) fn unflatten(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let place = call.dimension(call.integer(1)?, input.rank())?;
    let Some(&size) = input.shape().get(place) else {
        return Err(call.error("a tensor without dimensions has none to divide"));
    };
    let sizes = inferred(call, &call.sizes(2)?, size)?;
    if sizes.iter().product::<usize>() != size {
        return Err(call.error(format!("a dimension of size {size} does not divide into {sizes:?}")));
    }
    let (before, after) = (&input.shape()[..place], &input.shape()[place + 1..]);
    let shape: Vec<usize> = before.iter().chain(&sizes).chain(after).copied().collect();
    reshaped(call, &input, &shape)
}

pub(super) fn transpose(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let first = call.dimension(call.integer(1)?, input.rank())?;
    let second = call.dimension(call.integer(2)?, input.rank())?;
    if input.rank() == 0 {
        return Ok(input);
    }
    Ok(input.view(input.data().transpose(first, second)?))
}

pub(super) fn permute(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let order = call.integers(1)?;
    if order.len() != input.rank() {
        let message =
            format!("{order:?} does not order the dimensions of a tensor of shape {:?}", input.shape());
        return Err(call.error(message));
    }
    let order = call.dimensions(&order, input.rank())?;
    Ok(input.view(input.data().permute(order)?))
}

pub(super) fn move_dim(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let (source, destination) = (call.integers(1)?, call.integers(2)?);
    if source.len() != destination.len() {
        return Err(call.error("`source` and `destination` must have as many dimensions"));
    }
    let (source, destination) =
        (call.dimensions(&source, input.rank())?, call.dimensions(&destination, input.rank())?);
    if input.rank() == 0 {
        return Ok(input);
    }
    let mut rest = (0..input.rank()).filter(|place| !source.contains(place));
    let order: Vec<usize> = (0..input.rank())
        .filter_map(|place| match destination.iter().position(|&to| to == place) {
            Some(at) => Some(source[at]),
            None => rest.next(),
        })
        .collect();
    Ok(input.view(input.data().permute(order)?))
}

pub(super) fn squeeze(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let chosen = match call.optional_integers(1)? {
        Some(dimensions) => call.dimensions(&dimensions, input.rank())?,
        None => (0..input.rank()).collect(),
    };
    let mut data = input.data().clone();
    for place in (0..input.rank()).rev() {
        if chosen.contains(&place) && input.shape()[place] == 1 {
            data = data.squeeze(place)?;
        }
    }
    Ok(input.view(data))
}

pub(super) fn unsqueeze(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let place = call.dimension(call.integer(1)?, input.rank() + 1)?;
    Ok(input.view(input.data().unsqueeze(place)?))
}

pub(super) fn expand(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let sizes = call.sizes(1)?;
    let fault = || call.error(format!("a tensor of shape {:?} does not expand to {sizes:?}", input.shape()));
    let missing = sizes.len().checked_sub(input.rank()).ok_or_else(fault)?;
    let mut shape = Vec::with_capacity(sizes.len());
    for (place, &size) in sizes.iter().enumerate() {
        let own = place.checked_sub(missing).and_then(|place| input.shape().get(place)).copied();
        shape.push(match (usize::try_from(size), own) {
            (Err(_), Some(own)) if size == -1 => own,
            (Ok(size), Some(own)) if own == size || own == 1 => size,
            (Ok(size), None) => size,
            _ => return Err(fault()),
        });
    }
    element_count(&shape)?;
    Ok(input.view(input.data().broadcast_as(shape)?))
}

pub(super) fn repeat(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let repeats = call.integers(1)?;
    let counts: Option<Vec<usize>> = repeats.iter().map(|&count| usize::try_from(count).ok()).collect();
    let missing = repeats.len().checked_sub(input.rank());
    let (Some(counts), Some(missing)) = (counts, missing) else {
        return Err(
            call.error(format!("a tensor of shape {:?} cannot be repeated {repeats:?} times", input.shape()))
        );
    };
    // Each dimension becomes two, how often and what; the first has no stride.
    let mut doubled = Vec::with_capacity(2 * counts.len());
    let mut shape = Vec::with_capacity(counts.len());
    for (place, &count) in counts.iter().enumerate() {
        let own = place.checked_sub(missing).map_or(1, |place| input.shape()[place]);
        doubled.extend([count, own]);
        shape.push(count.checked_mul(own).ok_or_else(|| call.error("the result is too large"))?);
    }
    element_count(&shape)?;
    with_stored!(input.dtype(), T => {
        let elements = input.with_strided::<T, _>(|source, start, own| {
            let strides: Vec<isize> = (0..counts.len())
                .flat_map(|place| [0, place.checked_sub(missing).map_or(0, |place| own[place])])
                .collect();
            gather(source, start, &doubled, &strides)
        })?;
        Tensor::from_stored(elements, &shape, input.dtype())
    })
}

/// Tensors joined along a dimension; all of one number type, and of one shape but for that dimension.
pub(super) fn joined(call: &Call<'_>, tensors: &[Tensor], place: usize) -> Result<Tensor> {
    let Some(first) = tensors.first() else {
        return Err(call.error("there are no tensors to join"));
    };
    let mut shape = first.shape().to_vec();
    let mut total = 0usize;
    for tensor in tensors {
        let mut other = tensor.shape().to_vec();
        if other.len() != shape.len() || place >= other.len() {
            return Err(call.error(format!("the shapes {shape:?} and {other:?} cannot be joined")));
        }
        total = total.saturating_add(std::mem::replace(&mut other[place], shape[place]));
        if other != shape {
            let message = format!(
                "the shapes {:?} and {:?} differ elsewhere than in dimension {place}",
                first.shape(),
                tensor.shape()
            );
            return Err(call.error(message));
        }
    }
    shape[place] = total;
    let count = element_count(&shape)?;
    let outer: usize = shape[..place].iter().product();
    let inner: usize = shape[place + 1..].iter().product();
    with_stored!(first.dtype(), T => {
        let parts: Vec<_> = tensors.iter().map(|tensor| tensor.read::<T>()).collect::<Result<_>>()?;
        let mut elements: Vec<T> = Vec::with_capacity(count);
        if count > 0 {
            for block in 0..outer {
                for (part, tensor) in parts.iter().zip(tensors) {
                    let length = tensor.shape()[place] * inner;
                    elements.extend_from_slice(&part[block * length..(block + 1) * length]);
                }
            }
        }
        Tensor::from_stored(elements, &shape, first.dtype())
    })
}

/// A list of tensors in their common number type.
fn promoted(tensors: Vec<Tensor>) -> Result<Vec<Tensor>> {
    let operands: Vec<Operand> = tensors.iter().cloned().map(Operand::Tensor).collect();
    let dtype = result_type(&operands.iter().collect::<Vec<_>>());
    tensors.iter().map(|tensor| tensor.cast(dtype)).collect()
}

pub(super) fn cat(call: &Call<'_>) -> Result<Tensor> {
    let mut tensors = promoted(call.tensors(0)?)?;
    // PyTorch passes over empty vectors, whatever the others' shapes.
    if tensors.iter().any(|tensor| tensor.shape() != [0]) {
        tensors.retain(|tensor| tensor.shape() != [0]);
    }
    let rank = tensors.first().map_or(0, Tensor::rank);
    if let Some(first) = tensors.first().filter(|first| first.shape() == [0]) {
        return Ok(first.clone());
    }
    if rank == 0 {
        return Err(call.error("tensors without dimensions cannot be joined").hint("use stack"));
    }
    joined(call, &tensors, call.dimension(call.integer(1)?, rank)?)
}

pub(super) fn stack(call: &Call<'_>) -> Result<Tensor> {
    let tensors = promoted(call.tensors(0)?)?;
    let rank = tensors.first().map_or(0, Tensor::rank);
    let place = call.dimension(call.integer(1)?, rank + 1)?;
    let mut raised = Vec::with_capacity(tensors.len());
    for tensor in &tensors {
        if tensor.rank() != rank {
            return Err(call.error("the tensors' shapes differ"));
        }
        raised.push(tensor.view(tensor.data().unsqueeze(place)?));
    }
    joined(call, &raised, place)
}

/// Pieces of those sizes along a dimension, one after the other.
fn pieces(input: &Tensor, place: usize, sizes: &[usize]) -> Result<Vec<Tensor>> {
    let mut start = 0;
    let mut pieces = Vec::with_capacity(sizes.len());
    for &size in sizes {
        pieces.push(input.view(input.data().narrow(place, start, size)?));
        start += size;
    }
    Ok(pieces)
}

/// Pieces of one size, the last one of what is left; one empty piece of nothing.
fn even_sizes(length: usize, size: usize) -> Vec<usize> {
    if length == 0 || size == 0 {
        return vec![length];
    }
    (0..length.div_ceil(size)).map(|piece| size.min(length - piece * size)).collect()
}

/// The dimension that is cut, and its length.
fn cut(call: &Call<'_>, input: &Tensor, place: usize) -> Result<(usize, usize)> {
    let place = call.dimension(call.integer(place)?, input.rank())?;
    match input.shape().get(place) {
        Some(&length) => Ok((place, length)),
        None => Err(call.error("a tensor without dimensions cannot be cut")),
    }
}

pub(super) fn split(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let input = call.tensor(0)?;
    let (place, length) = cut(call, &input, 2)?;
    let asked = call.integers(1)?;
    let sizes: Option<Vec<usize>> = asked.iter().map(|&size| usize::try_from(size).ok()).collect();
    let sizes = match sizes {
        Some(sizes) if call.is_single(1) && (sizes != [0] || length == 0) => even_sizes(length, sizes[0]),
        Some(sizes)
            if !call.is_single(1)
                && sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size)) == Some(length) =>
        {
            sizes
        }
        _ => return Err(call.error(format!("a dimension of size {length} does not split into {asked:?}"))),
    };
    pieces(&input, place, &sizes)
}

pub(super) fn chunk(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let input = call.tensor(0)?;
    let (place, length) = cut(call, &input, 2)?;
    let chunks = call.integer(1)?;
    let Ok(chunks @ 1..) = usize::try_from(chunks) else {
        return Err(call.error(format!("there cannot be {chunks} pieces")));
    };
    if length == 0 {
        // As many empty pieces as were asked for, as in PyTorch; a bound keeps the list small.
        return pieces(&input, place, &vec![0; chunks.min(pellucid_graph::limits::LIST_ARGUMENTS)]);
    }
    pieces(&input, place, &even_sizes(length, length.div_ceil(chunks)))
}

pub(super) fn pad(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let pad = call.integers(1)?;
    let value = call.number(2)?;
    if pad.len() % 2 != 0 || pad.len() / 2 > input.rank() {
        let message = format!("{pad:?} is not a list of pairs for a tensor of shape {:?}", input.shape());
        return Err(call.error(message));
    }
    let (own, rank) = (input.shape(), input.rank());
    let mut shape = own.to_vec();
    // Where the kept part starts in the input and in the result, and its shape.
    let (mut from, mut to, mut kept) = (vec![0usize; rank], vec![0usize; rank], own.to_vec());
    for (pair, sides) in pad.chunks_exact(2).enumerate() {
        let place = rank - 1 - pair;
        let size = (own[place] as i64).checked_add(sides[0]).and_then(|size| size.checked_add(sides[1]));
        let Some(Ok(size)) = size.map(usize::try_from) else {
            return Err(
                call.error(format!("nothing is left of dimension {place} of shape {own:?} after {sides:?}"))
            );
        };
        shape[place] = size;
        from[place] = usize::try_from(-sides[0].max(-i64::MAX)).unwrap_or(0);
        to[place] = usize::try_from(sides[0]).unwrap_or(0);
        let cut_end = usize::try_from(-sides[1].max(-i64::MAX)).unwrap_or(0);
        kept[place] = own[place].saturating_sub(from[place]).saturating_sub(cut_end);
    }
    let count = element_count(&shape)?;
    if kept.contains(&0) {
        return filled(value, &shape, input.dtype());
    }
    with_stored!(input.dtype(), T => {
        let mut elements: Vec<T> = vec![stored_scalar(value, input.dtype()); count];
        let strides = contiguous_strides(&shape);
        let target: isize = to.iter().zip(&strides).map(|(&start, &stride)| start as isize * stride).sum();
        input.with_strided::<T, _>(|source, start, own_strides| {
            let first: isize = from.iter().zip(own_strides).map(|(&start, &stride)| start as isize * stride).sum();
            copy_strided(source, start as isize + first, own_strides, &mut elements, target, &strides, &kept);
        })?;
        Tensor::from_stored(elements, &shape, input.dtype())
    })
}

/// Copies a region of one tensor into one of another.
pub(super) fn copy_strided<T: Copy>(
    source: &[T],
    from: isize,
    source_strides: &[isize],
    target: &mut [T],
    to: isize,
    target_strides: &[isize],
    shape: &[usize],
) {
    walk(shape, [source_strides, target_strides], [from, to], |[from, to], length, steps| {
        let (from, to) = (from as usize, to as usize);
        match steps {
            [1, 1] => target[to..to + length].copy_from_slice(&source[from..from + length]),
            [0, 1] => target[to..to + length].fill(source[from]),
            [source_step, target_step] => (0..length as isize).for_each(|count| {
                let element = source[(from as isize + count * source_step) as usize];
                target[(to as isize + count * target_step) as usize] = element;
            }),
        }
    });
}

pub(super) fn flip(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let places = call.dimensions(&call.integers(1)?, input.rank())?;
    if input.rank() == 0 || input.elements() == 0 {
        return Ok(input);
    }
    with_stored!(input.dtype(), T => {
        let elements = input.with_strided::<T, _>(|source, start, own| {
            let (mut strides, mut start) = (own.to_vec(), start as isize);
            for &place in &places {
                start += strides[place] * (input.shape()[place] as isize - 1);
                strides[place] = -strides[place];
            }
            gather(source, start as usize, input.shape(), &strides)
        })?;
        Tensor::from_stored(elements, input.shape(), input.dtype())
    })
}

pub(super) fn roll(call: &Call<'_>) -> Result<Tensor> {
    let mut input = call.tensor(0)?;
    let (shifts, dimensions) = (call.integers(1)?, call.integers(2)?);
    // Without dimensions: all elements, in row-major order.
    if let ([shift], []) = (shifts.as_slice(), dimensions.as_slice()) {
        let shape = input.shape().to_vec();
        let flat = reshaped(call, &input, &[input.elements()])?;
        return reshaped(call, &rolled(call, &flat, 0, *shift)?, &shape);
    }
    if shifts.len() != dimensions.len() {
        return Err(call.error("there must be a shift for each dimension"));
    }
    for (&shift, &dimension) in shifts.iter().zip(&dimensions) {
        let place = call.dimension(dimension, input.rank())?;
        input = rolled(call, &input, place, shift)?;
    }
    Ok(input)
}

fn rolled(call: &Call<'_>, input: &Tensor, place: usize, shift: i64) -> Result<Tensor> {
    let Some(length @ 1..) = input.shape().get(place).copied() else { return Ok(input.clone()) };
    let by = shift.rem_euclid(length as i64) as usize;
    let ends = pieces(input, place, &[length - by, by])?;
    joined(call, &[ends[1].clone(), ends[0].clone()], place)
}

pub(super) fn triangle(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let diagonal = call.integer(1)?;
    let lower = call.kind() == OperationKind::Tril;
    let [.., rows, columns] = *input.shape() else {
        return Err(call.error(format!("a tensor of shape {:?} is no matrix", input.shape())));
    };
    if input.elements() == 0 {
        return Ok(input);
    }
    with_stored!(input.dtype(), T => {
        let mut elements = input.read::<T>()?.into_vec();
        let zero = T::from_integer(0);
        for (at, row) in elements.chunks_exact_mut(columns).enumerate() {
            // The first column above the diagonal, or the first on it.
            let edge = ((at % rows) as i64).saturating_add(diagonal).saturating_add(i64::from(lower));
            let edge = edge.clamp(0, columns as i64) as usize;
            if lower { row[edge..].fill(zero) } else { row[..edge].fill(zero) }
        }
        Tensor::from_stored(elements, input.shape(), input.dtype())
    })
}

pub(super) fn diagonal(call: &Call<'_>) -> Result<Tensor> {
    let input = call.tensor(0)?;
    let offset = call.integer(1)?;
    let places = call.dimensions(&[call.integer(2)?, call.integer(3)?], input.rank())?;
    if input.rank() < 2 {
        return Err(call.error(format!("a tensor of shape {:?} has no diagonal", input.shape())));
    }
    let (rows, columns) = (input.shape()[places[0]] as i64, input.shape()[places[1]] as i64);
    let (first_row, first_column) = (offset.saturating_neg().max(0), offset.max(0));
    let length = rows.saturating_sub(first_row).min(columns.saturating_sub(first_column)).max(0);
    let rest: Vec<usize> = (0..input.rank()).filter(|place| !places.contains(place)).collect();
    let mut shape: Vec<usize> = rest.iter().map(|&place| input.shape()[place]).collect();
    shape.push(length as usize);
    with_stored!(input.dtype(), T => {
        let elements = input.with_strided::<T, _>(|source, start, own| {
            let (down, right) = (own[places[0]], own[places[1]]);
            let mut strides: Vec<isize> = rest.iter().map(|&place| own[place]).collect();
            strides.push(down + right);
            let first = if length == 0 { 0 } else { first_row as isize * down + first_column as isize * right };
            gather(source, (start as isize + first) as usize, &shape, &strides)
        })?;
        Tensor::from_stored(elements, &shape, input.dtype())
    })
}
