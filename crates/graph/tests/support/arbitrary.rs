//! Programs out of thin air: well-formed as the wire demands (names, references, scopes, argument kinds), though no
//! model need make sense of them. Made from a list of choices, so that a property test shrinks by shortening the list.

use pellucid_graph::operation::{self, ParameterKind};
use pellucid_graph::program::Constant;
use pellucid_graph::{
    Argument, Cache, DType, Generation, GradAll, GradientOf, HookAddress, IndexItem, Invoke, Loop, Node,
    NodeId, NodeKind, Operation, Parameter, Program, Prompts, Reduce, Reduction, Region, Sampling, Scalar,
    SetAll, SetGradAll, Size, SourceLocation, StepSelection, Sweep, Trace, Value, WildcardAddress,
};
/// A list of choices; when it is used up, every choice is the first.
pub(crate) struct Choices {
    list: std::vec::IntoIter<u64>,
}

impl Choices {
    /// The choices of that list.
    pub(crate) fn new(list: Vec<u64>) -> Self {
        Choices { list: list.into_iter() }
    }

    /// A number below `count`, or 0.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        (self.bits() % count.max(1) as u64) as usize
    }

    /// Any 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.list.next().unwrap_or(0)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn many<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.one_in(2) { Some(make(self)) } else { None }
    }
}

const TEXTS: [&str; 8] =
    ["", "a", "The Eiffel Tower is in", "\"\\\n\t\u{0}", "é 中 🦀", "\u{202e}", "{}", "NaN 1e999 [["];

const HOOKS: [&str; 12] = [
    "transformer.h.1.output",
    "transformer.h.1.input",
    "transformer.h.0.attn.pattern",
    "transformer.h.3.attn.query",
    "transformer.h.2.mlp.post",
    "transformer.h.2.ln_1.scale",
    "layers.0.output",
    "layers.2.attention.scores",
    "embed.output",
    "logits",
    "final_norm.input",
    "transformer.h.4.output",
];
const MODULES: [&str; 6] =
    ["unembed", "final_norm", "transformer.h.0.mlp", "layers.1.attention", "transformer.h.1", "embed"];

/// A hook point of `specs/tiny-gpt2.json`, mostly.
fn hook(choices: &mut Choices) -> String {
    if choices.one_in(8) { text(choices) } else { choices.pick(&HOOKS).to_owned() }
}

fn text(choices: &mut Choices) -> String {
    choices.pick(&TEXTS).to_owned()
}

fn natural(choices: &mut Choices) -> u64 {
    let any = choices.bits();
    choices.pick(&[0, 1, 2, 17, (1 << 53) + 1, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX, any])
}

fn integer(choices: &mut Choices) -> i64 {
    let any = choices.bits() as i64;
    choices.pick(&[0, -1, 1, 5, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, i64::MAX, i64::MIN, any])
}

/// Any literal number.
pub(crate) fn scalar(choices: &mut Choices) -> Scalar {
    let any = f64::from_bits(choices.bits());
    // A NaN's payload does not travel.
    let any = if any.is_nan() { f64::NAN } else { any };
    let floats =
        [0.0, -0.0, 2.0, 0.1, 1e-320, f64::MAX, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e20, any];
    match choices.below(3) {
        0 => Scalar::Int(integer(choices)),
        1 => Scalar::Float(choices.pick(&floats)),
        _ => Scalar::Bool(choices.one_in(2)),
    }
}

fn finite(choices: &mut Choices) -> f64 {
    choices.pick(&[1.0, 0.0, -0.0, 0.7, 1e-9, 1e300])
}

struct Maker<'c> {
    choices: &'c mut Choices,
    program: Program,
    /// What can be referred to.
    visible: Vec<Value>,
    /// The `backward`s that can be seen.
    backwards: Vec<NodeId>,
    /// How many invokes can be seen.
    invokes: usize,
    in_trace: bool,
    /// Parameters of prompts that can be seen.
    prompts: Vec<NodeId>,
    /// What is made after the innermost sweep, if it is the innermost body.
    after_sweep: Option<Vec<Value>>,
}

/// A well-formed program.
pub(crate) fn program(choices: &mut Choices, constants: bool) -> Program {
    let mut program = Program { model: choices.maybe(text), seed: natural(choices), ..Program::default() };
    if constants {
        for place in 0..choices.below(4) {
            let dtype = choices.pick(&DType::ALL);
            let shape = choices.many(3, |choices| choices.below(4) as u64);
            let bytes = vec![choices.below(2) as u8; (shape.iter().product::<u64>() * dtype.size()) as usize];
            program.constants.insert(format!("{}{place}", text(choices)), Constant { dtype, shape, bytes });
        }
    }
    let mut maker = Maker {
        choices,
        program,
        visible: Vec::new(),
        backwards: Vec::new(),
        invokes: 0,
        in_trace: false,
        prompts: Vec::new(),
        after_sweep: None,
    };
    for _ in 0..(maker.choices.below(5) + 1) % 5 {
        let id = if maker.choices.one_in(4) { maker.inner(3) } else { maker.trace() };
        maker.program.body.push(id);
    }
    maker.program
}

impl Maker<'_> {
    /// Adds a node whose kind is set later.
    fn node(&mut self) -> NodeId {
        let id = NodeId(self.program.nodes.len() as u32);
        let name = format!("{}{}", self.choices.pick(&["n", "N", "_", "layer_", "constructor"]), id.0);
        let source = self.choices.one_in(4).then(|| SourceLocation {
            file: text(self.choices),
            line: self.choices.bits() as u32,
            text: self.choices.maybe(text),
        });
        self.program.nodes.push(Node { source, ..Node::new(name, NodeKind::Tokens(0)) });
        id
    }

    fn trace(&mut self) -> NodeId {
        let id = self.node();
        let count = 1 + self.choices.below(3);
        let invokes = (0..count)
            .map(|place| {
                let name = format!("{}{place}", self.choices.pick(&["i", "clean", "_"]));
                Invoke::new(name, self.prompts())
            })
            .collect();
        self.invokes = count;
        self.in_trace = true;
        let generation = self.choices.maybe(generation);
        let body = self.body(2);
        self.in_trace = false;
        self.program.nodes[id.index()].kind = NodeKind::Trace(Trace {
            model: self.choices.maybe(text),
            invokes,
            generation,
            body,
            ..Trace::default()
        });
        id
    }

    fn prompts(&mut self) -> Prompts {
        match self.choices.below(3) {
            0 => Prompts::Text { texts: self.choices.many(3, text), special_tokens: self.choices.one_in(2) },
            1 if !self.prompts.is_empty() => Prompts::Axis(self.choices.pick(&self.prompts)),
            _ => Prompts::Tokens(
                self.choices.many(3, |choices| choices.many(4, |choices| choices.bits() as u32)),
            ),
        }
    }

    /// A node that its owner lists itself.
    fn part(&mut self, kind: NodeKind) -> NodeId {
        let id = NodeId(self.program.nodes.len() as u32);
        self.program.nodes.push(Node::new(format!("p{}", id.0), kind));
        id
    }

    fn parameter(&mut self) -> NodeId {
        let parameter = match self.choices.below(6) {
            0 => Parameter::Range {
                from: integer(self.choices),
                to: integer(self.choices),
                step: integer(self.choices).max(1),
            },
            1 => Parameter::Numbers(self.choices.many(3, |choices| Scalar::Int(integer(choices)))),
            2 => Parameter::Numbers(self.choices.many(3, |choices| Scalar::Float(finite(choices)))),
            3 => Parameter::Texts {
                cells: self.choices.many(3, |choices| choices.many(2, text)),
                special_tokens: self.choices.one_in(2),
            },
            4 if !self.visible.is_empty() => Parameter::Rows(self.value()),
            _ => Parameter::Tokens(self.choices.many(3, |choices| {
                let prompt = |choices: &mut Choices| choices.many(3, |choices| choices.bits() as u32);
                let first = prompt(choices);
                std::iter::once(first).chain(choices.many(2, prompt)).collect()
            })),
        };
        self.part(NodeKind::Parameter(parameter))
    }

    /// A sweep or a loop: its parameters, invokes and body.
    fn region(&mut self, id: NodeId, depth: usize) -> NodeKind {
        let (outside, prompts, invokes) = (self.visible.len(), self.prompts.len(), self.invokes);
        let mut region = Region::default();
        for _ in 0..=self.choices.below(2) {
            let axis = (0..=self.choices.below(2)).map(|_| self.parameter()).collect();
            region.over.push(axis);
        }
        let carry: Vec<NodeId> = match self.choices.one_in(2) && !self.visible.is_empty() {
            true => (0..self.choices.below(3))
                .map(|_| {
                    let initial = self.value();
                    self.part(NodeKind::Carried(initial))
                })
                .collect(),
            false => Vec::new(),
        };
        let is_loop = !carry.is_empty() || self.choices.one_in(2);
        for &parameter in region.over.iter().flatten() {
            match &self.program.nodes[parameter.index()].kind {
                NodeKind::Parameter(values) if values.has_value() => self.visible.push(parameter.into()),
                _ => self.prompts.push(parameter),
            }
        }
        self.visible.extend(carry.iter().map(|&carried| Value::from(carried)));
        if self.in_trace {
            for place in 0..self.choices.below(3) {
                let prompts = self.prompts();
                region.invokes.push(Invoke::new(format!("r{}_{place}", id.0), prompts));
            }
        }
        self.invokes += region.invokes.len();
        let around = self.after_sweep.replace(Vec::new());
        if is_loop {
            self.after_sweep = None;
        }
        region.body = self.body(depth - 1);
        let inner: Vec<Value> = match self.visible.is_empty() {
            true => Vec::new(),
            false => (0..3).map(|_| self.value()).collect(),
        };
        let reduced = std::mem::replace(&mut self.after_sweep, around).unwrap_or_default();
        self.visible.truncate(outside);
        self.prompts.truncate(prompts);
        self.invokes = invokes;
        self.visible.extend(reduced);
        match is_loop {
            true => {
                let next = inner.into_iter().cycle().take(carry.len()).collect();
                NodeKind::Loop(Loop { region, carry, next, from: self.choices.below(3) as u64 })
            }
            false => NodeKind::Sweep(Sweep { region, yields: inner }),
        }
    }

    fn wildcard(&mut self) -> WildcardAddress {
        let except = self.choices.many(2, hook);
        let HookAddress { invoke, hook, step } = self.address();
        let pattern = match self.choices.below(3) {
            // With nothing left out, only what has a `*` or a `[` with an end is a pattern.
            0 => format!("{hook}.*"),
            1 => "layers.*.attention.mixed".into(),
            _ => "**.h[0:3].output".into(),
        };
        WildcardAddress { invoke, pattern, except, step }
    }

    fn body(&mut self, depth: usize) -> Vec<NodeId> {
        (0..self.choices.below(12))
            .map(|_| match !self.in_trace && self.choices.one_in(6) {
                true => self.trace(),
                false => self.inner(depth),
            })
            .collect()
    }

    fn inner(&mut self, depth: usize) -> NodeId {
        let id = self.node();
        let mut has_value = true;
        let traced = self.in_trace && self.invokes > 0;
        let kind = match self.choices.below(19) {
            0..5 | 7 if !traced => match self.operation() {
                Some(operation) => NodeKind::Operation(operation),
                None => NodeKind::Literal { dtype: DType::I64, shape: vec![0], elements: vec![] },
            },
            16 if depth > 0 => self.region(id, depth),
            17 if traced => match self.choices.below(5) {
                0 => NodeKind::GetAll(self.wildcard()),
                1 if !self.visible.is_empty() => {
                    has_value = false;
                    let (value, each) = (self.value(), self.choices.one_in(2));
                    NodeKind::SetAll(SetAll { address: self.wildcard(), value, each })
                }
                2 if !self.backwards.is_empty() => {
                    let backward = self.choices.pick(&self.backwards);
                    let address = WildcardAddress { step: None, ..self.wildcard() };
                    NodeKind::GradAll(GradAll { backward, address })
                }
                3 if !self.visible.is_empty() && !self.backwards.is_empty() => {
                    has_value = false;
                    let backward = self.choices.pick(&self.backwards);
                    let (value, each) = (self.value(), self.choices.one_in(2));
                    let address = WildcardAddress { step: None, ..self.wildcard() };
                    NodeKind::SetGradAll(SetGradAll { backward, address, value, each })
                }
                _ => {
                    has_value = false;
                    NodeKind::Cache(Cache { address: self.wildcard() })
                }
            },
            18 if self.after_sweep.is_some() && !self.visible.is_empty() => {
                has_value = false;
                let reduce = self.reduce();
                if let Some(after) = &mut self.after_sweep {
                    after.push(id.into());
                }
                NodeKind::Reduce(reduce)
            }
            0 => NodeKind::Get(self.address()),
            1 => NodeKind::Tokens(self.choices.below(self.invokes)),
            2 => NodeKind::Lengths(self.choices.below(self.invokes)),
            3 => NodeKind::Mask(self.choices.below(self.invokes)),
            4 => NodeKind::Generated(self.choices.below(self.invokes)),
            5 => {
                let shape = self.choices.many(3, |choices| choices.below(3) as u64);
                let elements = (0..shape.iter().product()).map(|_| scalar(self.choices)).collect();
                NodeKind::Literal { dtype: self.choices.pick(&DType::ALL), shape, elements }
            }
            6 if !self.program.constants.is_empty() => {
                let keys: Vec<_> = self.program.constants.keys().cloned().collect();
                NodeKind::Constant(self.choices.pick(&keys))
            }
            7 if depth > 0 => {
                let steps = StepSelection {
                    from: natural(self.choices),
                    to: self.choices.maybe(natural),
                    every: natural(self.choices).max(1),
                };
                let outside = self.visible.len();
                let around = self.after_sweep.take();
                let body = self.body(depth - 1);
                self.after_sweep = around;
                self.visible.truncate(outside);
                has_value = false;
                NodeKind::Steps { steps, body }
            }
            8 if !self.visible.is_empty() => {
                has_value = false;
                let value = self.value();
                match self.choices.below(9) {
                    0 => NodeKind::Save(value),
                    2 if traced => NodeKind::Set { address: self.address(), value },
                    3 if traced => NodeKind::Stop { invoke: self.choices.below(self.invokes), when: value },
                    4 if traced => NodeKind::Skip {
                        invoke: self.choices.below(self.invokes),
                        module: self.choices.pick(&MODULES).to_owned(),
                        step: self.choices.maybe(natural),
                        value,
                    },
                    5 if traced => NodeKind::SetWeight {
                        invoke: self.choices.below(self.invokes),
                        parameter: text(self.choices),
                        value,
                    },
                    6 if traced => {
                        self.backwards.push(id);
                        NodeKind::Backward { of: value, cotangent: self.one_more() }
                    }
                    7 if traced && !self.backwards.is_empty() => {
                        let backward = self.choices.pick(&self.backwards);
                        NodeKind::SetGrad { backward, of: self.gradient_of(), value }
                    }
                    _ => NodeKind::Log(value),
                }
            }
            10 if traced && !self.visible.is_empty() && !self.backwards.is_empty() => {
                let backward = self.choices.pick(&self.backwards);
                NodeKind::Grad { backward, of: self.gradient_of() }
            }
            10 | 11 => NodeKind::Weight {
                parameter: text(self.choices),
                index: self
                    .choices
                    .one_in(2)
                    .then(|| (0..self.choices.below(5)).map(|_| self.index_item()).collect()),
            },
            9 if !self.visible.is_empty() => {
                NodeKind::Apply { module: self.choices.pick(&MODULES).to_owned(), input: self.value() }
            }
            _ => match self.operation() {
                Some(operation) => NodeKind::Operation(operation),
                None if traced => NodeKind::Get(self.address()),
                None => NodeKind::Literal { dtype: DType::I64, shape: vec![0], elements: vec![] },
            },
        };
        self.program.nodes[id.index()].kind = kind;
        if has_value {
            self.visible.push(Value { node: id, output: 0 });
        }
        id
    }

    fn reduce(&mut self) -> Reduce {
        let reduction = self.choices.pick(&Reduction::ALL);
        let least = u64::from(reduction == Reduction::TopK);
        Reduce {
            reduction,
            value: self.value(),
            dim: self.choices.many(2, integer),
            correction: scalar(self.choices),
            k: natural(self.choices).max(least),
            largest: !self.choices.one_in(2),
        }
    }

    fn one_more(&mut self) -> Option<Value> {
        if self.choices.one_in(2) { Some(self.value()) } else { None }
    }

    fn gradient_of(&mut self) -> GradientOf {
        match self.choices.one_in(2) {
            true => GradientOf::Value(self.value()),
            false => GradientOf::Hook(HookAddress { step: None, ..self.address() }),
        }
    }

    fn address(&mut self) -> HookAddress {
        HookAddress {
            invoke: self.choices.below(self.invokes),
            // A text with `*` or `[` is a pattern, and no hook point.
            hook: hook(self.choices).replace(['*', '['], "_"),
            step: self.choices.maybe(natural),
        }
    }

    fn value(&mut self) -> Value {
        let output = if self.choices.one_in(8) { self.choices.below(999_999) as u32 } else { 0 };
        Value { output, ..self.choices.pick(&self.visible) }
    }

    /// Any operation; none where it needs a value and there is none yet.
    fn operation(&mut self) -> Option<Operation> {
        let row = &operation::table()[self.choices.below(operation::table().len())];
        let mut arguments = Vec::new();
        for parameter in &row.parameters {
            arguments.push(match &parameter.default {
                Some(default) if self.choices.one_in(2) => default.clone(),
                _ => self.argument(parameter.kind)?,
            });
        }
        Some(Operation { kind: row.kind, arguments })
    }

    fn argument(&mut self, kind: ParameterKind) -> Option<Argument> {
        let none_yet = self.visible.is_empty();
        Some(match kind {
            ParameterKind::Tensor if none_yet => return None,
            ParameterKind::Tensor => Argument::Value(self.value()),
            ParameterKind::Operand if !none_yet && self.choices.one_in(2) => Argument::Value(self.value()),
            ParameterKind::Operand | ParameterKind::Number => Argument::Scalar(scalar(self.choices)),
            ParameterKind::Tensors if none_yet => Argument::Values(Vec::new()),
            ParameterKind::Tensors => {
                Argument::Values((0..self.choices.below(4)).map(|_| self.value()).collect())
            }
            ParameterKind::Integer => Argument::Scalar(Scalar::Int(integer(self.choices))),
            ParameterKind::Integers => Argument::Integers(self.choices.many(4, integer)),
            ParameterKind::Sizes => Argument::Sizes(
                (0..self.choices.below(5))
                    .map(|_| match !none_yet && self.choices.one_in(2) {
                        true => Size::Of { value: self.value(), dimension: integer(self.choices) },
                        false => Size::Literal(integer(self.choices)),
                    })
                    .collect(),
            ),
            ParameterKind::Boolean => Argument::Scalar(Scalar::Bool(self.choices.one_in(2))),
            ParameterKind::Text => Argument::Text(text(self.choices)),
            ParameterKind::DType => Argument::DType(self.choices.pick(&DType::ALL)),
            ParameterKind::Index => {
                Argument::Index((0..self.choices.below(5)).map(|_| self.index_item()).collect())
            }
        })
    }

    fn index_item(&mut self) -> IndexItem {
        match self.choices.below(5) {
            0 => IndexItem::Slice {
                start: self.choices.maybe(integer),
                stop: self.choices.maybe(integer),
                step: integer(self.choices).max(1),
            },
            1 => IndexItem::Ellipsis,
            2 => IndexItem::NewAxis,
            3 if !self.visible.is_empty() => IndexItem::Tensor(self.value()),
            _ => IndexItem::Integer(integer(self.choices)),
        }
    }
}

fn generation(choices: &mut Choices) -> Generation {
    Generation {
        max_new_tokens: choices.below(65_537) as u64,
        sampling: Sampling {
            temperature: finite(choices),
            top_k: choices.maybe(natural),
            top_p: choices.maybe(finite),
            repetition_penalty: finite(choices),
        },
        stop_tokens: choices.maybe(|choices| choices.many(3, |choices| choices.bits() as u32)),
        stop_texts: choices.many(2, text),
    }
}
