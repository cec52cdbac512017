//! A cache of prefixes: what a program's prompts have in common with prompts that ran before it is not computed again.
//!
//! **Needs:** whoever runs the program has given it a cache ([`RunOptions::prefixes`](crate::RunOptions::prefixes)): there is none
//! otherwise, and nothing ever goes from one cache to another. The same model, as it stands in memory, on the same
//! instruction-set path; no weights set. Of the invoke that takes: what `prefix` needs of one that begins with another's rows.
//! Of those that are kept: rows that nothing has edited (those of an invoke that is edited, up to the first column that differs),
//! with keys and values from the first layer on: of as many layers as they have walked through. Whoever takes them reads nothing above.
//!
//! The residual stream is kept before the stages at which nothing else is alive, up to the first edit. A trace of one invoke of which
//! nothing is read or written before such a stage begins there. While programs run they collect, all of one cache together, no more
//! than it may hold; what finds no room then is not kept.
//!
//! **Keeps:** keys and values of a position, and its residual stream, depend on the tokens up to it and on the weights, and kernels give a row the same bits
//! whatever other rows there are: they are bit for bit those that the prompt would make.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pellucid_kernels::Isa;
use pellucid_models::Model;

use super::prefix::common;
use crate::sequence::{Prefix, Streams};

/// Bytes that a cache holds, where nobody says otherwise.
pub const PREFIX_CACHE_BYTES: u64 = 64 << 20;

/// Keys and values of prompts that ran, for those that begin alike and run later. It belongs to one owner: what ran with it
/// shows in how long later runs with it take, so it is never to be shared between people who do not trust one another.
pub struct PrefixCache {
    held: Mutex<Held>,
    room: Option<Arc<PrefixRoom>>,
}

/// Bytes that the caches of several owners hold together at most, with what they collect.
#[derive(Debug)]
pub struct PrefixRoom {
    most_bytes: u64,
    taken: AtomicU64,
    hits: AtomicU64,
    tokens: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

/// What has come of all caches in a room since it was made, those that are gone included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixCounts {
    /// Prompts that began with one that was there.
    pub hits: u64,
    /// Tokens that were not computed for it.
    pub tokens: u64,
    /// Prompts of which nothing was there.
    pub misses: u64,
    /// Prompts that made room for others.
    pub evictions: u64,
}

impl PrefixRoom {
    /// Room for so many bytes, all of it free.
    pub fn new(most_bytes: u64) -> PrefixRoom {
        let zero = AtomicU64::default;
        PrefixRoom {
            most_bytes,
            taken: zero(),
            hits: zero(),
            tokens: zero(),
            misses: zero(),
            evictions: zero(),
        }
    }

    /// What has come of all caches in it.
    pub fn counts(&self) -> PrefixCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PrefixCounts {
            hits: read(&self.hits),
            tokens: read(&self.tokens),
            misses: read(&self.misses),
            evictions: read(&self.evictions),
        }
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        self.most_bytes.saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    fn take(&self, bytes: u64) -> bool {
        let with = |taken: u64| taken.checked_add(bytes).filter(|&all| all <= self.most_bytes);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok()
    }

    fn give(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Held {
    /// Bytes that it may hold.
    most_bytes: u64,
    prompts: Vec<Kept>,
    bytes: u64,
    /// Bytes of what is still being collected.
    reserved: u64,
    /// The most bytes for which there was no room that is shared with others.
    missed: u64,
    /// Counts uses: of two prompts that which was used last has the higher number.
    uses: u64,
    taken: (u64, u64),
}

/// A prompt whose keys and values are there.
struct Kept {
    /// Kept so that no other model is ever at the same address.
    model: Weak<Model>,
    isa: &'static str,
    tokens: Vec<u32>,
    /// Keys and values of its first positions, in the first so many layers.
    prefix: Arc<Prefix>,
    positions: usize,
    layers: usize,
    /// The residual stream of all its rows, up to where something edited them.
    streams: Arc<Streams>,
    bytes: u64,
    used: u64,
}

/// What a cache holds, and what was taken from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixCacheUse {
    /// Prompts, or beginnings of prompts, that it holds.
    pub prompts: usize,
    /// Bytes that these take.
    pub bytes: u64,
    /// Bytes that they may take.
    pub most_bytes: u64,
    /// Prompts that began with one of them.
    pub hits: u64,
    /// Tokens that were not computed for it.
    pub tokens: u64,
}

/// A beginning of a prompt that is in a cache.
#[derive(Clone, Debug)]
pub(crate) struct Cached {
    pub prefix: Arc<Prefix>,
    pub positions: usize,
    /// The first layers, of which it has keys and values.
    pub layers: usize,
}

/// A prompt whose keys and values go into a cache when they are all there, and its residual stream.
#[derive(Debug)]
pub(crate) struct Collected {
    pub tokens: Vec<u32>,
    pub prefix: Arc<Prefix>,
    /// Positions that nothing edits.
    pub positions: usize,
    pub streams: Arc<Streams>,
    pub reserved: Reserved,
}

/// Room for what is being collected, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    cache: Arc<PrefixCache>,
    bytes: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.cache.held().reserved -= self.bytes;
        self.cache.give(self.bytes);
    }
}

impl Default for PrefixCache {
    /// Of [`PREFIX_CACHE_BYTES`].
    fn default() -> PrefixCache {
        PrefixCache::new(PREFIX_CACHE_BYTES)
    }
}

impl std::fmt::Debug for PrefixCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("PrefixCache").field(&self.usage()).finish()
    }
}

impl PrefixCache {
    /// An empty cache that holds so many bytes at most: what was used longest ago makes room.
    pub fn new(most_bytes: u64) -> PrefixCache {
        PrefixCache::of(most_bytes, None)
    }

    /// The same in a room that it shares with others': no more goes into it than is free there.
    pub fn within(room: &Arc<PrefixRoom>, most_bytes: u64) -> PrefixCache {
        PrefixCache::of(most_bytes, Some(room.clone()))
    }

    fn of(most_bytes: u64, room: Option<Arc<PrefixRoom>>) -> PrefixCache {
        PrefixCache { held: Mutex::new(Held { most_bytes, ..Held::default() }), room }
    }

    /// The most bytes for which there was no room beside others since this was last asked.
    pub fn take_missed(&self) -> u64 {
        std::mem::take(&mut self.held().missed)
    }

    fn take(&self, bytes: u64) -> bool {
        self.room.as_ref().is_none_or(|room| room.take(bytes))
    }

    fn give(&self, bytes: u64) {
        if let Some(room) = &self.room {
            room.give(bytes);
        }
    }

    /// What it holds, and what was taken from it.
    pub fn usage(&self) -> PrefixCacheUse {
        let held = self.held();
        PrefixCacheUse {
            prompts: held.prompts.len(),
            bytes: held.bytes,
            most_bytes: held.most_bytes,
            hits: held.taken.0,
            tokens: held.taken.1,
        }
    }

    /// [`PrefixCache::close`], because its bytes are wanted for others.
    pub fn evict(&self) {
        let prompts = self.usage().prompts as u64;
        self.count(|room| &room.evictions, prompts);
        self.close();
    }

    fn count(&self, of: impl Fn(&PrefixRoom) -> &AtomicU64, more: u64) {
        if let Some(room) = &self.room {
            of(room).fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Forgets all that it holds, and holds nothing from now on.
    pub fn close(&self) {
        let mut held = self.held();
        held.prompts.clear();
        self.give(held.bytes);
        (held.bytes, held.most_bytes) = (0, 0);
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for so many bytes that are to be collected; none: what all that run with it collect would come to more than it may hold.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reserved> {
        let mut held = self.held();
        let reserved = held.reserved.checked_add(bytes).filter(|&all| all <= held.most_bytes)?;
        if !self.take(bytes) {
            held.missed = held.missed.max(bytes);
            return None;
        }
        held.reserved = reserved;
        Some(Reserved { cache: self.clone(), bytes })
    }

    /// The longest beginning that a prompt has in common with one that is there in the first so many layers; not more than `most`
    /// positions.
    pub(crate) fn find(
        &self,
        model: &Arc<Model>,
        tokens: &[u32],
        most: usize,
        layers: usize,
    ) -> Option<Cached> {
        let tokens = tokens.get(..most)?;
        let mut held = self.held();
        held.uses += 1;
        let now = held.uses;
        let fitting = held.prompts.iter_mut().filter(|kept| kept.is_of(model) && kept.layers >= layers);
        let (positions, kept) = fitting
            .map(|kept| (common(tokens, &kept.tokens[..kept.positions]), kept))
            .max_by_key(|(positions, kept)| (*positions, kept.used))?;
        if positions == 0 {
            return None;
        }
        kept.used = now;
        Some(Cached { prefix: kept.prefix.clone(), positions, layers: kept.layers })
    }

    /// The residual stream of a prompt's rows before the last stage that is there, not after `most`.
    pub(crate) fn find_streams(
        &self,
        model: &Arc<Model>,
        tokens: &[u32],
        most: usize,
    ) -> Option<(usize, Arc<Streams>)> {
        let mut held = self.held();
        held.uses += 1;
        let now = held.uses;
        let fitting =
            held.prompts.iter_mut().filter(|kept| kept.is_of(model) && kept.tokens.starts_with(tokens));
        let (stage, kept) = fitting
            .filter_map(|kept| Some((kept.streams.last(most)?, kept)))
            .max_by_key(|(stage, kept)| (*stage, kept.used))?;
        kept.used = now;
        Some((stage, kept.streams.clone()))
    }

    /// A prompt began with so many positions of one that is there.
    pub(crate) fn took(&self, positions: usize) {
        let mut held = self.held();
        held.taken.0 += 1;
        held.taken.1 += positions as u64;
        self.count(|room| &room.hits, 1);
        self.count(|room| &room.tokens, positions as u64);
    }

    /// Of a prompt nothing was there.
    pub(crate) fn missed(&self) {
        self.count(|room| &room.misses, 1);
    }

    /// Keeps a prompt's keys and values, of the layers that have them, and its residual stream.
    pub(crate) fn keep(&self, model: &Arc<Model>, collected: Collected) {
        let Collected { mut tokens, prefix, positions, streams, reserved } = collected;
        let (prefix, positions, layers) = prefix.complete(positions.min(tokens.len())).unwrap_or_default();
        let depth = streams.last(usize::MAX).unwrap_or(0);
        if depth == 0 {
            tokens.truncate(positions);
        }
        if tokens.is_empty() {
            return;
        }
        let bytes = prefix.bytes() + streams.bytes() + 4 * tokens.len() as u64;
        // What was kept free for it is free for it.
        drop(reserved);
        let mut held = self.held();
        let Held { prompts, bytes: all, uses, most_bytes, missed, .. } = &mut *held;
        *uses += 1;
        let known = |kept: &Kept| (kept.positions, kept.layers, kept.streams.last(usize::MAX).unwrap_or(0));
        let covers = |kept: &Kept| {
            let (there, walked, deep) = known(kept);
            let more = there >= positions && walked >= layers && deep >= depth;
            kept.is_of(model) && kept.tokens.starts_with(&tokens) && more
        };
        let covered = |kept: &Kept| {
            let (there, walked, deep) = known(kept);
            let more = positions >= there && layers >= walked && depth >= deep;
            kept.is_of(model) && tokens.starts_with(&kept.tokens) && more
        };
        if let Some(kept) = prompts.iter_mut().find(|kept| covers(kept)) {
            kept.used = *uses;
            return;
        }
        if bytes > *most_bytes {
            return;
        }
        // Models that are gone do not come back; what this prompt begins with is held by it.
        prompts.retain(|kept| kept.model.strong_count() > 0 && !covered(kept));
        let left = prompts.iter().map(|kept| kept.bytes).sum();
        self.give(*all - left);
        *all = left;
        prompts.sort_by_key(|kept| kept.used);
        while *all + bytes > *most_bytes && !prompts.is_empty() {
            let oldest = prompts.remove(0).bytes;
            *all -= oldest;
            self.give(oldest);
            self.count(|room| &room.evictions, 1);
        }
        if !self.take(bytes) {
            *missed = bytes.max(*missed);
            return;
        }
        *all += bytes;
        let (model, isa) = (Arc::downgrade(model), Isa::current().name());
        let prefix = Arc::new(prefix);
        prompts.push(Kept { model, isa, tokens, prefix, positions, layers, streams, bytes, used: *uses });
    }
}

impl Drop for PrefixCache {
    fn drop(&mut self) {
        self.close();
    }
}

impl Kept {
    fn is_of(&self, model: &Arc<Model>) -> bool {
        std::ptr::eq(self.model.as_ptr(), Arc::as_ptr(model)) && self.isa == Isa::current().name()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{PrefixCache, PrefixRoom};

    #[test]
    fn what_all_collect_at_a_time_is_not_more_than_what_is_held() {
        let cache = Arc::new(PrefixCache::new(100));
        let (one, other) = (cache.reserve(60), cache.reserve(40));
        assert!(one.is_some() && other.is_some());
        assert!(cache.reserve(1).is_none() && cache.reserve(u64::MAX).is_none());
        drop(one);
        assert!(cache.reserve(61).is_none() && cache.reserve(60).is_some());
        cache.close();
        assert!(cache.reserve(1).is_none());
    }
    #[test]
    fn caches_in_one_room_hold_and_collect_no_more_than_it_has_together() {
        let room = Arc::new(PrefixRoom::new(100));
        let of = |most: u64| Arc::new(PrefixCache::within(&room, most));
        let (ann, ben) = (of(80), of(80));
        let held = (ann.reserve(60), ben.reserve(30));
        assert!(held.0.is_some() && held.1.is_some() && room.free() == 10);
        assert!(ben.reserve(20).is_none());
        assert_eq!((ben.take_missed(), ben.take_missed(), ann.take_missed()), (20, 0, 0));
        drop(held);
        assert!(room.free() == 100 && ben.reserve(20).is_some());
    }
}
