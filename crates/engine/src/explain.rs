//! The plan of a run: which passes, who rides in each, from where to where.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

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
    /// The name by which its traces call its model; of the program's own it is empty.
    pub model: String,
    /// What comes first: a hook point, or the beginning.
    pub from: String,
    /// What comes last: a hook point, or the end.
    pub to: String,
    /// Tokens whose rows are computed in it, wherever these begin.
    #[serde(default)]
    pub tokens: usize,
    /// Floating-point operations, as the engine estimates them.
    #[serde(default)]
    pub flops: u64,
    /// The same of a naive run of the invokes that begin a step in it: each by itself, with all its positions through all
    /// stages.
    #[serde(default)]
    pub naive_flops: u64,
    /// Who rides.
    pub passengers: Vec<ExplainedPassenger>,
    /// Invokes that wait for a value: where, which, and how many by that name.
    pub parked: Vec<(String, String, usize)>,
}

/// An invoke in a pass, or several that are alike: those of a sweep's cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedPassenger {
    /// The invoke's name.
    pub invoke: String,
    /// How many by that name ride alike.
    pub cells: usize,
    /// The step of a generation.
    pub step: u64,
    /// The prompts of one of them in this pass.
    pub prompts: usize,
    /// Their tokens.
    pub tokens: usize,
    /// The columns that are computed from the final norm on; none: all.
    pub columns: Option<Vec<usize>>,
    /// The last hook point that matters to it.
    pub until: String,
    /// The rows that it has in common with others; none: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<ExplainedSharing>,
    /// Each invoke whose rows come before its own, because their prompts begin alike, and how many positions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<(String, usize)>,
}

/// Rows that an invoke has in common with others of the same tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedSharing {
    /// The first of those whose rows they are.
    pub with: String,
    /// The hook point at which it leaves them; none: nowhere before its end.
    pub until: Option<String>,
    /// The column of its rectangle from which on it has rows of its own then.
    pub column: usize,
    /// How many tokens these are.
    pub tokens: usize,
}

/// One pass, by stages.
#[derive(Clone, Debug)]
pub(crate) struct PassRecord {
    /// The place of its model among the engine's.
    pub model: usize,
    pub from: usize,
    pub to: usize,
    pub tokens: usize,
    pub flops: u64,
    /// Of the invokes that begin their step in it: what they would cost by themselves, to the end of the model.
    pub naive_flops: u64,
    pub passengers: Vec<Passenger>,
    /// The stage and the invoke's label.
    pub parked: Vec<(usize, Arc<str>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Passenger {
    /// The invoke's label.
    pub invoke: Arc<str>,
    pub step: u64,
    pub prompts: usize,
    pub tokens: usize,
    pub columns: Option<Vec<usize>>,
    pub until: usize,
    pub shares: Option<PassengerShares>,
    pub after: Vec<(Arc<str>, usize)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PassengerShares {
    pub with: Arc<str>,
    /// The stage.
    pub until: Option<usize>,
    pub column: usize,
    pub tokens: usize,
}

/// Passes that are shown of a long generation.
const SHOWN: usize = 40;

impl Explanation {
    /// Floating-point operations of its passes, as the engine estimates them.
    pub fn flops(&self) -> u64 {
        self.passes.iter().fold(0, |sum, pass| sum.saturating_add(pass.flops))
    }

    /// The same of a naive run: every invoke by itself, with all its positions through all stages.
    pub fn naive_flops(&self) -> u64 {
        self.passes.iter().fold(0, |sum, pass| sum.saturating_add(pass.naive_flops))
    }
}

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
        writeln!(
            formatter,
            "passes: {} floating-point operations; every invoke by itself, whole: {}",
            amount(self.flops(), ""),
            amount(self.naive_flops(), "")
        )?;
        for (number, pass) in self.passes.iter().enumerate().take(SHOWN) {
            let tokens = pass.tokens;
            let on = if pass.model.is_empty() { String::new() } else { format!(" on {}", pass.model) };
            writeln!(formatter, "\npass {}{on}: {} → {} ({tokens} tokens)", number + 1, pass.from, pass.to)?;
            for alike in folded(&pass.passengers) {
                write_passengers(&alike, formatter)?;
            }
            for (place, invoke, cells) in &pass.parked {
                let verb = if *cells == 1 { "is" } else { "are" };
                writeln!(formatter, "  {}{invoke} {verb} parked at {place}", many(*cells).0)?;
            }
        }
        if passes > SHOWN {
            writeln!(formatter, "\n… and {} passes more", passes - SHOWN)?;
        }
        Ok(())
    }
}

/// Invokes that differ only in where they leave the rows that they share, and in how many they have of their own then.
fn folded(passengers: &[ExplainedPassenger]) -> Vec<Vec<&ExplainedPassenger>> {
    let mut all: Vec<Vec<&ExplainedPassenger>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for passenger in passengers {
        let ExplainedPassenger { invoke, step, prompts, tokens, columns, until, after, .. } = passenger;
        let with = passenger.shares.as_ref().map(|shares| (&shares.with, shares.until.is_some()));
        let alike = format!("{:?}", (invoke, step, prompts, tokens, columns, until, after, with));
        let place = *known.entry(alike).or_insert(all.len());
        if place == all.len() {
            all.push(Vec::new());
        }
        all[place].push(passenger);
    }
    all
}

fn write_passengers(alike: &[&ExplainedPassenger], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(passenger) = alike.first() else { return Ok(()) };
    let step = if passenger.step > 0 { format!(", step {}", passenger.step) } else { String::new() };
    let prompts =
        if passenger.prompts == 1 { String::new() } else { format!(" in {} prompts", passenger.prompts) };
    let (many, each) = many(alike.iter().map(|passenger| passenger.cells).sum());
    write!(formatter, "  {many}{}{step}: {} tokens{prompts}{each}", passenger.invoke, passenger.tokens)?;
    for (invoke, positions) in &passenger.after {
        write!(formatter, ", the first {positions} from {invoke}")?;
    }
    let shares: Vec<&ExplainedSharing> =
        alike.iter().filter_map(|passenger| passenger.shares.as_ref()).collect();
    write_shared(&passenger.invoke, &shares, formatter)?;
    write!(formatter, ", until {}", passenger.until)?;
    match &passenger.columns {
        Some(columns) => writeln!(formatter, ", logits at {}", listed(columns)),
        None => writeln!(formatter),
    }
}

/// Which rows invokes have in common with others, and where they leave them.
fn write_shared(
    invoke: &str,
    shares: &[&ExplainedSharing],
    formatter: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let Some(first) = shares.first() else { return Ok(()) };
    match first.with == invoke {
        true => write!(formatter, ", shared")?,
        false => write!(formatter, ", with {}", first.with)?,
    }
    let Some(place) = &first.until else { return Ok(()) };
    write!(formatter, " as far as {place}")?;
    let last = shares.last().and_then(|last| last.until.as_ref());
    if let Some(last) = last.filter(|last| *last != place) {
        write!(formatter, " … {last}")?;
    }
    let range = |of: fn(&ExplainedSharing) -> usize| {
        let (least, most) = (shares.iter().map(|one| of(one)).min(), shares.iter().map(|one| of(one)).max());
        let (least, most) = (least.unwrap_or(0), most.unwrap_or(0));
        if least == most { least.to_string() } else { format!("{least} to {most}") }
    };
    let (own, column) = (range(|one| one.tokens), range(|one| one.column));
    write!(formatter, ", from there {own} own from column {column} on")
}

/// What stands before and behind an invoke of a sweep, of which there are many.
fn many(cells: usize) -> (String, &'static str) {
    if cells == 1 { (String::new(), "") } else { (format!("{cells} × "), " each") }
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
