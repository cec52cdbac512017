//! How far a way back goes through an invoke's pass, in whole layers: never less than it does.

use std::collections::{BTreeMap, HashMap};

use super::super::super::Checker;
use super::super::super::gradients::GradientPlan;
use super::super::rows::Rows;
use crate::program::{NodeId, NodeKind};
use crate::spec::ModelSpec;

/// The first and the last hook point, by their places, between which a way back goes through an invoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    from: usize,
    to: usize,
}

impl Reach {
    /// As far as both go.
    pub fn take_in(&mut self, other: &Reach) {
        *self = Reach { from: self.from.min(other.from), to: self.to.max(other.to) };
    }

    /// The layers that it touches.
    fn layers<'a>(&self, layers: &'a Layers) -> impl Iterator<Item = &'a Layer> {
        let Reach { from, to } = *self;
        layers.own.iter().filter(move |layer| layer.first <= to && layer.last >= from)
    }

    /// Layers of which something is kept, with one for what stands before the first and behind the last; no more than there are.
    pub fn layers_kept(&self, layers: &Layers) -> u64 {
        if layers.own.is_empty() {
            return layers.all;
        }
        (self.layers(layers).count() as u64 + 1).min(layers.all)
    }
}

/// A layer of a model.
struct Layer {
    /// The places of its first and its last hook point.
    first: usize,
    last: usize,
    /// Numbers of its matrices.
    weights: u64,
}

/// The layers of a model, in their order; empty, where they cannot all be told: then a way back goes through everything.
pub(super) struct Layers {
    own: Vec<Layer>,
    all: u64,
}

impl Layers {
    pub fn of(spec: &ModelSpec) -> Layers {
        let all = spec.sizes.layers;
        let layer_of: HashMap<&str, usize> = spec
            .aliases
            .iter()
            .filter(|alias| !alias.hook)
            .filter_map(|alias| {
                Some((alias.target.as_str(), alias.alias.strip_prefix("layers.")?.parse().ok()?))
            })
            .collect();
        // A path, or what it begins with: that of the module, or of one that it is in.
        let find = |path: &str| {
            let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
            ends.filter_map(|end| layer_of.get(path.get(..end)?).copied()).next()
        };
        let mut own: BTreeMap<usize, Layer> = BTreeMap::new();
        for (place, hook) in spec.hook_points.iter().enumerate() {
            if let Some(number) = find(&hook.module) {
                own.entry(number).or_insert(Layer { first: place, last: place, weights: 0 }).last = place;
            }
        }
        for parameter in spec.parameters.iter().filter(|parameter| parameter.shape.len() == 2) {
            if let Some(layer) = find(&parameter.name).and_then(|number| own.get_mut(&number)) {
                let size = parameter.shape.iter().fold(1_u64, |product, &size| product.saturating_mul(size));
                layer.weights = layer.weights.saturating_add(size);
            }
        }
        let complete = own.len() as u64 == all && own.keys().copied().eq(0..own.len());
        Layers { own: if complete { own.into_values().collect() } else { Vec::new() }, all }
    }

    /// Operations on the way there through the layers that a way back does not come to, of an invoke's prompts.
    pub fn spared(&self, spec: &ModelSpec, reach: &Reach, rows: &Rows) -> u64 {
        let there = self.own.iter().filter(|layer| layer.first > reach.to || layer.last < reach.from);
        let attention = spec.sizes.heads.saturating_mul(spec.sizes.head_size).saturating_mul(4);
        let attention = attention.saturating_mul(rows.pairs);
        there.fold(0, |sum: u64, layer| {
            let product = layer.weights.saturating_mul(2).saturating_mul(rows.tokens);
            sum.saturating_add(product).saturating_add(attention)
        })
    }
}

impl Checker<'_> {
    /// How far a way back goes through each invoke of its trace: from the earliest hook point that is written, or of which a gradient
    /// is asked for, to the last that is read.
    pub(super) fn reach(&self, plan: &GradientPlan, trace: NodeId) -> BTreeMap<usize, Reach> {
        let mut through: BTreeMap<usize, Reach> = BTreeMap::new();
        let mut touch = |invoke: usize, reach: Reach| {
            through.entry(invoke).or_insert(reach).take_in(&reach);
        };
        for &id in plan.path.iter().chain(&plan.targets) {
            let kind = &self.program.node(id).kind;
            let own = self.program.gradient_at(id).map(|(at, address)| (at, address.invoke));
            let touched = match kind {
                NodeKind::Get(address) => Some((id, address.invoke)),
                _ => kind.written().map(|(invoke, _)| (id, invoke)).or(own),
            };
            if let Some((at, invoke)) = touched {
                let checked = &self.nodes[at.index()];
                if let (true, Some(place)) = (checked.trace == Some(trace), checked.place) {
                    touch(invoke, Reach { from: place, to: place });
                }
                continue;
            }
            // Of a weight it is not told here which stages read it.
            kind.clone().for_each_invoke_mut(&mut |invoke| touch(*invoke, Reach { from: 0, to: usize::MAX }));
        }
        through
    }
}
