//! A seeded generator of random well-formed programs.
//!
//! A program grows node by node: each proposal is put to the checker together with the saves that make its setters
//! seen, and stays if the checker takes it. So the generator knows no rule of the language itself; the types of what it
//! has made are the checker's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

pub mod coverage;
#[allow(dead_code, reason = "random programs have a crowd of their own, in which one is cancelled")]
pub mod crowd;
pub mod dice;
mod dynamic;
mod gradients;
mod hooks;
mod operations;
pub mod outcomes;
pub mod regions;
pub mod sessions;
pub mod written;

use std::collections::BTreeMap;

use pellucid_graph::check::{self, CheckedProgram, SpecIndex};
use pellucid_graph::spec::Axis;
use pellucid_graph::{
    Argument, DType, Generation, Guard, HookAddress, IndexItem, Invoke, Node, NodeId, NodeKind, Operation,
    OperationKind, Program, Prompts, Sampling, Scalar, StepSelection, Trace, Value,
};

use dice::Dice;

/// No value of a random program is larger.
const ELEMENTS: u64 = 20_000;

/// A value that later nodes can read.
#[derive(Clone, Debug)]
pub struct Known {
    pub value: Value,
    pub dtype: DType,
    /// Sizes; none: it depends on the step.
    pub shape: Vec<Option<u64>>,
    /// The `steps` body in which it is known.
    pub steps: Option<NodeId>,
}

/// What a program may contain.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Operations that can fail on their values are given values on which they may.
    pub may_fail: bool,
    /// Generation, where it is drawn.
    pub generation: bool,
    /// Several invokes whose prompts are equal or begin alike, edited and read at few positions: what rows can be shared.
    pub alike: bool,
    /// Only what has a slope, and no gradients yet.
    pub smooth: bool,
}

/// A proposal: nodes that follow one another.
#[derive(Clone)]
pub struct Draft {
    base: usize,
    kinds: Vec<(NodeKind, Vec<Guard>)>,
    /// The conditions under which what is added runs.
    guards: Vec<Guard>,
}

impl Draft {
    pub fn add(&mut self, kind: NodeKind) -> Value {
        self.kinds.push((kind, self.guards.clone()));
        Value { node: NodeId((self.base + self.kinds.len() - 1) as u32), output: 0 }
    }

    pub fn operation(&mut self, kind: OperationKind, arguments: Vec<Argument>) -> Value {
        self.add(NodeKind::Operation(operation(kind, arguments)))
    }

    /// A small tensor of whole numbers.
    pub fn integers(&mut self, shape: &[u64], elements: impl Iterator<Item = i64>) -> Value {
        self.add(NodeKind::Literal {
            dtype: DType::I64,
            shape: shape.to_vec(),
            elements: elements.map(Scalar::Int).collect(),
        })
    }
}

/// An operation with these first arguments, and defaults for the rest.
pub fn operation(kind: OperationKind, arguments: Vec<Argument>) -> Operation {
    let rest = kind.definition().parameters.iter().skip(arguments.len());
    let rest: Vec<Argument> =
        rest.map(|parameter| parameter.default.clone().unwrap_or(Argument::Absent)).collect();
    Operation { kind, arguments: arguments.into_iter().chain(rest).collect() }
}

pub fn number(value: f64) -> Argument {
    Argument::Scalar(Scalar::Float(value))
}

pub fn whole(value: i64) -> Argument {
    Argument::Scalar(Scalar::Int(value))
}

/// A random program and what it is made of.
pub struct Generated {
    pub checked: CheckedProgram,
    /// Proposals that the checker took, and all of them.
    pub taken: usize,
    pub proposed: usize,
    /// Why it refused: the beginnings of its messages.
    pub refusals: BTreeMap<String, usize>,
}

pub struct Builder<'a> {
    index: &'a SpecIndex<'a>,
    /// Hook points by name, so that each kind is drawn as often as any other.
    kinds: Vec<(String, Vec<usize>)>,
    pub dice: Dice,
    wishes: Wishes,
    program: Program,
    trace: Option<NodeId>,
    steps: Option<NodeId>,
    known: Vec<Known>,
    backwards: Vec<NodeId>,
    taken: usize,
    proposed: usize,
    refusals: BTreeMap<String, usize>,
    /// A node that may fail has been made: there is at most one.
    danger: bool,
}

impl<'a> Builder<'a> {
    /// A random program at a seed.
    pub fn generate(index: &'a SpecIndex<'a>, seed: u64, wishes: Wishes) -> Generated {
        let mut kinds: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, hook) in index.spec().hook_points.iter().enumerate() {
            // Logits are a kind of their own: the root's output is one of many outputs.
            let name = if hook.module.is_empty() && hook.name == "output" {
                "logits".to_owned()
            } else if hook.dtype == DType::I64 {
                "token ids".to_owned()
            } else {
                hook.name.clone()
            };
            kinds.entry(name).or_default().push(place);
        }
        let mut builder = Builder {
            index,
            kinds: kinds.into_iter().collect(),
            dice: Dice::new(seed),
            wishes,
            program: Program { seed: seed % 1000, ..Program::default() },
            trace: None,
            steps: None,
            known: Vec::new(),
            backwards: Vec::new(),
            taken: 0,
            proposed: 0,
            refusals: BTreeMap::new(),
            danger: false,
        };
        let traces = *builder.dice.of(&[1, 1, 1, 2, 3]);
        for _ in 0..traces {
            builder.begin_trace();
            let proposals = builder.dice.range(4, if wishes.alike { 24 } else { 14 });
            for _ in 0..proposals {
                builder.propose();
            }
            builder.steps = None;
            builder.finish_trace();
        }
        let program = builder.program.clone();
        let checked = check::check(program, index);
        let checked = checked.unwrap_or_else(|faults| {
            panic!(
                "what was taken piece by piece is refused as a whole: {faults}\n{}",
                builder.program.to_json()
            )
        });
        Generated { checked, taken: builder.taken, proposed: builder.proposed, refusals: builder.refusals }
    }

    fn begin_trace(&mut self) {
        let vocabulary = self.index.spec().sizes.vocabulary;
        let alike = self.wishes.alike;
        let invokes = if alike { self.dice.range(2, 7) } else { *self.dice.of(&[1, 1, 2, 2, 3]) };
        let mut known: Vec<Vec<Vec<u32>>> = Vec::new();
        for _ in 0..invokes {
            if alike && !known.is_empty() && self.dice.chance(0.8) {
                let mut prompts = self.dice.of(&known).clone();
                if self.dice.chance(0.35) {
                    prompts.iter_mut().for_each(|tokens| self.end_differently(tokens, vocabulary));
                }
                known.push(prompts);
                continue;
            }
            let prompts = *self.dice.of(&[1, 1, 1, 2, 3]);
            let tokens = (0..prompts).map(|_| {
                let length =
                    if self.dice.chance(0.05) { self.dice.range(8, 40) } else { self.dice.range(1, 8) };
                (0..length).map(|_| self.dice.below(vocabulary) as u32).collect()
            });
            known.push(tokens.collect());
        }
        let invokes = known
            .into_iter()
            .enumerate()
            .map(|(number, tokens)| Invoke::new(format!("i{number}"), Prompts::Tokens(tokens)));
        let invokes: Vec<Invoke> = invokes.collect();
        let generates = if alike { 0.1 } else { 0.35 };
        let generation = (self.wishes.generation && self.dice.chance(generates)).then(|| self.generation());
        let id = NodeId(self.program.nodes.len() as u32);
        let trace = Trace { invokes, generation, ..Trace::default() };
        self.program.nodes.push(Node::new(format!("n{}", id.0), NodeKind::Trace(trace)));
        self.program.body.push(id);
        self.trace = Some(id);
    }

    /// Another ending of a prompt.
    fn end_differently(&mut self, tokens: &mut Vec<u32>, vocabulary: u64) {
        let kept = self.dice.below(tokens.len() as u64) as usize;
        tokens.truncate(kept);
        for _ in 0..self.dice.range(1, 4) {
            tokens.push(self.dice.below(vocabulary) as u32);
        }
    }

    fn generation(&mut self) -> Generation {
        let vocabulary = self.index.spec().sizes.vocabulary;
        let dice = &mut self.dice;
        let sampling = if dice.chance(0.5) {
            Sampling::default()
        } else {
            Sampling {
                temperature: dice.range(1, 20) as f64 / 10.0,
                top_k: dice.chance(0.3).then(|| dice.below(12) + 1),
                top_p: dice.chance(0.3).then(|| dice.range(1, 11) as f64 / 10.0),
                repetition_penalty: if dice.chance(0.3) { 1.3 } else { 1.0 },
            }
        };
        let stop_tokens = match dice.below(4) {
            0 => None,
            // So many that most generations meet one.
            1 => Some((0..vocabulary / 3).map(|_| dice.below(vocabulary) as u32).collect()),
            _ => Some(Vec::new()),
        };
        Generation { max_new_tokens: dice.below(5) + 1, sampling, stop_tokens, stop_texts: Vec::new() }
    }

    fn current(&self) -> &Trace {
        match &self.program.node(self.trace.unwrap()).kind {
            NodeKind::Trace(trace) => trace,
            other => panic!("{other:?}"),
        }
    }

    fn draft(&self) -> Draft {
        Draft { base: self.program.nodes.len(), kinds: Vec::new(), guards: Vec::new() }
    }

    /// Puts a proposal to the checker, and keeps it if it is taken.
    fn put(&mut self, draft: Draft) -> bool {
        if draft.kinds.is_empty() {
            return false;
        }
        self.proposed += 1;
        let mut program = self.program.clone();
        for (kind, guards) in draft.kinds.iter().cloned() {
            let id = add(&mut program, self.steps.or(self.trace).unwrap(), kind);
            program.nodes[id.index()].guards = guards;
        }
        let mut judged = program.clone();
        let added = judged.nodes.len();
        for kind in self.closing(&program, true) {
            add(&mut judged, self.trace.unwrap(), kind);
        }
        match check::check(judged, self.index) {
            Ok(checked) => {
                let new = &checked.nodes[self.program.nodes.len()..added];
                let fits =
                    new.iter().flat_map(|node| &node.outputs).all(|output| output.elements(64) <= ELEMENTS);
                if !fits {
                    return false;
                }
                for (offset, node) in new.iter().enumerate() {
                    let id = NodeId((self.program.nodes.len() + offset) as u32);
                    // What is made in a branch is seen nowhere else.
                    if !program.node(id).guards.is_empty() {
                        continue;
                    }
                    for (number, output) in node.outputs.iter().enumerate() {
                        let shape = output.shape.iter().map(|dimension| {
                            // Inside `steps` the recorded type is the first step's.
                            dimension.value().filter(|&size| self.steps.is_none() || size < 2)
                        });
                        self.known.push(Known {
                            value: Value { node: id, output: number as u32 },
                            dtype: output.dtype,
                            shape: if self.steps.is_none() {
                                output.shape.iter().map(pellucid_graph::shape::Dimension::value).collect()
                            } else {
                                shape.collect()
                            },
                            steps: self.steps,
                        });
                    }
                }
                self.program = program;
                self.taken += 1;
                true
            }
            Err(faults) => {
                let message: String =
                    faults.0[0].message.chars().filter(|c| !c.is_ascii_digit()).take(50).collect();
                *self.refusals.entry(message).or_default() += 1;
                false
            }
        }
    }

    /// What shows every edit of the current trace: the last hook points that matter, or the tokens that were made.
    fn closing(&self, program: &Program, all: bool) -> Vec<NodeKind> {
        let NodeKind::Trace(trace) = &program.node(self.trace.unwrap()).kind else { return Vec::new() };
        let base = program.nodes.len();
        let mut kinds = Vec::new();
        let mut edited = vec![all; trace.invokes.len()];
        let mut saved = false;
        for node in &program.nodes[self.trace.unwrap().index()..] {
            match &node.kind {
                NodeKind::Set { address: HookAddress { invoke, .. }, .. }
                | NodeKind::Skip { invoke, .. }
                | NodeKind::SetWeight { invoke, .. } => edited[*invoke] = true,
                NodeKind::Save(_) => saved = true,
                _ => {}
            }
        }
        if !saved && !edited.contains(&true) {
            edited[0] = true;
        }
        for invoke in (0..edited.len()).filter(|&invoke| edited[invoke]) {
            let source = NodeId((base + kinds.len()) as u32);
            kinds.push(if trace.generation.is_some() {
                NodeKind::Generated(invoke)
            } else {
                NodeKind::Get(HookAddress { invoke, hook: "output".into(), step: None })
            });
            kinds.push(NodeKind::Save(source.into()));
        }
        kinds
    }

    /// Ends a trace: every edit is seen by something that is saved, sometimes only just.
    fn finish_trace(&mut self) {
        self.save_what_nobody_reads();
        let last = self.last_edits();
        let kinds = self.closing(&self.program, false);
        let mut at = 0;
        while at < kinds.len() {
            let (read, save) = (kinds[at].clone(), kinds[at + 1].clone());
            at += 2;
            let base = self.program.nodes.len();
            let trace = self.trace.unwrap();
            let read = match read {
                // An early exit: the last edit's own hook point, or one after it, instead of the logits.
                NodeKind::Get(address) if self.dice.chance(0.4) => {
                    let places = self.index.spec().hook_points.len();
                    let from = last.get(&address.invoke).copied().unwrap_or(0);
                    let place = from + self.dice.below((places - from) as u64) as usize;
                    let hook = self.index.spec().hook_points[place].path();
                    NodeKind::Get(HookAddress { hook, ..address })
                }
                other => other,
            };
            let narrowed = if self.wishes.alike { 0.85 } else { 0.4 };
            let narrow = matches!(&read, NodeKind::Get(_)) && self.dice.chance(narrowed);
            let size = self.last_size(&read);
            add(&mut self.program, trace, read);
            let mut value = Value::from(NodeId(base as u32));
            if narrow {
                value = self.pick(value, size);
            }
            let NodeKind::Save(_) = save else { continue };
            add(&mut self.program, trace, NodeKind::Save(value));
        }
        self.known.retain(|known| known.steps.is_none());
    }

    /// The size of the last dimension of a hook point that is read and has its positions before it.
    fn last_size(&self, read: &NodeKind) -> Option<u64> {
        let NodeKind::Get(address) = read else { return None };
        let hook = &self.index.spec().hook_points[self.index.hook(&address.hook)?];
        match hook.shape.as_slice() {
            [Axis::Prompts, Axis::Length, Axis::Size(size)] if *size >= 4 => Some(*size),
            _ => None,
        }
    }

    /// The last position of a value; where its last dimension has a size, most often only a few places of it: what lets few
    /// columns of the vocabulary be computed.
    fn pick(&mut self, value: Value, size: Option<u64>) -> Value {
        let trace = self.trace.unwrap();
        let whole = || IndexItem::Slice { start: None, stop: None, step: 1 };
        let mut index = vec![whole(), IndexItem::Integer(-1)];
        let way = size.map_or(0, |_| self.dice.below(5));
        let getitem = |program: &mut Program, value: Value, index: Vec<IndexItem>| {
            let arguments = vec![Argument::Value(value), Argument::Index(index)];
            Value::from(add(
                program,
                trace,
                NodeKind::Operation(operation(OperationKind::GetItem, arguments)),
            ))
        };
        let Some(size) = size.filter(|_| way > 0) else { return getitem(&mut self.program, value, index) };
        let places: Vec<i64> = (0..self.dice.range(1, 4))
            .map(|_| self.dice.below(size) as i64 - if self.dice.chance(0.3) { size as i64 } else { 0 })
            .collect();
        let few = match self.dice.below(3) {
            0 => IndexItem::Integer(places[0]),
            1 => {
                let start = self.dice.below(size) as i64;
                let stop = Some(start + self.dice.range(0, 5) as i64);
                IndexItem::Slice { start: Some(start), stop, step: self.dice.range(1, 3) as i64 }
            }
            _ => {
                let shape = vec![places.len() as u64];
                let elements = places.iter().map(|&place| Scalar::Int(place)).collect();
                let literal = NodeKind::Literal { dtype: DType::I64, shape, elements };
                IndexItem::Tensor(add(&mut self.program, trace, literal).into())
            }
        };
        if way < 3 {
            index.push(few);
            return getitem(&mut self.program, value, index);
        }
        // Positions first, then places of what that gave; sometimes some others too.
        let rows = getitem(&mut self.program, value, index);
        let picked = getitem(&mut self.program, rows, vec![IndexItem::Ellipsis, few]);
        if way == 4 {
            let other = getitem(&mut self.program, rows, vec![whole(), IndexItem::Integer(places[0])]);
            add(&mut self.program, trace, NodeKind::Save(other));
        }
        picked
    }

    /// Most of what was computed is saved in the end: what nobody reads is not run.
    fn save_what_nobody_reads(&mut self) {
        let mut read = std::collections::HashSet::new();
        for node in &self.program.nodes {
            read.extend(node.kind.values().into_iter().map(|value| value.node));
        }
        let first = self.trace.unwrap();
        let leaves: Vec<Value> = self.known.iter().map(|known| known.value).collect();
        for value in leaves {
            let known = self.known.iter().find(|known| known.value == value);
            let inside = known.is_some_and(|known| known.steps.is_some());
            if value.node > first && !inside && !read.contains(&value.node) && self.dice.chance(0.8) {
                let mut draft = self.draft();
                draft.add(NodeKind::Save(value));
                self.put(draft);
            }
        }
    }

    /// The place of the last edit of each invoke of the current trace.
    fn last_edits(&self) -> BTreeMap<usize, usize> {
        let mut last = BTreeMap::new();
        for node in &self.program.nodes[self.trace.unwrap().index()..] {
            let (invoke, place) = match &node.kind {
                NodeKind::Set { address, .. } => (address.invoke, self.index.hook(&address.hook)),
                // Anything may be what it changes.
                NodeKind::Skip { invoke, .. } | NodeKind::SetWeight { invoke, .. } => {
                    (*invoke, Some(self.index.spec().hook_points.len() - 1))
                }
                _ => continue,
            };
            let Some(place) = place else { continue };
            let entry = last.entry(invoke).or_insert(place);
            *entry = (*entry).max(place);
        }
        last
    }

    fn propose(&mut self) {
        if self.steps.is_some() && self.dice.chance(0.2) {
            self.save();
            self.known.retain(|known| known.steps.is_none());
            self.steps = None;
        }
        let generates = self.current().generation.is_some();
        match self.dice.below(100) {
            0..8 if generates && self.steps.is_none() => self.begin_steps(),
            0..18 => self.getter(),
            18..40 => self.setter(),
            40..46 if self.current().invokes.len() > 1 && self.steps.is_none() => self.each_other(),
            46..52 => self.apply(),
            52..57 => self.input_value(),
            57..65 => self.save(),
            65..73 if !self.wishes.smooth => self.dynamic(),
            73..84 if !self.wishes.smooth => self.gradients(),
            65..69 => self.apply(),
            69..77 => self.dynamic(),
            _ => self.some_operation(),
        }
    }

    fn begin_steps(&mut self) {
        let total = self.current().generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
        let from = if self.dice.chance(0.6) { 0 } else { self.dice.below(total) };
        let to = self.dice.chance(0.3).then(|| from + 1 + self.dice.below(total - from));
        let every = if self.dice.chance(0.7) { 1 } else { 2 };
        let steps = StepSelection { from, to, every };
        let id = NodeId(self.program.nodes.len() as u32);
        let mut draft = self.draft();
        draft.add(NodeKind::Steps { steps, body: Vec::new() });
        if self.put(draft) {
            self.steps = Some(id);
            self.getter();
            self.save();
        }
    }

    fn save(&mut self) {
        let Some(known) = self.some_value(|_| true) else { return };
        let mut draft = self.draft();
        draft.add(if self.dice.chance(0.15) {
            NodeKind::Log(known.value)
        } else {
            NodeKind::Save(known.value)
        });
        self.put(draft);
    }
}

/// Adds a node to a body.
fn add(program: &mut Program, owner: NodeId, kind: NodeKind) -> NodeId {
    let id = NodeId(program.nodes.len() as u32);
    program.nodes.push(Node::new(format!("n{}", id.0), kind));
    match &mut program.nodes[owner.index()].kind {
        NodeKind::Trace(trace) => trace.body.push(id),
        NodeKind::Steps { body, .. } => body.push(id),
        other => panic!("{other:?} owns nothing"),
    }
    // A `steps` body's nodes stand before whatever follows in its trace.
    id
}
