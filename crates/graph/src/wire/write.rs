//! Writes a program in its one canonical form: every name written, lists where a single item could stand, nothing that
//! is the default.

use serde_json::{Map, Value as Json, json};

use super::VERSION;
use super::form::parameter_field;
use crate::operation::{Argument, IndexItem, Operation, Size};
use crate::program::{
    Generation, GradientOf, HookAddress, Invoke, Node, NodeId, NodeKind, Program, Prompts, Sampling, Trace,
    Value,
};
use crate::scalar::Scalar;

/// Above this, numbers travel as texts: many readers of JSON keep whole numbers as `f64`.
const EXACT_IN_FLOAT: u64 = 1 << 53;

pub(super) fn program(program: &Program) -> Json {
    let mut object = Map::new();
    object.insert("pellucid".into(), VERSION.into());
    if let Some(model) = &program.model {
        object.insert("model".into(), model.as_str().into());
    }
    object.insert("seed".into(), natural(program.seed));
    object.insert("body".into(), Writer { program }.body(&program.body, None));
    Json::Object(object)
}

struct Writer<'p> {
    program: &'p Program,
}

impl Writer<'_> {
    fn body(&self, nodes: &[NodeId], trace: Option<&Trace>) -> Json {
        nodes
            .iter()
            .filter_map(|id| self.program.nodes.get(id.index()))
            .map(|node| self.node(node, trace))
            .collect()
    }

    fn node(&self, node: &Node, trace: Option<&Trace>) -> Json {
        let mut object = Map::new();
        object.insert("op".into(), op(&node.kind).into());
        object.insert("name".into(), node.name.as_str().into());
        if let Some(source) = &node.source {
            let mut location = Map::new();
            location.insert("file".into(), source.file.as_str().into());
            location.insert("line".into(), source.line.into());
            location.extend(source.text.as_ref().map(|text| ("text".into(), text.as_str().into())));
            object.insert("source".into(), Json::Object(location));
        }
        let mut field = |name: &str, value: Json| {
            object.insert(name.into(), value);
        };
        let invoke_name = |place: usize| -> Json {
            trace.and_then(|trace| trace.invokes.get(place)).map_or("?", |invoke| invoke.name.as_str()).into()
        };
        let address = |field: &mut dyn FnMut(&str, Json), address: &HookAddress| {
            field("invoke", invoke_name(address.invoke));
            field("hook", address.hook.as_str().into());
            if let Some(step) = address.step {
                field("step", natural(step));
            }
        };
        match &node.kind {
            NodeKind::Trace(trace) => {
                field("invokes", trace.invokes.iter().map(invoke).collect());
                if let Some(generation) = &trace.generation {
                    field("generate", generate(generation));
                }
                field("body", self.body(&trace.body, Some(trace)));
            }
            NodeKind::Get(hook) => address(&mut field, hook),
            NodeKind::Set { address: hook, value } => {
                address(&mut field, hook);
                field("value", self.value(*value));
            }
            NodeKind::Apply { module, input } => {
                field("module", module.as_str().into());
                field("input", self.value(*input));
            }
            NodeKind::Operation(operation) => self.operation(operation, &mut field),
            NodeKind::Literal { dtype, shape, elements } => {
                field("dtype", dtype.name().into());
                field("shape", shape.iter().map(|size| natural(*size)).collect());
                field("elements", elements.iter().map(|element| scalar(*element)).collect());
            }
            NodeKind::Constant(key) => field("key", key.as_str().into()),
            NodeKind::Tokens(place)
            | NodeKind::Lengths(place)
            | NodeKind::Mask(place)
            | NodeKind::Generated(place) => field("invoke", invoke_name(*place)),
            NodeKind::Steps { steps, body } => {
                field("from", natural(steps.from));
                if let Some(to) = steps.to {
                    field("to", natural(to));
                }
                field("every", natural(steps.every));
                field("body", self.body(body, trace));
            }
            NodeKind::Save(value) | NodeKind::Log(value) => field("value", self.value(*value)),
            NodeKind::Backward { of, cotangent } => {
                field("of", self.value(*of));
                if let Some(cotangent) = cotangent {
                    field("cotangent", self.value(*cotangent));
                }
            }
            NodeKind::Grad { backward, of } | NodeKind::SetGrad { backward, of, .. } => {
                field("backward", self.value(Value::from(*backward)));
                match of {
                    GradientOf::Value(value) => field("of", self.value(*value)),
                    GradientOf::Hook(hook) => address(&mut field, hook),
                }
                if let NodeKind::SetGrad { value, .. } = &node.kind {
                    field("value", self.value(*value));
                }
            }
        }
        Json::Object(object)
    }

    fn operation(&self, operation: &Operation, field: &mut dyn FnMut(&str, Json)) {
        for (parameter, argument) in operation.kind.definition().parameters.iter().zip(&operation.arguments) {
            if parameter.default.as_ref() != Some(argument) {
                field(parameter_field(parameter.name), self.argument(argument));
            }
        }
    }

    fn argument(&self, argument: &Argument) -> Json {
        match argument {
            Argument::Absent => Json::Null,
            Argument::Value(value) => self.value(*value),
            Argument::Values(values) => values.iter().map(|value| self.value(*value)).collect(),
            Argument::Scalar(number) => scalar(*number),
            Argument::Integers(integers) => integers.iter().map(|integer| self::integer(*integer)).collect(),
            Argument::Sizes(sizes) => sizes
                .iter()
                .map(|size| match size {
                    Size::Literal(size) => integer(*size),
                    Size::Of { value, dimension } => {
                        json!({"size_of": self.value(*value), "dim": integer(*dimension)})
                    }
                })
                .collect(),
            Argument::Text(text) => text.as_str().into(),
            Argument::DType(dtype) => dtype.name().into(),
            Argument::Index(items) => items.iter().map(|item| self.index_item(item)).collect(),
        }
    }

    fn index_item(&self, item: &IndexItem) -> Json {
        match item {
            IndexItem::Integer(place) => integer(*place),
            IndexItem::Slice { start, stop, step } => {
                let part = |part: &Option<i64>| part.map_or(String::new(), |part| part.to_string());
                let step = if *step == 1 { String::new() } else { format!(":{step}") };
                format!("{}:{}{step}", part(start), part(stop)).into()
            }
            IndexItem::Ellipsis => "...".into(),
            IndexItem::NewAxis => Json::Null,
            IndexItem::Tensor(value) => json!({"tensor": self.value(*value)}),
        }
    }

    fn value(&self, value: Value) -> Json {
        let name = self.program.nodes.get(value.node.index()).map_or("?", |node| node.name.as_str());
        match value.output {
            0 => name.into(),
            output => format!("{name}.{output}").into(),
        }
    }
}

/// A parameter's default, which refers to no node.
pub(super) fn default(argument: &Argument) -> Json {
    Writer { program: &Program::default() }.argument(argument)
}

fn op(kind: &NodeKind) -> &'static str {
    match kind {
        NodeKind::Trace(_) => "trace",
        NodeKind::Get(_) => "get",
        NodeKind::Set { .. } => "set",
        NodeKind::Apply { .. } => "apply",
        NodeKind::Operation(operation) => operation.kind.name(),
        NodeKind::Literal { .. } => "literal",
        NodeKind::Constant(_) => "constant",
        NodeKind::Tokens(_) => "tokens",
        NodeKind::Lengths(_) => "lengths",
        NodeKind::Mask(_) => "mask",
        NodeKind::Generated(_) => "generated",
        NodeKind::Steps { .. } => "steps",
        NodeKind::Save(_) => "save",
        NodeKind::Log(_) => "print",
        NodeKind::Backward { .. } => "backward",
        NodeKind::Grad { .. } => "grad",
        NodeKind::SetGrad { .. } => "set_grad",
    }
}

fn invoke(invoke: &Invoke) -> Json {
    match &invoke.prompts {
        Prompts::Text { texts, special_tokens: true } => json!({"name": invoke.name, "prompts": texts}),
        Prompts::Text { texts, special_tokens: false } => {
            json!({"name": invoke.name, "prompts": texts, "special_tokens": false})
        }
        Prompts::Tokens(tokens) => json!({"name": invoke.name, "tokens": tokens}),
    }
}

fn generate(generation: &Generation) -> Json {
    let (sampling, default) = (&generation.sampling, Sampling::default());
    let mut object = Map::new();
    let mut field = |name: &str, value: Option<Json>| {
        object.extend(value.map(|value| (name.to_owned(), value)));
    };
    let unless = |value: f64, default: f64| {
        (value.to_bits() != default.to_bits()).then(|| scalar(Scalar::Float(value)))
    };
    field("max_new_tokens", Some(natural(generation.max_new_tokens)));
    field("temperature", unless(sampling.temperature, default.temperature));
    field("top_k", sampling.top_k.map(natural));
    field("top_p", sampling.top_p.map(|top_p| scalar(Scalar::Float(top_p))));
    field("repetition_penalty", unless(sampling.repetition_penalty, default.repetition_penalty));
    field("stop_tokens", generation.stop_tokens.as_ref().map(|tokens| json!(tokens)));
    field("stop_texts", (!generation.stop_texts.is_empty()).then(|| json!(generation.stop_texts)));
    Json::Object(object)
}

fn scalar(scalar: Scalar) -> Json {
    match scalar {
        Scalar::Bool(value) => value.into(),
        Scalar::Int(value) => integer(value),
        Scalar::Float(value) if value.is_nan() => json!({"float": "nan"}),
        Scalar::Float(f64::INFINITY) => json!({"float": "inf"}),
        Scalar::Float(f64::NEG_INFINITY) => json!({"float": "-inf"}),
        Scalar::Float(value) => value.into(),
    }
}

fn integer(value: i64) -> Json {
    if value.unsigned_abs() > EXACT_IN_FLOAT { json!({"int": value.to_string()}) } else { value.into() }
}

fn natural(value: u64) -> Json {
    if value > EXACT_IN_FLOAT { json!({"int": value.to_string()}) } else { value.into() }
}
