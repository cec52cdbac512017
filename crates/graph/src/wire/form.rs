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
    /// The axes of a sweep or loop.
    Over,
    /// What a loop carries: a value for each name.
    Carry,
    /// What each carried value is next: a value of the body for each name.
    Next,
    /// Values of the body.
    Yields,
    /// A branch of a condition.
    Branch,
    /// Names of edits.
    Edits,
    /// What an invoke is called.
    Name,
    /// How values of cells become one.
    Reduction,
    /// Texts: patterns of hook points.
    Texts,
}

/// Where a node may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// In a trace, or in a body inside one.
    InTrace,
    /// In the program's own body, or in a body outside traces.
    OutsideTraces,
    /// In either.
    Anywhere,
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
    pub(super) stands: Stands,
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

const BOOLEAN: FieldKind = FieldKind::Parameter(ParameterKind::Boolean);
const TENSOR: FieldKind = FieldKind::Parameter(ParameterKind::Tensor);
const TEXT: FieldKind = FieldKind::Parameter(ParameterKind::Text);
const DTYPE: FieldKind = FieldKind::Parameter(ParameterKind::DType);
const INVOKE: Field =
    optional("invoke", FieldKind::InvokeName, "Whose; may be left out where the trace has one invoke.");
const HOOK: Field = required("hook", TEXT, "The hook point: `<module path>.<name>`, or an alias.");
const EXCEPT: Field = optional("except", FieldKind::Texts, "With a pattern: hook points that are left out.");
const EACH: Field =
    optional("each", BOOLEAN, "With a pattern: the k-th row of the value is for the k-th hook point.");
const OVER: &str =
    "The axes: objects of one or more parameters of equal length, which go along an axis together.";
const REGION_INVOKES: Field =
    optional("invokes", FieldKind::Invokes, "Inside a trace: inputs that each cell has for itself.");
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
        stands: Stands::OutsideTraces,
        has_value: false,
        summary: "One or more invokes and one graph over them, run on the model.",
        fields: &[
            optional(
                "model",
                TEXT,
                "The model that it runs on, by the name that the engine knows it by; left out: the program's own.",
            ),
            optional("edits", FieldKind::Edits, "Edits of all its invokes, in order."),
            required("invokes", FieldKind::Invokes, "The inputs."),
            optional("generate", FieldKind::Generation, "How to generate; left out: one forward pass."),
            required("body", FieldKind::Body, "The graph, in program order."),
        ],
    },
    Form {
        op: "get",
        stands: Stands::InTrace,
        has_value: true,
        summary: "Reads a hook point's value, or those of all that match a pattern, stacked.",
        fields: &[INVOKE, HOOK, STEP, EXCEPT],
    },
    Form {
        op: "set",
        stands: Stands::InTrace,
        has_value: false,
        summary: "Replaces a hook point's value, or those of all that match a pattern.",
        fields: &[INVOKE, HOOK, STEP, EXCEPT, required("value", TENSOR, "The new value."), EACH],
    },
    Form {
        op: "apply",
        stands: Stands::Anywhere,
        has_value: true,
        summary: "Applies a module of the model to a value; fires no hook point.",
        fields: &[
            required("module", TEXT, "The module's path or alias."),
            required("input", TENSOR, "What it is applied to."),
        ],
    },
    Form {
        op: "literal",
        stands: Stands::Anywhere,
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
        stands: Stands::Anywhere,
        has_value: true,
        summary: "A tensor that travels beside the program, in the safetensors file that holds it.",
        fields: &[required("key", TEXT, "Its name in the file.")],
    },
    Form {
        op: "tokens",
        stands: Stands::InTrace,
        has_value: true,
        summary: "The invoke's token ids: [prompts, length], i64, left-padded with 0.",
        fields: &[INVOKE],
    },
    Form {
        op: "lengths",
        stands: Stands::InTrace,
        has_value: true,
        summary: "The number of tokens of each prompt of the invoke: [prompts], i64.",
        fields: &[INVOKE],
    },
    Form {
        op: "mask",
        stands: Stands::InTrace,
        has_value: true,
        summary: "Which cells of the invoke's rectangle are real: [prompts, length], bool.",
        fields: &[INVOKE],
    },
    Form {
        op: "generated",
        stands: Stands::InTrace,
        has_value: true,
        summary: "The tokens that a generation made for the invoke: [prompts, max_new_tokens], i64; -1 after a prompt stopped.",
        fields: &[INVOKE],
    },
    Form {
        op: "steps",
        stands: Stands::InTrace,
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
        op: "sweep",
        stands: Stands::Anywhere,
        has_value: true,
        summary: "One body over a grid of parameters; its values are the yields, stacked in the grid's shape.",
        fields: &[
            required("over", FieldKind::Over, OVER),
            REGION_INVOKES,
            required("body", FieldKind::Body, "The nodes of each cell."),
            optional("yields", FieldKind::Yields, "Values of the body."),
        ],
    },
    Form {
        op: "loop",
        stands: Stands::Anywhere,
        has_value: true,
        summary: "One body again and again, in sequence; its values are the carried ones in the end.",
        fields: &[
            optional("over", FieldKind::Over, OVER),
            optional("count", FieldKind::Natural, "In place of `over`: how often, with the parameter `i`."),
            optional(
                "from",
                FieldKind::Natural,
                "The iteration at which it begins: those before it are left out; left out: 0.",
            ),
            REGION_INVOKES,
            optional("carry", FieldKind::Carry, "What each carried value begins as."),
            required("body", FieldKind::Body, "The nodes of each iteration."),
            optional("next", FieldKind::Next, "What each carried value is in the next iteration."),
        ],
    },
    Form {
        op: "cond",
        stands: Stands::Anywhere,
        has_value: true,
        summary: "Two branches, of which one runs; its values are the yields of that branch.",
        fields: &[
            required("condition", TENSOR, "A bool without dimensions."),
            required("then", FieldKind::Branch, "What runs where it holds."),
            optional("else", FieldKind::Branch, "What runs where it does not; left out: nothing."),
        ],
    },
    Form {
        op: "edit",
        stands: Stands::OutsideTraces,
        has_value: false,
        summary: "A stack of edits of one invoke, which later traces and their invokes use by its name.",
        fields: &[
            optional("invoke", FieldKind::Name, "How its nodes call the invoke; left out: they need not."),
            optional("edits", FieldKind::Edits, "Edits that come before its own."),
            required("body", FieldKind::Body, "Its nodes, in program order."),
        ],
    },
    Form {
        op: "reduce",
        stands: Stands::Anywhere,
        has_value: true,
        summary: "One value made of all cells of the sweep that it stands in, known after it.",
        fields: &[
            required("reduction", FieldKind::Reduction, "How."),
            required("value", TENSOR, "The value of each cell."),
            optional(
                "dim",
                FieldKind::Parameter(ParameterKind::Integers),
                "Dimensions of it that count as samples too.",
            ),
            optional(
                "correction",
                FieldKind::Parameter(ParameterKind::Number),
                "Of `var` and `covariance`: what is taken off the number of samples; left out: 1.",
            ),
            optional("k", FieldKind::Positive, "Of `topk`: how many."),
            optional("largest", BOOLEAN, "Of `topk`: whether the largest; left out: true."),
        ],
    },
    Form {
        op: "cache",
        stands: Stands::InTrace,
        has_value: false,
        summary: "Saves every hook point that matches a pattern, each as `name/path`.",
        fields: &[INVOKE, optional("pattern", TEXT, "Which hook points; left out: all."), EXCEPT, STEP],
    },
    Form {
        op: "stop",
        stands: Stands::InTrace,
        has_value: false,
        summary: "Inside `steps`: ends the generation of the prompts for which a bool holds, after this step's token.",
        fields: &[INVOKE, required("when", TENSOR, "A bool, without dimensions or [prompts].")],
    },
    Form {
        op: "skip",
        stands: Stands::InTrace,
        has_value: false,
        summary: "Gives a module's output without running the module.",
        fields: &[
            INVOKE,
            required("module", TEXT, "The module's path or alias."),
            STEP,
            required("value", TENSOR, "The output."),
        ],
    },
    Form {
        op: "weight",
        stands: Stands::Anywhere,
        has_value: true,
        summary: "A parameter of the model as it was loaded, f32 in the checkpoint's layout, or a part of it.",
        fields: &[
            required("parameter", TEXT, "Its name in transformers, or by an alias of its module."),
            optional("index", FieldKind::Parameter(ParameterKind::Index), "Which part; left out: all of it."),
        ],
    },
    Form {
        op: "set_weight",
        stands: Stands::InTrace,
        has_value: false,
        summary: "Runs an invoke with another parameter: all of its steps, and no other invoke.",
        fields: &[
            INVOKE,
            required("parameter", TEXT, "Its name in transformers, or by an alias of its module."),
            required("value", TENSOR, "The parameter, of the same shape."),
        ],
    },
    Form {
        op: "save",
        stands: Stands::Anywhere,
        has_value: false,
        summary: "Returns a value, under this node's name.",
        fields: &[required("value", TENSOR, "What is returned.")],
    },
    Form {
        // `log` is the logarithm.
        op: "print",
        stands: Stands::Anywhere,
        has_value: false,
        summary: "Streams a small value to the caller while the program runs.",
        fields: &[required("value", TENSOR, "What is streamed.")],
    },
    Form {
        op: "backward",
        stands: Stands::InTrace,
        has_value: false,
        summary: "Goes back from a value to what it was computed from, for `grad` and `set_grad`.",
        fields: &[
            required("of", TENSOR, "The value: a float of one element, or any float with a `cotangent`."),
            optional("cotangent", TENSOR, "What is sent back in place of 1, of the value's shape."),
        ],
    },
    Form {
        op: "grad",
        stands: Stands::InTrace,
        has_value: true,
        summary: "Reads the gradient of a value or of a hook point, or those of all hook points that match a pattern, stacked.",
        fields: &[BACKWARD, GRADIENT_OF, INVOKE, GRADIENT_HOOK, EXCEPT],
    },
    Form {
        op: "set_grad",
        stands: Stands::InTrace,
        has_value: false,
        summary: "Replaces the gradient of a value or of a hook point on the way back, or those of all hook points that match a pattern.",
        fields: &[
            BACKWARD,
            GRADIENT_OF,
            INVOKE,
            GRADIENT_HOOK,
            EXCEPT,
            required("value", TENSOR, "The new gradient."),
            EACH,
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

    /// Where a node of it may stand.
    pub(super) fn stands(self) -> Stands {
        match self {
            Op::Form(form) => form.stands,
            Op::Operation(_) => Stands::Anywhere,
        }
    }

    /// Whether it is the form of that name.
    pub(super) fn is(self, name: &str) -> bool {
        matches!(self, Op::Form(form) if form.op == name)
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
