//! Sweeps: every statement for all cells, then the yields stacked in the grid's shape.

use super::{Bound, Expander};
use crate::program::{NodeId, Value};
use crate::surface::Sweep;

impl<'a> Expander<'a> {
    pub(super) fn sweep(&mut self, id: NodeId, sweep: &'a Sweep) {
        let Some(lengths) = self.axes(id, &sweep.region, false) else { return };
        let around = self.cells_here();
        if !self.enter_all(id, &sweep.region, &lengths) {
            return;
        }
        let seen = self.visible.len();
        self.add_invokes(id, &sweep.region.invokes);
        self.body(&sweep.region.body);
        let yields = self.yields(id, &sweep.yields);
        self.visible.truncate(seen);
        self.leave();
        self.forget(&sweep.region.body, false);
        let Some(yields) = yields.filter(|_| !self.full) else { return };
        let mut outputs = Vec::with_capacity(yields.len());
        for values in yields {
            let each = values.len() / around.max(1);
            let mut stacked = Vec::with_capacity(around);
            for (cell, values) in values.chunks(each.max(1)).enumerate() {
                let Some(value) = self.stacked(id, cell, values.to_vec()) else { return };
                let Some(value) = self.unflattened(id, cell, value, &lengths) else { return };
                stacked.push(value);
            }
            outputs.push(stacked);
        }
        self.bound[id.index()] = Bound::Outputs(outputs);
    }

    /// Of each yield, its value in every cell.
    pub(super) fn yields(&mut self, id: NodeId, yields: &[Value]) -> Option<Vec<Vec<Value>>> {
        let mut all = Vec::with_capacity(yields.len());
        for &value in yields {
            all.push(self.in_all_cells(id, value)?);
        }
        Some(all)
    }

    /// A value in every cell of the innermost frame; none where a fault was noted.
    pub(super) fn in_all_cells(&mut self, id: NodeId, value: Value) -> Option<Vec<Value>> {
        let mut values = Vec::with_capacity(self.cells_here());
        for cell in 0..self.cells_here() {
            match self.resolve(value, cell) {
                Some(value) => values.push(value),
                None => {
                    self.unresolved(id, value);
                    return None;
                }
            }
        }
        Some(values)
    }
}
