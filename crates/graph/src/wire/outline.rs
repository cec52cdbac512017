//! The first pass over a program's nodes: their order, their names, and which body each stands in. With it the second
//! pass can say of a reference not only that it is wrong but why: defined later, defined nowhere, out of scope.
//!
//! Parameters of sweeps and loops, and values that loops carry, are entries too. Their names can be seen inside their
//! owner only, so that two sweeps can each have a `layer`; all other names are unique in the program.

use std::borrow::Cow;
use std::collections::HashMap;

use super::form::{self, Op};
use super::json::{Item, Items, Json};
use crate::fault::{Fault, Faults, quote};
use crate::limits;
use crate::program::NodeId;

/// What an entry is.
#[derive(Clone, Copy)]
pub(super) enum Role {
    /// A node; none: its `op` names nothing.
    Node(Option<Op>),
    /// A parameter of a sweep or loop.
    Parameter,
    /// A value that a loop carries.
    Carried,
    /// A branch of a condition.
    Branch,
}

/// Where an entry stands in its owner.
#[derive(Clone, Debug)]
enum Place {
    Body(usize),
    Over(usize),
    /// The parameter that `count` stands for.
    Count,
    Carry,
    /// The field that is the branch.
    Branch(&'static str),
}

/// One node, not yet read.
pub(super) struct Entry<'t> {
    /// The node's own JSON; of a parameter, its values; of a carried value, what it begins as.
    pub(super) item: Item<'t>,
    /// What it is.
    pub(super) role: Role,
    /// Its name: its own, or one made for it.
    pub(super) name: Cow<'t, str>,
    /// The node whose body it stands in; none: the outermost.
    pub(super) parent: Option<u32>,
    /// The trace that it stands in.
    pub(super) trace: Option<u32>,
    /// The entry after the last that it owns.
    pub(super) end: u32,
    /// Its place in its parent.
    place: Place,
    /// The innermost scope that it stands in: `steps`, a sweep, a loop. Names made there are not seen outside.
    pub(super) scope: Option<u32>,
    /// What it owns.
    pub(super) owned: Owned,
}

/// The nodes that a node owns.
#[derive(Clone, Default)]
pub(super) struct Owned {
    /// Parameters, axis by axis.
    pub(super) over: Vec<Vec<NodeId>>,
    /// Carried values.
    pub(super) carry: Vec<NodeId>,
    /// The branches of a condition: where it holds, and where it does not.
    pub(super) branches: [Option<NodeId>; 2],
    /// The nodes of its body.
    pub(super) body: Vec<NodeId>,
}

/// Every node in program order: a node that owns others before those.
#[derive(Default)]
pub(super) struct Outline<'t> {
    pub(super) entries: Vec<Entry<'t>>,
    pub(super) body: Vec<NodeId>,
    names: HashMap<Cow<'t, str>, u32>,
    /// Parameters and carried values by owner and name.
    local: HashMap<(u32, Cow<'t, str>), u32>,
    traces: usize,
}

/// What a name refers to, seen from one node.
pub(super) enum Reference {
    /// An earlier node whose value can be seen.
    Value(NodeId),
    /// An earlier node that has no value, and what it is.
    NoValue(NodeId, &'static str),
    /// The node itself.
    Itself,
    /// A node that stands later.
    Later(NodeId),
    /// A node inside a body, seen from outside: what owns the body.
    OutOfScope(&'static str),
    /// A reduction, seen from inside the sweep after which it is known.
    NotYetReduced,
    /// No node.
    Nothing,
}

impl<'t> Outline<'t> {
    /// Looks through the outermost body.
    pub(super) fn new(body: Items<'t>, faults: &mut Faults) -> Outline<'t> {
        let mut outline = Outline::default();
        outline.body = outline.walk(body, Around::default(), faults);
        outline.one_meaning_each(faults);
        outline.name_the_nameless();
        outline
    }

    fn walk(&mut self, items: Items<'t>, around: Around, faults: &mut Faults) -> Vec<NodeId> {
        let mut ids = Vec::new();
        for (place, item) in items.iter().enumerate() {
            let op = field(item, "op").and_then(Item::text).and_then(form::op);
            let name = field(item, "name").and_then(Item::text).map_or(Cow::Borrowed(""), Cow::Borrowed);
            let Some(id) = self.push(item, Role::Node(op), name.clone(), Place::Body(place), around, faults)
            else {
                return ids;
            };
            ids.push(NodeId(id));
            if !name.is_empty() {
                self.register(name, id, faults);
            }
            let Some(Op::Form(form)) = op else { continue };
            let mut inner = Around { parent: Some(id), depth: around.depth + 1, ..around };
            match form.op {
                "trace" => {
                    inner.trace = Some(id);
                    self.traces += 1;
                    if self.traces == limits::TRACES + 1 {
                        faults.push(Fault::new(format!("more than {} traces", limits::TRACES)));
                    }
                }
                "steps" => inner.scope = Some(id),
                "sweep" | "loop" => {
                    // What a parameter or a carried value reads, it reads from outside.
                    self.walk_parameters(id, item, inner, faults);
                    inner.scope = Some(id);
                }
                // Its nodes are written as those of a trace.
                "edit" => (inner.trace, inner.scope) = (Some(id), Some(id)),
                "cond" => self.walk_branches(id, item, inner, faults),
                _ => {}
            }
            if let Some(body) =
                field(item, "body").filter(|_| op.is_some_and(Op::owns_body)).and_then(Item::items)
            {
                if around.depth >= limits::BODY_DEPTH {
                    let message =
                        format!("bodies stand in one another deeper than {} levels", limits::BODY_DEPTH);
                    faults.push(Fault::new(message).at_place(self.pointer(NodeId(id))));
                    continue;
                }
                let body = self.walk(body, inner, faults);
                self.entries[id as usize].owned.body = body;
            }
            self.entries[id as usize].end = self.entries.len() as u32;
        }
        ids
    }

    /// The branches of a condition, each with a body of its own.
    fn walk_branches(&mut self, owner: u32, item: Item<'t>, inner: Around, faults: &mut Faults) {
        let mut branches = [None; 2];
        for (branch, name) in branches.iter_mut().zip(["then", "else"]) {
            let Some(item) = field(item, name).filter(|item| !item.is_null()) else { continue };
            let place = Place::Branch(name);
            let Some(id) = self.push(item, Role::Branch, Cow::Borrowed(name), place, inner, faults) else {
                return;
            };
            *branch = Some(NodeId(id));
            if let Some(body) = field(item, "body").and_then(Item::items) {
                if inner.depth > limits::BODY_DEPTH {
                    let message =
                        format!("bodies stand in one another deeper than {} levels", limits::BODY_DEPTH);
                    faults.push(Fault::new(message).at_place(self.pointer(NodeId(id))));
                } else {
                    let within = Around { parent: Some(id), scope: Some(id), depth: inner.depth, ..inner };
                    let body = self.walk(body, within, faults);
                    self.entries[id as usize].owned.body = body;
                }
            }
            self.entries[id as usize].end = self.entries.len() as u32;
        }
        self.entries[owner as usize].owned.branches = branches;
    }

    /// The parameters and carried values of a sweep or loop.
    fn walk_parameters(&mut self, owner: u32, item: Item<'t>, inner: Around, faults: &mut Faults) {
        let mut over = Vec::new();
        for (axis, item) in
            field(item, "over").and_then(Item::items).into_iter().flat_map(Items::iter).enumerate()
        {
            let mut parameters = Vec::new();
            for (name, json) in item.entries().unwrap_or_default() {
                let place = Place::Over(axis);
                let item = Item::from(json);
                let Some(id) = self.push(item, Role::Parameter, name.clone(), place, inner, faults) else {
                    return;
                };
                self.register_local(owner, name.clone(), id, faults);
                parameters.push(NodeId(id));
            }
            over.push(parameters);
        }
        if let Some(count) = field(item, "count").filter(|item| !item.is_null())
            && over.is_empty()
        {
            let name = Cow::Borrowed("i");
            let Some(id) = self.push(count, Role::Parameter, name.clone(), Place::Count, inner, faults)
            else {
                return;
            };
            self.register_local(owner, name, id, faults);
            over.push(vec![NodeId(id)]);
        }
        let mut carry = Vec::new();
        for (name, json) in field(item, "carry").and_then(Item::entries).unwrap_or_default() {
            let item = Item::from(json);
            let Some(id) = self.push(item, Role::Carried, name.clone(), Place::Carry, inner, faults) else {
                return;
            };
            self.register_local(owner, name.clone(), id, faults);
            carry.push(NodeId(id));
        }
        let owned = &mut self.entries[owner as usize].owned;
        (owned.over, owned.carry) = (over, carry);
    }

    /// Adds an entry; none where there are too many.
    fn push(
        &mut self,
        item: Item<'t>,
        role: Role,
        name: Cow<'t, str>,
        place: Place,
        around: Around,
        faults: &mut Faults,
    ) -> Option<u32> {
        let id = self.entries.len() as u32;
        if self.entries.len() == limits::NODES {
            faults.push(Fault::new(format!("more than {} nodes", limits::NODES)));
        }
        // Checked with `>=` so that one fault is enough however many bodies are left.
        if self.entries.len() >= limits::NODES {
            return None;
        }
        let Around { parent, trace, scope, .. } = around;
        let end = id + 1;
        self.entries.push(Entry {
            item,
            role,
            name,
            parent,
            trace,
            end,
            place,
            scope,
            owned: Owned::default(),
        });
        Some(id)
    }

    fn register(&mut self, name: Cow<'t, str>, id: u32, faults: &mut Faults) {
        let first = *self.names.entry(name.clone()).or_insert(id);
        if first != id {
            self.two_of_a_name(&name, first, id, faults);
        }
    }

    fn register_local(&mut self, owner: u32, name: Cow<'t, str>, id: u32, faults: &mut Faults) {
        let first = *self.local.entry((owner, name.clone())).or_insert(id);
        if first != id {
            self.two_of_a_name(&name, first, id, faults);
        }
    }

    fn two_of_a_name(&self, name: &str, first: u32, second: u32, faults: &mut Faults) {
        if !faults.is_full() {
            let fault = Fault::new(format!("{} is the name of two nodes", quote(name)))
                .at_place(self.pointer(NodeId(second)))
                .with_hint(format!("the first stands at {}", self.pointer(NodeId(first))));
            faults.push(fault);
        }
    }

    /// A parameter has no name that a node of the program has, or a parameter around it.
    fn one_meaning_each(&self, faults: &mut Faults) {
        let mut locals: Vec<(&(u32, Cow<'t, str>), u32)> =
            self.local.iter().map(|(key, &id)| (key, id)).collect();
        locals.sort_unstable_by_key(|&(_, id)| id);
        for ((owner, name), id) in locals {
            let mut other = self.names.get(name).copied();
            let mut scope = self.entries[*owner as usize].scope;
            while let (None, Some(around)) = (other, scope) {
                other = self.local.get(&(around, name.clone())).copied();
                scope = self.entries[around as usize].scope;
            }
            if let Some(other) = other {
                self.two_of_a_name(name, other, id, faults);
            }
        }
    }

    /// `n0`, `n1`, … in program order, passing over names that the program uses itself.
    fn name_the_nameless(&mut self) {
        let locals: std::collections::HashSet<Cow<'t, str>> =
            self.local.keys().map(|(_, name)| name.clone()).collect();
        let mut next = 0_usize;
        for entry in self.entries.iter_mut().filter(|entry| entry.name.is_empty()) {
            let name = loop {
                let name = Cow::Owned(format!("n{next}"));
                next += 1;
                if !self.names.contains_key(&name) && !locals.contains(&name) {
                    break name;
                }
            };
            // Not registered as a name: a program cannot refer to a name that it did not write.
            entry.name = name;
        }
    }

    /// What `name` refers to, seen from the node `from`.
    pub(super) fn reference(&self, name: &str, from: NodeId) -> Reference {
        let scope = self.entries.get(from.index()).and_then(|entry| entry.scope);
        self.look_up(name, from, from.0, scope)
    }

    /// What `name` refers to, seen from the end of the body of `owner`.
    pub(super) fn reference_inside(&self, name: &str, owner: NodeId) -> Reference {
        let end = self.entries.get(owner.index()).map_or(owner.0, |entry| entry.end);
        self.look_up(name, owner, end, Some(owner.0))
    }

    /// What `name` refers to for the node `from`, which sees the entries before `until` from inside `scope`.
    fn look_up(&self, name: &str, from: NodeId, until: u32, scope: Option<u32>) -> Reference {
        let mut around = scope;
        while let Some(owner) = around {
            if let Some(&id) = self.local.get(&(owner, Cow::Borrowed(name))) {
                return match id {
                    id if id == from.0 => Reference::Itself,
                    id if id >= until => Reference::Later(NodeId(id)),
                    id => Reference::Value(NodeId(id)),
                };
            }
            around = self.entries[owner as usize].scope;
        }
        let Some(&id) = self.names.get(name) else { return Reference::Nothing };
        let (target, node) = (&self.entries[id as usize], NodeId(id));
        if node == from {
            return Reference::Itself;
        }
        if id >= until {
            return Reference::Later(node);
        }
        let op = target.op();
        if let Some(Op::Form(form)) = op.filter(|op| !op.has_value()) {
            return Reference::NoValue(node, form.op);
        }
        let Some(owner) = target.scope else { return Reference::Value(node) };
        let around = &self.entries[owner as usize];
        // A reduction is known where its sweep is, and only after it.
        if op.is_some_and(|op| op.is("reduce")) {
            return match around.scope {
                _ if until < around.end || self.stands_in(scope, owner) => Reference::NotYetReduced,
                Some(outer) if !self.stands_in(scope, outer) => Reference::OutOfScope(self.op_of(outer)),
                _ => Reference::Value(node),
            };
        }
        match self.stands_in(scope, owner) {
            true => Reference::Value(node),
            false => Reference::OutOfScope(self.op_of(owner)),
        }
    }

    /// The edit of that name, if it stands before an entry.
    pub(super) fn edit(&self, name: &str, before: NodeId) -> Option<NodeId> {
        let id = self.names.get(name).copied().filter(|&id| id < before.0)?;
        self.is_op(id, "edit").then_some(NodeId(id))
    }

    /// The names of edits that stand before an entry.
    pub(super) fn edits_before(&self, before: NodeId) -> impl Iterator<Item = &str> {
        let entries = self.entries[..before.index().min(self.entries.len())].iter();
        entries.filter(|entry| entry.op().is_some_and(|op| op.is("edit"))).map(|entry| entry.name.as_ref())
    }

    /// Whether a scope is another, or stands in it.
    fn stands_in(&self, mut scope: Option<u32>, outer: u32) -> bool {
        while let Some(inner) = scope {
            if inner == outer {
                return true;
            }
            scope = self.entries[inner as usize].scope;
        }
        false
    }

    /// Whether an entry is a node of that form.
    pub(super) fn is_op(&self, id: u32, name: &str) -> bool {
        self.entries.get(id as usize).and_then(Entry::op).is_some_and(|op| op.is(name))
    }

    /// Whether an entry is a parameter.
    pub(super) fn is_parameter(&self, id: NodeId) -> bool {
        self.entries.get(id.index()).is_some_and(|entry| matches!(entry.role, Role::Parameter))
    }

    fn op_of(&self, id: u32) -> &'static str {
        match self.entries[id as usize].op() {
            Some(Op::Form(form)) => form.op,
            _ if matches!(self.entries[id as usize].role, Role::Branch) => "cond",
            _ => "node",
        }
    }

    /// Names that a reference from that node could have meant.
    pub(super) fn names_before(&self, from: NodeId) -> impl Iterator<Item = &str> {
        let end = from.index().min(self.entries.len());
        let nearest = self.entries[..end].iter().rev().take(COMPARED);
        nearest.filter(|entry| entry.op().is_none_or(Op::has_value)).map(|entry| entry.name.as_ref())
    }

    /// Where a node stands, as a JSON pointer.
    pub(super) fn pointer(&self, id: NodeId) -> String {
        let Some(entry) = self.entries.get(id.index()) else { return String::new() };
        let parent = entry.parent.map_or(String::new(), |parent| self.pointer(NodeId(parent)));
        let name = || entry.name.chars().take(64).collect::<String>().replace('~', "~0").replace('/', "~1");
        match entry.place {
            Place::Body(place) => format!("{parent}/body/{place}"),
            Place::Over(axis) => format!("{parent}/over/{axis}/{}", name()),
            Place::Count => format!("{parent}/count"),
            Place::Carry => format!("{parent}/carry/{}", name()),
            Place::Branch(field) => format!("{parent}/{field}"),
        }
    }
}

impl Entry<'_> {
    /// What it does, if it is a node whose `op` names anything.
    pub(super) fn op(&self) -> Option<Op> {
        match self.role {
            Role::Node(op) => op,
            Role::Parameter | Role::Carried | Role::Branch => None,
        }
    }

    /// Whether it is the parameter that `count` stands for.
    pub(super) fn is_count(&self) -> bool {
        matches!(self.place, Place::Count)
    }
}

/// Where the walk is.
#[derive(Clone, Copy, Default)]
struct Around {
    parent: Option<u32>,
    trace: Option<u32>,
    scope: Option<u32>,
    depth: usize,
}

/// How many names a mistyped one is compared with: a bound on the work that a faulty program causes.
const COMPARED: usize = 1_000;

fn field<'t>(item: Item<'t>, name: &str) -> Option<Item<'t>> {
    let entries = item.entries()?;
    entries.iter().find(|(key, _)| key == name).map(|(_, json): &(_, Json<'t>)| Item::from(json))
}
