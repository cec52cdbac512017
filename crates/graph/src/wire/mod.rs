//! How a program travels: JSON that a person can write by hand, or a safetensors file that holds the same JSON in its
//! metadata and the program's constants as its tensors.
//!
//! Reading takes any bytes at all and gives a program or every fault that it finds, quickly: the text is looked over
//! before anything is allocated ([`crate::limits`]), the nodes are listed with their names, and then each is read.
//! What is read is well-formed (references point to earlier values that can be seen, every argument has the kind of its
//! parameter); whether it makes sense on a model is the checker's to say.
//!
//! ```
//! use pellucid_graph::Program;
//!
//! let text = br#"{ "pellucid": 1, "body": [
//!     { "op": "trace", "invokes": [{ "prompt": "The Eiffel Tower is in" }], "body": [
//!         { "op": "get", "name": "h", "hook": "layers.2.output" },
//!         { "op": "getitem", "name": "last", "input": "h", "index": [":", -1] },
//!         { "op": "save", "name": "residual", "value": "last" } ] } ] }"#;
//! let program = Program::from_json(text)?;
//! assert_eq!(program.nodes.len(), 4);
//! assert_eq!(Program::from_json(program.to_json().as_bytes())?, program);
//!
//! let slip = Program::from_json(br#"{ "pellucid": 1, "body": [{ "op": "trase" }] }"#).unwrap_err();
//! assert_eq!(slip.0[0].hint.as_deref(), Some("did you mean `trace`?"));
//! # Ok::<(), pellucid_graph::Faults>(())
//! ```

mod container;
mod form;
mod hints;
mod json;
mod layout;
mod outline;
mod read_argument;
mod read_gradient;
mod read_program;
mod read_region;
mod read_trace;
mod reader;
mod scan;
mod schema;
mod write;

use std::collections::BTreeMap;

use crate::fault::{Fault, Faults};
use crate::program::{Constant, Program};

pub(crate) use hints::of_node as hint_of_node;
pub use layout::pretty;
pub use schema::schema;

/// The version of the wire format: the field `pellucid` of a program.
pub const VERSION: i64 = 1;

/// The key of a safetensors file's metadata under which the program's JSON stands.
pub const PROGRAM_KEY: &str = "pellucid.program";

impl Program {
    /// Reads a program from its JSON.
    ///
    /// # Errors
    /// Every fault that is found, up to [`crate::limits::FAULTS`]. A program that names constants is faulty here: they
    /// travel in a safetensors file.
    pub fn from_json(bytes: &[u8]) -> Result<Program, Faults> {
        read_program::read(bytes, BTreeMap::new())
    }

    /// Reads a program from its JSON, and from what holds its constants beside it.
    ///
    /// ```
    /// use pellucid_graph::{DType, Program, program::Constant};
    ///
    /// let text = br#"{ "pellucid": 1, "body": [{ "op": "constant", "name": "c", "key": "k" }] }"#;
    /// let constant = Constant { dtype: DType::U8, shape: vec![2], bytes: vec![1, 2] };
    /// assert!(Program::from_json(text).is_err());
    /// let program = Program::from_json_with(text, [("k".to_owned(), constant)].into())?;
    /// assert_eq!(Program::from_safetensors(&program.to_safetensors()?)?, program);
    /// # Ok::<(), pellucid_graph::Faults>(())
    /// ```
    ///
    /// # Errors
    /// Every fault that is found.
    pub fn from_json_with(bytes: &[u8], constants: BTreeMap<String, Constant>) -> Result<Program, Faults> {
        read_program::read(bytes, constants)
    }

    /// The program as JSON in its canonical form, without white space. Constants are named, not held: see
    /// [`Program::to_safetensors`].
    pub fn to_json(&self) -> String {
        write::program(self).to_string()
    }

    /// The same, laid out for people.
    pub fn to_json_pretty(&self) -> String {
        layout::pretty(&write::program(self))
    }

    /// Reads a program from a safetensors file: its JSON stands in the metadata under [`PROGRAM_KEY`], its constants are
    /// the file's tensors.
    ///
    /// # Errors
    /// Every fault that is found, of the file or else of the program.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Program, Faults> {
        container::read(bytes).map_err(|faults| hints::or_hint(faults, hints::FILE))
    }

    /// The program as a safetensors file, constants included.
    ///
    /// # Errors
    /// A constant whose bytes do not fill its shape, or a name or header that the format cannot hold.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, Faults> {
        container::write(self)
    }

    /// Reads a program from either form, whichever the bytes are.
    ///
    /// # Errors
    /// Every fault that is found.
    pub fn from_bytes(bytes: &[u8]) -> Result<Program, Faults> {
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        // A safetensors file begins with its header's length in eight bytes, of which the last is 0 in any that fits
        // into memory; the header's own `{` follows.
        match (first, bytes.get(7), bytes.get(8)) {
            (Some(b'{'), last, _) if last != Some(&0) => Program::from_json(bytes),
            (_, _, Some(b'{')) => Program::from_safetensors(bytes),
            _ => Err(Fault::new("neither JSON nor a safetensors file").with_hint(hints::FILE).into()),
        }
    }

    /// The program in the form that holds all of it: a safetensors file if it has constants, else JSON.
    ///
    /// # Errors
    /// Those of [`Program::to_safetensors`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Faults> {
        if self.constants.is_empty() { Ok(self.to_json().into_bytes()) } else { self.to_safetensors() }
    }
}
