//! What sweeps and loops go over.

use std::ops::{Range, RangeInclusive};

use pellucid_graph::{Parameter, Scalar};

use crate::value::Value;

/// One axis of a sweep or loop: a parameter with its values, or several that go along it together.
///
/// `Axis::new("layer", 0..12)` are whole numbers; lists of numbers, of prompts, and the rows of a [`Value`] will do as
/// well. See [`Trace::sweep`](crate::Trace::sweep).
#[derive(Clone, Debug)]
pub struct Axis {
    pub(crate) parameters: Vec<(String, AxisValues)>,
}

impl Axis {
    /// An axis of one parameter.
    pub fn new(name: &str, values: impl Into<AxisValues>) -> Axis {
        Axis { parameters: vec![(name.to_owned(), values.into())] }
    }

    /// How many cells it has, where that is known before the run.
    pub(crate) fn count(&self) -> Option<u64> {
        match &self.parameters.first()?.1 {
            AxisValues::Given(parameter) => parameter.count(),
            AxisValues::Rows(_) => None,
        }
    }

    /// The same axis with another parameter, which has as many values: the two go along it together.
    #[must_use]
    pub fn with(mut self, name: &str, values: impl Into<AxisValues>) -> Axis {
        self.parameters.push((name.to_owned(), values.into()));
        self
    }
}

/// The values of a parameter along its axis.
#[derive(Clone, Debug)]
pub enum AxisValues {
    /// Numbers or prompts.
    Given(Parameter),
    /// The rows of a value along its first dimension.
    Rows(Value),
}

impl AxisValues {
    /// Prompts, one or more for each cell.
    pub fn prompts<T: AsRef<str>>(cells: impl IntoIterator<Item = Vec<T>>) -> AxisValues {
        let texts = |texts: Vec<T>| texts.iter().map(|text| text.as_ref().to_owned()).collect();
        let cells = cells.into_iter().map(texts).collect();
        AxisValues::Given(Parameter::Texts { cells, special_tokens: true })
    }

    /// A data set in batches, for each cell so many prompts; the last has what is left.
    pub fn batches<T: AsRef<str>>(prompts: impl IntoIterator<Item = T>, size: usize) -> AxisValues {
        let prompts: Vec<T> = prompts.into_iter().collect();
        let texts = |batch: &[T]| batch.iter().map(|text| text.as_ref().to_owned()).collect();
        let cells = prompts.chunks(size.max(1)).map(texts).collect();
        AxisValues::Given(Parameter::Texts { cells, special_tokens: true })
    }

    /// Prompts as token ids, one for each cell.
    pub fn tokens<T: AsRef<[u32]>>(cells: impl IntoIterator<Item = T>) -> AxisValues {
        let cells = cells.into_iter().map(|tokens| vec![tokens.as_ref().to_vec()]).collect();
        AxisValues::Given(Parameter::Tokens(cells))
    }
}

impl From<&Value> for AxisValues {
    fn from(value: &Value) -> AxisValues {
        AxisValues::Rows(value.clone())
    }
}

fn numbers<T: Into<Scalar>>(numbers: impl IntoIterator<Item = T>) -> AxisValues {
    AxisValues::Given(Parameter::Numbers(numbers.into_iter().map(Into::into).collect()))
}

fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> AxisValues {
    let cells = texts.into_iter().map(|text| vec![text.as_ref().to_owned()]).collect();
    AxisValues::Given(Parameter::Texts { cells, special_tokens: true })
}

fn places(places: impl IntoIterator<Item = usize>) -> AxisValues {
    numbers(places.into_iter().map(|place| place as i64))
}

macro_rules! axis_values_from {
    ($($type:ty: $convert:ident),*) => {
        $(impl<const N: usize> From<[$type; N]> for AxisValues {
            fn from(values: [$type; N]) -> AxisValues {
                $convert(values)
            }
        }

        impl From<Vec<$type>> for AxisValues {
            fn from(values: Vec<$type>) -> AxisValues {
                $convert(values)
            }
        }

        impl From<&[$type]> for AxisValues {
            fn from(values: &[$type]) -> AxisValues {
                $convert(values.iter().cloned())
            }
        }

        impl From<&Vec<$type>> for AxisValues {
            fn from(values: &Vec<$type>) -> AxisValues {
                $convert(values.iter().cloned())
            }
        })*
    };
}

axis_values_from!(i64: numbers, i32: numbers, u32: numbers, usize: places, f64: numbers, f32: numbers, &str: texts, String: texts);

macro_rules! axis_values_from_range {
    ($($type:ty),*) => {
        $(impl From<Range<$type>> for AxisValues {
            fn from(range: Range<$type>) -> AxisValues {
                let (from, to) = (range.start as i64, range.end as i64);
                AxisValues::Given(Parameter::Range { from, to, step: 1 })
            }
        }

        impl From<RangeInclusive<$type>> for AxisValues {
            fn from(range: RangeInclusive<$type>) -> AxisValues {
                let (from, to) = (*range.start() as i64, (*range.end() as i64).saturating_add(1));
                AxisValues::Given(Parameter::Range { from, to, step: 1 })
            }
        })*
    };
}

axis_values_from_range!(i64, i32, u32, usize);

/// One axis, or several: a grid.
pub trait IntoAxes {
    /// The axes, the last one fastest.
    fn into_axes(self) -> Vec<Axis>;
}

impl IntoAxes for Axis {
    fn into_axes(self) -> Vec<Axis> {
        vec![self]
    }
}

impl<const N: usize> IntoAxes for [Axis; N] {
    fn into_axes(self) -> Vec<Axis> {
        self.into()
    }
}

impl IntoAxes for Vec<Axis> {
    fn into_axes(self) -> Vec<Axis> {
        self
    }
}
