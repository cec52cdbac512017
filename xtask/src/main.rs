//! What developers run: `cargo xtask COMMAND`.

use std::process::{Command, ExitCode};

use clap::Parser;

/// What developers run.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    /// Write docs/program.schema.json anew, from the types.
    Schema,
}

fn main() -> ExitCode {
    let succeeded = match Task::parse() {
        Task::Schema => schema(),
    };
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The test that holds the file to the types also writes it.
fn schema() -> bool {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["test", "--quiet", "--package", "pellucid-graph", "--test", "schema"])
        .env("PELLUCID_BLESS", "1");
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("cannot run cargo: {error}");
            false
        }
    }
}
