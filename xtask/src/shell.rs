//! Running other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What goes wrong here is told to the developer as it is.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folder of what is built.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into)
}

/// A cargo command in the repository's root, with the toolchain that runs us.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    // What cargo tells a program of its own package would make build scripts run again that ask for it.
    for (name, _) in std::env::vars_os() {
        let own = name.to_string_lossy();
        if own.starts_with("CARGO_PKG_") || own.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// [`run`], and what the command prints to its standard output, which is printed here, too.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let line = described(command);
    println!("\n==> {line}");
    let told = command.stderr(Stdio::inherit()).output();
    let told = told.map_err(|error| format!("cannot run `{line}`: {error}"))?;
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    print!("{text}");
    if told.status.success() { Ok(text) } else { Err(format!("`{line}` failed ({})", told.status).into()) }
}

/// Runs a command, printed before it; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let line = described(command);
    println!("\n==> {line}");
    let status = command.status().map_err(|error| format!("cannot run `{line}`: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed ({status})").into()) }
}

/// A command as it would be typed.
fn described(command: &Command) -> String {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let variables: Vec<String> = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={} ", name.to_string_lossy(), value?.to_string_lossy())))
        .collect();
    format!("{}{}", variables.concat(), words.join(" "))
}
