//! Versions of an invoke's hook points, and which of them what is read comes from.
//!
//! A setter makes a new version of its hook point, a skip of its module's output. What is read at a hook point comes from the
//! versions before it in the schedule, but not from all: a setter that is sure to run overwrites the versions before it at
//! its own place, and there is no way around it where everything passes: what is inside a module leaves it by its output, and
//! all that comes before a block, the final norm or the unembedding passes its input and its output.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::{Checker, SpecIndex};
use crate::program::{GradientOf, NodeId, NodeKind};

/// An invoke of a trace.
pub(super) type Chain = (Option<NodeId>, usize);

/// A version of a hook point: its place, and the setter that made it (none: the model itself).
pub(super) type Version = (usize, Option<NodeId>);

/// A place in an invoke: that of a hook point, and a node there.
pub(super) type Moment = (usize, NodeId);

const LAST: NodeId = NodeId(u32::MAX);

/// What is done to one invoke.
#[derive(Default)]
struct Edits {
    /// Setters and skips, sorted.
    setters: Vec<Moment>,
    /// Those that run in any case, by place, in program order.
    certain: HashMap<usize, Vec<NodeId>>,
    /// The places among them that everything before passes.
    necks: BTreeSet<usize>,
    /// Weights that are set: the first place that shows one, and the node.
    weights: Vec<Moment>,
    /// Those among them that the embedding has, and perhaps the unembedding too.
    embeddings: BTreeSet<NodeId>,
    /// The place of its model.
    model: usize,
}

impl Edits {
    /// The first setter of a place that is sure to run.
    fn first(&self, place: usize) -> Option<Moment> {
        Some((place, *self.certain.get(&place)?.first()?))
    }

    /// The last such setter before a node.
    fn last_before(&self, place: usize, reader: NodeId) -> Option<NodeId> {
        let certain = self.certain.get(&place)?;
        certain.partition_point(|&setter| setter < reader).checked_sub(1).map(|last| certain[last])
    }

    /// The first such setter after another, or after the model's own version.
    fn next_after(&self, place: usize, setter: Option<NodeId>) -> Option<NodeId> {
        let certain = self.certain.get(&place)?;
        let after = certain.partition_point(|&other| Some(other) <= setter);
        certain.get(after).copied()
    }
}

/// Where a model's values must pass.
struct Passages {
    /// Of each place: whether all that comes before it passes there.
    necks: Vec<bool>,
    /// Of each place: the places of the outputs of the modules around it, its own hook point's if it is one.
    around: Vec<Vec<usize>>,
}

impl Passages {
    fn of(index: &SpecIndex<'_>) -> Passages {
        let spec = index.spec();
        let count = spec.hook_points.len();
        let mut necks = vec![false; count];
        let is_block = |alias: &str| {
            alias.strip_prefix("layers.").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let all = |alias: &str| is_block(alias) || alias == "final_norm" || alias == "unembed";
        for alias in spec.aliases.iter().filter(|alias| !alias.hook && all(&alias.alias)) {
            for name in ["input", "output"] {
                if let Some(place) = index.hook(&format!("{}.{name}", alias.target)) {
                    necks[place] = true;
                }
            }
        }
        let mut ends: HashMap<&str, (usize, usize)> = HashMap::new();
        for (place, hook) in spec.hook_points.iter().enumerate() {
            if hook.name == "input" {
                ends.insert(&hook.module, (place, place));
            } else if hook.name == "output"
                && let Some(end) = ends.get_mut(hook.module.as_str())
            {
                end.1 = place;
            }
        }
        let around = |(place, hook): (usize, &crate::spec::HookPointSpec)| {
            let module = hook.module.as_str();
            let above = module.match_indices('.').map(|(at, _)| &module[..at]);
            let modules = above.chain([module]).filter_map(|module| ends.get(module));
            modules.filter(|(from, to)| from < to && (from..=to).contains(&&place)).map(|end| end.1).collect()
        };
        Passages { around: spec.hook_points.iter().enumerate().map(around).collect(), necks }
    }
}

/// What is done to each invoke.
#[derive(Default)]
pub(super) struct Touches {
    edits: HashMap<Chain, Edits>,
    passages: BTreeMap<usize, Passages>,
}

impl Touches {
    /// The version of the hook point at that place that a node at `reader` in program order sees.
    pub(super) fn version(&self, chain: Chain, place: usize, reader: Option<NodeId>) -> Version {
        let setters = self.edits.get(&chain).map_or(&[][..], |edits| edits.setters.as_slice());
        let end = match reader {
            Some(reader) => setters.partition_point(|&touch| touch < (place, reader)),
            None => setters.partition_point(|&(at, _)| at <= place),
        };
        let last = end.checked_sub(1).map(|last| setters[last]);
        (place, last.filter(|&(at, _)| at == place).map(|(_, setter)| setter))
    }

    fn around(&self, edits: &Edits, place: usize) -> &[usize] {
        let passages = self.passages.get(&edits.model);
        passages.and_then(|passages| passages.around.get(place)).map_or(&[], Vec::as_slice)
    }

    /// The setter at which everything ends that flows on from a place; none: it goes on to the end.
    fn end_of_flow(&self, edits: &Edits, place: usize) -> Option<Moment> {
        let neck = edits.necks.range((Excluded(place), Unbounded)).next();
        let around = self.around(edits, place).iter().filter(|&&output| output > place);
        neck.into_iter().chain(around).filter_map(|&place| edits.first(place)).min()
    }

    /// The setter at which all ends of a version that is not read before, if there is one: what says why nothing goes on.
    pub(super) fn cut(&self, chain: Chain, (place, setter): Version) -> Option<NodeId> {
        let edits = self.edits.get(&chain)?;
        let own = edits.next_after(place, setter);
        own.or_else(|| Some(self.end_of_flow(edits, place)?.1))
    }

    /// The setters of an invoke, arranged for what is read of it.
    pub(super) fn unread(&self, chain: Chain) -> Unread {
        let mut unread = Unread::default();
        let Some(edits) = self.edits.get(&chain) else { return unread };
        unread.count = edits.setters.len() + edits.weights.len();
        unread.all.extend(&edits.setters);
        for &(shown, setter) in &edits.weights {
            // What comes of it is inside its module, and leaves that as what was set at the module's input does.
            let input = shown.checked_sub(1);
            let end = input.filter(|_| !edits.embeddings.contains(&setter));
            let end = end.and_then(|input| self.end_of_flow(edits, input));
            if let Some(input) = input {
                unread.flowing.entry(end).or_default().insert((input, setter));
            } else {
                unread.weights.push(setter);
            }
        }
        for &(place, setter) in &edits.setters {
            if edits.next_after(place, Some(setter)).is_none() {
                let end = self.end_of_flow(edits, place);
                unread.flowing.entry(end).or_default().insert((place, setter));
            }
        }
        unread
    }

    /// What a getter reads that none before it read: setters and skips, and weights that are set. And whether it reads what
    /// flows there, not only what was set at its own place.
    pub(super) fn read(
        &self,
        chain: Chain,
        (place, getter): Moment,
        unread: &mut Unread,
    ) -> (Vec<NodeId>, bool) {
        let Some(edits) = self.edits.get(&chain) else { return (Vec::new(), true) };
        let own = edits.last_before(place, getter);
        let mut found = take(&mut unread.all, (place, own.unwrap_or(NodeId(0))), (place, getter));
        if own.is_some() {
            return (found, false);
        }
        let neck = edits.necks.range(place..).next();
        let ends = neck.into_iter().chain(self.around(edits, place)).map(|&place| edits.first(place));
        for end in ends.chain([None]) {
            if let Some(flowing) = unread.flowing.get_mut(&end) {
                found.extend(take(flowing, (0, NodeId(0)), (place, NodeId(0))));
            }
        }
        found.append(&mut unread.weights);
        (found, true)
    }

    /// Whether what was read comes from a version.
    pub(super) fn is_read(&self, chain: Chain, (place, setter): Version, reads: &Reads) -> bool {
        let none = Edits::default();
        let edits = self.edits.get(&chain).unwrap_or(&none);
        let next = edits.next_after(place, setter);
        let from = (place, setter.unwrap_or(NodeId(0)));
        let mut own = reads.getters.range((Excluded(from), Included((place, next.unwrap_or(LAST)))));
        if own.next().is_some() {
            return true;
        }
        let end = self.end_of_flow(edits, place).map_or(Unbounded, Excluded);
        next.is_none() && reads.flowing.range((Excluded((place, LAST)), end)).next().is_some()
    }
}

/// Takes out what lies between.
fn take(set: &mut BTreeSet<Moment>, from: Moment, to: Moment) -> Vec<NodeId> {
    let found: Vec<Moment> = set.range(from..to).copied().collect();
    found.iter().for_each(|moment| {
        set.remove(moment);
    });
    found.into_iter().map(|(_, node)| node).collect()
}

/// The edits of an invoke that nothing found so far was read from.
#[derive(Default)]
pub(super) struct Unread {
    all: BTreeSet<Moment>,
    /// Those that no other overwrites, by where all ends that flows on from them.
    flowing: HashMap<Option<Moment>, BTreeSet<Moment>>,
    /// Weights of which it is not known where they show.
    weights: Vec<NodeId>,
    /// How many there were.
    pub(super) count: usize,
}

/// The getters found of an invoke.
#[derive(Clone, Default)]
pub(super) struct Reads {
    pub(super) getters: BTreeSet<Moment>,
    /// Those that read what flows there.
    pub(super) flowing: BTreeSet<Moment>,
}

impl Checker<'_> {
    /// What is done to the program's invokes outside generations.
    pub(super) fn model_touches(&self) -> Touches {
        let mut touches = Touches::default();
        let may_be_lost = self.may_be_lost();
        // Of each parameter of an invoke the last one set counts, and those that follow if their conditions hold.
        let mut weights: BTreeMap<(Chain, Option<usize>), Vec<NodeId>> = BTreeMap::new();
        for (position, node) in self.program.nodes.iter().enumerate() {
            let id = NodeId(position as u32);
            let checked = &self.nodes[position];
            if let (Some((invoke, _)), Some(place)) = (node.kind.written(), checked.place) {
                let edits = touches.edits.entry((checked.trace, invoke)).or_default();
                edits.model = checked.model;
                edits.setters.push((place, id));
                if !may_be_lost[position] {
                    edits.certain.entry(place).or_default().push(id);
                }
            } else if let NodeKind::SetWeight { invoke, .. } = node.kind {
                let own = weights.entry(((checked.trace, invoke), checked.parameter)).or_default();
                if !may_be_lost[position] {
                    own.clear();
                }
                own.push(id);
            }
        }
        for ((chain, _), own) in weights {
            let edits = touches.edits.entry(chain).or_default();
            for id in own {
                edits.model = self.nodes[id.index()].model;
                edits.weights.push((self.shown_from(id), id));
                if self.is_of_embedding(id) {
                    edits.embeddings.insert(id);
                }
            }
        }
        for edits in touches.edits.values_mut() {
            edits.setters.sort_unstable();
            if edits.certain.is_empty() {
                continue;
            }
            let index = self.models.get(edits.model).unwrap_or(&self.models[0]).1;
            let passages = touches.passages.entry(edits.model).or_insert_with(|| Passages::of(index));
            let necks = edits.certain.keys().copied();
            edits.necks = necks.filter(|&place| passages.necks.get(place) == Some(&true)).collect();
        }
        touches
    }

    /// Of each node: whether it may never come, or set nothing, for a condition or for a generation that stops before.
    fn may_be_lost(&self) -> Vec<bool> {
        let conditions = self.program.nodes.iter().any(|node| !node.guards.is_empty());
        let mut may: Vec<bool> = Vec::with_capacity(self.program.nodes.len());
        for (position, node) in self.program.nodes.iter().enumerate() {
            let checked = &self.nodes[position];
            let own = match &node.kind {
                NodeKind::Get(address) => checked.steps.is_some() || address.step.unwrap_or(0) > 0,
                NodeKind::Grad { backward, .. } => conditions || may[backward.index()],
                _ => false,
            };
            let reads = node.values();
            may.push(own || !node.guards.is_empty() || reads.iter().any(|value| may[value.node.index()]));
        }
        may
    }

    /// Whether the embedding has the weight that is set.
    fn is_of_embedding(&self, id: NodeId) -> bool {
        let index = self.index(id);
        let spec = index.spec();
        let parameter = self.nodes[id.index()].parameter.and_then(|own| spec.parameters.get(own));
        let module = parameter.and_then(|parameter| Some(parameter.name.rsplit_once('.')?.0));
        let embedding = index.module("embed").map(|embedding| spec.modules[embedding].path.as_str());
        module.is_some() && module == embedding
    }

    /// The first place that a weight which is set shows at.
    pub(super) fn shown_from(&self, id: NodeId) -> usize {
        // A moment is one more than its hook point's place: the one after the module's input.
        self.shows_from(id).map_or(0, |(_, moment, _)| moment)
    }

    /// From where on in its invoke an edit is seen.
    pub(super) fn seen_from(&self, id: NodeId) -> Option<(Chain, Moment)> {
        let kind = &self.program.node(id).kind;
        let trace = self.nodes[id.index()].trace;
        match *kind {
            NodeKind::SetWeight { invoke, .. } => Some(((trace, invoke), (self.shown_from(id), NodeId(0)))),
            _ => {
                let (invoke, _) = kind.written()?;
                Some(((trace, invoke), (self.nodes[id.index()].place?, id)))
            }
        }
    }

    /// The version of a hook point that a gradient is that of, if it is one of `trace`.
    pub(super) fn version_of(
        &self,
        target: NodeId,
        of: &GradientOf,
        trace: Option<NodeId>,
        touches: &Touches,
    ) -> Option<(Chain, Version)> {
        match of {
            GradientOf::Hook(address) => {
                let chain = (trace, address.invoke);
                Some((chain, touches.version(chain, self.nodes[target.index()].place?, None)))
            }
            GradientOf::Value(value) => self.version_read(value.node, trace, touches),
        }
    }

    /// The version that a getter of `trace` reads.
    pub(super) fn version_read(
        &self,
        getter: NodeId,
        trace: Option<NodeId>,
        touches: &Touches,
    ) -> Option<(Chain, Version)> {
        let NodeKind::Get(address) = &self.program.node(getter).kind else { return None };
        let checked = &self.nodes[getter.index()];
        let chain = (trace, address.invoke);
        let own = checked.trace == trace && trace.is_some();
        own.then_some(())?;
        Some((chain, touches.version(chain, checked.place?, Some(getter))))
    }
}
