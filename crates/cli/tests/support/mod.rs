//! Running the command.

#![allow(dead_code, reason = "each test uses some of it")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The command in the repository's folder, with nothing of the tester's own environment and settings that matters to it, but the
/// instruction set that tests are run on.
pub fn in_clean_environment(mut command: Command) -> Command {
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("PELLUCID_") && text != "PELLUCID_ISA";
        if ours || text.starts_with("OTEL_") || text == "COLUMNS" {
            command.env_remove(name);
        }
    }
    command
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .env("XDG_CONFIG_HOME", "/nowhere")
        .env("HF_HUB_OFFLINE", "1")
        .stdin(Stdio::null());
    command
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pellucid"));
    command.args(arguments);
    in_clean_environment(command)
}

pub fn pellucid(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub fn fed(mut command: Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

pub fn with_input(arguments: &[&str], input: &str) -> Output {
    fed(command(arguments), input)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard output of a command that succeeds and says nothing else.
pub fn printed(arguments: &[&str]) -> String {
    let output = pellucid(arguments);
    assert_eq!((text(&output.stderr), output.status.code()), (String::new(), Some(0)), "{arguments:?}");
    text(&output.stdout)
}

/// Standard error and exit code of a command that prints nothing.
pub fn refused(output: Output) -> (String, i32) {
    assert_eq!(text(&output.stdout), "");
    (text(&output.stderr), output.status.code().unwrap())
}

pub fn scratch(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}
