//! The configuration: a TOML file, environment variables over it, flags over both.
//!
//! Every setting that is one value is in the table [`SETTINGS`], and can be given as an environment variable and as a flag of the same name.
//! `pellucid.example.toml` shows all of them with what they do.

mod layers;
mod limits;
mod opens;
mod validate;

use std::net::SocketAddr;
use std::path::PathBuf;

use pellucid_client::api::Limits;
use pellucid_engine::ServeOptions;
use serde::{Deserialize, Serialize};

use crate::store::sqlite::Durability;

pub use layers::{Kind, Layers, SETTINGS, Setting};
pub use limits::{limit_faults, limit_names};
pub use validate::{is_account_name, is_model_id};

/// A commented configuration with every setting at its default.
pub const EXAMPLE: &str = include_str!("../../pellucid.example.toml");
/// The id of the model that comes with the program.
pub const BUNDLED: &str = "bundled";

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// It is no TOML, or has a setting that there is not, or one of a wrong type.
    #[error("{from}: {message}")]
    Syntax {
        /// The file, or what else it was read from.
        from: String,
        /// What is wrong, with the line.
        message: String,
    },
    /// Values that cannot be.
    #[error("the configuration cannot be used:\n{}", .0.iter().map(|fault| format!("  {fault}")).collect::<Vec<_>>().join("\n"))]
    Values(Vec<String>),
}

/// The whole configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub struct Config {
    /// Connections.
    pub server: Server,
    /// What is remembered.
    pub store: StoreConfig,
    /// How long it is remembered.
    pub retention: Retention,
    /// How models run.
    pub engine: EngineConfig,
    /// What one request and the whole queue may be.
    pub admission: Admission,
    /// What is logged.
    pub log: Log,
    /// Where traces go.
    pub trace: Trace,
    /// What a new account may use, unless it is told otherwise.
    pub limits: AccountLimits,
    /// The models that there are.
    #[serde(rename = "model")]
    pub models: Vec<ModelConfig>,
}

/// Connections.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether no key is needed: on loopback only.
    pub open: bool,
    /// The folder with everything that it keeps.
    pub data: PathBuf,
    /// A certificate chain in PEM; with it, connections are TLS.
    pub certificate: Option<PathBuf>,
    /// Its private key in PEM.
    pub private_key: Option<PathBuf>,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_per_address: usize,
    /// Seconds that a request's head may take to come.
    pub header_seconds: f64,
    /// Seconds in which a client must send something, and over which what it takes is averaged.
    pub idle_seconds: f64,
    /// Seconds that what runs has to end, when the service is shut down; then it is put back.
    pub drain_seconds: f64,
}

/// What is remembered.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// What a job that was acknowledged survives.
    pub durability: Durability,
}

/// How long it is remembered.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Hours that a result lies ready.
    pub result_hours: f64,
    /// Days that a job that has ended is listed.
    pub job_days: f64,
    /// Jobs of an account that are kept after they have ended, with their results: the newest.
    pub kept_jobs: u32,
    /// Days that the audit log goes back.
    pub audit_days: f64,
}

/// How models run.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Estimated milliseconds by which another account's flood delays a job, at most.
    pub delay_ms: f64,
    /// Tokens of a pass, at most.
    pub pass_tokens: u64,
    /// Threads for single operations that are heavy.
    pub heavy_threads: usize,
    /// Jobs that one model has begun, at most.
    pub jobs: usize,
    /// Whether jobs of several accounts run in the same passes.
    pub packing: bool,
    /// Bytes that the jobs which a model has begun may hold at once, by their prices, their programs among them.
    pub value_bytes: u64,
    /// Bytes of all accounts' caches of prefixes together; as much again is held at most while jobs collect what goes there. 0: none.
    pub prefix_bytes: u64,
    /// Bytes of weights of all models in memory.
    pub weight_bytes: u64,
    /// Seconds after which a model that nobody uses may be given up for another, and for which a model waits for room before one that is
    /// used makes way.
    pub idle_seconds: f64,
}

impl Config {
    /// All of it as a file would have it, what is at its default included.
    ///
    /// # Errors
    /// [`ConfigError::Values`]: where a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError::Values(vec![error.to_string()]))
    }
}

impl EngineConfig {
    /// Estimated milliseconds of a pass, at most. A job waits for the rest of one, and shares the next.
    pub fn pass_ms(&self) -> f64 {
        self.delay_ms / 2.0
    }

    /// How its engines serve.
    pub fn serves(&self) -> ServeOptions {
        ServeOptions {
            pass_ms: self.pass_ms(),
            pass_tokens: self.pass_tokens,
            helper_threads: self.heavy_threads,
        }
    }
}

/// What one request and the whole queue may be.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admission {
    /// Bytes of one request's body.
    pub request_bytes: u64,
    /// Bytes of all bodies that are being received, but for those of at most 256 KiB, which have 32 MiB of their own.
    pub receiving_bytes: u64,
    /// Jobs that wait, of all accounts together.
    pub queued_jobs: usize,
    /// Bytes of checked programs that wait in memory; others wait on disk.
    pub waiting_bytes: u64,
    /// Bytes of one job's logs and streamed values.
    pub event_bytes: usize,
}

/// What is logged.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// From which level: `error`, `warn`, `info`, `debug`, `trace`.
    pub level: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

/// Where traces go.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trace {
    /// A collector that takes OTLP over HTTP; without one, nothing is traced.
    pub endpoint: Option<String>,
    /// The part of requests that are traced, of those whose callers do not decide.
    pub sample: f64,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one object a line.
    Json,
}

/// What a new account may use.
#[derive(Clone, Debug)]
pub struct AccountLimits(pub Limits);

/// A model that there is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Its id, under which programs name it.
    pub id: String,
    /// `bundled`, a folder, a GGUF file, or a hub id; its id where none is given.
    #[serde(default)]
    pub source: Option<String>,
    /// The number type of its weights: `f32`, `bf16` or `quantised`.
    #[serde(default)]
    pub dtype: WeightType,
    /// The revision of one on a hub.
    #[serde(default)]
    pub revision: Option<String>,
    /// Whether it is loaded at the start and stays.
    #[serde(default)]
    pub pinned: bool,
    /// Whether it is the one that programs which name none are run on.
    #[serde(default)]
    pub default: bool,
    /// Whether accounts that may not read its weights may not apply its modules to values of their own either.
    #[serde(default)]
    pub strict: bool,
}

impl ModelConfig {
    /// Where it comes from.
    pub fn source(&self) -> &str {
        self.source.as_deref().unwrap_or(&self.id)
    }
}

/// The number type of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightType {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits.
    Bf16,
    /// As a GGUF file has them in blocks.
    Quantised,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            listen: SocketAddr::from(([127, 0, 0, 1], 8460)),
            open: false,
            data: data_folder(),
            certificate: None,
            private_key: None,
            connections: 1024,
            connections_per_address: 256,
            header_seconds: 10.0,
            idle_seconds: 30.0,
            drain_seconds: 30.0,
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Retention { result_hours: 7.0 * 24.0, job_days: 30.0, kept_jobs: 20_000, audit_days: 365.0 }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            delay_ms: 200.0,
            pass_tokens: 2048,
            heavy_threads: 1,
            jobs: 256,
            packing: true,
            value_bytes: 4 << 30,
            prefix_bytes: 512 << 20,
            weight_bytes: 16 << 30,
            idle_seconds: 60.0,
        }
    }
}

impl Default for Admission {
    fn default() -> Self {
        Admission {
            request_bytes: 64 << 20,
            receiving_bytes: 512 << 20,
            queued_jobs: 10_000,
            waiting_bytes: 512 << 20,
            event_bytes: 1 << 20,
        }
    }
}

impl Default for Trace {
    fn default() -> Self {
        Trace { endpoint: None, sample: 1.0 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".into(), format: LogFormat::Text }
    }
}

impl Default for AccountLimits {
    fn default() -> Self {
        AccountLimits(Limits {
            models: None,
            weights_readable: false,
            generation: true,
            training: true,
            edits: true,
            requests_per_minute: Some(1_200),
            concurrent_jobs: Some(64),
            queued_jobs: Some(1_000),
            milliseconds_per_minute: Some(60_000.0),
            milliseconds_per_day: Some(24.0 * 3_600_000.0),
            job_milliseconds: Some(10.0 * 60_000.0),
            peak_bytes: Some(1 << 30),
            result_bytes: Some(256 << 20),
            stored_bytes: Some(4 << 30),
            request_bytes: Some(64 << 20),
        })
    }
}

/// The user's folder for what cannot be made again.
fn data_folder() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").or_else(|| set("USERPROFILE")).map(|home| home.join(".local/share"));
    let folder = set("XDG_DATA_HOME").filter(|path| path.is_absolute()).or_else(home);
    folder.unwrap_or_else(|| PathBuf::from(".")).join("pellucid")
}

#[cfg(test)]
mod tests;
