//! What a program will cost: an upper estimate from its shapes and the model's.

use serde::{Deserialize, Serialize};

use super::Checker;
use crate::program::{NodeId, NodeKind, Prompts};
use crate::rules::{ASSUMED_LENGTH, RuleContext};

/// What a program will cost, at most; prompts that are not tokenised yet are taken to have 128 tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Price {
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes held at once beside the model's weights, at most.
    pub peak_bytes: u64,
    /// Bytes of the saved results.
    pub result_bytes: u64,
    /// Tokens that pass through the model.
    pub tokens: u64,
}

impl Checker<'_> {
    pub(super) fn price(&self) -> Price {
        let mut price = Price::default();
        for (id, trace) in self.program.traces() {
            let steps = trace.generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
            let mut peak = 0u64;
            // What going back once takes, and what is kept for it.
            let (mut back_flops, mut kept) = (0u64, 0u64);
            for invoke in &trace.invokes {
                let lengths: Vec<u64> = match &invoke.prompts {
                    Prompts::Tokens(prompts) => prompts.iter().map(|tokens| tokens.len() as u64).collect(),
                    Prompts::Text { texts, .. } => vec![ASSUMED_LENGTH; texts.len()],
                };
                for length in lengths {
                    let context = length.saturating_add(steps - 1);
                    price.tokens = price.tokens.saturating_add(context);
                    price.flops = price.flops.saturating_add(self.forward_flops(context));
                    back_flops = back_flops.saturating_add(self.forward_flops(context).saturating_mul(2));
                    kept = kept.saturating_add(self.kept_bytes(length));
                    peak = peak.saturating_add(self.forward_bytes(length, context));
                }
            }
            let mut values = 0u64;
            for position in 0..self.program.nodes.len() {
                let node = NodeId(position as u32);
                if self.nodes[position].trace != Some(id) || !self.nodes[position].needed {
                    continue;
                }
                let repeats = self.repeats(node, steps);
                price.flops = price.flops.saturating_add(self.node_flops(node).saturating_mul(repeats));
                let bytes = self.nodes[position]
                    .outputs
                    .iter()
                    .fold(0u64, |sum, output| sum.saturating_add(output.bytes(ASSUMED_LENGTH)));
                values = values.saturating_add(bytes);
                if let NodeKind::Save(value) = &self.program.node(node).kind {
                    let saved = self.nodes[value.node.index()].outputs.get(value.output as usize);
                    let bytes = saved.map_or(0, |saved| saved.bytes(ASSUMED_LENGTH)).saturating_mul(repeats);
                    price.result_bytes = price.result_bytes.saturating_add(bytes);
                }
            }
            let back =
                self.gradients.iter().filter(|plan| self.nodes[plan.backward.index()].trace == Some(id));
            if back.clone().next().is_some() {
                peak = peak.saturating_add(kept);
            }
            for plan in back {
                price.flops = price.flops.saturating_add(back_flops);
                for &node in &plan.path {
                    price.flops = price.flops.saturating_add(self.node_flops(node).saturating_mul(2));
                }
            }
            price.peak_bytes = price.peak_bytes.max(peak.saturating_add(values));
        }
        let constants = self
            .program
            .constants
            .values()
            .fold(0u64, |sum, constant| sum.saturating_add(constant.bytes.len() as u64));
        price.peak_bytes = price.peak_bytes.saturating_add(constants).saturating_add(price.result_bytes);
        price
    }

    /// How often a node runs.
    fn repeats(&self, id: NodeId, total: u64) -> u64 {
        match self.nodes[id.index()].steps.map(|owner| &self.program.node(owner).kind) {
            Some(NodeKind::Steps { steps, .. }) => {
                let end = steps.to.unwrap_or(total).min(total);
                end.saturating_sub(steps.from).div_ceil(steps.every.max(1))
            }
            _ => 1,
        }
    }

    /// Two operations for each weight of a matrix and each token, and attention's own products.
    fn forward_flops(&self, context: u64) -> u64 {
        let sizes = &self.spec.sizes;
        let embedding = sizes.vocabulary.saturating_mul(sizes.hidden);
        let matrices = self.spec.parameters.iter().filter(|parameter| parameter.shape.len() == 2);
        let weights = matrices.fold(0u64, |sum, parameter| {
            sum.saturating_add(
                parameter.shape.iter().fold(1u64, |product, &size| product.saturating_mul(size)),
            )
        });
        let weights = weights.max(embedding);
        let attention =
            sizes.layers.saturating_mul(sizes.heads).saturating_mul(sizes.head_size).saturating_mul(4);
        let pairs = context.saturating_mul(context.saturating_add(1)) / 2;
        weights.saturating_mul(2).saturating_mul(context).saturating_add(attention.saturating_mul(pairs))
    }

    /// The buffers of a pass for one prompt, and its keys and values.
    fn forward_bytes(&self, length: u64, context: u64) -> u64 {
        let sizes = &self.spec.sizes;
        let attention = sizes.heads.saturating_mul(sizes.head_size);
        let width = sizes
            .hidden
            .saturating_mul(4)
            .saturating_add(sizes.inner.saturating_mul(2))
            .saturating_add(attention.saturating_mul(4));
        let cache = sizes
            .layers
            .saturating_mul(sizes.key_value_heads)
            .saturating_mul(sizes.head_size)
            .saturating_mul(2);
        let logits = sizes.vocabulary;
        length
            .saturating_mul(width.saturating_add(logits))
            .saturating_add(context.saturating_mul(cache))
            .saturating_mul(4)
    }

    /// What is kept of a pass for the way back, for one prompt: what every layer's norms, activations and attention read.
    fn kept_bytes(&self, length: u64) -> u64 {
        let sizes = &self.spec.sizes;
        let attention = sizes.heads.saturating_mul(sizes.head_size);
        let layer = sizes
            .hidden
            .saturating_mul(2)
            .saturating_add(sizes.inner.saturating_mul(3))
            .saturating_add(attention.saturating_mul(3));
        length.saturating_mul(sizes.layers).saturating_mul(layer).saturating_mul(4)
    }

    fn node_flops(&self, id: NodeId) -> u64 {
        match &self.program.node(id).kind {
            NodeKind::Operation(operation) => {
                let type_of = |value: crate::program::Value| {
                    self.nodes[value.node.index()].outputs[value.output as usize].clone()
                };
                let mut symbol = self.next_symbol;
                let mut context = RuleContext { operation, type_of: &type_of, next_symbol: &mut symbol };
                (operation.kind.definition().rule)(&mut context).map_or(0, |typed| typed.flops)
            }
            NodeKind::Apply { .. } => {
                let Some(module) =
                    self.nodes[id.index()].module.and_then(|module| self.spec.modules.get(module))
                else {
                    return 0;
                };
                let prefix = format!("{}.", module.path);
                let own = self.spec.parameters.iter().filter(|parameter| parameter.name.starts_with(&prefix));
                let weights = own.fold(0u64, |sum, parameter| {
                    sum.saturating_add(
                        parameter.shape.iter().fold(1u64, |product, &size| product.saturating_mul(size)),
                    )
                });
                // A tied unembedding has no parameter of its own.
                let weights = if weights == 0 {
                    self.spec.sizes.vocabulary.saturating_mul(self.spec.sizes.hidden)
                } else {
                    weights
                };
                let rows = self.nodes[id.index()].outputs.first().map_or(0, |output| {
                    let width = output.shape.last().map_or(1, |last| last.assume(ASSUMED_LENGTH)).max(1);
                    output.elements(ASSUMED_LENGTH) / width
                });
                weights.saturating_mul(2).saturating_mul(rows)
            }
            NodeKind::Get(_) | NodeKind::Set { .. } => {
                self.nodes[id.index()].outputs.first().map_or(0, |output| output.elements(ASSUMED_LENGTH))
            }
            _ => 0,
        }
    }
}
