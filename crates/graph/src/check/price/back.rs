//! What ways back will cost.

mod reach;

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::Checker;
use super::super::gradients::GradientPlan;
use super::{AllRows, Pass, Price, Waves};
use crate::dtype::DType;
use crate::program::{NodeId, NodeKind, Value};
use crate::rules::{ASSUMED_LENGTH, weight};
use crate::spec::ModelSpec;
use reach::{Layers, Reach};

impl Checker<'_> {
    /// Going back takes about twice what going there took, and what it reads is kept: of the invokes that it goes through,
    /// which of a sweep's cell are its own, not those of all cells; and of these of the layers that lie between what the loss is
    /// computed from and the earliest gradient that is needed. Gives the bytes that can be given up instead, with the waves from
    /// which and to which they are held.
    pub(super) fn price_of_going_back(
        &self,
        of_invoke: &HashMap<(NodeId, usize), usize>,
        rows: &AllRows,
        (made, turned): (&[usize], &[bool]),
        price: &mut Price,
        waves: &mut Waves,
    ) -> Vec<(usize, usize, u64)> {
        // Of each trace: its model's layers and pass, and the wave of its last way back.
        let mut layers: HashMap<NodeId, (Layers, Pass)> = HashMap::new();
        let mut last: HashMap<NodeId, usize> = HashMap::new();
        // Of each way back: how far it goes through each invoke; and of each invoke, how far all of them go.
        let mut reaches = Vec::with_capacity(self.gradients.len());
        let mut known: HashMap<(NodeId, usize), Reach> = HashMap::new();
        for plan in &self.gradients {
            let Some(trace) = self.nodes[plan.backward.index()].trace else {
                reaches.push(BTreeMap::new());
                continue;
            };
            let last = last.entry(trace).or_default();
            *last = made[plan.backward.index()].max(*last);
            layers.entry(trace).or_insert_with(|| (Layers::of(self.spec(trace)), Pass::of(self.spec(trace))));
            let through = self.reach(plan, trace);
            for (&invoke, reach) in &through {
                known.entry((trace, invoke)).or_insert(*reach).take_in(reach);
            }
            reaches.push(through);
        }
        let mut kept = Vec::new();
        // Of each node, once that is asked for: the operations that it takes on the way there.
        let mut flops: Vec<Option<u64>> = vec![None; self.program.nodes.len()];
        let mut counted: HashSet<(NodeId, usize)> = HashSet::new();
        for (plan, through) in self.gradients.iter().zip(&reaches) {
            for &node in &plan.path {
                flops[node.index()].get_or_insert_with(|| self.node_flops(node, turned, rows));
            }
            self.price_of_nodes_on_the_way_back(plan, (made, &flops), price, waves);
            let Some(trace) = self.nodes[plan.backward.index()].trace else { continue };
            let (spec, Some((layers, pass))) = (self.spec(trace), layers.get(&trace)) else { continue };
            for (&number, reach) in through {
                let Some(rows) = rows.get(&(trace, number)).filter(|rows| rows.known) else { continue };
                let wave = of_invoke.get(&(trace, number)).copied().unwrap_or(0);
                let last = last.get(&trace).copied().unwrap_or(wave).max(wave);
                let all = known.get(&(trace, number)).unwrap_or(reach);
                let first = counted.insert((trace, number));
                let Kept { least, more, layer } = Kept::of(spec, rows.tokens, all.layers_kept(layers));
                if first {
                    waves.hold(wave, last, least);
                    kept.push((wave, last, more));
                } else {
                    // Each way back computes a layer again by itself.
                    waves.hold(wave, last, layer);
                }
                let there = pass.flops(rows.tokens, rows.pairs);
                let there = there.saturating_sub(layers.spared(spec, reach, rows));
                price.flops = price.flops.saturating_add(there.saturating_mul(2));
                price.recomputed_flops = price.recomputed_flops.saturating_add(there);
            }
            for &node in &plan.path {
                if let NodeKind::SetWeight { invoke, .. } = self.program.node(node).kind {
                    // Its gradient is as large as it is itself, and a product more.
                    let spec = self.spec(trace);
                    let parameter =
                        self.nodes[node.index()].parameter.and_then(|own| spec.parameters.get(own));
                    let sizes = parameter.map_or(&[][..], |parameter| parameter.shape.as_slice());
                    let elements = sizes.iter().fold(1u64, |product, &size| product.saturating_mul(size));
                    let wave = of_invoke.get(&(trace, invoke)).copied().unwrap_or(0);
                    waves.hold(wave, wave, elements.saturating_mul(4));
                    let rows = rows.get(&(trace, invoke)).filter(|rows| rows.known);
                    let tokens = rows.map_or(0, |rows| rows.tokens);
                    price.flops =
                        price.flops.saturating_add(elements.saturating_mul(2).saturating_mul(tokens));
                }
            }
        }
        // What an invoke was edited to is kept beside, so that what comes after it can be computed again.
        for (position, checked) in self.nodes.iter().enumerate().filter(|(_, checked)| checked.needed) {
            let node = self.program.node(NodeId(position as u32));
            if let (Some((invoke, _)), Some(trace)) = (node.kind.written(), checked.trace)
                && known.contains_key(&(trace, invoke))
            {
                let bytes = self.bytes_at(rows, (trace, invoke), checked.place);
                let last = last.get(&trace).copied().unwrap_or(0);
                waves.hold(made[position], last.max(made[position]), bytes);
            }
        }
        kept
    }

    /// What a way back takes in the program's own nodes. What each node brings to the values that it
    /// read is held until all that read a value have brought theirs.
    fn price_of_nodes_on_the_way_back(
        &self,
        plan: &GradientPlan,
        (made, flops): (&[usize], &[Option<u64>]),
        price: &mut Price,
        waves: &mut Waves,
    ) {
        price.nodes = price.nodes.saturating_add(2 * plan.path.len() as u64);
        let begins = made[plan.backward.index()];
        let ends = plan.targets.iter().map(|target| made[target.index()]).max().unwrap_or(begins).max(begins);
        let bytes = |value: Value| {
            let output = self.nodes[value.node.index()].outputs.get(value.output as usize);
            output.map_or(0, |output| output.bytes(ASSUMED_LENGTH))
        };
        if let NodeKind::Backward { of, .. } = self.program.node(plan.backward).kind {
            waves.hold(begins, ends, bytes(of));
        }
        for &node in &plan.path {
            self.charge(node, flops[node.index()].unwrap_or(0).saturating_mul(2), price);
            let read = self.program.node(node).kind.values();
            for &value in read.iter().filter(|value| plan.goes_through(value.node)) {
                waves.hold(begins, ends, bytes(value));
            }
            // What is a view on the way there is written into a gradient as large as what it looks at on the way back, or added up.
            let outputs = self.nodes[node.index()].outputs.iter();
            let elements = read.iter().map(|&value| self.elements(value));
            let elements = elements.chain(outputs.map(|output| output.elements(ASSUMED_LENGTH)));
            let elements = elements.fold(0_u64, u64::saturating_add);
            self.charge(node, elements.saturating_mul(weight::COPIED), price);
            // Sums of many are made in twice the width.
            waves.working = waves.working.max(elements.saturating_mul(DType::F64.size()));
        }
    }
}

/// Bytes that are kept of a pass for the way back, for so many tokens: what the norms, activations and attention of each layer on it read.
struct Kept {
    /// What each layer begins with, and all of two layers: the last, and the one that is being computed.
    least: u64,
    /// All else: it can be computed again.
    more: u64,
    /// One layer.
    layer: u64,
}

impl Kept {
    fn of(spec: &ModelSpec, tokens: u64, layers: u64) -> Kept {
        let sizes = &spec.sizes;
        let attention = sizes.heads.saturating_mul(sizes.head_size);
        let layer = sizes
            .hidden
            .saturating_mul(2)
            .saturating_add(sizes.inner.saturating_mul(3))
            .saturating_add(attention.saturating_mul(3));
        let bytes = |numbers: u64| numbers.saturating_mul(tokens).saturating_mul(4);
        let all = bytes(layer.saturating_mul(layers));
        let roots = bytes(sizes.hidden.saturating_mul(layers));
        let least = bytes(layer.saturating_mul(2)).saturating_add(roots).min(all);
        Kept { least, more: all - least, layer: bytes(layer) }
    }
}
