//! Traces that run together are told as if they had run one after another.
//!
//! A trace's turn comes when all before it are over. Its nodes, and those that stand between it and the next, give what they save and log
//! in its turn: what they have given before is kept until then. A node that fails before its trace's turn cuts the program off there: from that
//! trace on nothing runs any more, the traces before it come to their ends, and then it has failed. If one of these fails, that is why.

use std::collections::BTreeMap;

use pellucid_graph::NodeId;

use super::Job;
use crate::error::EngineError;
use crate::results::LogEntry;
use crate::tensor::Tensor;

/// What a node gives to whoever runs the program.
pub(super) enum Given {
    Saved(String, Tensor),
    Logged(LogEntry),
}

/// The traces that run together.
#[derive(Default)]
pub(super) struct Turns {
    traces: Vec<NodeId>,
    /// What nodes have given before their turn.
    early: BTreeMap<NodeId, Given>,
    /// The trace that failed before its turn, and why.
    fault: Option<(NodeId, EngineError)>,
}

impl Job<'_> {
    /// Those traces begin; it is the first one's turn.
    pub fn begin_turns(&mut self, traces: &[NodeId]) {
        self.trace = traces.first().copied();
        self.turns.traces = traces.to_vec();
    }

    /// The next trace's turn comes, if there is one among those that run together.
    pub fn next_turn(&mut self) -> bool {
        let mut coming = self.turns.traces.iter().copied().skip_while(|&trace| Some(trace) <= self.trace);
        let (Some(next), after) = (coming.next(), coming.next()) else { return false };
        self.trace = Some(next);
        let later = after.map(|after| self.turns.early.split_off(&after)).unwrap_or_default();
        for (id, given) in std::mem::replace(&mut self.turns.early, later) {
            self.at_node = Some(id);
            self.tell(id, given);
        }
        if let Some((_, error)) = self.turns.fault.take_if(|(trace, _)| *trace <= next) {
            self.failed.get_or_insert(error);
        }
        true
    }

    /// Whether a node stands where the program does not come to any more.
    pub fn is_cut_off(&self, id: NodeId) -> bool {
        self.turns.fault.as_ref().is_some_and(|(trace, _)| id >= *trace)
    }

    /// A node has failed: the program ends there, now or when the traces before it are over.
    pub(super) fn fail_in_turn(&mut self, id: NodeId, error: EngineError) {
        if self.failed.is_some() || self.is_cut_off(id) {
            return;
        }
        match self.turn_of(id) {
            Some(trace) if self.trace < Some(trace) => self.turns.fault = Some((trace, error)),
            _ => self.failed = Some(error),
        }
    }

    /// Files what a node gives, and tells it when its turn has come.
    pub(super) fn give(&mut self, id: NodeId, given: Given) {
        if self.turn_of(id) > self.trace {
            self.turns.early.insert(id, given);
        } else {
            self.tell(id, given);
        }
    }

    /// In which trace's turn a node is.
    fn turn_of(&self, id: NodeId) -> Option<NodeId> {
        let traces = &self.turns.traces;
        let before = traces.partition_point(|&trace| trace <= id);
        traces.get(before.saturating_sub(1)).copied()
    }
}
