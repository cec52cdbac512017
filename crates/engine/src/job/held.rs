//! What a run reads and does not own alone.

use std::ops::Deref;
use std::sync::Arc;

/// Something that a caller lends for a run, or that the run keeps alive together with others.
pub(crate) enum Held<'a, T> {
    Lent(&'a T),
    Shared(Arc<T>),
}

impl<T> Clone for Held<'_, T> {
    fn clone(&self) -> Self {
        match self {
            Held::Lent(lent) => Held::Lent(lent),
            Held::Shared(shared) => Held::Shared(Arc::clone(shared)),
        }
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Held::Lent(lent) => lent,
            Held::Shared(shared) => shared,
        }
    }
}
