//! Edits: stacks of changes to a model, as data, which later programs build on.

use std::panic::Location;
use std::path::Path;
use std::sync::Arc;

use pellucid_graph::fault::Fault;
use pellucid_graph::{Edit as Definition, NodeKind, Program};

use crate::builder::{Builder, Scope};
use crate::error::{Error, Result};
use crate::invoke::Invoke;
use crate::model::Model;
use crate::trace::Trace;
use crate::value::{Index, Value, Writer};

/// A stack of edits of one invoke, as data: written once, kept in a file, and added to any trace or invoke of later
/// programs. The model itself stays as it is, for whoever else uses it.
///
/// ```
/// use pellucid::{Edit, Model, s};
///
/// # fn main() -> pellucid::Result<()> {
/// let model = Model::bundled()?;
/// let quiet = model.edit("quiet", |_, prompt| prompt.layer(2).edit_output(|output| output * 0.5))?;
/// let path = std::env::temp_dir().join("quiet.edit");
/// quiet.save(&path)?;
///
/// let trace = model.trace();
/// let plain = trace.invoke("The capital of France is");
/// let edited = trace.invoke("The capital of France is");
/// edited.edited_by(&Edit::load(&path)?);
/// (edited.logits() - plain.logits()).abs().amax(..).save("moved");
/// assert!(trace.run()?["moved"].to_vec_f32()?[0] > 0.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// A program whose body ends with the edit.
    program: Program,
}

impl Edit {
    /// The edit with which a program's body ends.
    ///
    /// # Errors
    /// [`Error::Faults`] where it ends with something else.
    pub fn from_program(program: Program) -> Result<Edit> {
        let last = program.body.last().and_then(|id| program.nodes.get(id.index()));
        match last.map(|node| &node.kind) {
            Some(NodeKind::Edit(_)) => Ok(Edit { program }),
            _ => Err(Error::Faults(
                Fault::new("the program is no edit")
                    .with_hint("an edit is a program whose body ends with an `edit`")
                    .into(),
            )),
        }
    }

    /// The edit as a program: what stands in its body is written into every program that uses it.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Its name.
    pub fn name(&self) -> &str {
        let last = self.program.body.last().and_then(|id| self.program.nodes.get(id.index()));
        last.map_or("", |node| node.name.as_str())
    }

    /// Reads an edit from its file.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be read, [`Error::Faults`] where it holds no edit.
    pub fn load(path: impl AsRef<Path>) -> Result<Edit> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| Error::File { path: path.to_owned(), error })?;
        Edit::from_program(Program::from_bytes(&bytes)?)
    }

    /// Writes the edit to a file: JSON, or a safetensors file where it has constants.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = self.program.to_bytes()?;
        std::fs::write(path, bytes).map_err(|error| Error::File { path: path.to_owned(), error })
    }
}

/// An edit while it is written: tensors of its own, and weights of the model.
#[derive(Clone, Debug)]
pub struct EditBody {
    builder: Arc<Builder>,
    scope: Scope,
}

impl EditBody {
    #[track_caller]
    pub(crate) fn writer(&self) -> Writer<'_> {
        Writer { builder: &self.builder, scope: self.scope, location: Location::caller() }
    }

    /// A parameter of the model as it was loaded: see [`Trace::weight`].
    #[track_caller]
    pub fn weight(&self, parameter: &str) -> Value {
        self.writer().node("", NodeKind::Weight { parameter: parameter.to_owned(), index: None })
    }

    /// A part of a parameter: see [`Trace::weight_at`].
    #[track_caller]
    pub fn weight_at(&self, parameter: &str, index: impl Into<Index>) -> Value {
        let mut writer = self.writer();
        let index = Some(index.into().resolve(&mut writer));
        writer.node("", NodeKind::Weight { parameter: parameter.to_owned(), index })
    }
}

impl Model {
    /// Writes an edit: what the closure reads and sets of the invoke it is given. In a generation the edit counts at every
    /// step; weights that it sets count for all of them. It is checked where it is used.
    ///
    /// # Errors
    /// [`Error::Faults`]: what was already seen to be wrong while it was written.
    #[track_caller]
    pub fn edit(&self, name: &str, write: impl FnOnce(&EditBody, &Invoke)) -> Result<Edit> {
        let builder: Arc<Builder> = Arc::default();
        let kind = NodeKind::Edit(Definition { invoke: "x".to_owned(), ..Definition::default() });
        let (id, _) = builder.node(Scope::SESSION, name.to_owned(), kind, Location::caller());
        let scope = Scope { trace: Some(id), owner: Some(id) };
        let invoke = Invoke::new(builder.clone(), scope, builder.edited_invoke(id));
        write(&EditBody { builder: builder.clone(), scope }, &invoke);
        Edit::from_program(builder.finish()?)
    }
}

impl Trace {
    /// Edits all invokes of the trace, before anything that the trace itself does: several edits in the order in which
    /// they are given.
    pub fn edited_by(&self, edit: &Edit) {
        let builder = &self.session().builder;
        if let Some(id) = builder.import(edit.program()) {
            builder.with_trace(self.id(), |trace| trace.edits.push(id));
        }
    }
}

impl Invoke {
    /// Edits this invoke, before anything that its trace itself does, after the edits of all invokes of the trace.
    pub fn edited_by(&self, edit: &Edit) {
        if let Some(id) = self.builder().import(edit.program()) {
            self.builder().edit_invoke(self.number(), id);
        }
    }
}
