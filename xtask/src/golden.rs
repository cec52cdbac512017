//! `cargo xtask golden`: how near every family is to transformers.

use std::collections::BTreeMap;

use crate::shell::{Outcome, cargo, root};

/// What to print.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Every hook point by itself, not only the worst of each kind.
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let table = root().join("target/golden-table.tsv");
    let _ = std::fs::remove_file(&table);
    let tests = cargo(&["test", "--quiet", "--package", "pellucid-engine", "--test", "golden_models"])
        .env("PELLUCID_GOLDEN_TABLE", &table)
        .status()?;
    let text = std::fs::read_to_string(&table)?;
    // Model, kind of value: the worst error, how many, absolute or relative.
    let mut rows: BTreeMap<(String, String), (f64, usize, String)> = BTreeMap::new();
    for line in text.lines() {
        let [model, what, error, measure] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
        let kind = if arguments.all { what.to_owned() } else { kind(what) };
        let error = if error == "differs" { f64::INFINITY } else { error.parse().unwrap_or(f64::NAN) };
        let row = rows.entry((model.to_owned(), kind)).or_insert((0.0, 0, measure.to_owned()));
        row.0 = if error.is_nan() { f64::NAN } else { row.0.max(error) };
        row.1 += 1;
    }
    println!(
        "Against transformers, f32. Relative: max|a−b| / max|b|, below 1e-5; absolute: max|a−b|, below 1e-4.\n"
    );
    println!("{:<22} {:<34} {:>6} {:>9}  measure", "model", "value", "count", "worst");
    for ((model, kind), (error, count, measure)) in &rows {
        println!("{model:<22} {kind:<34} {count:>6} {error:>9.1e}  {measure}");
    }
    if tests.success() { Ok(()) } else { Err("some values do not agree: see above".into()) }
}

/// A hook point without its place in the model: `attn.pattern` of `transformer.h.0.attn.pattern`.
fn kind(path: &str) -> String {
    let words: Vec<&str> = path.split('.').filter(|word| word.parse::<usize>().is_err()).collect();
    words[words.len().saturating_sub(2)..].join(".")
}
