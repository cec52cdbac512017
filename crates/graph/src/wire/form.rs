//! The forms that a node takes on the wire: one table, which the reader checks fields against and the schema is
//! generated from. Operations have theirs in [`crate::operation::table`].

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::limits;
use crate::operation::{self, OperationKind, ParameterKind};

/// Fields that every node may have beside those of its form.
pub(super) const COMMON: [&str; 3] = ["op", "name", "source"];

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldKind {
    /// An argument of an operation, or what has the same form.
    Parameter(ParameterKind),
    /// The nodes of a body.
    Body,
    /// A trace's invokes.
    Invokes,
    /// How a trace generates.
    Generation,
    /// The name of one of the trace's invokes.
    InvokeName,
    /// The name of an earlier `backward`.
    Backward,
    /// A whole number, 0 or more.
    Natural,
    /// A whole number, 1 or more.
    Positive,
    /// A shape of known sizes.
    Shape,
    /// The elements of a literal.
    Elements,
}

/// One field of a form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: FieldKind,
    pub(super) required: bool,
    pub(super) summary: &'static str,
}

/// One form.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) op: &'static str,
    /// Whether other nodes can refer to a value of it.
    pub(super) has_value: bool,
    pub(super) fields: &'static [Field],
    pub(super) summary: &'static str,
}

const fn required(name: &'static str, kind: FieldKind, summary: &'static str) -> Field {
    Field { name, kind, required: true, summary }
}

const fn optional(name: &'static str, kind: FieldKind, summary: &'static str) -> Field {
    Field { name, kind, required: false, summary }
}

const TENSOR: FieldKind = FieldKind::Parameter(ParameterKind::Tensor);
const TEXT: FieldKind = FieldKind::Parameter(ParameterKind::Text);
const DTYPE: FieldKind = FieldKind::Parameter(ParameterKind::DType);
const INVOKE: Field =
    optional("invoke", FieldKind::InvokeName, "Whose; may be left out where the trace has one invoke.");
const HOOK: Field = required("hook", TEXT, "The hook point: `<module path>.<name>`, or an alias.");
const BACKWARD: Field = required("backward", FieldKind::Backward, "The `backward` that computes it.");
const GRADIENT_OF: Field = optional("of", TENSOR, "The value that it is the gradient of; or a `hook`.");
const GRADIENT_HOOK: Field =
    optional("hook", TEXT, "The hook point that it is the gradient of, after all setters; or a value `of`.");
const STEP: Field =
    optional("step", FieldKind::Natural, "The step of a generation; left out: step 0, or the body's own.");

/// Every form that is not an operation of the table.
pub(super) const FORMS: &[Form] = &[
    Form {
        op: "trace",
        has_value: false,
        summary: "One or more invokes and one graph over them, run on the model.",
        fields: &[
            required("invokes", FieldKind::Invokes, "The inputs."),
            optional("generate", FieldKind::Generation, "How to generate; left out: one forward pass."),
            required("body", FieldKind::Body, "The graph, in program order."),
        ],
    },
    Form {
        op: "get",
        has_value: true,
        summary: "Reads a hook point's value.",
        fields: &[INVOKE, HOOK, STEP],
    },
    Form {
        op: "set",
        has_value: false,
        summary: "Replaces a hook point's value.",
        fields: &[INVOKE, HOOK, STEP, required("value", TENSOR, "The new value.")],
    },
    Form {
        op: "apply",
        has_value: true,
        summary: "Applies a module of the model to a value; fires no hook point.",
        fields: &[
            required("module", TEXT, "The module's path or alias."),
            required("input", TENSOR, "What it is applied to."),
        ],
    },
    Form {
        op: "literal",
        has_value: true,
        summary: "A small tensor written in the program.",
        fields: &[
            required("dtype", DTYPE, "Its number type."),
            required("shape", FieldKind::Shape, "Its shape."),
            required("elements", FieldKind::Elements, "Its elements, row-major."),
        ],
    },
    Form {
        op: "constant",
        has_value: true,
        summary: "A tensor that travels beside the program, in the safetensors file that holds it.",
        fields: &[required("key", TEXT, "Its name in the file.")],
    },
    Form {
        op: "tokens",
        has_value: true,
        summary: "The invoke's token ids: [prompts, length], i64, left-padded with 0.",
        fields: &[INVOKE],
    },
    Form {
        op: "lengths",
        has_value: true,
        summary: "The number of tokens of each prompt of the invoke: [prompts], i64.",
        fields: &[INVOKE],
    },
    Form {
        op: "mask",
        has_value: true,
        summary: "Which cells of the invoke's rectangle are real: [prompts, length], bool.",
        fields: &[INVOKE],
    },
    Form {
        op: "generated",
        has_value: true,
        summary: "The tokens that a generation made for the invoke: [prompts, new tokens], i64; -1 after a prompt stopped.",
        fields: &[INVOKE],
    },
    Form {
        op: "steps",
        has_value: false,
        summary: "Steps of a generation: the body runs once at each chosen step.",
        fields: &[
            optional("from", FieldKind::Natural, "The first step; left out: 0."),
            optional(
                "to",
                FieldKind::Natural,
                "The step before which it ends; left out: the generation's last.",
            ),
            optional("every", FieldKind::Positive, "The distance from one step to the next; left out: 1."),
            required("body", FieldKind::Body, "The nodes that run at each step."),
        ],
    },
    Form {
        op: "save",
        has_value: false,
        summary: "Returns a value, under this node's name.",
        fields: &[required("value", TENSOR, "What is returned.")],
    },
    Form {
        // `log` is the logarithm.
        op: "print",
        has_value: false,
        summary: "Streams a small value to the caller while the program runs.",
        fields: &[required("value", TENSOR, "What is streamed.")],
    },
    Form {
        op: "backward",
        has_value: false,
        summary: "Goes back from a value to what it was computed from, for `grad` and `set_grad`.",
        fields: &[
            required("of", TENSOR, "The value: a float of one element, or any float with a `cotangent`."),
            optional("cotangent", TENSOR, "What is sent back in place of 1, of the value's shape."),
        ],
    },
    Form {
        op: "grad",
        has_value: true,
        summary: "Reads the gradient of a value or of a hook point.",
        fields: &[BACKWARD, GRADIENT_OF, INVOKE, GRADIENT_HOOK],
    },
    Form {
        op: "set_grad",
        has_value: false,
        summary: "Replaces the gradient of a value or of a hook point on the way back.",
        fields: &[
            BACKWARD,
            GRADIENT_OF,
            INVOKE,
            GRADIENT_HOOK,
            required("value", TENSOR, "The new gradient."),
        ],
    },
];

/// What an `op` names.
#[derive(Clone, Copy)]
pub(super) enum Op {
    Form(&'static Form),
    Operation(OperationKind),
}

impl Op {
    pub(super) fn has_value(self) -> bool {
        match self {
            Op::Form(form) => form.has_value,
            Op::Operation(_) => true,
        }
    }

    /// Whether a node of it owns a body.
    pub(super) fn owns_body(self) -> bool {
        match self {
            Op::Form(form) => form.fields.iter().any(|field| field.kind == FieldKind::Body),
            Op::Operation(_) => false,
        }
    }
}

static OPS: LazyLock<HashMap<&'static str, Op>> = LazyLock::new(|| {
    let forms = FORMS.iter().map(|form| (form.op, Op::Form(form)));
    forms.chain(operation::table().iter().map(|row| (row.name, Op::Operation(row.kind)))).collect()
});

/// What that `op` names, if anything.
pub(super) fn op(name: &str) -> Option<Op> {
    OPS.get(name).copied()
}

/// Every `op`.
pub(super) fn ops() -> impl Iterator<Item = &'static str> {
    FORMS.iter().map(|form| form.op).chain(operation::table().iter().map(|row| row.name))
}

/// The field in which an operation's parameter travels: its own name; with a `_` behind it where the name is one of
/// the [`COMMON`] fields, as in `movedim`'s `source_`.
pub(super) fn parameter_field(name: &'static str) -> &'static str {
    match name {
        "source" => "source_",
        name => name,
    }
}

/// Whether it can be a name: ASCII letters, digits and `_`, at least one, at most [`limits::TEXT_BYTES`].
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= limits::TEXT_BYTES
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_and_every_field_has_one_meaning() {
        let names: Vec<_> = ops().collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
        for row in operation::table() {
            for parameter in &row.parameters {
                assert!(
                    !COMMON.contains(&parameter_field(parameter.name)),
                    "{}.{}",
                    row.name,
                    parameter.name
                );
            }
        }
    }
}
