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

use std::fs::File;
use std::io::{Read, Write};

use serde::Serialize;

use crate::failure::Failure;
use crate::text;

/// Writes a value as JSON, laid out for people, with a newline.
pub(crate) fn write_json(value: &impl Serialize, out: &mut dyn Write) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Message(error.to_string()))?;
    Ok(writeln!(out, "{text}")?)
}

/// The bytes of a file, or of standard input for `-`: at most so many.
pub(crate) fn read_input(name: &str, most: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    // One byte more shows that there are more.
    let bound = most as u64 + 1;
    let outcome = if name == "-" {
        std::io::stdin().lock().take(bound).read_to_end(&mut bytes)
    } else {
        File::open(name).and_then(|file| file.take(bound).read_to_end(&mut bytes))
    };
    let name = if name == "-" { "standard input" } else { name };
    outcome.map_err(|error| Failure::File { name: name.to_owned(), error })?;
    if bytes.len() > most {
        let message =
            format!("{name}: more than {}, which is the most that is read", text::bytes(most as u64));
        return Err(Failure::Message(message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_without_an_end_is_refused() {
        let refused = read_input("/dev/zero", 1_000).unwrap_err().to_string();
        assert_eq!(refused, "/dev/zero: more than 1.0 kB, which is the most that is read");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 1_000]).unwrap();
        let name = file.path().to_str().unwrap();
        assert_eq!(read_input(name, 1_000).unwrap().len(), 1_000);
        assert!(read_input(name, 999).is_err());
    }
}
