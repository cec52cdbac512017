//! The same elements in another shape; several tensors in one; one in several.

use crate::limits;
use crate::rules::promotion::{Operand, result_type};
use crate::rules::solve::{self, Unsolvable};
use crate::rules::{RuleContext, RuleError, RuleResult, cost, listed};
use crate::shape::{Dimension, TensorType};

/// What is asked for, as it is printed.
fn asked(sizes: &[Option<Dimension>]) -> String {
    let sizes: Vec<_> =
        sizes.iter().map(|size| size.as_ref().map_or("-1".to_owned(), Dimension::to_string)).collect();
    format!("[{}]", sizes.join(", "))
}

fn solved(
    context: &mut RuleContext<'_>,
    from: &[Dimension],
    to: &[Option<Dimension>],
    what: &str,
) -> Result<Vec<Dimension>, RuleError> {
    let result = solve::solve(from, to, &mut || context.fresh());
    result.map_err(|reason| match reason {
        Unsolvable::Elements => {
            let count: Option<Vec<u64>> = from.iter().map(Dimension::value).collect();
            let count = count.map_or("the numbers of elements differ".to_owned(), |sizes| {
                format!(
                    "it has {} elements",
                    sizes.iter().fold(1u64, |count, &size| count.saturating_mul(size))
                )
            });
            context.error(format!("cannot make {} of {what}: {count}", asked(to)))
        }
        Unsolvable::Ambiguous => {
            context.error(format!("cannot infer the -1 in {} from {what}, which has no elements", asked(to)))
        }
        Unsolvable::Several => context.error(format!("can infer one size, not several: {}", asked(to))),
    })
}

/// Another shape of as many elements. As all that merges or divides dimensions it copies what does not lie in row-major order, and
/// nobody knows before it runs: the price is that of the copy.
pub(crate) fn reshape(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, to) = (context.tensor("input")?, context.inferred_sizes("shape")?);
    let shape = solved(context, &input.shape, &to, &input.to_string())?;
    context.one(input.dtype, shape, 0)
}

/// Some dimensions made one.
pub(crate) fn flatten(context: &mut RuleContext<'_>) -> RuleResult {
    let mut input = context.tensor("input")?;
    let start = context.axis(&input, context.integer("start_dim")?)?;
    let end = context.axis(&input, context.integer("end_dim")?)?;
    if start > end {
        return Err(context.error(format!("goes from dimension {start} back to {end} of {input}")));
    }
    let last = (end + 1).min(input.shape.len());
    let product = solve::product(&input.shape[start..last], &mut || context.fresh());
    let product = product.map_err(|_| context.error(format!("of {input} makes too many elements")))?;
    input.shape.splice(start..last, [product]);
    context.one(input.dtype, input.shape, 0)
}

/// One dimension made several.
pub(crate) fn unflatten(context: &mut RuleContext<'_>) -> RuleResult {
    let (mut input, to) = (context.tensor("input")?, context.inferred_sizes("sizes")?);
    let place = context.axis(&input, context.integer("dim")?)?;
    let Some(size) = input.shape.get(place).cloned() else {
        return Err(context.error(format!("has no dimension to make several of: {input}")));
    };
    if to.is_empty() {
        return Err(context.error("needs at least one size in `sizes`"));
    }
    let what = format!("dimension {place} of {input}");
    let sizes = solved(context, &[size], &to, &what)?;
    input.shape.splice(place..=place, sizes);
    context.one(input.dtype, input.shape, 0)
}

/// Two dimensions swapped.
pub(crate) fn transpose(context: &mut RuleContext<'_>) -> RuleResult {
    let mut input = context.tensor("input")?;
    let a = context.axis(&input, context.integer("dim0")?)?;
    let b = context.axis(&input, context.integer("dim1")?)?;
    if !input.shape.is_empty() {
        input.shape.swap(a, b);
    }
    context.one(input.dtype, input.shape, 0)
}

/// Every dimension named once, in the new order.
pub(crate) fn permute(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, dimensions) = (context.tensor("input")?, context.integers("dims")?);
    if dimensions.len() != input.shape.len() {
        return Err(context
            .error(format!("names every dimension of {input} once, not {}", listed(&dimensions)))
            .hint("to move a few, use `transpose` or `movedim`"));
    }
    let places = context.axes(&input, &dimensions)?;
    let shape = places.iter().map(|&place| input.shape[place].clone()).collect();
    context.one(input.dtype, shape, 0)
}

/// Some dimensions moved; the others stay in order.
pub(crate) fn move_dim(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    let (source, destination) = (context.integers("source")?, context.integers("destination")?);
    if source.len() != destination.len() {
        return Err(context
            .error(format!("moves {} dimensions to {} places", source.len(), destination.len()))
            .hint("`source` and `destination` are equally long"));
    }
    let (source, destination) = (context.axes(&input, &source)?, context.axes(&input, &destination)?);
    if input.shape.is_empty() {
        return context.one(input.dtype, input.shape, 0);
    }
    let mut others = (0..input.shape.len()).filter(|place| !source.contains(place));
    let from = |to: usize| match destination.iter().position(|&place| place == to) {
        Some(move_number) => Some(source[move_number]),
        None => others.next(),
    };
    let shape = (0..input.shape.len()).filter_map(from).map(|place| input.shape[place].clone()).collect();
    context.one(input.dtype, shape, 0)
}

/// Dimensions of size 1 gone; those that are named and are larger stay.
pub(crate) fn squeeze(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    let places = match context.optional_integers("dim")? {
        Some(named) => context.axes(&input, &named)?,
        None => (0..input.shape.len()).collect(),
    };
    let mut shape = Vec::new();
    for (place, size) in input.shape.iter().enumerate() {
        let named = places.contains(&place);
        if named && size.value().is_none() && size.could_be(1) {
            return Err(context
                .error(format!("would drop dimension {place} of {input} only where {size} turns out to be 1"))
                .hint("name the dimensions that are 1, or take one place of it: `x[:, 0]`"));
        }
        if !(named && size.is_one()) {
            shape.push(size.clone());
        }
    }
    context.one(input.dtype, shape, 0)
}

/// A new dimension, counted in the result.
pub(crate) fn unsqueeze(context: &mut RuleContext<'_>) -> RuleResult {
    let (mut input, dimension) = (context.tensor("input")?, context.integer("dim")?);
    let place = inserted(context, &input, dimension)?;
    input.shape.insert(place, Dimension::known(1));
    context.one(input.dtype, input.shape, 0)
}

/// The place of a new dimension.
fn inserted(context: &RuleContext<'_>, input: &TensorType, dimension: i64) -> Result<usize, RuleError> {
    let count = input.shape.len() + 1;
    context.axis_among(count, dimension).ok_or_else(|| {
        let (first, last) = (-(count as i64), count as i64 - 1);
        context.error(format!("puts a new dimension into {input} at {first} to {last}, not at {dimension}"))
    })
}

/// Sizes of 1 repeated.
pub(crate) fn expand(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, to) = (context.tensor("input")?, context.inferred_sizes("size")?);
    let Some(new) = to.len().checked_sub(input.shape.len()) else {
        return Err(context
            .error(format!("of {input} to {} would lose dimensions", asked(&to)))
            .hint("name every dimension; -1 leaves one as it is"));
    };
    let mut shape = Vec::new();
    for (place, wanted) in to.iter().enumerate() {
        let Some(own) = place.checked_sub(new).map(|place| &input.shape[place]) else {
            shape.push(wanted.clone().ok_or_else(|| {
                context.error(format!("cannot leave the new dimension {place} of {} as it is", asked(&to)))
            })?);
            continue;
        };
        let size = match wanted {
            None => Some(own.clone()),
            Some(wanted) if own.is_one() => Some(wanted.clone()),
            Some(wanted) => {
                context.same_size(own, wanted).or_else(|| own.could_be(1).then(|| wanted.clone()))
            }
        };
        shape.push(size.ok_or_else(|| {
            context
                .error(format!("cannot make {} of {input}: size {own} is not 1", asked(&to)))
                .hint("only sizes of 1 expand; `repeat` tiles any")
        })?);
    }
    context.one(input.dtype, shape, 0)
}

/// Every dimension so many times, new ones in front.
pub(crate) fn repeat(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, repeats) = (context.tensor("input")?, context.integers("repeats")?);
    let Some(new) = repeats.len().checked_sub(input.shape.len()) else {
        return Err(context
            .error(format!("takes a number for each dimension of {input}, not {}", listed(&repeats)))
            .hint("1 leaves a dimension as it is"));
    };
    if repeats.len() > limits::DIMENSIONS {
        let most = limits::DIMENSIONS;
        return Err(context.error(format!("makes {} dimensions, and {most} is the most", repeats.len())));
    }
    if let Some(negative) = repeats.iter().find(|&&times| times < 0) {
        return Err(context.error(format!("cannot tile {negative} times")));
    }
    let one = Dimension::known(1);
    let size = |place: usize| place.checked_sub(new).map_or(&one, |place| &input.shape[place]);
    let shape = repeats.iter().enumerate().map(|(place, &times)| size(place).times(times)).collect();
    let result = TensorType { dtype: input.dtype, shape };
    let flops = cost(&result, 1);
    context.one(result.dtype, result.shape, flops)
}

/// Joined along a dimension; the others are equal. As in PyTorch, an empty tensor of one dimension joins anything.
pub(crate) fn cat(context: &mut RuleContext<'_>) -> RuleResult {
    let tensors = context.tensors("tensors")?;
    let dimension = context.integer("dim")?;
    let nothing = |tensor: &TensorType| tensor.shape.len() == 1 && tensor.shape[0].value() == Some(0);
    if let Some(scalar) = tensors.iter().find(|tensor| tensor.shape.is_empty()) {
        return Err(context
            .error(format!("joins along a dimension, and {scalar} has none"))
            .hint("use `stack`, or `unsqueeze` first"));
    }
    let dtype =
        tensors.iter().map(|tensor| tensor.dtype).reduce(|a, b| a.promote(b)).unwrap_or(tensors[0].dtype);
    let Some(first) = tensors.iter().find(|tensor| !nothing(tensor)) else {
        return context.one(dtype, vec![Dimension::known(0)], 0);
    };
    let place = context.axis(first, dimension)?;
    let mut shape = first.shape.clone();
    shape[place] = Dimension::known(0);
    let mut terms = 0;
    for tensor in tensors.iter().filter(|tensor| !nothing(tensor)) {
        let fault = || {
            context
                .error(format!("cannot join {tensor} to {first} along dimension {place}"))
                .hint("all sizes but that dimension's are equal")
        };
        if tensor.shape.len() != shape.len() {
            return Err(fault());
        }
        for (axis, size) in tensor.shape.iter().enumerate() {
            if axis != place {
                shape[axis] = context.same_size(&shape[axis], size).ok_or_else(fault)?;
                continue;
            }
            terms = terms.max(shape[axis].terms().len());
            if terms <= limits::DIMENSION_TERMS {
                shape[axis] = shape[axis].plus(size);
            }
        }
    }
    if terms.max(shape[place].terms().len()) > limits::DIMENSION_TERMS {
        shape[place] = context.fresh_dimension();
    }
    let flops = tensors.iter().fold(0u64, |sum, tensor| sum.saturating_add(cost(tensor, 1)));
    context.one(dtype, shape, flops)
}

/// Joined along a new dimension; all are equal in shape.
pub(crate) fn stack(context: &mut RuleContext<'_>) -> RuleResult {
    let tensors = context.tensors("tensors")?;
    let first = &tensors[0];
    let place = inserted(context, first, context.integer("dim")?)?;
    let mut shape = first.shape.clone();
    for tensor in &tensors {
        let fault = || context.error(format!("joins equal shapes, not {tensor} and {first}"));
        if tensor.shape.len() != shape.len() {
            return Err(fault());
        }
        for (size, other) in shape.iter_mut().zip(&tensor.shape) {
            *size = context.same_size(size, other).ok_or_else(fault)?;
        }
    }
    shape.insert(place, Dimension::known(tensors.len() as u64));
    let weighed = |tensor: TensorType| Operand::Tensor(crate::program::NodeId(0).into(), tensor).weighed();
    let dtype = result_type(tensors.into_iter().map(weighed));
    let result = TensorType { dtype, shape };
    let flops = cost(&result, 1);
    context.one(result.dtype, result.shape, flops)
}

/// The input, the dimension that is cut, and its size.
fn cut(context: &RuleContext<'_>) -> Result<(TensorType, usize, Dimension), RuleError> {
    let input = context.tensor("input")?;
    let place = context.axis(&input, context.integer("dim")?)?;
    match input.shape.get(place).cloned() {
        Some(size) => Ok((input, place, size)),
        None => Err(context.error(format!("has nothing to cut: {input} is a single number"))),
    }
}

fn pieces(
    context: &RuleContext<'_>,
    input: &TensorType,
    place: usize,
    sizes: impl Iterator<Item = Dimension>,
) -> RuleResult {
    let piece = |size| {
        let mut piece = input.clone();
        piece.shape[place] = size;
        piece
    };
    context.all(sizes.map(piece).collect(), 0)
}

/// Pieces of one size, the last perhaps smaller.
fn equal_pieces(
    context: &RuleContext<'_>,
    input: &TensorType,
    place: usize,
    total: u64,
    size: u64,
) -> RuleResult {
    let count = total.div_ceil(size.max(1)).max(1);
    if count > limits::LIST_ARGUMENTS as u64 {
        let most = limits::LIST_ARGUMENTS;
        return Err(context.error(format!("of {input} into {count} pieces; {most} is the most")));
    }
    let sizes =
        (0..count).map(|piece| Dimension::known(size.min(total - piece.saturating_mul(size).min(total))));
    pieces(context, input, place, sizes)
}

fn unknown_count(context: &RuleContext<'_>, input: &TensorType, place: usize) -> RuleError {
    context
        .error(format!(
            "cannot say how many pieces dimension {place} of {input} makes before lengths are known"
        ))
        .hint("list the pieces' sizes, or read slices: `x[:, :2]`")
}

/// Cut into pieces of one size, or of the sizes in a list.
pub(crate) fn split(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, place, total) = cut(context)?;
    let sizes = context.integers("split_size")?;
    if let Some(negative) = sizes.iter().find(|&&size| size < 0) {
        return Err(context.error(format!("takes sizes from 0 on, not {negative}")));
    }
    // A list of one is as good as a number: where PyTorch takes the list, both make that one piece.
    if let [size] = sizes[..] {
        let size = size.unsigned_abs();
        return match total.value() {
            None => Err(unknown_count(context, &input, place)),
            Some(total) if size == 0 && total > 0 => Err(context
                .error(format!("into pieces of size 0 never ends: {input}"))
                .hint("`split_size` is the size of a piece, not their number; for that use `chunk`")),
            Some(total) => equal_pieces(context, &input, place, total, size),
        };
    }
    let sum = sizes.iter().fold(0u64, |sum, size| sum.saturating_add(size.unsigned_abs()));
    if !total.could_be(sum) {
        return Err(context.error(format!(
            "into {}, {sum} together, does not make up dimension {place}, of size {total}, of {input}",
            listed(&sizes)
        )));
    }
    pieces(context, &input, place, sizes.iter().map(|size| Dimension::known(size.unsigned_abs())))
}

/// Cut into so many pieces, or fewer where they come out larger.
pub(crate) fn chunk(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, place, total) = cut(context)?;
    let chunks = context.size("chunks")?;
    if chunks == 0 {
        return Err(context.error(format!("into 0 pieces: {input}")).hint("`chunks` is at least 1"));
    }
    match total.value() {
        None if chunks == 1 => context.all(vec![input], 0),
        None => Err(unknown_count(context, &input, place)),
        Some(0) if chunks > limits::LIST_ARGUMENTS as u64 => {
            let most = limits::LIST_ARGUMENTS;
            Err(context.error(format!("of {input} into {chunks} pieces; {most} is the most")))
        }
        Some(0) => pieces(context, &input, place, (0..chunks).map(|_| Dimension::known(0))),
        Some(total) => equal_pieces(context, &input, place, total, total.div_ceil(chunks)),
    }
}

/// Pairs of sizes before and after, from the last dimension on; negative ones cut off.
pub(crate) fn pad(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, amounts) = (context.tensor("input")?, context.integers("pad")?);
    context.fits(context.number("value")?, input.dtype)?;
    if !amounts.len().is_multiple_of(2) || amounts.len() > input.shape.len() * 2 {
        return Err(context
            .error(format!(
                "takes a pair of numbers for each of the last dimensions of {input}, not {}",
                listed(&amounts)
            ))
            .hint("[before, after] of the last dimension, then of the one before it"));
    }
    if let Some(far) = amounts.iter().find(|amount| amount.unsigned_abs() > limits::TENSOR_ELEMENTS) {
        return Err(context
            .error(format!("by {far} goes beyond the {} elements of a tensor", limits::TENSOR_ELEMENTS)));
    }
    let mut result = input.clone();
    for (pair, size) in amounts.chunks_exact(2).zip(result.shape.iter_mut().rev()) {
        let shorter = size.offset(pair[0].min(0)).offset(pair[1].min(0));
        let longer = size.offset(pair[0]).offset(pair[1]);
        if shorter.upper().is_some_and(|most| most < 0) || longer.upper().is_some_and(|most| most < 0) {
            return Err(context.error(format!("by {pair:?} cuts off more than the {size} of {input}")));
        }
        *size = longer;
    }
    let flops = cost(&result, 1);
    context.one(result.dtype, result.shape, flops)
}

/// Dimensions named, the shape stays.
pub(crate) fn along_many(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    context.axes(&input, &context.integers("dims")?)?;
    let flops = cost(&input, 1);
    context.one(input.dtype, input.shape, flops)
}

/// A shift for each dimension; one shift and no dimensions: over all elements in row-major order.
pub(crate) fn roll(context: &mut RuleContext<'_>) -> RuleResult {
    let (input, shifts, dimensions) =
        (context.tensor("input")?, context.integers("shifts")?, context.integers("dims")?);
    let flat = dimensions.is_empty() && shifts.len() == 1;
    if shifts.is_empty() || (shifts.len() != dimensions.len() && !flat) {
        return Err(context.error(format!(
            "takes a shift for each dimension: {} for {}",
            listed(&shifts),
            listed(&dimensions)
        )));
    }
    for &dimension in &dimensions {
        context.axis(&input, dimension)?;
    }
    let flops = cost(&input, 1);
    context.one(input.dtype, input.shape, flops)
}

/// Above or below a diagonal of the last two dimensions.
pub(crate) fn triangle(context: &mut RuleContext<'_>) -> RuleResult {
    let input = context.tensor("input")?;
    context.integer("diagonal")?;
    if input.shape.len() < 2 {
        return Err(context.error(format!("needs at least two dimensions: {input}")));
    }
    let flops = cost(&input, 1);
    context.one(input.dtype, input.shape, flops)
}

/// The two dimensions go, the diagonal is the last.
pub(crate) fn diagonal(context: &mut RuleContext<'_>) -> RuleResult {
    let (mut input, offset) = (context.tensor("input")?, context.integer("offset")?);
    let a = context.axis(&input, context.integer("dim1")?)?;
    let b = context.axis(&input, context.integer("dim2")?)?;
    if a == b {
        return Err(context.error(format!("needs two dimensions of {input}, not {a} twice")));
    }
    let length = match (input.shape[a].value(), input.shape[b].value()) {
        (Some(rows), Some(columns)) => {
            let (rows, columns, offset) = (i128::from(rows), i128::from(columns), i128::from(offset));
            let length = if offset >= 0 { rows.min(columns - offset) } else { (rows + offset).min(columns) };
            Dimension::known(u64::try_from(length).unwrap_or(0))
        }
        // A square of an unknown size loses as much as the diagonal is off, if it is certain to have that.
        _ if input.shape[a] == input.shape[b] && offset.unsigned_abs() <= input.shape[a].minimum() => {
            input.shape[a].offset(-offset.abs())
        }
        _ => context.fresh_dimension(),
    };
    let mut place = 0;
    input.shape.retain(|_| {
        place += 1;
        place - 1 != a && place - 1 != b
    });
    input.shape.push(length);
    let flops = cost(&input, 1);
    context.one(input.dtype, input.shape, flops)
}
