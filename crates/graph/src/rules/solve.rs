//! A shape of as many elements as another, where one size may be left to infer and lengths may be unknown.

use crate::shape::{Dimension, Symbol};

/// A product of sizes: a known number times forms that are not known and have no common factor of their own.
struct Product {
    coefficient: u128,
    forms: Vec<Dimension>,
}

impl Product {
    fn of<'a>(sizes: impl IntoIterator<Item = &'a Dimension>) -> Product {
        let mut product = Product { coefficient: 1, forms: Vec::new() };
        for size in sizes {
            let content = if size.value().is_some() { size.minimum() } else { size.content() };
            product.coefficient = product.coefficient.saturating_mul(u128::from(content));
            if let (None, Some(form)) = (size.value(), size.divided(content)) {
                product.forms.push(form);
            }
        }
        product
    }
}

/// Takes away what stands in both.
fn cancel(a: &mut Product, b: &mut Product) {
    a.forms.retain(|form| match b.forms.iter().position(|other| other == form) {
        Some(place) => {
            b.forms.swap_remove(place);
            false
        }
        None => true,
    });
}

/// Why there is no such shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsolvable {
    /// The numbers of elements differ, or do not divide.
    Elements,
    /// There are no elements, so that any size would do for the one to infer.
    Ambiguous,
    /// More than one size is to be inferred.
    Several,
}

/// The sizes of a shape of as many elements as `from`; none in `to` is the size to infer. A size that is not linear in
/// lengths becomes one that cannot be known yet.
pub fn solve(
    from: &[Dimension],
    to: &[Option<Dimension>],
    fresh: &mut dyn FnMut() -> Symbol,
) -> Result<Vec<Dimension>, Unsolvable> {
    let (mut have, mut want) = (Product::of(from), Product::of(to.iter().flatten()));
    cancel(&mut have, &mut want);
    let inferred = match to.iter().filter(|size| size.is_none()).count() {
        0 => {
            could_be_equal(&have, &want).then_some(()).ok_or(Unsolvable::Elements)?;
            Dimension::known(1)
        }
        1 => infer(&have, &want, fresh)?,
        _ => return Err(Unsolvable::Several),
    };
    Ok(to.iter().map(|size| size.clone().unwrap_or_else(|| inferred.clone())).collect())
}

fn could_be_equal(have: &Product, want: &Product) -> bool {
    let one_form = |form: &Dimension, coefficient: u128, total: u128| {
        if coefficient == 0 {
            return total == 0;
        }
        total.is_multiple_of(coefficient)
            && u64::try_from(total / coefficient).is_ok_and(|size| form.could_be(size))
    };
    match (have.forms.as_slice(), want.forms.as_slice()) {
        ([], []) => have.coefficient == want.coefficient,
        ([form], []) => one_form(form, have.coefficient, want.coefficient),
        ([], [form]) => one_form(form, want.coefficient, have.coefficient),
        _ => true,
    }
}

fn infer(have: &Product, want: &Product, fresh: &mut dyn FnMut() -> Symbol) -> Result<Dimension, Unsolvable> {
    if want.coefficient == 0 {
        let could_be_empty = have.coefficient == 0 || have.forms.iter().any(|form| form.could_be(0));
        return Err(if could_be_empty { Unsolvable::Ambiguous } else { Unsolvable::Elements });
    }
    if !want.forms.is_empty() {
        return Ok(Dimension::symbol(fresh()));
    }
    let whole = have.coefficient.is_multiple_of(want.coefficient);
    let ratio = i64::try_from(have.coefficient / want.coefficient).ok();
    match have.forms.as_slice() {
        [] if whole => ratio.map(|size| Dimension::known(size.unsigned_abs())).ok_or(Unsolvable::Elements),
        [] => Err(Unsolvable::Elements),
        [form] if whole => ratio.map(|factor| form.times(factor)).ok_or(Unsolvable::Elements),
        _ => Ok(Dimension::symbol(fresh())),
    }
}

/// The product of sizes as one size.
pub fn product(sizes: &[Dimension], fresh: &mut dyn FnMut() -> Symbol) -> Result<Dimension, Unsolvable> {
    infer(&Product::of(sizes), &Product::of([]), fresh)
}
