//! What programs take from their caches of prefixes, and put there.

use std::sync::Arc;

use super::group::{Group, Place};
use super::member::{Ground, Member};
use super::packing::Seat;
use super::rider::Rider;
use crate::loaded::Loaded;
use crate::pass::{Parked, PassState};
use crate::plan::{Cached, Collected, Rewrites, Trunk};
use crate::sequence::{Prefix, Streams};
use crate::slots::SlotValue;

/// A prompt of a trunk, and where its keys and values go, and its residual stream.
pub(super) type Collecting = (usize, Option<Arc<Prefix>>, Arc<Streams>);

impl Member<'_> {
    /// Whether the program's cache can have something for an invoke that begins a step.
    fn may_take(&self, group: &Group, rewrites: Rewrites) -> bool {
        self.job.options.prefixes.is_some()
            && rewrites.cache
            && group.outlook.shares
            && group.weights_key.is_empty()
    }

    /// Of each prompt of an invoke that begins a step: the beginning that is in the program's cache.
    pub(super) fn look_up(&self, group: &Group, loaded: &Loaded, rewrites: Rewrites) -> Vec<Option<Cached>> {
        let Some(cache) = &self.job.options.prefixes else { return Vec::new() };
        if !self.may_take(group, rewrites) || group.outlook.first_column == 0 {
            return Vec::new();
        }
        let layers = loaded.costs.attention_layers(group.end);
        let found = group.prompts.iter().zip(group.first_positions());
        found.map(|(prompt, most)| cache.find(&loaded.model, &prompt.tokens, most, layers)).collect()
    }

    /// A prompt begins with so many positions from the cache; in a dry run the cache does not learn of it.
    pub(super) fn takes_from_cache(&mut self, positions: usize, dry: bool) {
        if positions == 0 {
            return;
        }
        self.job.results.report.cached_tokens += positions as u64;
        if let (Some(cache), false) = (&self.job.options.prefixes, dry) {
            cache.took(positions);
        }
    }

    /// Lets the only invoke of a trace begin where something of it is first read or written, with the residual stream that is in
    /// the program's cache. Not where that would keep it from leaving more there than it takes, nor where a next step needs the
    /// keys and values of all layers.
    pub(super) fn resume_from_cache(&mut self, invoke: usize, loaded: &Loaded, ground: Ground<'_>) {
        let Some(cache) = self.job.options.prefixes.clone() else { return };
        let group = &self.groups[invoke];
        if self.groups.len() != 1
            || group.keeps_caches()
            || !matches!(group.place, Place::Start)
            || !self.may_take(group, ground.rewrites)
        {
            return;
        }
        let Some(&(touched, _)) = group.touches.first() else { return };
        // A way back goes through what it has walked.
        let tracked = group.tracked.as_ref().and_then(|own| own.iter().position(|&tracked| tracked));
        let first = tracked.map_or(touched, |tracked| tracked.min(touched));
        let most = group.first_positions();
        let starts: Vec<usize> = group
            .prompts
            .iter()
            .enumerate()
            .map(|(number, _)| {
                let cached = group.cached.get(number).and_then(Option::as_ref);
                cached.map_or(0, |cached| cached.positions)
            })
            .collect();
        if starts != most || group.prompts.iter().any(|prompt| prompt.sequence.is_none()) {
            return;
        }
        let found =
            group.prompts.iter().map(|prompt| cache.find_streams(&loaded.model, &prompt.tokens, first));
        let Some(found) = found.collect::<Option<Vec<_>>>() else { return };
        let Some(stage) = found.iter().map(|found| found.0).min() else { return };
        let Some(slot) = loaded.costs.boundary(stage) else { return };
        let mut rows = Vec::with_capacity(found.len());
        for ((_, streams), (prompt, &start)) in found.iter().zip(group.prompts.iter().zip(&starts)) {
            let Some(values) = streams.at(stage) else { return };
            let width = values.len() / streams.tokens().max(1);
            rows.push(values[start * width..prompt.tokens.len() * width].to_vec());
        }
        let list = loaded.model.stages();
        let mut parked = Vec::with_capacity(rows.len());
        let (mut taken, mut collected) = (Vec::new(), Vec::new());
        let group = &mut self.groups[invoke];
        for (number, (values, (_, known))) in rows.into_iter().zip(&found).enumerate() {
            let prompt = &mut group.prompts[number];
            let Some(mut sequence) = prompt.sequence.take() else { return };
            if let Some(Some(cached)) = group.cached.get(number) {
                sequence.begin_after(cached.positions, cached.prefix.clone());
                taken.push(cached.positions);
            } else if !ground.dry {
                // It may get farther than whoever left these.
                let (tokens, prefix) = (prompt.tokens.clone(), Arc::default());
                let bytes = loaded.costs.stream_bytes().saturating_mul(tokens.len() as u64);
                if let Some(reserved) = cache.reserve(bytes) {
                    let streams = Arc::new(Streams::of(tokens.len(), Some(known)));
                    sequence.streams = Some(streams.clone());
                    collected.push(Collected { tokens, prefix, positions: 0, streams, reserved });
                }
            }
            parked.push(Parked::before(stage, sequence, (slot, values), list, &loaded.schedule));
        }
        group.resumed = Some(stage);
        group.forked = group.outlook.first_column.min(group.width.saturating_sub(1));
        self.waits_at(invoke, Place::Cut(parked));
        self.collecting.extend(collected);
        for positions in taken {
            self.takes_from_cache(positions, ground.dry);
        }
    }

    /// Where those prompts of a trunk publish their keys and values that are to go into the program's cache, and where their
    /// residual stream goes.
    pub(super) fn collect_prefixes(
        &mut self,
        trunk: &Trunk,
        loaded: &Loaded,
        ground: Ground<'_>,
    ) -> Vec<Collecting> {
        let Some(cache) = self.job.options.prefixes.clone() else { return Vec::new() };
        let first = trunk.aboard.first().and_then(|one| self.groups.get(one.invoke));
        let takes = first.is_some_and(|group| self.may_take(group, ground.rewrites));
        if ground.dry || !takes || !trunk.is_shareable() {
            return Vec::new();
        }
        let layers = loaded.costs.attention_layers(trunk.life());
        let mut chosen = Vec::new();
        for (number, (positions, known)) in trunk.unedited().into_iter().enumerate() {
            if known == 0 {
                cache.missed();
            }
            let tokens = trunk.prompts[number].clone();
            let positions = if layers > 0 && positions > known { positions } else { 0 };
            let streams = if known == 0 { loaded.costs.stream_bytes() } else { 0 };
            let bytes = loaded.costs.key_bytes(layers).saturating_mul(positions as u64);
            let bytes = bytes.saturating_add(streams.saturating_mul(tokens.len() as u64));
            let Some(reserved) = (bytes > 0).then(|| cache.reserve(bytes)).flatten() else { continue };
            let prefix: Arc<Prefix> = Arc::default();
            // What comes from elsewhere has no rows here.
            let streams = Arc::new(Streams::of(if known == 0 { tokens.len() } else { 0 }, None));
            self.collecting.push(Collected {
                tokens,
                prefix: prefix.clone(),
                positions,
                streams: streams.clone(),
                reserved,
            });
            chosen.push((number, (positions > 0).then_some(prefix), streams));
        }
        chosen
    }

    /// The running trace is at its end: what it published goes into the cache.
    pub(super) fn keep_prefixes(&mut self, ground: Ground<'_>) {
        let collected = std::mem::take(&mut self.collecting);
        let (Some(cache), Some(loaded)) = (&self.job.options.prefixes, ground.models.get(self.model)) else {
            return;
        };
        for one in collected {
            cache.keep(&loaded.model, one);
        }
    }
}

impl Group {
    /// Positions whose keys and values are from the cache, of an invoke that goes on from there.
    pub(super) fn resumed_positions(&self) -> usize {
        let cached = self.cached.iter().flatten().map(|cached| cached.positions).max();
        if self.resumed.is_some() { cached.unwrap_or(0) } else { 0 }
    }

    /// Of each prompt: the first position at which something of it is read or written; the last, if that is later.
    fn first_positions(&self) -> Vec<usize> {
        let column = self.outlook.first_column;
        let lengths = self.prompts.iter().map(|prompt| prompt.tokens.len());
        let first = |length: usize| column.saturating_sub(self.width - length).min(length.saturating_sub(1));
        lengths.map(first).collect()
    }
}

impl Rider<'_, '_> {
    /// Keeps the residual stream before a stage of the rows for which a cache wants it, as long as nothing has edited them.
    pub(super) fn keep_streams(&self, stage: usize, state: &PassState) {
        if !self.run.streams {
            return;
        }
        let slot = self.loaded.costs.boundary(stage).and_then(|slot| state.slot(slot));
        let Some(SlotValue::Rows(view)) = slot else { return };
        for (number, sequence) in state.sequences.iter().enumerate() {
            let Some(streams) = &sequence.streams else { continue };
            let (party, rows) = (&self.parties[self.owners[number]], &state.rows[number]);
            let edits = party.seats.first().filter(|_| party.own).and_then(|seat| {
                let group = &self.run.members[seat.member].groups[seat.invoke];
                group.outlook.edits.first()
            });
            // What stands at the stages of a module that is left out is nothing that was computed.
            let skips = |seat: &Seat| self.skips_from.get(seat).is_some_and(|&from| from < stage);
            let skipped = party.seats.iter().any(skips);
            let edited = edits.is_some_and(|edit| edit.stage < stage);
            if skipped || edited || rows.len() != streams.tokens() {
                continue;
            }
            let mut values = vec![0.0; rows.len() * view.width()];
            view.copy_rows(rows.start, rows.len(), &mut values);
            streams.put(stage, values);
        }
    }
}
