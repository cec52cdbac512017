//! Sorting and the largest few. NaN counts as the largest; equals keep their order.

use std::cmp::Ordering;

use super::Result;
use super::arguments::Call;
use super::number::{Computation, Number};
use crate::tensor::{Tensor, with_stored};

fn compare<N: Number>(a: N, b: N) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        (mine, other) => mine.cmp(&other),
    }
}

/// The elements at places chosen in each row along a dimension, and those places.
///
/// `choose` gives the places for a comparison of two places of the row, of which there are as many as the number says.
fn chosen(
    input: &Tensor,
    place: usize,
    count: usize,
    choose: impl Fn(usize, &dyn Fn(usize, usize) -> Ordering) -> Vec<usize>,
) -> Result<Vec<Tensor>> {
    let rank = input.rank();
    let last = rank.saturating_sub(1);
    let length = input.shape().get(place).copied().unwrap_or(1);
    let moved = if rank > 1 { input.view(input.data().transpose(place, last)?) } else { input.clone() };
    let places = match Computation::of(input.dtype()) {
        Computation::Double => places::<f64>(&moved, length, &choose)?,
        Computation::Single => places::<f32>(&moved, length, &choose)?,
        Computation::Integer => places::<i64>(&moved, length, &choose)?,
    };
    let mut shape = moved.shape().to_vec();
    if let Some(size) = shape.last_mut() {
        *size = count;
    }
    let values = with_stored!(input.dtype(), T => {
        let elements = moved.read::<T>()?;
        let values = places.iter().enumerate().map(|(at, &place)| elements[at / count * length + place as usize]);
        Tensor::from_stored::<T>(values.collect(), &shape, input.dtype())?
    });
    let places = Tensor::from_i64(places, &shape)?;
    if rank <= 1 {
        return Ok(vec![values, places]);
    }
    let back = |tensor: Tensor| tensor.view(tensor.data().transpose(place, last)?).contiguous();
    Ok(vec![back(values)?, back(places)?])
}

fn places<N: Number>(
    tensor: &Tensor,
    length: usize,
    choose: &impl Fn(usize, &dyn Fn(usize, usize) -> Ordering) -> Vec<usize>,
) -> Result<Vec<i64>> {
    let elements = N::elements(tensor)?;
    if length == 0 {
        return Ok(Vec::new());
    }
    let rows = elements.chunks_exact(length);
    Ok(rows
        .flat_map(|row| choose(length, &|a, b| compare(row[a], row[b])))
        .map(|place| place as i64)
        .collect())
}

pub(super) fn top_k(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let input = call.tensor(0)?;
    let place = call.dimension(call.integer(2)?, input.rank())?;
    let largest = call.boolean(3)?;
    let length = input.shape().get(place).copied().unwrap_or(1);
    let asked = call.integer(1)?;
    let count = match usize::try_from(asked) {
        // A tensor without dimensions has one element, and no shape for none.
        Ok(count) if count <= length && (input.rank() > 0 || count == 1) => count,
        _ => return Err(call.error(format!("there are no {asked} among {length}"))),
    };
    chosen(&input, place, count, |length, compare| {
        // Places break ties, so no two are equal and an unstable selection has one outcome.
        let order = |a: &usize, b: &usize| {
            let by_value = if largest { compare(*b, *a) } else { compare(*a, *b) };
            by_value.then(a.cmp(b))
        };
        let mut places: Vec<usize> = (0..length).collect();
        if 0 < count && count < length {
            places.select_nth_unstable_by(count - 1, order);
        }
        places.truncate(count);
        places.sort_unstable_by(order);
        places
    })
}

pub(super) fn sort(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let input = call.tensor(0)?;
    let place = call.dimension(call.integer(1)?, input.rank())?;
    let descending = call.boolean(2)?;
    let length = input.shape().get(place).copied().unwrap_or(1);
    chosen(&input, place, length, |length, compare| {
        let mut places: Vec<usize> = (0..length).collect();
        places.sort_by(|&a, &b| if descending { compare(b, a) } else { compare(a, b) });
        places
    })
}

pub(super) fn arg_sort(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let mut sorted = sort(call)?;
    Ok(sorted.split_off(1))
}
