//! Random programs with sweeps and loops: a random program's last trace is put into one, with parameters, invokes by prompt,
//! reductions and a carried value. What it then gives in a cell is known from the program itself.

use pellucid_graph::{
    Argument, DType, Loop, Node, NodeId, NodeKind, Operation, OperationKind, Parameter, Program, Prompts,
    Reduce, Reduction, Region, Scalar, Sweep, Value,
};

use super::dice::Dice;
use super::operation;

/// What a program's last trace is put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Around {
    Sweep,
    Loop,
}

/// The program with its last trace in a sweep or loop of `cells` cells, in the first of which the prompts are those that
/// it had. None where the trace saves something at each step, which a loop cannot stack, or nothing of its own: what it saves
/// of others is stacked outside it, so that it would be refused as a trace of which nothing is saved.
pub fn surrounded(
    program: &Program,
    around: Around,
    cells: usize,
    vocabulary: u64,
    dice: &mut Dice,
) -> Option<Program> {
    let trace = *program.body.last()?;
    let NodeKind::Trace(last) = &program.node(trace).kind else { return None };
    let (mut saved, mut at_steps) = (Vec::new(), Vec::new());
    for &id in &last.body {
        match &program.node(id).kind {
            NodeKind::Save(value) => saved.push(*value),
            NodeKind::Steps { body, .. } => {
                at_steps.extend(body.iter().filter_map(|&inner| match program.node(inner).kind {
                    NodeKind::Save(value) => Some(value),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    if around == Around::Loop && !at_steps.is_empty()
        || !saved.iter().chain(&at_steps).any(|value| value.node > trace)
    {
        return None;
    }
    // One invoke is given its prompts by a parameter, of the same lengths in every cell.
    let chosen = dice.below(last.invokes.len() as u64) as usize;
    let Prompts::Tokens(first) = &last.invokes.get(chosen)?.prompts else { return None };
    let mut prompts = vec![first.clone()];
    while prompts.len() < cells {
        let other = first.iter().map(|tokens| tokens.iter().map(|_| dice.below(vocabulary) as u32).collect());
        prompts.push(other.collect());
    }
    let zipped = dice.chance(0.5);
    let number = match dice.chance(0.5) {
        true => Parameter::Range { from: 3, to: 3 + cells as i64, step: 1 },
        false => Parameter::Numbers((0..cells).map(|cell| Scalar::Float(cell as f64 + 0.5)).collect()),
    };
    // The region, its two parameters and what it carries come before the trace.
    let (region, added) = (trace, 4_u32);
    let moved = |id: NodeId| if id >= trace { NodeId(id.0 + added) } else { id };
    let mut nodes: Vec<Node> = program.nodes[..trace.index()].to_vec();
    let part = |name: &str, kind: NodeKind| Node::new(name, kind);
    let (prompt, factor, carried) = (NodeId(region.0 + 1), NodeId(region.0 + 2), NodeId(region.0 + 3));
    // Before everything, so that it can be what a loop begins with.
    let start =
        program.nodes.iter().position(|node| node.name == "start").map(|place| NodeId(place as u32))?;
    nodes.push(part("around", NodeKind::Tokens(0)));
    nodes.push(part("prompt", NodeKind::Parameter(Parameter::Tokens(prompts))));
    nodes.push(part("factor", NodeKind::Parameter(number)));
    nodes.push(part("running", NodeKind::Carried(start.into())));
    for node in &program.nodes[trace.index()..] {
        let mut node = node.clone();
        node.renumber(&moved);
        if let NodeKind::Trace(own) = &mut node.kind {
            own.invokes[chosen].prompts = Prompts::Axis(prompt);
        }
        nodes.push(node);
    }
    let mut body = vec![moved(trace)];
    let add = |nodes: &mut Vec<Node>, body: &mut Vec<NodeId>, name: &str, kind: NodeKind| {
        let id = NodeId(nodes.len() as u32);
        nodes.push(part(name, kind));
        body.push(id);
        Value::from(id)
    };
    let mut next = Value::from(carried);
    let mut reduced = Vec::new();
    if !saved.is_empty() {
        let mut value = *dice.of(&saved);
        value.node = moved(value.node);
        // Numbers of one type, whatever the value was.
        let cast = operation(OperationKind::To, vec![Argument::Value(value), Argument::DType(DType::F32)]);
        let cast = add(&mut nodes, &mut body, "cast", NodeKind::Operation(cast));
        let times = |one: Value, other: Argument| -> Operation {
            operation(OperationKind::Mul, vec![Argument::Value(one), other])
        };
        let scaled = times(cast, Argument::Value(factor.into()));
        let scaled = add(&mut nodes, &mut body, "scaled", NodeKind::Operation(scaled));
        add(&mut nodes, &mut body, "scaled_saved", NodeKind::Save(scaled));
        let sum = operation(OperationKind::Sum, vec![Argument::Value(scaled)]);
        let sum = add(&mut nodes, &mut body, "sum", NodeKind::Operation(sum));
        let total =
            operation(OperationKind::Add, vec![Argument::Value(sum), Argument::Value(carried.into())]);
        match around {
            Around::Loop => next = add(&mut nodes, &mut body, "total", NodeKind::Operation(total)),
            Around::Sweep => {
                let reduction = *dice.of(&[
                    Reduction::Sum,
                    Reduction::Mean,
                    Reduction::Var,
                    Reduction::Amin,
                    Reduction::Amax,
                    Reduction::TopK,
                ]);
                let how = Reduce {
                    reduction,
                    value: scaled,
                    dim: Vec::new(),
                    correction: Scalar::Int(1),
                    k: if reduction == Reduction::TopK { 2 } else { 0 },
                    largest: dice.chance(0.5),
                };
                reduced.push(add(&mut nodes, &mut body, "reduced", NodeKind::Reduce(how)));
            }
        }
    }
    let over = if zipped { vec![vec![prompt, factor]] } else { vec![vec![prompt], vec![factor]] };
    let kind = match around {
        Around::Sweep => {
            let region = Region { over, invokes: Vec::new(), body };
            NodeKind::Sweep(Sweep { region, yields: Vec::new() })
        }
        Around::Loop => {
            let region = Region { over, invokes: Vec::new(), body };
            NodeKind::Loop(Loop { region, carry: vec![carried], next: vec![next], from: 0 })
        }
    };
    nodes[region.index()].kind = kind;
    let mut program = Program { nodes, ..program.clone() };
    if around == Around::Sweep {
        // A sweep carries nothing.
        program = without(program, carried);
    }
    let moved = |id: NodeId| if around == Around::Sweep && id > carried { NodeId(id.0 - 1) } else { id };
    let mut save = |name: &str, mut value: Value| {
        value.node = moved(value.node);
        let id = NodeId(program.nodes.len() as u32);
        program.nodes.push(Node::new(name, NodeKind::Save(value)));
        program.body.push(id);
    };
    for value in reduced {
        save("reduced_saved", value);
    }
    if around == Around::Loop {
        save("carried_saved", region.into());
    }
    Some(program)
}

/// The program without one node, which nothing reads.
fn without(mut program: Program, gone: NodeId) -> Program {
    program.nodes.remove(gone.index());
    let moved = |id: NodeId| if id > gone { NodeId(id.0 - 1) } else { id };
    program.nodes.iter_mut().for_each(|node| node.renumber(&moved));
    program.body.iter_mut().for_each(|id| *id = moved(*id));
    program
}

/// The program with a 0-dimensional number before everything, by the name `start`: what a loop can begin with.
pub fn with_start(mut program: Program) -> Program {
    let moved = |id: NodeId| NodeId(id.0 + 1);
    program.nodes.iter_mut().for_each(|node| node.renumber(&moved));
    program.body.iter_mut().for_each(|id| *id = moved(*id));
    let kind = NodeKind::Literal { dtype: DType::F32, shape: Vec::new(), elements: vec![Scalar::Float(0.0)] };
    program.nodes.insert(0, Node::new("start", kind));
    program.body.insert(0, NodeId(0));
    program
}
