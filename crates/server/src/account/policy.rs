//! What one program may do, and how much.

use pellucid_client::api::{Fault, Limits, Price, Problem, ProblemKind, Source};
use pellucid_graph::NodeKind;
use pellucid_graph::check::CheckedProgram;

use super::exceeded;

/// Whether an account may run a program on a model. `strict`: those who may not read its weights may not apply its
/// modules either, because what modules make of chosen values tells their weights.
///
/// # Errors
/// 403 with the node that does what the account may not, or 413 with the limit that the program exceeds.
pub fn allows(
    limits: &Limits,
    strict: bool,
    program: &CheckedProgram,
    price: &Price,
) -> Result<(), Box<Problem>> {
    permits(limits, strict, program)?;
    let sizes = [
        ("job_milliseconds", limits.job_milliseconds, price.milliseconds, "ms"),
        ("peak_bytes", limits.peak_bytes.map(|bytes| bytes as f64), price.peak_bytes as f64, "bytes"),
        ("result_bytes", limits.result_bytes.map(|bytes| bytes as f64), price.result_bytes as f64, "bytes"),
    ];
    for (name, allowed, used, unit) in sizes {
        if let Some(allowed) = allowed
            && used > allowed
        {
            return Err(Box::new(exceeded(ProblemKind::TooLarge, name, allowed, used, unit)));
        }
    }
    Ok(())
}

fn permits(limits: &Limits, strict: bool, program: &CheckedProgram) -> Result<(), Box<Problem>> {
    for node in &program.program.nodes {
        let missing = match &node.kind {
            NodeKind::Weight { .. } if !limits.weights_readable => {
                Some(("weights_readable", "this account may not read weights"))
            }
            NodeKind::Apply { .. } if strict && !limits.weights_readable => Some((
                "weights_readable",
                "this account may not read the model's weights, and so may not apply its modules to values of its own either",
            )),
            NodeKind::Trace(trace) if trace.generation.is_some() && !limits.generation => {
                Some(("generation", "this account may not generate"))
            }
            NodeKind::Backward { .. } if !limits.training => {
                Some(("training", "this account may not go back: no gradients, no training"))
            }
            NodeKind::SetWeight { .. } if !limits.edits => {
                Some(("edits", "this account may not run a model with other weights"))
            }
            _ => None,
        };
        if let Some((limit, message)) = missing {
            let mut problem = Problem::new(
                ProblemKind::Forbidden,
                format!("The account's limit `{limit}` does not allow it."),
            );
            problem.faults.push(Fault {
                node: Some(node.label().to_owned()),
                place: None,
                source: node.source.as_ref().map(|source| Source {
                    file: source.file.clone(),
                    line: source.line,
                    text: source.text.clone(),
                }),
                message: message.to_owned(),
                hint: Some("ask whoever runs the service".to_owned()),
            });
            return Err(Box::new(problem));
        }
    }
    Ok(())
}

/// Whether an account may use a model.
pub fn allows_model(limits: &Limits, id: &str) -> bool {
    limits.models.as_ref().is_none_or(|models| models.iter().any(|model| model == id))
}
