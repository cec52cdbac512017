//! Arguments of operations, as methods give them.

use pellucid_graph::{Argument, Scalar};

use super::{Dimensions, Given};

pub(crate) fn scalar(number: impl Into<Scalar>) -> Given<'static> {
    Given::Plain(Argument::Scalar(number.into()))
}

pub(crate) fn integer(number: i64) -> Given<'static> {
    Given::Plain(Argument::Scalar(Scalar::Int(number)))
}

pub(crate) fn number(number: f64) -> Given<'static> {
    Given::Plain(Argument::Scalar(Scalar::Float(number)))
}

pub(crate) fn boolean(truth: bool) -> Given<'static> {
    Given::Plain(Argument::Scalar(Scalar::Bool(truth)))
}

pub(crate) fn integers(numbers: &[i64]) -> Given<'static> {
    Given::Plain(Argument::Integers(numbers.to_vec()))
}

pub(crate) fn dimensions(given: impl Into<Dimensions>) -> Given<'static> {
    Given::Plain(given.into().argument())
}

pub(crate) fn text(word: &str) -> Given<'static> {
    Given::Plain(Argument::Text(word.to_owned()))
}

pub(crate) fn absent() -> Given<'static> {
    Given::Plain(Argument::Absent)
}
