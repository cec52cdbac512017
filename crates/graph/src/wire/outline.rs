//! The first pass over a program's nodes: their order, their names, and which body each stands in. With it the second
//! pass can say of a reference not only that it is wrong but why: defined later, defined nowhere, out of scope.

use std::borrow::Cow;
use std::collections::HashMap;

use super::form::{self, Op};
use super::json::{Item, Items, Json};
use crate::fault::{Fault, Faults, quote};
use crate::limits;
use crate::program::NodeId;

/// One node, not yet read.
pub(super) struct Entry<'t> {
    /// The node's own JSON.
    pub(super) item: Item<'t>,
    /// What it is, if its `op` names anything.
    pub(super) op: Option<Op>,
    /// Its name: its own, or one made for it.
    pub(super) name: Cow<'t, str>,
    /// The node whose body it stands in; none: the outermost.
    pub(super) parent: Option<u32>,
    /// Its place in that body.
    pub(super) place: usize,
    /// The innermost `steps` that it stands in.
    steps: Option<u32>,
    /// The nodes of its own body.
    pub(super) body: Vec<NodeId>,
}

/// Every node in program order: a node that owns a body before the nodes of that body.
#[derive(Default)]
pub(super) struct Outline<'t> {
    pub(super) entries: Vec<Entry<'t>>,
    pub(super) body: Vec<NodeId>,
    names: HashMap<Cow<'t, str>, u32>,
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
    /// A node inside a `steps` body, seen from outside.
    OutOfScope,
    /// No node.
    Nothing,
}

impl<'t> Outline<'t> {
    /// Looks through the outermost body.
    pub(super) fn new(body: Items<'t>, faults: &mut Faults) -> Outline<'t> {
        let mut outline = Outline::default();
        outline.body = outline.walk(body, None, None, 1, faults);
        outline.name_the_nameless();
        outline
    }

    fn walk(
        &mut self,
        items: Items<'t>,
        parent: Option<u32>,
        steps: Option<u32>,
        depth: usize,
        faults: &mut Faults,
    ) -> Vec<NodeId> {
        let mut ids = Vec::new();
        for (place, item) in items.iter().enumerate() {
            let id = self.entries.len() as u32;
            if self.entries.len() == limits::NODES {
                faults.push(Fault::new(format!("more than {} nodes", limits::NODES)));
            }
            // Checked with `>=` so that one fault is enough however many bodies are left.
            if self.entries.len() >= limits::NODES {
                return ids;
            }
            let op = field(item, "op").and_then(Item::text).and_then(form::op);
            let name = field(item, "name").and_then(Item::text).map_or(Cow::Borrowed(""), Cow::Borrowed);
            self.entries.push(Entry { item, op, name: name.clone(), parent, place, steps, body: Vec::new() });
            ids.push(NodeId(id));
            if !name.is_empty() {
                self.register(name, id, faults);
            }
            let owns_body = op.is_some_and(Op::owns_body);
            if let Some(body) = field(item, "body").filter(|_| owns_body).and_then(Item::items) {
                if depth > limits::BODY_DEPTH {
                    let message =
                        format!("bodies stand in one another deeper than {} levels", limits::BODY_DEPTH);
                    faults.push(Fault::new(message).at_place(self.pointer(NodeId(id))));
                    continue;
                }
                let is_steps = matches!(op, Some(Op::Form(form)) if form.op == "steps");
                let steps = if is_steps { Some(id) } else { steps };
                let body = self.walk(body, Some(id), steps, depth + 1, faults);
                self.entries[id as usize].body = body;
            }
        }
        ids
    }

    fn register(&mut self, name: Cow<'t, str>, id: u32, faults: &mut Faults) {
        let first = *self.names.entry(name.clone()).or_insert(id);
        if first != id && !faults.is_full() {
            let fault = Fault::new(format!("{} is the name of two nodes", quote(&name)))
                .at_place(self.pointer(NodeId(id)))
                .with_hint(format!("the first stands at {}", self.pointer(NodeId(first))));
            faults.push(fault);
        }
    }

    /// `n0`, `n1`, … in program order, passing over names that the program uses itself.
    fn name_the_nameless(&mut self) {
        let mut next = 0_usize;
        for entry in self.entries.iter_mut().filter(|entry| entry.name.is_empty()) {
            let name = loop {
                let name = Cow::Owned(format!("n{next}"));
                next += 1;
                if !self.names.contains_key(&name) {
                    break name;
                }
            };
            // Not registered as a name: a program cannot refer to a name that it did not write.
            entry.name = name;
        }
    }

    /// What `name` refers to, seen from the node `from`.
    pub(super) fn reference(&self, name: &str, from: NodeId) -> Reference {
        let Some(&id) = self.names.get(name) else { return Reference::Nothing };
        let (target, node) = (&self.entries[id as usize], NodeId(id));
        if node == from {
            Reference::Itself
        } else if node > from {
            Reference::Later(node)
        } else if let Some(Op::Form(form)) = target.op.filter(|op| !op.has_value()) {
            Reference::NoValue(node, form.op)
        } else if target.steps.is_some_and(|steps| !self.stands_in(from, steps)) {
            Reference::OutOfScope
        } else {
            Reference::Value(node)
        }
    }

    /// Whether the node stands in the body of that `steps`.
    fn stands_in(&self, node: NodeId, steps: u32) -> bool {
        let mut scope = self.entries[node.index()].steps;
        while let Some(inner) = scope {
            if inner == steps {
                return true;
            }
            scope = self.entries[inner as usize].steps;
        }
        false
    }

    /// Names that a reference from that node could have meant.
    pub(super) fn names_before(&self, from: NodeId) -> impl Iterator<Item = &str> {
        let nearest = self.entries[..from.index()].iter().rev().take(COMPARED);
        nearest.filter(|entry| entry.op.is_none_or(Op::has_value)).map(|entry| entry.name.as_ref())
    }

    /// Where a node stands, as a JSON pointer.
    pub(super) fn pointer(&self, id: NodeId) -> String {
        let Some(entry) = self.entries.get(id.index()) else { return String::new() };
        let parent = entry.parent.map_or(String::new(), |parent| self.pointer(NodeId(parent)));
        format!("{parent}/body/{}", entry.place)
    }
}

/// How many names a mistyped one is compared with: a bound on the work that a faulty program causes.
const COMPARED: usize = 1_000;

fn field<'t>(item: Item<'t>, name: &str) -> Option<Item<'t>> {
    let entries = item.entries()?;
    entries.iter().find(|(key, _)| key == name).map(|(_, json): &(_, Json<'t>)| Item::from(json))
}
