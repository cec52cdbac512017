//! The reference of the operations, generated from their table.

use std::fmt::Write;

use crate::operation::{OperationKind, table};

/// The first operation of each section of the table, and the section's name.
const SECTIONS: &[(OperationKind, &str)] = &[
    (OperationKind::Add, "Arithmetic"),
    (OperationKind::Eq, "Comparison and logic"),
    (OperationKind::Neg, "Functions that keep the number type"),
    (OperationKind::Exp, "Functions that give floats"),
    (OperationKind::Relu, "Activations"),
    (OperationKind::Where, "Choosing"),
    (OperationKind::Sum, "Reductions and running sums"),
    (OperationKind::Softmax, "Normalisations"),
    (OperationKind::CrossEntropy, "Losses"),
    (OperationKind::Matmul, "Products"),
    (OperationKind::Qr, "Linear algebra"),
    (OperationKind::TopK, "Order"),
    (OperationKind::Gather, "Reading and writing at places"),
    (OperationKind::Reshape, "Shape"),
    (OperationKind::SgdStep, "Training"),
    (OperationKind::Zeros, "Constructors"),
    (OperationKind::Detach, "Number types and gradients"),
];

/// What each rule says of number types.
const NUMBER_TYPES: &[(&str, &str)] = &[
    ("arithmetic", "promoted"),
    ("true_division", "promoted; f32 where that is no float"),
    ("comparison", "bool"),
    ("predicate", "bool"),
    ("same_number", "the input's; not of bool"),
    ("same_type", "the input's"),
    ("clamp", "promoted with the bounds; not of bool"),
    ("transcendental", "the input's; f32 where that is no float"),
    ("float_only", "the input's; floats only"),
    ("choose", "promoted; `condition` is bool"),
    ("masked_fill", "the input's; `mask` is bool"),
    ("sum", "the input's; i64 of integers and bool"),
    ("mean", "the input's; floats only"),
    ("extremum", "the input's"),
    ("arg_extremum", "i64; not of bool"),
    ("truth", "bool; u8 of u8"),
    ("log_sum_exp", "the input's; f32 where that is no float"),
    ("cumulative", "the input's; i64 of integers and bool"),
    ("along", "the input's; floats only"),
    ("normalise", "the input's; floats only"),
    ("cosine_similarity", "promoted; floats only"),
    ("class_loss", "the input's; floats only; `target` is i64 or i32"),
    ("element_loss", "promoted; floats only"),
    ("matmul", "the one that both have; not of bool"),
    ("einsum", "the one that all have; not of bool"),
    ("outer", "promoted"),
    ("qr", "the input's; f32 and f64 only"),
    ("svd", "the input's; f32 and f64 only"),
    ("eigh", "the input's; f32 and f64 only"),
    ("square_matrix", "the input's; f32 and f64 only"),
    ("solve", "the one that both have; f32 and f64 only"),
    ("pinv", "the input's; f32 and f64 only"),
    ("determinant", "the input's; f32 and f64 only"),
    ("orthogonal", "the input's; f32 and f64 only"),
    ("top_k", "the input's, and i64; not of bool"),
    ("sort", "the input's, and i64"),
    ("arg_sort", "i64"),
    ("gather", "the input's; `index` is i64 or i32"),
    ("scatter", "the input's, and `src`'s; `index` is i64 or i32"),
    ("index_select", "the input's; `index` is i64 or i32"),
    ("take_along_dim", "the input's; `indices` are i64"),
    ("get_item", "the input's; index tensors are i64 or i32"),
    ("index_put", "the input's, to which `values` are cast; index tensors are i64, i32 or bool"),
    ("reshape", "the input's"),
    ("flatten", "the input's"),
    ("unflatten", "the input's"),
    ("transpose", "the input's"),
    ("permute", "the input's"),
    ("move_dim", "the input's"),
    ("squeeze", "the input's"),
    ("unsqueeze", "the input's"),
    ("expand", "the input's"),
    ("repeat", "the input's"),
    ("cat", "promoted"),
    ("stack", "promoted"),
    ("split", "the input's"),
    ("chunk", "the input's"),
    ("pad", "the input's"),
    ("along_many", "the input's"),
    ("roll", "the input's"),
    ("triangle", "the input's"),
    ("diagonal", "the input's"),
    ("sgd_step", "the one that all tensors have; floats only"),
    ("adam_step", "the one that all tensors have; floats only"),
    ("clip_grad_norm", "each gradient's; the norm's promoted"),
    ("filled", "`dtype`"),
    ("full", "`dtype`; none: bool, i64 or f32, as the number is"),
    ("arange", "`dtype`; none: i64 where all numbers are whole, else f32"),
    ("linspace", "`dtype`"),
    ("eye", "`dtype`"),
    ("one_hot", "i64, of i64"),
    ("randperm", "`dtype`"),
    ("to", "`dtype`"),
];

const INTRODUCTION: &str = "\
# The operations

Every operation of the language, generated from the one table in `crates/graph/src/operation.rs`. Names and semantics are
PyTorch's. A signature gives each parameter's kind: `tensor`, a value; `operand`, a value or a literal number; `tensors`, a
list of values; `number`, a literal; `integer`; `integers`, a list of whole numbers, or one; `sizes`, a shape, whose items may
be sizes of other values; `boolean`; `text`; `dtype`; `index`, as between the brackets of `x[...]`. A `?` marks what may be
left out, `=` what stands for it then.

Number types promote as in PyTorch (`torch.result_type`): literal numbers and tensors without dimensions are weak, they
count only by being truth values, integers or floats. A literal float beside integers gives f32.

A gradient has its operand's number type and shape, and PyTorch's conventions: equal extremes share it, a place that was read
several times sums what comes back. `detach` and what is marked `none` pass none on.

Decompositions leave signs free; here they are fixed: `R` of `qr` has no negative number on its diagonal; in a left singular
vector and in an eigenvector the element largest in magnitude (the first of equals) is positive.
";

/// The reference as Markdown: each operation's signature, what it gives, of which number type, and whether a gradient flows
/// through it.
pub fn reference_markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    for definition in table() {
        if let Some((_, name)) = SECTIONS.iter().find(|(first, _)| *first == definition.kind) {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n## {name}\n\n| operation | gives | number type | gradient |\n| --- | --- | --- | --- |\n"
            );
        }
        let number_type = number_type(definition.rule_name);
        let gradient = if definition.differentiable { "yes" } else { "none" };
        let _ = writeln!(
            text,
            "| `{}` | {} | {number_type} | {gradient} |",
            definition.signature, definition.summary
        );
    }
    text
}

fn number_type(rule: &str) -> &'static str {
    NUMBER_TYPES.iter().find(|(name, _)| *name == rule).map_or("", |(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_stands_under_a_section_and_has_words_for_its_number_type() {
        assert_eq!(SECTIONS[0].0, table()[0].kind);
        assert!(SECTIONS.windows(2).all(|pair| pair[0].0 < pair[1].0), "sections are in the table's order");
        for definition in table() {
            assert_ne!(number_type(definition.rule_name), "", "{}", definition.rule_name);
        }
        for (rule, _) in NUMBER_TYPES {
            assert!(
                table().iter().any(|definition| definition.rule_name == *rule),
                "no operation has the rule {rule}"
            );
        }
        let rows = reference_markdown().lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, table().len());
    }
}
