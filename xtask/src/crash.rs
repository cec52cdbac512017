//! `cargo xtask crash`: the service is killed at random moments under load; nothing that it acknowledged may be lost or done twice.

use crate::shell::{Outcome, cargo, run as command};

/// How often, and when.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often it is killed.
    #[arg(long, default_value_t = 100)]
    kills: u64,
    /// Of the moments at which it is.
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut test = cargo(&["test", "--package", "pellucid-cli", "--test", "service", "--", "--nocapture"]);
    test.arg("whatever_was_acknowledged_ends_once_however_often_the_process_dies");
    test.env("PELLUCID_CRASHES", arguments.kills.to_string())
        .env("PELLUCID_SEED", arguments.seed.to_string());
    command(&mut test)
}
