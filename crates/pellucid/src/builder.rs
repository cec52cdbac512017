//! What traces, invokes and values write into together: the program while it is being written.

use std::collections::{HashMap, HashSet};
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pellucid_graph::fault::{Fault, Faults};
use pellucid_graph::program::Constant;
use pellucid_graph::{
    Invoke as InvokeDefinition, Loop, Node, NodeId, NodeKind, Program, Prompts, SourceLocation, Sweep, Trace,
    Value as Reference,
};

use crate::value::Value;

/// The program of one session while it is being written. Every trace, invoke and value of the session shares it.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nodes in the order in which they were written; an unnamed node's name is empty until the program is finished, and
    /// an invoke's place is that in `invokes`.
    program: Program,
    /// The node that owns each node.
    owners: Vec<Option<NodeId>>,
    /// Edits that were brought in, each with its node here, and how many nodes of the body are theirs.
    imported: Vec<(Program, NodeId)>,
    imported_nodes: usize,
    /// Every invoke: the trace, sweep or loop that has it, and its place there.
    invokes: Vec<(NodeId, usize)>,
    /// The bodies that are being written by a closure, the innermost last.
    open: Vec<Open>,
    faults: Faults,
}

/// A body that is being written by a closure.
#[derive(Clone, Copy, Debug)]
struct Open {
    owner: NodeId,
    trace: Option<NodeId>,
    /// Whether it is that of `steps`, into which nodes come only when they say so.
    is_steps: bool,
}

/// The body that a node stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The trace that it is, or stands in; none: between traces.
    pub(crate) trace: Option<NodeId>,
    /// The node that owns the body; none: the session's own.
    pub(crate) owner: Option<NodeId>,
}

impl Scope {
    /// The session's own body.
    pub(crate) const SESSION: Scope = Scope { trace: None, owner: None };

    /// The body that stands further in, or later: owners are numbered in the order in which they were opened.
    pub(crate) fn max(self, other: Scope) -> Scope {
        if other.owner > self.owner { other } else { self }
    }
}

impl Builder {
    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while it held the lock left a whole node or none: the program is still sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is wrong; it is reported with everything else when the program is finished.
    pub(crate) fn fault(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Sets the seed of everything random in the program.
    pub(crate) fn set_seed(&self, seed: u64) {
        self.state().program.seed = seed;
    }

    /// Begins a trace, in the body that is being written between traces.
    pub(crate) fn trace(&self, name: &str, location: &Location<'_>) -> NodeId {
        self.node(Scope::SESSION, name.to_owned(), NodeKind::Trace(Trace::default()), location).0
    }

    /// Changes a trace: its generation.
    pub(crate) fn with_trace<R>(&self, id: NodeId, change: impl FnOnce(&mut Trace) -> R) -> Option<R> {
        match &mut self.state().program.nodes[id.index()].kind {
            NodeKind::Trace(trace) => Some(change(trace)),
            _ => None,
        }
    }

    /// Changes a node.
    pub(crate) fn with_node<R>(&self, id: NodeId, change: impl FnOnce(&mut NodeKind) -> R) -> R {
        change(&mut self.state().program.nodes[id.index()].kind)
    }

    /// Adds an invoke to a trace, sweep or loop, and gives its place among all.
    pub(crate) fn add_invoke(&self, owner: NodeId, prompts: Prompts) -> usize {
        let mut state = self.state();
        let number = state.invokes.len();
        let Some((invokes, word)) = invokes_of(&mut state.program.nodes[owner.index()].kind) else {
            return number;
        };
        let place = invokes.len();
        // In a trace by its place there; a sweep's or loop's own can be seen beside those, and have names of their own.
        let name =
            if word == "invoke" { format!("invoke_{place}") } else { format!("{word}_invoke_{number}") };
        invokes.push(InvokeDefinition::new(name, prompts));
        state.invokes.push((owner, place));
        number
    }

    /// The number of the invoke that an edit is written for.
    pub(crate) fn edited_invoke(&self, edit: NodeId) -> usize {
        let mut state = self.state();
        state.invokes.push((edit, 0));
        state.invokes.len() - 1
    }

    /// Lets an edit of the program count for an invoke.
    pub(crate) fn edit_invoke(&self, number: usize, edit: NodeId) {
        let mut state = self.state();
        let Some(&(owner, place)) = state.invokes.get(number) else { return };
        if let Some((invokes, _)) = invokes_of(&mut state.program.nodes[owner.index()].kind)
            && let Some(invoke) = invokes.get_mut(place)
        {
            invoke.edits.push(edit);
        }
    }

    /// Writes a program of edits at the beginning of this one, once, and gives the last of them. Names that are taken here
    /// are changed.
    pub(crate) fn import(&self, edits: &Program) -> Option<NodeId> {
        let mut state = self.state();
        if let Some((_, id)) = state.imported.iter().find(|(known, _)| known == edits) {
            return Some(*id);
        }
        let base = state.program.nodes.len() as u32;
        let moved = |id: NodeId| NodeId(base.saturating_add(id.0));
        let mut owners = vec![None; edits.nodes.len()];
        for (place, node) in edits.nodes.iter().enumerate() {
            for child in node.kind.owned() {
                if let Some(owner) = owners.get_mut(child.index()) {
                    *owner = Some(NodeId(place as u32));
                }
            }
        }
        let mut keys = HashMap::new();
        for (key, constant) in &edits.constants {
            let own = format!("constant_{}", state.program.constants.len());
            state.program.constants.insert(own.clone(), constant.clone());
            keys.insert(key.clone(), own);
        }
        let mut taken: HashSet<String> = state.program.nodes.iter().map(|node| node.name.clone()).collect();
        // Of each edit, the number of the invoke that it is written for.
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        for (place, node) in edits.nodes.iter().enumerate() {
            let mut node = node.clone();
            while !matches!(node.kind, NodeKind::Branch(_)) && !taken.insert(node.name.clone()) {
                node.name.push('_');
            }
            if let NodeKind::Edit(_) = node.kind {
                state.invokes.push((moved(NodeId(place as u32)), 0));
                numbers.insert(place, state.invokes.len() - 1);
            }
            let mut around = Some(place);
            let number = std::iter::from_fn(|| {
                let at = around?;
                around = owners.get(at).copied().flatten().map(NodeId::index);
                Some(at)
            })
            .find_map(|at| numbers.get(&at).copied());
            node.kind.for_each_invoke_mut(&mut |invoke| *invoke = number.unwrap_or(*invoke));
            node.renumber(&moved);
            if let NodeKind::Constant(key) = &mut node.kind
                && let Some(own) = keys.get(key)
            {
                key.clone_from(own);
            }
            state.program.nodes.push(node);
            state.owners.push(owners.get(place).copied().flatten().map(moved));
        }
        let first = state.imported_nodes;
        for (place, &id) in edits.body.iter().enumerate() {
            let at = first.saturating_add(place).min(state.program.body.len());
            state.program.body.insert(at, moved(id));
        }
        state.imported_nodes += edits.body.len();
        let last = moved(*edits.body.last()?);
        state.imported.push((edits.clone(), last));
        Some(last)
    }

    /// Names an invoke.
    pub(crate) fn name_invoke(&self, number: usize, name: &str) {
        let mut state = self.state();
        let Some(&(owner, place)) = state.invokes.get(number) else { return };
        if let Some((invokes, _)) = invokes_of(&mut state.program.nodes[owner.index()].kind)
            && let Some(invoke) = invokes.get_mut(place)
        {
            name.clone_into(&mut invoke.name);
        }
    }

    /// Adds a node, and says in which body it came to stand: the one given, or that of a sweep or loop inside it which is
    /// being written. A node that is written while a body inside its own is open stands before the owner of that body,
    /// whose nodes may read it. An operation on values of a trace and on what was made behind that trace stands behind both.
    pub(crate) fn node(
        &self,
        mut scope: Scope,
        name: String,
        kind: NodeKind,
        location: &Location<'_>,
    ) -> (NodeId, Scope) {
        let mut state = self.state();
        let reads = kind.values();
        if let (NodeKind::Operation(_), Some(around)) = (&kind, state.behind_trace(scope, &reads)) {
            scope = around;
        }
        let region = state.open.iter().rev().find(|open| !open.is_steps && open.trace == scope.trace);
        if let Some(region) = region.filter(|region| scope.owner < Some(region.owner)) {
            scope.owner = Some(region.owner);
        }
        let begins = matches!(
            kind,
            NodeKind::Trace(_)
                | NodeKind::Sweep(_)
                | NodeKind::Loop(_)
                | NodeKind::Cond(_)
                | NodeKind::Edit(_)
        );
        let id = state.push(name, kind, scope.owner, location);
        let place = state.place(scope, &reads, begins);
        match state.body(scope.owner) {
            Some(body) => body.insert(place.min(body.len()), id),
            None => state.owners[id.index()] = None,
        }
        (id, scope)
    }

    /// Adds a node that its owner lists itself: a parameter, a carried value.
    pub(crate) fn part(
        &self,
        owner: NodeId,
        name: String,
        kind: NodeKind,
        location: &Location<'_>,
    ) -> NodeId {
        self.state().push(name, kind, Some(owner), location)
    }

    /// Begins to write a body. Returns whether one of `steps` was being written.
    pub(crate) fn open(&self, scope: Scope, is_steps: bool) -> bool {
        let mut state = self.state();
        let in_steps = state.open.iter().any(|open| open.is_steps);
        if let Scope { trace, owner: Some(owner) } = scope {
            state.open.push(Open { owner, trace, is_steps });
        }
        in_steps
    }

    /// Ends the body that was begun last.
    pub(crate) fn close(&self) {
        self.state().open.pop();
    }

    /// Whether the body of a `steps` is the one that is being written.
    pub(crate) fn has_open_steps(&self) -> bool {
        self.state().open.last().is_some_and(|open| open.is_steps)
    }

    /// How many sweeps and loops are being written.
    pub(crate) fn open_regions(&self) -> usize {
        self.state().open.iter().filter(|open| !open.is_steps).count()
    }

    /// The sweep of whose cells a value is made, if it is a reduction.
    pub(crate) fn reduced_in(&self, id: NodeId) -> Option<NodeId> {
        let state = self.state();
        let is_region =
            |id: &NodeId| matches!(state.program.node(*id).kind, NodeKind::Sweep(_) | NodeKind::Loop(_));
        let is_reduction = matches!(state.program.node(id).kind, NodeKind::Reduce(_));
        state.around(id).find(is_region).filter(|_| is_reduction)
    }

    /// Names a node.
    pub(crate) fn rename(&self, id: NodeId, name: &str) {
        self.state().program.nodes[id.index()].name = name.to_owned();
    }

    /// Keeps a tensor that travels with the program, and gives the key under which it is kept.
    pub(crate) fn constant(&self, constant: Constant) -> String {
        let constants = &mut self.state().program.constants;
        let key = format!("constant_{}", constants.len());
        constants.insert(key.clone(), constant);
        key
    }

    /// The program, its nodes named and in program order: what a node owns follows it.
    pub(crate) fn finish(&self) -> Result<Program, Faults> {
        let state = self.state();
        state.faults.clone().or(())?;
        let program = &state.program;
        let mut order = Vec::with_capacity(program.nodes.len());
        program.body.iter().for_each(|&id| append(program, id, &mut order));
        let mut places = vec![None; program.nodes.len()];
        for (place, id) in order.iter().enumerate() {
            places[id.index()] = Some(NodeId(place as u32));
        }
        let mut faults = Faults::default();
        let mut taken: HashMap<&str, usize> = HashMap::new();
        // Branches are called by their place in their condition.
        let is_named = |node: &&Node| !node.name.is_empty() && !matches!(node.kind, NodeKind::Branch(_));
        for node in program.nodes.iter().filter(is_named) {
            *taken.entry(node.name.as_str()).or_default() += 1;
        }
        let noise = state.noise_in_regions(&order);
        let mut names = Vec::with_capacity(order.len());
        for (place, id) in order.iter().enumerate() {
            let node = program.node(*id);
            let mut name = node.name.clone();
            if name.is_empty() {
                name = match noise.get(id) {
                    Some((region, number)) => format!("{}_{region}_{number}", node.kind.op()),
                    None => format!("{}_{place}", node.kind.op()),
                };
                while taken.contains_key(name.as_str()) {
                    name.push('_');
                }
            } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                let fault = Fault::new("a name is made of the letters a to z and A to Z, digits and `_`");
                faults.push(fault.at_node(name.clone(), node.source.clone()));
            } else if taken.get(name.as_str()).is_some_and(|&count| count > 1) && !state.may_share(*id) {
                let fault = Fault::new(format!("two nodes are named `{name}`"));
                faults.push(
                    fault.at_node(name.clone(), node.source.clone()).with_hint("give each node its own name"),
                );
                taken.insert(node.name.as_str(), 0);
            }
            if let Some(later) = node
                .kind
                .values()
                .iter()
                .find(|value| places[value.node.index()] >= Some(NodeId(place as u32)))
            {
                let what = program.node(later.node).kind.op();
                let fault = Fault::new(format!("it reads a value (`{what}`) of a later trace"))
                    .with_hint("values flow from a trace to those after it: open the traces in the order in which they run");
                faults.push(fault.at_node(name.clone(), node.source.clone()));
            }
            names.push(name);
        }
        let moved = |id: NodeId| places[id.index()].unwrap_or(id);
        let mut nodes = Vec::with_capacity(order.len());
        for (id, name) in order.iter().zip(names) {
            let node = program.node(*id);
            let mut kind = node.kind.clone();
            kind.for_each_invoke_mut(&mut |invoke| match state.visible_place(*id, *invoke) {
                Some(place) => *invoke = place,
                None => faults.push(
                    Fault::new("it names an invoke of another trace, or of a sweep or loop around which it does not stand")
                        .at_node(name.clone(), node.source.clone()),
                ),
            });
            kind.renumber(&moved);
            nodes.push(Node { source: node.source.clone(), ..Node::new(name, kind) });
        }
        faults.or(Program {
            model: program.model.clone(),
            seed: program.seed,
            nodes,
            body: program.body.iter().map(|&id| moved(id)).collect(),
            constants: program.constants.clone(),
            same_types: Vec::new(),
        })
    }
}

impl State {
    fn push(
        &mut self,
        name: String,
        kind: NodeKind,
        owner: Option<NodeId>,
        location: &Location<'_>,
    ) -> NodeId {
        let id = NodeId(self.program.nodes.len() as u32);
        // Parameters and carried values stand in their sweep's or loop's own line, on the wire too.
        let own = !matches!(kind, NodeKind::Parameter(_) | NodeKind::Carried(_));
        self.program.nodes.push(Node { source: own.then(|| source(location)), ..Node::new(name, kind) });
        self.owners.push(owner);
        id
    }

    fn body(&mut self, owner: Option<NodeId>) -> Option<&mut Vec<NodeId>> {
        let Some(owner) = owner else { return Some(&mut self.program.body) };
        match &mut self.program.nodes[owner.index()].kind {
            NodeKind::Steps { body, .. } => Some(body),
            NodeKind::Trace(trace) => Some(&mut trace.body),
            NodeKind::Branch(branch) => Some(&mut branch.body),
            NodeKind::Edit(edit) => Some(&mut edit.body),
            NodeKind::Sweep(Sweep { region, .. }) | NodeKind::Loop(Loop { region, .. }) => {
                Some(&mut region.body)
            }
            _ => None,
        }
    }

    /// Where a node comes to stand in a body. Inside traces: at the end, but before a body inside that is open. Between
    /// traces: right behind what it reads, so that every trace after that can read it.
    fn place(&mut self, scope: Scope, reads: &[Reference], begins: bool) -> usize {
        let in_body: Vec<Option<NodeId>> =
            reads.iter().map(|value| self.standing_in(value.node, scope.owner)).collect();
        let open: HashSet<NodeId> = self.open.iter().map(|open| open.owner).collect();
        let Some(body) = self.body(scope.owner) else { return 0 };
        if scope.trace.is_some() || begins {
            return body.iter().position(|other| open.contains(other)).unwrap_or(body.len());
        }
        let read = in_body.iter().flatten().filter_map(|id| body.iter().position(|other| other == id));
        read.max().map_or(0, |last| last + 1)
    }

    /// The body around a scope's trace, where a node reads what stands there behind that trace.
    fn behind_trace(&mut self, scope: Scope, reads: &[Reference]) -> Option<Scope> {
        let trace = scope.trace?;
        let owner = *self.owners.get(trace.index())?;
        let read: Vec<NodeId> =
            reads.iter().filter_map(|value| self.standing_in(value.node, owner)).collect();
        let body = self.body(owner)?;
        let from = body.iter().position(|&other| other == trace)?;
        body[from + 1..].iter().any(|later| read.contains(later)).then_some(Scope { trace: None, owner })
    }

    /// The node of a body in which a node stands, itself included.
    fn standing_in(&self, mut id: NodeId, owner: Option<NodeId>) -> Option<NodeId> {
        loop {
            let around = *self.owners.get(id.index())?;
            if around == owner {
                return Some(id);
            }
            id = around?;
        }
    }

    /// Of nodes in sweeps and loops whose name keys noise: the number of the outermost sweep or loop, and theirs in it. What
    /// stands before it does not count, so that a loop which goes on elsewhere has the same noise.
    fn noise_in_regions(&self, order: &[NodeId]) -> HashMap<NodeId, (usize, usize)> {
        let kind = |id: NodeId| &self.program.node(id).kind;
        let is_region = |id: &NodeId| matches!(kind(*id), NodeKind::Sweep(_) | NodeKind::Loop(_));
        let mut regions: HashMap<NodeId, (usize, usize)> = HashMap::new();
        let mut numbers = HashMap::new();
        for &id in order {
            let outermost = self.around(id).filter(is_region).last();
            let Some(region) = outermost else {
                if is_region(&id) {
                    regions.insert(id, (regions.len(), 0));
                }
                continue;
            };
            let keys_noise = match kind(id) {
                NodeKind::Operation(operation) => operation.kind.is_random(),
                kind => matches!(kind, NodeKind::Trace(_)),
            };
            if let Some((region, count)) = regions.get_mut(&region).filter(|_| keys_noise) {
                numbers.insert(id, (*region, *count));
                *count += 1;
            }
        }
        numbers
    }

    /// Whether other nodes may have its name: parameters and carried values are seen inside their owner only, so two
    /// owners of which neither stands in the other may have the same.
    fn may_share(&self, id: NodeId) -> bool {
        let is_local =
            |id: NodeId| matches!(self.program.node(id).kind, NodeKind::Parameter(_) | NodeKind::Carried(_));
        let name = &self.program.node(id).name;
        let others = (0..self.program.nodes.len()).map(|place| NodeId(place as u32));
        let mut others = others.filter(|&other| other != id && &self.program.node(other).name == name);
        is_local(id)
            && others.all(|other| {
                let (Some(one), Some(two)) = (self.owners[id.index()], self.owners[other.index()]) else {
                    return false;
                };
                let apart = one != two && !self.stands_inside(one, two) && !self.stands_inside(two, one);
                is_local(other) && apart
            })
    }

    fn stands_inside(&self, id: NodeId, owner: NodeId) -> bool {
        self.around(id).any(|around| around == owner)
    }

    /// The owners around a node, the innermost first.
    fn around(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(self.owners[id.index()], |&around| self.owners[around.index()])
    }

    /// The place of an invoke among those that a node can see; none where it cannot see it.
    fn visible_place(&self, id: NodeId, number: usize) -> Option<usize> {
        let &(owner, place) = self.invokes.get(number)?;
        let mut before = None;
        for around in self.around(id) {
            let count = match &self.program.node(around).kind {
                NodeKind::Trace(trace) => trace.invokes.len(),
                NodeKind::Sweep(Sweep { region, .. }) | NodeKind::Loop(Loop { region, .. }) => {
                    region.invokes.len()
                }
                _ => 0,
            };
            match &mut before {
                None if around == owner => before = Some(0),
                None => {}
                Some(before) => *before += count,
            }
        }
        before.map(|before: usize| before + place)
    }
}

/// The invokes of a node that has some, and the word that their names begin with.
fn invokes_of(kind: &mut NodeKind) -> Option<(&mut Vec<InvokeDefinition>, &'static str)> {
    match kind {
        NodeKind::Trace(trace) => Some((&mut trace.invokes, "invoke")),
        NodeKind::Sweep(sweep) => Some((&mut sweep.region.invokes, "cell")),
        NodeKind::Loop(repeated) => Some((&mut repeated.region.invokes, "iteration")),
        _ => None,
    }
}

/// A place in the caller's own source.
pub(crate) fn source(location: &Location<'_>) -> SourceLocation {
    SourceLocation { file: location.file().to_owned(), line: location.line(), text: None }
}

/// Resolves a value in the program of `builder`: a value of another program is a fault.
pub(crate) fn resolve(builder: &Arc<Builder>, value: &Value, location: &Location<'_>) -> Option<Reference> {
    if Arc::ptr_eq(builder, value.builder()) {
        return Some(value.reference());
    }
    let fault = Fault::new("it reads a value that belongs to another program").with_hint(
        "to let values flow from trace to trace, open the traces in one session (`model.session()`); to bring in a \
         result of an earlier run, use `trace.constant`",
    );
    builder.fault(Fault { source: Some(source(location)), ..fault });
    None
}

fn append(program: &Program, id: NodeId, order: &mut Vec<NodeId>) {
    order.push(id);
    program.node(id).kind.owned().into_iter().for_each(|child| append(program, child, order));
}
