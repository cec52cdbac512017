//! A module of the model in one invoke.

use crate::invoke::Invoke;
use crate::value::Value;

/// A module of the model in one invoke: its hook points by name.
///
/// | name, under | shape | is |
/// | --- | --- | --- |
/// | `input`, `output`, any module | the module's | one tensor: the first argument; the result, or its first member |
/// | `query`, `key`, `value`, attention | `[prompts, length, heads, head size]` | as they enter the dot product; `query_pre`, `key_pre`: before rotation |
/// | `scores`, attention | `[prompts, heads, length, context]` | what enters the softmax: scaled, masked with −∞ |
/// | `pattern`, attention | `[prompts, heads, length, context]` | the softmax's result |
/// | `mixed`, attention | `[prompts, length, heads, head size]` | pattern times value, before the output projection |
/// | `pre`, `post`, MLP | `[prompts, length, inner]` | before and after the activation function; `up`: the linear branch of a gated MLP |
/// | `scale`, norm | `[prompts, length, 1]` | the divisor |
#[derive(Clone, Debug)]
pub struct Module {
    invoke: Invoke,
    path: String,
}

impl Module {
    pub(crate) fn new(invoke: Invoke, path: String) -> Module {
        Module { invoke, path }
    }

    /// Its path, as it was given.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A module inside it, by its path from here.
    #[must_use]
    pub fn child(&self, path: &str) -> Module {
        Module { invoke: self.invoke.clone(), path: format!("{}.{path}", self.path) }
    }

    /// A block's attention.
    #[must_use]
    pub fn attention(&self) -> Module {
        self.child("attention")
    }

    /// A block's MLP.
    #[must_use]
    pub fn mlp(&self) -> Module {
        self.child("mlp")
    }

    /// A block's norm before its attention.
    #[must_use]
    pub fn norm_1(&self) -> Module {
        self.child("norm_1")
    }

    /// A block's norm before its MLP.
    #[must_use]
    pub fn norm_2(&self) -> Module {
        self.child("norm_2")
    }

    fn hook(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    /// Reads a hook point of the module: `layer.attention().get("pattern")`.
    #[track_caller]
    pub fn get(&self, name: &str) -> Value {
        self.invoke.get(&self.hook(name))
    }

    /// Replaces a hook point's value by one of the same shape, or one that expands to it.
    #[track_caller]
    pub fn set(&self, name: &str, value: &Value) {
        self.invoke.set(&self.hook(name), value);
    }

    /// Reads a hook point, and replaces its value by what `change` makes of it.
    #[track_caller]
    pub fn edit(&self, name: &str, change: impl FnOnce(Value) -> Value) {
        self.invoke.edit(&self.hook(name), change);
    }

    /// Gives the module's output without running it: see [`Invoke::skip`].
    #[track_caller]
    pub fn skip(&self, value: &Value) {
        self.invoke.skip(&self.path, value);
    }

    /// What goes into the module.
    #[track_caller]
    pub fn input(&self) -> Value {
        self.get("input")
    }

    /// What comes out of the module; of a block: the residual stream after it.
    #[track_caller]
    pub fn output(&self) -> Value {
        self.get("output")
    }

    /// Replaces what goes into the module.
    #[track_caller]
    pub fn set_input(&self, value: &Value) {
        self.set("input", value);
    }

    /// Replaces what comes out of the module.
    #[track_caller]
    pub fn set_output(&self, value: &Value) {
        self.set("output", value);
    }

    /// Replaces what goes into the module by what `change` makes of it.
    #[track_caller]
    pub fn edit_input(&self, change: impl FnOnce(Value) -> Value) {
        self.edit("input", change);
    }

    /// Replaces what comes out of the module by what `change` makes of it.
    #[track_caller]
    pub fn edit_output(&self, change: impl FnOnce(Value) -> Value) {
        self.edit("output", change);
    }
}
