//! What a trace runs: invokes with their prompts, hook points and steps, generation and sampling.

use super::NodeId;

/// One or more invokes and one graph.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Trace {
    /// The model it runs on, as the engine knows it by name; none: the program's own.
    pub model: Option<String>,
    /// Edits of all its invokes, in order. Expanded, there are none.
    pub edits: Vec<NodeId>,
    /// Its inputs.
    pub invokes: Vec<Invoke>,
    /// How to generate; none: one forward pass.
    pub generation: Option<Generation>,
    /// Its graph, in program order.
    pub body: Vec<NodeId>,
}

/// One input, with the rows that belong to it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Invoke {
    /// Its name, unique in the trace: the wire refers to invokes by name.
    pub name: String,
    /// What goes in.
    pub prompts: Prompts,
    /// Edits of this invoke, in order, after those of all invokes of its trace. Expanded, there are none.
    pub edits: Vec<NodeId>,
    /// Which invoke of which cell it was expanded from; none: it stood in the program as it is.
    pub origin: Option<InvokeOrigin>,
}

impl Invoke {
    /// An invoke of that name.
    pub fn new(name: impl Into<String>, prompts: Prompts) -> Invoke {
        Invoke { name: name.into(), prompts, edits: Vec::new(), origin: None }
    }

    /// The name that its author gave it.
    pub fn label(&self) -> &str {
        self.origin.as_ref().map_or(&self.name, |origin| &origin.label)
    }

    /// What keys the noise of an invoke's sampling: its cell's coordinates, then its place in the trace as its author
    /// wrote it.
    pub fn noise_coordinates(&self, place: usize) -> Vec<u64> {
        match &self.origin {
            None => vec![place as u64],
            Some(origin) => origin.coordinates.iter().copied().chain([origin.place]).collect(),
        }
    }
}

/// Where an expanded invoke comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InvokeOrigin {
    /// Its name in the program as written.
    pub label: String,
    /// Its place among the invokes that its trace, and the sweeps and loops around it inside that trace, have.
    pub place: u64,
    /// Its cell: see [`Origin::coordinates`](super::Origin::coordinates).
    pub coordinates: Vec<u64>,
}

/// The prompts of an invoke.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompts {
    /// Texts, tokenised by the model's tokenizer where the program is admitted.
    Text {
        /// The prompts.
        texts: Vec<String>,
        /// Whether the tokenizer adds its own default special tokens.
        special_tokens: bool,
    },
    /// Token ids, one list for each prompt.
    Tokens(Vec<Vec<u32>>),
    /// Surface: those of a parameter of prompts, for each cell its own.
    Axis(NodeId),
}

impl Default for Prompts {
    fn default() -> Self {
        Prompts::Tokens(Vec::new())
    }
}

impl Prompts {
    /// How many prompts; 0 where only a cell knows.
    pub fn count(&self) -> usize {
        match self {
            Prompts::Text { texts, .. } => texts.len(),
            Prompts::Tokens(tokens) => tokens.len(),
            Prompts::Axis(_) => 0,
        }
    }
}

/// A hook point of one invoke, at one step or at the current one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HookAddress {
    /// The place in [`Trace::invokes`].
    pub invoke: usize,
    /// `<module path>.<name>`, canonical or by alias.
    pub hook: String,
    /// The step of a generation, outside a `steps` body; none: step 0, or the body's own step inside one.
    pub step: Option<u64>,
}

/// Which steps of a generation: `from`, up to and without `to`, every `every`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepSelection {
    /// The first step.
    pub from: u64,
    /// The step before which it ends; none: the generation's last.
    pub to: Option<u64>,
    /// The distance from one step to the next, at least 1.
    pub every: u64,
}

impl StepSelection {
    /// Whether that step of a generation of `total` steps is chosen.
    pub fn contains(&self, step: u64, total: u64) -> bool {
        let end = self.to.unwrap_or(total).min(total);
        step >= self.from && step < end && (step - self.from).is_multiple_of(self.every.max(1))
    }
}

/// How a trace generates.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// How many tokens are made at most: step 0 is the prompt's, so there are as many steps as new tokens.
    pub max_new_tokens: u64,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Token ids that end a prompt's generation; none: the model's own.
    pub stop_tokens: Option<Vec<u32>>,
    /// Texts that end a prompt's generation.
    pub stop_texts: Vec<String>,
}

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0: the most probable token (greedy). Above: logits are divided by it before sampling.
    pub temperature: f64,
    /// Only so many of the most probable tokens are considered; none: all.
    pub top_k: Option<u64>,
    /// Only the most probable tokens that together reach this probability are considered; none: all.
    pub top_p: Option<f64>,
    /// Logits of tokens already present are divided (if positive) or multiplied (if negative) by it; 1: no penalty.
    pub repetition_penalty: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.0, top_k: None, top_p: None, repetition_penalty: 1.0 }
    }
}
