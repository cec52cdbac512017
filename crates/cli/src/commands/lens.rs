//! `pellucid lens`.

use std::io::Write;

use pellucid::picture::token;
use pellucid::{Model, RunOptions, s};
use serde::Serialize;

use crate::arguments::Lens;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::{models, text};

/// Columns of a cell: a token and its probability.
const CELL: usize = 14;

/// What the model would say at each layer and position.
#[derive(Serialize)]
struct Table {
    model: String,
    /// The prompt's tokens, one for each position.
    tokens: Vec<String>,
    layers: Vec<Row>,
}

/// The residual stream at one depth.
#[derive(Serialize)]
struct Row {
    /// Its hook point.
    hook_point: String,
    /// What would be said, by position.
    positions: Vec<Vec<Guess>>,
}

#[derive(Serialize)]
struct Guess {
    token: String,
    id: i64,
    probability: f32,
}

/// Shows the logit lens of a prompt.
pub(crate) fn lens(lens: &Lens, out: &mut dyn Write) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let model = models::open(&lens.model, &lens.choices)?;
    let options = RunOptions { cancel: Some(interrupt.run()), ..RunOptions::default() };
    let table = read(&model, &lens.prompt, i64::from(lens.top), &options)?;
    if lens.json { super::write_json(&table, out) } else { draw(&table, text::terminal_columns(), out) }
}

fn read(model: &Model, prompt: &str, top: i64, options: &RunOptions) -> Result<Table, Failure> {
    let tokens = model.encode(prompt)?;
    if tokens.is_empty() {
        return Err(Failure::Message("the prompt has no tokens: there is nothing to look into".to_owned()));
    }
    let top = top.min(model.spec().sizes.vocabulary as i64);
    let trace = model.trace();
    let invoke = trace.invoke_tokens([&tokens]);
    let mut hook_points = vec!["layers.0.input".to_owned()];
    hook_points.extend((0..model.layers()).map(|layer| format!("layers.{layer}.output")));
    for (depth, hook_point) in hook_points.iter().enumerate() {
        let logits = invoke.get(hook_point).index(s![0]).apply("final_norm").apply("unembed");
        let (probabilities, ids) = logits.softmax(-1).topk(top, -1);
        probabilities.save(&format!("probabilities_{depth}"));
        ids.save(&format!("ids_{depth}"));
    }
    let results = trace.run_with(options)?;
    let mut layers = Vec::with_capacity(hook_points.len());
    for (depth, hook_point) in hook_points.into_iter().enumerate() {
        let probabilities = results.get(&format!("probabilities_{depth}"))?.to_vec_f32()?;
        let ids = results.get(&format!("ids_{depth}"))?.to_vec_i64()?;
        let guesses = ids.iter().zip(probabilities).map(|(&id, probability)| {
            Ok(Guess { token: model.decode(&[u32::try_from(id).unwrap_or(0)])?, id, probability })
        });
        let mut guesses = guesses.collect::<Result<Vec<Guess>, Failure>>()?.into_iter();
        let positions = (0..tokens.len()).map(|_| guesses.by_ref().take(top as usize).collect());
        layers.push(Row { hook_point, positions: positions.collect() });
    }
    let tokens = tokens.iter().map(|&token| model.decode(&[token])).collect::<pellucid::Result<_>>()?;
    Ok(Table { model: model.name().to_owned(), tokens, layers })
}

/// As many positions side by side as fit, then the next; a line for each depth and rank.
fn draw(table: &Table, columns: usize, out: &mut dyn Write) -> Result<(), Failure> {
    let label = table.layers.iter().map(|row| row.hook_point.len()).max().unwrap_or(0);
    let beside = (columns.saturating_sub(label) / (CELL + 2)).max(1);
    let mut start = 0;
    while start < table.tokens.len() {
        let end = (start + beside).min(table.tokens.len());
        if start > 0 {
            writeln!(out)?;
        }
        let heads = table.tokens[start..end].iter().map(|name| text::fit(&token(name), CELL));
        line(out, &text::fit("", label), heads)?;
        for row in &table.layers {
            let ranks = row.positions.first().map_or(0, Vec::len);
            for rank in 0..ranks {
                let name = if rank == 0 { row.hook_point.as_str() } else { "" };
                let cells = row.positions[start..end].iter().map(|guesses| {
                    guesses.get(rank).map_or_else(String::new, |guess| {
                        let token = text::fit(&token(&guess.token), CELL - 5);
                        format!("{token} {:>4}", percent(guess.probability))
                    })
                });
                line(out, &text::fit(name, label), cells)?;
            }
        }
        start = end;
    }
    Ok(())
}

fn line(out: &mut dyn Write, name: &str, cells: impl Iterator<Item = String>) -> Result<(), Failure> {
    let cells: Vec<String> = cells.collect();
    Ok(writeln!(out, "{}", format!("{name}  {}", cells.join("  ")).trim_end())?)
}

fn percent(probability: f32) -> String {
    format!("{:.0}%", probability * 100.0)
}
