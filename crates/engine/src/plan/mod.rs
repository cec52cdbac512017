//! What is planned before a pass begins: which rows the invokes of a program have in common, and what passes cost.
//!
//! The intermediate form is a list of *trunks* (`Sharing`): rows of some tokens, the invokes aboard, and for each of these
//! its `Outlook`: where it leaves the trunk, and which of the rows it takes from there on. Without rewrites every invoke is
//! a trunk of its own that nobody leaves. Each rewrite is a file, with what it needs to hold and what it keeps. Some are here; others are
//! at work where passes are made and walked, and their files are there. Those with a switch are in [`Rewrites`]; the others are always made.
//!
//! | rewrite | file | switch | does |
//! | --- | --- | --- | --- |
//! | dead code | `graph::check::use_of` | | nothing is computed that no save, log or edit needs |
//! | early exit | `exit` | | an invoke walks no farther than the last hook point that is read or written of it |
//! | last layer | `last_layer` | `last_layer` | after its attention only the positions are computed that are read; where something is touched between, from the first of these on |
//! | positions | `positions` | | from the final norm on only the positions are computed that are read |
//! | vocabulary columns | `unembedding` | `unembedding` | of the logits only the columns are computed that are read |
//! | depth sharing | `depth`, `alike` | `depth` | invokes with equal tokens are one row until the first stage at which their edits differ |
//! | length sharing | `length` | `length` | from there on only the positions are computed that differ, or that are read |
//! | common prefixes | `prefix` | `prefixes` | positions before the first difference between two prompts are computed once |
//! | resumption | `interleave::fork` | `depth` | a sweep over layers starts each row at its layer, from the shared row's residual stream |
//! | batching | `interleave::packing` | | packed rows in as few passes as tokens, time and memory (`interleave::room`) allow |
//! | traces together | `traces` | `traces` | traces of a session that do not depend on one another run in the same passes |
//! | reduction in place | `job` | | what is only reduced is reduced where it arises, and freed |
//! | backward | `reverse::way` | | a gradient goes only through what lies between the loss and the earliest gradient that is read; only of that anything is kept |
//! | recomputation | `recompute` | | what ways back read of a layer is computed again where there is no room to keep it |
//! | between programs | `interleave` | | programs share passes; rows only those of one owner, who gave them the same cache |
//! | cached prefixes | `cache` | `cache` | common prefixes with prompts that ran before, for their owner; and where they were edited first, they go on from there |
//!
//! `tests/explain_rewrites` holds the plan of a small program for each, with it and without it.
//!
//! All of it holds within one program, and among those whose owner gave them the same cache: rows of one owner are never another's.

mod aboard;
mod alike;
mod cache;
mod company;
pub(crate) mod cost;
mod depth;
mod exit;
mod last_layer;
mod length;
mod outlook;
mod positions;
mod prefix;
mod recompute;
mod sharing;
mod traces;
mod unembedding;

pub(crate) use aboard::{Aboard, Candidate};
pub(crate) use alike::Alike;
pub(crate) use cache::{Cached, Collected};
pub use cache::{PREFIX_CACHE_BYTES, PrefixCache, PrefixCacheUse, PrefixCounts, PrefixRoom};
pub(crate) use company::companies;
pub(crate) use cost::{Clock, Costs, Rows, Work};
pub(crate) use depth::edits;
pub(crate) use exit::end;
pub(crate) use last_layer::late_from;
pub(crate) use outlook::{Asker, Outlook, Parting};
pub(crate) use positions::{columns as columns_of, positions};
pub(crate) use recompute::{Segment, room, segments};
pub(crate) use sharing::{Sharing, Source, Trunk};
pub(crate) use traces::together;
pub(crate) use unembedding::{
    Among, ColumnsRead, among, together as columns_together, unembedding, worthwhile,
};

/// Which rewrites the engine makes. They change what a program costs, never a bit of what it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrites {
    /// Invokes with equal tokens are one row until the first hook point at which their edits differ.
    pub depth: bool,
    /// Where they part ways, positions before the first that differs stay shared. Needs `depth`.
    pub length: bool,
    /// Positions before the first difference between prompts are shared.
    pub prefixes: bool,
    /// So are those of prompts that ran before, where a program was given a cache of them.
    pub cache: bool,
    /// Traces of a session that do not depend on one another run in the same passes, and share what invokes of one trace do.
    pub traces: bool,
    /// After the last attention only the positions are computed from the first on that is read or written there.
    pub last_layer: bool,
    /// Of the logits only the vocabulary's columns are computed that are read.
    pub unembedding: bool,
}

impl Rewrites {
    /// All of them.
    pub const ALL: Rewrites = Rewrites {
        depth: true,
        length: true,
        prefixes: true,
        cache: true,
        traces: true,
        last_layer: true,
        unembedding: true,
    };
    /// None: every invoke computes its own rows.
    pub const NONE: Rewrites = Rewrites {
        depth: false,
        length: false,
        prefixes: false,
        cache: false,
        traces: false,
        last_layer: false,
        unembedding: false,
    };
}

impl Default for Rewrites {
    fn default() -> Rewrites {
        Rewrites::ALL
    }
}
