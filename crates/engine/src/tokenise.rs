//! Texts to token ids, where a program is admitted.

use pellucid_graph::fault::{Fault, Faults};
use pellucid_graph::{Invoke, Node, NodeKind, Parameter, Program, Prompts};
use pellucid_models::Model;

/// Replaces every text of a program's invokes and parameters by its token ids. `models` gives the model that traces call
/// by a name, or the program's own.
pub(crate) fn tokenise<'m>(
    models: &dyn Fn(Option<&str>) -> &'m Model,
    mut program: Program,
) -> Result<Program, Faults> {
    let mut faults = Faults::default();
    for node in &mut program.nodes {
        let Node { name, kind, source, .. } = node;
        let model = models(if let NodeKind::Trace(trace) = &*kind { trace.model.as_deref() } else { None });
        let mut fault = |message: String, hint: Option<&str>| {
            let fault = Fault { hint: hint.map(str::to_owned), ..Fault::new(message) };
            faults.push(fault.at_node(name.clone(), source.clone()));
        };
        let invokes: &mut [Invoke] = match kind {
            NodeKind::Trace(trace) => &mut trace.invokes,
            NodeKind::Sweep(sweep) => &mut sweep.region.invokes,
            NodeKind::Loop(repeated) => &mut repeated.region.invokes,
            NodeKind::Parameter(parameter) => {
                let Parameter::Texts { cells, special_tokens } = parameter else { continue };
                let what = "the parameter";
                let encoded: Option<Vec<_>> = cells
                    .iter()
                    .map(|texts| encode(model, texts, *special_tokens, what, &mut fault))
                    .collect();
                if let Some(cells) = encoded {
                    *parameter = Parameter::Tokens(cells);
                }
                continue;
            }
            _ => continue,
        };
        for invoke in invokes {
            let Prompts::Text { texts, special_tokens } = &invoke.prompts else { continue };
            let what = format!("invoke `{}`", invoke.name);
            if let Some(tokens) = encode(model, texts, *special_tokens, &what, &mut fault) {
                invoke.prompts = Prompts::Tokens(tokens);
            }
        }
    }
    faults.or(program)
}

fn encode(
    model: &Model,
    texts: &[String],
    special_tokens: bool,
    what: &str,
    fault: &mut dyn FnMut(String, Option<&str>),
) -> Option<Vec<Vec<u32>>> {
    let Some(tokenizer) = model.tokenizer() else {
        let message = format!("{what} is text, but `{}` came without a tokenizer", model.spec().name);
        fault(message, Some("give token ids, or put tokenizer.json beside the weights"));
        return None;
    };
    let encoded: Result<Vec<Vec<u32>>, _> =
        texts.iter().map(|text| tokenizer.encode(text, special_tokens)).collect();
    encoded.map_err(|error| fault(format!("{what} cannot be tokenised: {error}"), None)).ok()
}
