//! Sessions: traces in sequence, whose values flow from one to the next.

use std::panic::Location;
use std::sync::Arc;

use pellucid_engine::{Explanation, RunOptions};
use pellucid_graph::Program;
use pellucid_graph::check::CheckedProgram;

use crate::builder::{Builder, Scope};
use crate::error::Result;
use crate::model::Model;
use crate::results::Results;
use crate::trace::Trace;
use crate::value::Writer;

/// Traces in sequence. A value of one can be used in those after it, without leaving the engine in between.
///
/// ```
/// use pellucid::{Model, s};
///
/// # fn main() -> pellucid::Result<()> {
/// let model = Model::bundled()?;
/// let session = model.session();
/// let read = session.trace();
/// let hidden = read.invoke("The Eiffel Tower is in the city of").layer(2).output();
///
/// let write = session.trace();
/// let target = write.invoke("The capital of Japan is");
/// target.layer(2).edit_output(|output| output.index_put(s![.., -1], hidden.index(s![.., -1])));
/// target.logits().index(s![0, -1]).argmax(..).save("token");
///
/// let token = session.run()?["token"].to_vec_i64()?[0];
/// assert_eq!(model.decode(&[token as u32])?, " Paris");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Session {
    model: Model,
    pub(crate) builder: Arc<Builder>,
}

impl Session {
    pub(crate) fn new(model: Model) -> Session {
        Session { model, builder: Arc::default() }
    }

    #[track_caller]
    pub(crate) fn writer(&self) -> Writer<'_> {
        Writer { builder: &self.builder, scope: Scope::SESSION, location: Location::caller() }
    }

    /// Opens the session's next trace.
    #[track_caller]
    pub fn trace(&self) -> Trace {
        let id = self.builder.trace("", Location::caller());
        Trace::new(self.clone(), id)
    }

    /// Opens the session's next trace, on a model beside the session's own: one of those of [`Model::with_model`].
    #[track_caller]
    pub fn trace_on(&self, model: &str) -> Trace {
        let id = self.builder.trace("", Location::caller());
        self.builder.with_trace(id, |trace| trace.model = Some(model.to_owned()));
        Trace::new(self.clone(), id)
    }

    /// The model it is for.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Sets the seed of everything random in the session: random constructors and sampling. Without it, 0.
    pub fn seed(&self, seed: u64) {
        self.builder.set_seed(seed);
    }

    /// The session as a program: data that can be written down, sent and run elsewhere.
    ///
    /// # Errors
    /// [`Error::Faults`](crate::Error::Faults): what was already seen to be wrong while it was written.
    pub fn program(&self) -> Result<Program> {
        Ok(self.builder.finish()?)
    }

    /// Checks the session against its model. Nothing runs.
    ///
    /// # Errors
    /// [`Error::Faults`](crate::Error::Faults): everything that is wrong with it, each with the line it was written in.
    pub fn check(&self) -> Result<CheckedProgram> {
        self.model.check(self.program()?)
    }

    /// What would be computed where, and at what price. Nothing runs.
    ///
    /// # Errors
    /// Those of [`Session::check`].
    pub fn explain(&self) -> Result<Explanation> {
        self.model.explain_program(self.program()?)
    }

    /// Runs the session, and says what each of its passes took beside what was estimated: see [`Model::analyze_program`].
    ///
    /// # Errors
    /// Those of [`Session::run_with`]; [`Error::NotHere`](crate::Error::NotHere) of a model at a service.
    pub fn analyze(&self, options: &RunOptions) -> Result<(Explanation, Results)> {
        self.model.analyze_program(self.program()?, options)
    }

    /// Runs the session's traces and gives back what they save.
    ///
    /// # Errors
    /// Those of [`Session::check`], and [`Error::Run`](crate::Error::Run) where the run itself fails; at a service also
    /// [`Error::Remote`](crate::Error::Remote).
    pub fn run(&self) -> Result<Results> {
        self.run_with(&RunOptions::default())
    }

    /// [`Session::run`], with bounds, cancellation, or a listener for logs and tokens. At a service the time that it may take
    /// begins when the service takes it, and the bound on memory is the service's own.
    ///
    /// # Errors
    /// Those of [`Session::run`], and those of the bounds.
    pub fn run_with(&self, options: &RunOptions) -> Result<Results> {
        self.model.run_program(self.program()?, options)
    }
}
