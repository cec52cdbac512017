//! Invokes: one input each, with the part of the graph that belongs to it.

use std::fmt::Display;
use std::panic::Location;
use std::sync::Arc;

use pellucid_graph::fault::Fault;
use pellucid_graph::{Cache, HookAddress, NodeKind, SetAll, WildcardAddress};

use crate::builder::{Builder, Scope, source};
use crate::module::Module;
use crate::pattern::Pattern;
use crate::value::{Value, Writer};

/// One input of a trace: a prompt, or several, and the model's computation on it. Its hook points are read and written
/// by their paths: `<module path>.<name>`, with Hugging Face's module paths (`transformer.h.5.attn.output`) or the
/// standard names that work on every family (`layers.5.attention.output`, `logits`).
///
/// An invoke reads and writes its own prompts only. After a hook point is set, reading it gives the new value.
#[derive(Clone, Debug)]
pub struct Invoke {
    builder: Arc<Builder>,
    scope: Scope,
    index: usize,
    step: Option<u64>,
}

impl Invoke {
    pub(crate) fn new(builder: Arc<Builder>, scope: Scope, index: usize) -> Invoke {
        Invoke { builder, scope, index, step: None }
    }

    pub(crate) fn in_scope(&self, builder: Arc<Builder>, scope: Scope) -> Invoke {
        if !Arc::ptr_eq(&builder, &self.builder) || scope.trace != self.scope.trace {
            builder.fault(Fault::new("`steps` names an invoke of another trace"));
        }
        Invoke { builder, scope, index: self.index, step: None }
    }

    pub(crate) fn builder(&self) -> &Arc<Builder> {
        &self.builder
    }

    pub(crate) fn number(&self) -> usize {
        self.index
    }

    #[track_caller]
    fn writer(&self) -> Writer<'_> {
        Writer { builder: &self.builder, scope: self.scope, location: Location::caller() }
    }

    /// Whether it is one of that trace of that program.
    pub(crate) fn stands_in(&self, builder: &Arc<Builder>, scope: Scope) -> bool {
        Arc::ptr_eq(builder, &self.builder) && scope.trace == self.scope.trace
    }

    pub(crate) fn address(&self, hook: &str, location: &'static Location<'static>) -> HookAddress {
        let outside_steps = self.scope.owner == self.scope.trace;
        if outside_steps && self.step.is_none() && self.builder.has_open_steps() {
            let fault = Fault::new(format!("`{hook}` is addressed inside `steps`, but not at a step"))
                .with_hint("take the invoke at the current step with `step.at(&invoke)`, or at a fixed one with `invoke.at_step(k)`");
            self.builder.fault(Fault { source: Some(source(location)), ..fault });
        }
        HookAddress { invoke: self.index, hook: hook.to_owned(), step: self.step }
    }

    /// The same invoke under a name of its own, by which errors and the written program call it: letters, digits and
    /// `_`, unique in the trace.
    #[must_use]
    pub fn named(self, name: &str) -> Invoke {
        self.builder.name_invoke(self.index, name);
        self
    }

    /// The same invoke at a step of the generation: step 0 is the prompt's.
    #[must_use]
    pub fn at_step(&self, step: u64) -> Invoke {
        Invoke { step: Some(step), ..self.clone() }
    }

    /// Reads a hook point.
    #[track_caller]
    pub fn get(&self, hook: &str) -> Value {
        let writer = self.writer();
        writer.node("", NodeKind::Get(self.address(hook, writer.location)))
    }

    /// Replaces a hook point's value by one of the same shape, or one that expands to it.
    #[track_caller]
    pub fn set(&self, hook: &str, value: &Value) {
        let mut writer = self.writer();
        let address = self.address(hook, writer.location);
        let scope = writer.scope;
        let value = writer.read(value);
        // A setter stands in its invoke's own body, wherever its value was computed.
        writer.scope = scope;
        writer.node("", NodeKind::Set { address, value });
    }

    /// Reads a hook point, and replaces its value by what `change` makes of it.
    #[track_caller]
    pub fn edit(&self, hook: &str, change: impl FnOnce(Value) -> Value) {
        let value = change(self.get(hook));
        self.set(hook, &value);
    }

    /// Reads every hook point that matches a pattern, stacked along a new first dimension in the order in which a forward
    /// pass reaches them: `invoke.get_all("layers.*.attention.mixed")`. See [`Pattern`].
    #[track_caller]
    pub fn get_all(&self, pattern: impl Into<Pattern>) -> Value {
        let writer = self.writer();
        let address = self.wildcard(pattern.into(), writer.location);
        writer.node("", NodeKind::GetAll(address))
    }

    /// Replaces the value of every hook point that matches a pattern by the same value.
    #[track_caller]
    pub fn set_all(&self, pattern: impl Into<Pattern>, value: &Value) {
        self.write_all(pattern.into(), value, false, self.writer());
    }

    /// Replaces the value of every hook point that matches a pattern, each by its own row of the value: what
    /// [`Invoke::get_all`] reads is written back by `set_each`.
    #[track_caller]
    pub fn set_each(&self, pattern: impl Into<Pattern>, value: &Value) {
        self.write_all(pattern.into(), value, true, self.writer());
    }

    fn write_all(&self, pattern: Pattern, value: &Value, each: bool, mut writer: Writer<'_>) {
        let scope = writer.scope;
        let value = writer.read(value);
        writer.scope = scope;
        let address = self.wildcard(pattern, writer.location);
        writer.node("", NodeKind::SetAll(SetAll { address, value, each }));
    }

    /// Saves every hook point that matches a pattern, each as `name/<its path>`: `invoke.cache("all", "**")` saves all that
    /// there are.
    #[track_caller]
    pub fn cache(&self, name: &str, pattern: impl Into<Pattern>) {
        let writer = self.writer();
        let address = self.wildcard(pattern.into(), writer.location);
        writer.node(name, NodeKind::Cache(Cache { address }));
    }

    pub(crate) fn wildcard(&self, pattern: Pattern, location: &'static Location<'static>) -> WildcardAddress {
        let HookAddress { invoke, hook, step } = self.address(&pattern.pattern, location);
        WildcardAddress { invoke, pattern: hook, except: pattern.except, step }
    }

    /// Gives a module's output without running the module: of its shape, or one that expands to it. Nothing inside the
    /// module can be read or set in the same pass.
    #[track_caller]
    pub fn skip(&self, module: &str, value: &Value) {
        let mut writer = self.writer();
        let step = self.address(module, writer.location).step;
        let scope = writer.scope;
        let value = writer.read(value);
        writer.scope = scope;
        writer.node("", NodeKind::Skip { invoke: self.index, module: module.to_owned(), step, value });
    }

    /// Runs the invoke with another parameter, of the same shape, in a parameter's place: in all of its steps, and in no
    /// other invoke. The value must be known before the invoke begins: it may come from other invokes, from earlier traces,
    /// and from [`Trace::weight`](crate::Trace::weight).
    #[track_caller]
    pub fn set_weight(&self, parameter: &str, value: &Value) {
        let mut writer = self.writer();
        let scope = writer.scope;
        let value = writer.read(value);
        writer.scope = scope;
        writer.node("", NodeKind::SetWeight { invoke: self.index, parameter: parameter.to_owned(), value });
    }

    /// Ends the generation of the prompts for which a bool holds (`[prompts]`, or one for all), after this step's token.
    /// For an invoke at the current step: `step.at(&invoke).stop(&found)`.
    #[track_caller]
    pub fn stop(&self, when: &Value) {
        let mut writer = self.writer();
        let scope = writer.scope;
        let when = writer.read(when);
        writer.scope = scope;
        writer.node("", NodeKind::Stop { invoke: self.index, when });
    }

    /// A module by its path (`transformer.h.5.attn`) or standard name (`layers.5.attention`).
    pub fn module(&self, path: &str) -> Module {
        Module::new(self.clone(), path.to_owned())
    }

    /// The block at that depth, from 0; in a sweep or loop over layers, that of a parameter: `invoke.layer("{layer}")`.
    pub fn layer(&self, layer: impl Display) -> Module {
        self.module(&format!("layers.{layer}"))
    }

    /// The token embedding.
    pub fn embed(&self) -> Module {
        self.module("embed")
    }

    /// The norm after the last block.
    pub fn final_norm(&self) -> Module {
        self.module("final_norm")
    }

    /// The unembedding.
    pub fn unembed(&self) -> Module {
        self.module("unembed")
    }

    /// The logits, `[prompts, length, vocabulary]`. Only the positions that are read are computed.
    #[track_caller]
    pub fn logits(&self) -> Value {
        self.get("logits")
    }

    /// The token ids, `[prompts, length]`, i64, padded with 0 on the left.
    #[track_caller]
    pub fn tokens(&self) -> Value {
        self.writer().node("", NodeKind::Tokens(self.index))
    }

    /// The number of tokens of each prompt, `[prompts]`, i64.
    #[track_caller]
    pub fn lengths(&self) -> Value {
        self.writer().node("", NodeKind::Lengths(self.index))
    }

    /// Which cells of the invoke's rectangle are real, `[prompts, length]`, bool.
    #[track_caller]
    pub fn mask(&self) -> Value {
        self.writer().node("", NodeKind::Mask(self.index))
    }

    /// The tokens that the generation made, `[prompts, max_new_tokens]`, i64; −1 after a prompt had stopped.
    #[track_caller]
    pub fn generated(&self) -> Value {
        self.writer().node("", NodeKind::Generated(self.index))
    }
}
