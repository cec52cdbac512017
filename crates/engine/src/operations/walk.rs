//! Walking over the elements of strided operands, a run of the innermost dimension at a time.

use pellucid_kernels::pool::checkpoint;

/// The strides of a tensor in row-major order.
pub(crate) fn contiguous_strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![0; shape.len()];
    let mut stride = 1isize;
    for (place, &size) in shape.iter().enumerate().rev() {
        strides[place] = stride;
        stride = stride.saturating_mul(size.max(1) as isize);
    }
    strides
}

/// The strides that make an operand of `shape` in row-major order fill the broadcast shape `to`.
pub(crate) fn broadcast_strides(shape: &[usize], to: &[usize]) -> Vec<isize> {
    let own = contiguous_strides(shape);
    let missing = to.len().saturating_sub(shape.len());
    let mut strides = vec![0; to.len()];
    for (place, &size) in shape.iter().enumerate() {
        if size != 1
            && let Some(stride) = strides.get_mut(missing + place)
        {
            *stride = own[place];
        }
    }
    strides
}

/// Dimensions as they are walked: without those of size 1, and those that lie in one another for every operand as one.
fn merged<const N: usize>(shape: &[usize], strides: [&[isize]; N]) -> Vec<(usize, [isize; N])> {
    let mut dimensions: Vec<(usize, [isize; N])> = Vec::with_capacity(shape.len());
    for (place, &size) in shape.iter().enumerate() {
        if size == 1 {
            continue;
        }
        let step: [isize; N] = std::array::from_fn(|operand| strides[operand][place]);
        match dimensions.last_mut() {
            Some((outer, outer_step))
                if (0..N).all(|operand| outer_step[operand] == step[operand] * size as isize) =>
            {
                *outer *= size;
                *outer_step = step;
            }
            _ => dimensions.push((size, step)),
        }
    }
    dimensions
}

/// Elements that are walked over between two places where a walk can be stopped.
const AT_ONCE: usize = 1 << 16;

/// Calls `visit(offsets)` for every cell of these dimensions, in row-major order. Each visit is of so many elements: after some of them
/// the walk can be stopped.
fn odometer<const N: usize>(
    dimensions: &[(usize, [isize; N])],
    offsets: [isize; N],
    elements: usize,
    mut visit: impl FnMut([isize; N]),
) {
    let mut counters = vec![0usize; dimensions.len()];
    let mut at = offsets;
    let mut walked = 0;
    loop {
        visit(at);
        walked += elements;
        if walked >= AT_ONCE {
            walked = 0;
            checkpoint();
        }
        let mut place = dimensions.len();
        loop {
            if place == 0 {
                return;
            }
            place -= 1;
            let (size, step) = dimensions[place];
            counters[place] += 1;
            (0..N).for_each(|operand| at[operand] += step[operand]);
            if counters[place] < size {
                break;
            }
            counters[place] = 0;
            (0..N).for_each(|operand| at[operand] -= step[operand] * size as isize);
        }
    }
}

/// Calls `run(offsets, length, strides)` for every run along the innermost dimension of `shape`, in row-major order:
/// where each operand's first element is, how many there are, and each operand's step.
pub(crate) fn walk<const N: usize>(
    shape: &[usize],
    strides: [&[isize]; N],
    offsets: [isize; N],
    mut run: impl FnMut([isize; N], usize, [isize; N]),
) {
    if shape.contains(&0) {
        return;
    }
    let mut dimensions = merged(shape, strides);
    let (length, inner) = dimensions.pop().unwrap_or((1, [0; N]));
    odometer(&dimensions, offsets, length, |at| run(at, length, inner));
}

/// Copies a strided operand into row-major order.
pub(crate) fn gather<T: Copy>(source: &[T], start: usize, shape: &[usize], strides: &[isize]) -> Vec<T> {
    if shape.contains(&0) {
        return Vec::new();
    }
    let count = shape.iter().product();
    let mut dimensions = merged(shape, [strides]);
    if let [.., (rows, [1]), (columns, [step])] = dimensions[..]
        && step != 0
    {
        let fill = source[start];
        dimensions.truncate(dimensions.len() - 2);
        let mut elements = vec![fill; count];
        let mut targets = elements.chunks_exact_mut(rows * columns);
        odometer(&dimensions, [start as isize], rows * columns, |[at]| {
            if let Some(target) = targets.next() {
                turn(source, at, target, rows, columns, step);
            }
        });
        return elements;
    }
    let mut elements = Vec::with_capacity(count);
    let (length, [step]) = dimensions.pop().unwrap_or((1, [1]));
    odometer(&dimensions, [start as isize], length, |[at]| match step {
        1 => elements.extend_from_slice(&source[at as usize..at as usize + length]),
        0 => elements.extend(std::iter::repeat_n(source[at as usize], length)),
        _ => elements.extend((0..length as isize).map(|count| source[(at + count * step) as usize])),
    });
    elements
}

/// Copies a matrix whose columns lie together, `step` apart, to row-major order: by squares as wide as a line of the cache, each turned
/// beside both. Where sizes are powers of 2 the lines of a square are all in one place of the cache, and drive each other out of it
/// before they are full.
fn turn<T: Copy>(source: &[T], start: isize, target: &mut [T], rows: usize, columns: usize, step: isize) {
    let side = (64 / size_of::<T>().max(1)).clamp(8, 64);
    let Some(&fill) = source.get(start as usize) else { return };
    let mut square = vec![fill; side * side.min(rows)];
    let mut walked = 0;
    for first_row in (0..rows).step_by(side) {
        let height = side.min(rows - first_row);
        for first_column in (0..columns).step_by(side) {
            let width = side.min(columns - first_column);
            for column in 0..width {
                let from = (start + first_row as isize + (first_column + column) as isize * step) as usize;
                for (row, &element) in source[from..from + height].iter().enumerate() {
                    square[row * side + column] = element;
                }
            }
            for row in 0..height {
                let to = (first_row + row) * columns + first_column;
                target[to..to + width].copy_from_slice(&square[row * side..row * side + width]);
            }
        }
        walked += height * columns;
        if walked >= AT_ONCE {
            walked = 0;
            checkpoint();
        }
    }
}

/// `function` of two operands, broadcast to `shape`, in row-major order. Both lie in row-major order themselves.
pub(crate) fn broadcast<A: Copy, B: Copy, R>(
    shape: &[usize],
    (left, left_shape): (&[A], &[usize]),
    (right, right_shape): (&[B], &[usize]),
    function: impl Fn(A, B) -> R,
) -> Vec<R> {
    if left_shape == shape && right_shape == shape {
        return left.iter().zip(right).map(|(&a, &b)| function(a, b)).collect();
    }
    let mut elements = Vec::with_capacity(shape.iter().product());
    let strides = [&broadcast_strides(left_shape, shape)[..], &broadcast_strides(right_shape, shape)[..]];
    walk(shape, strides, [0, 0], |[at_left, at_right], length, steps| {
        let (at_left, at_right) = (at_left as usize, at_right as usize);
        match steps {
            [1, 1] => {
                let right = &right[at_right..at_right + length];
                elements
                    .extend(left[at_left..at_left + length].iter().zip(right).map(|(&a, &b)| function(a, b)));
            }
            [1, 0] => {
                let b = right[at_right];
                elements.extend(left[at_left..at_left + length].iter().map(|&a| function(a, b)));
            }
            [0, 1] => {
                let a = left[at_left];
                elements.extend(right[at_right..at_right + length].iter().map(|&b| function(a, b)));
            }
            [left_step, right_step] => elements.extend((0..length).map(|count| {
                let (a, b) = (
                    left[at_left + count * left_step as usize],
                    right[at_right + count * right_step as usize],
                );
                function(a, b)
            })),
        }
    });
    elements
}

/// The shape that all of these broadcast to, if there is one.
pub(crate) fn broadcast_shape(shapes: &[&[usize]]) -> Option<Vec<usize>> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut result = vec![1; rank];
    for shape in shapes {
        let missing = rank - shape.len();
        for (place, &size) in shape.iter().enumerate() {
            let to = &mut result[missing + place];
            if *to == 1 {
                *to = size;
            } else if size != 1 && size != *to {
                return None;
            }
        }
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use pellucid_kernels::pool::{Stopped, stoppable};

    use super::{broadcast_strides, gather};

    #[test]
    fn a_matrix_is_turned_whatever_its_sizes() {
        for (rows, columns) in [(1, 3), (7, 65), (64, 64), (130, 67), (2, 300)] {
            let source: Vec<u8> = (0..rows * columns + 3).map(|at| (at % 251) as u8).collect();
            let expected: Vec<u8> =
                (0..rows * columns).map(|at| source[3 + at / columns + at % columns * rows]).collect();
            assert_eq!(
                gather(&source, 3, &[rows, columns], &[1, rows as isize]),
                expected,
                "{rows} {columns}"
            );
            let wide: Vec<f64> = source.iter().map(|&number| f64::from(number)).collect();
            let expected: Vec<f64> = expected.iter().map(|&number| f64::from(number)).collect();
            assert_eq!(gather(&wide, 3, &[rows, columns], &[1, rows as isize]), expected, "{rows} {columns}");
        }
    }

    #[test]
    fn a_copy_of_much_can_be_stopped() {
        let stop = Arc::new(AtomicBool::new(true));
        let source = vec![1_u8; 1 << 20];
        let copies: [(&[usize], &[isize]); 3] = [
            (&[1 << 10, 1 << 10], &[1, 1 << 10]),
            (&[1 << 9, 1 << 9, 2], &[2, 1 << 10, 1]),
            (&[1 << 10, 1 << 10, 4], &broadcast_strides(&[1 << 10, 1], &[1 << 10, 1 << 10, 4])),
        ];
        for (shape, strides) in copies {
            assert_eq!(
                stoppable(&stop, || gather(&source, 0, shape, strides).len()),
                Err(Stopped),
                "{shape:?}"
            );
        }
        assert_eq!(stoppable(&stop, || gather(&source, 0, &[3, 4], &[1, 3]).len()), Ok(12));
    }
}
