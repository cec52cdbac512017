//! Reads a program: its frame, its nodes, their sources.

use std::collections::{BTreeMap, HashMap};

use super::form::is_name;
use super::form::{self, COMMON, Form, Op, Stands};
use super::json::{Item, Items, Json};
use super::outline::{Outline, Reference, Role};
use super::reader::{Fields, Reader, Segment};
use super::{VERSION, hints, json};
use crate::dtype::DType;
use crate::fault::{Fault, Faults, quote};
use crate::limits;
use crate::operation::{Argument, OperationKind, ParameterKind};
use crate::program::{Constant, Node, NodeId, NodeKind, Program, SourceLocation, StepSelection, Value};
use crate::suggest::did_you_mean;

/// The fields of a program.
pub(super) const PROGRAM_FIELDS: [&str; 5] = ["$schema", "pellucid", "model", "seed", "body"];
/// The fields of a node's source.
pub(super) const SOURCE_FIELDS: [&str; 3] = ["file", "line", "text"];

/// Reads a program that comes with these constants.
pub(super) fn read(bytes: &[u8], constants: BTreeMap<String, Constant>) -> Result<Program, Faults> {
    read_bounded(bytes, constants).map_err(|faults| hints::or_hint(faults, hints::PROGRAM))
}

fn read_bounded(bytes: &[u8], constants: BTreeMap<String, Constant>) -> Result<Program, Faults> {
    if bytes.len() > limits::PROGRAM_BYTES {
        let message = format!("{} bytes, where a program has at most {}", bytes.len(), limits::PROGRAM_BYTES);
        return Err(Fault::new(message)
            .with_hint("large tensors travel as constants in a safetensors file")
            .into());
    }
    let json = json::parse(bytes, limits::JSON_DEPTH)?;
    let item = Item::from(&json);
    check_version(item)?;
    let mut reader = Reader::new(Faults::default(), Outline::default());
    let Some(fields) = reader.fields(item, "a program", &PROGRAM_FIELDS) else { return Err(reader.faults) };
    // For editors, which find the schema by it; it says nothing about the program.
    let _ = reader.optional(fields, "$schema", |reader, item| {
        reader.text(item, "the schema's address", limits::TEXT_BYTES)
    });
    let model = reader.optional(fields, "model", |reader, item| {
        reader.text(item, "a model's name", limits::TEXT_BYTES).map(str::to_owned)
    });
    let seed = reader.optional(fields, "seed", Reader::natural);
    let body =
        reader.required(fields, "body", |reader, item| reader.items(item, "a list of nodes", limits::NODES));
    let Some(body) = body else { return Err(reader.faults) };
    let mut faults = reader.faults;
    let outline = Outline::new(body, &mut faults);
    let mut reader = Reader::new(faults, outline);
    let mut nodes = Vec::with_capacity(reader.outline.entries.len());
    for id in 0..reader.outline.entries.len() {
        if reader.faults.is_full() {
            break;
        }
        reader.begin(NodeId(id as u32));
        nodes.extend(reader.node(NodeId(id as u32), &constants));
    }
    let body = std::mem::take(&mut reader.outline.body);
    reader.faults.or(Program {
        model: model.flatten(),
        seed: seed.flatten().unwrap_or_default(),
        nodes,
        body,
        constants,
        same_types: Vec::new(),
    })
}

/// The names that a node may refer to, the nearest first, as a hint.
fn known<'n>(names: impl Iterator<Item = &'n str>) -> String {
    const SHOWN: usize = 8;
    let mut names = names.map(quote);
    let mut shown: Vec<String> = names.by_ref().take(SHOWN).collect();
    if shown.is_empty() {
        return "a node refers to earlier ones by their `name`, and none stands before this one".to_owned();
    }
    if names.next().is_some() {
        shown.push("…".to_owned());
    }
    format!("a node refers to earlier ones by their `name`: {}", shown.join(", "))
}

/// A program of another version is refused for that alone: nothing else of it can be judged.
fn check_version(item: Item<'_>) -> Result<(), Faults> {
    let Some(entries) = item.entries() else {
        return Err(Fault::new(format!("expected a program, found {}", item.kind())).at_place("").into());
    };
    let version = entries.iter().find(|(key, _)| key == "pellucid").map(|(_, version)| version);
    let fault = match version {
        Some(Json::Integer(VERSION)) => return Ok(()),
        Some(Json::Integer(version)) => {
            Fault::new(format!("a program of version {version}; this build reads version {VERSION}"))
                .at_place("/pellucid")
                .with_hint(format!("use the pellucid that reads version {version}, or write it as version {VERSION}: docs/language.md"))
        }
        Some(other) => {
            let message = format!("expected the version, {VERSION}, found {}", Item::from(other).kind());
            Fault::new(message).at_place("/pellucid")
        }
        None => Fault::new("a program needs the field `pellucid`, its version")
            .at_place("")
            .with_hint(format!(r#"write "pellucid": {VERSION}"#)),
    };
    Err(fault.into())
}

impl<'t> Reader<'t> {
    /// One node; none where a fault was noted.
    fn node(&mut self, id: NodeId, constants: &BTreeMap<String, Constant>) -> Option<Node> {
        let entry = &self.outline.entries[id.index()];
        let (item, role, trace) = (entry.item, entry.role, entry.trace);
        let op = match role {
            Role::Node(op) => op,
            Role::Parameter => return self.parameter_node(id, item),
            Role::Carried => return self.carried_node(id, item),
            Role::Branch => return self.branch_node(id, item),
        };
        let Some(entries) = item.entries() else { return self.expected("a node", item) };
        self.source =
            self.read_source(entries.iter().find(|(key, _)| key == "source").map(|(_, json)| json.into()));
        let Some(op) = op else { return self.unknown_op(entries) };
        let name =
            self.read_name(id, entries.iter().find(|(key, _)| key == "name").map(|(_, json)| json.into()));
        match op.stands() {
            Stands::InTrace if trace.is_none() => {
                self.fault_with_hint::<()>("stands outside a trace", "put it into the `body` of a `trace`");
            }
            Stands::OutsideTraces if trace.is_some() => {
                let message =
                    if op.is("trace") { "a trace inside a trace" } else { "an edit inside a trace" };
                let hint = "traces and edits stand in the program's own `body`, in sequence";
                self.fault_with_hint::<()>(message, hint);
            }
            _ => {}
        }
        let kind = match op {
            Op::Form(form) => self.form(id, item, form, constants)?,
            Op::Operation(kind) => self.operation_node(item, kind)?,
        };
        Some(Node { source: self.source.clone(), ..Node::new(name?, kind) })
    }

    fn unknown_op<T>(&mut self, entries: &'t [(std::borrow::Cow<'t, str>, Json<'t>)]) -> Option<T> {
        let Some(op) = entries.iter().find(|(key, _)| key == "op").map(|(_, json)| Item::from(json)) else {
            return self.fault_with_hint("a node needs the field `op`: what it does", hints::OPERATIONS);
        };
        self.at(Segment::Key("op"), |reader| {
            let Some(op) = op.text() else {
                let message = format!("expected the name of an operation, found {}", op.kind());
                return reader.fault_with_hint(message, hints::OPERATIONS);
            };
            let message = format!("there is no operation {}", quote(op));
            let guess = did_you_mean(op, form::ops());
            reader.fault_with_hint(message, guess.unwrap_or_else(|| hints::OPERATIONS.to_owned()))
        })
    }

    fn read_name(&mut self, id: NodeId, item: Option<Item<'t>>) -> Option<String> {
        match item {
            Some(item) => self.at(Segment::Key("name"), |reader| reader.name(item)).map(str::to_owned),
            None => Some(self.outline.entries[id.index()].name.to_string()),
        }
    }

    fn read_source(&mut self, item: Option<Item<'t>>) -> Option<SourceLocation> {
        let item = item.filter(|item| !item.is_null())?;
        self.at(Segment::Key("source"), |reader| {
            let fields = reader.fields(item, "a source", &SOURCE_FIELDS)?;
            let file = reader.required(fields, "file", |reader, item| {
                reader.text(item, "a file's name", limits::TEXT_BYTES).map(str::to_owned)
            });
            let line = reader.required(fields, "line", |reader, item| {
                let line = reader.natural(item)?;
                u32::try_from(line).ok().or_else(|| reader.fault("a line above 2^32"))
            });
            let text = reader.optional(fields, "text", |reader, item| {
                reader.text(item, "a line's text", limits::SOURCE_BYTES).map(str::to_owned)
            });
            Some(SourceLocation { file: file?, line: line?, text: text? })
        })
    }

    fn form(
        &mut self,
        id: NodeId,
        item: Item<'t>,
        form: &'static Form,
        constants: &BTreeMap<String, Constant>,
    ) -> Option<NodeKind> {
        let known: Vec<&str> = COMMON.into_iter().chain(form.fields.iter().map(|field| field.name)).collect();
        let fields = self.fields(item, form.op, &known)?;
        let owned = self.outline.entries[id.index()].owned.clone();
        let body = owned.body.clone();
        match form.op {
            "trace" => self.trace(fields, body).map(NodeKind::Trace),
            "get" => self.get(fields),
            "set" => self.set(fields),
            "sweep" => self.sweep(id, fields, owned),
            "loop" => self.repeat(id, fields, owned),
            "cond" => self.cond(fields, &owned),
            "edit" => self.edit(fields, body),
            "reduce" => self.reduce(id, fields),
            "cache" => self.cache(fields),
            "apply" => {
                let module = self.module(fields);
                let input = self.required(fields, "input", Reader::value);
                Some(NodeKind::Apply { module: module?, input: input? })
            }
            "literal" => self.literal(fields),
            "constant" => {
                let key = self.required(fields, "key", |reader, item| reader.constant_key(item, constants));
                key.map(NodeKind::Constant)
            }
            "tokens" => self.invoke_of(fields).map(NodeKind::Tokens),
            "lengths" => self.invoke_of(fields).map(NodeKind::Lengths),
            "mask" => self.invoke_of(fields).map(NodeKind::Mask),
            "generated" => self.invoke_of(fields).map(NodeKind::Generated),
            "steps" => self.steps(fields, body),
            "stop" => {
                let invoke = self.invoke_of(fields);
                let when = self.required(fields, "when", Reader::value);
                Some(NodeKind::Stop { invoke: invoke?, when: when? })
            }
            "skip" => {
                let invoke = self.invoke_of(fields);
                let module = self.module(fields);
                let step = self.optional(fields, "step", Reader::natural);
                let value = self.required(fields, "value", Reader::value);
                Some(NodeKind::Skip { invoke: invoke?, module: module?, step: step?, value: value? })
            }
            "weight" => {
                let parameter = self.parameter_name(fields);
                let index = self.optional(fields, "index", |reader, item| {
                    match reader.argument(ParameterKind::Index, item)? {
                        Argument::Index(items) => Some(items),
                        _ => None,
                    }
                });
                Some(NodeKind::Weight { parameter: parameter?, index: index? })
            }
            "set_weight" => {
                let invoke = self.invoke_of(fields);
                let parameter = self.parameter_name(fields);
                let value = self.required(fields, "value", Reader::value);
                Some(NodeKind::SetWeight { invoke: invoke?, parameter: parameter?, value: value? })
            }
            "save" => self.required(fields, "value", Reader::value).map(NodeKind::Save),
            "print" => self.required(fields, "value", Reader::value).map(NodeKind::Log),
            "backward" => {
                let of = self.required(fields, "of", Reader::value);
                let cotangent = self.optional(fields, "cotangent", Reader::value);
                Some(NodeKind::Backward { of: of?, cotangent: cotangent? })
            }
            "grad" => self.grad(fields),
            "set_grad" => self.set_grad(fields),
            other => self.fault(format!("`{other}` cannot be read yet")),
        }
    }

    fn operation_node(&mut self, item: Item<'t>, kind: OperationKind) -> Option<NodeKind> {
        let parameters = &kind.definition().parameters;
        let names = parameters.iter().map(|parameter| form::parameter_field(parameter.name));
        let known: Vec<&str> = COMMON.into_iter().chain(names).collect();
        let fields = self.fields(item, kind.name(), &known)?;
        self.operation(fields, kind).map(NodeKind::Operation)
    }

    fn module(&mut self, fields: Fields<'t>) -> Option<String> {
        self.required(fields, "module", |reader, item| {
            reader.text(item, "a module's path", limits::TEXT_BYTES).map(str::to_owned)
        })
    }

    fn parameter_name(&mut self, fields: Fields<'t>) -> Option<String> {
        self.required(fields, "parameter", |reader, item| {
            reader.text(item, "a parameter's name", limits::TEXT_BYTES).map(str::to_owned)
        })
    }

    /// The place of the invoke that a node names, or of the trace's only one.
    pub(super) fn invoke_of(&mut self, fields: Fields<'t>) -> Option<usize> {
        let unknown = self.invokes.iter().any(|level| level.places.is_none());
        let count: usize =
            self.invokes.iter().filter_map(|level| level.places.as_ref()).map(HashMap::len).sum();
        let Some(item) = fields.optional("invoke") else {
            // Where there is none, or they could not be read, a fault was noted already.
            return match count {
                0 | 1 => Some(0),
                _ if unknown => Some(0),
                count => self.fault(format!("needs the field `invoke`: the trace has {count} of them")),
            };
        };
        self.at(Segment::Key("invoke"), |reader| {
            let name = reader.text(item, "the name of an invoke", limits::TEXT_BYTES)?;
            let levels = || reader.invokes.iter().filter_map(|level| level.places.as_ref());
            if let Some(&place) = levels().find_map(|places| places.get(name)) {
                return Some(place);
            }
            if unknown || reader.invokes.is_empty() {
                return Some(0);
            }
            let guess = did_you_mean(name, levels().flat_map(HashMap::keys).take(1_000).map(AsRef::as_ref));
            let message = format!("the trace has no invoke {}", quote(name));
            reader.fault_with_guess(message, guess)
        })
    }

    fn constant_key(&mut self, item: Item<'t>, constants: &BTreeMap<String, Constant>) -> Option<String> {
        let key = self.text(item, "a constant's name", limits::TEXT_BYTES)?;
        if constants.contains_key(key) {
            return Some(key.to_owned());
        }
        let message = format!("no constant {} travels with the program", quote(key));
        if constants.is_empty() {
            let hint = "a program with constants travels as a safetensors file whose tensors they are";
            return self.fault_with_hint(message, hint);
        }
        let guess = did_you_mean(key, constants.keys().map(String::as_str));
        self.fault_with_guess(message, guess)
    }

    fn literal(&mut self, fields: Fields<'t>) -> Option<NodeKind> {
        let dtype = self.required(fields, "dtype", Reader::dtype);
        let shape = self.required(fields, "shape", |reader, item| {
            reader.list(item, "a shape", limits::DIMENSIONS, Reader::natural)
        });
        let elements = self.required(fields, "elements", |reader, item| {
            reader.list(item, "a list of numbers", limits::LITERAL_ELEMENTS, Reader::scalar)
        });
        let (dtype, shape, elements) = (dtype?, shape?, elements?);
        let count = shape.iter().try_fold(1_u64, |count, size| count.checked_mul(*size));
        if count != Some(elements.len() as u64) {
            return self.fault(format!("{} elements do not fill the shape {shape:?}", elements.len()));
        }
        Some(NodeKind::Literal { dtype, shape, elements })
    }

    fn steps(&mut self, fields: Fields<'t>, body: Vec<NodeId>) -> Option<NodeKind> {
        let from = self.optional(fields, "from", Reader::natural);
        let to = self.optional(fields, "to", Reader::natural);
        let every = self.optional(fields, "every", |reader, item| match reader.natural(item)? {
            0 => reader.fault("expected a whole number of at least 1, found 0"),
            every => Some(every),
        });
        self.body_of(fields)?;
        let steps = StepSelection { from: from?.unwrap_or(0), to: to?, every: every?.unwrap_or(1) };
        Some(NodeKind::Steps { steps, body })
    }

    /// That there is a body; its nodes are read on their own.
    pub(super) fn body_of(&mut self, fields: Fields<'t>) -> Option<Items<'t>> {
        self.required(fields, "body", |reader, item| reader.items(item, "a list of nodes", limits::NODES))
    }

    /// A reference to an earlier node's value: its name, or `name.1` for a further output.
    pub(super) fn value(&mut self, item: Item<'t>) -> Option<Value> {
        self.value_seen(item, false)
    }

    /// The same, seen from the end of the body of the node that is being read.
    pub(super) fn inner_value(&mut self, item: Item<'t>) -> Option<Value> {
        self.value_seen(item, true)
    }

    fn value_seen(&mut self, item: Item<'t>, inside: bool) -> Option<Value> {
        let text = self.text(item, "the name of a node", limits::TEXT_BYTES + 16)?;
        let (name, output) = match text.split_once('.') {
            None => (text, 0),
            Some((name, digits)) if digits.len() <= 6 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (
                    name,
                    digits
                        .parse()
                        .ok()
                        .or_else(|| self.fault("expected the number of an output after the `.`"))?,
                )
            }
            Some(_) => {
                return self.fault_with_hint(
                    format!("{} refers to no output", quote(text)),
                    "a further output is written `name.1`; a hook point is read by a `get` node",
                );
            }
        };
        let from = self.node.unwrap_or(NodeId(0));
        let reference = match inside {
            true => self.outline.reference_inside(name, from),
            false => self.outline.reference(name, from),
        };
        self.referred(name, reference).map(|node| Value { node, output })
    }

    /// The node that a name refers to.
    pub(super) fn referred(&mut self, name: &str, reference: Reference) -> Option<NodeId> {
        let quoted = quote(name);
        match reference {
            Reference::Value(node) => Some(node),
            Reference::Itself => self.fault(format!("{quoted} refers to itself")),
            Reference::Later(node) => {
                let place = self.outline.pointer(node);
                self.fault_with_hint(
                    format!("{quoted} stands later in the program"),
                    format!("a node refers to earlier ones only: move {place} before this one"),
                )
            }
            Reference::NoValue(_, op) => self.fault(format!("{quoted} is a `{op}`, which has no value")),
            Reference::OutOfScope(owner) => {
                let hint = match owner {
                    "steps" => "save it inside the body: a save there gives one result for each step",
                    "edit" => "an edit's values are its own: compute it again where it is needed",
                    "loop" => "carry it: the loop's own values are the carried ones in the end",
                    "cond" => {
                        "yield it in both branches: the condition's own values are those of the branch that ran"
                    }
                    _ => "yield it: the sweep's own values are its yields, stacked",
                };
                self.fault_with_hint(
                    format!("{quoted} is made inside a `{owner}` body, and cannot be seen outside it"),
                    hint,
                )
            }
            Reference::NotYetReduced => self.fault_with_hint(
                format!("{quoted} is known only after its sweep"),
                "read it behind the sweep, not inside it",
            ),
            Reference::Nothing => {
                let message = match is_name(name) {
                    true => format!("there is no node {quoted}"),
                    false => format!("{quoted} cannot be the name of a node"),
                };
                let from = self.node.unwrap_or(NodeId(0));
                let guess = did_you_mean(name, self.outline.names_before(from));
                let guess = guess.unwrap_or_else(|| known(self.outline.names_before(from)));
                self.fault_with_hint(message, guess)
            }
        }
    }

    /// A number type.
    pub(super) fn dtype(&mut self, item: Item<'t>) -> Option<DType> {
        let text = self.text(item, "a number type", limits::TEXT_BYTES)?;
        let names = DType::ALL.map(DType::name);
        DType::from_name(text).or_else(|| {
            let message = format!("there is no number type {}", quote(text));
            self.fault_with_hint(message, format!("number types are {}", names.join(", ")))
        })
    }
}
