//! The remote client: experiments on models that a service holds.
//!
//! ```no_run
//! use pellucid_client::{Client, Options, Submission};
//!
//! # fn main() -> pellucid_client::Result<()> {
//! let client = Client::new(&Options::new("https://models.example.org"))?;
//! let program = std::fs::read("experiment.json").unwrap_or_default();
//! let ended = client.run(&program, &Submission::default(), &mut |update| eprintln!("{update}"), None)?;
//! if let Some(mut result) = ended.result {
//!     let mut file = std::fs::File::create("results.safetensors").map_err(pellucid_client::Error::from)?;
//!     std::io::copy(&mut result, &mut file).map_err(pellucid_client::Error::from)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`api`] | the types of the HTTP interface, which the server shares |
//! | [`Client`] | requests, one method for each route; [`Client::run`], a whole run |
//! | `run` | submitting, waiting and cancelling |
//! | [`Events`] | what happens to a job, over cut connections |
//! | [`Download`] | a result's bytes, over cut connections |
//! | [`replace`] | files that are there as a whole or not at all |
//! | `connections` | connections that are kept open |
//! | `send`, `retry` | one request, tried again while that can help |
//! | `server_sent` | the form of server-sent events |
//! | [`config`] | where the service is and which key it takes: file, environment |
//! | [`Address`], [`Error`] | |
//!
//! Everything blocks the thread that calls it. What is tried again is only what cannot do anything twice: a submission carries
//! a key of its own, by which the service knows it again.
//!
//! **Invariant:** this crate knows nothing of engines: it carries programs one way and bytes the other. A job is never
//! submitted twice.

mod address;
pub mod api;
mod client;
pub mod config;
mod connections;
mod download;
mod error;
mod events;
mod files;
mod retry;
mod run;
mod send;
mod server_sent;
mod specs;
mod trace;

pub use address::Address;
pub use api::Submission;
pub use client::{Client, Options};
pub use connections::forked;
pub use download::Download;
pub use error::{Error, Result};
pub use events::Events;
pub use files::replace;
pub use run::{Ended, Update};
