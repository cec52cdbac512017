//! What stands between the brackets of `x[...]`.

use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use pellucid_graph::IndexItem;

use super::{Value, Writer};

/// `...`: as many whole dimensions as are left.
#[derive(Clone, Copy, Debug)]
pub struct Ellipsis;

/// A new dimension of size 1.
#[derive(Clone, Copy, Debug)]
pub struct NewAxis;

/// An index: places, slices, [`Ellipsis`], [`NewAxis`] and index values in any mix, as [`s!`](crate::s) makes them.
#[derive(Clone, Debug)]
pub struct Index(Vec<Item>);

/// One item of an index.
#[derive(Clone, Debug)]
pub enum Item {
    /// A place, a slice, an ellipsis or a new axis.
    Plain(IndexItem),
    /// An index value of integers, or (in writing) a mask of bools; several broadcast together, as in NumPy.
    Value(Value),
}

impl Index {
    pub(crate) fn resolve(self, writer: &mut Writer<'_>) -> Vec<IndexItem> {
        let resolved = self.0.into_iter().map(|item| match item {
            Item::Plain(item) => item,
            Item::Value(value) => IndexItem::Tensor(writer.read(&value)),
        });
        resolved.collect()
    }
}

impl<const N: usize> From<[Item; N]> for Index {
    fn from(items: [Item; N]) -> Self {
        Index(items.into())
    }
}

impl From<Vec<Item>> for Index {
    fn from(items: Vec<Item>) -> Self {
        Index(items)
    }
}

/// Every so manieth place of a slice: `step(.., 2)`, `step(1..9, 3)`. The distance is at least 1.
pub fn step(slice: impl Into<Item>, distance: i64) -> Item {
    match slice.into() {
        Item::Plain(IndexItem::Slice { start, stop, .. }) => slice_item(start, stop, distance),
        other => other,
    }
}

fn slice_item(start: Option<i64>, stop: Option<i64>, step: i64) -> Item {
    Item::Plain(IndexItem::Slice { start, stop, step })
}

/// Where a slice stops that ends with a place: `..=-1` is up to the end, for which a stop of 0 would not do.
fn after(last: i64) -> Option<i64> {
    (last != -1).then(|| last.saturating_add(1))
}

macro_rules! item_from {
    ($($from:ty: $bound:ident => $item:expr),*) => {
        $(impl From<$from> for Item {
            fn from($bound: $from) -> Self {
                $item
            }
        })*
    };
}

item_from! {
    Ellipsis: _ellipsis => Item::Plain(IndexItem::Ellipsis),
    NewAxis: _axis => Item::Plain(IndexItem::NewAxis),
    RangeFull: _all => slice_item(None, None, 1),
    &Value: value => Item::Value(value.clone()),
    Value: value => Item::Value(value)
}

macro_rules! item_from_integers {
    ($($type:ty),*) => {
        $(item_from! {
            $type: place => Item::Plain(IndexItem::Integer(place as i64)),
            Range<$type>: range => slice_item(Some(range.start as i64), Some(range.end as i64), 1),
            RangeFrom<$type>: range => slice_item(Some(range.start as i64), None, 1),
            RangeTo<$type>: range => slice_item(None, Some(range.end as i64), 1),
            RangeInclusive<$type>: range => slice_item(Some(*range.start() as i64), after(*range.end() as i64), 1),
            RangeToInclusive<$type>: range => slice_item(None, after(range.end as i64), 1)
        })*
    };
}

item_from_integers!(i32, i64, usize);

/// An index, as between the brackets of `x[...]` in Python: places (negative ones count from the end), slices, `..` for
/// a whole dimension, [`Ellipsis`], [`NewAxis`], and values that hold indices.
///
/// ```
/// use pellucid::{Ellipsis, Model, s};
///
/// # fn main() -> pellucid::Result<()> {
/// let trace = Model::bundled()?.trace();
/// let hidden = trace.invoke("The capital of France is").layer(1).output(); // [prompts, length, hidden]
/// hidden.index(s![0, -1]).save("last"); //                                    [hidden]
/// hidden.index(s![.., 1..3, ..10]).save("corner"); //                         [prompts, 2, 10]
/// hidden.index(s![Ellipsis, 0]).save("first_unit"); //                        [prompts, length]
/// assert_eq!(trace.run()?["corner"].shape(), [1, 2, 10]);
/// # Ok(())
/// # }
/// ```
///
/// [`Ellipsis`]: crate::Ellipsis
/// [`NewAxis`]: crate::NewAxis
#[macro_export]
macro_rules! s {
    ($($item:expr),* $(,)?) => {
        $crate::Index::from([$($crate::Item::from($item)),*])
    };
}
