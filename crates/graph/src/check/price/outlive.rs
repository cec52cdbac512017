//! Which values of a `steps` body are held for all of its steps at once.
//!
//! The invokes of a generation need not stand at the same step: one may be through with all of its steps before another begins. What
//! a body reads of the first, and needs together with something of the other, is then held for every step. So is what waits
//! for a later step than the body's own.

use std::collections::HashMap;

use super::super::Checker;
use crate::program::{NodeId, NodeKind};

/// What of its own trace's generation a value comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Nothing,
    /// One invoke, at that step at the latest; of a body's nodes, as they are at its first step.
    Invoke(usize, u64),
    Several,
}

impl Origin {
    fn with(self, other: Origin) -> Origin {
        match (self, other) {
            (Origin::Nothing, origin) | (origin, Origin::Nothing) => origin,
            (Origin::Invoke(one, step), Origin::Invoke(two, later)) if one == two => {
                Origin::Invoke(one, step.max(later))
            }
            _ => Origin::Several,
        }
    }
}

impl Checker<'_> {
    /// Of each node: whether its values of several steps may be held at once.
    pub(super) fn outlive_their_step(&self) -> Vec<bool> {
        let mut outlive = vec![false; self.program.nodes.len()];
        if !self.nodes.iter().any(|checked| checked.steps.is_some()) {
            return outlive;
        }
        let (origins, of_bodies) = self.come_after();
        for (position, reader) in self.nodes.iter().enumerate() {
            let Some(owner) = reader.steps.filter(|_| reader.needed) else { continue };
            let first = match &self.program.node(owner).kind {
                NodeKind::Steps { steps, .. } => steps.from,
                _ => 0,
            };
            for value in self.program.nodes[position].values() {
                let read = value.node.index();
                if self.nodes[read].steps != reader.steps {
                    continue;
                }
                outlive[read] |= match origins[read] {
                    // It may be made as soon as the first of the body's invokes is there.
                    Origin::Nothing => match of_bodies.get(&owner) {
                        Some(Origin::Invoke(_, step)) => *step > first,
                        of_body => of_body == Some(&Origin::Several),
                    },
                    Origin::Invoke(..) => origins[position] != origins[read],
                    // Of which ones is not told apart: there may be a third.
                    Origin::Several => true,
                };
            }
        }
        outlive
    }

    /// What each node comes after, and what the nodes of each body do together.
    fn come_after(&self) -> (Vec<Origin>, HashMap<NodeId, Origin>) {
        let mut origins: Vec<Origin> = Vec::with_capacity(self.nodes.len());
        let mut of_bodies: HashMap<NodeId, Origin> = HashMap::new();
        for (position, checked) in self.nodes.iter().enumerate() {
            let id = NodeId(position as u32);
            let own = self.event(id).filter(|_| checked.trace.is_some());
            let own = own.map_or(Origin::Nothing, |(invoke, (step, ..))| Origin::Invoke(invoke, step));
            // What other traces give is there before this one begins.
            let read = self.waits_for(id).into_iter().map(|read| read.index());
            let read = read.filter(|&read| self.nodes[read].trace == checked.trace);
            let origin = read.fold(own, |origin, read| origin.with(origins[read]));
            if let Some(owner) = checked.steps.filter(|_| checked.needed) {
                let of_body = of_bodies.entry(owner).or_insert(Origin::Nothing);
                *of_body = of_body.with(origin);
            }
            origins.push(origin);
        }
        (origins, of_bodies)
    }
}
