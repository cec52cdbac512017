//! The service: many people, one model, nothing lost, nobody trusted.
//!
//! | module | holds |
//! | --- | --- |
//! | [`config`] | the configuration: a TOML file, environment variables, flags |
//! | [`store`] | what is remembered: accounts, keys, jobs, usage; SQLite behind a trait |
//! | [`files`] | results and large programs as files |
//! | [`keys`] | API keys, and names that nobody can guess |
//! | `account` | what an account may use, at once and over time |
//! | `models` | the registry: which models there are, which are in memory |
//! | `schedule` | from the queue to the engine and back; who takes jobs hands them over behind a trait |
//! | `events` | what happens to jobs, for those who watch, behind a trait |
//! | `prefixes` | accounts’ caches of what their prompts have in common |
//! | `together` | what is done for many at once, and not too often |
//! | `service` | what the service does, whoever asks and however |
//! | [`http`] | routes, bodies and headers over that |
//! | [`admin`] | what whoever runs it does beside it |
//!
//! **Invariant:** this crate knows nothing of tensors' insides. A job that was acknowledged ends exactly once, whenever the
//! process dies; one account never learns of another's jobs.

mod account;
pub mod admin;
pub mod config;
mod core;
mod events;
pub mod files;
mod history;
pub mod http;
pub mod keys;
mod logs;
mod metrics;
mod models;
mod prefixes;
mod schedule;
mod service;
pub mod store;
pub mod time;
mod together;
mod traces;

pub use config::Config;
pub use http::serve;
pub use service::{StartError, open_store};
