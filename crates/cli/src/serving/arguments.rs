//! The command line of whoever runs the service.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Where the configuration comes from.
#[derive(Debug, Args)]
pub(crate) struct Configuration {
    /// The configuration's file [default: none, every setting at its default]
    #[arg(long, value_name = "FILE", env = "PELLUCID_SERVE_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,

    /// The folder with everything that the service keeps [default: pellucid in $XDG_DATA_HOME, or ~/.local/share/pellucid]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,

    /// Any setting of the file, which goes before it and before the environment; can be given several times
    #[arg(long, value_name = "SECTION.NAME=VALUE")]
    pub(crate) set: Vec<String>,
}

/// A help text that names the limits.
fn with_limits(examples: &str) -> String {
    let names = pellucid_server::config::limit_names().join(", ");
    format!("{examples}\n\nLimits, which `pellucid config example` explains:\n  {names}")
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) configuration: Configuration,

    /// Where to listen [default: 127.0.0.1:8460]; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,

    /// Without keys, on loopback only
    #[arg(long)]
    pub(crate) open: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key, and its account where it is not there; the key is shown this once
    #[command(
        after_help = with_limits("Examples:\n  pellucid keys create --account ada\n  pellucid keys create --account prometheus --scope admin\n  pellucid keys create --account ada --limit weights_readable=true --limit requests_per_minute=none")
    )]
    Create(CreateKey),
    /// Show all keys, without their secrets
    List {
        #[command(flatten)]
        configuration: Configuration,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the audit log: who made and revoked keys and erased jobs, the newest first
    Log {
        /// So many entries
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
        #[command(flatten)]
        configuration: Configuration,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Change an account's limits or share, from its next request on; without changes, show them
    #[command(
        after_help = with_limits("Examples:\n  pellucid keys limit\n  pellucid keys limit ada --limit requests_per_minute=600 --limit stored_bytes=none")
    )]
    Limit {
        /// The account; without it, those of all accounts are shown
        #[arg(value_name = "NAME")]
        account: Option<String>,

        /// A limit that is other than it was, `none` for no limit; can be given several times
        #[arg(long, value_name = "NAME=VALUE", requires = "account")]
        limit: Vec<String>,

        /// The account's share of the service, relative to others' [default: as it is]
        #[arg(long, value_name = "SHARE", requires = "account")]
        weight: Option<f64>,

        #[command(flatten)]
        configuration: Configuration,
    },
    /// Make a key invalid, at once
    Revoke {
        /// The key's id: the eight letters and digits after `pellucid_`
        key: String,
        #[command(flatten)]
        configuration: Configuration,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateKey {
    /// Whose it is
    #[arg(long, value_name = "NAME")]
    pub(crate) account: String,

    /// What it may do; can be given several times
    #[arg(long, value_enum, default_value = "submit")]
    pub(crate) scope: Vec<KeyScope>,

    /// What it is called, in the list of keys
    #[arg(long, default_value = "")]
    pub(crate) label: String,

    /// The account's share of the service, relative to others' [default: as it is, or 1]
    #[arg(long, value_name = "SHARE")]
    pub(crate) weight: Option<f64>,

    /// A limit of the account that is other than it was, `none` for no limit; can be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) limit: Vec<String>,

    #[command(flatten)]
    pub(crate) configuration: Configuration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyScope {
    /// Submitting jobs, and reading one's own
    Submit,
    /// Metrics
    Admin,
}

#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// So many days back from today
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=366))]
    pub(crate) days: u32,

    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) configuration: Configuration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether the configuration can be used, and what comes of file, environment and flags together
    #[command(after_help = "Example:\n  pellucid config check --config pellucid.toml")]
    Check {
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Write a commented configuration with every setting at its default to standard output
    Example,
}
