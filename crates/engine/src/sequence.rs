//! One prompt on its way through the model, and keys and values that several have in common.

use std::sync::{Arc, Mutex, PoisonError};

use pellucid_kernels::{HeadsView, KeyValueStore};

/// One prompt on its way through the model: its rows, which are all its tokens or those from a position on.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// This step's token ids.
    pub tokens: Vec<i64>,
    /// Tokens before them: the position of the first.
    pub start: usize,
    /// Keys and values of each attention layer.
    pub caches: Vec<Option<Arc<KeyValueStore>>>,
    /// Whether caches outlive the pass, for a next step.
    pub keep_caches: bool,
    /// From the narrowing stage on, only these of this step's tokens, in order; none: all.
    pub narrow: Option<Vec<usize>>,
    /// Where the keys and values of the tokens before its own are, if they are another's.
    pub prefix: Option<Arc<Prefix>>,
    /// Where its own go, if others attend to them.
    pub publishes: Option<Arc<Prefix>>,
    /// Keys and values of its rows in the current layer, after a prefix.
    pub tail: Option<Tail>,
}

impl Sequence {
    /// A prompt's tokens, from its first on.
    pub fn new(tokens: Vec<i64>) -> Sequence {
        Sequence { tokens, ..Sequence::default() }
    }

    /// Leaves its first tokens to another, whose keys and values it begins with.
    pub fn begin_after(&mut self, positions: usize, prefix: Arc<Prefix>) {
        self.tokens.drain(..positions.min(self.tokens.len()));
        self.start = positions;
        self.prefix = Some(prefix);
        if let Some(narrow) = &mut self.narrow {
            narrow.iter_mut().for_each(|place| *place = place.saturating_sub(positions));
        }
    }

    /// The same rows from a position on, which attend to what this sequence publishes. From its first row on: a copy of it.
    pub fn fork(&self, position: usize) -> Sequence {
        let skipped = position.saturating_sub(self.start).min(self.tokens.len());
        if skipped == 0 {
            return Sequence {
                tokens: self.tokens.clone(),
                start: self.start,
                caches: self.caches.clone(),
                keep_caches: self.keep_caches,
                narrow: self.narrow.clone(),
                prefix: self.prefix.clone(),
                publishes: None,
                tail: self.tail.clone(),
            };
        }
        Sequence {
            tokens: self.tokens[skipped..].to_vec(),
            start: position,
            prefix: self.publishes.clone(),
            ..Sequence::default()
        }
    }
}

/// Keys and values of some rows, end to end.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    keys: Heads,
    values: Heads,
}

#[derive(Clone, Debug)]
struct Heads {
    numbers: Vec<f32>,
    tokens: usize,
    heads: usize,
    size: usize,
}

impl Heads {
    fn of(view: HeadsView<'_>) -> Heads {
        let mut numbers = Vec::with_capacity(view.tokens * view.heads * view.size);
        for token in 0..view.tokens {
            for head in 0..view.heads {
                let at = token * view.token_stride + head * view.head_stride;
                numbers.extend_from_slice(&view.data[at..at + view.size]);
            }
        }
        Heads { numbers, tokens: view.tokens, heads: view.heads, size: view.size }
    }

    fn view(&self) -> HeadsView<'_> {
        HeadsView::new(&self.numbers, self.tokens, self.heads, self.size, self.heads * self.size)
    }
}

impl Tail {
    pub fn of(keys: HeadsView<'_>, values: HeadsView<'_>) -> Tail {
        Tail { keys: Heads::of(keys), values: Heads::of(values) }
    }

    /// Puts them at the end of a store.
    pub fn append_to(&self, store: &mut KeyValueStore) {
        store.append(self.keys.view(), self.values.view());
    }
}

/// Keys and values of a sequence that others attend to, layer by layer: as far as they are computed, and as long as
/// somebody still needs them.
#[derive(Debug, Default)]
pub(crate) struct Prefix {
    layers: Mutex<Vec<Option<Arc<KeyValueStore>>>>,
}

impl Prefix {
    /// Those of a layer.
    pub fn layer(&self, layer: usize) -> Option<Arc<KeyValueStore>> {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.get(layer).cloned().flatten()
    }

    /// A store of a layer's first `positions`, to go on from.
    pub fn first(&self, layer: usize, positions: usize) -> Option<KeyValueStore> {
        let shared = self.layer(layer)?;
        let mut store = KeyValueStore::clone(&shared);
        (positions <= store.len()).then(|| {
            store.truncate(positions);
            store
        })
    }

    /// A layer's are there; none: nobody needs them any more.
    pub fn put(&self, layer: usize, store: Option<Arc<KeyValueStore>>) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if layers.len() <= layer {
            layers.resize_with(layer + 1, || None);
        }
        layers[layer] = store;
    }
}
