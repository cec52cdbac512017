//! Walking over the elements of strided operands, a run of the innermost dimension at a time.

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

/// Calls `visit(offsets)` for every cell of these dimensions, in row-major order.
fn odometer<const N: usize>(
    dimensions: &[(usize, [isize; N])],
    offsets: [isize; N],
    mut visit: impl FnMut([isize; N]),
) {
    let mut counters = vec![0usize; dimensions.len()];
    let mut at = offsets;
    loop {
        visit(at);
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
    odometer(&dimensions, offsets, |at| run(at, length, inner));
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
        odometer(&dimensions, [start as isize], |[at]| {
            if let Some(target) = targets.next() {
                turn(source, at, target, rows, columns, step);
            }
        });
        return elements;
    }
    let mut elements = Vec::with_capacity(count);
    let (length, [step]) = dimensions.pop().unwrap_or((1, [1]));
    odometer(&dimensions, [start as isize], |[at]| match step {
        1 => elements.extend_from_slice(&source[at as usize..at as usize + length]),
        0 => elements.extend(std::iter::repeat_n(source[at as usize], length)),
        _ => elements.extend((0..length as isize).map(|count| source[(at + count * step) as usize])),
    });
    elements
}

/// Copies a matrix whose columns lie together, `step` apart, to row-major order: by squares that fit the nearest cache.
fn turn<T: Copy>(source: &[T], start: isize, target: &mut [T], rows: usize, columns: usize, step: isize) {
    const SIDE: usize = 16;
    for first_row in (0..rows).step_by(SIDE) {
        let height = SIDE.min(rows - first_row);
        for first_column in (0..columns).step_by(SIDE) {
            for column in first_column..columns.min(first_column + SIDE) {
                let from = (start + first_row as isize + column as isize * step) as usize;
                for (row, &element) in source[from..from + height].iter().enumerate() {
                    target[(first_row + row) * columns + column] = element;
                }
            }
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
