//! The plan of a run: which passes, who rides in each, from where to where; and what they took, where they were made.

mod telling;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use pellucid_graph::check::Price;
use serde::{Deserialize, Serialize};

pub(crate) use telling::{described, dropped, explained};

use crate::job::Instance;
use crate::plan::Work;
use crate::results::is_zero;

pub use text::{amount, rate, time};

/// The plan of a program, as the engine would run it by itself, or as it ran it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The model.
    pub model: String,
    /// What it will cost, at most.
    pub price: Price,
    /// Bytes that may be kept of passes for ways back, where its memory has no room for all: what is beyond is computed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_at_most: Option<u64>,
    /// Tokens that are not computed, because their keys and values are in the cache that it was given.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_tokens: u64,
    /// Its passes, in order.
    pub passes: Vec<ExplainedPass>,
    /// Nodes that are computed, and nodes of the program: traces and bodies of steps are none themselves.
    pub nodes: (usize, usize),
    /// Nodes that are not computed, because nothing needs what they give: the names that their author gave them, each with how
    /// many there are by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<(String, usize)>,
    /// The engine's models, as the stages that passes walk.
    #[serde(default)]
    pub models: Vec<ExplainedModel>,
    /// What the run took; none: nothing was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// A model as the stages that passes walk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedModel {
    /// The name by which traces call it; of a program's own it is empty.
    pub name: String,
    /// Its stages.
    pub stages: usize,
    /// The first stage of each layer, and the stage after its last.
    pub layers: Vec<(usize, usize)>,
    /// The first stage that computes after the last attention; 0: it is not told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub late_at: usize,
    /// The stage from which on only the columns are computed that are read.
    pub narrows_at: usize,
    /// The stage that computes the logits, where only some of them can be computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unembeds_at: Option<usize>,
}

/// What a run took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Milliseconds of the whole run.
    pub ms: f64,
    /// Of these, those of its passes, with what the program does at the hook points that they touch. The rest is what it does
    /// between them: ways back, and operations that depend on no pass.
    pub passes_ms: f64,
    /// What a naive run's passes would take, every invoke by itself and whole: estimated from how fast these were.
    pub naive_ms: f64,
    /// How many times a layer was computed again on a way back, because there was no room to keep what it reads of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recomputed_layers: u64,
    /// The instruction-set path of the kernels.
    pub instruction_set: String,
    /// The number type in which weights are held.
    pub weights: String,
}

/// One pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedPass {
    /// The name by which its traces call its model; of the program's own it is empty.
    pub model: String,
    /// The first and the last of the program's traces that ride, counted from 0: of one alone twice the same.
    #[serde(default)]
    pub traces: (usize, usize),
    /// What comes first: a hook point, or the beginning.
    pub from: String,
    /// What comes last: a hook point, or the end.
    pub to: String,
    /// Whether it is cut there, because the whole would take too long: its invoke goes on in another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Its first stage, and the stage after its last.
    #[serde(default)]
    pub stages: (usize, usize),
    /// Tokens whose rows are computed in it, wherever these begin.
    #[serde(default)]
    pub tokens: usize,
    /// Floating-point operations, as the engine estimates them.
    #[serde(default)]
    pub flops: u64,
    /// Bytes that are moved for them, estimated: weights once, and each row's values into every stage and out of it.
    #[serde(default)]
    pub bytes: u64,
    /// Operations of a naive run of the invokes that begin a step in it: each by itself, with all its positions through all
    /// stages.
    #[serde(default)]
    pub naive_flops: u64,
    /// Bytes of the same.
    #[serde(default)]
    pub naive_bytes: u64,
    /// Operations of the ways back through the invokes that begin in it, estimated: they are made after it, and are not among its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub back_flops: u64,
    /// Operations of the same ways back through all stages.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub naive_back_flops: u64,
    /// Bytes of the values that getters give in it.
    #[serde(default)]
    pub read_bytes: u64,
    /// Of these the bytes that are free again when it has ended: values that were only reduced, or otherwise used up, where they
    /// arose.
    #[serde(default)]
    pub freed_bytes: u64,
    /// Milliseconds that it was estimated to take when it was planned, without what the program does there.
    #[serde(default)]
    pub estimated_ms: f64,
    /// Milliseconds that it took, with what the program does at the hook points that it touches; none: nothing was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_ms: Option<f64>,
    /// Operations a second that were achieved, in thousand millions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gigaflops: Option<f64>,
    /// Who rides.
    pub passengers: Vec<ExplainedPassenger>,
    /// Who else rides, where there are too many to tell of each.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_passengers: usize,
    /// Invokes that wait for a value.
    pub parked: Vec<ExplainedParked>,
    /// Passes after it, where there are too many to tell of each: they are among its figures.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_passes: usize,
}

/// Invokes by one name that wait in a pass at one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedParked {
    /// The hook point.
    pub place: String,
    /// Its stage.
    pub stage: usize,
    /// The invoke's name.
    pub invoke: String,
    /// How many by that name.
    pub cells: usize,
}

/// An invoke in a pass, or several that are alike: those of a sweep's cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedPassenger {
    /// The invoke's name.
    pub invoke: String,
    /// How many by that name ride alike.
    pub cells: usize,
    /// The step of a generation.
    pub step: u64,
    /// The prompts of one of them in this pass.
    pub prompts: usize,
    /// Their tokens.
    pub tokens: usize,
    /// The columns of its rectangle: the longest prompt's tokens.
    #[serde(default)]
    pub width: usize,
    /// The column with which the rows begin that this pass computes for it: those before come from elsewhere.
    #[serde(default)]
    pub rows_from: usize,
    /// The column with which its rows begin after the last attention: those before are read and written no more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub late_from: usize,
    /// Whether of these only those are computed that are computed from the final norm on, and these are fewer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late_is_read: bool,
    /// The columns that are computed from the final norm on; none: all.
    pub columns: Option<Vec<usize>>,
    /// How many columns of the vocabulary are computed of its logits; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<usize>,
    /// The last hook point that matters to it.
    pub until: String,
    /// The stage after it.
    #[serde(default)]
    pub end: usize,
    /// The rows that it has in common with others; none: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<ExplainedSharing>,
    /// Each invoke whose rows come before its own, because their prompts begin alike, and how many positions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<(String, usize)>,
    /// What others attend to of the rows that it begins with: the stage up to which these are computed for them, and their first
    /// columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lends: Option<(usize, usize)>,
    /// Positions whose keys and values are in the program's cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached: usize,
    /// Whether the residual stream with which it begins in this pass is in the program's cache.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// The stages whose values are kept for ways back; none: no gradient goes back through it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<ExplainedBack>,
}

/// What a gradient goes back through, of an invoke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedBack {
    /// The hook point at which it enters.
    pub from: String,
    /// The last that it reaches.
    pub to: String,
    /// How many stages it goes through: of these alone anything is kept.
    pub stages: usize,
    /// How many the model has.
    pub of: usize,
}

/// Rows that an invoke has in common with others of the same tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedSharing {
    /// The first of those whose rows they are.
    pub with: String,
    /// The hook point at which it leaves them; none: nowhere before its end.
    pub until: Option<String>,
    /// Those with which it goes on then, because they are edited alike: the first of them, and where it leaves these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<(String, Option<String>)>,
    /// The stage from which on its rows are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<usize>,
    /// The column of its rectangle from which on it has rows of its own then.
    pub column: usize,
    /// How many tokens these are.
    pub tokens: usize,
}

/// One pass, by stages.
#[derive(Clone, Debug)]
pub(crate) struct PassRecord {
    /// The place of its model among the engine's.
    pub model: usize,
    /// The places of the first and the last trace of which invokes ride.
    pub traces: (usize, usize),
    pub from: usize,
    pub to: usize,
    pub cut: bool,
    pub tokens: usize,
    pub work: Work,
    /// Of the invokes that begin their step in it: what they would cost by themselves, to the end of the model.
    pub naive: Work,
    /// Of the same: operations of the ways back through them, and of such through all stages.
    pub back_flops: u64,
    pub naive_back_flops: u64,
    /// Getters that its riders have ahead, each with its program's place and its bytes: until the pass has ended.
    pub getters: Vec<(usize, Instance, u64)>,
    pub read_bytes: u64,
    pub freed_bytes: u64,
    pub estimated_ms: f64,
    pub measured_ms: Option<f64>,
    /// Each with how many are alike.
    pub passengers: Vec<(Passenger, usize)>,
    /// Those that are not among them, because there are too many.
    pub more_passengers: usize,
    /// Of a stage and an invoke's label how many wait there.
    pub parked: BTreeMap<(usize, Arc<str>), usize>,
    /// Passes after it whose sums are among its own.
    pub more_passes: usize,
}

impl PassRecord {
    /// A pass that is not told by itself: it counts with this one.
    pub fn goes_on_with(&mut self, next: PassRecord) {
        self.more_passes += 1;
        self.more_passengers +=
            next.more_passengers + next.passengers.iter().map(|(_, cells)| cells).sum::<usize>();
        self.tokens += next.tokens;
        self.work = self.work.and_then(next.work);
        self.naive = self.naive.and_then(next.naive);
        self.back_flops = self.back_flops.saturating_add(next.back_flops);
        self.naive_back_flops = self.naive_back_flops.saturating_add(next.naive_back_flops);
        self.getters = next.getters;
        self.estimated_ms += next.estimated_ms;
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Passenger {
    /// The invoke's label.
    pub invoke: Arc<str>,
    pub step: u64,
    pub prompts: usize,
    pub tokens: usize,
    pub width: usize,
    pub rows_from: usize,
    pub late_from: usize,
    pub late_is_read: bool,
    pub columns: Option<Vec<usize>>,
    pub vocabulary: Option<usize>,
    pub until: usize,
    pub shares: Option<PassengerShares>,
    pub after: Vec<(Arc<str>, usize)>,
    pub lends: Option<(usize, usize)>,
    pub cached: usize,
    pub resumed: bool,
    /// Of what ways back go through: the first stage, the stage after the last, and how many.
    pub back: Option<(usize, usize, usize)>,
}

impl Passenger {
    /// How many names and numbers its lists have.
    pub fn numbers(&self) -> usize {
        let then = self.shares.as_ref().map_or(0, |shares| shares.then.len());
        self.columns.as_ref().map_or(0, Vec::len) + 2 * (then + self.after.len())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PassengerShares {
    pub with: Arc<str>,
    /// The stage.
    pub until: Option<usize>,
    /// With whom it goes on then, and up to which stage.
    pub then: Vec<(Arc<str>, Option<usize>)>,
    pub column: usize,
    pub tokens: usize,
}

fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

impl Explanation {
    /// Floating-point operations of its passes, as the engine estimates them.
    pub fn flops(&self) -> u64 {
        sum(self.passes.iter().map(|pass| pass.flops))
    }

    /// How many passes there are, those included that are not told by themselves.
    pub fn pass_count(&self) -> usize {
        self.passes.iter().map(|pass| 1 + pass.more_passes).sum()
    }

    /// Bytes that its passes move, as the engine estimates them.
    pub fn bytes(&self) -> u64 {
        sum(self.passes.iter().map(|pass| pass.bytes))
    }

    /// Milliseconds that its passes were estimated to take, each when it was planned.
    pub fn estimated_ms(&self) -> f64 {
        self.passes.iter().map(|pass| pass.estimated_ms).sum()
    }

    /// Operations of a naive run: every invoke by itself, with all its positions through all stages.
    pub fn naive_flops(&self) -> u64 {
        sum(self.passes.iter().map(|pass| pass.naive_flops))
    }

    /// Operations of its ways back, as the engine estimates them.
    pub fn back_flops(&self) -> u64 {
        sum(self.passes.iter().map(|pass| pass.back_flops))
    }

    /// Operations of as many ways back through all stages.
    pub fn naive_back_flops(&self) -> u64 {
        sum(self.passes.iter().map(|pass| pass.naive_back_flops))
    }

    /// Bytes of a naive run.
    pub fn naive_bytes(&self) -> u64 {
        sum(self.passes.iter().map(|pass| pass.naive_bytes))
    }

    /// The model that a pass walks.
    pub fn model_of(&self, pass: &ExplainedPass) -> Option<&ExplainedModel> {
        self.models.iter().find(|model| model.name == pass.model)
    }
}
