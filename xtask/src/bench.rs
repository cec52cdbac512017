//! `cargo xtask bench`: Pellucid beside its peers, in one interleaved run.

use std::process::Command;

use crate::python;
use crate::shell::{Outcome, cargo, root, run as command};

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Few rounds: to see that it runs. Nothing is written.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let peers = python::environment("benchmarks", "benchmarks/requirements.txt")?;
    command(&mut cargo(&["build", "--release", "--workspace", "--example", "bench_server"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    let mut measure = Command::new(peers);
    measure.arg(root().join("benchmarks/run.py")).arg(target.join("release/examples/bench_server"));
    measure.arg("--gguf").arg(python::smollm2()?);
    if arguments.quick {
        measure.arg("--quick");
    } else {
        measure.arg("--write").arg(root().join("docs/benchmarks.md"));
    }
    command(measure.current_dir(root()))
}
