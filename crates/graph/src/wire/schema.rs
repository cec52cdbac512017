//! The JSON Schema of programs, generated from the table of operations, the table of forms and the limits.
//!
//! What it refuses the reader refuses; the reader refuses more (references, a literal's size against its shape), because
//! a schema cannot say everything.

use serde_json::{Map, Value as Json, json};

use super::form::{COMMON, FORMS, Field, FieldKind, Form, Stands, parameter_field};
use super::read_argument::{INDEX_FIELDS, SIZE_FIELDS};
use super::read_program::{PROGRAM_FIELDS, SOURCE_FIELDS};
use super::read_region::{BRANCH_FIELDS, RANGE_FIELDS, ROWS_FIELDS, TEXTS_FIELDS, TOKEN_LISTS_FIELDS};
use super::read_trace::{AXIS_FIELDS, GENERATION_FIELDS, INVOKE_FIELDS};
use super::{VERSION, write};
use crate::dtype::DType;
use crate::limits;
use crate::operation::{self, Argument, OperationDefinition, Parameter, ParameterKind};
use crate::surface::Reduction;

/// A reference to a definition of the schema.
fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// The same, or null: for fields that may be left out.
fn or_null(schema: Json) -> Json {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn list(items: Json, most: usize) -> Json {
    json!({ "type": "array", "items": items, "maxItems": most })
}

fn text(most: usize) -> Json {
    json!({ "type": "string", "maxLength": most })
}

/// An object of just those fields.
fn object<const FIELDS: usize>(names: [&str; FIELDS], fields: [Json; FIELDS], required: &[&str]) -> Json {
    let properties: Map<String, Json> = names.into_iter().map(str::to_owned).zip(fields).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// The JSON Schema (draft 2020-12) of programs of this [`VERSION`].
pub fn schema() -> Json {
    let mut definitions = Map::new();
    for (name, definition) in shared() {
        definitions.insert(name.to_owned(), definition);
    }
    for form in FORMS {
        definitions.insert(format!("op_{}", form.op), node(form.op, form.summary, form_fields(form)));
    }
    for row in operation::table() {
        let summary = format!("{}: {}", row.signature, row.summary);
        definitions.insert(format!("op_{}", row.name), node(row.name, &summary, operation_fields(row)));
    }
    for (name, elsewhere) in [("trace_body", Stands::OutsideTraces), ("session_body", Stands::InTrace)] {
        let forms = FORMS.iter().filter(|form| form.stands != elsewhere).map(|form| form.op);
        let ops = forms.chain(operation::table().iter().map(|row| row.name));
        let ops: Vec<Json> = ops.map(|op| reference(&format!("op_{op}"))).collect();
        definitions.insert(name.into(), list(json!({ "oneOf": ops }), limits::NODES));
    }
    let either = json!({ "anyOf": [reference("trace_body"), reference("session_body")] });
    definitions.insert("body".into(), either);

    let mut schema = Map::new();
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("$id".into(), format!("urn:pellucid:program:{VERSION}").into());
    schema.insert("title".into(), "A Pellucid program: an experiment on one model".into());
    let program = object(
        PROGRAM_FIELDS,
        [
            or_null(text(limits::TEXT_BYTES)),
            json!({ "const": VERSION }),
            or_null(text(limits::TEXT_BYTES)),
            or_null(reference("natural")),
            reference("session_body"),
        ],
        &["pellucid", "body"],
    );
    if let Json::Object(program) = program {
        schema.extend(program);
    }
    schema.insert("$defs".into(), definitions.into());
    Json::Object(schema)
}

/// What the nodes' definitions refer to.
fn shared() -> Vec<(&'static str, Json)> {
    let int = |pattern: &str| {
        let digits = json!({ "type": "string", "pattern": pattern });
        object(["int"], [digits], &["int"])
    };
    let integer = int("^(0|-?[1-9][0-9]{0,18})$");
    let natural = int("^(0|[1-9][0-9]{0,19})$");
    let float = object(["float"], [json!({ "enum": ["nan", "inf", "-inf"] })], &["float"]);
    let slice = "^(-?[0-9]+)?:(-?[0-9]+)?(:(0*[1-9][0-9]*)?)?$";
    vec![
        ("name", json!({ "type": "string", "pattern": "^[A-Za-z0-9_]+$", "maxLength": limits::TEXT_BYTES })),
        (
            "value",
            json!({
                "description": "An earlier node's name; `name.1` is its second output.",
                "type": "string",
                "pattern": "^[A-Za-z0-9_]+(\\.[0-9]{1,6})?$"
            }),
        ),
        ("integer", json!({ "anyOf": [{ "type": "integer" }, integer] })),
        ("natural", json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, natural] })),
        ("number", json!({ "anyOf": [{ "type": ["number", "boolean"] }, float, integer] })),
        ("dtype", json!({ "enum": DType::ALL.map(DType::name) })),
        (
            "size",
            json!({ "anyOf": [
            reference("integer"),
            object(SIZE_FIELDS, [reference("value"), reference("integer")], &SIZE_FIELDS)
        ] }),
        ),
        (
            "index_item",
            json!({ "anyOf": [
            reference("integer"),
            { "type": "null", "description": "A new dimension of size 1." },
            { "const": "...", "description": "As many whole dimensions as are left." },
            { "type": "string", "pattern": slice, "description": "start:stop:step" },
            object(INDEX_FIELDS, [reference("value")], &INDEX_FIELDS)
        ] }),
        ),
        (
            "source",
            object(
                SOURCE_FIELDS,
                [
                    text(limits::TEXT_BYTES),
                    json!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": u32::MAX }, natural] }),
                    or_null(text(limits::SOURCE_BYTES)),
                ],
                &["file", "line"],
            ),
        ),
        (
            "tokens",
            list(
                json!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": u32::MAX }, natural] }),
                limits::PROMPT_TOKENS,
            ),
        ),
        ("invoke", invoke()),
        (
            "branch",
            object(
                BRANCH_FIELDS,
                [reference("body"), or_null(list(reference("value"), limits::LIST_ARGUMENTS))],
                &["body"],
            ),
        ),
        ("parameter", parameter()),
        (
            "generation",
            object(
                GENERATION_FIELDS,
                [
                    json!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": limits::STEPS }, natural] }),
                    or_null(reference("number")),
                    or_null(reference("natural")),
                    or_null(reference("number")),
                    or_null(reference("number")),
                    or_null(reference("tokens")),
                    or_null(list(text(limits::TEXT_BYTES), limits::LIST_ARGUMENTS)),
                ],
                &["max_new_tokens"],
            ),
        ),
    ]
}

fn invoke() -> Json {
    let prompt = text(limits::PROMPT_CHARACTERS);
    let mut invoke = object(
        INVOKE_FIELDS,
        [
            reference("name"),
            json!({ "anyOf": [prompt, object(AXIS_FIELDS, [reference("name")], &AXIS_FIELDS)] }),
            list(prompt, limits::PROMPTS),
            list(reference("tokens"), limits::PROMPTS),
            or_null(json!({ "type": "boolean", "default": true })),
            or_null(list(reference("name"), limits::EDITS)),
        ],
        &[],
    );
    invoke["oneOf"] = json!([
        { "required": ["prompt"] },
        { "required": ["prompts"] },
        { "required": ["tokens"], "properties": { "special_tokens": { "type": "null" } } }
    ]);
    invoke
}

/// The values of a parameter of a sweep or loop.
fn parameter() -> Json {
    let prompt = || text(limits::PROMPT_CHARACTERS);
    let texts = json!({ "anyOf": [prompt(), list(prompt(), limits::PROMPTS)] });
    let tokens = json!({ "anyOf": [reference("tokens"), list(reference("tokens"), limits::PROMPTS)] });
    let range = json!({ "type": "array", "items": reference("integer"), "minItems": 2, "maxItems": 3 });
    let number = json!({ "allOf": [reference("number"), { "not": { "type": "boolean" } }] });
    let special_tokens = or_null(json!({ "type": "boolean", "default": true }));
    json!({ "anyOf": [
        list(number, limits::CELLS),
        object(RANGE_FIELDS, [range], &RANGE_FIELDS),
        object(TEXTS_FIELDS, [list(texts, limits::CELLS), special_tokens], &["texts"]),
        object(TOKEN_LISTS_FIELDS, [list(tokens, limits::CELLS)], &TOKEN_LISTS_FIELDS),
        object(ROWS_FIELDS, [reference("value")], &ROWS_FIELDS)
    ] })
}

/// An object whose keys are names.
fn by_name(values: Json) -> Json {
    let names = "^[A-Za-z0-9_]+$";
    json!({ "type": "object", "patternProperties": { names: values }, "additionalProperties": false })
}

/// A node of that `op` with those fields beside the common ones: (name, schema, required).
fn node(op: &str, summary: &str, fields: Vec<(&'static str, Json, bool)>) -> Json {
    let mut properties = Map::new();
    let common = [json!({ "const": op }), reference("name"), or_null(reference("source"))];
    properties.extend(COMMON.into_iter().map(str::to_owned).zip(common));
    let mut required = vec!["op"];
    for (name, schema, is_required) in fields {
        properties.insert(name.to_owned(), schema);
        if is_required {
            required.push(name);
        }
    }
    json!({
        "description": summary,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false
    })
}

fn form_fields(form: &Form) -> Vec<(&'static str, Json, bool)> {
    let field = |field: &Field| {
        let kind = match (field.kind, form.stands) {
            // A trace and what stands in it have bodies of traces; a sweep or loop has what its own place has.
            (FieldKind::Body, Stands::InTrace | Stands::OutsideTraces) => reference("trace_body"),
            (field, _) => kind(field),
        };
        let mut schema = if field.required { kind } else { or_null(kind) };
        schema["description"] = field.summary.into();
        (field.name, schema, field.required)
    };
    form.fields.iter().map(field).collect()
}

fn operation_fields(row: &OperationDefinition) -> Vec<(&'static str, Json, bool)> {
    let field = |parameter: &Parameter| {
        let kind = kind(FieldKind::Parameter(parameter.kind));
        let schema = match &parameter.default {
            None => kind,
            Some(Argument::Absent) => or_null(kind),
            Some(default) => {
                let mut schema = kind;
                schema["default"] = write::default(default);
                schema
            }
        };
        (parameter_field(parameter.name), schema, parameter.default.is_none())
    };
    row.parameters.iter().map(field).collect()
}

fn kind(kind: FieldKind) -> Json {
    let one_or_many = |item: &str, most| json!({ "anyOf": [reference(item), list(reference(item), most)] });
    match kind {
        FieldKind::Body => reference("body"),
        FieldKind::Over => {
            let mut axis = by_name(reference("parameter"));
            axis["minProperties"] = 1.into();
            let mut axes = list(axis, limits::AXES);
            axes["minItems"] = 1.into();
            axes
        }
        FieldKind::Carry | FieldKind::Next => by_name(reference("value")),
        FieldKind::Yields => list(reference("value"), limits::LIST_ARGUMENTS),
        FieldKind::Branch => reference("branch"),
        FieldKind::Edits => list(reference("name"), limits::EDITS),
        FieldKind::Name => reference("name"),
        FieldKind::Reduction => json!({ "enum": Reduction::ALL.map(Reduction::name) }),
        FieldKind::Texts => list(text(limits::TEXT_BYTES), limits::LIST_ARGUMENTS),
        FieldKind::Invokes => list(reference("invoke"), limits::INVOKES),
        FieldKind::Generation => reference("generation"),
        FieldKind::InvokeName => text(limits::TEXT_BYTES),
        FieldKind::Backward => reference("name"),
        FieldKind::Natural => reference("natural"),
        FieldKind::Positive => {
            json!({ "allOf": [reference("natural"), { "not": { "enum": [0, { "int": "0" }] } }] })
        }
        FieldKind::Shape => list(reference("natural"), limits::DIMENSIONS),
        FieldKind::Elements => list(reference("number"), limits::LITERAL_ELEMENTS),
        FieldKind::Parameter(kind) => match kind {
            ParameterKind::Tensor => reference("value"),
            ParameterKind::Operand => json!({ "anyOf": [reference("value"), reference("number")] }),
            ParameterKind::Tensors => list(reference("value"), limits::LIST_ARGUMENTS),
            ParameterKind::Number => reference("number"),
            ParameterKind::Integer => reference("integer"),
            ParameterKind::Integers => one_or_many("integer", limits::LIST_ARGUMENTS),
            ParameterKind::Sizes => list(reference("size"), limits::DIMENSIONS),
            ParameterKind::Boolean => json!({ "type": "boolean" }),
            ParameterKind::Text => text(limits::TEXT_BYTES),
            ParameterKind::DType => reference("dtype"),
            ParameterKind::Index => one_or_many("index_item", limits::INDEX_ITEMS),
        },
    }
}
