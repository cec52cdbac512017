//! One prompt on its way through the model, and keys and values that several have in common.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// The columns of the vocabulary that its logits have, once they are computed, one after another; none: all.
    pub vocabulary: Option<Arc<[usize]>>,
    /// Where the keys and values of the tokens before its own are, if they are another's.
    pub prefix: Option<Arc<Prefix>>,
    /// Where its own go, if others attend to them.
    pub publishes: Option<Arc<Prefix>>,
    /// Keys and values of its rows in the current layer, after a prefix.
    pub tail: Option<Tail>,
    /// Where the residual stream of its rows goes, for a cache.
    pub streams: Option<Arc<Streams>>,
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
    /// Where keys and values are kept for a next step, those of the layers that were walked are all the same.
    pub fn fork(&self, position: usize) -> Sequence {
        let skipped = position.saturating_sub(self.start).min(self.tokens.len());
        if skipped == 0 {
            return Sequence {
                tokens: self.tokens.clone(),
                start: self.start,
                caches: self.caches.clone(),
                keep_caches: self.keep_caches,
                narrow: self.narrow.clone(),
                vocabulary: self.vocabulary.clone(),
                prefix: self.prefix.clone(),
                publishes: None,
                tail: self.tail.clone(),
                streams: None,
            };
        }
        Sequence {
            tokens: self.tokens[skipped..].to_vec(),
            start: position,
            caches: if self.keep_caches { self.caches.clone() } else { Vec::new() },
            keep_caches: self.keep_caches,
            prefix: self.publishes.clone(),
            ..Sequence::default()
        }
    }

    /// What comes after it at the next step: one token, which attends to all its keys and values. Several may come after one;
    /// each copies them when it adds its own.
    pub fn then(&self, token: u32) -> Sequence {
        Sequence {
            tokens: vec![i64::from(token)],
            start: self.start + self.tokens.len(),
            caches: self.caches.clone(),
            keep_caches: self.keep_caches,
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

    /// The first positions that all layers have which have any, from the first on: not more than `most`, and how many layers
    /// these are; none: there are none.
    pub fn complete(&self, most: usize) -> Option<(Prefix, usize, usize)> {
        let stores: Vec<Arc<KeyValueStore>> = (0..).map_while(|layer| self.layer(layer)).collect();
        let positions = stores.iter().map(|store| store.len()).min()?.min(most);
        if positions == 0 {
            return None;
        }
        let cut = |store: Arc<KeyValueStore>| {
            if store.len() == positions {
                return Some(store);
            }
            // What is copied takes only as much as it holds.
            let mut store = KeyValueStore::clone(&store);
            store.truncate(positions);
            Some(Arc::new(KeyValueStore::clone(&store)))
        };
        let layers = stores.len();
        Some((Prefix { layers: Mutex::new(stores.into_iter().map(cut).collect()) }, positions, layers))
    }

    /// Bytes that its keys and values take.
    pub fn bytes(&self) -> u64 {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.iter().flatten().map(|store| store.size_in_bytes() as u64).sum()
    }

    /// Puts a layer's first `positions` into a store, in place of what is in it; whether they are there.
    pub fn copy_first(&self, layer: usize, positions: usize, store: &mut KeyValueStore) -> bool {
        match self.layer(layer) {
            Some(shared) if positions <= shared.len() => {
                store.copy_first(&shared, positions);
                true
            }
            _ => false,
        }
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

/// The residual stream of a prompt's rows before some stages, `[tokens, hidden]`: as far as nothing has edited it.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// How many rows each has.
    tokens: usize,
    before: Mutex<BTreeMap<usize, Arc<Vec<f32>>>>,
}

impl Streams {
    /// Those of a prompt of so many tokens: none yet, or those that others have of it.
    pub fn of(tokens: usize, known: Option<&Streams>) -> Streams {
        let cut = |values: &Arc<Vec<f32>>, all: usize| {
            if all == tokens {
                values.clone()
            } else {
                Arc::new(values[..values.len() / all * tokens].to_vec())
            }
        };
        let before = known.map(|known| {
            known.before().iter().map(|(&stage, values)| (stage, cut(values, known.tokens))).collect()
        });
        Streams { tokens, before: Mutex::new(before.unwrap_or_default()) }
    }

    fn before(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<Vec<f32>>>> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many rows each has.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The last stage before which it is there, not after `most`.
    pub fn last(&self, most: usize) -> Option<usize> {
        self.before().range(..=most).next_back().map(|(&stage, _)| stage)
    }

    /// Those before a stage.
    pub fn at(&self, stage: usize) -> Option<Arc<Vec<f32>>> {
        self.before().get(&stage).cloned()
    }

    /// They are there.
    pub fn put(&self, stage: usize, values: Vec<f32>) {
        self.before().insert(stage, Arc::new(values));
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> u64 {
        self.before().values().map(|values| 4 * values.len() as u64).sum()
    }
}
