//! A plan as text.

use std::collections::HashMap;
use std::fmt;

use super::{
    ExplainedModel, ExplainedParked, ExplainedPass, ExplainedPassenger, ExplainedSharing, Explanation,
};

/// Passes that are shown of a long generation.
const SHOWN: usize = 40;
/// Names of nodes that are shown of those that are left out.
const NAMED: usize = 8;

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passes = self.pass_count();
        writeln!(
            formatter,
            "{}: {passes} pass{}, {} of {} nodes computed",
            self.model,
            if passes == 1 { "" } else { "es" },
            self.nodes.0,
            self.nodes.1
        )?;
        if let Some(nodes) = self.left_out() {
            writeln!(formatter, "left out, for nothing needs it: {nodes}")?;
        }
        writeln!(
            formatter,
            "price: {} floating-point operations, at most {} held, {} returned, {} tokens",
            amount(self.price.flops, ""),
            amount(self.price.peak_bytes, "B"),
            amount(self.price.result_bytes, "B"),
            self.price.tokens
        )?;
        if let Some(kept) = self.kept() {
            writeln!(formatter, "ways back: {kept}")?;
        }
        writeln!(
            formatter,
            "passes: {} floating-point operations, {} moved; every invoke by itself, whole: {}, {}",
            amount(self.flops(), ""),
            amount(self.bytes(), "B"),
            amount(self.naive_flops(), ""),
            amount(self.naive_bytes(), "B")
        )?;
        if self.naive_back_flops() > 0 {
            writeln!(
                formatter,
                "going back: {} floating-point operations; through all stages: {}",
                amount(self.back_flops(), ""),
                amount(self.naive_back_flops(), "")
            )?;
        }
        if self.cached_tokens > 0 {
            writeln!(
                formatter,
                "from the cache: {} tokens, which are not computed again",
                self.cached_tokens
            )?;
        }
        if let Some(measured) = &self.measured {
            writeln!(
                formatter,
                "measured: {}, of which {} in passes{}, estimated at {}; every invoke by itself, whole, about {} in passes ({}, {} weights)",
                time(measured.ms),
                time(measured.passes_ms),
                bracketed(rate(self.flops(), measured.passes_ms)),
                time(self.estimated_ms()),
                time(measured.naive_ms),
                measured.instruction_set,
                measured.weights
            )?;
            if measured.recomputed_layers > 0 {
                writeln!(formatter, "layers computed again on the way back: {}", measured.recomputed_layers)?;
            }
        }
        for (number, pass) in self.passes.iter().enumerate().take(SHOWN) {
            let tokens = pass.tokens;
            let on = if pass.model.is_empty() { String::new() } else { format!(" on {}", pass.model) };
            let traces = match pass.traces {
                (first, last) if first < last => format!(", traces {} to {} together", first + 1, last + 1),
                _ => String::new(),
            };
            let cut = if pass.cut { ", cut there, for the whole takes too long" } else { "" };
            let number = number + 1;
            let more = match pass.more_passes {
                0 => String::new(),
                more => format!(", with those of {more} passes after it"),
            };
            writeln!(
                formatter,
                "\npass {number}{on}: {} → {} ({tokens} tokens{more}{traces}{cut})",
                pass.from, pass.to
            )?;
            if let Some(ms) = pass.measured_ms {
                let (flops, bytes) = (amount(pass.flops, ""), amount(pass.bytes, "B"));
                writeln!(
                    formatter,
                    "  {flops} operations, {bytes} moved, in {}{}, estimated at {}",
                    time(ms),
                    bracketed(rate(pass.flops, ms)),
                    time(pass.estimated_ms)
                )?;
            }
            for alike in folded(&pass.passengers) {
                formatter.write_str("  ")?;
                write_passengers(&alike, formatter)?;
                formatter.write_str("\n")?;
            }
            if pass.more_passengers > 0 {
                writeln!(formatter, "  … and {} more", pass.more_passengers)?;
            }
            if let Some(read) = pass.read() {
                writeln!(formatter, "  reads {read}")?;
            }
            if let Some(unread) = self.model_of(pass).and_then(|model| unread(model, pass)) {
                writeln!(formatter, "  not computed, for nothing there is read: {unread}")?;
            }
            for ExplainedParked { place, invoke, cells, .. } in &pass.parked {
                let verb = if *cells == 1 { "is" } else { "are" };
                writeln!(formatter, "  {}{invoke} {verb} parked at {place}", many(*cells).0)?;
            }
        }
        if self.passes.len() > SHOWN {
            writeln!(formatter, "\n… and {} passes more", passes - SHOWN)?;
        }
        Ok(())
    }
}

impl ExplainedPass {
    /// The bytes that getters give in it, and how much of that is free again when it has ended; none: they give nothing.
    pub fn read(&self) -> Option<String> {
        let (read, freed) = (amount(self.read_bytes, "B"), amount(self.freed_bytes, "B"));
        match (self.read_bytes, self.freed_bytes) {
            (0, _) => None,
            (_, 0) => Some(format!("{read}, all of it still held when it has ended")),
            (all, free) if free >= all => Some(format!("{read}, all of it free again when it has ended")),
            _ => Some(format!("{read}, {freed} of it free again when it has ended")),
        }
    }
}

impl Explanation {
    /// What is kept of passes for ways back, and what is computed again; none: there is nothing to keep.
    pub fn kept(&self) -> Option<String> {
        let (more, again) = (amount(self.price.kept_bytes, "B"), amount(self.price.recomputed_flops, ""));
        match self.kept_at_most {
            _ if self.price.kept_bytes == 0 => None,
            None => Some(format!(
                "{more} more kept where there is room, or layers computed again for {again} operations"
            )),
            Some(most) => Some(format!(
                "room to keep {} of {more}, the rest computed again, layer by layer, for at most {again} operations",
                amount(most, "B")
            )),
        }
    }

    /// The nodes that are not computed, by name; none: all are.
    pub fn left_out(&self) -> Option<String> {
        (!self.dropped.is_empty()).then(|| named(&self.dropped))
    }
}

impl fmt::Display for ExplainedPassenger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_passengers(&[self], formatter)
    }
}

/// Invokes that differ only in where they leave the rows that they share, and in how many they have of their own then.
fn folded(passengers: &[ExplainedPassenger]) -> Vec<Vec<&ExplainedPassenger>> {
    let mut all: Vec<Vec<&ExplainedPassenger>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for passenger in passengers {
        let ExplainedPassenger {
            invoke,
            step,
            prompts,
            tokens,
            late_from,
            columns,
            vocabulary,
            until,
            after,
            cached,
            resumed,
            back,
            ..
        } = passenger;
        let with = passenger.shares.as_ref().map(|shares| {
            let then: Vec<_> = shares.then.iter().map(|(with, until)| (with, until.is_some())).collect();
            (&shares.with, shares.until.is_some(), then)
        });
        let read = (late_from, columns, vocabulary, until);
        let alike =
            format!("{:?}", (invoke, step, prompts, tokens, read, after, (cached, resumed, back), with));
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
    write!(formatter, "{many}{}{step}: {} tokens{prompts}{each}", passenger.invoke, passenger.tokens)?;
    for (invoke, positions) in &passenger.after {
        write!(formatter, ", the first {positions} from {invoke}")?;
    }
    if passenger.cached > 0 {
        write!(formatter, ", the first {} from the cache", passenger.cached)?;
    }
    if passenger.resumed {
        formatter.write_str(", all before this from the cache")?;
    }
    let shares: Vec<&ExplainedSharing> =
        alike.iter().filter_map(|passenger| passenger.shares.as_ref()).collect();
    write_shared(&passenger.invoke, &shares, formatter)?;
    let leaves = shares.iter().map(|shares| shares.column).min().unwrap_or(0);
    if passenger.late_is_read {
        formatter.write_str(", after the last attention at the positions of its logits alone")?;
    } else if passenger.late_from > passenger.rows_from.max(leaves) {
        write!(formatter, ", after the last attention from column {} on", passenger.late_from)?;
    }
    write!(formatter, ", until {}", passenger.until)?;
    if passenger.columns.is_some() || passenger.vocabulary.is_some() {
        formatter.write_str(", logits")?;
    }
    match passenger.vocabulary {
        Some(1) => formatter.write_str(" of 1 vocabulary column")?,
        Some(many) => write!(formatter, " of {many} vocabulary columns")?,
        None => {}
    }
    if let Some(columns) = &passenger.columns {
        write!(formatter, " at {}", listed(columns))?;
    }
    match &passenger.back {
        Some(back) => {
            let (from, to, stages, of) = (&back.from, &back.to, back.stages, back.of);
            write!(formatter, ", back from {from} to {to}, through {stages} of {of} stages")
        }
        None => Ok(()),
    }
}

/// What a pass does not walk to: whole layers, and the unembedding.
fn unread(model: &ExplainedModel, pass: &ExplainedPass) -> Option<String> {
    let end = pass.stages.1;
    if pass.cut {
        return None;
    }
    let beyond = model.layers.iter().position(|&(first, after)| first >= end && first < after);
    let last = model.layers.len().saturating_sub(1);
    let layers = beyond.map(|first| match first {
        first if first == last => format!("layer {first}"),
        first => format!("layers {first} to {last}"),
    });
    let unembedding = model.unembeds_at.filter(|&at| at >= end).map(|_| "the unembedding".to_owned());
    let all: Vec<String> = layers.into_iter().chain(unembedding).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// Nodes by name, each with how many there are by it.
fn named(nodes: &[(String, usize)]) -> String {
    let shown = nodes.iter().take(NAMED).map(|(name, nodes)| format!("{}{name}", many(*nodes).0));
    let shown: Vec<String> = shown.collect();
    let more = nodes.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", … and {more} names more") } else { String::new() };
    shown.join(", ") + &more
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
    let far = |place: Option<&String>, last: Option<&String>| {
        let last =
            last.filter(|last| place != Some(*last)).map_or_else(String::new, |last| format!(" … {last}"));
        place.map_or_else(String::new, |place| format!(" as far as {place}{last}"))
    };
    formatter.write_str(&far(first.until.as_ref(), shares.last().and_then(|last| last.until.as_ref())))?;
    for (number, (with, until)) in first.then.iter().enumerate() {
        match with == invoke {
            true => formatter.write_str(", then as one")?,
            false => write!(formatter, ", then with {with}")?,
        }
        let last = shares.last().and_then(|last| last.then.get(number)?.1.as_ref());
        formatter.write_str(&far(until.as_ref(), last))?;
    }
    if first.leaves.is_none() {
        return Ok(());
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

fn bracketed(rate: Option<String>) -> String {
    rate.map_or_else(String::new, |rate| format!(" ({rate})"))
}

/// Milliseconds, in three digits or more.
pub fn time(ms: f64) -> String {
    match ms {
        ms if ms >= 100_000.0 => format!("{:.0} s", ms / 1000.0),
        ms if ms >= 1000.0 => format!("{:.2} s", ms / 1000.0),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms if ms >= 10.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.2} ms"),
    }
}

/// How fast operations were; none: there was no time.
pub fn rate(flops: u64, ms: f64) -> Option<String> {
    (ms > 0.0).then(|| format!("{:.2} GFLOP/s", flops as f64 / ms / 1e6))
}

/// A number with a prefix: `1.5 G`.
pub fn amount(number: u64, unit: &str) -> String {
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
