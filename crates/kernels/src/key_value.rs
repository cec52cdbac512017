//! The keys and values of one sequence in one layer, in the layout attention wants.

use crate::attention::HeadsView;
use crate::buffer::AlignedWords;
use crate::pool;
use crate::simd::LANES;
use crate::tile::PANEL;

/// Keys and values of one sequence in one layer, growing at the end.
///
/// Keys stand transposed in panels of 32 positions counted from the sequence's first token, `[panel][component][32]`
/// for each head; values position after position, each head's components padded to whole vectors. What attention computes from them does
/// not depend on how the positions were appended.
#[derive(Clone)]
pub struct KeyValueStore {
    heads: usize,
    head_size: usize,
    value_head_size: usize,
    length: usize,
    stored: Vec<Head>,
}

/// What is held of one head.
#[derive(Clone, Default)]
struct Head {
    keys: AlignedWords,
    values: AlignedWords,
}

impl Head {
    /// Writes the key and value of a position.
    fn write(&mut self, position: usize, key: &[f32], value: &[f32], value_width: usize) {
        let start = position / PANEL * PANEL * key.len() + position % PANEL;
        let keys = self.keys.floats_mut()[start..].iter_mut().step_by(PANEL);
        for (slot, number) in keys.zip(key) {
            *slot = *number;
        }
        self.values.floats_mut()[position * value_width..][..value.len()].copy_from_slice(value);
    }
}

/// Numbers of a head's keys from which appending is worth several threads.
const PARALLEL_APPEND: usize = 4096;

impl std::fmt::Debug for KeyValueStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KeyValueStore")
            .field("heads", &self.heads)
            .field("head_size", &self.head_size)
            .field("value_head_size", &self.value_head_size)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl KeyValueStore {
    /// An empty store for `heads` key and value heads, keys of `head_size` components, values of `value_head_size`.
    pub fn new(heads: usize, head_size: usize, value_head_size: usize) -> Self {
        Self { heads, head_size, value_head_size, length: 0, stored: vec![Head::default(); heads] }
    }

    /// Key and value heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Components of a key.
    pub fn head_size(&self) -> usize {
        self.head_size
    }

    /// Components of a value.
    pub fn value_head_size(&self) -> usize {
        self.value_head_size
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Memory held, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.stored.iter().map(|head| head.keys.capacity_bytes() + head.values.capacity_bytes()).sum()
    }

    /// Makes room for `positions` in all, so that appending up to there allocates nothing.
    pub fn reserve(&mut self, positions: usize) {
        let (rounded, width) = (positions.next_multiple_of(PANEL), self.value_width());
        for head in &mut self.stored {
            head.keys.reserve(rounded * self.head_size);
            head.values.reserve(positions * width);
        }
    }

    /// Appends the keys `[tokens, heads, head_size]` and values `[tokens, heads, value_head_size]` of the next tokens.
    ///
    /// # Panics
    /// If the shapes are not those.
    pub fn append(&mut self, keys: HeadsView<'_>, values: HeadsView<'_>) {
        assert_eq!(keys.tokens, values.tokens, "as many keys as values");
        assert_eq!((keys.heads, keys.size), (self.heads, self.head_size), "the keys' heads and their size");
        assert_eq!(
            (values.heads, values.size),
            (self.heads, self.value_head_size),
            "the values' heads and their size"
        );
        self.set_length(self.length + keys.tokens);
        let first = self.length - keys.tokens;
        let width = self.value_width();
        let append = |index: usize, head: &mut Head| {
            for token in 0..keys.tokens {
                head.write(first + token, keys.row(token, index), values.row(token, index), width);
            }
        };
        if keys.tokens * self.head_size < PARALLEL_APPEND {
            self.stored.iter_mut().enumerate().for_each(|(index, head)| append(index, head));
        } else {
            pool::parallel_chunks(&mut self.stored, 1, |index, heads| append(index, &mut heads[0]));
        }
    }

    fn set_length(&mut self, length: usize) {
        self.length = length;
        let (rounded, width) = (length.next_multiple_of(PANEL), self.value_width());
        for head in &mut self.stored {
            head.keys.resize(rounded * self.head_size);
            head.values.resize(length * width);
        }
    }

    /// Takes the first `positions` of another store in place of its own; in the memory that it has, as far as that goes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn copy_first(&mut self, other: &KeyValueStore, positions: usize) {
        assert!(positions <= other.length, "the first {positions} positions of {other:?}");
        let shape = |store: &KeyValueStore| (store.heads, store.head_size, store.value_head_size);
        if shape(self) != shape(other) {
            *self = KeyValueStore::new(other.heads, other.head_size, other.value_head_size);
        }
        // What is there need not be kept when there is too little room.
        self.set_length(0);
        self.set_length(positions);
        for (own, other) in self.stored.iter_mut().zip(&other.stored) {
            for (own, other) in [(&mut own.keys, &other.keys), (&mut own.values, &other.values)] {
                let words = own.words_mut();
                words.copy_from_slice(&other.words()[..words.len()]);
            }
        }
    }

    /// Forgets every position from `length` on.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn truncate(&mut self, length: usize) {
        assert!(length <= self.length, "truncating {} positions to {length}", self.length);
        self.set_length(length);
    }

    /// Copies the key at a position and head to `out` `[head_size]`.
    ///
    /// # Panics
    /// If an index is out of range or `out` has another length.
    pub fn key(&self, position: usize, head: usize, out: &mut [f32]) {
        self.check(position, head);
        assert_eq!(out.len(), self.head_size, "a key's components");
        let start = position / PANEL * PANEL * self.head_size + position % PANEL;
        let keys = self.stored[head].keys.floats();
        for (component, slot) in out.iter_mut().enumerate() {
            *slot = keys[start + component * PANEL];
        }
    }

    /// Copies the value at a position and head to `out` `[value_head_size]`.
    ///
    /// # Panics
    /// If an index is out of range or `out` has another length.
    pub fn value(&self, position: usize, head: usize, out: &mut [f32]) {
        self.check(position, head);
        assert_eq!(out.len(), self.value_head_size, "a value's components");
        out.copy_from_slice(&self.stored[head].values.floats()[position * self.value_width()..][..out.len()]);
    }

    fn check(&self, position: usize, head: usize) {
        assert!(position < self.length && head < self.heads, "position {position}, head {head} of {self:?}");
    }

    /// Overwrites the key and value at a position and head.
    ///
    /// # Panics
    /// If an index is out of range or a slice has another length.
    pub fn set(&mut self, position: usize, head: usize, key: &[f32], value: &[f32]) {
        self.check(position, head);
        assert_eq!(
            (key.len(), value.len()),
            (self.head_size, self.value_head_size),
            "a key's and a value's components"
        );
        let width = self.value_width();
        self.stored[head].write(position, key, value, width);
    }

    /// The keys of a head, panel after panel (`head_size * 32` words each).
    pub(crate) fn key_panels(&self, head: usize) -> &AlignedWords {
        &self.stored[head].keys
    }

    /// The values of a head: [`value_width`](Self::value_width) words a position.
    pub(crate) fn values(&self, head: usize) -> &AlignedWords {
        &self.stored[head].values
    }

    /// Words from one value of a head to the next: the components, padded to whole vectors.
    pub(crate) fn value_width(&self) -> usize {
        self.value_head_size.next_multiple_of(LANES)
    }
}
