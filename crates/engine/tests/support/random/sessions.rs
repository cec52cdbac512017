//! A session's traces as programs of their own, run one after another: what a later one reads of an earlier one was saved by
//! that, and comes in as a constant. And programs as one session: the traces of one after those of another.

use std::collections::{BTreeMap, BTreeSet};

use pellucid_engine::{EngineError, Results, Tensor};
use pellucid_graph::program::Constant;
use pellucid_graph::{Node, NodeId, NodeKind, Program, Value};

/// The name of what is handed from one program to the next.
fn handed(value: Value) -> String {
    format!("handed_{}_{}", value.node.0, value.output)
}

/// The nodes of the program's body, cut after each trace but the last; none where there is nothing to cut, or where a gradient
/// reaches over a cut: its way back has then no place in either program.
fn cuts(program: &Program) -> Option<Vec<Vec<NodeId>>> {
    let mut pieces = vec![Vec::new()];
    let mut traces = program.traces().count();
    for &id in &program.body {
        pieces.last_mut()?.push(id);
        if matches!(program.node(id).kind, NodeKind::Trace(_)) && traces > 1 {
            traces -= 1;
            pieces.push(Vec::new());
        }
    }
    let owner = owners(program, &pieces);
    let gradients_stay = program.nodes.iter().enumerate().all(|(place, node)| {
        node.kind.gradient().is_none_or(|(backward, of)| {
            let mut named = vec![backward];
            if let pellucid_graph::GradientOf::Value(value) = of {
                named.push(value.node);
            }
            named.iter().all(|id| owner[id.index()] == owner[place])
        })
    });
    (pieces.len() > 1 && gradients_stay).then_some(pieces)
}

/// The piece that each node belongs to.
fn owners(program: &Program, pieces: &[Vec<NodeId>]) -> Vec<usize> {
    let mut owner = vec![usize::MAX; program.nodes.len()];
    for (number, piece) in pieces.iter().enumerate() {
        let mut open = piece.clone();
        while let Some(id) = open.pop() {
            owner[id.index()] = number;
            open.extend(program.node(id).kind.owned());
        }
    }
    owner
}

/// What a session's traces give when each is run as a program of its own. None where the program cannot be cut so.
pub fn one_by_one(
    program: &Program,
    run: &mut dyn FnMut(Program) -> Result<Results, EngineError>,
) -> Option<Result<Results, EngineError>> {
    let pieces = cuts(program)?;
    let owner = owners(program, &pieces);
    let mut known: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut all = Results::default();
    for (number, body) in pieces.iter().enumerate() {
        let later: BTreeSet<Value> = reads(program, &owner, |reader, read| read == number && reader > number);
        let earlier: BTreeSet<Value> =
            reads(program, &owner, |reader, read| reader == number && read < number);
        if earlier.iter().any(|&value| !known.contains_key(&handed(value))) {
            // It was lost: so is what depends on it, which a program of its own cannot say.
            return None;
        }
        let piece = piece(program, &owner, number, body, &later, &earlier, &known);
        let gives = |kind: &NodeKind| matches!(kind, NodeKind::Save(_) | NodeKind::Log(_));
        if !piece.nodes.iter().any(|node| gives(&node.kind)) {
            continue;
        }
        match run(piece) {
            Ok(results) => {
                for (name, tensor) in results.tensors {
                    if name.starts_with("handed_") {
                        known.insert(name, tensor);
                    } else {
                        all.tensors.insert(name, tensor);
                    }
                }
                all.absent.extend(results.absent.into_iter().filter(|name| !name.starts_with("handed_")));
                all.logs.extend(results.logs);
            }
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(all))
}

/// The values that are read from one piece in another.
fn reads(program: &Program, owner: &[usize], which: impl Fn(usize, usize) -> bool) -> BTreeSet<Value> {
    let mut values = BTreeSet::new();
    for (place, node) in program.nodes.iter().enumerate() {
        let read = node.values().into_iter();
        values.extend(read.filter(|value| which(owner[place], owner[value.node.index()])));
    }
    values
}

/// One piece as a program.
fn piece(
    program: &Program,
    owner: &[usize],
    number: usize,
    body: &[NodeId],
    later: &BTreeSet<Value>,
    earlier: &BTreeSet<Value>,
    known: &BTreeMap<String, Tensor>,
) -> Program {
    let mut made = Program { seed: program.seed, model: program.model.clone(), ..Program::default() };
    let mut moved: BTreeMap<Value, Value> = BTreeMap::new();
    for &value in earlier {
        let (name, tensor) = (handed(value), &known[&handed(value)]);
        let shape = tensor.shape().iter().map(|&size| size as u64).collect();
        let constant = Constant { dtype: tensor.dtype(), shape, bytes: tensor.to_bytes().unwrap() };
        made.constants.insert(name.clone(), constant);
        let id = NodeId(made.nodes.len() as u32);
        made.nodes.push(Node::new(name.clone(), NodeKind::Constant(name)));
        made.body.push(id);
        moved.insert(value, id.into());
    }
    let own: Vec<NodeId> = (0..program.nodes.len())
        .filter(|&place| owner[place] == number)
        .map(|place| NodeId(place as u32))
        .collect();
    let first = made.nodes.len();
    let place = |id: NodeId| {
        let at = own.binary_search(&id).ok();
        at.map_or(id, |at| NodeId((first + at) as u32))
    };
    for &id in &own {
        let mut node = program.node(id).clone();
        // What comes from elsewhere is renamed by value; the rest by node, after it.
        let swap = |value: &mut Value| match moved.get(value) {
            Some(constant) => *value = *constant,
            None => value.node = place(value.node),
        };
        let guards: Vec<_> = node.guards.iter_mut().map(|guard| &mut guard.condition).collect();
        guards.into_iter().for_each(swap);
        node.kind.for_each_value_mut(&mut |value| swap(value));
        own_nodes(&mut node.kind, &place);
        if let NodeKind::Constant(name) = &node.kind
            && let Some(constant) = program.constants.get(name)
        {
            made.constants.insert(name.clone(), constant.clone());
        }
        made.nodes.push(node);
    }
    made.body.extend(body.iter().map(|&id| place(id)));
    for &value in later {
        let id = NodeId(made.nodes.len() as u32);
        let own = Value { node: place(value.node), ..value };
        made.nodes.push(Node::new(handed(value), NodeKind::Save(own)));
        made.body.push(id);
    }
    made
}

/// Gives the nodes of a body their new places.
fn own_nodes(kind: &mut NodeKind, place: &dyn Fn(NodeId) -> NodeId) {
    match kind {
        NodeKind::Trace(trace) => trace.body.iter_mut().for_each(|id| *id = place(*id)),
        NodeKind::Steps { body, .. } => body.iter_mut().for_each(|id| *id = place(*id)),
        _ => {}
    }
}

/// Programs as one session: their traces, one program's after another's.
pub fn in_sequence(programs: &[&Program]) -> Program {
    let seed = programs.first().map_or(0, |program| program.seed);
    let mut made = Program { seed, ..Program::default() };
    for (number, program) in programs.iter().enumerate() {
        let first = made.nodes.len() as u32;
        let moved = |id: NodeId| NodeId(first + id.0);
        let named = |name: &str| format!("p{number}_{name}");
        for node in &program.nodes {
            let mut node = node.clone();
            node.renumber(&moved);
            node.name = named(&node.name);
            if let NodeKind::Constant(key) = &mut node.kind {
                *key = named(key);
            }
            made.nodes.push(node);
        }
        let constants = program.constants.iter();
        made.constants.extend(constants.map(|(key, constant)| (named(key), constant.clone())));
        made.body.extend(program.body.iter().map(|&id| moved(id)));
    }
    made
}
