//! Examples of what computes.

use super::*;

pub(super) fn loss(kind: OperationKind, numbers: &mut Numbers) -> Example {
    use OperationKind::*;
    let reduction = text(["mean", "sum", "none"][numbers.below(3)]);
    let example = Example::empty(kind);
    match kind {
        CosineSimilarity => {
            let shape = loop {
                let (a, b) = numbers.broadcasting();
                if !a.is_empty() && !b.is_empty() {
                    break (a, b);
                }
            };
            let rank = shape.0.len().max(shape.1.len());
            let dim = numbers.dim(rank);
            example
                .of(numbers.nonzero(&shape.0))
                .of(numbers.nonzero(&shape.1))
                .with(integer(dim))
                .with(float(1e-8))
        }
        CrossEntropy | NllLoss => {
            let shape = numbers.shape(1, 3);
            let place = usize::from(shape.len() > 1);
            let mut others = shape.clone();
            let classes = others.remove(place);
            let ignored = numbers.below(classes + 2) as i64 - 1;
            let target = numbers.places(&others, classes);
            // Of rows that are all ignored the mean is NaN.
            let some = target.to_vec_i64().unwrap().iter().any(|&class| class != ignored);
            let example = example.of(numbers.normal(&shape)).of(target);
            let example = match numbers.chance() {
                true => example.of(numbers.positive(&[classes])),
                false => example.with(Argument::Absent),
            };
            let example = example.with(integer(ignored)).with(if some { reduction } else { text("sum") });
            if kind == NllLoss { example } else { example.with(float([0.0, 0.3][numbers.below(2)])) }
        }
        KlDiv | MseLoss => {
            let wide = numbers.shape(0, 3);
            let narrow = numbers.narrower(&wide);
            let (a, b) = if numbers.chance() { (wide, narrow) } else { (narrow, wide) };
            let example = example.of(numbers.normal(&a));
            if kind == MseLoss {
                return example.of(numbers.normal(&b)).with(reduction);
            }
            let reduction =
                if numbers.below(4) == 0 && a.len().max(b.len()) > 0 { text("batchmean") } else { reduction };
            example.of(numbers.positive(&b)).with(reduction).with(truth(numbers.chance()))
        }
        _ => {
            let shape = numbers.shape(0, 3);
            let example = example.of(numbers.normal(&shape)).of(numbers.positive(&shape));
            let (a, b) = (numbers.narrower(&shape), numbers.narrower(&shape));
            let example = if numbers.chance() {
                example.of(numbers.positive(&a))
            } else {
                example.with(Argument::Absent)
            };
            let example = example.with(reduction);
            if numbers.chance() { example.of(numbers.positive(&b)) } else { example.with(Argument::Absent) }
        }
    }
}

/// Matrices near multiples of the unit matrix, so that none is nearly singular and no two singular values are near.
pub(super) fn linear(kind: OperationKind, numbers: &mut Numbers) -> Example {
    use OperationKind::*;
    let batch: Vec<usize> = (0..numbers.below(2)).map(|_| 1 + numbers.below(2)).collect();
    let (rows, mut columns) = (1 + numbers.below(4), 1 + numbers.below(4));
    if !matches!(kind, Qr | Svd | Lstsq | Pinv | Orthogonal) {
        columns = rows;
    }
    let complete = kind == Qr && rows <= columns && numbers.chance();
    let shape: Vec<usize> = batch.iter().copied().chain([rows, columns]).collect();
    // The determinant of a singular matrix has a gradient too.
    let singular = kind == Det && numbers.below(4) == 0;
    let mut place = 0;
    let input = numbers.fill(&shape, |numbers| {
        let (row, column) = (place / columns % rows, place % columns);
        place += 1;
        if singular && row == 0 {
            return 0.0;
        }
        let noise = numbers.real() / 8.0;
        if row == column { 1.5 + row as f64 + noise } else { noise }
    });
    let input = if matches!(kind, Eigh | Cholesky) { mirrored(&input, |a, b| (a + b) / 2.0) } else { input };
    let example = Example::empty(kind).of(input);
    match kind {
        Qr => example.with(text(if complete { "complete" } else { "reduced" })),
        // What a full decomposition adds to the vectors is arbitrary.
        Svd => example.with(truth(rows == columns && numbers.chance())),
        Solve | Lstsq => {
            let mut right: Vec<usize> = if numbers.chance() { batch } else { Vec::new() };
            right.push(rows);
            if numbers.chance() || right.len() > 1 {
                right.push(1 + numbers.below(3));
            }
            let example = example.of(numbers.normal(&right));
            if kind == Lstsq { example.with(Argument::Absent) } else { example }
        }
        Pinv => example.with(Argument::Absent),
        Orthogonal => {
            let map = ["matrix_exp", "cayley", "householder"][numbers.below(3)];
            example.with(text(map))
        }
        _ => example,
    }
}

pub(super) fn reduction(kind: OperationKind, numbers: &mut Numbers) -> Example {
    use OperationKind::*;
    let shape = numbers.shape(0, 3);
    let input = match kind {
        Norm | CumProd | Prod => numbers.nonzero(&shape),
        _ => numbers.normal(&shape),
    };
    // Zeros among the factors, where a quotient would fail.
    let input = if matches!(kind, CumProd | Prod) && numbers.chance() {
        let mut elements = input.to_vec_f64().unwrap();
        elements.iter_mut().for_each(|element| {
            if numbers.below(4) == 0 {
                *element = 0.0
            }
        });
        Tensor::from_f64(elements, &shape).unwrap()
    } else {
        input
    };
    let several = numbers.permutation(shape.len());
    let several = list(several.into_iter().take(1 + numbers.below(shape.len().max(1))));
    let one = integer(numbers.dim(shape.len()));
    let dims = match numbers.below(3) {
        0 if kind != LogSumExp => Argument::Absent,
        1 => several,
        _ => one.clone(),
    };
    let example = Example::empty(kind).of(input);
    let keep = truth(numbers.chance());
    match kind {
        CumSum | CumProd | Softmax | LogSoftmax => example.with(one),
        Prod => example.with(if numbers.chance() { one } else { Argument::Absent }).with(keep),
        Var | Std => {
            // The deviation of one element has no derivative: 0 keeps it apart from the others.
            let correction = if kind == Var { numbers.below(2) as f64 * 0.5 } else { 0.0 };
            example.with(dims).with(float(correction)).with(keep)
        }
        Norm => {
            let orders = [2.0, 1.0, 3.0, 0.5, 1.5, f64::INFINITY, f64::NEG_INFINITY, 0.0];
            example.with(float(orders[numbers.below(orders.len())])).with(dims).with(keep)
        }
        Sum => example.with(dims).with(keep).with(Argument::Absent),
        _ => example.with(dims).with(keep),
    }
}

pub(super) fn einsum(numbers: &mut Numbers) -> Example {
    let (a, b, c) = (1 + numbers.below(3), 1 + numbers.below(3), 1 + numbers.below(3));
    let wide = numbers.shape(0, 2);
    let ([mut first, mut second], third) = ([numbers.narrower(&wide), numbers.narrower(&wide)], vec![b, c]);
    first.extend([a, b]);
    second.extend([b, c]);
    let (equation, shapes) = match numbers.below(10) {
        0 => ("...ij,...jk->...ik", vec![first, second]),
        1 => ("ij,jk,kl->il", vec![vec![a, b], third, vec![c, a]]),
        2 => ("ii->i", vec![vec![a, a]]),
        3 => ("ii", vec![vec![b, b]]),
        4 => ("ij->", vec![vec![a, b]]),
        5 => ("ijj,k->ki", vec![vec![a, b, b], vec![c]]),
        6 => ("ij,ij->i", vec![vec![a, b], vec![a, b]]),
        7 => ("i,j,i->j", vec![vec![a], vec![b], vec![a]]),
        8 => ("...ij,kl->...i", vec![first, vec![c, a]]),
        _ => ("ij,kj->ik", vec![vec![a, b], vec![c, 1]]),
    };
    let tensors = shapes.iter().map(|shape| numbers.normal(shape)).collect();
    Example::empty(OperationKind::Einsum).with(text(equation)).all(tensors)
}

pub(super) fn pair(kind: OperationKind, numbers: &mut Numbers) -> Example {
    use OperationKind::*;
    let (a, b) = numbers.broadcasting();
    let first = if kind == Pow { numbers.positive(&a) } else { numbers.normal(&a) };
    let second = match kind {
        Div | Remainder => numbers.nonzero(&b),
        _ => numbers.normal(&b),
    };
    match numbers.below(6) {
        0 => Example::empty(kind).with(float(1.25)).of(second),
        1 => Example::empty(kind).of(first).with(float(1.75)),
        _ => Example::empty(kind).of(first).of(second),
    }
}
