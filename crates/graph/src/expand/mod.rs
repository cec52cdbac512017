//! From the surface language to its core: sweeps, loops, wildcards become plain nodes.
//!
//! A body is walked once, for all of its cells together: each statement is written out for every cell before the next
//! statement is. So a sweep's cells share a trace, and the interleaver packs their invokes into passes as it packs any
//! others; and a loop's iterations, which depend on one another, follow one another. An expanded node keeps the label
//! and the cell that it comes from ([`Origin`](crate::program::Origin)), by which its noise is keyed and its faults are reported.
//!
//! | module | expands |
//! | --- | --- |
//! | `region` | the grid: axes, cells, what a parameter is in each |
//! | `sweep`, `repeat` | sweeps and loops |
//! | `cond` | conditions |
//! | `edit` | edits, for each invoke that uses them |
//! | `reduce` | reductions over a sweep's cells |
//! | `wildcard` | hook points by pattern, and caches of them |
//! | `save` | what is saved inside sweeps and loops, stacked |
//! | `emit` | nodes, written with their names and origins and counted |
//! | `size` | how large a program becomes, before anything is made |
//!
//! **Invariant:** a small program becomes a large one here and nowhere else, and never more than
//! [`EXPANDED_NODES`](crate::limits::EXPANDED_NODES) and
//! [`EXPANDED_BYTES`](crate::limits::EXPANDED_BYTES).

mod cond;
mod edit;
mod emit;
mod reduce;
mod region;
mod repeat;
mod rows;
mod save;
mod size;
mod sweep;
mod wildcard;

use crate::check::SpecIndex;
use crate::fault::{Fault, Faults, quote};
use crate::operation::{Argument, IndexItem};
use crate::program::{Guard, Invoke, InvokeOrigin, Node, NodeId, NodeKind, Program, Prompts, Trace, Value};
use crate::surface::Parameter;

use emit::dotted;
use region::{Frame, RegionKind};

/// Turns a program into its core: one without surface nodes. A program that has none is given back as it is.
///
/// # Errors
/// Every fault that is found on the way: sizes beyond the limits, axes of unequal length, parameters and hook points
/// that do not exist.
pub fn expand(program: Program, index: &SpecIndex<'_>) -> Result<Program, Faults> {
    expand_models(program, &[("", index)])
}

/// The same for a program whose traces may run on several models, as for
/// [`check_models`](crate::check::check_models).
///
/// # Errors
/// Those of [`expand`].
pub fn expand_models(program: Program, models: &[(&str, &SpecIndex<'_>)]) -> Result<Program, Faults> {
    let Some(&(_, own)) = models.first() else {
        return Err(Fault::new("there is no model to expand the program for").into());
    };
    let has_surface = |node: &Node| {
        let invokes: &[Invoke] = if let NodeKind::Trace(trace) = &node.kind { &trace.invokes } else { &[] };
        node.kind.is_surface() || invokes.iter().any(|invoke| matches!(invoke.prompts, Prompts::Axis(_)))
    };
    if !program.nodes.iter().any(has_surface) {
        return Ok(program);
    }
    owned_once(&program)?;
    size::within_limits(&program)?;
    let mut expander = Expander::new(&program, own, models);
    expander.body(&program.body);
    let Expander { nodes, open, faults, same_types, .. } = expander;
    let body = open.into_iter().next().map(|(_, body)| body).unwrap_or_default();
    faults.or(Program {
        model: program.model.clone(),
        seed: program.seed,
        nodes,
        body,
        constants: program.constants.clone(),
        same_types,
    })
}

/// Programs can also be built in Rust: that nodes are owned once, by one that stands before them, and that what is named
/// is there.
fn owned_once(program: &Program) -> Result<(), Faults> {
    let count = program.nodes.len();
    let mut owned = vec![false; count];
    let mut sound = true;
    for (position, node) in program.nodes.iter().enumerate() {
        for child in node.kind.owned() {
            let fits = child.index() > position && child.index() < count;
            sound &= fits && !std::mem::replace(&mut owned[child.index()], true);
        }
        let mut copy = node.kind.clone();
        copy.for_each_value_mut(&mut |value| sound &= value.node.index() < count);
        if !sound {
            let fault = Fault::new(
                "it owns a node that does not follow it or has another owner, or names one that does not exist",
            );
            return Err(fault.at_node(&node.name, node.source.clone()).into());
        }
    }
    for id in &program.body {
        if id.index() >= count || std::mem::replace(&mut owned[id.index()], true) {
            return Err(Fault::new(
                "the program's body lists a node that does not exist, or that stands in another body",
            )
            .into());
        }
    }
    Ok(())
}

/// What became of a surface node.
#[derive(Clone, Debug, Default)]
enum Bound {
    /// Nothing: it has no value, or was not reached.
    #[default]
    Nothing,
    /// A node for each cell, with its own outputs.
    Nodes(Vec<NodeId>),
    /// For each output, a value for each cell.
    Outputs(Vec<Vec<Value>>),
}

/// An invoke that nodes of a body can name: the place in the expanded trace, for each cell of a frame.
struct Visible {
    depth: usize,
    places: Vec<usize>,
    label: String,
}

impl Visible {
    /// The same, as the only one that can be seen.
    fn alone(&self) -> Visible {
        Visible { depth: self.depth, places: self.places.clone(), label: self.label.clone() }
    }
}

struct Expander<'a> {
    source: &'a Program,
    /// The models by name, the program's own first; and the one of the trace that is being expanded.
    models: &'a [(&'a str, &'a SpecIndex<'a>)],
    index: &'a SpecIndex<'a>,
    /// Of each surface node: in how many frames its values live.
    depth: Vec<usize>,
    bound: Vec<Bound>,
    /// Whether a node reads it as a value, not only as an index.
    read: Vec<bool>,
    /// Of each node at fault while it was expanded: what reads it is not reported again.
    failed: Vec<bool>,
    /// The sweeps and loops around what is being expanded; the first is the program itself.
    frames: Vec<Frame>,
    visible: Vec<Visible>,
    /// The branches around what is being expanded.
    guarding: Vec<cond::Guarding>,
    /// The edits of all invokes of the trace that is being expanded, and whether it generates.
    edits: Vec<NodeId>,
    generating: bool,
    /// The edit that is being written out, and how many were.
    inlining: Option<edit::Inlining>,
    inlined: u64,
    /// Of the expanded trace that is being written.
    invokes: Vec<Invoke>,
    /// How many frames there were where the `steps` that is being expanded began.
    steps: Option<usize>,
    nodes: Vec<Node>,
    /// The bodies that are being written, the program's own first.
    open: Vec<(Option<NodeId>, Vec<NodeId>)>,
    saves: Vec<save::Collected>,
    /// Where in `saves` each name of a save is gathered.
    save_places: std::collections::HashMap<(NodeId, String), usize>,
    same_types: Vec<crate::program::SameType>,
    /// Every name of a hook point with its place, once it is asked for, and the places of the patterns met so far.
    names: Option<Vec<(String, usize)>>,
    patterns: std::collections::HashMap<String, std::collections::BTreeSet<usize>>,
    /// Sizes of row axes that were looked up.
    rows: std::collections::HashMap<NodeId, u64>,
    cells: usize,
    bytes: usize,
    full: bool,
    faults: Faults,
}

impl<'a> Expander<'a> {
    fn new(
        source: &'a Program,
        index: &'a SpecIndex<'a>,
        models: &'a [(&'a str, &'a SpecIndex<'a>)],
    ) -> Self {
        let mut read = vec![false; source.nodes.len()];
        for node in &source.nodes {
            let mut copy = node.kind.clone();
            // A whole number in an index is written into it.
            for items in indices_of(&mut copy) {
                items.retain(|item| !is_whole_parameter(source, item));
            }
            copy.for_each_value_mut(&mut |value| {
                if let Some(read) = read.get_mut(value.node.index()) {
                    *read = true;
                }
            });
        }
        let count = source.nodes.len();
        Expander {
            source,
            models,
            index,
            depth: vec![usize::MAX; count],
            bound: vec![Bound::Nothing; count],
            read,
            failed: vec![false; count],
            frames: vec![Frame::program()],
            visible: Vec::new(),
            guarding: Vec::new(),
            edits: Vec::new(),
            generating: false,
            inlining: None,
            inlined: 0,
            invokes: Vec::new(),
            steps: None,
            nodes: Vec::new(),
            open: vec![(None, Vec::new())],
            saves: Vec::new(),
            save_places: std::collections::HashMap::new(),
            same_types: Vec::new(),
            names: None,
            patterns: std::collections::HashMap::new(),
            rows: std::collections::HashMap::new(),
            cells: 1,
            bytes: 0,
            full: false,
            faults: Faults::default(),
        }
    }

    /// Expands the statements of a body for all cells of the innermost frame.
    fn body(&mut self, ids: &[NodeId]) {
        for &id in ids {
            if self.full || self.faults.is_full() {
                return;
            }
            self.depth[id.index()] = self.top();
            let node = self.source.node(id);
            let faults = self.faults.0.len();
            match &node.kind {
                NodeKind::Trace(trace) => self.trace(id, trace),
                NodeKind::Steps { steps, body } => {
                    let Some(core) =
                        self.emit(id, 0, "", NodeKind::Steps { steps: *steps, body: Vec::new() })
                    else {
                        continue;
                    };
                    let around = self.steps.replace(self.frames.len());
                    let body = self.inside(core, body);
                    self.steps = around;
                    self.nodes[core.index()].kind = NodeKind::Steps { steps: *steps, body };
                }
                NodeKind::Sweep(sweep) => self.sweep(id, sweep),
                NodeKind::Loop(repeated) => self.repeat(id, repeated),
                NodeKind::Cond(cond) => self.cond(id, cond),
                NodeKind::Reduce(reduce) => self.reduce(id, reduce),
                NodeKind::GetAll(address) => self.get_all(id, address),
                NodeKind::SetAll(set) => self.set_all(id, set),
                NodeKind::Cache(cache) => self.cache(id, cache),
                NodeKind::GradAll(grad) => self.grad_all(id, grad),
                NodeKind::SetGradAll(set) => self.set_grad_all(id, set),
                NodeKind::Save(value) => self.save(id, &node.name, *value),
                // They are bound by what owns them.
                NodeKind::Parameter(_)
                | NodeKind::Carried(_)
                | NodeKind::Branch(_)
                // Written out where an invoke uses it.
                | NodeKind::Edit(_) => {}
                _ => self.plain(id),
            }
            self.failed[id.index()] = self.faults.0.len() > faults;
        }
    }

    /// Expands a body that a node owns.
    fn inside(&mut self, owner: NodeId, body: &[NodeId]) -> Vec<NodeId> {
        self.open.push((Some(owner), Vec::new()));
        self.body(body);
        self.open.pop().map(|(_, body)| body).unwrap_or_default()
    }

    /// One trace for all cells: its invokes are all cells' invokes.
    fn trace(&mut self, id: NodeId, trace: &'a Trace) {
        self.on_model(trace.model.as_deref());
        let empty = Trace { generation: trace.generation.clone(), ..Trace::default() };
        let Some(core) = self.emit(id, 0, "", NodeKind::Trace(empty)) else { return };
        self.edits.clone_from(&trace.edits);
        self.generating = trace.generation.is_some();
        self.open.push((Some(core), Vec::new()));
        self.add_invokes(id, &trace.invokes);
        self.body(&trace.body);
        let body = self.open.pop().map(|(_, body)| body).unwrap_or_default();
        self.visible.clear();
        let invokes = std::mem::take(&mut self.invokes);
        self.nodes[core.index()].kind =
            NodeKind::Trace(Trace { invokes, body, edits: Vec::new(), ..trace.clone() });
    }

    /// From here on hook points are those of that model; one that is not there is the checker's to report.
    fn on_model(&mut self, name: Option<&str>) {
        let named = name.and_then(|name| self.models.iter().find(|(known, _)| *known == name));
        let Some(&(_, index)) = named.or(self.models.first()) else { return };
        if !std::ptr::eq(self.index, index) {
            self.index = index;
            self.names = None;
            self.patterns.clear();
        }
    }

    /// Gives every cell of the innermost frame these invokes.
    fn add_invokes(&mut self, owner: NodeId, invokes: &'a [Invoke]) {
        for invoke in invokes {
            let mut places = Vec::with_capacity(self.cells_here());
            let place = self.visible.len() as u64;
            for cell in 0..self.cells_here() {
                let prompts = match &invoke.prompts {
                    Prompts::Axis(parameter) => match self.prompts_of(*parameter, cell) {
                        Some(prompts) => prompts,
                        None => {
                            let message = format!(
                                "invoke {} names prompts that are no parameter around it",
                                quote(&invoke.name)
                            );
                            return self.fault(owner, message, None);
                        }
                    },
                    prompts => prompts.clone(),
                };
                let weight = match &prompts {
                    Prompts::Text { texts, .. } => texts.iter().map(String::len).sum::<usize>(),
                    Prompts::Tokens(tokens) => tokens.iter().map(|tokens| 4 * tokens.len() + 24).sum(),
                    Prompts::Axis(_) => 0,
                };
                if !self.spend(owner, weight.saturating_add(256)) {
                    return;
                }
                let (name, origin) = if self.top() == 0 {
                    (invoke.name.clone(), None)
                } else {
                    let coordinates = self.coordinates(cell).to_vec();
                    let name = format!("{}@{}", invoke.name, dotted(&coordinates));
                    (name, Some(InvokeOrigin { label: invoke.name.clone(), place, coordinates }))
                };
                places.push(self.invokes.len());
                self.invokes.push(Invoke { prompts, origin, ..Invoke::new(name, Prompts::default()) });
            }
            self.visible.push(Visible { depth: self.top(), places, label: invoke.name.clone() });
            self.inline_edits(owner, &invoke.edits, self.visible.len() - 1);
        }
    }

    /// A node that is there once for each cell, or once for several where it is the same in all of them.
    fn plain(&mut self, id: NodeId) {
        let kind = &self.source.node(id).kind;
        let pure = is_pure(kind);
        let mut ids: Vec<NodeId> = Vec::with_capacity(self.cells_here());
        let mut last: Option<(NodeKind, Vec<Guard>)> = None;
        for cell in 0..self.cells_here() {
            let Some(kind) = self.instance(id, kind, cell) else { return };
            if !pure {
                let Some(core) = self.emit(id, cell, "", kind) else { return };
                ids.push(core);
                continue;
            }
            let guarded = (kind, self.guards(id, cell));
            if last.as_ref() == Some(&guarded)
                && let Some(&same) = ids.last()
            {
                ids.push(same);
                continue;
            }
            let Some(core) = self.emit(id, cell, "", guarded.0.clone()) else { return };
            ids.push(core);
            last = Some(guarded);
        }
        self.bound[id.index()] = Bound::Nodes(ids);
    }

    /// A node as it is in a cell: its values, invokes and addresses those of the cell.
    fn instance(&mut self, id: NodeId, kind: &NodeKind, cell: usize) -> Option<NodeKind> {
        let mut kind = kind.clone();
        self.whole_indices(&mut kind, cell);
        let mut values = true;
        kind.for_each_value_mut(&mut |value| match self.resolve(*value, cell) {
            Some(there) => *value = there,
            None => {
                values = false;
                self.unresolved(id, *value);
            }
        });
        let mut sound = values;
        let sets = matches!(
            kind,
            NodeKind::Set { .. }
                | NodeKind::SetAll(_)
                | NodeKind::Skip { .. }
                | NodeKind::SetWeight { .. }
                | NodeKind::Stop { .. }
        );
        kind.for_each_invoke_mut(&mut |invoke| match self.invoke_place(id, *invoke, cell, sets) {
            Some(place) => *invoke = place,
            None => sound = false,
        });
        kind.for_each_address_mut(&mut |text| match self.filled(id, text, cell) {
            Some(filled) => *text = filled,
            None => sound = false,
        });
        sound.then_some(kind)
    }

    /// Writes parameters of whole numbers into the indices that name them.
    fn whole_indices(&self, kind: &mut NodeKind, cell: usize) {
        for items in indices_of(kind) {
            for item in items {
                if is_whole_parameter(self.source, item)
                    && let IndexItem::Tensor(value) = item
                    && let Some(crate::scalar::Scalar::Int(number)) = self.number_of(value.node, cell)
                {
                    *item = IndexItem::Integer(number);
                }
            }
        }
    }

    /// What a surface value is in a cell of the innermost frame.
    fn resolve(&self, value: Value, cell: usize) -> Option<Value> {
        let depth = *self.depth.get(value.node.index())?;
        let cell = self.outer_cell(cell, depth)?;
        match &self.bound[value.node.index()] {
            Bound::Nothing => None,
            Bound::Nodes(nodes) => nodes.get(cell).map(|&node| Value { node, output: value.output }),
            Bound::Outputs(outputs) => outputs.get(value.output as usize)?.get(cell).copied(),
        }
    }

    fn unresolved(&mut self, id: NodeId, value: Value) {
        if self.failed[value.node.index()] {
            self.failed[id.index()] = true;
            // Reported already; what cannot be made is not made.
            if self.faults.is_empty() {
                self.fault(id, "it reads a value that could not be made", None);
            }
            return;
        }
        let name = quote(&self.source.node(value.node).name);
        let (message, hint) = match &self.bound[value.node.index()] {
            Bound::Outputs(outputs) if value.output as usize >= outputs.len() => (
                format!("{name} has {} values; number {} is not there", outputs.len(), value.output),
                Some("the first is number 0; a sweep has one for each of its `yields`, a loop one for each carried value".to_owned()),
            ),
            _ if matches!(&self.source.node(value.node).kind, NodeKind::Parameter(parameter) if !parameter.has_value()) => (
                format!("{name} is a parameter of prompts, not a value"),
                Some(format!(r#"an invoke takes it: "prompt": {{"axis": {}}}"#, name.replace('`', "\""))),
            ),
            _ => (format!("it reads {name}, which cannot be seen here"), None),
        };
        self.fault(id, message, hint);
    }

    /// The place in the expanded trace of an invoke that a node names.
    fn invoke_place(&mut self, id: NodeId, invoke: usize, cell: usize, sets: bool) -> Option<usize> {
        let Some(visible) = self.visible.get(invoke) else {
            self.fault(id, format!("it names invoke {invoke}, which it cannot see"), None);
            return None;
        };
        let shared =
            (visible.depth + 1..self.frames.len()).any(|depth| self.frames[depth].kind == RegionKind::Sweep);
        if sets && shared {
            let message =
                format!("every cell of the sweep changes invoke {}, which they share", quote(&visible.label));
            let hint = "give the sweep `invokes` of its own: each cell then has one for itself".to_owned();
            self.fault(id, message, Some(hint));
            return None;
        }
        let (depth, places) = (visible.depth, &visible.places);
        self.outer_cell(cell, depth).and_then(|cell| places.get(cell).copied())
    }
}

/// Whether a node with the same arguments gives the same value: it can stand for several cells.
fn is_pure(kind: &NodeKind) -> bool {
    match kind {
        NodeKind::Operation(operation) => !operation.kind.is_random(),
        NodeKind::Get(_)
        | NodeKind::Apply { .. }
        | NodeKind::Literal { .. }
        | NodeKind::Constant(_)
        | NodeKind::Weight { .. }
        | NodeKind::Tokens(_)
        | NodeKind::Lengths(_)
        | NodeKind::Mask(_)
        | NodeKind::Generated(_) => true,
        _ => false,
    }
}

/// Every index that a node names.
fn indices_of(kind: &mut NodeKind) -> Vec<&mut Vec<IndexItem>> {
    match kind {
        NodeKind::Operation(operation) => operation
            .arguments
            .iter_mut()
            .filter_map(|argument| if let Argument::Index(items) = argument { Some(items) } else { None })
            .collect(),
        NodeKind::Weight { index, .. } => index.iter_mut().collect(),
        _ => Vec::new(),
    }
}

/// Whether an item of an index is a parameter of whole numbers.
fn is_whole_parameter(program: &Program, item: &IndexItem) -> bool {
    let IndexItem::Tensor(value) = item else { return false };
    match program.nodes.get(value.node.index()).map(|node| &node.kind) {
        Some(NodeKind::Parameter(Parameter::Range { .. })) => true,
        Some(NodeKind::Parameter(Parameter::Numbers(numbers))) => {
            numbers.iter().all(|number| number.as_i64().is_some())
        }
        _ => false,
    }
}
