//! What passes cost: floating-point operations by stages, and how long they take here.

use std::collections::BTreeMap;
use std::ops::Range;

use pellucid_models::Model;
use pellucid_models::stage::{Kernel, POSITIONS, Slot, SlotShape, TOKENS};

use super::last_layer::late_from;
use super::unembedding::unembedding;

/// What follows for costs from a model's list of stages: computed once for each model.
#[derive(Debug)]
pub(crate) struct Costs {
    /// Operations of linear layers for one token, of all stages before each.
    linear: Vec<u64>,
    /// Operations of attention for one query and one key, of all stages before each.
    attention: Vec<u64>,
    /// Numbers that stages read and write for one token, and of its keys and values for what attends to it, of all stages
    /// before each. Stages that are fused in a pass are counted as if they were not.
    values: Vec<u64>,
    keys: Vec<u64>,
    /// Numbers of one token that are alive at once, at most: before rows are narrowed, and from there on.
    alive: (u64, u64),
    vocabulary: u64,
    /// Numbers of one token's keys and values in a layer, at most.
    layer_keys: u64,
    /// Bytes of a number of a linear layer's weight.
    weight_bytes: u64,
    /// Stages before which a pass can be cut at little cost: only one value of each token is alive there.
    cuts: Vec<usize>,
    /// Of these, the first of each that nothing is computed between, by the slot that is alive before it.
    boundaries: BTreeMap<usize, Slot>,
    stream_bytes: u64,
    /// The layer that each stage is in.
    layers: Vec<u64>,
    /// The stages that put keys and values into their places.
    attends: Vec<usize>,
    token_wise_from: usize,
    late_from: usize,
    /// Where some columns of the vocabulary can be computed alone.
    logits: Option<Logits>,
    stages: usize,
}

/// What the logits cost.
#[derive(Debug)]
struct Logits {
    /// The stage that computes them.
    stage: usize,
    /// Operations of one of them.
    flops: u64,
    /// Stages after it that read and write each of them.
    after: Vec<usize>,
}

/// Rows of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub tokens: u64,
    /// Those that are computed after the last attention.
    pub late: u64,
    /// Those that are read from the narrowing stage on.
    pub read: u64,
    /// Columns of the vocabulary that are not computed for them.
    pub unread: u64,
    /// Pairs of a query and a key.
    pub pairs: u64,
    /// Keys that are attended to, each counted once.
    pub keys: u64,
}

impl Rows {
    /// The rows of prompts of so many tokens, each from a position on.
    pub fn after(prompts: impl Iterator<Item = (usize, usize)>) -> Rows {
        let mut rows = Rows::default();
        let up_to = |length: u64| length * (length + 1) / 2;
        for (length, from) in prompts {
            let (length, from) = (length as u64, from.min(length) as u64);
            rows.tokens += length - from;
            rows.pairs += up_to(length) - up_to(from);
            rows.keys += if from < length { length } else { 0 };
        }
        Rows { late: rows.tokens, read: rows.tokens, ..rows }
    }
}

/// Work of a pass, or of one invoke's part in it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    /// Floating-point operations.
    pub flops: u64,
    /// Operations that one token alone would take: the weights that are read, twice.
    pub weights: u64,
    /// Numbers, f32, that the rows bring into stages and out of them.
    pub values: u64,
    /// Bytes that the rows hold at once from where they are narrowed on, at most.
    pub logits: u64,
}

impl Costs {
    pub fn new(model: &Model) -> Costs {
        let list = model.stages();
        let count = list.stages.len();
        let (mut linear, mut attention) = (vec![0_u64; count + 1], vec![0_u64; count + 1]);
        let (mut values, mut keys) = (vec![0_u64; count + 1], vec![0_u64; count + 1]);
        let width = |slot: &Slot| match list.shapes.get(slot.0 as usize) {
            Some(SlotShape::Inner(inner)) => inner.iter().product::<usize>() as u64,
            _ => 0,
        };
        let mut last_use = vec![0; list.slots as usize];
        let mut written = vec![usize::MAX; list.slots as usize];
        for (number, stage) in list.stages.iter().enumerate() {
            linear[number + 1] = linear[number];
            attention[number + 1] = attention[number];
            values[number + 1] = values[number];
            keys[number + 1] = keys[number];
            if !matches!(stage.kernel, Kernel::Hook { .. }) {
                values[number + 1] += stage.inputs.iter().chain(&stage.outputs).map(width).sum::<u64>();
            }
            match &stage.kernel {
                Kernel::Linear { weight, .. } => {
                    let size: u64 =
                        list.weights[weight.0 as usize].shape.iter().map(|&size| size as u64).product();
                    linear[number + 1] += 2 * size;
                }
                Kernel::AttentionMixed(own) => {
                    attention[number + 1] += 4 * (own.heads * own.head_size) as u64;
                    keys[number + 1] += 2 * (own.key_value_heads * own.head_size) as u64;
                }
                _ => {}
            }
            stage.inputs.iter().for_each(|slot| last_use[slot.0 as usize] = number);
            stage.outputs.iter().for_each(|slot| written[slot.0 as usize] = number);
        }
        let (written, last_use) = (&written, &last_use);
        let alive = |stage: usize| {
            (0..list.slots as usize)
                .filter(|&slot| slot != TOKENS.0 as usize && slot != POSITIONS.0 as usize)
                .filter(move |&slot| written[slot] < stage && last_use[slot] >= stage)
        };
        let cuts: Vec<usize> =
            (1..list.token_wise_from.min(count)).filter(|&stage| alive(stage).count() == 1).collect();
        let is_hook = |stage: usize| matches!(list.stages[stage].kernel, Kernel::Hook { .. });
        let boundaries = cuts.iter().filter(|&&stage| !is_hook(stage - 1)).filter_map(|&stage| {
            let slot = Slot(alive(stage).next()? as u32);
            // The stage before it has just made it.
            list.stages[stage - 1].outputs.contains(&slot).then_some((stage, slot))
        });
        let boundaries: BTreeMap<usize, Slot> = boundaries.collect();
        let at_once = |stage: usize| -> u64 {
            let slots = (0..list.slots).filter(|&slot| {
                let (slot, ids) = (slot as usize, Slot(slot) == TOKENS || Slot(slot) == POSITIONS);
                !ids && written[slot] <= stage && last_use[slot] >= stage
            });
            slots.map(|slot| width(&Slot(slot))).sum()
        };
        let (narrow_from, most) =
            (list.token_wise_from.min(count), |stages: Range<usize>| stages.map(at_once).max().unwrap_or(0));
        let alive = (most(0..narrow_from), most(narrow_from..count));
        let layer_keys = keys.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        let stream_bytes = 4 * boundaries.values().map(width).sum::<u64>();
        let mut layers = vec![0; count];
        for alias in &model.spec().aliases {
            let layer = alias.alias.strip_prefix("layers.").and_then(|rest| rest.parse::<u64>().ok());
            let module = model.spec().modules.iter().position(|module| module.path == alias.target);
            if let (Some(layer), Some(module)) = (layer, module) {
                layers.iter_mut().skip(list.modules[module].range.start).for_each(|own| *own = layer);
            }
        }
        let attends = list.stages.iter().enumerate();
        let attends = attends.filter(|(_, stage)| matches!(stage.kernel, Kernel::AttentionScores(_)));
        let logits = unembedding(list).map(|stage| Logits {
            stage,
            flops: list.stages[stage].inputs.first().map_or(0, |slot| 2 * width(slot)),
            after: (stage + 1..count).filter(|&after| !is_hook(after)).collect(),
        });
        Costs {
            linear,
            attention,
            values,
            keys,
            alive,
            vocabulary: model.spec().sizes.vocabulary,
            layer_keys,
            weight_bytes: match model.precision() {
                "f32" => 4,
                "bf16" => 2,
                // From half a byte to one and a quarter.
                _ => 1,
            },
            cuts,
            boundaries,
            stream_bytes,
            layers,
            attends: attends.map(|(number, _)| number).collect(),
            token_wise_from: list.token_wise_from,
            late_from: late_from(list),
            logits,
            stages: count,
        }
    }

    /// The layer that a stage is in, or the last before it.
    pub fn layer(&self, stage: usize) -> u64 {
        self.layers.get(stage).copied().unwrap_or(0)
    }

    /// The stage after the last before `end` that puts keys and values into their places; 0: there is none.
    pub fn last_attention(&self, end: usize) -> usize {
        self.attention_layers(end).checked_sub(1).map_or(0, |last| self.attends[last] + 1)
    }

    /// What stages `from..to` of a pass cost for some rows.
    pub fn of(&self, rows: Rows, from: usize, to: usize) -> Work {
        let to = to.min(self.stages).max(from);
        let linear = |from: usize, to: usize| self.linear[to.max(from)] - self.linear[from];
        let (late, narrow) = (self.late_from.clamp(from, to), self.token_wise_from.clamp(from, to));
        let rows_late = rows.late.min(rows.tokens);
        let (spared_flops, spared_values) = self.spared(rows.unread, from, to);
        let flops = linear(from, late)
            .saturating_mul(rows.tokens)
            .saturating_add(linear(late, narrow).saturating_mul(rows_late))
            .saturating_add((linear(narrow, to) - spared_flops).saturating_mul(rows.read.min(rows.tokens)))
            .saturating_add((self.attention[to] - self.attention[from]).saturating_mul(rows.pairs));
        let values = |from: usize, to: usize| self.values[to] - self.values[from];
        let moved = values(from, late)
            .saturating_mul(rows.tokens)
            .saturating_add(values(late, narrow).saturating_mul(rows_late))
            .saturating_add((values(narrow, to) - spared_values).saturating_mul(rows.read.min(rows.tokens)))
            .saturating_add((self.keys[to] - self.keys[from]).saturating_mul(rows.keys));
        let narrows = (from..to).contains(&self.token_wise_from);
        // A column of the vocabulary that is not read is in none of the slots that hold logits.
        let unread = rows.unread.saturating_mul(self.alive.1 / self.vocabulary.max(1));
        let logits = if narrows { self.alive.1.saturating_sub(unread) } else { 0 };
        let logits = logits.saturating_mul(rows.read.min(rows.tokens)).saturating_mul(4);
        Work { flops, weights: linear(from, to) - spared_flops, values: moved, logits }
    }

    /// Of stages `from..to`: operations of one row that are not done, and numbers that are not moved, where so many columns of the
    /// vocabulary are not computed.
    fn spared(&self, unread: u64, from: usize, to: usize) -> (u64, u64) {
        match &self.logits {
            Some(logits) if unread > 0 && (from..to).contains(&logits.stage) => {
                let after = logits.after.iter().filter(|&&stage| stage < to).count() as u64;
                (logits.flops * unread, (1 + 2 * after) * unread)
            }
            _ => (0, 0),
        }
    }

    /// The layers with attention before a stage.
    pub fn attention_layers(&self, end: usize) -> usize {
        self.attends.partition_point(|&stage| stage < end)
    }

    /// Bytes of one position's keys and values, in the first so many layers with attention.
    pub fn key_bytes(&self, layers: usize) -> u64 {
        let end = self.attends.get(layers).copied().unwrap_or(self.stages);
        4 * self.keys[end]
    }

    /// The first stage that computes after the last attention.
    pub fn late_from(&self) -> usize {
        self.late_from
    }

    /// The slot of the residual stream before a stage, where it is the only value that is alive and has just been computed.
    pub fn boundary(&self, stage: usize) -> Option<Slot> {
        self.boundaries.get(&stage).copied()
    }

    /// Bytes that so many tokens of a pass hold at once, at most, with the logits of what they come to.
    pub fn held(&self, tokens: usize, work: Work) -> u64 {
        4_u64
            .saturating_mul(self.alive.0 + self.layer_keys)
            .saturating_mul(tokens as u64)
            .saturating_add(work.logits)
    }

    /// Bytes of one position's residual stream before all such stages.
    pub fn stream_bytes(&self) -> u64 {
        self.stream_bytes
    }

    /// Bytes that are moved for some work: weights once, and what its rows bring into stages and out of them.
    pub fn bytes(&self, work: Work) -> u64 {
        (work.weights / 2).saturating_mul(self.weight_bytes).saturating_add(work.values.saturating_mul(4))
    }

    /// What all stages cost for some rows, every logit included.
    pub fn naive(&self, rows: Rows) -> Work {
        self.of(Rows { late: rows.tokens, read: rows.tokens, unread: 0, ..rows }, 0, self.stages)
    }

    /// Operations of a way back through some stages for some rows, and of one through all stages for those of a naive run. What a
    /// product took on the way there it takes twice: for what it read, and for what it read that with.
    pub fn back(&self, rows: Rows, naive: Rows, stages: &[bool]) -> (u64, u64) {
        let through = stages.iter().enumerate().filter(|(_, through)| **through);
        let own =
            through.fold(0_u64, |sum, (stage, _)| sum.saturating_add(self.of(rows, stage, stage + 1).flops));
        (own.saturating_mul(2), self.naive(naive).flops.saturating_mul(2))
    }

    /// Where to cut a pass of some rows, from a stage to their end, that would take longer than `most` milliseconds: as late as
    /// possible, or where it takes least. None: nowhere.
    pub fn cut(&self, rows: Rows, range: Range<usize>, most: f64, clock: &Clock) -> Option<usize> {
        let first = self.cuts.partition_point(|&stage| stage <= range.start);
        let end = self.cuts.partition_point(|&stage| stage < range.end);
        let possible = self.cuts.get(first..end)?;
        let fitting =
            possible.partition_point(|&stage| clock.pass(self.of(rows, range.start, stage)) <= most);
        possible.get(fitting.saturating_sub(1)).copied()
    }
}

impl Work {
    /// With what else rides in the pass: rows add up, weights are read once.
    pub fn with(self, other: Work) -> Work {
        Work {
            weights: self.weights.max(other.weights),
            logits: self.logits.saturating_add(other.logits),
            ..self.and_then(other)
        }
    }

    /// What it comes to beyond another.
    pub fn beyond(self, other: Work) -> Work {
        Work {
            flops: self.flops.saturating_sub(other.flops),
            weights: self.weights.saturating_sub(other.weights),
            values: self.values.saturating_sub(other.values),
            logits: self.logits.saturating_sub(other.logits),
        }
    }

    /// With what runs after it in a pass of its own.
    pub fn and_then(self, other: Work) -> Work {
        Work {
            flops: self.flops.saturating_add(other.flops),
            weights: self.weights.saturating_add(other.weights),
            values: self.values.saturating_add(other.values),
            logits: self.logits.max(other.logits),
        }
    }
}

/// How long work takes here, learnt from what it took.
///
/// A pass is taken to need `a · weights + b · operations` milliseconds, `a` and `b` by least squares over the relative
/// errors of past passes, late ones counting more. Operations of programs are taken to need a time for each operation.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// Of weights and operations of each past pass, divided by its time: sums of the products, and of both themselves.
    sums: [f64; 5],
    /// Milliseconds for each operation: of passes for weights and for rows; of programs' own operations.
    weights: f64,
    flops: f64,
    own: f64,
}

/// Milliseconds of one operation of a program's own, at least.
const LEAST_OWN: f64 = 1.25e-8;
/// What a past pass counts for, from one pass to the next.
const MEMORY: f64 = 0.98;

impl Default for Clock {
    /// Before anything was measured: weights at 10 GB/s, operations at the 20 G in a second that programs' own are priced for.
    fn default() -> Clock {
        Clock { sums: [0.0; 5], weights: 2e-7, flops: 5e-8, own: 5e-8 }
    }
}

impl Clock {
    /// Milliseconds of a pass.
    pub fn pass(&self, work: Work) -> f64 {
        self.weights * work.weights as f64 + self.flops * work.flops as f64
    }

    /// Milliseconds of a program's own operation; of an applied module, whose products are as fast as a pass's.
    pub fn own(&self, flops: u64, applies: bool) -> f64 {
        // After many that were quicker than their price another is not taken to be done in no time.
        flops as f64 * if applies { self.flops } else { self.own.max(LEAST_OWN) }
    }

    /// The floating-point operations that a pass would do in so many milliseconds.
    pub fn worth(&self, ms: f64) -> u64 {
        (ms / self.flops.max(1e-9)) as u64
    }

    /// A pass took so many milliseconds.
    pub fn learn(&mut self, work: Work, ms: f64) {
        if work.flops == 0 || ms <= 0.0 {
            return;
        }
        let (weights, flops) = (work.weights as f64 / ms, work.flops as f64 / ms);
        let products = [weights * weights, weights * flops, flops * flops, weights, flops];
        self.sums.iter_mut().zip(products).for_each(|(sum, product)| *sum = MEMORY * *sum + product);
        let [ww, wf, ff, w, f] = self.sums;
        let determinant = ww * ff - wf * wf;
        (self.weights, self.flops) = if determinant <= 1e-6 * ww * ff {
            // Passes that are all alike tell nothing about which of the two it is.
            let (a, b) = (self.weights, self.flops);
            let scale = (a * w + b * f) / (a * a * ww + 2.0 * a * b * wf + b * b * ff);
            (a * scale, b * scale)
        } else {
            // Neither can be less than nothing.
            match ((w * ff - f * wf) / determinant, (f * ww - w * wf) / determinant) {
                (weights, _) if weights < 0.0 => (0.0, f / ff),
                (_, flops) if flops < 0.0 => (w / ww, 0.0),
                both => both,
            }
        };
    }

    /// A program's own operation took so many milliseconds.
    pub fn learn_own(&mut self, flops: u64, ms: f64) {
        if flops > 0 {
            self.own = 0.8 * self.own + 0.2 * (ms / flops as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, Work};

    /// A machine that needs so much for weights and for rows.
    fn learnt(passes: &[(u64, u64)], weights: f64, flops: f64) -> Clock {
        let mut clock = Clock::default();
        for _ in 0..200 {
            for &(own, rows) in passes {
                let work = Work { weights: own, flops: rows, ..Work::default() };
                clock.learn(work, weights * own as f64 + flops * rows as f64);
            }
        }
        clock
    }

    #[test]
    fn what_passes_take_is_learnt_from_passes() {
        let passes = [(200_000_000, 200_000_000), (200_000_000, 40_000_000_000), (90_000_000, 900_000_000)];
        for (weights, flops) in [(1e-7, 1e-8), (0.0, 5e-9), (4e-7, 2e-9)] {
            let clock = learnt(&passes, weights, flops);
            for (own, rows) in [(200_000_000, 5_000_000_000), (50_000_000, 50_000_000)] {
                let (expected, told) = (
                    weights * own as f64 + flops * rows as f64,
                    clock.pass(Work { weights: own, flops: rows, ..Work::default() }),
                );
                assert!((told / expected - 1.0).abs() < 0.05, "{told} ms told of {expected}");
            }
        }
    }

    #[test]
    fn passes_that_are_all_alike_are_told_right_and_no_estimate_is_negative() {
        let clock = learnt(&[(100, 1000)], 1e-3, 1e-3);
        assert!((clock.pass(Work { weights: 100, flops: 1000, ..Work::default() }) - 1.1).abs() < 0.05);
        // More rows that took less time.
        let mut clock = Clock::default();
        for _ in 0..100 {
            clock.learn(Work { weights: 100, flops: 1000, ..Work::default() }, 5.0);
            clock.learn(Work { weights: 100, flops: 9000, ..Work::default() }, 1.0);
            clock.learn(Work::default(), 1.0);
            clock.learn(Work { weights: 1, flops: 1, ..Work::default() }, 0.0);
        }
        for work in [(0, 0), (100, 0), (0, 1000), (u64::MAX, u64::MAX)] {
            let told = clock.pass(Work { weights: work.0, flops: work.1, ..Work::default() });
            assert!(told >= 0.0 && told.is_finite(), "{told}");
        }
    }
}
