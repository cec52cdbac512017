//! Writes a program in its one canonical form: every name written, lists where a single item could stand, nothing that
//! is the default.

use serde_json::{Map, Value as Json, json};

use super::VERSION;
use super::form::parameter_field;
use crate::operation::{Argument, IndexItem, Operation, Size};
use crate::program::{
    Generation, GradientOf, HookAddress, Invoke, Node, NodeId, NodeKind, Program, Prompts, Sampling, Value,
};
use crate::scalar::Scalar;
use crate::surface::{Parameter, Reduction, Region, WildcardAddress};

/// Above this, numbers travel as texts: many readers of JSON keep whole numbers as `f64`.
const EXACT_IN_FLOAT: u64 = 1 << 53;

pub(super) fn program(program: &Program) -> Json {
    let mut object = Map::new();
    object.insert("pellucid".into(), VERSION.into());
    if let Some(model) = &program.model {
        object.insert("model".into(), model.as_str().into());
    }
    object.insert("seed".into(), natural(program.seed));
    object.insert("body".into(), Writer { program }.body(&program.body, &[]));
    Json::Object(object)
}

struct Writer<'p> {
    program: &'p Program,
}

impl Writer<'_> {
    /// The nodes of a body, which see those invokes.
    fn body(&self, nodes: &[NodeId], seen: &[&Invoke]) -> Json {
        nodes
            .iter()
            .filter_map(|id| self.program.nodes.get(id.index()))
            .map(|node| self.node(node, seen))
            .collect()
    }

    fn node(&self, node: &Node, seen: &[&Invoke]) -> Json {
        let mut object = Map::new();
        object.insert("op".into(), node.kind.op().into());
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
        let invoke_name =
            |place: usize| -> Json { seen.get(place).map_or("?", |invoke| invoke.name.as_str()).into() };
        let address = |field: &mut dyn FnMut(&str, Json), address: &HookAddress| {
            field("invoke", invoke_name(address.invoke));
            field("hook", address.hook.as_str().into());
            if let Some(step) = address.step {
                field("step", natural(step));
            }
        };
        match &node.kind {
            NodeKind::Trace(trace) => {
                if let Some(model) = &trace.model {
                    field("model", model.as_str().into());
                }
                if !trace.edits.is_empty() {
                    field("edits", self.edits(&trace.edits));
                }
                field("invokes", self.invokes(&trace.invokes));
                if let Some(generation) = &trace.generation {
                    field("generate", generate(generation));
                }
                field("body", self.body(&trace.body, &trace.invokes.iter().collect::<Vec<_>>()));
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
                field("body", self.body(body, seen));
            }
            NodeKind::Stop { invoke, when } => {
                field("invoke", invoke_name(*invoke));
                field("when", self.value(*when));
            }
            NodeKind::Skip { invoke, module, step, value } => {
                field("invoke", invoke_name(*invoke));
                field("module", module.as_str().into());
                if let Some(step) = step {
                    field("step", natural(*step));
                }
                field("value", self.value(*value));
            }
            NodeKind::Weight { parameter, index } => {
                field("parameter", parameter.as_str().into());
                if let Some(items) = index {
                    field("index", items.iter().map(|item| self.index_item(item)).collect());
                }
            }
            NodeKind::SetWeight { invoke, parameter, value } => {
                field("invoke", invoke_name(*invoke));
                field("parameter", parameter.as_str().into());
                field("value", self.value(*value));
            }
            NodeKind::Merge { condition, then, otherwise } => {
                field("condition", self.value(*condition));
                field("then", self.value(*then));
                field("else", self.value(*otherwise));
            }
            NodeKind::Save(value) | NodeKind::Log(value) => field("value", self.value(*value)),
            NodeKind::Sweep(sweep) => {
                self.region(&sweep.region, seen, &mut field);
                if !sweep.yields.is_empty() {
                    field("yields", sweep.yields.iter().map(|value| self.value(*value)).collect());
                }
            }
            NodeKind::Cond(cond) => {
                field("condition", self.value(cond.condition));
                field("then", self.branch(cond.then, seen));
                if let Some(otherwise) = cond.otherwise {
                    field("else", self.branch(otherwise, seen));
                }
            }
            NodeKind::Edit(edit) => {
                field("invoke", edit.invoke.as_str().into());
                if !edit.edits.is_empty() {
                    field("edits", self.edits(&edit.edits));
                }
                let invoke = Invoke::new(edit.invoke.clone(), Prompts::default());
                field("body", self.body(&edit.body, &[&invoke]));
            }
            NodeKind::Loop(repeated) => {
                let carried = || repeated.carry.iter().filter_map(|id| self.program.nodes.get(id.index()));
                if !repeated.carry.is_empty() {
                    let initial = carried().map(|node| {
                        let initial = node.kind.values().first().map(|value| self.value(*value));
                        (node.name.clone(), initial.unwrap_or_default())
                    });
                    field("carry", Json::Object(initial.collect()));
                    let next = carried().zip(&repeated.next);
                    let next = next.map(|(node, value)| (node.name.clone(), self.value(*value)));
                    field("next", Json::Object(next.collect()));
                }
                if repeated.from > 0 {
                    field("from", natural(repeated.from));
                }
                self.region(&repeated.region, seen, &mut field);
            }
            // They are written by what owns them.
            NodeKind::Parameter(_) | NodeKind::Carried(_) | NodeKind::Branch(_) => {}
            NodeKind::Reduce(reduce) => {
                field("reduction", reduce.reduction.name().into());
                field("value", self.value(reduce.value));
                if !reduce.dim.is_empty() {
                    field("dim", reduce.dim.iter().map(|dim| integer(*dim)).collect());
                }
                if reduce.correction != Scalar::Int(1) {
                    field("correction", scalar(reduce.correction));
                }
                if reduce.reduction == Reduction::TopK || reduce.k > 0 {
                    field("k", natural(reduce.k));
                }
                if !reduce.largest {
                    field("largest", false.into());
                }
            }
            NodeKind::GetAll(address) => {
                self.wildcard("hook", address, invoke_name(address.invoke), &mut field)
            }
            NodeKind::SetAll(set) => {
                self.wildcard("hook", &set.address, invoke_name(set.address.invoke), &mut field);
                field("value", self.value(set.value));
                // Said in any case, so that a pattern without a wildcard is still read as one.
                field("each", set.each.into());
            }
            NodeKind::Cache(cache) => {
                self.wildcard("pattern", &cache.address, invoke_name(cache.address.invoke), &mut field);
            }
            NodeKind::GradAll(grad) => {
                field("backward", self.value(Value::from(grad.backward)));
                self.wildcard("hook", &grad.address, invoke_name(grad.address.invoke), &mut field);
            }
            NodeKind::SetGradAll(set) => {
                field("backward", self.value(Value::from(set.backward)));
                self.wildcard("hook", &set.address, invoke_name(set.address.invoke), &mut field);
                field("value", self.value(set.value));
                field("each", set.each.into());
            }
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

    fn edits(&self, edits: &[NodeId]) -> Json {
        let nodes = edits.iter().filter_map(|id| self.program.nodes.get(id.index()));
        nodes.map(|node| Json::from(node.name.as_str())).collect()
    }

    fn branch(&self, id: NodeId, seen: &[&Invoke]) -> Json {
        let Some(NodeKind::Branch(branch)) = self.program.nodes.get(id.index()).map(|node| &node.kind) else {
            return Json::Null;
        };
        let mut object = Map::new();
        object.insert("body".into(), self.body(&branch.body, seen));
        if !branch.yields.is_empty() {
            object.insert("yields".into(), branch.yields.iter().map(|value| self.value(*value)).collect());
        }
        Json::Object(object)
    }

    fn region(&self, region: &Region, seen: &[&Invoke], field: &mut dyn FnMut(&str, Json)) {
        let axis = |parameters: &Vec<NodeId>| {
            let nodes = parameters.iter().filter_map(|id| self.program.nodes.get(id.index()));
            Json::Object(nodes.map(|node| (node.name.clone(), self.parameter(&node.kind))).collect())
        };
        field("over", region.over.iter().map(axis).collect());
        if !region.invokes.is_empty() {
            field("invokes", self.invokes(&region.invokes));
        }
        let seen: Vec<&Invoke> = seen.iter().copied().chain(&region.invokes).collect();
        field("body", self.body(&region.body, &seen));
    }

    fn parameter(&self, kind: &NodeKind) -> Json {
        match kind {
            NodeKind::Parameter(Parameter::Numbers(numbers)) => {
                numbers.iter().map(|number| scalar(*number)).collect()
            }
            NodeKind::Parameter(Parameter::Range { from, to, step }) => {
                json!({ "range": [integer(*from), integer(*to), integer(*step)] })
            }
            NodeKind::Parameter(Parameter::Texts { cells, special_tokens: true }) => {
                json!({ "texts": cells })
            }
            NodeKind::Parameter(Parameter::Texts { cells, special_tokens: false }) => {
                json!({ "texts": cells, "special_tokens": false })
            }
            NodeKind::Parameter(Parameter::Tokens(cells)) => json!({ "token_lists": cells }),
            NodeKind::Parameter(Parameter::Rows(value)) => json!({ "rows_of": self.value(*value) }),
            _ => Json::Null,
        }
    }

    fn wildcard(
        &self,
        hook: &str,
        address: &WildcardAddress,
        invoke: Json,
        field: &mut dyn FnMut(&str, Json),
    ) {
        field("invoke", invoke);
        field(hook, address.pattern.as_str().into());
        // Said in any case: it is what makes a hook point a pattern.
        field("except", json!(address.except));
        if let Some(step) = address.step {
            field("step", natural(step));
        }
    }

    fn invokes(&self, invokes: &[Invoke]) -> Json {
        invokes
            .iter()
            .map(|invoke| {
                let mut object = self.prompts(invoke);
                if !invoke.edits.is_empty() {
                    object["edits"] = self.edits(&invoke.edits);
                }
                object
            })
            .collect()
    }

    fn prompts(&self, invoke: &Invoke) -> Json {
        match &invoke.prompts {
            Prompts::Text { texts, special_tokens: true } => json!({"name": invoke.name, "prompts": texts}),
            Prompts::Text { texts, special_tokens: false } => {
                json!({"name": invoke.name, "prompts": texts, "special_tokens": false})
            }
            Prompts::Tokens(tokens) => json!({"name": invoke.name, "tokens": tokens}),
            Prompts::Axis(parameter) => {
                let parameter = self.program.nodes.get(parameter.index());
                json!({"name": invoke.name, "prompt": {"axis": parameter.map_or("?", |node| node.name.as_str())}})
            }
        }
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
