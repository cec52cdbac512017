//! Traces: inputs, and one graph over them.

use std::ops::{Bound, RangeBounds};
use std::panic::Location;

use pellucid_engine::{Explanation, RunOptions};
use pellucid_graph::fault::Fault;
use pellucid_graph::{NodeId, NodeKind, Program, Prompts, StepSelection};

use crate::backward::Backward;
use crate::builder::{Scope, source};
use crate::error::Result;
use crate::generation::Generation;
use crate::invoke::Invoke;
use crate::prompts::IntoPrompts;
use crate::results::Results;
use crate::session::Session;
use crate::steps::Steps;
use crate::value::{Index, Value, Writer};

/// One or more invokes and one graph over them. Values of its invokes can be used in one another freely, in either
/// direction: what runs first is the planner's affair.
///
/// Nothing is computed while a trace is written; [`Trace::run`] runs it.
#[derive(Clone, Debug)]
pub struct Trace {
    session: Session,
    id: NodeId,
}

impl Trace {
    pub(crate) fn new(session: Session, id: NodeId) -> Trace {
        Trace { session, id }
    }

    fn scope(&self) -> Scope {
        Scope { trace: Some(self.id), owner: Some(self.id) }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    #[track_caller]
    pub(crate) fn writer(&self) -> Writer<'_> {
        Writer { builder: &self.session.builder, scope: self.scope(), location: Location::caller() }
    }

    /// Adds an input: a prompt, or several (`["one", "two"]`), which share the invoke's part of the graph. Several
    /// prompts of unequal length are seen as a rectangle, padded on the left.
    ///
    /// The tokenizer adds its own default special tokens; for exact tokens see [`Trace::invoke_tokens`].
    pub fn invoke(&self, prompts: impl IntoPrompts) -> Invoke {
        self.add(prompts.into_prompts())
    }

    /// Adds an input of token ids, a list for each prompt: `trace.invoke_tokens([[464, 3139]])`.
    pub fn invoke_tokens<T: AsRef<[u32]>>(&self, prompts: impl IntoIterator<Item = T>) -> Invoke {
        self.add(Prompts::Tokens(prompts.into_iter().map(|tokens| tokens.as_ref().to_vec()).collect()))
    }

    fn add(&self, prompts: Prompts) -> Invoke {
        let builder = &self.session.builder;
        let index = builder.add_invoke(self.id, prompts);
        Invoke::new(builder.clone(), self.scope(), index)
    }

    /// Makes the trace a generation: every invoke goes on for at most so many new tokens. `trace.generate(20)` is greedy;
    /// see [`Generation`] for more.
    pub fn generate(&self, generation: impl Into<Generation>) {
        let generation = generation.into().0;
        self.session.builder.with_trace(self.id, |trace| trace.generation = Some(generation));
    }

    /// The part of the graph that runs at each of the chosen steps of a generation: `trace.steps(1.., |step| …)`. Step 0
    /// is the prompt's; N new tokens take steps 0 to N−1. Inside, [`Steps::at`] gives an invoke at the current step.
    #[track_caller]
    pub fn steps<R>(&self, range: impl RangeBounds<u64>, body: impl FnOnce(&Steps) -> R) -> R {
        self.write_steps(range, 1, Location::caller(), body)
    }

    /// [`Trace::steps`], at every so manieth step of the range.
    #[track_caller]
    pub fn steps_every<R>(
        &self,
        range: impl RangeBounds<u64>,
        every: u64,
        body: impl FnOnce(&Steps) -> R,
    ) -> R {
        self.write_steps(range, every, Location::caller(), body)
    }

    fn write_steps<R>(
        &self,
        range: impl RangeBounds<u64>,
        every: u64,
        location: &'static Location<'static>,
        body: impl FnOnce(&Steps) -> R,
    ) -> R {
        let from = match range.start_bound() {
            Bound::Included(&from) => from,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&last) => Some(last.saturating_add(1)),
            Bound::Excluded(&to) => Some(to),
            Bound::Unbounded => None,
        };
        let builder = &self.session.builder;
        let kind = NodeKind::Steps { steps: StepSelection { from, to, every }, body: Vec::new() };
        let (id, around) = builder.node(self.scope(), String::new(), kind, location);
        let scope = Scope { trace: around.trace, owner: Some(id) };
        let steps = Steps::new(builder.clone(), scope);
        if builder.open(scope, true) {
            let fault = Fault::new("`steps` cannot stand inside `steps`");
            builder.fault(Fault { source: Some(source(location)), ..fault });
        }
        let result = body(&steps);
        builder.close();
        result
    }

    /// A parameter of the model as it was loaded, f32 in the checkpoint's layout: `trace.weight("lm_head.weight")`, or by an
    /// alias of its module, `layers.3.norm_1.weight`.
    #[track_caller]
    pub fn weight(&self, parameter: &str) -> Value {
        self.writer().node("", NodeKind::Weight { parameter: parameter.to_owned(), index: None })
    }

    /// A part of a parameter: `trace.weight_at("lm_head.weight", s![token])`. Of an index that begins with a place or a
    /// slice only those rows are read.
    #[track_caller]
    pub fn weight_at(&self, parameter: &str, index: impl Into<Index>) -> Value {
        let mut writer = self.writer();
        let index = Some(index.into().resolve(&mut writer));
        writer.node("", NodeKind::Weight { parameter: parameter.to_owned(), index })
    }

    /// Goes back from a value of one element, a loss or a logit: see [`Backward`].
    #[track_caller]
    pub fn backward(&self, of: &Value) -> Backward {
        Backward::new(self.writer(), of, None)
    }

    /// Goes back from a value of any shape, with a cotangent of that shape.
    #[track_caller]
    pub fn backward_with(&self, of: &Value, cotangent: &Value) -> Backward {
        Backward::new(self.writer(), of, Some(cotangent))
    }

    pub(crate) fn has_invokes(&self) -> bool {
        let builder = &self.session.builder;
        builder.with_trace(self.id, |trace| !trace.invokes.is_empty()).unwrap_or(false)
    }

    /// How many tokens each invoke may generate: 0 where the trace is no generation.
    pub(crate) fn max_new_tokens(&self) -> u64 {
        let builder = &self.session.builder;
        let tokens = builder.with_trace(self.id, |trace| trace.generation.as_ref().map(|g| g.max_new_tokens));
        tokens.flatten().unwrap_or(0)
    }

    /// The session that it stands in: its own, unless it was opened in one.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Sets the seed of everything random: see [`Session::seed`].
    pub fn seed(&self, seed: u64) {
        self.session.seed(seed);
    }

    /// The trace's session as a program: see [`Session::program`].
    ///
    /// # Errors
    /// Those of [`Session::program`].
    pub fn program(&self) -> Result<Program> {
        self.session.program()
    }

    /// What would be computed where, and at what price: see [`Session::explain`].
    ///
    /// # Errors
    /// Those of [`Session::check`].
    pub fn explain(&self) -> Result<Explanation> {
        self.session.explain()
    }

    /// Runs the trace, and says what each of its passes took: see [`Session::analyze`].
    ///
    /// # Errors
    /// Those of [`Session::analyze`].
    pub fn analyze(&self, options: &RunOptions) -> Result<(Explanation, Results)> {
        self.session.analyze(options)
    }

    /// Runs the trace and gives back what it saves. A trace of a session runs with the whole session.
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn run(&self) -> Result<Results> {
        self.session.run()
    }

    /// [`Trace::run`], with bounds, cancellation, or a listener for logs and tokens.
    ///
    /// # Errors
    /// Those of [`Session::run_with`].
    pub fn run_with(&self, options: &RunOptions) -> Result<Results> {
        self.session.run_with(options)
    }
}
