//! The shape of several shapes together. Shapes are aligned at their last dimension; sizes are equal, or one of them is 1.

use crate::shape::{Dimension, Symbol};

/// The size of two sizes together; none where no lengths make them fit. A known size other than 1 decides over an unknown
/// one; two unknown sizes that may differ make one that cannot be known yet.
pub fn dimension(a: &Dimension, b: &Dimension, fresh: &mut dyn FnMut() -> Symbol) -> Option<Dimension> {
    if a == b || b.is_one() {
        return Some(a.clone());
    }
    if a.is_one() {
        return Some(b.clone());
    }
    let fits = a.could_equal(b) || a.could_be(1) || b.could_be(1);
    match (a.value(), b.value()) {
        _ if !fits => None,
        (Some(_), _) => Some(a.clone()),
        (_, Some(_)) => Some(b.clone()),
        _ if !a.could_be(1) && !b.could_be(1) => Some(a.clone()),
        _ => Some(Dimension::symbol(fresh())),
    }
}

/// The shape of two shapes together, or the dimension, counted from the end and from 1, at which they do not fit.
pub fn shapes(
    a: &[Dimension],
    b: &[Dimension],
    fresh: &mut dyn FnMut() -> Symbol,
) -> Result<Vec<Dimension>, usize> {
    let one = Dimension::known(1);
    let count = a.len().max(b.len());
    let at = |shape: &[Dimension], from_end: usize| -> Dimension {
        shape.len().checked_sub(from_end).map_or_else(|| one.clone(), |place| shape[place].clone())
    };
    let size = |from_end: usize| dimension(&at(a, from_end), &at(b, from_end), fresh).ok_or(from_end);
    (1..=count).rev().map(size).collect()
}

/// The shape of two known shapes together; none where they do not fit.
pub fn sizes(a: &[u64], b: &[u64]) -> Option<Vec<u64>> {
    let count = a.len().max(b.len());
    let at =
        |shape: &[u64], from_end: usize| shape.len().checked_sub(from_end).map_or(1, |place| shape[place]);
    let size = |from_end: usize| match (at(a, from_end), at(b, from_end)) {
        (a, b) if a == b || b == 1 => Some(a),
        (1, b) => Some(b),
        _ => None,
    };
    (1..=count).rev().map(size).collect()
}

/// Whether a shape expands to another: to its own dimensions or more, sizes of 1 repeated.
pub fn expands(from: &[Dimension], to: &[Dimension]) -> bool {
    from.len() <= to.len()
        && from.iter().rev().zip(to.iter().rev()).all(|(from, to)| from.could_be(1) || from.could_equal(to))
}
