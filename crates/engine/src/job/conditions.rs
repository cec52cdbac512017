//! What never comes: nodes whose conditions do not hold, nodes of steps that a generation never reached, and all that
//! reads them.

use std::collections::BTreeSet;

use pellucid_graph::{NodeId, NodeKind, Value};

use super::{Instance, Job, OUTSIDE};
use crate::loaded::Loaded;
use crate::slots::BufferPool;

impl Job<'_> {
    /// Whether a value is there, or never comes.
    pub fn is_settled(&self, instance: Instance) -> bool {
        self.done.contains(&instance) || self.lost.contains(&instance)
    }

    /// Whether a node cannot run, from what is known now: something that it needs never comes, or a condition does not
    /// hold.
    pub fn is_never(&self, (step, id): Instance) -> bool {
        let lost = |value: &Value| self.lost.contains(&self.at(value.node, step));
        let needs_lost = match self.kind(id) {
            // Of two branches one is always lost.
            NodeKind::Merge { condition, .. } => lost(condition),
            kind => kind.values().iter().any(lost),
        };
        self.lost.contains(&(step, id))
            || needs_lost
            || self.program.program.node(id).guards.iter().any(|guard| {
                lost(&guard.condition)
                    || self.truth(guard.condition, step).is_some_and(|holds| holds != guard.holds)
            })
    }

    /// A condition that is known. In a dry run every guard is taken to hold.
    pub fn truth(&self, condition: Value, step: u64) -> Option<bool> {
        let tensor = self.value(condition, step)?;
        tensor.truths().ok()?.first().copied()
    }

    /// Whether all conditions of a node are known, and hold.
    pub fn is_granted(&self, (step, id): Instance) -> bool {
        !self.lost.contains(&(step, id))
            && self
                .program
                .program
                .node(id)
                .guards
                .iter()
                .all(|guard| self.done.contains(&self.at(guard.condition.node, step)))
    }

    /// A value never comes: nor does anything that reads it. A setter of such a value sets nothing.
    pub fn lose(&mut self, instance: Instance, models: &[Loaded], pool: &mut BufferPool) {
        let mut ready = BTreeSet::new();
        self.lose_quietly(instance, &mut ready);
        self.run_ready(ready, models, pool);
    }

    /// The same; what can run then is put into `ready`: the value of two branches when one of them is lost.
    pub(super) fn lose_quietly(&mut self, instance: Instance, ready: &mut BTreeSet<Instance>) {
        let mut open = vec![instance];
        while let Some(instance) = open.pop() {
            if self.done.contains(&instance) || !self.lost.insert(instance) {
                continue;
            }
            let (step, id) = instance;
            self.pending.remove(&instance);
            self.release(instance);
            for user in self.users[id.index()].clone() {
                match self.program.nodes[user.index()].steps {
                    Some(owner) if step == OUTSIDE => {
                        // Steps that have not begun find it lost when they do.
                        let live: Vec<u64> =
                            self.live_steps.get(&owner).into_iter().flatten().copied().collect();
                        for step in live {
                            self.lose_reader((step, user), id, &mut open, ready);
                        }
                    }
                    _ => self.lose_reader((step, user), id, &mut open, ready),
                }
            }
        }
    }

    /// What becomes of a reader of a node that was lost.
    fn lose_reader(
        &mut self,
        reader: Instance,
        lost: NodeId,
        open: &mut Vec<Instance>,
        ready: &mut BTreeSet<Instance>,
    ) {
        match self.kind(reader.1) {
            NodeKind::Merge { condition, .. }
                if condition.node != lost
                    && self
                        .program
                        .program
                        .node(reader.1)
                        .guards
                        .iter()
                        .all(|g| g.condition.node != lost) =>
            {
                self.count_down(reader, ready);
            }
            _ => open.push(reader),
        }
    }

    /// A value has come: the nodes that it forbids to run are lost.
    pub(super) fn judge(&mut self, (step, id): Instance, users: &[NodeId], ready: &mut BTreeSet<Instance>) {
        let guarded = |user: &&NodeId| {
            self.program.program.node(**user).guards.iter().any(|guard| guard.condition.node == id)
        };
        let guarded: Vec<NodeId> = users.iter().filter(guarded).copied().collect();
        for user in guarded {
            let steps = match self.program.nodes[user.index()].steps {
                Some(owner) if step == OUTSIDE => {
                    self.live_steps.get(&owner).into_iter().flatten().copied().collect()
                }
                _ => vec![step],
            };
            for step in steps {
                if self.is_never((step, user)) {
                    self.lose_quietly((step, user), ready);
                }
            }
        }
    }
}
