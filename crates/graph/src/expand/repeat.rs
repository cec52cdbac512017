//! Loops: the body again for each iteration, with what is carried from one to the next.

use super::region::cells_in;
use super::{Bound, Expander};
use crate::program::{NodeId, NodeKind, SameType, Value};
use crate::surface::Loop;

impl<'a> Expander<'a> {
    pub(super) fn repeat(&mut self, id: NodeId, repeated: &'a Loop) {
        let Some(lengths) = self.axes(id, &repeated.region, true) else { return };
        let all = cells_in(&lengths);
        if repeated.from > all {
            let message = format!("it begins at iteration {}, but has only {all}", repeated.from);
            let hint = "`count` and `over` say all iterations; `from` leaves out those before it, and numbers begin at 0";
            return self.fault(id, message, Some(hint.into()));
        }
        if self.count_cells(id, &lengths, repeated.from).is_none() {
            return;
        }
        if repeated.next.len() != repeated.carry.len() {
            return self.fault(id, "it does not say for each carried value what it is next", None);
        }
        let mut carried: Vec<Vec<Value>> = Vec::with_capacity(repeated.carry.len());
        for &carry in &repeated.carry {
            let NodeKind::Carried(initial) = self.source.node(carry).kind else {
                return self.fault(id, "one of its carried values is none", None);
            };
            let Some(values) = self.in_all_cells(id, initial) else { return };
            carried.push(values);
        }
        let first = carried.clone();
        for number in repeated.from..all {
            if !self.enter_one(id, repeated, &lengths, number) {
                return;
            }
            for (&carry, values) in repeated.carry.iter().zip(carried) {
                self.depth[carry.index()] = self.top();
                self.bound[carry.index()] = Bound::Outputs(vec![values]);
            }
            let seen = self.visible.len();
            self.add_invokes(id, &repeated.region.invokes);
            self.body(&repeated.region.body);
            let next = self.yields(id, &repeated.next);
            self.visible.truncate(seen);
            self.leave();
            self.forget(&repeated.region.body, false);
            let Some(next) = next.filter(|_| !self.full && self.faults.is_empty()) else { return };
            carried = next;
            for ((&carry, first), next) in repeated.carry.iter().zip(&first).zip(&carried) {
                for (&first, &next) in first.iter().zip(next) {
                    let what = self.source.node(carry).name.clone();
                    if first != next {
                        self.same_types.push(SameType { at: next.node, what, first, next });
                    }
                    if !self.spend(id, 64) {
                        return;
                    }
                }
            }
        }
        self.bound[id.index()] = Bound::Outputs(carried);
        self.flush_saves();
    }
}
