//! Picking and writing along one dimension by index tensors.

use pellucid_graph::OperationKind;

use super::Result;
use super::arguments::{Call, Operand};
use super::indexing::{Region, place_of};
use super::number::{Computation, Number, store};
use super::walk::{broadcast_shape, contiguous_strides, walk};
use crate::tensor::{Tensor, with_stored};

/// A tensor with at least one dimension.
fn raised(tensor: &Tensor) -> Result<Tensor> {
    if tensor.rank() == 0 { Ok(tensor.view(tensor.data().unsqueeze(0)?)) } else { Ok(tensor.clone()) }
}

/// Places along a dimension of that length: in range, none negative.
fn places(call: &Call<'_>, index: &Tensor, length: usize) -> Result<Vec<isize>> {
    if index.dtype().is_float() {
        return Err(call.error(format!("an index must be of whole numbers, not of {}", index.dtype())));
    }
    let index = index.integers()?;
    // As many as there are: a vector that grows has room for twice as many.
    let mut places = Vec::with_capacity(index.len());
    for &place in index.iter() {
        places.push(place_of(call, place, length, false)? as isize);
    }
    Ok(places)
}

/// An error unless the index is no larger than the tensor in any dimension but `except`.
fn fits(call: &Call<'_>, index: &Tensor, tensor: &Tensor, except: Option<usize>) -> Result<()> {
    let (sizes, limits) = (index.shape(), tensor.shape());
    let too_large = |place: usize| Some(place) != except && sizes[place] > limits[place];
    if sizes.len() != limits.len() || (0..sizes.len()).any(too_large) {
        return Err(
            call.error(format!("an index of shape {sizes:?} does not fit a tensor of shape {limits:?}"))
        );
    }
    Ok(())
}

pub(super) fn gather(call: &Call<'_>) -> Result<Tensor> {
    let (input, index) = (call.tensor(0)?, call.tensor(2)?);
    let place = call.dimension(call.integer(1)?, input.rank())?;
    picked(call, &input, &index, place)
}

pub(super) fn take_along_dim(call: &Call<'_>) -> Result<Tensor> {
    let (input, index) = (call.tensor(0)?, call.tensor(1)?);
    let place = call.dimension(call.integer(2)?, input.rank())?;
    if input.rank() != index.rank() {
        return Err(call.error(format!(
            "the shapes {:?} and {:?} differ in length",
            input.shape(),
            index.shape()
        )));
    }
    if input.rank() == 0 {
        return picked(call, &input, &index, place);
    }
    let (mut own, mut other) = (input.shape().to_vec(), index.shape().to_vec());
    let (own_length, other_length) =
        (std::mem::replace(&mut own[place], 1), std::mem::replace(&mut other[place], 1));
    let Some(mut common) = broadcast_shape(&[&own, &other]) else {
        return Err(call.error(format!(
            "the shapes {:?} and {:?} do not broadcast",
            input.shape(),
            index.shape()
        )));
    };
    common[place] = own_length;
    let input = input.view(input.data().broadcast_as(common.as_slice())?);
    common[place] = other_length;
    let index = index.view(index.data().broadcast_as(common.as_slice())?);
    crate::tensor::element_count(&common)?;
    picked(call, &input, &index, place)
}

fn picked(call: &Call<'_>, input: &Tensor, index: &Tensor, place: usize) -> Result<Tensor> {
    let shape = index.shape();
    let (input, index) = (raised(input)?, raised(index)?);
    if index.elements() > 0 {
        fits(call, &index, &input, Some(place))?;
    }
    let places = places(call, &index, input.shape()[place])?;
    with_stored!(input.dtype(), T => {
        let elements = input.with_strided::<T, _>(|source, start, own| {
            let (mut strides, along) = (own.to_vec(), own[place]);
            strides[place] = 0;
            let mut elements: Vec<T> = Vec::with_capacity(places.len());
            walk(index.shape(), [&strides, &contiguous_strides(index.shape())], [start as isize, 0], |[at, from], length, [step, next]| {
                elements.extend((0..length as isize).map(|count| {
                    source[(at + count * step + places[(from + count * next) as usize] * along) as usize]
                }));
            });
            elements
        })?;
        Tensor::from_stored(elements, shape, input.dtype())
    })
}

pub(super) fn scatter(call: &Call<'_>) -> Result<Tensor> {
    let (input, index, source) = (call.tensor(0)?, call.tensor(2)?, call.operand(3)?);
    let place = call.dimension(call.integer(1)?, input.rank())?;
    let shape = input.shape().to_vec();
    let (input, index) = (raised(&input)?, raised(&index)?);
    if index.elements() == 0 {
        return Ok(input.view(input.data().reshape(shape)?));
    }
    fits(call, &index, &input, Some(place))?;
    let source = match source {
        Operand::Tensor(tensor) => {
            let tensor = raised(&tensor)?;
            fits(call, &index, &tensor, None)?;
            tensor.cast(input.dtype())?
        }
        Operand::Scalar(_) => {
            let point = source.cast(input.dtype())?;
            point.view(point.data().broadcast_as(index.shape())?)
        }
    };
    let places = places(call, &index, input.shape()[place])?;
    let written = if call.kind() == OperationKind::Scatter {
        with_stored!(input.dtype(), T => {
            let mut elements = input.read::<T>()?.into_vec();
            let source_elements = source.read::<T>()?;
            write(&mut elements, input.shape(), &source_elements, source.shape(), &index, &places, place, |_, new| new);
            Tensor::from_stored(elements, &shape, input.dtype())
        })
    } else {
        match Computation::of(input.dtype()) {
            Computation::Double => added::<f64>(&input, &source, &index, &places, place),
            Computation::Single => added::<f32>(&input, &source, &index, &places, place),
            Computation::Integer => added::<i64>(&input, &source, &index, &places, place),
        }
    }?;
    Ok(written.view(written.data().reshape(shape)?))
}

fn added<N: Number>(
    input: &Tensor,
    source: &Tensor,
    index: &Tensor,
    places: &[isize],
    place: usize,
) -> Result<Tensor> {
    let mut elements = N::elements(input)?.into_vec();
    let source_elements = N::elements(source)?;
    write(&mut elements, input.shape(), &source_elements, source.shape(), index, places, place, N::plus);
    store(elements, input.shape(), input.dtype())
}

#[allow(clippy::too_many_arguments, reason = "three strided operands and what is done with them")]
fn write<T: Copy>(
    elements: &mut [T],
    shape: &[usize],
    source: &[T],
    source_shape: &[usize],
    index: &Tensor,
    places: &[isize],
    place: usize,
    combine: impl Fn(T, T) -> T,
) {
    let mut strides = contiguous_strides(shape);
    let along = std::mem::replace(&mut strides[place], 0);
    let operands = [&strides[..], &contiguous_strides(source_shape), &contiguous_strides(index.shape())];
    walk(index.shape(), operands, [0, 0, 0], |[at, from, mark], length, [step, source_step, index_step]| {
        for count in 0..length as isize {
            let place = places[(mark + count * index_step) as usize];
            let target = &mut elements[(at + count * step + place * along) as usize];
            *target = combine(*target, source[(from + count * source_step) as usize]);
        }
    });
}

pub(super) fn index_select(call: &Call<'_>) -> Result<Tensor> {
    let (input, index) = (call.tensor(0)?, call.tensor(2)?);
    let place = call.dimension(call.integer(1)?, input.rank())?;
    if index.rank() > 1 {
        return Err(call.error(format!("an index must be a vector, not of shape {:?}", index.shape())));
    }
    let shape = input.shape().to_vec();
    let input = raised(&input)?;
    let places = places(call, &index, input.shape()[place])?;
    if shape.is_empty() && places.len() != 1 {
        return Err(call.error("a tensor without dimensions has one place"));
    }
    with_stored!(input.dtype(), T => {
        let (elements, mut result) = input.with_strided::<T, _>(|source, start, strides| {
            let region = Region::select(input.shape(), strides, start, place, &places);
            (region.read(source), region.shape)
        })?;
        if shape.is_empty() {
            result.clear();
        }
        Tensor::from_stored(elements, &result, input.dtype())
    })
}
