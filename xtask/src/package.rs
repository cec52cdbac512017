//! `cargo xtask python`: the Python package, built in place, and what it is held to.

use std::path::PathBuf;
use std::process::Command;

use crate::python::environment;
use crate::records::Record;
use crate::shell::{Outcome, cargo, root, run as command};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Build it optimised: as users have it.
    #[arg(long, global = true)]
    release: bool,
}

#[derive(clap::Subcommand)]
enum What {
    /// Build it in place, so that `PYTHONPATH=python` finds it.
    Build,
    /// Its tests, on the bundled model.
    Test,
    /// Check the types of the package and of the examples with pyright.
    Types,
    /// Hold every operation to torch, by property tests. Sets up an environment with torch.
    Properties,
    /// Run the same scripts by nnsight and by Pellucid, and compare. Sets up an environment with nnsight.
    Differential {
        /// Only scripts whose names have this in them.
        only: Option<String>,
    },
    /// Make the notebooks of `examples/notebooks` from `examples/python`, and execute them.
    Notebooks {
        /// Only those whose names have this in them.
        only: Option<String>,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    build(arguments.release)?;
    match &arguments.what {
        What::Build => Ok(()),
        What::Test => test(arguments.release),
        What::Types => types(),
        What::Properties => {
            let python = environment("properties", "python/properties/requirements.txt")?;
            command(with_package(&python).args(["-m", "pytest", "-q", "python/properties"]))
        }
        What::Differential { only } => {
            let python = environment("differential", "python/differential/requirements.txt")?;
            let record = Record::begin("Scripts for nnsight", "cargo xtask python differential")?;
            let folder = root().join(".cache/differential");
            command(with_package(&python).arg("python/differential/run.py").arg(&folder).args(only))?;
            if only.is_some() {
                return Ok(());
            }
            let summary = std::fs::read_to_string(folder.join("summary.txt"))?;
            record
                .write(&format!("By nnsight 0.8.1 and here, on the same weights:\n\n```text\n{summary}```\n"))
        }
        What::Notebooks { only } => {
            let python = environment("notebooks", "examples/notebooks/requirements.txt")?;
            command(with_package(&python).arg("examples/notebooks/make.py").args(only))
        }
    }
}

/// The package's tests, here and at a service that they start.
pub(crate) fn test(release: bool) -> Outcome {
    let python = environment("python", "python/tests/requirements.txt")?;
    let binary = built_in(release).join(format!("pellucid{}", std::env::consts::EXE_SUFFIX));
    let mut tests = with_package(&python);
    command(tests.env("PELLUCID_BINARY", binary).args(["-m", "pytest", "-q", "python/tests"]))
}

/// Whether types agree, in the package and in what shows how it is used.
fn types() -> Outcome {
    let python = environment("types", "python/requirements-types.txt")?;
    command(
        Command::new(&python)
            .args(["-m", "pyright", "-p", "python"])
            .arg("--pythonpath")
            .arg(&python)
            .current_dir(root()),
    )
}

/// Builds the extension and puts it into the package's folder.
pub(crate) fn build(release: bool) -> Outcome {
    // The whole workspace is named, and one of its tests, so that dependencies have the features with which the tests were built
    // already. What runs at a service needs the command, too.
    let mut cargo = cargo(&["build", "--workspace", "--lib", "--bin", "pellucid", "--test", "rows"]);
    if release {
        cargo.arg("--release");
    }
    command(&mut cargo)?;
    let folder = built_in(release);
    let (built, named) = if cfg!(windows) {
        ("pellucid_python.dll", "_core.pyd")
    } else if cfg!(target_os = "macos") {
        ("libpellucid_python.dylib", "_core.abi3.so")
    } else {
        ("libpellucid_python.so", "_core.abi3.so")
    };
    // Copied beside and renamed: a process that has the old one mapped goes on with it.
    let package = root().join("python/pellucid");
    let beside = package.join("_core.new.so");
    std::fs::copy(folder.join(built), &beside)?;
    std::fs::rename(beside, package.join(named))?;
    Ok(())
}

/// The folder of what was built.
fn built_in(release: bool) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join(if release { "release" } else { "debug" })
}

/// An environment's Python, which finds the package as it was built here.
fn with_package(python: &PathBuf) -> Command {
    let mut command = Command::new(python);
    command.env("PYTHONPATH", root().join("python")).current_dir(root());
    command
}
