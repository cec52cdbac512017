//! How a program runs: what it may take, and who watches.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::plan::PrefixCache;
use crate::results::LogEntry;
use crate::tensor::Tensor;

/// Called with each logged value while a program runs.
pub type OnLog = Arc<dyn Fn(&LogEntry) + Send + Sync>;

/// Called with each generated token.
pub type OnToken = Arc<dyn Fn(&GeneratedToken) + Send + Sync>;

/// Called with each saved value.
pub type OnSaved = Arc<dyn Fn(&SavedValue<'_>) + Send + Sync>;

/// Called while a program runs.
pub type OnProgress = Arc<dyn Fn(&Progress) + Send + Sync>;

/// How a program runs: what it may take, and who watches. Listeners are called on the thread that runs the program, also
/// in the middle of a pass: they should be quick. One that panics fails its own program alone.
#[derive(Clone, Default)]
pub struct RunOptions {
    /// Bytes that the program's own values, saved ones included, may hold at once; none: no bound.
    pub memory_bytes: Option<u64>,
    /// Bytes that may be kept of passes for ways back: what is beyond is computed again, and the results are the same ones to the bit.
    /// None: as many as there is room for.
    pub kept_bytes: Option<u64>,
    /// Wall time that it may take; none: no bound.
    pub seconds: Option<f64>,
    /// Set from another thread to cancel: honoured between modules.
    pub cancel: Option<Arc<AtomicBool>>,
    /// Keys and values of prompts that ran before, for this one's, which go there too; none: every prompt is computed. Programs
    /// that run at the same time with the same one share rows. Results are bit for bit the same. Not for programs of different owners: how long a run takes tells what ran before it.
    pub prefixes: Option<Arc<PrefixCache>>,
    /// Called with each logged value.
    pub on_log: Option<OnLog>,
    /// Called with each generated token.
    pub on_token: Option<OnToken>,
    /// Called with each saved value, as soon as it is there.
    pub on_saved: Option<OnSaved>,
    /// Called as a pass goes through the layers.
    pub on_progress: Option<OnProgress>,
}

/// A token that a generation has just made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratedToken {
    /// The invoke.
    pub invoke: usize,
    /// The prompt within the invoke.
    pub prompt: usize,
    /// The step.
    pub step: u64,
    /// The token.
    pub token: u32,
}

/// A value that has just been saved.
#[derive(Clone, Copy, Debug)]
pub struct SavedValue<'v> {
    /// Its name among the results.
    pub name: &'v str,
    /// The value.
    pub value: &'v Tensor,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Passes that have begun.
    pub passes: usize,
    /// The part of the current pass that is done, 0 to 1.
    pub part: f64,
    /// The layer that the pass is in.
    pub layer: u64,
    /// The model's layers.
    pub layers: u64,
    /// The step of a generation, of the program's invoke in the pass that is farthest.
    pub step: u64,
    /// The trace, counted from 0.
    pub trace: usize,
    /// The program's traces.
    pub traces: usize,
}
