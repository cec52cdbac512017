//! At which steps of a generation the bodies of several `steps` nodes meet.
//!
//! Two bodies that are sound each for itself can need one another at a step that both run at, which need not be the first of
//! either. So time is checked at every step at which another set of bodies runs, a few times over, and at every step that a
//! getter or setter names: what happens at the others is the same again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Checker;
use crate::limits;
use crate::program::{NodeId, NodeKind, StepSelection, Trace};

/// How many of the steps at which the same bodies run are looked at.
const ALIKE: usize = 3;

/// A body's nodes at a step that is not its first.
pub(super) struct Meeting {
    pub step: u64,
    pub body: Vec<NodeId>,
}

impl Checker<'_> {
    /// The steps to be looked at beside each body's first, by `steps` node. There is none where a trace has only one body, and
    /// nothing beside it at a later step. Given is what each node waits for.
    pub(super) fn meetings(&self, waits: &[Vec<NodeId>]) -> BTreeMap<NodeId, Vec<Meeting>> {
        let mut meetings = BTreeMap::new();
        let mut left = limits::MEETINGS;
        for (_, trace) in self.program.traces() {
            self.meetings_of(trace, waits, &mut meetings, &mut left);
        }
        meetings
    }

    fn meetings_of(
        &self,
        trace: &Trace,
        waits: &[Vec<NodeId>],
        meetings: &mut BTreeMap<NodeId, Vec<Meeting>>,
        left: &mut usize,
    ) {
        let total = trace.generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
        let mut named: BTreeSet<u64> = BTreeSet::new();
        let mut bodies: Vec<(NodeId, StepSelection, &[NodeId])> = Vec::new();
        for &id in &trace.body {
            match &self.program.node(id).kind {
                NodeKind::Steps { steps, body } => bodies.push((id, *steps, &body[..])),
                NodeKind::Get(address) | NodeKind::Set { address, .. } => named.extend(address.step),
                NodeKind::Skip { step, .. } => named.extend(*step),
                _ => {}
            }
        }
        if bodies.len() + usize::from(!named.is_empty()) < 2 {
            return;
        }
        // Which bodies run at a step, as the sum of a number of each.
        let mut running: BTreeMap<u64, u64> = BTreeMap::new();
        for (number, (_, steps, _)) in bodies.iter().enumerate() {
            let end = steps.to.unwrap_or(total).min(total);
            for step in (steps.from..end).step_by(steps.every.max(1) as usize) {
                if *left == 0 {
                    return;
                }
                *left -= 1;
                let sum = running.entry(step).or_default();
                *sum = sum.wrapping_add(number_of(number as u64));
            }
        }
        let mut seen: HashMap<u64, usize> = HashMap::new();
        running.retain(|step, bodies| {
            let seen = seen.entry(*bodies).or_default();
            *seen += 1;
            *seen <= ALIKE || named.contains(step)
        });
        for (owner, steps, body) in bodies {
            // Each node is looked at once more, and so is each that it waits for.
            let whole: usize = body.iter().map(|id| 1 + waits[id.index()].len()).sum();
            for &step in running.keys().filter(|&&step| step != steps.from) {
                let here = steps.contains(step, total);
                let cost = if here { whole.max(1) } else { 1 };
                if cost > *left {
                    return;
                }
                *left -= cost;
                if here {
                    meetings.entry(owner).or_default().push(Meeting { step, body: body.to_vec() });
                }
            }
        }
    }
}

/// A number that looks random, by which sums of several tell which they are of (the finaliser of SplitMix64).
fn number_of(place: u64) -> u64 {
    let mut mixed = place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
