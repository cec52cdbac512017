//! `cargo xtask python`: the Python package, built in place, and what it is held to.

use std::path::PathBuf;
use std::process::Command;

use crate::browser;
use crate::python::environment;
use crate::records::Record;
use crate::shell::{Outcome, cargo, output, root, run as command, target};

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
    /// Measure what it costs beside the engine, built optimised, and write the figures down.
    Costs,
    /// Look at its pictures and displays in a real browser.
    Displays,
    /// Make the notebooks of `examples/notebooks` from `examples/python`, and execute them.
    Notebooks {
        /// Only those whose names have this in them.
        only: Option<String>,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if !matches!(arguments.what, What::Costs) {
        build(arguments.release)?;
    }
    match &arguments.what {
        What::Build => Ok(()),
        What::Test => test(arguments.release),
        What::Types => {
            let record = Record::begin("Types of the Python package", "cargo xtask python types")?;
            record.write(&format!("Pyright on the package and on `examples/python`: {}\n", types()?))
        }
        What::Properties => properties(),
        What::Costs => costs(),
        What::Displays => displays(),
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
            let record = Record::begin("Notebooks", "cargo xtask python notebooks")?;
            command(with_package(&python).arg("examples/notebooks/make.py").args(only))?;
            if only.is_some() {
                return Ok(());
            }
            let made = std::fs::read_dir(root().join("examples/notebooks"))?.flatten();
            let made =
                made.filter(|file| file.path().extension().is_some_and(|kind| kind == "ipynb")).count();
            record.write(&format!("{made} notebooks, each executed to its end in a kernel of its own.\n"))
        }
    }
}

/// The package's tests, here and at a service that they start.
pub(crate) fn test(release: bool) -> Outcome {
    let python = environment("python", "python/tests/requirements.txt")?;
    let mut tests = with_package(&python);
    command(tests.env("PELLUCID_BINARY", binary(release)).args(["-m", "pytest", "-q", "python/tests"]))
}

/// Every operation of the package, held to torch by property tests.
fn properties() -> Outcome {
    let python = environment("properties", "python/properties/requirements.txt")?;
    let record = Record::begin("Operations of the Python package", "cargo xtask python properties")?;
    let mut tests = with_package(&python);
    tests.args(["-m", "pytest", "python/properties"]);
    let told = output(&mut tests)?;
    let passed = |line: &&str| line.contains(" passed");
    let last = told.lines().rev().find(passed).ok_or("pytest did not say how many tests passed")?;
    record.write(&format!(
        "Property tests that hold every operation to PyTorch over shapes, number types and broadcasting, and functions of \
         PyTorch, numpy and einops on values of a trace to those libraries: {}.\n",
        last.trim_matches([' ', '='])
    ))
}

/// Its displays in a browser.
pub(crate) fn displays() -> Outcome {
    let python = environment("python", "python/tests/requirements.txt")?;
    browser::displays(&mut with_package(&python))
}

/// What the package costs beside the engine; at a service, too, where the command was built optimised.
fn costs() -> Outcome {
    command(&mut cargo(&["build", "--release", "--package", "pellucid-python"]))?;
    place(true)?;
    let python = environment("python", "python/tests/requirements.txt")?;
    let record = Record::begin("What the Python package costs", "cargo xtask python costs")?;
    let summary = target().join("python-costs.txt");
    let mut measure = with_package(&python);
    measure.arg("benchmarks/python.py").arg(&summary);
    command(measure.args(Some(binary(true)).filter(|binary| binary.is_file())))?;
    record.write(&std::fs::read_to_string(summary)?)
}

/// Whether types agree, in the package and in what shows how it is used, and whether all that the package exports has types; what
/// pyright says of both.
fn types() -> Outcome<String> {
    let python = environment("types", "python/requirements-types.txt")?;
    let mut check = Command::new(&python);
    check.args(["-m", "pyright", "-p", "python"]).arg("--pythonpath").arg(&python).current_dir(root());
    let faults = output(&mut check)?;
    let mut complete = with_package(&python);
    let told = output(complete.args(["-m", "pyright", "--verifytypes", "pellucid", "--ignoreexternal"]))?;
    let score = told.lines().find(|line| line.starts_with("Type completeness score"));
    let faults = faults.lines().last().unwrap_or_default();
    let score = score.ok_or("pyright did not say how complete the types are")?;
    Ok(format!("{faults}. What it exports: {score}"))
}

/// Builds all libraries and the command. The whole workspace is named, and one of its tests, so that dependencies have the features
/// with which the tests were built already.
pub(crate) fn build_workspace() -> Outcome {
    command(&mut cargo(&["build", "--workspace", "--lib", "--bin", "pellucid", "--test", "rows"]))
}

/// Builds the extension and puts it into the package's folder. The command is built, too: the tests start a service.
pub(crate) fn build(release: bool) -> Outcome {
    if release {
        let packages = ["--package", "pellucid-python", "--package", "pellucid-cli"];
        command(cargo(&["build", "--release"]).args(packages))?;
    } else {
        build_workspace()?;
    }
    place(release)
}

/// Puts the extension that was built into the package's folder.
fn place(release: bool) -> Outcome {
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
    target().join(if release { "release" } else { "debug" })
}

/// The command.
fn binary(release: bool) -> PathBuf {
    built_in(release).join(format!("pellucid{}", std::env::consts::EXE_SUFFIX))
}

/// An environment's Python, which finds the package as it was built here.
fn with_package(python: &PathBuf) -> Command {
    let mut command = Command::new(python);
    command.env("PYTHONPATH", root().join("python")).current_dir(root());
    command
}
