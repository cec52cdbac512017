//! Programs out of thin air: well-formed as the wire demands (names, references, scopes, argument kinds), though no
//! model need make sense of them. Made from a list of choices, so that a property test shrinks by shortening the list.

use pellucid_graph::operation::{self, ParameterKind};
use pellucid_graph::program::Constant;
use pellucid_graph::{
    Argument, DType, Generation, GradientOf, HookAddress, IndexItem, Invoke, Node, NodeId, NodeKind,
    Operation, Program, Prompts, Sampling, Scalar, Size, SourceLocation, StepSelection, Trace, Value,
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
    /// The `backward`s so far.
    backwards: Vec<NodeId>,
    /// How many invokes the trace has.
    invokes: usize,
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
    let mut maker = Maker { choices, program, visible: Vec::new(), backwards: Vec::new(), invokes: 0 };
    for _ in 0..(maker.choices.below(5) + 1) % 5 {
        let trace = maker.trace();
        maker.program.body.push(trace);
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
        self.program.nodes.push(Node { name, kind: NodeKind::Tokens(0), source });
        id
    }

    fn trace(&mut self) -> NodeId {
        let id = self.node();
        let count = 1 + self.choices.below(3);
        let invokes = (0..count)
            .map(|place| Invoke {
                name: format!("{}{place}", self.choices.pick(&["i", "clean", "_"])),
                prompts: match self.choices.below(2) {
                    0 => Prompts::Text {
                        texts: self.choices.many(3, text),
                        special_tokens: self.choices.one_in(2),
                    },
                    _ => Prompts::Tokens(
                        self.choices.many(3, |choices| choices.many(4, |choices| choices.bits() as u32)),
                    ),
                },
            })
            .collect();
        self.invokes = count;
        let generation = self.choices.maybe(generation);
        let body = self.body(2);
        self.program.nodes[id.index()].kind = NodeKind::Trace(Trace { invokes, generation, body });
        id
    }

    fn body(&mut self, depth: usize) -> Vec<NodeId> {
        (0..self.choices.below(12)).map(|_| self.inner(depth)).collect()
    }

    fn inner(&mut self, depth: usize) -> NodeId {
        let id = self.node();
        let mut has_value = true;
        let kind = match self.choices.below(16) {
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
                let body = self.body(depth - 1);
                self.visible.truncate(outside);
                has_value = false;
                NodeKind::Steps { steps, body }
            }
            8 if !self.visible.is_empty() => {
                has_value = false;
                let value = self.value();
                match self.choices.below(5) {
                    0 => NodeKind::Save(value),
                    1 => NodeKind::Log(value),
                    2 => {
                        self.backwards.push(id);
                        NodeKind::Backward { of: value, cotangent: self.one_more() }
                    }
                    3 if !self.backwards.is_empty() => {
                        let backward = self.choices.pick(&self.backwards);
                        NodeKind::SetGrad { backward, of: self.gradient_of(), value }
                    }
                    _ => NodeKind::Set { address: self.address(), value },
                }
            }
            10 if !self.visible.is_empty() && !self.backwards.is_empty() => {
                let backward = self.choices.pick(&self.backwards);
                NodeKind::Grad { backward, of: self.gradient_of() }
            }
            9 if !self.visible.is_empty() => {
                NodeKind::Apply { module: self.choices.pick(&MODULES).to_owned(), input: self.value() }
            }
            _ => match self.operation() {
                Some(operation) => NodeKind::Operation(operation),
                None => NodeKind::Get(self.address()),
            },
        };
        self.program.nodes[id.index()].kind = kind;
        if has_value {
            self.visible.push(Value { node: id, output: 0 });
        }
        id
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
            hook: hook(self.choices),
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
