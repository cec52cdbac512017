//! What a program will cost: an upper estimate from its shapes and the model's.

mod back;
mod outlive;
mod rows;
mod views;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Checker;
use super::together::CheckedTrace;
use crate::operation::{IndexItem, Operation, OperationKind};
use crate::program::{HookAddress, NodeId, NodeKind, Value};
use crate::rules::touch::{Touches, touches};
use crate::rules::{ASSUMED_LENGTH, RuleContext, room, weight};
use crate::spec::{Axis, ModelSpec};
use rows::{Pass, Rows};

/// What a program will cost, at most; prompts that are not tokenised yet are taken to have 128 tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Price {
    /// Floating-point operations; what waits for memory or calls a function counts as those that take as long.
    pub flops: u64,
    /// Of these, those of the program's own nodes, applied modules left out: they take their time, however quick the model is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub own_flops: u64,
    /// Bytes that must be held at once beside the model's weights, at most.
    pub peak_bytes: u64,
    /// Bytes more that are kept for ways back where there is room for them; where there is none, what is missing is computed again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kept_bytes: u64,
    /// Floating-point operations that this takes, if all of it is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recomputed_flops: u64,
    /// Bytes of the saved results, with what describes each: its name, shape and type.
    pub result_bytes: u64,
    /// Tokens that pass through the model.
    pub tokens: u64,
    /// Nodes that run, each as often as it does: whatever its operations, each takes some time of its own.
    #[serde(default)]
    pub nodes: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Price {
    /// What it will cost where so many bytes may be held at once: with what is kept for ways back, or is computed again.
    pub fn within(self, memory_bytes: u64) -> Price {
        let all = self.peak_bytes.saturating_add(self.kept_bytes);
        let again = if all > memory_bytes { self.recomputed_flops } else { 0 };
        Price {
            flops: self.flops.saturating_add(again),
            peak_bytes: all.min(memory_bytes.max(self.peak_bytes)),
            kept_bytes: 0,
            recomputed_flops: 0,
            ..self
        }
    }
}

/// Values that a node reads which take as long as a node.
const READ_AS_ONE: u64 = 8;

/// Bytes that describe a saved result, beside its name: its shape, type and place, as they are held and written.
const ENTRY_BYTES: u64 = 96;

/// Tokens of one wave: as many as share a pass.
pub(super) const WAVE_TOKENS: u64 = 8_192;

/// What the prompts of each invoke of each trace come to.
type AllRows = HashMap<(NodeId, usize), Rows>;

/// Bytes held, by wave.
#[derive(Default)]
struct Waves {
    /// Of each wave: what begins to be held in it, and what is held in it for the last time.
    bytes: Vec<(u64, u64)>,
    /// The most that one operation needs while it runs, beside what it reads and makes: they run one after the other.
    working: u64,
}

impl Waves {
    fn begin(&mut self) {
        self.bytes.push((0, 0));
    }

    fn last(&self) -> usize {
        self.bytes.len().saturating_sub(1)
    }

    /// So many bytes are held from one wave to another.
    fn hold(&mut self, from: usize, to: usize, bytes: u64) {
        if self.bytes.is_empty() {
            self.begin();
        }
        let last = self.last();
        let begun = &mut self.bytes[from.min(last)].0;
        *begun = begun.saturating_add(bytes);
        let ended = &mut self.bytes[to.min(last)].1;
        *ended = ended.saturating_add(bytes);
    }

    fn peak(&self) -> u64 {
        let (mut held, mut peak) = (0_u64, 0_u64);
        for &(begun, ended) in &self.bytes {
            held = held.saturating_add(begun);
            peak = peak.max(held);
            // Once it is beyond counting it stays there.
            held = if held == u64::MAX { held } else { held.saturating_sub(ended) };
        }
        peak.saturating_add(self.working)
    }
}

impl Checker<'_> {
    /// Floating-point operations and results are counted node by node. Bytes held at once follow the run: invokes pass in
    /// waves of as many tokens as share a pass, those of traces that run together in one; a value is held from the wave that
    /// makes it to the last that reads it. Gives the operations of each node beside it.
    pub(super) fn price(&self, traces: &[CheckedTrace]) -> (Price, Vec<u64>) {
        let mut price = Price::default();
        let mut flops = vec![0_u64; self.program.nodes.len()];
        let mut waves = Waves::default();
        let mut totals = vec![1_u64; self.program.nodes.len()];
        let rows = self.rows();
        let mut of_invoke: HashMap<(NodeId, usize), usize> = HashMap::new();
        let mut in_wave = 0_u64;
        let turned = self.turned();
        for ((id, trace), known) in self.program.traces().zip(traces) {
            let steps = trace.generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
            totals[id.index()] = steps;
            if !known.joins {
                waves.begin();
                in_wave = 0;
            }
            let pass = Pass::of(self.spec(id));
            for (number, invoke) in trace.invokes.iter().enumerate() {
                let own = rows.get(&(id, number)).map_or(0, |rows| rows.tokens);
                // A generation keeps the keys and values of all its invokes.
                if in_wave > 0 && in_wave.saturating_add(own) > WAVE_TOKENS && trace.generation.is_none() {
                    waves.begin();
                    in_wave = 0;
                }
                in_wave = in_wave.saturating_add(own);
                for length in rows::lengths(&invoke.prompts) {
                    let context = length.saturating_add(steps - 1);
                    price.tokens = price.tokens.saturating_add(context);
                    price.flops = price.flops.saturating_add(pass.flops(context, rows::pairs(context)));
                    waves.hold(waves.last(), waves.last(), forward_bytes(self.spec(id), length, context));
                }
                of_invoke.insert((id, number), waves.last());
            }
        }
        let mut made = vec![0_usize; self.program.nodes.len()];
        let mut read = vec![0_usize; self.program.nodes.len()];
        // Bytes of what is logged: it is kept to the end as what is saved is, though it is not among the results.
        let mut logged = 0_u64;
        for position in 0..self.program.nodes.len() {
            let (id, checked) = (NodeId(position as u32), &self.nodes[position]);
            if !checked.needed {
                continue;
            }
            let values = self.program.node(id).values();
            let mut wave = values.iter().map(|value| made[value.node.index()]).max().unwrap_or(0);
            match (&self.program.node(id).kind, checked.trace) {
                (NodeKind::Get(HookAddress { invoke, .. }) | NodeKind::Generated(invoke), Some(trace)) => {
                    wave = of_invoke.get(&(trace, *invoke)).copied().unwrap_or(0);
                }
                // What is set from a later wave waits for it.
                (
                    NodeKind::Set { address: HookAddress { invoke, .. }, .. }
                    | NodeKind::Skip { invoke, .. }
                    | NodeKind::SetWeight { invoke, .. },
                    Some(trace),
                ) => {
                    if let Some(own) = of_invoke.get_mut(&(trace, *invoke)) {
                        if wave > *own {
                            waves.hold(
                                *own + 1,
                                wave,
                                self.bytes_that_wait(&rows, (trace, *invoke), checked.place),
                            );
                            *own = wave;
                        }
                        wave = *own;
                    }
                }
                _ => {}
            }
            if let NodeKind::SetWeight { value, .. } = &self.program.node(id).kind {
                // The numbers once more, and in the form that runs, beside the value itself.
                let set = self.nodes[value.node.index()].outputs.get(value.output as usize);
                let bytes = set.map_or(0, |set| set.bytes(ASSUMED_LENGTH));
                waves.hold(wave, wave, bytes.saturating_mul(2));
            }
            made[position] = wave;
            read[position] = wave;
            for value in &values {
                let last = &mut read[value.node.index()];
                *last = wave.max(*last);
            }
            let reads = values.len() as u64 / READ_AS_ONE;
            let repeats = self.repeats(id, checked.trace.map_or(1, |trace| totals[trace.index()]));
            price.nodes = price.nodes.saturating_add((1 + reads).saturating_mul(repeats));
            flops[position] = self.node_flops(id, &turned, &rows);
            waves.working = waves.working.max(self.working_bytes(id));
            self.charge(id, flops[position].saturating_mul(repeats), &mut price);
            if let NodeKind::Save(value) | NodeKind::Log(value) = &self.program.node(id).kind {
                let kept = self.nodes[value.node.index()].outputs.get(value.output as usize);
                let bytes = kept.map_or(0, |kept| kept.bytes(ASSUMED_LENGTH)).saturating_mul(repeats);
                let described =
                    (self.program.node(id).name.len() as u64 + ENTRY_BYTES).saturating_mul(repeats);
                let all = bytes.saturating_add(described);
                if let NodeKind::Save(_) = &self.program.node(id).kind {
                    price.result_bytes = price.result_bytes.saturating_add(all);
                    self.charge(id, bytes.saturating_mul(weight::WRITTEN), &mut price);
                } else {
                    logged = logged.saturating_add(all);
                }
            }
        }
        let mut outlive = self.outlive_their_step();
        for (position, source) in self.kept_by_views().into_iter().enumerate().rev() {
            if let Some(source) = source.filter(|_| self.nodes[position].needed) {
                read[source] = read[source].max(read[position]);
                outlive[source] |= outlive[position];
            }
        }
        for (position, checked) in self.nodes.iter().enumerate().filter(|(_, checked)| checked.needed) {
            let outputs = checked.outputs.iter();
            let bytes = outputs.fold(0_u64, |sum, output| sum.saturating_add(output.bytes(ASSUMED_LENGTH)));
            let id = NodeId(position as u32);
            let later = match outlive[position] {
                true => self.repeats(id, checked.trace.map_or(1, |trace| totals[trace.index()])) - 1,
                false => 0,
            };
            // At its later steps a body has one position, at its first all of the prompt's.
            let of_later = self.later_bytes.get(&id).copied().unwrap_or(bytes).saturating_mul(later);
            waves.hold(made[position], read[position], bytes.saturating_add(of_later));
        }
        let kept = self.price_of_going_back(&of_invoke, &rows, (&made, &turned), &mut price, &mut waves);
        let constants = self
            .program
            .constants
            .values()
            .fold(0u64, |sum, constant| sum.saturating_add(constant.bytes.len() as u64));
        let peak = waves.peak();
        price.peak_bytes =
            peak.saturating_add(constants).saturating_add(price.result_bytes).saturating_add(logged);
        for (from, to, bytes) in kept {
            waves.hold(from, to, bytes);
        }
        price.kept_bytes = waves.peak().saturating_sub(peak);
        (price, flops)
    }

    /// Bytes of an invoke's rows that wait at a hook point: its value, and what else stages there hand on to one another, about.
    fn bytes_that_wait(&self, rows: &AllRows, invoke: (NodeId, usize), place: Option<usize>) -> u64 {
        let tokens = rows.get(&invoke).map_or(0, |rows| rows.tokens);
        let streams = self.spec(invoke.0).sizes.hidden.saturating_mul(3 * 4);
        self.bytes_at(rows, invoke, place).saturating_add(streams.saturating_mul(tokens))
    }

    /// Bytes of a hook point's value for an invoke.
    fn bytes_at(&self, rows: &AllRows, invoke: (NodeId, usize), place: Option<usize>) -> u64 {
        let hook = place.and_then(|place| self.spec(invoke.0).hook_points.get(place));
        let (Some(hook), Some(rows)) = (hook, rows.get(&invoke).filter(|rows| rows.known)) else { return 0 };
        let elements = hook.shape.iter().fold(1_u64, |product, axis| {
            product.saturating_mul(match axis {
                Axis::Prompts => rows.prompts,
                Axis::Length | Axis::Context => rows.longest,
                Axis::Size(size) => *size,
            })
        });
        elements.saturating_mul(hook.dtype.size())
    }

    /// What the prompts of each invoke come to.
    fn rows(&self) -> AllRows {
        let traces = self.program.traces();
        let invokes = traces.flat_map(|(id, trace)| {
            trace.invokes.iter().enumerate().map(move |(number, invoke)| ((id, number), &invoke.prompts))
        });
        invokes.map(|(invoke, prompts)| (invoke, Rows::of(prompts))).collect()
    }

    /// Adds operations of a node.
    fn charge(&self, id: NodeId, flops: u64, price: &mut Price) {
        price.flops = price.flops.saturating_add(flops);
        if !matches!(self.program.node(id).kind, NodeKind::Apply { .. }) {
            price.own_flops = price.own_flops.saturating_add(flops);
        }
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

    /// Of each node: whether its value does not lie in row-major order, as far as can be told before it runs. Who reads it brings it into
    /// that order first.
    fn turned(&self) -> Vec<bool> {
        let mut turned = vec![false; self.program.nodes.len()];
        for position in 0..turned.len() {
            let NodeKind::Operation(operation) = &self.program.nodes[position].kind else { continue };
            turned[position] = match operation.kind {
                OperationKind::Transpose | OperationKind::Permute | OperationKind::MoveDim => true,
                _ if touches(operation) == Touches::Nothing => {
                    operation.values().first().is_some_and(|input| turned[input.node.index()])
                }
                _ => false,
            };
        }
        turned
    }

    /// What an operation adds because of operands that do not lie in row-major order.
    fn out_of_order(&self, id: NodeId, operation: &Operation, turned: &[bool]) -> u64 {
        let read = operation.values().into_iter().filter(|value| turned[value.node.index()]);
        read.fold(0, |sum: u64, value| {
            // Along another dimension than the last it is turned once more, or back: that has its price.
            let rank = self.nodes[value.node.index()].outputs.first().map_or(0, |output| output.shape.len());
            if weight::across(operation, rank) > 0 {
                return sum;
            }
            let Some(own) = self.nodes[value.node.index()].outputs.get(value.output as usize) else {
                return sum;
            };
            // Of some operands only what comes into the result is read.
            let elements = match touches(operation) {
                Touches::Places => own.elements(ASSUMED_LENGTH).min(self.elements(Value::from(id))),
                _ => own.elements(ASSUMED_LENGTH),
            };
            sum.saturating_add(elements.saturating_mul(weight::out_of_order(operation.kind, own.dtype)))
        })
    }

    /// Bytes that an operation needs while it runs, beside what it reads and makes.
    fn working_bytes(&self, id: NodeId) -> u64 {
        let NodeKind::Operation(operation) = &self.program.node(id).kind else { return 0 };
        let type_of = |value: Value| self.nodes[value.node.index()].outputs[value.output as usize].clone();
        room::working_bytes(operation, &type_of, &self.nodes[id.index()].outputs, ASSUMED_LENGTH)
    }

    fn node_flops(&self, id: NodeId, turned: &[bool], rows: &AllRows) -> u64 {
        match &self.program.node(id).kind {
            NodeKind::Operation(operation) => {
                let type_of =
                    |value: Value| self.nodes[value.node.index()].outputs[value.output as usize].clone();
                let mut symbol = self.next_symbol;
                let mut context = RuleContext { operation, type_of: &type_of, next_symbol: &mut symbol };
                let own = operation.kind.definition().typed(&mut context).map_or(0, |typed| typed.flops);
                own.saturating_add(self.out_of_order(id, operation, turned))
            }
            NodeKind::Apply { .. } => {
                let spec = self.spec(id);
                let Some(module) = self.nodes[id.index()].module.and_then(|module| spec.modules.get(module))
                else {
                    return 0;
                };
                let prefix = format!("{}.", module.path);
                let own = spec.parameters.iter().filter(|parameter| parameter.name.starts_with(&prefix));
                let weights = own.fold(0u64, |sum, parameter| {
                    sum.saturating_add(
                        parameter.shape.iter().fold(1u64, |product, &size| product.saturating_mul(size)),
                    )
                });
                // A tied unembedding has no parameter of its own.
                let weights = if weights == 0 {
                    spec.sizes.vocabulary.saturating_mul(spec.sizes.hidden)
                } else {
                    weights
                };
                let rows = self.nodes[id.index()].outputs.first().map_or(0, |output| {
                    let width = output.shape.last().map_or(1, |last| last.assume(ASSUMED_LENGTH)).max(1);
                    output.elements(ASSUMED_LENGTH) / width
                });
                weights.saturating_mul(2).saturating_mul(rows)
            }
            NodeKind::Get(_) => self.elements(Value::from(id)).saturating_mul(weight::COPIED),
            // All of the hook point is written, though the value may be one number.
            NodeKind::Set { value, .. } | NodeKind::Skip { value, .. } => {
                let checked = &self.nodes[id.index()];
                let written = self.program.node(id).kind.written().zip(checked.trace);
                let bytes = written
                    .map_or(0, |((invoke, _), trace)| self.bytes_at(rows, (trace, invoke), checked.place));
                self.elements(*value).max(bytes / 4).saturating_mul(weight::COPIED)
            }
            // What is kept to the end is brought into row-major order.
            NodeKind::Save(value) | NodeKind::Log(value) => {
                let kept = self.nodes[value.node.index()].outputs.get(value.output as usize);
                kept.map_or(0, |kept| {
                    kept.elements(ASSUMED_LENGTH).saturating_mul(weight::turned(kept.dtype))
                })
            }
            NodeKind::Weight { index, .. } => {
                self.read_of_weight(id, index.as_deref()).saturating_mul(weight::COPIED)
            }
            NodeKind::Literal { .. }
            | NodeKind::Constant(_)
            | NodeKind::Tokens(_)
            | NodeKind::Mask(_)
            | NodeKind::Lengths(_)
            | NodeKind::Generated(_) => self.elements(Value::from(id)).saturating_mul(weight::COPIED),
            _ => 0,
        }
    }

    /// Elements of a value; 0: it has none.
    fn elements(&self, value: Value) -> u64 {
        let output = self.nodes[value.node.index()].outputs.get(value.output as usize);
        output.map_or(0, |output| output.elements(ASSUMED_LENGTH))
    }

    /// Elements of a parameter that are read for a part of it: its first rows where the index begins with a place or a slice, else
    /// all.
    fn read_of_weight(&self, id: NodeId, index: Option<&[IndexItem]>) -> u64 {
        let parameter = self.nodes[id.index()].parameter.and_then(|own| self.spec(id).parameters.get(own));
        let Some(sizes) = parameter.map(|parameter| parameter.shape.as_slice()) else { return 0 };
        let whole = sizes.iter().fold(1_u64, |product, &size| product.saturating_mul(size));
        let (Some(items), Some(&rows)) = (index, sizes.first()) else { return whole };
        let place = |place: i64| {
            let from_end =
                if place < 0 { rows.saturating_sub(place.unsigned_abs()) } else { place.unsigned_abs() };
            from_end.min(rows)
        };
        let read = match items.first() {
            Some(IndexItem::Integer(_)) => 1,
            Some(IndexItem::Slice { start, stop, .. }) => {
                stop.map_or(rows, place).saturating_sub(start.map_or(0, place))
            }
            _ => rows,
        };
        let picked = items.iter().filter_map(|item| match item {
            IndexItem::Tensor(value) => Some(self.elements(*value)),
            _ => None,
        });
        let part = (whole / rows.max(1)).saturating_mul(read);
        picked.fold(part.max(self.elements(Value::from(id))), u64::max)
    }
}

/// The buffers of a pass for one prompt, and its keys and values.
pub(super) fn forward_bytes(spec: &ModelSpec, length: u64, context: u64) -> u64 {
    let sizes = &spec.sizes;
    let attention = sizes.heads.saturating_mul(sizes.head_size);
    let width = sizes
        .hidden
        .saturating_mul(4)
        .saturating_add(sizes.inner.saturating_mul(2))
        .saturating_add(attention.saturating_mul(4));
    let cache =
        sizes.layers.saturating_mul(sizes.key_value_heads).saturating_mul(sizes.head_size).saturating_mul(2);
    let logits = sizes.vocabulary;
    length
        .saturating_mul(width.saturating_add(logits))
        .saturating_add(context.saturating_mul(cache))
        .saturating_mul(4)
}
