//! One module for each command.

pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod explain;
pub(crate) mod generate;
pub(crate) mod jobs;
pub(crate) mod lens;
pub(crate) mod login;
pub(crate) mod models;
pub(crate) mod run;
pub(crate) mod status;

use std::io::{Read, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Writes a value as JSON, laid out for people, with a newline.
pub(crate) fn write_json(value: &impl Serialize, out: &mut dyn Write) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Message(error.to_string()))?;
    Ok(writeln!(out, "{text}")?)
}

/// The bytes of a file, or of standard input for `-`.
pub(crate) fn read_input(name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let outcome = if name == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(name).map(|read| bytes = read)
    };
    let name = if name == "-" { "standard input" } else { name };
    outcome.map_err(|error| Failure::File { name: name.to_owned(), error })?;
    Ok(bytes)
}
