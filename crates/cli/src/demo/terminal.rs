//! The picture for a terminal.

use std::io::Write;

use pellucid::picture::Paint;

use super::experiment::Findings;
use crate::failure::Failure;
use crate::text;

/// Columns of the explanation.
const EXPLANATION: usize = 100;

/// Draws the heat map: a line for each position, a column for each layer.
pub(crate) fn draw(findings: &Findings, paint: Paint, out: &mut dyn Write) -> Result<(), Failure> {
    let (answer, wrong) = (findings.answers.0.trim(), findings.answers.1.trim());
    writeln!(out, "Activation patching on {}: where does it keep who gets the drink?\n", findings.model)?;
    for (name, prompt) in [("clean    ", &findings.clean), ("corrupted", &findings.corrupted)] {
        let says = if prompt.difference > 0.0 { answer } else { wrong };
        writeln!(
            out,
            "  {name}  {} → {says}  (logit {answer} − {wrong}: {:+.1})",
            prompt.text, prompt.difference
        )?;
    }
    writeln!(
        out,
        "\nOne place of the clean run's residual stream is put into the corrupted run; a cell shows how much of\n\
         the answer {answer} comes back: 0 none, 1 all.\n"
    )?;
    let map = findings.heat_map("", "entering", "layer")?;
    out.write_all(map.drawn(paint).as_bytes())?;
    writeln!(out, "\n{}", text::wrap(&explanation(findings), EXPLANATION))?;
    Ok(())
}

/// What is to be seen, in words.
pub(crate) fn explanation(findings: &Findings) -> String {
    let at = |layer: usize, position: usize| clean_zero(findings.restored[layer][position]);
    let (subject, last) = (findings.differs_at, findings.clean.tokens.len() - 1);
    let last_layer = findings.layers() - 1;
    let over = (0..findings.layers()).find(|&layer| at(layer, last) > at(layer, subject));
    let moved = over.map_or_else(
        || "It stays there up to the last layer.".to_owned(),
        |layer| {
            format!(
                "Entering layer {layer} it is the other way round ({:.2} and {:.2}): attention, the only part that carries \
                 anything from one position to another, has moved it to where the model speaks.",
                at(layer, subject),
                at(layer, last)
            )
        },
    );
    let kept = match over {
        Some(layer) if layer < last_layer => format!(
            " Entering layer {last_layer}: {:.2} and {:.2}.",
            at(last_layer, subject),
            at(last_layer, last)
        ),
        _ => String::new(),
    };
    let others = findings.restored.iter().flat_map(|row| row.iter().enumerate());
    let most =
        others.filter(|&(position, _)| position != subject && position != last).map(|(_, share)| share.abs());
    format!(
        "The prompts differ only in the name at position {subject}. Entering layer 0, that position brings back {:.2} of the \
         answer and the last position {:.2}. {moved}{kept} No other position ever brings back more than {:.2}.",
        at(0, subject),
        at(0, last),
        most.fold(0.0, f32::max)
    )
}

/// Without the sign of "-0.00".
fn clean_zero(value: f32) -> f32 {
    if value.abs() < 0.005 { 0.0 } else { value }
}
