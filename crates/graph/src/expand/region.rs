//! The grid of a sweep or loop: its axes, its cells, and what a parameter is in each.

use super::{Bound, Expander};
use crate::fault::quote;
use crate::limits;
use crate::operation::{Argument, IndexItem, OperationKind};
use crate::program::{NodeId, NodeKind, Prompts, Value};
use crate::scalar::Scalar;
use crate::suggest::did_you_mean;
use crate::surface::{Loop, Parameter, Region, Sweep};

/// What a frame stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegionKind {
    /// The program itself: one cell.
    Program,
    /// All cells of a sweep.
    Sweep,
    /// One iteration of a loop.
    Loop,
}

/// A parameter that is read as a value, its axis, and its nodes: one list for every cell around the region, or one for all.
type ParameterValues = (NodeId, usize, Vec<Vec<NodeId>>);

/// A sweep or loop whose body is being expanded, for every cell of what is around it.
pub(super) struct Frame {
    pub(super) kind: RegionKind,
    /// The sweep or loop; none: the program.
    region: Option<NodeId>,
    /// The lengths of its axes.
    pub(super) lengths: Vec<u64>,
    /// Of a loop: how many of its first iterations are left out.
    left_out: u64,
    /// How many coordinates come from the frames around it.
    offset: usize,
    cells: Vec<Cell>,
}

struct Cell {
    /// The cell around it, in the frame around this one.
    around: usize,
    /// All its coordinates, from the outermost axis to the innermost.
    coordinates: Vec<u64>,
}

impl Frame {
    pub(super) fn program() -> Frame {
        Frame {
            kind: RegionKind::Program,
            region: None,
            lengths: Vec::new(),
            left_out: 0,
            offset: 0,
            cells: vec![Cell { around: 0, coordinates: Vec::new() }],
        }
    }

    /// The dimensions that a stack of what its cells give has: its axes. Of a loop that begins later, whose iterations are
    /// no whole grid, one: the iterations that run.
    pub(super) fn stacked(&self) -> Vec<u64> {
        match self.left_out {
            0 => self.lengths.clone(),
            left_out => vec![cells_in(&self.lengths).saturating_sub(left_out)],
        }
    }
}

impl<'a> Expander<'a> {
    /// How many frames stand around what is expanded, without the program's.
    pub(super) fn top(&self) -> usize {
        self.frames.len() - 1
    }

    pub(super) fn cells_here(&self) -> usize {
        self.frames.last().map_or(0, |frame| frame.cells.len())
    }

    pub(super) fn coordinates(&self, cell: usize) -> &[u64] {
        let cells = self.frames.last().map_or(&[][..], |frame| &frame.cells);
        cells.get(cell).map_or(&[], |cell| &cell.coordinates)
    }

    /// The cell of the frame at that depth in which a cell of the innermost frame stands.
    pub(super) fn outer_cell(&self, mut cell: usize, depth: usize) -> Option<usize> {
        if depth > self.top() {
            return None;
        }
        for frame in self.frames[depth + 1..].iter().rev() {
            cell = frame.cells.get(cell)?.around;
        }
        Some(cell)
    }

    /// The lengths of a region's axes, which only a loop's may be 0; none where a fault was noted.
    pub(super) fn axes(&mut self, id: NodeId, region: &Region, may_be_none: bool) -> Option<Vec<u64>> {
        if region.over.is_empty() || region.over.len() > limits::AXES {
            let message = format!("it has {} axes; 1 to {} are taken", region.over.len(), limits::AXES);
            self.fault(id, message, None);
            return None;
        }
        let mut lengths = Vec::with_capacity(region.over.len());
        for axis in &region.over {
            let mut first: Option<(NodeId, u64)> = None;
            for &parameter in axis {
                // What a parameter reads stands outside; its own values live inside.
                self.depth[parameter.index()] = self.frames.len();
                let NodeKind::Parameter(values) = &self.source.node(parameter).kind else {
                    self.fault(id, "one of its parameters is none", None);
                    return None;
                };
                let count = match values {
                    Parameter::Rows(value) => self.count_of_rows(parameter, *value)?,
                    values => values.count().unwrap_or(0),
                };
                let name = quote(&self.source.node(parameter).name);
                if count == 0 && !may_be_none {
                    self.fault(id, format!("its parameter {name} has no values, so nothing would run"), None);
                    return None;
                }
                if let Some((other, length)) = first
                    && length != count
                {
                    let other = quote(&self.source.node(other).name);
                    let message = format!(
                        "parameters of one axis go along it together, but {other} has {length} values and {name} has {count}"
                    );
                    let hint = "give them equally many, or make each an axis of its own: a grid".to_owned();
                    self.fault(id, message, Some(hint));
                    return None;
                }
                first = first.or(Some((parameter, count)));
            }
            let Some((_, length)) = first else {
                self.fault(id, "it has an axis without a parameter", None);
                return None;
            };
            lengths.push(length);
        }
        Some(lengths)
    }

    /// How many cells are made, all but the first `left_out` of each grid, if there may be so many more.
    pub(super) fn count_cells(&mut self, id: NodeId, lengths: &[u64], left_out: u64) -> Option<usize> {
        let each = cells_in(lengths).saturating_sub(left_out);
        let all = each.checked_mul(self.cells_here() as u64);
        let all = all.and_then(|all| usize::try_from(all).ok());
        match all.filter(|&all| self.cells.saturating_add(all) <= limits::CELLS) {
            Some(all) => {
                self.cells += all;
                Some(all)
            }
            None => {
                let shape: Vec<String> = lengths.iter().map(u64::to_string).collect();
                let message = format!(
                    "its grid of {} for each of {} cells around it is beyond the {} cells that a program may have",
                    shape.join(" × "),
                    self.cells_here(),
                    limits::CELLS
                );
                self.full = true;
                self.fault(id, message, Some("sweep over fewer cells, or in several programs".into()));
                None
            }
        }
    }

    /// Enters a sweep: all its cells, those of each cell around it together, the last axis fastest.
    pub(super) fn enter_all(&mut self, id: NodeId, region: &Region, lengths: &[u64]) -> bool {
        let Some(count) = self.count_cells(id, lengths, 0) else { return false };
        let mut cells = Vec::with_capacity(count);
        let here = self.cells_here();
        for around in 0..here {
            for number in 0..(count / here.max(1)) as u64 {
                let mut coordinates = self.coordinates(around).to_vec();
                coordinates.extend(places(number, lengths));
                cells.push(Cell { around, coordinates });
            }
        }
        let parameters = self.parameter_values(region, |_, length| 0..length, lengths);
        let Some(parameters) = parameters else { return false };
        self.enter(id, (RegionKind::Sweep, 0), lengths, cells);
        self.bind_parameters(region, parameters, |place| place);
        true
    }

    /// Enters one iteration of a loop.
    pub(super) fn enter_one(&mut self, id: NodeId, repeated: &Loop, lengths: &[u64], number: u64) -> bool {
        let region = &repeated.region;
        let own: Vec<u64> = places(number, lengths).collect();
        if !self.spend(id, self.cells_here().saturating_mul(64)) {
            return false;
        }
        let cells = (0..self.cells_here()).map(|around| {
            let coordinates = self.coordinates(around).iter().chain(&own).copied().collect();
            Cell { around, coordinates }
        });
        let cells = cells.collect();
        let at = own.clone();
        let only = move |axis: usize, _| at.get(axis).map_or(0..0, |&place| place..place + 1);
        let Some(parameters) = self.parameter_values(region, only, lengths) else { return false };
        self.enter(id, (RegionKind::Loop, repeated.from), lengths, cells);
        self.bind_parameters(region, parameters, |_| 0);
        true
    }

    fn enter(&mut self, id: NodeId, (kind, left_out): (RegionKind, u64), lengths: &[u64], cells: Vec<Cell>) {
        let around = self.frames.last();
        let offset = around.map_or(0, |frame| frame.offset + frame.lengths.len());
        let lengths = lengths.to_vec();
        self.frames.push(Frame { kind, region: Some(id), lengths, left_out, offset, cells });
    }

    pub(super) fn leave(&mut self) {
        self.frames.pop();
    }

    /// What was made in a body is seen nowhere else, not even in another body as deep. Reductions of the body itself are
    /// what comes after it.
    pub(super) fn forget(&mut self, body: &'a [NodeId], reductions: bool) {
        let source = self.source;
        for &id in body {
            match &source.node(id).kind {
                NodeKind::Reduce(_) if !reductions => continue,
                NodeKind::Trace(trace) => self.forget(&trace.body, reductions),
                NodeKind::Steps { body, .. } => self.forget(body, reductions),
                NodeKind::Sweep(Sweep { region, .. }) | NodeKind::Loop(Loop { region, .. }) => {
                    self.forget(&region.body, true);
                }
                _ => {}
            }
            self.bound[id.index()] = Bound::Nothing;
        }
    }

    /// The values of those parameters that are read as such, at the chosen places of their axes: for each, one list for
    /// every cell around the region, or one list for all of them.
    fn parameter_values(
        &mut self,
        region: &Region,
        chosen: impl Fn(usize, u64) -> std::ops::Range<u64>,
        lengths: &[u64],
    ) -> Option<Vec<ParameterValues>> {
        let mut all = Vec::new();
        for (axis, parameters) in region.over.iter().enumerate() {
            for &id in parameters {
                let NodeKind::Parameter(parameter) = &self.source.node(id).kind else { continue };
                if !self.read[id.index()] || !parameter.has_value() {
                    continue;
                }
                let places = chosen(axis, lengths.get(axis).copied().unwrap_or(0));
                let mut lists = Vec::new();
                let cells = if matches!(parameter, Parameter::Rows(_)) { self.cells_here() } else { 1 };
                for cell in 0..cells {
                    let mut list = Vec::new();
                    for place in places.clone() {
                        let kind = match parameter {
                            Parameter::Rows(value) => {
                                let Some(rows) = self.resolve(*value, cell) else {
                                    self.unresolved(id, *value);
                                    return None;
                                };
                                let index = vec![IndexItem::Integer(i64::try_from(place).ok()?)];
                                let given = vec![Argument::Value(rows), Argument::Index(index)];
                                list.push(
                                    self.operation(id, cell, "row", OperationKind::GetItem, given)?.node,
                                );
                                continue;
                            }
                            parameter => {
                                let number = parameter.number(usize::try_from(place).ok()?)?;
                                NodeKind::Literal {
                                    dtype: number.dtype(),
                                    shape: Vec::new(),
                                    elements: vec![number],
                                }
                            }
                        };
                        list.push(self.emit(id, cell, "at", kind)?);
                    }
                    lists.push(list);
                }
                all.push((id, axis, lists));
            }
        }
        Some(all)
    }

    /// Binds parameters in the frame that was just entered; `place` turns a place along the axis into one of the list.
    fn bind_parameters(
        &mut self,
        region: &Region,
        values: Vec<ParameterValues>,
        place: impl Fn(usize) -> usize,
    ) {
        for id in region.parameters() {
            self.bound[id.index()] = Bound::Nothing;
        }
        let Some(frame) = self.frames.last() else { return };
        for (id, axis, lists) in values {
            let nodes = frame.cells.iter().filter_map(|cell| {
                let list = lists.get(cell.around).or(lists.first())?;
                let along = usize::try_from(*cell.coordinates.get(frame.offset + axis)?).ok()?;
                list.get(place(along)).copied()
            });
            self.bound[id.index()] = Bound::Nodes(nodes.collect());
        }
    }

    /// The place of a parameter along its axis, in a cell of the innermost frame.
    fn place_of(&self, parameter: NodeId, cell: usize) -> Option<usize> {
        let depth = *self.depth.get(parameter.index())?;
        let cell = self.outer_cell(cell, depth)?;
        let frame = self.frames.get(depth)?;
        let region = self.region_of(frame)?;
        let axis = region.over.iter().position(|axis| axis.contains(&parameter))?;
        usize::try_from(*frame.cells.get(cell)?.coordinates.get(frame.offset + axis)?).ok()
    }

    fn region_of(&self, frame: &Frame) -> Option<&'a Region> {
        match &self.source.node(frame.region?).kind {
            NodeKind::Sweep(sweep) => Some(&sweep.region),
            NodeKind::Loop(repeated) => Some(&repeated.region),
            _ => None,
        }
    }

    /// The number that a parameter is in a cell.
    pub(super) fn number_of(&self, parameter: NodeId, cell: usize) -> Option<Scalar> {
        let NodeKind::Parameter(values) = &self.source.node(parameter).kind else { return None };
        values.number(self.place_of(parameter, cell)?)
    }

    /// The prompts that a parameter is in a cell.
    pub(super) fn prompts_of(&self, parameter: NodeId, cell: usize) -> Option<Prompts> {
        let NodeKind::Parameter(values) = &self.source.nodes.get(parameter.index())?.kind else {
            return None;
        };
        values.prompts(self.place_of(parameter, cell)?)
    }

    /// A text with the numbers of the cell in place of `{parameter}`.
    pub(super) fn filled(&mut self, id: NodeId, text: &str, cell: usize) -> Option<String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(from) = rest.find('{') {
            filled.push_str(&rest[..from]);
            let Some(to) = rest[from..].find('}').map(|to| from + to) else {
                self.fault(id, format!("{} has a `{{` without a `}}`", quote(text)), None);
                return None;
            };
            let name = &rest[from + 1..to];
            let parameter = self.parameter_named(name);
            let Some(parameter) = parameter else {
                let known = self.parameter_names();
                let message = format!(
                    "{} names {}, but no sweep or loop around it has such a parameter",
                    quote(text),
                    quote(name)
                );
                let hint = match known.is_empty() {
                    true => Some("`{name}` stands for a number of the sweep's `over`".to_owned()),
                    false => did_you_mean(name, known.iter().map(String::as_str))
                        .or_else(|| Some(format!("parameters here are {}", known.join(", ")))),
                };
                self.fault(id, message, hint);
                return None;
            };
            match self.number_of(parameter, cell) {
                Some(Scalar::Int(number)) => filled.push_str(&number.to_string()),
                _ => {
                    let message = format!("{} names {}, which is no whole number", quote(text), quote(name));
                    self.fault(id, message, Some("addresses take parameters of whole numbers".into()));
                    return None;
                }
            }
            rest = &rest[to + 1..];
        }
        filled.push_str(rest);
        Some(filled)
    }

    fn parameter_named(&self, name: &str) -> Option<NodeId> {
        self.frames.iter().rev().find_map(|frame| {
            self.region_of(frame)?.parameters().find(|&parameter| self.source.node(parameter).name == name)
        })
    }

    fn parameter_names(&self) -> Vec<String> {
        let regions = self.frames.iter().filter_map(|frame| self.region_of(frame));
        regions.flat_map(Region::parameters).map(|id| self.source.node(id).name.clone()).collect()
    }

    /// Values stacked along a new first dimension, in as many pieces as a list may need.
    pub(super) fn stacked(&mut self, id: NodeId, cell: usize, values: Vec<Value>) -> Option<Value> {
        let stack = |expander: &mut Self, values: Vec<Value>| {
            expander.operation(id, cell, "stack", OperationKind::Stack, vec![Argument::Values(values)])
        };
        if values.len() <= limits::LIST_ARGUMENTS {
            return stack(self, values);
        }
        let mut pieces = Vec::new();
        for piece in values.chunks(limits::LIST_ARGUMENTS) {
            pieces.push(stack(self, piece.to_vec())?);
        }
        self.operation(id, cell, "stack", OperationKind::Cat, vec![Argument::Values(pieces)])
    }

    /// The first dimension made several, if there is more than one.
    pub(super) fn unflattened(
        &mut self,
        id: NodeId,
        cell: usize,
        value: Value,
        lengths: &[u64],
    ) -> Option<Value> {
        if lengths.len() == 1 {
            return Some(value);
        }
        let sizes = lengths
            .iter()
            .map(|&length| crate::operation::Size::Literal(i64::try_from(length).unwrap_or(i64::MAX)));
        let given =
            vec![Argument::Value(value), Argument::Scalar(Scalar::Int(0)), Argument::Sizes(sizes.collect())];
        self.operation(id, cell, "grid", OperationKind::Unflatten, given)
    }
}

/// How many cells a grid of those lengths has.
pub(super) fn cells_in(lengths: &[u64]) -> u64 {
    lengths.iter().fold(1, |product, &length| product.saturating_mul(length))
}

/// The places along axes of those lengths of the cell of that number, the last axis fastest.
fn places(number: u64, lengths: &[u64]) -> impl Iterator<Item = u64> {
    let mut rest = number;
    let mut places = vec![0; lengths.len()];
    for (place, &length) in places.iter_mut().zip(lengths).rev() {
        *place = rest % length.max(1);
        rest /= length.max(1);
    }
    places.into_iter()
}
