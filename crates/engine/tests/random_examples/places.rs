//! Examples of what moves elements, and of what reads and writes at places.

use super::*;

pub(super) fn gathering(kind: OperationKind, numbers: &mut Numbers) -> Example {
    use OperationKind::*;
    let shape = numbers.shape(1, 3);
    let dim = numbers.dim(shape.len());
    let along = place(dim, shape.len());
    let input = numbers.normal(&shape);
    let mut index_shape: Vec<usize> = shape.iter().map(|&size| 1 + numbers.below(size)).collect();
    index_shape[along] = 1 + numbers.below(4);
    let example = Example::empty(kind).of(input);
    match kind {
        Gather => example.with(integer(dim)).of(numbers.places(&index_shape, shape[along])),
        IndexSelect => {
            let count = numbers.below(5);
            example.with(integer(dim)).of(numbers.places(&[count], shape[along]))
        }
        TakeAlongDim => {
            // Sizes of the input or 1, on either side.
            let mut own = shape.clone();
            for (at, size) in index_shape.iter_mut().enumerate().filter(|(at, _)| *at != along) {
                match numbers.below(3) {
                    0 => *size = 1,
                    1 => (*size, own[at]) = (shape[at], 1),
                    _ => *size = shape[at],
                }
            }
            let index = numbers.places(&index_shape, shape[along]);
            Example::empty(kind).of(numbers.normal(&own)).of(index).with(integer(dim))
        }
        _ => {
            // Of two values written to one place the later one stays, and has the gradient.
            index_shape[along] = index_shape[along].min(shape[along]);
            let index = if kind == ScatterAdd || numbers.chance() {
                numbers.places(&index_shape, shape[along])
            } else {
                let order = numbers.permutation(shape[along]);
                let inner: usize = index_shape[along + 1..].iter().product();
                let count = index_shape.iter().product::<usize>();
                let places = (0..count).map(|at| order[at / inner % index_shape[along]] as i64).collect();
                Tensor::from_i64(places, &index_shape).unwrap()
            };
            let source_shape: Vec<usize> = index_shape.iter().map(|size| size + numbers.below(2)).collect();
            let example = example.with(integer(dim)).of(index);
            if kind == Scatter && numbers.below(4) == 0 {
                return example.with(float(0.5));
            }
            example.of(numbers.normal(&source_shape))
        }
    }
}

pub(super) fn indexing(kind: OperationKind, numbers: &mut Numbers) -> Example {
    let shape = numbers.shape(1, 3);
    let writing = kind == OperationKind::IndexPut;
    let mut items = Vec::new();
    let mut pointed: Option<usize> = None;
    let mut at = 0;
    while at < shape.len() {
        let length = shape[at] as i64;
        match numbers.below(if writing { 7 } else { 6 }) {
            0 => items.push(Item::Plain(IndexItem::Integer(
                numbers.below(shape[at]) as i64 - numbers.below(2) as i64 * length,
            ))),
            1 => {
                let (start, stop) = (numbers.below(3) as i64 - 1, length - numbers.below(2) as i64);
                items.push(Item::Plain(IndexItem::Slice {
                    start: Some(start),
                    stop: Some(stop),
                    step: 1 + numbers.below(2) as i64,
                }));
            }
            2 => {
                items.push(Item::Plain(IndexItem::NewAxis));
                continue;
            }
            3 | 4 => {
                // Index tensors of one length, so that they broadcast together; they may name a place twice.
                let count = *pointed.get_or_insert(1 + numbers.below(3));
                items.push(Item::Tensor(numbers.places(&[count], shape[at])));
            }
            5 => {
                items.push(Item::Plain(IndexItem::Ellipsis));
                break;
            }
            _ if pointed.is_none() => {
                pointed = Some(0);
                items.push(Item::Tensor(numbers.mask(&shape[at..at + 1])));
            }
            _ => items.push(Item::Plain(IndexItem::Integer(0))),
        }
        at += 1;
    }
    let masked = pointed == Some(0);
    let example = Example::empty(kind).of(numbers.normal(&shape));
    if !writing {
        return example.index(items);
    }
    if masked && items.iter().filter(|item| matches!(item, Item::Tensor(_))).count() > 1 {
        // A mask and index tensors broadcast only where as many places hold: left to the golden cases.
        items.retain(|item| matches!(item, Item::Plain(_)));
        items.push(Item::Plain(IndexItem::Ellipsis));
        let count = items.iter().filter(|item| matches!(item, Item::Plain(IndexItem::Ellipsis))).count();
        if count > 1 {
            items.pop();
        }
    }
    let accumulate = numbers.chance();
    let example = example.index(items);
    // The values broadcast to the places: their shape is known where no mask counts.
    let probe = Operation {
        kind: OperationKind::GetItem,
        arguments: vec![Argument::Value(Value::from(NodeId(0))), example.operation.arguments[1].clone()],
    };
    let lookup = |value: Value| example.inputs[value.node.index()].clone();
    let read = pellucid_engine::operations::evaluate(&probe, &lookup, &Default::default());
    let values = match read {
        Ok(read) => numbers.narrower(read[0].shape()),
        Err(_) => Vec::new(),
    };
    example.of(numbers.normal(&values)).with(truth(accumulate))
}

pub(super) fn moving(kind: OperationKind, numbers: &mut Numbers) -> Example {
    use OperationKind::*;
    let least = match kind {
        Tril | Triu | Diagonal => 2,
        Split | Chunk | Cat | Flip | Roll | Pad | Unflatten | MoveDim | Squeeze => 1,
        _ => 0,
    };
    let mut shape = numbers.shape(least, 3);
    let rank = shape.len();
    let dim = numbers.dim(rank);
    let along = place(dim, rank);
    let count = shape.iter().product::<usize>();
    let sizes =
        |shape: &[usize]| Argument::Sizes(shape.iter().map(|&size| Size::Literal(size as i64)).collect());
    if kind == Unflatten {
        let split = [1 + numbers.below(3), 1 + numbers.below(3)];
        shape[along] = split[0] * split[1];
        return Example::empty(kind).of(numbers.normal(&shape)).with(integer(dim)).with(sizes(&split));
    }
    let example = Example::empty(kind).of(numbers.normal(&shape));
    match kind {
        Reshape => {
            let mut reversed = shape.clone();
            reversed.reverse();
            example.with(if numbers.chance() { sizes(&[count]) } else { sizes(&reversed) })
        }
        Flatten => example.with(integer(0)).with(integer(-1)),
        Transpose => {
            let other = numbers.dim(rank);
            example.with(integer(dim)).with(integer(other))
        }
        Permute => {
            let order = numbers.permutation(rank);
            example.with(list(order))
        }
        MoveDim => {
            let (from, to) = (numbers.permutation(rank), numbers.permutation(rank));
            let moved = 1 + numbers.below(rank);
            example.with(list(from.into_iter().take(moved))).with(list(to.into_iter().take(moved)))
        }
        Squeeze => example.with(if numbers.chance() { integer(dim) } else { Argument::Absent }),
        Unsqueeze => example.with(integer(numbers.dim(rank + 1))),
        Expand => {
            let narrow = numbers.narrower(&shape);
            Example::empty(kind).of(numbers.normal(&narrow)).with(sizes(&shape))
        }
        Repeat => {
            let repeats = (0..rank + numbers.below(2)).map(|_| 1 + numbers.below(3)).collect::<Vec<_>>();
            example.with(list(repeats))
        }
        Cat => {
            let mut other = shape.clone();
            other[along] = 1 + numbers.below(3);
            let tensors = vec![numbers.normal(&shape), numbers.normal(&other), numbers.normal(&[0])];
            Example::empty(kind).all(tensors).with(integer(dim))
        }
        Stack => {
            let tensors = (0..1 + numbers.below(3)).map(|_| numbers.normal(&shape)).collect();
            Example::empty(kind).all(tensors).with(integer(numbers.dim(rank + 1)))
        }
        Split if numbers.chance() => {
            let first = numbers.below(shape[along]);
            example.with(list([first, shape[along] - first])).with(integer(dim))
        }
        Split => example.with(size(1 + numbers.below(3))).with(integer(dim)),
        Chunk => example.with(size(1 + numbers.below(3))).with(integer(dim)),
        Pad => {
            let sides = (0..2 * (1 + numbers.below(rank)))
                .map(|side| if side % 2 == 0 { numbers.below(3) as i64 } else { numbers.below(2) as i64 });
            let mut sides: Vec<i64> = sides.collect();
            // Cut off at one end, where something is left.
            if shape[rank - 1] > 1 && numbers.chance() {
                sides[1] = -1;
            }
            example.with(Argument::Integers(sides)).with(float(0.5))
        }
        Flip => example.with(list([along])),
        Roll if numbers.chance() => example.with(integer(2)).with(Argument::Integers(Vec::new())),
        Roll => example.with(integer(numbers.below(5) as i64 - 2)).with(list([along])),
        Tril | Triu => example.with(integer(numbers.below(4) as i64 - 2)),
        _ => {
            let order = numbers.permutation(rank);
            example.with(integer(numbers.below(4) as i64 - 2)).with(size(order[0])).with(size(order[1]))
        }
    }
}
