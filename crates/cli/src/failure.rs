//! Errors and exit codes.

use std::fmt;
use std::io;
use std::process::ExitCode;

use pellucid::{EngineError, Error, OperationError};

/// The command failed.
const FAILED: u8 = 1;
/// The program is wrong, and was not run. (2 is the command line's own: it was not understood.)
const REFUSED: u8 = 3;
/// Ctrl-C, as shells number it: 128 and the signal.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command ends without its result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error of the library.
    Library(Error),
    /// A file of the caller's, or standard input.
    File {
        /// Which.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// A program that is not one: what is wrong with its text.
    Program {
        /// The file.
        name: String,
        /// What is wrong.
        faults: pellucid::Faults,
    },
    /// Standard output is closed or full.
    Output(io::Error),
    /// Something else, as a message.
    Message(String),
}

impl Failure {
    /// Says what happened on standard error, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            // Whoever read the output has seen enough: `pellucid … | head` is no error.
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Failure::Library(Error::Run(failure)) if failure.error == EngineError::Cancelled => {
                eprintln!("interrupted");
                return ExitCode::from(INTERRUPTED);
            }
            _ => eprintln!("error: {self}"),
        }
        match self {
            Failure::Library(Error::Faults(_)) | Failure::Program { .. } => ExitCode::from(REFUSED),
            _ => ExitCode::from(FAILED),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Library(error) => error.fmt(formatter),
            Failure::File { name, error } => write!(formatter, "{name}: {error}"),
            Failure::Program { name, faults } => write!(formatter, "{name} is not a program\n\n{faults}"),
            Failure::Output(error) => write!(formatter, "standard output: {error}"),
            Failure::Message(message) => formatter.write_str(message),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Library(error)
    }
}

impl From<pellucid::client::Error> for Failure {
    fn from(error: pellucid::client::Error) -> Self {
        Failure::Library(error.into())
    }
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        Failure::Library(error.into())
    }
}

/// Files are [`Failure::File`]; what is left is what is written to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}
