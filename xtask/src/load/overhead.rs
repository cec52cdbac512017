//! What a run at a service costs beyond one here, on loopback: one program, here and there in turn, by the library.

use std::process::Command;

use serde_json::Value;

use super::patching;
use super::service::Service;
use crate::shell::{Outcome, cargo, run as command, target};

pub(super) fn measure(source: &str, layers: usize) -> Outcome<String> {
    let service = Service::start(source, true, 1)?;
    let program = target().join("overhead-program.json");
    std::fs::write(&program, patching(0, 0, layers).to_string())?;
    // The whole workspace is named, so that its dependencies have the features with which they were built already.
    command(&mut cargo(&["build", "--release", "--workspace", "--example", "overhead"]))?;
    let mut measure = Command::new(target().join("release/examples/overhead"));
    measure.arg(source).arg(service.address()).arg(&program).env("PELLUCID_API_KEY", service.key(0));
    let output = measure.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let found: Value = serde_json::from_slice(&output.stdout)?;
    let of = |name: &str| found[name].as_f64().unwrap_or(f64::NAN);
    Ok(format!(
        "Activation patching on 10 tokens, {} times here and at a service on loopback in turn, by the library; milliseconds, the median\n\
         with the quartiles. The difference is that of the two runs of a turn.\n\n\
         | here | at the service | difference | aim |\n| ---: | ---: | ---: | ---: |\n\
         | {:.2} ({:.2}–{:.2}) | {:.2} ({:.2}–{:.2}) | {:.2} ({:.2}–{:.2}) | 3 |\n",
        found["rounds"],
        of("here"),
        of("here_q1"),
        of("here_q3"),
        of("there"),
        of("there_q1"),
        of("there_q3"),
        of("difference"),
        of("difference_q1"),
        of("difference_q3"),
    ))
}
