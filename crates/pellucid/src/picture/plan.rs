//! A plan: of each pass the layers that it walks, from left to right, and of each invoke its positions, from top to bottom.

use std::fmt::{self, Write};

use pellucid_engine::explain::{amount, rate, time};
use pellucid_engine::{ExplainedModel, ExplainedPass, ExplainedPassenger, Explanation};

use super::escape;

/// Passes that are drawn, of a long generation.
const PASSES: usize = 40;
/// Lanes that are drawn in all.
const LANES: usize = 400;
/// Numbers under the layers, at most.
const NUMBERS: usize = 16;
/// The least part of a lane's height that is drawn, so that one position of a thousand is seen too.
const LEAST: f64 = 0.08;

/// A plan as HTML, to stand in a [`Page`](super::Page).
pub fn plan_to_html(plan: &Explanation) -> String {
    let mut html = String::new();
    // Writing to a string does not fail.
    let _ = write_html(plan, &mut html);
    html
}

/// Writes the plan, with the classes of the page's style.
pub(super) fn write_html(plan: &Explanation, html: &mut String) -> fmt::Result {
    sums(plan, html)?;
    html.push_str(LEGEND);
    let mut lanes = LANES;
    let most = plan.passes.iter().map(weight).fold(0.0, f64::max);
    for (number, pass) in plan.passes.iter().enumerate().take(PASSES) {
        write_pass(plan, number, pass, most, &mut lanes, html)?;
    }
    let drawn = plan.passes.len().min(PASSES);
    if plan.pass_count() > drawn {
        writeln!(html, "<p>… and {} passes more.</p>", plan.pass_count() - drawn)?;
    }
    Ok(())
}

const LEGEND: &str = "<p class=\"legend plan-legend\">\
    <span><i class=\"own\"></i>computed for this invoke alone</span>\
    <span><i class=\"shared\"></i>computed once for several</span>\
    <span><i class=\"attended\"></i>from elsewhere: only keys and values are needed</span>\
    <span><i class=\"never\"></i>not computed</span>\
    <span><i class=\"leaves\"></i>leaves the shared rows</span>\
    <span><i class=\"waits\"></i>waits for a value</span></p>\n\
    <p class=\"axes\">Depth from left to right, a model’s layers numbered; in each lane an invoke’s positions from top to bottom.</p>\n";

/// What the whole comes to.
fn sums(plan: &Explanation, html: &mut String) -> fmt::Result {
    html.push_str("<dl class=\"sums\">\n");
    let mut sum = |name: &str, own: &str, naive: &str| {
        writeln!(html, "<div><dt>{name}</dt><dd><b>{own}</b> {naive}</dd></div>")
    };
    let instead = |naive: String| format!("instead of {naive}");
    sum("operations", &amount(plan.flops(), "FLOP"), &instead(amount(plan.naive_flops(), "FLOP")))?;
    sum("bytes moved", &amount(plan.bytes(), "B"), &instead(amount(plan.naive_bytes(), "B")))?;
    if plan.naive_back_flops() > 0 {
        sum(
            "going back",
            &amount(plan.back_flops(), "FLOP"),
            &instead(amount(plan.naive_back_flops(), "FLOP")),
        )?;
    }
    if plan.cached_tokens > 0 {
        sum("from the cache", &plan.cached_tokens.to_string(), "tokens, which are not computed again")?;
    }
    if let Some(measured) = &plan.measured {
        let (estimated, naive) = (time(plan.estimated_ms()), time(measured.naive_ms));
        let about = format!("estimated at {estimated}, instead of about {naive}");
        sum("time in passes", &time(measured.passes_ms), &about)?;
        let speed = rate(plan.flops(), measured.passes_ms).unwrap_or_default();
        sum(
            "speed",
            &speed,
            &escape(&format!("{}, {} weights", measured.instruction_set, measured.weights)),
        )?;
        sum("whole run", &time(measured.ms), "")?;
    }
    sum("at most held", &amount(plan.price.peak_bytes, "B"), "")?;
    if let Some(kept) = plan.kept() {
        sum("for ways back", "", &kept)?;
    }
    sum("returned", &amount(plan.price.result_bytes, "B"), "")?;
    let left_out = plan.left_out().map_or_else(String::new, |nodes| format!(": not {}", escape(&nodes)));
    sum("nodes computed", &plan.nodes.0.to_string(), &format!("of {}{left_out}", plan.nodes.1))?;
    html.push_str("</dl>\n<p class=\"axes\">“Instead of”: every invoke by itself, with all its positions through all layers. ");
    html.push_str(match &plan.measured {
        Some(_) => {
            "Operations and bytes are estimated, times measured, but for that of a run that was not made.</p>\n"
        }
        None => "Operations and bytes are estimated; nothing was run.</p>\n",
    });
    Ok(())
}

/// What a pass is compared with others by: its time, or else its operations.
fn weight(pass: &ExplainedPass) -> f64 {
    pass.measured_ms.unwrap_or(pass.flops as f64)
}

fn write_pass(
    plan: &Explanation,
    number: usize,
    pass: &ExplainedPass,
    most: f64,
    lanes: &mut usize,
    html: &mut String,
) -> fmt::Result {
    let on = if pass.model.is_empty() { String::new() } else { format!(" on {}", escape(&pass.model)) };
    writeln!(html, "<section class=\"pass\">\n<h2>Pass {}{on}</h2>", number + 1)?;
    let part = if most > 0.0 { weight(pass) / most * 100.0 } else { 0.0 };
    let mut facts = vec![
        format!("{} → {}", escape(&pass.from), escape(&pass.to)),
        format!("{} tokens", pass.tokens),
        amount(pass.flops, "FLOP"),
        format!("{} moved", amount(pass.bytes, "B")),
    ];
    if pass.traces.0 < pass.traces.1 {
        facts.push(format!("traces {} to {} together", pass.traces.0 + 1, pass.traces.1 + 1));
    }
    facts.extend(pass.read().map(|read| format!("reads {read}")));
    if pass.cut {
        facts.push("cut there".to_owned());
    }
    if let Some(ms) = pass.measured_ms {
        facts.push(format!("<b>{}</b>, estimated at {}", time(ms), time(pass.estimated_ms)));
        facts.extend(rate(pass.flops, ms));
    }
    // Passes are compared by their lines' lengths.
    if plan.passes.len() > 1 {
        writeln!(html, "<div class=\"meter\" style=\"width:{part:.1}%\"></div>")?;
    }
    writeln!(html, "<p class=\"facts\">{}</p>", facts.join(" · "))?;
    let Some(model) = plan.model_of(pass).filter(|model| model.stages > 0) else {
        html.push_str("</section>\n");
        return Ok(());
    };
    axis(model, html)?;
    for passenger in pass.passengers.iter().take(*lanes) {
        lane(model, pass, passenger, html)?;
    }
    let left = pass.passengers.len().saturating_sub(*lanes);
    *lanes = lanes.saturating_sub(pass.passengers.len());
    if left > 0 {
        writeln!(html, "<p>… and {left} lanes more.</p>")?;
    }
    html.push_str("</section>\n");
    Ok(())
}

/// The numbers of the layers, where each stands.
fn axis(model: &ExplainedModel, html: &mut String) -> fmt::Result {
    let apart = model.layers.len().div_ceil(NUMBERS).max(1);
    html.push_str("<div class=\"lane axis\"><span></span><div>");
    for (layer, &(from, to)) in model.layers.iter().enumerate().step_by(apart) {
        let at = |stage: usize| stage as f64 / model.stages as f64 * 100.0;
        let (left, wide) = (at(from), at(to.saturating_sub(from)));
        write!(html, "<i style=\"left:{left:.2}%;width:{wide:.2}%\" title=\"layer {layer}\">{layer}</i>")?;
    }
    html.push_str("</div></div>\n");
    Ok(())
}

/// Part of a lane.
#[derive(Debug, PartialEq)]
struct Area {
    /// Stages.
    depth: (usize, usize),
    /// Columns.
    columns: (usize, usize),
    class: &'static str,
    title: String,
}

/// The parts of an invoke's lane, those that stand behind others first.
fn areas(model: &ExplainedModel, pass: &ExplainedPass, passenger: &ExplainedPassenger) -> Vec<Area> {
    let width = passenger.width.max(1);
    let (from, end) = (pass.stages.0, passenger.end.min(model.stages));
    let narrows = model.narrows_at;
    let shares = passenger.shares.as_ref();
    let fork = shares.and_then(|shares| Some((shares.leaves?, shares.column, shares)));
    let fork = fork.filter(|&(leaves, ..)| leaves < end);
    let until = fork.map_or(end, |(leaves, ..)| leaves);
    let mut areas = Vec::new();
    let mut add = |depth: (usize, usize), columns: (usize, usize), class, title: &str| {
        if depth.0 < depth.1 && columns.0 < columns.1 {
            areas.push(Area { depth, columns, class, title: title.to_owned() });
        }
    };
    add((0, model.stages), (0, width), "never", "not computed: nothing of it matters here");
    if passenger.rows_from > 0 {
        let told = |from: &str, first: usize| format!("the first {first} from {from}");
        let mut whose: Vec<String> =
            passenger.after.iter().map(|(invoke, first)| told(invoke, *first)).collect();
        if passenger.cached > 0 {
            whose.push(told("the cache", passenger.cached));
        }
        let whose = if whose.is_empty() { "computed before".to_owned() } else { whose.join(", ") };
        add((from, end.min(narrows)), (0, passenger.rows_from), "attended", &whose);
    }
    if let Some((lent, columns)) = passenger.lends {
        let title = format!("its first {columns} columns are computed on: others attend to them");
        add((until, lent.min(narrows)), (passenger.rows_from, columns), "shared", &title);
    }
    if passenger.resumed {
        add((0, from), (passenger.rows_from, width), "attended", "the residual stream is from the cache");
        add((0, from), (0, passenger.rows_from), "attended", "from the cache");
    }
    let (class, title) = match shares {
        Some(shares) => ("shared", format!("computed once, with {}", shares.with)),
        None => ("own", "computed for it alone".to_owned()),
    };
    add((from, until.min(narrows)), (passenger.rows_from, width), class, &title);
    let mut own = String::new();
    if let Some((leaves, column, shares)) = fork {
        own = format!("{} rows of its own from column {column} on", shares.tokens);
        add((leaves, end.min(narrows)), (column, width), "own", &own);
        let lent = passenger.lends.map_or(0, |(_, columns)| columns);
        let before = (passenger.rows_from.max(lent), column);
        let title = format!("columns before {column} stay shared");
        add((leaves, end.min(narrows)), before, "attended", &title);
    }
    if model.late_at > 0 {
        let skipped = (passenger.rows_from, passenger.late_from);
        add(
            (model.late_at.max(from), end.min(narrows)),
            skipped,
            "never",
            "not read after the last attention",
        );
    }
    for columns in runs(passenger.columns.as_deref(), passenger.rows_from, width) {
        add((from.max(narrows), until), columns, class, &title);
        if let Some((leaves, column, _)) = fork {
            add((leaves.max(narrows), end), (columns.0.max(column), columns.1), "own", &own);
        }
    }
    areas
}

/// Columns that stand together, as ranges; those before `first` are left out.
fn runs(columns: Option<&[usize]>, first: usize, width: usize) -> Vec<(usize, usize)> {
    let Some(columns) = columns else { return vec![(first, width)] };
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &column in columns.iter().filter(|&&column| column >= first && column < width) {
        match runs.last_mut() {
            Some(run) if run.1 == column => run.1 = column + 1,
            _ => runs.push((column, column + 1)),
        }
    }
    runs
}

fn lane(
    model: &ExplainedModel,
    pass: &ExplainedPass,
    passenger: &ExplainedPassenger,
    html: &mut String,
) -> fmt::Result {
    let width = passenger.width.max(1) as f64;
    let many = if passenger.cells > 1 { format!("{} × ", passenger.cells) } else { String::new() };
    let step = if passenger.step > 0 { format!(", step {}", passenger.step) } else { String::new() };
    let described = escape(&passenger.to_string());
    write!(
        html,
        "<div class=\"lane\"><span title=\"{described}\">{many}{}{step}</span><svg viewBox=\"0 0 {} 100\" \
         preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{described}\">",
        escape(&passenger.invoke),
        model.stages
    )?;
    for Area { depth, columns, class, title } in areas(model, pass, passenger) {
        let (top, bottom) = (columns.0 as f64 / width, columns.1 as f64 / width);
        let high = (bottom - top).max(LEAST);
        let top = top.min(1.0 - high);
        write!(
            html,
            "<rect class=\"{class}\" x=\"{}\" y=\"{:.1}\" width=\"{}\" height=\"{:.1}\"><title>{}</title></rect>",
            depth.0,
            top * 100.0,
            depth.1 - depth.0,
            high * 100.0,
            escape(&title)
        )?;
    }
    for &(first, _) in &model.layers {
        write!(html, "<path class=\"grid\" d=\"M{first} 0V100\"/>")?;
    }
    let mut mark = |stage: usize, class: &str, title: &str| {
        let title = escape(title);
        write!(html, "<path class=\"{class}\" d=\"M{stage} 0V100\"><title>{title}</title></path>")
    };
    if let Some((leaves, shares)) = passenger.shares.as_ref().and_then(|own| Some((own.leaves?, own))) {
        let at = shares.until.as_deref().unwrap_or_default();
        mark(leaves, "leaves", &format!("leaves the shared rows at {at}"))?;
    }
    for parked in pass.parked.iter().filter(|parked| parked.invoke == passenger.invoke) {
        let who = if passenger.cells == 1 && parked.cells == 1 {
            String::new()
        } else {
            format!("{} by this name ", parked.cells)
        };
        mark(parked.stage, "waits", &format!("{who}parked at {}", parked.place))?;
    }
    html.push_str("</svg></div>\n");
    Ok(())
}

#[cfg(test)]
mod tests;
