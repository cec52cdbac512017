//! Texts to token ids, where a program is admitted.

use pellucid_graph::fault::{Fault, Faults};
use pellucid_graph::{Invoke, Node, NodeKind, Parameter, Program, Prompts, limits};
use pellucid_models::Model;

/// Replaces every text of a program's invokes and parameters by its token ids. `models` gives the model that traces call
/// by a name, or the program's own.
pub(crate) fn tokenise<'m>(
    models: &dyn Fn(Option<&str>) -> &'m Model,
    mut program: Program,
) -> Result<Program, Faults> {
    let mut faults = Faults::default();
    let mut bytes_left = limits::TEXTS_BYTES;
    for node in &mut program.nodes {
        let Node { name, kind, source, .. } = node;
        let model = models(if let NodeKind::Trace(trace) = &*kind { trace.model.as_deref() } else { None });
        let mut fault = |fault: Box<Fault>| faults.push(fault.at_node(name.clone(), source.clone()));
        let invokes: &mut [Invoke] = match kind {
            NodeKind::Trace(trace) => &mut trace.invokes,
            NodeKind::Sweep(sweep) => &mut sweep.region.invokes,
            NodeKind::Loop(repeated) => &mut repeated.region.invokes,
            NodeKind::Parameter(parameter) => {
                let Parameter::Texts { cells, special_tokens } = parameter else { continue };
                let what = "the parameter";
                let encoded =
                    cells.iter().map(|texts| encode(model, texts, *special_tokens, what, &mut bytes_left));
                match encoded.collect() {
                    Ok(cells) => *parameter = Parameter::Tokens(cells),
                    Err(error) => fault(error),
                }
                continue;
            }
            _ => continue,
        };
        for invoke in invokes {
            let Prompts::Text { texts, special_tokens } = &invoke.prompts else { continue };
            let what = format!("invoke `{}`", invoke.name);
            match encode(model, texts, *special_tokens, &what, &mut bytes_left) {
                Ok(tokens) => invoke.prompts = Prompts::Tokens(tokens),
                Err(error) => fault(error),
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
    bytes_left: &mut usize,
) -> Result<Vec<Vec<u32>>, Box<Fault>> {
    let Some(tokenizer) = model.tokenizer() else {
        let message = format!("{what} is text, but `{}` came without a tokenizer", model.spec().name);
        let hint = "give token ids, or put tokenizer.json beside the weights";
        return Err(Box::new(Fault::new(message).with_hint(hint)));
    };
    // What cannot fit is not tokenised to find that out.
    for (number, bytes) in texts.iter().map(String::len).enumerate() {
        if let Some(positions) = model.spec().sizes.positions
            && tokenizer.is_beyond(bytes, positions)
        {
            let message = format!(
                "prompt {number} of {what} has {bytes} bytes, too many for the model's {positions} positions"
            );
            return Err(Box::new(Fault::new(message).with_hint("shorten the prompt")));
        }
        *bytes_left = bytes_left.checked_sub(bytes).ok_or_else(|| {
            let most = limits::TEXTS_BYTES;
            Fault::new(format!("the program has more than {most} bytes of text; {what} goes beyond"))
                .with_hint("give token ids, or put the prompts into several programs")
        })?;
    }
    let encoded = texts.iter().map(|text| tokenizer.encode(text, special_tokens));
    encoded.collect::<Result<_, _>>().map_err(|error| {
        let reason = match error {
            pellucid_models::Error::Tokenizer { reason, .. } => reason,
            other => other.to_string(),
        };
        let fault = Fault::new(format!("{what} cannot be tokenised: {reason}"));
        Box::new(fault.with_hint("the tokenizer's file may be damaged: fetch it again, or give token ids"))
    })
}
