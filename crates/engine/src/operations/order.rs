//! Sorting and the largest few. NaN counts as the largest; equals keep their order.

use std::cmp::Ordering;

use super::Result;
use super::arguments::Call;
use super::number::{Computation, Number};
use crate::tensor::{Tensor, with_stored};

/// The elements at places chosen in each row along a dimension, and those places: the first `count` in order, ascending
/// or descending, equals by their places.
fn chosen(input: &Tensor, place: usize, count: usize, descending: bool) -> Result<Vec<Tensor>> {
    let rank = input.rank();
    let last = rank.saturating_sub(1);
    let length = input.shape().get(place).copied().unwrap_or(1);
    let moved = if rank > 1 { input.view(input.data().transpose(place, last)?) } else { input.clone() };
    let places = match Computation::of(input.dtype()) {
        Computation::Single if length <= u32::MAX as usize => {
            singles(&moved.singles()?, length, count, descending)
        }
        Computation::Single => general(&moved.doubles()?, length, count, descending),
        Computation::Double => general(&moved.doubles()?, length, count, descending),
        Computation::Integer => general(&moved.integers()?, length, count, descending),
    };
    let mut shape = moved.shape().to_vec();
    if let Some(size) = shape.last_mut() {
        *size = count;
    }
    let values = with_stored!(input.dtype(), T => {
        let elements = moved.read::<T>()?;
        let elements: &[T] = &elements;
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

/// The places of rows of `f32`. A value and its place make one whole number, so that no two are equal.
fn singles(elements: &[f32], length: usize, count: usize, descending: bool) -> Vec<i64> {
    let key = |element: f32| {
        // Adding 0 makes 0 of −0, which is its equal.
        let bits = (element + 0.0).to_bits();
        let order = if element.is_nan() {
            u32::MAX
        } else if bits >> 31 == 0 {
            bits | 1 << 31
        } else {
            !bits
        };
        if descending { !order } else { order }
    };
    let mut found = Vec::with_capacity(elements.len() / length.max(1) * count);
    let mut keys: Vec<u64> = Vec::with_capacity(length);
    for row in elements.chunks_exact(length.max(1)) {
        pellucid_kernels::pool::checkpoint();
        keys.clear();
        keys.extend(
            row.iter().enumerate().map(|(place, &element)| u64::from(key(element)) << 32 | place as u64),
        );
        first(&mut keys, count, u64::cmp);
        found.extend(keys[..count].iter().map(|key| (key & u64::from(u32::MAX)) as i64));
    }
    found
}

/// The places of rows of any numbers.
fn general<N: Number>(elements: &[N], length: usize, count: usize, descending: bool) -> Vec<i64> {
    let mut found = Vec::with_capacity(elements.len() / length.max(1) * count);
    for row in elements.chunks_exact(length.max(1)) {
        pellucid_kernels::pool::checkpoint();
        let mut places: Vec<usize> = (0..length).collect();
        first(&mut places, count, |&a, &b| {
            let order = compare(row[a], row[b]);
            if descending { order.reverse().then(a.cmp(&b)) } else { order.then(a.cmp(&b)) }
        });
        found.extend(places[..count].iter().map(|&place| place as i64));
    }
    found
}

/// Puts the first `count` of items, no two of them equal, in order at the front.
fn first<T>(items: &mut [T], count: usize, order: impl Fn(&T, &T) -> Ordering) {
    let mut order = now_and_then(order);
    if 0 < count && count < items.len() {
        items.select_nth_unstable_by(count - 1, &mut order);
    }
    items[..count].sort_unstable_by(order);
}

/// An order that looks now and then whether the program is to stop: one row can have very many items.
pub(super) fn now_and_then<T>(order: impl Fn(&T, &T) -> Ordering) -> impl FnMut(&T, &T) -> Ordering {
    const BETWEEN: u32 = 1 << 18;
    let mut left = BETWEEN;
    move |one, other| {
        left -= 1;
        if left == 0 {
            left = BETWEEN;
            pellucid_kernels::pool::checkpoint();
        }
        order(one, other)
    }
}

fn compare<N: Number>(a: N, b: N) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        (mine, other) => mine.cmp(&other),
    }
}

pub(super) fn top_k(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let input = call.tensor(0)?;
    let place = call.dimension(call.integer(2)?, input.rank())?;
    let largest = call.boolean(3)?;
    let length = input.shape().get(place).copied().unwrap_or(1);
    let asked = call.integer(1)?;
    match usize::try_from(asked) {
        // A tensor without dimensions has one element, and no shape for none.
        Ok(count) if count <= length && (input.rank() > 0 || count == 1) => {
            chosen(&input, place, count, largest)
        }
        _ => Err(call.error(format!("there are no {asked} among {length}"))),
    }
}

pub(super) fn sort(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let input = call.tensor(0)?;
    let place = call.dimension(call.integer(1)?, input.rank())?;
    let length = input.shape().get(place).copied().unwrap_or(1);
    chosen(&input, place, length, call.boolean(2)?)
}

pub(super) fn arg_sort(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let mut sorted = sort(call)?;
    Ok(sorted.split_off(1))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use pellucid_kernels::pool::{Stopped, stoppable};

    use super::first;

    #[test]
    fn sorting_one_long_row_can_be_stopped() {
        let stop = Arc::new(AtomicBool::new(true));
        let items =
            |count: u64| (0..count).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect::<Vec<_>>();
        let sorted = |count: u64, of: usize| {
            let mut items = items(count);
            first(&mut items, of, u64::cmp);
            items
        };
        assert_eq!(stoppable(&stop, || sorted(1 << 20, 1 << 20).len()), Err(Stopped));
        assert_eq!(stoppable(&stop, || sorted(1 << 20, 10).len()), Err(Stopped));
        let few = stoppable(&stop, || sorted(1 << 10, 1 << 10)).unwrap();
        assert!(few.is_sorted() && few.len() == 1 << 10);
    }
}
