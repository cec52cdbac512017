//! The command `pellucid`: experiments on neural networks from the shell.
//!
//! | module | holds |
//! | --- | --- |
//! | [`arguments`] | the command line, which is also its help |
//! | [`commands`] | one module for each command |
//! | [`demo`] | the demonstration's experiment, and its pictures |
//! | [`models`] | opening the model that was asked for |
//! | [`remote`] | speaking to a service |
//! | [`interrupt`] | Ctrl-C |
//! | [`serving`] | what whoever runs the service uses |
//! | [`failure`] | errors and exit codes |
//! | [`summary`] | what a run gave back, in short |
//! | [`text`] | numbers and tokens laid out for a terminal |
//!
//! **Invariant:** every number that is shown was computed by the run that shows it.

mod arguments;
mod commands;
mod demo;
mod failure;
mod interrupt;
mod models;
mod remote;
mod serving;
mod summary;
mod text;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command, ModelsCommand};
use crate::failure::Failure;

/// What any thread has freed goes back to the system within seconds: a service's memory stays what its values take.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout().lock();
    let asked = pellucid::instruction_set().map(drop).map_err(Failure::Message);
    let outcome = asked.and_then(|()| dispatch(&arguments, &mut out)).and_then(|()| Ok(out.flush()?));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Failure> {
    match &arguments.command {
        Command::Demo(demo) => commands::demo::demo(demo, out),
        Command::Run(run) => commands::run::run(run, out),
        Command::Explain(explain) => commands::explain::explain(explain, out),
        Command::Models { command: ModelsCommand::Show(show) } => commands::models::show(show, out),
        Command::Lens(lens) => commands::lens::lens(lens, out),
        Command::Generate(generate) => commands::generate::generate(generate, out),
        Command::Jobs(jobs) => commands::jobs::jobs(jobs, out),
        Command::Cancel(cancel) => commands::jobs::cancel(cancel, out),
        Command::Status(status) => commands::status::status(status, out),
        Command::Login(login) => commands::login::login(login, out),
        Command::Serve(serve) => serving::serve(serve, out),
        Command::Keys { command } => serving::keys(command, out),
        Command::Usage(usage) => serving::usage(usage, out),
        Command::Config { command } => serving::config(command, out),
        Command::Completions { shell } => commands::completions::completions(*shell, out),
    }
}
