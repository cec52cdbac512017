//! Jobs: how they are submitted, and how far they are.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Problem;

/// How a program is to be run: the query of a submission. The program itself is the body.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The model, by its id. Without it the one that the program names; without either, the service's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Before or after the account's other jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Seconds from its admission in which the job must have ended; else it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<f64>,
    /// A name for people, at most 200 characters: it stands in lists of jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A job's place among those of the same account.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// After the others.
    Low,
    /// As the others.
    #[default]
    Normal,
    /// Before the others.
    High,
}

impl Priority {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// Its id, which cannot be guessed: `job_` and 26 characters.
    pub id: String,
    /// The id of its model.
    pub model: String,
    /// How far it is.
    pub state: JobState,
    /// Its place among those of the same account.
    pub priority: Priority,
    /// The name that its owner gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When it was submitted.
    pub created_at: String,
    /// When its run began, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// When it must have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<String>,
    /// How often its run has begun: more than once where the service was interrupted.
    pub attempts: u32,
    /// What it costs, at most.
    pub price: Price,
    /// While it is queued: its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueuePlace>,
    /// While it runs: how far its run is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<RunProgress>,
    /// When it has ended: what it saved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saved: Vec<Saved>,
    /// Saved values that are absent, because their generation had stopped before their step, or
    /// their branch of a condition did not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
    /// When it has ended: its result, as long as it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ResultInfo>,
    /// Milliseconds of the engine that it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<f64>,
    /// Passes through the model that it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passes: Option<u64>,
    /// Tokens that passed through the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It waits for its turn, or for its model.
    Queued,
    /// It runs.
    Running,
    /// It has its result.
    Succeeded,
    /// It has an error.
    Failed,
    /// Its owner cancelled it.
    Cancelled,
}

impl JobState {
    /// Whether it has ended: nothing will happen to it any more.
    pub fn is_final(self) -> bool {
        matches!(self, JobState::Succeeded | JobState::Failed | JobState::Cancelled)
    }

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a program costs, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Price {
    /// Estimated milliseconds of the engine.
    pub milliseconds: f64,
    /// Floating-point operations.
    pub flops: u64,
    /// Tokens that pass through the model.
    pub tokens: u64,
    /// Nodes that run, each as often as it does.
    #[serde(default)]
    pub nodes: u64,
    /// Bytes held at once beside the model's weights.
    pub peak_bytes: u64,
    /// Of a plan: bytes more that are kept for ways back where there is room for them; where there is none, what is missing is
    /// computed again. Of a job they are among the others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kept_bytes: u64,
    /// Of a plan: floating-point operations that this takes, if all of it is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recomputed_flops: u64,
    /// Bytes of the saved results.
    pub result_bytes: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
pub(super) fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Price {
    /// The price that the checker names, with an estimate of its milliseconds.
    pub fn new(price: &pellucid_graph::check::Price, milliseconds: f64) -> Price {
        let pellucid_graph::check::Price {
            flops,
            own_flops: _,
            peak_bytes,
            kept_bytes,
            recomputed_flops,
            result_bytes,
            tokens,
            nodes,
        } = *price;
        Price { milliseconds, flops, tokens, nodes, peak_bytes, kept_bytes, recomputed_flops, result_bytes }
    }
}

/// A job's place in its model's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QueuePlace {
    /// How many jobs begin before it, as things stand: 0 for the next.
    pub position: u64,
    /// Estimated milliseconds that these take.
    pub ahead_milliseconds: f64,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunProgress {
    /// Passes through the model that have begun.
    pub passes: u64,
    /// The part of the current pass that is done, from 0 to 1.
    pub part: f64,
    /// The layer that the current pass is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u64>,
    /// How many layers there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<u64>,
}

/// A saved value, in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Saved {
    /// The name that it is saved under.
    pub name: String,
    /// Its number type: `f32`, `i64`, `bool`, ….
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its bytes.
    pub bytes: u64,
    /// Its elements, row by row, where they are few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<Number>>,
}

/// An element of a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Number {
    /// A truth value.
    Bool(bool),
    /// A whole number of an integer type.
    Integer(i64),
    /// A finite number of a float type.
    Float(f64),
    /// One that JSON has no number for: `nan`, `inf`, `-inf`.
    Special(String),
}

impl Number {
    /// The form of a float.
    pub fn from_f64(value: f64) -> Number {
        match value {
            _ if value.is_nan() => Number::Special("nan".to_owned()),
            f64::INFINITY => Number::Special("inf".to_owned()),
            f64::NEG_INFINITY => Number::Special("-inf".to_owned()),
            _ => Number::Float(value),
        }
    }

    /// As `f64`, a truth value as 0 or 1; none for a text that is no number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Number::Bool(value) => Some(f64::from(u8::from(*value))),
            Number::Integer(value) => Some(*value as f64),
            Number::Float(value) => Some(*value),
            Number::Special(name) => match name.as_str() {
                "nan" => Some(f64::NAN),
                "inf" => Some(f64::INFINITY),
                "-inf" => Some(f64::NEG_INFINITY),
                _ => None,
            },
        }
    }
}

/// A result that lies ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultInfo {
    /// Its bytes.
    pub bytes: u64,
    /// Its `ETag`, with its quotation marks.
    pub etag: String,
    /// When it will be deleted.
    pub expires_at: String,
    /// Whether it is that of a failed job: what the traces before the failure saved.
    pub partial: bool,
}

/// The query of a list of jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobQuery {
    /// At most so many, from 1 to 200; 50 where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only jobs that come after this one in the list: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Only jobs of this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
}

/// One's own jobs, the newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobList {
    /// The jobs, without what each saved.
    pub jobs: Vec<Job>,
    /// What the next page is asked for with; none: this was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The query of a deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// Whether program, result and logs are erased too, rather than the job only cancelled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub erase: bool,
}
