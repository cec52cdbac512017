//! Gradients of whole random programs, held to finite differences of those programs: what every interpreter shares, the rules
//! and the way from one to the next, is held to nothing but the program itself.
//!
//! A value of a random program is gone back from with a random cotangent, to a hook point or to another value. The same
//! program with that hook point moved a little to either side gives the slope. Sums are in `f64`, the program itself computes
//! in `f32`: where the slope is lost in its rounding, or is not the same to both sides and at half the step, nothing is said.

use pellucid_engine::{Engine, RunOptions, Tensor};
use pellucid_graph::check::{CheckedProgram, SpecIndex};
use pellucid_graph::program::Constant;
use pellucid_graph::spec::Application;
use pellucid_graph::{
    Argument, DType, GradientOf, HookAddress, Node, NodeId, NodeKind, OperationKind, Program, Value,
};

use crate::random::coverage::Coverage;
use crate::random::dice::Dice;
use crate::random::{Builder, Wishes, operation};
use crate::support::engines;
use crate::{PROGRAMS, all_were_tried, finish, seeds};

/// Steps that are tried, along a direction of length 1, until one is small enough for the slope to be the same at half of it.
const STEPS: [f64; 3] = [3e-2, 1e-2, 3e-3];
/// The steps at which a slope is looked at again that does not agree.
const SMALL_STEPS: [f64; 2] = [1e-3, 2e-4];
/// Slopes agree to so much of the larger.
const SLOPES: f64 = 0.03;
/// What one result's rounding may come to, relative to the sum of what is summed: a program is some hundred roundings deep.
const ROUNDING: f64 = 4e-7;

/// What is asked of a program.
struct Question {
    /// Without gradients, the value saved.
    plain: Program,
    loss: Value,
    cotangent: Vec<f64>,
    /// What is moved.
    moved: Moved,
}

/// What is moved: it is read, and written again, before the node at this place.
enum Moved {
    Hook(HookAddress, NodeId),
    Value(Value),
}

/// What is computed from the value but must not: what has no gradient, though it is a float computed from floats; what is
/// held in few bits; decompositions, which have no derivative where singular or eigenvalues are equal; what reads half of a
/// matrix that it takes to be symmetric, which one that is moved is not; and what has a floor that its gradient does not see.
fn is_smooth(checked: &CheckedProgram, id: NodeId) -> bool {
    let outputs = &checked.nodes[id.index()].outputs;
    if outputs.iter().any(|output| matches!(output.dtype, DType::Bf16 | DType::F16)) {
        return false;
    }
    match &checked.program.node(id).kind {
        NodeKind::Operation(operation) => {
            let float = |value: &Value| {
                checked.nodes[value.node.index()].outputs[value.output as usize].dtype.is_float()
            };
            let cut = !operation.kind.definition().differentiable
                && outputs.iter().any(|output| output.dtype.is_float())
                && operation.values().iter().any(float);
            let decomposes =
                matches!(operation.kind, OperationKind::Svd | OperationKind::Eigh | OperationKind::Pinv);
            let symmetric = operation.kind == OperationKind::Cholesky;
            // Its floor is no part of what is differentiated, as in PyTorch.
            let floored = operation.kind == OperationKind::CosineSimilarity;
            !cut && !decomposes && !symmetric && !floored
        }
        NodeKind::Grad { .. } => false,
        _ => true,
    }
}

fn constant(values: &[f64], shape: &[u64]) -> Constant {
    let bytes = values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect();
    Constant { dtype: DType::F32, shape: shape.to_vec(), bytes }
}

/// Puts nodes into a trace's body before the node at `at`, which need not be there yet. Gives back the first one's new place.
fn insert(program: &mut Program, trace: NodeId, at: NodeId, kinds: Vec<(String, NodeKind)>) {
    let count = kinds.len() as u32;
    let moved = |id: NodeId| if id >= at { NodeId(id.0 + count) } else { id };
    program.nodes.iter_mut().for_each(|node| node.renumber(&moved));
    program.body.iter_mut().for_each(|id| *id = moved(*id));
    let new = kinds.into_iter().map(|(name, kind)| Node::new(name, kind));
    drop(program.nodes.splice(at.index()..at.index(), new));
    if let NodeKind::Trace(trace) = &mut program.nodes[trace.index()].kind {
        let place = trace.body.partition_point(|&id| id < at);
        drop(trace.body.splice(place..place, (0..count).map(|offset| NodeId(at.0 + offset))));
    }
}

impl Question {
    /// The program with what is moved moved along `direction`.
    fn moved(&self, trace: NodeId, direction: Constant) -> Program {
        let mut program = self.plain.clone();
        program.constants.insert("moved by".into(), direction);
        let add = |one: Value, other: NodeId| {
            NodeKind::Operation(operation(
                OperationKind::Add,
                vec![Argument::Value(one), Argument::Value(other.into())],
            ))
        };
        let named = |name: &str, kind: NodeKind| (format!("moved_{name}"), kind);
        match &self.moved {
            Moved::Hook(address, at) => {
                let (read, by, sum) = (*at, NodeId(at.0 + 1), NodeId(at.0 + 2));
                let nodes = vec![
                    named("read", NodeKind::Get(address.clone())),
                    named("by", NodeKind::Constant("moved by".into())),
                    named("sum", add(read.into(), by)),
                    named("set", NodeKind::Set { address: address.clone(), value: sum.into() }),
                ];
                insert(&mut program, trace, *at, nodes);
            }
            Moved::Value(value) => {
                let at = NodeId(value.node.0 + 1);
                let (by, sum) = (at, NodeId(at.0 + 1));
                let nodes =
                    vec![named("by", NodeKind::Constant("moved by".into())), named("sum", add(*value, by))];
                insert(&mut program, trace, at, nodes);
                for node in &mut program.nodes[sum.index() + 1..] {
                    node.kind.for_each_value_mut(&mut |read| {
                        if *read == *value {
                            *read = sum.into();
                        }
                    });
                }
            }
        }
        program
    }

    /// The value's elements, each times its cotangent, summed; and the sum of their sizes.
    fn loss(&self, tensor: &Tensor) -> (f64, f64) {
        let elements = tensor.to_vec_f64().unwrap();
        let products = elements.iter().zip(&self.cotangent).filter(|(_, cotangent)| **cotangent != 0.0);
        products.fold((0.0, 0.0), |(sum, size), (value, cotangent)| {
            (sum + value * cotangent, size + (value * cotangent).abs())
        })
    }
}

/// A question that the program's last trace can be asked, the gradient that answers it, and what that goes through.
fn ask(
    engine: &Engine,
    index: &SpecIndex<'_>,
    checked: &CheckedProgram,
    dice: &mut Dice,
) -> Option<(Question, Tensor, CheckedProgram)> {
    let (trace, _) = checked.program.traces().last()?;
    let nodes = checked.program.nodes.len();
    // What is computed from something that is not smooth is left alone; through setters that is the rest of the trace.
    let mut rough = vec![false; nodes];
    let mut rough_from = nodes;
    for place in trace.index()..nodes {
        let node = &checked.program.nodes[place];
        rough[place] = place >= rough_from
            || !is_smooth(checked, NodeId(place as u32))
            || node.kind.values().iter().any(|value| rough[value.node.index()]);
        let set = node.kind.written().is_some() || matches!(node.kind, NodeKind::SetWeight { .. });
        if rough[place] && set {
            rough_from = rough_from.min(place);
        }
    }
    if rough_from < nodes {
        return None;
    }
    let float = |id: NodeId| {
        let output = checked.nodes[id.index()].outputs.first()?;
        let sizes = output.sizes()?;
        let elements = sizes.iter().product::<u64>();
        let fits = matches!(output.dtype, DType::F32 | DType::F64) && (1..=8000).contains(&elements);
        fits.then_some(sizes)
    };
    let all = (trace.index() + 1..nodes).map(|place| NodeId(place as u32));
    let values: Vec<NodeId> = all.filter(|id| !rough[id.index()] && float(*id).is_some()).collect();
    let attends = |id: &NodeId| {
        let module = checked.nodes[id.index()].module.map(|module| &index.spec().modules[module]);
        module.is_some_and(|module| module.applied == Application::Sequence)
    };
    let attending: Vec<NodeId> = values.iter().copied().filter(attends).collect();
    if values.is_empty() {
        return None;
    }
    let loss =
        if attending.is_empty() || dice.chance(0.3) { *dice.of(&values) } else { *dice.of(&attending) };
    let mut plain = checked.program.clone();
    let shape = float(loss)?;
    let count = shape.iter().product::<u64>();
    let cotangent: Vec<f64> =
        (0..count).map(|_| f64::from((dice.below(2001) as f32 - 1000.0) / 1000.0)).collect();
    insert(&mut plain, trace, NodeId(nodes as u32), vec![("loss_saved".into(), NodeKind::Save(loss.into()))]);
    let found = engine.run(&engine.check(plain.clone()).ok()?, &RunOptions::default()).ok()?;
    let found = found.tensors.get("loss_saved")?.to_vec_f64().unwrap();
    // Masked scores are −∞ whatever happens.
    let cotangent: Vec<f64> =
        cotangent.iter().zip(&found).map(|(c, value)| if value.is_finite() { *c } else { 0.0 }).collect();
    let (of, moved) = match dice.chance(0.5) {
        true => {
            let value = Value::from(*dice.of(&values));
            match &plain.node(value.node).kind {
                // Of a getter's value it is the version's, which is moved where it was made.
                NodeKind::Get(address) => {
                    let at = after_setters(&plain, index, trace, address, value.node);
                    (GradientOf::Value(value), Moved::Hook(address.clone(), at))
                }
                _ => (GradientOf::Value(value), Moved::Value(value)),
            }
        }
        false => {
            let hooks = &index.spec().hook_points;
            let place = dice.below(hooks.len() as u64) as usize;
            let invokes = match &plain.node(trace).kind {
                NodeKind::Trace(trace) => trace.invokes.len(),
                _ => 1,
            };
            let invoke = dice.below(invokes as u64) as usize;
            let address = HookAddress { invoke, hook: hooks[place].path(), step: None };
            let at = after_setters(&plain, index, trace, &address, NodeId(u32::MAX));
            (GradientOf::Hook(address.clone()), Moved::Hook(address, at))
        }
    };
    let mut asked = plain.clone();
    asked.constants.insert("cotangent".into(), constant(&cotangent, &shape));
    let end = asked.nodes.len() as u32;
    let backward = NodeKind::Backward { of: loss.into(), cotangent: Some(NodeId(end).into()) };
    insert(
        &mut asked,
        trace,
        NodeId(end),
        vec![
            ("cotangent".into(), NodeKind::Constant("cotangent".into())),
            ("back".into(), backward),
            ("asked".into(), NodeKind::Grad { backward: NodeId(end + 1), of }),
            ("asked_saved".into(), NodeKind::Save(NodeId(end + 2).into())),
        ],
    );
    let asked = engine.check(asked).ok()?;
    let gradient = engine.run(&asked, &RunOptions::default()).ok()?.tensors.get("asked_saved")?.clone();
    Some((Question { plain, loss: loss.into(), cotangent, moved }, gradient, asked))
}

/// The place behind the last setter of a hook point before `reader`: where the version that it reads is made.
fn after_setters(
    program: &Program,
    index: &SpecIndex<'_>,
    trace: NodeId,
    address: &HookAddress,
    reader: NodeId,
) -> NodeId {
    let own = |id: &NodeId| match &program.node(*id).kind {
        NodeKind::Set { address: other, .. } => {
            other.invoke == address.invoke && index.hook(&other.hook) == index.hook(&address.hook)
        }
        NodeKind::Skip { invoke, module, .. } => {
            let output = index.module(module).map(|module| &index.spec().modules[module].path);
            let output = output.and_then(|path| index.hook(&format!("{path}.output")));
            *invoke == address.invoke && output == index.hook(&address.hook)
        }
        _ => false,
    };
    let nodes = (trace.0 + 1..program.nodes.len() as u32).map(NodeId).take_while(|&id| id < reader);
    NodeId(nodes.filter(own).last().unwrap_or(trace).0 + 1)
}

/// The loss with what is moved moved so far along a direction, and the sum of the sizes of what it sums.
fn moved_loss(
    engine: &Engine,
    question: &Question,
    trace: NodeId,
    (direction, shape): (&[f64], &[u64]),
    step: f64,
) -> Option<(f64, f64)> {
    let by: Vec<f64> = direction.iter().map(|value| value * step).collect();
    let checked = engine.check(question.moved(trace, constant(&by, shape))).ok()?;
    let found = engine.run(&checked, &RunOptions::default()).ok()?;
    let (loss, size) = question.loss(found.tensors.get("loss_saved")?);
    (loss.is_finite() && size.is_finite()).then_some((loss, size))
}

/// What differences say of one direction: the slope, and how much of it may be rounding. None where there is none to say.
fn slope(
    engine: &Engine,
    question: &Question,
    trace: NodeId,
    direction: (&[f64], &[u64]),
) -> Option<(f64, f64)> {
    let at = |step: f64| moved_loss(engine, question, trace, direction, step);
    let (middle, size) = at(0.0)?;
    for step in STEPS {
        let (below, above, nearer) = (at(-step)?.0, at(step)?.0, (at(-step / 2.0)?.0, at(step / 2.0)?.0));
        let noise = ROUNDING * size / step;
        let (whole, half) = ((above - below) / (2.0 * step), (nearer.1 - nearer.0) / step);
        let sides = ((above - middle) / step, (middle - below) / step);
        let same = |one: f64, other: f64, part: f64| {
            (one - other).abs() <= part * one.abs().max(other.abs()) + 2.0 * noise
        };
        if same(whole, half, SLOPES / 3.0) && same(sides.0, sides.1, SLOPES) {
            return Some((half, 2.0 * noise));
        }
    }
    None
}

#[test]
fn gradients_of_random_programs_agree_with_finite_differences() {
    let mut coverage = Coverage::default();
    let mut failures = Vec::new();
    let (mut questions, mut held, mut flat, mut rough) = (0, 0, 0, 0);
    for (number, (model, engine)) in engines().into_iter().enumerate() {
        let spec = engine.model().spec().clone();
        let index = SpecIndex::new(&spec);
        for seed in seeds(number, PROGRAMS / 4) {
            let wishes = Wishes { smooth: true, generation: false, alike: seed % 4 == 1, may_fail: false };
            let generated = Builder::generate(&index, seed, wishes).checked;
            let mut dice = Dice::new(seed ^ 0xd1ff);
            let asked = (0..6).find_map(|_| ask(&engine, &index, &generated, &mut dice));
            let Some((question, gradient, asked)) = asked else { continue };
            questions += 1;
            let Some((trace, _)) = question.plain.traces().last() else { continue };
            let shape: Vec<u64> = gradient.shape().iter().map(|&size| size as u64).collect();
            let gradient = gradient.to_vec_f64().unwrap();
            let length = gradient.iter().map(|value| value * value).sum::<f64>().sqrt();
            let random: Vec<f64> = gradient.iter().map(|_| dice.below(2001) as f64 / 1000.0 - 1.0).collect();
            let other = random.iter().map(|value| value * value).sum::<f64>().sqrt();
            if !length.is_finite() {
                rough += 1;
                continue;
            }
            // Along the gradient itself, and along any other direction: a part that is missing may be at right angles to it.
            let directions = [(gradient.clone(), length), (random, other)];
            for (direction, length) in directions {
                if length == 0.0 {
                    flat += 1;
                    continue;
                }
                let direction: Vec<f64> =
                    direction.iter().map(|value| f64::from((value / length) as f32)).collect();
                let ours: f64 = gradient.iter().zip(&direction).map(|(one, other)| one * other).sum();
                let Some((slope, noise)) = slope(&engine, &question, trace, (&direction, &shape)) else {
                    rough += 1;
                    continue;
                };
                if slope.abs().max(ours.abs()) < 20.0 * noise {
                    flat += 1;
                    continue;
                }
                let off = (slope - ours).abs() > SLOPES * slope.abs().max(ours.abs()) + 3.0 * noise;
                // Bends may lie all along a step and its half, as a sort's do. What is off then comes near at smaller ones; a
                // gradient that is wrong does not.
                let at = |step| moved_loss(&engine, &question, trace, (&direction, &shape), step);
                let nears = |step: f64| {
                    let (Some(above), Some(below)) = (at(step), at(-step)) else { return false };
                    ((above.0 - below.0) / (2.0 * step) - ours).abs() < (slope - ours).abs() / 4.0
                };
                if off && SMALL_STEPS.into_iter().any(nears) {
                    rough += 1;
                    continue;
                }
                held += 1;
                coverage.way_back(&asked, &index);
                if off {
                    let name = &asked.program.node(question.loss.node).name;
                    failures.push(format!(
                        "{model}, seed {seed}: from `{name}` the slope is {slope:e} (± {noise:.0e}), by the gradient {ours:e}\n{}",
                        asked.program.to_json()
                    ));
                }
            }
        }
    }
    println!("{questions} gradients, {held} slopes held; {flat} too flat for rounding, {rough} not smooth");
    println!("{}", coverage.table());
    finish(failures);
    if all_were_tried() {
        assert!(held >= 200, "only {held} slopes were held");
        let missing = coverage.missing(&[
            (
                "way back",
                [
                    "applied modules that attend",
                    "applied modules by tokens",
                    "setters",
                    "another invoke",
                    "other weights",
                ]
                .map(String::from)
                .to_vec(),
                8,
            ),
            ("way back", ["skips", "values of weights", "conditions"].map(String::from).to_vec(), 2),
        ]);
        assert!(missing.is_empty(), "too little was held:\n{}", missing.join("\n"));
    }
}
