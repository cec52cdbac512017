//! Which traces of a session can run together, because none of them depends on another.

use std::collections::HashMap;

use super::Checker;
use super::price::{WAVE_TOKENS, forward_bytes};
use crate::limits;
use crate::program::{GradientOf, NodeId, NodeKind, Prompts, Trace};
use crate::rules::ASSUMED_LENGTH;

/// What is known of one trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedTrace {
    /// The trace.
    pub id: NodeId,
    /// Whether it can run together with the trace before it, and with those with which that one runs: all are of one step on
    /// one model, with nothing that goes back and no weights set, and none reads a value that comes from another.
    pub joins: bool,
    /// Bytes of all values that come from it and from no later trace, those that are saved or logged counted again, at most.
    pub bytes: u64,
}

/// What is found out of a trace on the way.
#[derive(Clone, Default)]
struct Known {
    /// The latest other trace that it reads from.
    reads: Option<usize>,
    /// Whether it does more than to go once forward.
    special: bool,
    bytes: u64,
}

impl Checker<'_> {
    /// Which traces run together: as many that follow one another and of which none reads from another as have the tokens
    /// of one wave, and not too many bytes.
    pub(super) fn together(&self) -> Vec<CheckedTrace> {
        let known = self.known_of_traces();
        let mut traces: Vec<CheckedTrace> = Vec::with_capacity(known.len());
        // Of those that run together: the place of the first, tokens, bytes.
        let (mut first, mut tokens, mut bytes) = (0, 0_u64, 0_u64);
        for (place, ((id, trace), known)) in self.program.traces().zip(&known).enumerate() {
            let (own_tokens, own_bytes) = self.rows_of(id, trace);
            let own_bytes = own_bytes.saturating_add(known.bytes);
            let model = |id: NodeId| self.nodes[id.index()].model;
            let joins = traces.last().is_some_and(|before| model(before.id) == model(id))
                && !known.special
                && known.reads.is_none_or(|read| read < first)
                && place - first < limits::TRACES_TOGETHER
                && tokens.saturating_add(own_tokens) <= WAVE_TOKENS
                && bytes.saturating_add(own_bytes) <= limits::TOGETHER_BYTES;
            if !joins {
                (first, tokens, bytes) = (place, 0, 0);
            }
            // Nothing joins a trace that does more than to go once forward.
            tokens = if known.special { u64::MAX } else { tokens.saturating_add(own_tokens) };
            bytes = bytes.saturating_add(own_bytes);
            traces.push(CheckedTrace { id, joins, bytes: known.bytes });
        }
        traces
    }

    fn known_of_traces(&self) -> Vec<Known> {
        let places: HashMap<NodeId, usize> =
            self.program.traces().enumerate().map(|(place, (id, _))| (id, place)).collect();
        let mut known = vec![Known::default(); places.len()];
        // Of each node: the latest trace that it comes from.
        let mut from: Vec<Option<usize>> = vec![None; self.program.nodes.len()];
        for position in 0..self.program.nodes.len() {
            let (id, checked) = (NodeId(position as u32), &self.nodes[position]);
            let own = checked.trace.and_then(|trace| places.get(&trace).copied());
            from[position] = own;
            if !checked.needed {
                continue;
            }
            let node = self.program.node(id);
            let mut reads: Vec<NodeId> = node.values().iter().map(|value| value.node).collect();
            if let Some((backward, of)) = node.kind.gradient() {
                reads.push(backward);
                if let GradientOf::Value(value) = of {
                    reads.push(value.node);
                }
            }
            for read in reads {
                let read = from[read.index()];
                from[position] = from[position].max(read);
                if let (Some(own), Some(read)) = (own, read)
                    && own != read
                {
                    known[own].reads = known[own].reads.max(Some(read));
                }
            }
            if let Some(own) = own {
                known[own].special |= is_special(&node.kind);
            }
            if let Some(latest) = from[position] {
                known[latest].bytes = known[latest].bytes.saturating_add(self.bytes_of(id));
            }
        }
        for (id, trace) in self.program.traces() {
            known[places[&id]].special |= trace.generation.is_some();
        }
        for plan in &self.gradients {
            for node in plan.path.iter().chain(&plan.targets).chain([&plan.backward]) {
                let trace = self.nodes[node.index()].trace;
                if let Some(&place) = trace.as_ref().and_then(|trace| places.get(trace)) {
                    known[place].special = true;
                }
            }
        }
        known
    }

    /// Bytes of what a node gives, or keeps to the end.
    fn bytes_of(&self, id: NodeId) -> u64 {
        let outputs = match self.program.node(id).kind {
            NodeKind::Save(value) | NodeKind::Log(value) => {
                let outputs = &self.nodes[value.node.index()].outputs;
                outputs.get(value.output as usize).map_or(&[][..], std::slice::from_ref)
            }
            _ => &self.nodes[id.index()].outputs,
        };
        outputs.iter().fold(0, |sum, output| sum.saturating_add(output.bytes(ASSUMED_LENGTH)))
    }

    /// A trace's tokens, and the bytes that they take in a pass.
    fn rows_of(&self, id: NodeId, trace: &Trace) -> (u64, u64) {
        let (mut tokens, mut bytes) = (0_u64, 0_u64);
        let mut add = |length: u64| {
            tokens = tokens.saturating_add(length);
            bytes = bytes.saturating_add(forward_bytes(self.spec(id), length, length));
        };
        for invoke in &trace.invokes {
            match &invoke.prompts {
                Prompts::Tokens(prompts) => prompts.iter().for_each(|tokens| add(tokens.len() as u64)),
                Prompts::Text { texts, .. } => texts.iter().for_each(|_| add(ASSUMED_LENGTH)),
                Prompts::Axis(_) => {}
            }
        }
        (tokens, bytes)
    }
}

/// Whether a trace that has it does more than to go once forward.
fn is_special(kind: &NodeKind) -> bool {
    matches!(
        kind,
        NodeKind::Steps { .. }
            | NodeKind::Stop { .. }
            | NodeKind::Generated(_)
            | NodeKind::SetWeight { .. }
            | NodeKind::Backward { .. }
            | NodeKind::Grad { .. }
            | NodeKind::SetGrad { .. }
    )
}
