//! Runs checked programs on models: planned, packed, interleaved, within budgets.
//!
//! | module | holds |
//! | --- | --- |
//! | [`engine`] | [`Engine`]: one model and programs that run on it |
//! | [`serve`] | programs that come and go, from whoever has them: [`Host`] |
//! | `interleave` | which invokes share a pass, where each waits for another |
//! | `job` | one program's run: which values are there, which nodes may run |
//! | `loaded` | the models of an engine |
//! | [`plan`] | which rows invokes have in common, and what passes cost |
//! | `pass` | packed sequences walking a model's list of stages |
//! | `sequence` | one prompt's rows; keys and values that several attend to |
//! | `slots` | what the slots of a pass hold |
//! | `compute` | the seam between stages and kernels; a GPU's would stand beside it |
//! | `view` | an invoke's view of a hook point, padding included |
//! | `weights` | reading a model's weights, and running with others in their place |
//! | `reverse` | going back: gradients |
//! | `nodes` | nodes that touch no hook point: operations, literals, applied modules |
//! | [`operations`] | the kernels of the language's operations |
//! | `tokenise` | texts to token ids, where a program is admitted |
//! | `sampling` | choosing the next token |
//! | `naive` | the judge: a second, simple interpreter |
//! | [`explain`] | the plan, to be read, and what it took |
//! | [`results`], [`tensor`], [`error`] | what comes back |
//!
//! **Invariant:** this crate knows nothing of HTTP or users; a program's result is the same bit for bit alone, beside
//! any others, and by the naive interpreter.

mod compute;
pub mod engine;
pub mod error;
pub mod explain;
mod interleave;
pub mod job;
mod loaded;
mod naive;
mod nodes;
pub mod operations;
mod pass;
pub mod plan;
pub mod results;
mod reverse;
mod sampling;
mod sequence;
pub mod serve;
mod slots;
pub mod tensor;
mod tokenise;
mod view;
mod weights;

pub use engine::{Engine, PASS_BYTES};
pub use error::{EngineError, Failure};
pub use explain::{
    ExplainedBack, ExplainedModel, ExplainedParked, ExplainedPass, ExplainedPassenger, ExplainedSharing,
    Explanation, Measured,
};
pub use job::{GeneratedToken, Progress, RunOptions, SavedValue};
pub use pellucid_kernels::pool::forked;
pub use pellucid_kernels::{Isa, keep_freed_memory};
pub use plan::{PREFIX_CACHE_BYTES, PrefixCache, PrefixCacheUse, PrefixCounts, PrefixRoom, Rewrites};
pub use results::{LogEntry, OtherModel, Provenance, Report, Results};
pub use serve::{Admission, Admitted, Host, Load, PassReport, ServeOptions, Ticket, Usage, Waiting};
pub use tensor::Tensor;
