//! What the commands take that speak to a service.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// The service that is spoken to.
#[derive(Debug, Args)]
pub(crate) struct RemoteChoice {
    /// The service's address
    #[arg(long, value_name = "URL", env = "PELLUCID_REMOTE", hide_env_values = true)]
    pub(crate) remote: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Jobs {
    /// Only this one, in full
    pub(crate) job: Option<String>,

    /// Wait until the job has ended, and write its result to a safetensors file
    #[arg(long, short, value_name = "FILE", requires = "job")]
    pub(crate) output: Option<PathBuf>,

    /// Only jobs of this state
    #[arg(long, value_enum, conflicts_with = "job")]
    pub(crate) state: Option<State>,

    /// How many jobs to show at most
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, conflicts_with = "job", value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) limit: u32,

    /// Only jobs that are older than this one
    #[arg(long, value_name = "JOB", conflicts_with = "job")]
    pub(crate) after: Option<String>,

    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) remote: RemoteChoice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// Waiting for their turn
    Queued,
    /// Running
    Running,
    /// Ended well
    Succeeded,
    /// Ended with an error
    Failed,
    /// Cancelled
    Cancelled,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The jobs, by their ids
    #[arg(required = true, value_name = "JOB")]
    pub(crate) jobs: Vec<String>,

    /// Erase program, result and logs too
    #[arg(long)]
    pub(crate) erase: bool,

    #[command(flatten)]
    pub(crate) remote: RemoteChoice,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) remote: RemoteChoice,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The service's address [default: the one that is set up]
    #[arg(value_name = "URL", env = "PELLUCID_REMOTE", hide_env_values = true)]
    pub(crate) remote: Option<String>,

    /// Forget the key instead
    #[arg(long)]
    pub(crate) remove: bool,
}
