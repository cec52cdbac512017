//! What developers run. `cargo xtask help` lists it.

mod bench;
mod browser;
mod crash;
mod experiments;
mod faults;
mod fuzz;
mod generate;
mod golden;
mod load;
mod package;
mod prices;
mod profile;
mod python;
mod python_operations;
mod random;
mod records;
mod shell;
mod smollm2;
mod soak;
mod test;

use clap::{Parser, Subcommand};

/// What developers of Pellucid run.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set up what is needed and run every check and test.
    Test(test::Arguments),
    /// Print the table of agreements with transformers, family by family, hook point by hook point.
    Golden(golden::Arguments),
    /// Print the table of agreements of the classic experiments with PyTorch, quantity by quantity.
    Experiments,
    /// Put each of a list of faults into a copy of the tree, and show which tests catch it.
    Faults(faults::Arguments),
    /// Hold the command, on SmolLM2-135M as a GGUF file and as a folder, to transformers and to each other.
    Smollm2,
    /// Write the files that are generated from the code: the program schema and the references in docs/.
    Generate(generate::Arguments),
    /// Measure Pellucid beside its peers, and write docs/benchmarks.md.
    Bench(bench::Arguments),
    /// Measure every kind of operation beside its price.
    Prices(prices::Arguments),
    /// Look where the time of the experiments goes: how much is in matrix products, in copies, in waiting.
    Profile(profile::Arguments),
    /// The service's pages in a real browser: what they show, by keyboard, on a phone, and what axe says.
    Browser,
    /// Kill the service at random moments under load, and see that nothing is lost or done twice.
    Crash(crash::Arguments),
    /// Measure the service under many people, packed and one at a time.
    Load(load::Arguments),
    /// The service under mixed good and hostile load for long: its memory stays flat.
    Soak(soak::Arguments),
    /// The Python package: build it in place, test it, hold it to torch and to nnsight, make its notebooks.
    Python(package::Arguments),
    /// Hold random programs on every family to what is promised for all: planned as naive, alone as beside others.
    Random(random::Arguments),
    /// Fuzz the program decoder and checker.
    Fuzz(fuzz::Arguments),
}

fn main() -> std::process::ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Test(arguments) => test::run(&arguments),
        Command::Golden(arguments) => golden::run(&arguments),
        Command::Experiments => experiments::run(),
        Command::Faults(arguments) => faults::run(&arguments),
        Command::Smollm2 => smollm2::run(),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Prices(arguments) => prices::run(&arguments),
        Command::Profile(arguments) => profile::run(&arguments),
        Command::Browser => browser::run(),
        Command::Crash(arguments) => crash::run(&arguments),
        Command::Load(arguments) => load::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Python(arguments) => package::run(&arguments),
        Command::Random(arguments) => random::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
