//! `pellucid config`.

use std::io::Write;

use super::arguments::ConfigCommand;
use super::{finished, read};
use crate::failure::Failure;

/// Checks a configuration, or shows one.
pub(crate) fn config(command: &ConfigCommand, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        ConfigCommand::Example => Ok(out.write_all(pellucid_server::config::EXAMPLE.as_bytes())?),
        ConfigCommand::Check { configuration } => {
            let config = finished(read(configuration)?)?;
            writeln!(out, "{}", config.to_toml()?)?;
            let unusable = config.unusable();
            if !unusable.is_empty() {
                let all: Vec<String> = unusable.iter().map(|fault| format!("  {fault}")).collect();
                return Err(Failure::Message(format!(
                    "the configuration cannot be used:\n{}",
                    all.join("\n")
                )));
            }
            let server = &config.server;
            if !server.listen.ip().is_loopback() && server.certificate.is_none() {
                eprintln!(
                    "note: keys travel in the clear to {}; use a certificate, or a proxy that has one",
                    server.listen
                );
            }
            Ok(writeln!(out, "the configuration can be used")?)
        }
    }
}
