//! What can go wrong between here and a service.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::api::Problem;

/// What can go wrong between here and a service. Messages say what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What should be a service's address is none.
    #[error(
        "`{address}` is not the address of a service: {reason}\n  hint: it looks like https://models.example.org"
    )]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key would travel where others can read it.
    #[error(
        "the key would go to {address} unencrypted\n  hint: use https://; in a network that you trust, set `plain_http = true` in the configuration file or PELLUCID_PLAIN_HTTP=1"
    )]
    PlainHttp {
        /// The service.
        address: String,
    },
    /// What should be a key has characters that no key has.
    #[error("the key for {address} is not one: a key begins with `pellucid_` and has no spaces")]
    Key {
        /// The service.
        address: String,
    },
    /// The service cannot be reached, or the connection was lost and could not be made again.
    #[error("{address} cannot be reached: {reason}{}{}", tried(*.patience), goes_on(.job.as_deref()))]
    Unreachable {
        /// The service.
        address: String,
        /// What the network said.
        reason: String,
        /// How long it was tried, where it was tried again.
        patience: Option<Duration>,
        /// The job that was waited for: it goes on without anybody who listens.
        job: Option<String>,
    },
    /// The service refused, or failed.
    #[error("{}", refusal(.address, .problem))]
    Refused {
        /// The service.
        address: String,
        /// What it said.
        problem: Box<Problem>,
    },
    /// Something answered that is no service, or one that cannot be understood.
    #[error("{address} gave no answer of a Pellucid service: {reason}\n  hint: is the address right?")]
    Protocol {
        /// The service.
        address: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A result changed, or was deleted, while it was downloaded.
    #[error("the result of {job} changed while it was downloaded\n  hint: download it again")]
    Changed {
        /// The job.
        job: String,
    },
    /// It was cancelled from here, before there was a job.
    #[error("the run was cancelled")]
    Cancelled,
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The configuration file is not one.
    #[error("{}: {reason}", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system failed: it has no random numbers, or no more threads.
    #[error("{0}")]
    System(#[from] io::Error),
}

fn tried(patience: Option<Duration>) -> String {
    patience.map_or_else(String::new, |patience| format!(" (tried for {} s)", patience.as_secs()))
}

fn goes_on(job: Option<&str>) -> String {
    job.map_or_else(String::new, |job| {
        format!("\n  hint: {job} goes on there; `pellucid jobs {job} -o FILE` waits for its result")
    })
}

fn refusal(address: &str, problem: &Problem) -> String {
    use crate::api::ProblemKind;
    match problem.kind {
        ProblemKind::InvalidProgram | ProblemKind::RunFailed => problem.to_string(),
        ProblemKind::Unauthorized => {
            // The service's own hint is for whom has no such command.
            let said = problem.detail.as_ref().unwrap_or(&problem.title);
            format!("{address}: {said}\n  hint: `pellucid login {address}`, or set PELLUCID_API_KEY")
        }
        _ => format!("{address}: {problem}"),
    }
}

impl Error {
    /// What the service said, where it was the service that refused.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Error::Refused { problem, .. } => Some(problem),
            _ => None,
        }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, error: io::Error) -> Error {
        Error::File { path: path.into(), error }
    }
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
