//! What to do about a fault of which nothing more particular is known: how what is at fault is written.

use super::form::{self, FieldKind, Op};
use super::read_trace::GENERATION_FIELDS;
use crate::fault::Faults;

/// Of a text that is no program.
pub(super) const PROGRAM: &str = r#"a program is `{"pellucid": 1, "body": [ … ]}`; docs/language.md describes it, docs/program.schema.json is its schema"#;
/// Of a file that holds no program.
pub(super) const FILE: &str = "a program's file is its JSON; or, where it carries constants, a safetensors file as the libraries write it: the JSON in its metadata, the constants its tensors, end to end";
/// Of an invoke.
const INVOKES: &str = r#"an invoke is {"prompt": "…"}, {"prompts": ["…", "…"]} or {"tokens": [[1, 2, 3]]}, with a `name` of its own where there are several"#;
/// Of an `op` that is none.
pub(super) const OPERATIONS: &str =
    "docs/operations.md lists the operations, docs/language.md the other nodes";

/// How a node of that `op` is written, or what one of its fields holds.
pub(crate) fn of_node(op: &str, field: Option<&str>) -> Option<String> {
    form::op(op).map(|op| of(op, field))
}

/// The same.
pub(super) fn of(op: Op, field: Option<&str>) -> String {
    let form = match op {
        Op::Operation(kind) => {
            let definition = kind.definition();
            return format!("`{}`: {}; see docs/operations.md", definition.signature, definition.summary);
        }
        Op::Form(form) => form,
    };
    let field = field.and_then(|field| form.fields.iter().find(|known| known.name == field));
    if let Some(field) = field {
        return match field.kind {
            FieldKind::Invokes => INVOKES.to_owned(),
            FieldKind::Generation => format!("`generate` may have: {}", GENERATION_FIELDS.join(", ")),
            _ => format!("`{}` of `{}` is: {}", field.name, form.op, field.summary),
        };
    }
    let listed = |required: bool| {
        let fields = form.fields.iter().filter(|field| field.required == required);
        fields.map(|field| format!("`{}`", field.name)).collect::<Vec<_>>().join(", ")
    };
    match (listed(true).as_str(), listed(false).as_str()) {
        ("", "") => format!("`{}` has no fields of its own; see docs/language.md", form.op),
        (needed, "") => format!("`{}` takes {needed}; see docs/language.md", form.op),
        ("", others) => format!("`{}` may have {others}; see docs/language.md", form.op),
        (needed, others) => {
            format!("`{}` takes {needed}, and may have {others}; see docs/language.md", form.op)
        }
    }
}

/// The faults, those without a hint with this one.
pub(super) fn or_hint(mut faults: Faults, hint: &str) -> Faults {
    for fault in faults.0.iter_mut().filter(|fault| fault.hint.is_none()) {
        fault.hint = Some(hint.to_owned());
    }
    faults
}
