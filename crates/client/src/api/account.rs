//! Accounts: what they may use and have used; and how the service is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ModelEntry;

/// The account that a key belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Account {
    /// Its name.
    pub account: String,
    /// The key, by the eight characters that name it; none where none is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the key may do: `submit`, `admin`.
    pub scopes: Vec<String>,
    /// What the account may use.
    pub limits: Limits,
    /// What it uses, and has used.
    pub used: AccountUse,
}

/// What an account may use. Where a number is missing, there is no such limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// Models that it may use, by their ids; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// Whether it may read models' weights.
    #[serde(default)]
    pub weights_readable: bool,
    /// Whether it may generate.
    #[serde(default)]
    pub generation: bool,
    /// Whether it may go back: gradients, training.
    #[serde(default)]
    pub training: bool,
    /// Whether it may run a model with other weights.
    #[serde(default)]
    pub edits: bool,
    /// Requests in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Jobs that run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_jobs: Option<u64>,
    /// Jobs that wait at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_jobs: Option<u64>,
    /// Estimated milliseconds of the engine in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds_per_minute: Option<f64>,
    /// Estimated milliseconds of the engine in a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds_per_day: Option<f64>,
    /// Estimated milliseconds of the engine of one job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_milliseconds: Option<f64>,
    /// Bytes that one job may hold at once beside the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// Bytes of one result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_bytes: Option<u64>,
    /// Bytes of all results that lie ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Bytes of one request's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
}

/// What an account uses, and has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AccountUse {
    /// Jobs that run now.
    pub running_jobs: u64,
    /// Jobs that wait now.
    pub queued_jobs: u64,
    /// Estimated milliseconds of the engine in the last minute.
    pub milliseconds_minute: f64,
    /// Estimated milliseconds of the engine in the last day.
    pub milliseconds_day: f64,
    /// Bytes of results that lie ready.
    pub stored_bytes: u64,
}

/// The query of a report of usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UsageQuery {
    /// So many days back from today, from 1 to 366; 30 where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
}

/// What an account has used, day by day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UsageReport {
    /// The account's name.
    pub account: String,
    /// Days, and models on which anything was used, the newest first.
    pub days: Vec<UsageDay>,
}

/// What was used on one day, on one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UsageDay {
    /// The day, in UTC: `2026-01-31`.
    pub day: String,
    /// The model's id.
    pub model: String,
    /// Jobs that ended.
    pub jobs: u64,
    /// How many of them failed.
    pub failed: u64,
    /// Milliseconds of the engine.
    pub milliseconds: f64,
    /// Tokens that passed through the model.
    pub tokens: u64,
    /// Bytes of results.
    pub result_bytes: u64,
}

/// How the service is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStatus {
    /// The service's version.
    pub version: String,
    /// Whether it takes new jobs.
    pub state: ServiceState,
    /// Seconds since it was started.
    pub uptime_s: f64,
    /// Models and their states.
    pub models: Vec<ModelEntry>,
    /// What waits.
    pub queue: QueueStatus,
    /// Jobs that run.
    pub running: u64,
    /// The last hour or so, the oldest first.
    #[serde(default)]
    pub history: Vec<HistoryEntry>,
}

/// Whether a service takes new jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// It does.
    Serving,
    /// It is being shut down: what runs is brought to its end, or put back.
    Draining,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QueueStatus {
    /// Jobs that wait.
    pub jobs: u64,
    /// Estimated milliseconds of the engine that they take.
    pub milliseconds: f64,
    /// Accounts that they belong to.
    pub accounts: u64,
}

/// What was done in a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// When the while began.
    pub at: String,
    /// Jobs that ended.
    pub jobs: u64,
    /// Rows of all passes.
    pub rows: u64,
    /// Tokens of all passes.
    #[serde(default)]
    pub tokens: u64,
    /// Passes.
    pub passes: u64,
    /// Milliseconds that the passes took.
    pub milliseconds: f64,
}
