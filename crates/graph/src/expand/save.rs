//! What is saved inside sweeps and loops: one result, stacked over all cells and iterations around it.

use super::Expander;
use super::region::RegionKind;
use crate::operation::{Argument, OperationKind};
use crate::program::{NodeId, NodeKind, Origin, Value};

/// What a save inside loops has gathered so far.
pub(super) struct Collected {
    id: NodeId,
    name: String,
    /// In the order in which they were made: iterations of the outermost loop first, cells of sweeps last.
    values: Vec<Value>,
    /// The kinds and axes of the frames around it, from the outermost to the innermost.
    frames: Vec<(RegionKind, Vec<u64>)>,
}

impl Expander<'_> {
    /// Saves a value under a name.
    pub(super) fn save(&mut self, id: NodeId, name: &str, value: Value) {
        if let Some(values) = self.in_all_cells(id, value) {
            self.save_values(id, name, values);
        }
    }

    /// Saves the values of all cells of the innermost frame under one name.
    pub(super) fn save_values(&mut self, id: NodeId, name: &str, values: Vec<Value>) {
        let frames: Vec<(RegionKind, Vec<u64>)> =
            self.frames[1..].iter().map(|frame| (frame.kind, frame.stacked())).collect();
        let is_loop = |frame: &(RegionKind, Vec<u64>)| frame.0 == RegionKind::Loop;
        if !frames.iter().any(is_loop) {
            let Some(values) = self.where_it_runs(id, values, &frames) else { return };
            return self.emit_save(&Collected { id, name: name.to_owned(), values, frames });
        }
        let outside_steps = self.steps.map_or(0, |depth| depth - 1);
        if frames.iter().take(outside_steps).any(is_loop) {
            let message = "a loop around `steps` cannot stack what is saved at each step";
            let hint = "read `generated` outside `steps`, or save outside the loop what it carries";
            return self.fault(id, message, Some(hint.into()));
        }
        if !self.spend(id, 8 * values.len()) {
            return;
        }
        let Some(values) = self.where_it_runs(id, values, &frames) else { return };
        let place = *self.save_places.entry((id, name.to_owned())).or_insert(self.saves.len());
        match self.saves.get_mut(place) {
            Some(collected) => collected.values.extend(values),
            None => self.saves.push(Collected { id, name: name.to_owned(), values, frames }),
        }
    }

    /// Values that are saved in a branch, of each cell under its own condition: the stack of all stands elsewhere, and what it is
    /// made of may come from outside of the branch. Where one cell does not take the branch, it is absent.
    fn where_it_runs(
        &mut self,
        id: NodeId,
        values: Vec<Value>,
        frames: &[(RegionKind, Vec<u64>)],
    ) -> Option<Vec<Value>> {
        let guarded = !self.guarding.is_empty() || !self.source.node(id).guards.is_empty();
        if frames.is_empty() || !guarded {
            return Some(values);
        }
        let same = |(cell, value)| {
            self.operation(id, cell, "there", OperationKind::Detach, vec![Argument::Value(value)])
        };
        values.into_iter().enumerate().map(same).collect()
    }

    /// Writes what was gathered, where the outermost loop has ended.
    pub(super) fn flush_saves(&mut self) {
        if self.frames[1..].iter().any(|frame| frame.kind == RegionKind::Loop) {
            return;
        }
        self.save_places.clear();
        for collected in std::mem::take(&mut self.saves) {
            self.emit_save(&collected);
        }
    }

    fn emit_save(&mut self, collected: &Collected) {
        let Collected { id, name, values, frames } = collected;
        let stacked = match frames.is_empty() {
            true => values.first().copied(),
            false => self.in_grid(*id, values, frames),
        };
        let Some(value) = stacked else { return };
        let label = &self.source.node(*id).name;
        let is_itself = frames.is_empty() && name == label;
        let origin = (!is_itself).then(|| Origin { label: label.clone(), coordinates: Vec::new() });
        self.emit_named(*id, 0, name.clone(), origin, NodeKind::Save(value));
    }

    /// Values stacked, with the dimensions in the order in which sweeps and loops stand in one another.
    fn in_grid(&mut self, id: NodeId, values: &[Value], frames: &[(RegionKind, Vec<u64>)]) -> Option<Value> {
        // They come loop by loop, and within that sweep by sweep.
        let in_order = |kind: RegionKind| {
            let mut at = 0;
            let mut places = Vec::new();
            for (other, lengths) in frames {
                if *other == kind {
                    places.extend((0..lengths.len()).map(|axis| (at + axis, lengths[axis])));
                }
                at += lengths.len();
            }
            places
        };
        let made: Vec<(usize, u64)> =
            in_order(RegionKind::Loop).into_iter().chain(in_order(RegionKind::Sweep)).collect();
        let lengths: Vec<u64> = made.iter().map(|&(_, length)| length).collect();
        let value = self.stacked(id, 0, values.to_vec())?;
        let value = self.unflattened(id, 0, value, &lengths)?;
        if made.is_sorted() {
            return Some(value);
        }
        let whole = |numbers: Vec<usize>| {
            Argument::Integers(numbers.into_iter().map(|number| number as i64).collect())
        };
        let source = whole((0..made.len()).collect());
        let destination = whole(made.iter().map(|&(place, _)| place).collect());
        self.operation(
            id,
            0,
            "grid",
            OperationKind::MoveDim,
            vec![Argument::Value(value), source, destination],
        )
    }
}
