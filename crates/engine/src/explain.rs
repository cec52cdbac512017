//! The plan of a run: which passes, who rides in each, from where to where.

use std::fmt;

use pellucid_graph::check::Price;
use serde::{Deserialize, Serialize};

/// The plan of a program, as the engine would run it by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The model.
    pub model: String,
    /// What it will cost, at most.
    pub price: Price,
    /// Its passes, in order.
    pub passes: Vec<ExplainedPass>,
    /// Nodes that are computed, and nodes of the program.
    pub nodes: (usize, usize),
}

/// One pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedPass {
    /// What comes first: a hook point, or the beginning.
    pub from: String,
    /// What comes last: a hook point, or the end.
    pub to: String,
    /// Who rides.
    pub passengers: Vec<ExplainedPassenger>,
    /// Invokes that wait for a value: where, and which.
    pub parked: Vec<(String, String)>,
}

/// An invoke in a pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedPassenger {
    /// The invoke's name.
    pub invoke: String,
    /// The step of a generation.
    pub step: u64,
    /// Its prompts in this pass.
    pub prompts: usize,
    /// Their tokens.
    pub tokens: usize,
    /// The columns that are computed from the final norm on; none: all.
    pub columns: Option<Vec<usize>>,
    /// The last hook point that matters to it.
    pub until: String,
}

/// One pass, by stages.
#[derive(Clone, Debug)]
pub(crate) struct PassRecord {
    pub from: usize,
    pub to: usize,
    pub passengers: Vec<Passenger>,
    /// The stage and the invoke.
    pub parked: Vec<(usize, usize)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Passenger {
    pub invoke: usize,
    pub step: u64,
    pub prompts: usize,
    pub tokens: usize,
    pub columns: Option<Vec<usize>>,
    pub until: usize,
}

/// Passes that are shown of a long generation.
const SHOWN: usize = 40;

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passes = self.passes.len();
        writeln!(
            formatter,
            "{}: {passes} pass{}, {} of {} nodes computed",
            self.model,
            if passes == 1 { "" } else { "es" },
            self.nodes.0,
            self.nodes.1
        )?;
        writeln!(
            formatter,
            "price: {} floating-point operations, at most {} held, {} returned, {} tokens",
            amount(self.price.flops, ""),
            amount(self.price.peak_bytes, "B"),
            amount(self.price.result_bytes, "B"),
            self.price.tokens
        )?;
        for (number, pass) in self.passes.iter().enumerate().take(SHOWN) {
            let tokens: usize = pass.passengers.iter().map(|passenger| passenger.tokens).sum();
            writeln!(formatter, "\npass {}: {} → {} ({tokens} tokens)", number + 1, pass.from, pass.to)?;
            for passenger in &pass.passengers {
                let step =
                    if passenger.step > 0 { format!(", step {}", passenger.step) } else { String::new() };
                let prompts = if passenger.prompts == 1 {
                    String::new()
                } else {
                    format!(" in {} prompts", passenger.prompts)
                };
                write!(
                    formatter,
                    "  {}{step}: {} tokens{prompts}, until {}",
                    passenger.invoke, passenger.tokens, passenger.until
                )?;
                match &passenger.columns {
                    Some(columns) => writeln!(formatter, ", logits at {}", listed(columns))?,
                    None => writeln!(formatter)?,
                }
            }
            for (place, invoke) in &pass.parked {
                writeln!(formatter, "  {invoke} is parked at {place}")?;
            }
        }
        if passes > SHOWN {
            writeln!(formatter, "\n… and {} passes more", passes - SHOWN)?;
        }
        Ok(())
    }
}

fn listed(columns: &[usize]) -> String {
    let shown: Vec<String> = columns.iter().take(8).map(ToString::to_string).collect();
    let more = if columns.len() > 8 { format!(", … ({} positions)", columns.len()) } else { String::new() };
    let word = if columns.len() == 1 { "position" } else { "positions" };
    format!("{word} {}{more}", shown.join(", "))
}

/// A number with a prefix: 1.5 G.
fn amount(number: u64, unit: &str) -> String {
    let steps = [
        (1_000_000_000_000_000, "P"),
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1_000, "k"),
    ];
    for (size, prefix) in steps {
        if number >= size {
            return format!("{:.1} {prefix}{unit}", number as f64 / size as f64);
        }
    }
    if unit.is_empty() { number.to_string() } else { format!("{number} {unit}") }
}
