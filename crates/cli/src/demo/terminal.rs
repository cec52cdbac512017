//! The picture for a terminal.

use std::io::{self, IsTerminal, Write};

use super::experiment::Findings;
use crate::text;

/// How cells are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// 24-bit colours behind the numbers.
    Colour,
    /// Shades made of characters beside the numbers.
    Characters,
}

impl Paint {
    /// Colours where standard output is a terminal and nobody asked for none.
    pub(crate) fn for_stdout() -> Paint {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if io::stdout().is_terminal() && !unwanted && !dumb { Paint::Colour } else { Paint::Characters }
    }
}

/// Columns of the explanation.
const EXPLANATION: usize = 100;

/// Columns of a cell.
const CELL: usize = 7;

/// Draws the heat map: a line for each position, a column for each layer.
pub(crate) fn draw(findings: &Findings, paint: Paint, out: &mut dyn Write) -> io::Result<()> {
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
    let width = findings
        .clean
        .tokens
        .iter()
        .map(|token| text::token(token).chars().count())
        .max()
        .unwrap_or(0)
        .max(8);
    writeln!(
        out,
        "\nOne place of the clean run's residual stream is put into the corrupted run; a cell shows how much of\n\
         the answer {answer} comes back: 0 none, 1 all.\n"
    )?;
    write!(out, "  {}", text::fit("entering", width + 2))?;
    for layer in 0..findings.layers() {
        write!(out, " {:>CELL$}", format!("layer {layer}"))?;
    }
    writeln!(out)?;
    for (position, token) in findings.clean.tokens.iter().enumerate() {
        let mark = if position == findings.differs_at { "→ " } else { "  " };
        write!(out, "{mark}{}", text::fit(&text::token(token), width + 2))?;
        for row in &findings.restored {
            write!(out, " {}", cell(row[position], paint))?;
        }
        writeln!(out, "{}", note(findings, position))?;
    }
    writeln!(out, "\n{}", text::wrap(&explanation(findings), EXPLANATION))
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

fn note(findings: &Findings, position: usize) -> &'static str {
    if position == findings.differs_at {
        "  the word that differs"
    } else if position + 1 == findings.clean.tokens.len() {
        "  where the model speaks"
    } else {
        ""
    }
}

/// One cell, [`CELL`] columns wide.
fn cell(value: f32, paint: Paint) -> String {
    let number = format!("{:.2}", clean_zero(value));
    match paint {
        Paint::Colour => {
            let (red, green, blue) = colour(value);
            let ink = if value.abs() > 0.55 { "30" } else { "97" };
            format!("\x1b[48;2;{red};{green};{blue}m\x1b[{ink}m{number:^CELL$}\x1b[0m")
        }
        Paint::Characters => {
            let shade = match value {
                v if v < -0.1 => '-',
                v if v < 0.1 => ' ',
                v if v < 0.35 => '░',
                v if v < 0.6 => '▒',
                v if v < 0.85 => '▓',
                _ => '█',
            };
            format!("{shade} {number:>width$}", width = CELL - 2)
        }
    }
}

/// Two decimals without "-0.00".
fn clean_zero(value: f32) -> f32 {
    if value.abs() < 0.005 { 0.0 } else { value }
}

/// From dark blue-grey (0) to orange-yellow (1); below 0 towards blue.
fn colour(value: f32) -> (u8, u8, u8) {
    const ZERO: [f32; 3] = [38.0, 42.0, 54.0];
    const HALF: [f32; 3] = [178.0, 72.0, 62.0];
    const ONE: [f32; 3] = [255.0, 205.0, 96.0];
    const BELOW: [f32; 3] = [70.0, 130.0, 220.0];
    let (from, to, part) = match value {
        v if v < 0.0 => (ZERO, BELOW, -v),
        v if v < 0.5 => (ZERO, HALF, v * 2.0),
        v => (HALF, ONE, v * 2.0 - 1.0),
    };
    let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
    let mix = |place: usize| (from[place] + (to[place] - from[place]) * part).round() as u8;
    (mix(0), mix(1), mix(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_keep_their_width_and_show_the_number() {
        for value in [-1.5, -0.001, 0.0, 0.2, 0.5, 0.7, 1.0, 1.2] {
            assert_eq!(cell(value, Paint::Characters).chars().count(), CELL, "{value}");
        }
        assert_eq!(cell(-0.001, Paint::Characters), "   0.00");
        assert!(cell(1.0, Paint::Colour).starts_with("\x1b[48;2;255;205;96m"));
    }

    #[test]
    fn numbers_that_are_none_have_a_colour_too() {
        assert_eq!(colour(f32::NAN), colour(0.5));
    }
}
