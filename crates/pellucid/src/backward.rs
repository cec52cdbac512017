//! Gradients.

use std::panic::Location;
use std::sync::Arc;

use pellucid_graph::fault::Fault;
use pellucid_graph::{GradAll, GradientOf, NodeId, NodeKind, SetGradAll, WildcardAddress};

use crate::builder::{Builder, Scope, source};
use crate::invoke::Invoke;
use crate::pattern::Pattern;
use crate::value::{Value, Writer};

/// The way back from one value: its gradients with respect to whatever it was computed from, read and written.
///
/// ```
/// use pellucid::{Model, s};
///
/// # fn main() -> pellucid::Result<()> {
/// let model = Model::bundled()?;
/// let paris = i64::from(model.token(" Paris")?);
/// let trace = model.trace();
/// let prompt = trace.invoke("The Eiffel Tower is in the city of");
/// let hidden = prompt.layer(1).output(); // [prompts, length, hidden]
/// let loss = -prompt.logits().index(s![0, -1]).log_softmax(-1).index(s![paris]);
///
/// let back = trace.backward(&loss);
/// (back.grad(&hidden) * &hidden).sum(-1).save("attribution"); // [prompts, length]
/// back.hook_grad(&prompt, "layers.0.attention.pattern").save("pattern");
///
/// let results = trace.run()?;
/// assert_eq!(results["attribution"].shape().len(), 2);
/// assert!(results["pattern"].to_vec_f32()?.iter().any(|gradient| *gradient != 0.0));
/// # Ok(())
/// # }
/// ```
///
/// A written gradient flows on: what is computed before it is what changes. So a layer's part can be left out, or doubled.
///
/// ```
/// use pellucid::{Model, s};
///
/// # fn main() -> pellucid::Result<()> {
/// # let model = Model::bundled()?;
/// let trace = model.trace();
/// let prompt = trace.invoke("The Eiffel Tower is in the city of");
/// let back = trace.backward(&prompt.logits().index(s![0, -1, 0]));
/// let gradient = back.hook_grad(&prompt, "layers.2.mlp.output");
/// back.set_hook_grad(&prompt, "layers.2.mlp.output", &(gradient * 0.0));
/// back.hook_grad(&prompt, "layers.2.mlp.input").save("nothing");
/// assert!(trace.run()?["nothing"].to_vec_f32()?.iter().all(|gradient| *gradient == 0.0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Backward {
    builder: Arc<Builder>,
    scope: Scope,
    id: NodeId,
}

impl Backward {
    pub(crate) fn new(mut writer: Writer<'_>, of: &Value, cotangent: Option<&Value>) -> Backward {
        let of = writer.read(of);
        let cotangent = cotangent.map(|cotangent| writer.read(cotangent));
        let value = writer.node("", NodeKind::Backward { of, cotangent });
        Backward { builder: writer.builder.clone(), scope: writer.scope, id: value.node_id() }
    }

    #[track_caller]
    fn writer(&self) -> Writer<'_> {
        Writer { builder: &self.builder, scope: self.scope, location: Location::caller() }
    }

    fn hook(&self, invoke: &Invoke, hook: &str, location: &'static Location<'static>) -> GradientOf {
        self.of_own_trace(invoke, hook, location);
        GradientOf::Hook(invoke.address(hook, location))
    }

    fn hooks(
        &self,
        invoke: &Invoke,
        pattern: Pattern,
        location: &'static Location<'static>,
    ) -> WildcardAddress {
        let address = invoke.wildcard(pattern, location);
        self.of_own_trace(invoke, &address.pattern, location);
        // There is no way back across steps.
        WildcardAddress { step: None, ..address }
    }

    fn of_own_trace(&self, invoke: &Invoke, hook: &str, location: &'static Location<'static>) {
        if !invoke.stands_in(&self.builder, self.scope) {
            let fault =
                Fault::new(format!("the gradient of `{hook}` is asked of an invoke of another trace"))
                    .with_hint("gradients flow through the model within one trace");
            self.builder.fault(Fault { source: Some(source(location)), ..fault });
        }
    }

    /// The gradient with respect to a value: of its shape and number type. Of a hook point that was read, it is that of
    /// the version that was read.
    #[track_caller]
    pub fn grad(&self, value: &Value) -> Value {
        let mut writer = self.writer();
        let of = GradientOf::Value(writer.read(value));
        writer.scope = self.scope;
        writer.node("", NodeKind::Grad { backward: self.id, of })
    }

    /// The gradient with respect to a hook point: of the version that flowed on, after all edits.
    #[track_caller]
    pub fn hook_grad(&self, invoke: &Invoke, hook: &str) -> Value {
        let writer = self.writer();
        let of = self.hook(invoke, hook, writer.location);
        writer.node("", NodeKind::Grad { backward: self.id, of })
    }

    /// The gradients with respect to every hook point that matches a pattern, stacked along a new first dimension in the
    /// order in which a forward pass reaches them: `back.hook_grads(&prompt, "layers.*.attention.mixed")`.
    #[track_caller]
    pub fn hook_grads(&self, invoke: &Invoke, pattern: impl Into<Pattern>) -> Value {
        let writer = self.writer();
        let address = self.hooks(invoke, pattern.into(), writer.location);
        writer.node("", NodeKind::GradAll(GradAll { backward: self.id, address }))
    }

    /// Replaces the gradient with respect to every hook point that matches a pattern by the same one.
    #[track_caller]
    pub fn set_hook_grads(&self, invoke: &Invoke, pattern: impl Into<Pattern>, gradient: &Value) {
        self.write_all(invoke, pattern.into(), gradient, false, self.writer());
    }

    /// Replaces the gradient with respect to every hook point that matches a pattern, each by its own row: what
    /// [`Backward::hook_grads`] reads is written back by it.
    #[track_caller]
    pub fn set_each_hook_grad(&self, invoke: &Invoke, pattern: impl Into<Pattern>, gradients: &Value) {
        self.write_all(invoke, pattern.into(), gradients, true, self.writer());
    }

    fn write_all(
        &self,
        invoke: &Invoke,
        pattern: Pattern,
        gradient: &Value,
        each: bool,
        mut writer: Writer<'_>,
    ) {
        let address = self.hooks(invoke, pattern, writer.location);
        let value = writer.read(gradient);
        writer.scope = self.scope;
        writer.node("", NodeKind::SetGradAll(SetGradAll { backward: self.id, address, value, each }));
    }

    /// Replaces the gradient with respect to a value by one of its shape, or one that expands to it; it flows on.
    #[track_caller]
    pub fn set_grad(&self, value: &Value, gradient: &Value) {
        let mut writer = self.writer();
        let of = GradientOf::Value(writer.read(value));
        let value = writer.read(gradient);
        writer.scope = self.scope;
        writer.node("", NodeKind::SetGrad { backward: self.id, of, value });
    }

    /// Replaces the gradient with respect to a hook point; it flows on.
    #[track_caller]
    pub fn set_hook_grad(&self, invoke: &Invoke, hook: &str, gradient: &Value) {
        let mut writer = self.writer();
        let of = self.hook(invoke, hook, writer.location);
        let value = writer.read(gradient);
        writer.scope = self.scope;
        writer.node("", NodeKind::SetGrad { backward: self.id, of, value });
    }
}

impl Value {
    /// Goes back from the value, of one element: a loss or a logit. The gradients stand in the body in which the value
    /// does.
    #[track_caller]
    pub fn backward(&self) -> Backward {
        Backward::new(self.writer(), self, None)
    }

    /// Goes back from the value, of any shape, with a cotangent of that shape.
    #[track_caller]
    pub fn backward_with(&self, cotangent: &Value) -> Backward {
        Backward::new(self.writer(), self, Some(cotangent))
    }
}
