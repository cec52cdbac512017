//! `cargo xtask golden`: how near every family is to transformers.

use std::collections::{BTreeMap, BTreeSet};

use crate::shell::{Outcome, cargo, root};

/// What to print.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Every hook point of every model by itself, not only the worst of each kind and family.
    #[arg(long)]
    all: bool,
}

/// Families, each with how its golden models' names begin.
const FAMILIES: [(&str, &str); 9] = [
    ("GPT-2", "gpt2"),
    ("Llama", "llama"),
    ("Mistral", "mistral"),
    ("NeoX", "gpt-neox"),
    ("OPT", "opt"),
    ("Qwen 2", "qwen2"),
    ("Qwen 3", "qwen3"),
    ("Gemma 2", "gemma2"),
    ("Gemma 3", "gemma3"),
];

/// Kinds of values, in the order in which a forward pass reaches them.
const KINDS: [&str; 25] = [
    "token ids and positions",
    "embeddings",
    "blocks: input",
    "blocks: output",
    "norms: input",
    "norms: scale",
    "norms: output",
    "attention: input",
    "attention: query_pre",
    "attention: key_pre",
    "attention: query",
    "attention: key",
    "attention: value",
    "attention: scores",
    "attention: pattern",
    "attention: mixed",
    "attention: output",
    "MLP: input",
    "MLP: pre",
    "MLP: up",
    "MLP: post",
    "MLP: output",
    "projections",
    "the rest (dropouts, activations, wrappers)",
    "logits",
];
/// After those: what is made of whole runs.
const RUNS: [&str; 3] = ["interventions", "gradients through edits", "greedy tokens"];

/// One comparison, as the test writes it.
struct Row<'a> {
    model: &'a str,
    what: &'a str,
    error: f64,
    measure: &'a str,
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Option<Row<'a>> {
        let [model, what, error, measure] = line.split('\t').collect::<Vec<_>>()[..] else { return None };
        // Tokens that differ, and what is not a number, are as far off as can be.
        let error = error.parse().ok().filter(|error: &f64| !error.is_nan()).unwrap_or(f64::INFINITY);
        Some(Row { model, what, error, measure })
    }

    fn kind(&self) -> &'static str {
        match self.measure {
            "exact" => "greedy tokens",
            _ if self.what.starts_with("gradient through") => "gradients through edits",
            _ if self.what.starts_with("intervention") => "interventions",
            _ if self.what == "logits" || self.what == "output" => "logits",
            _ => kind(self.what),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let table = root().join("target/golden-table.tsv");
    let _ = std::fs::remove_file(&table);
    let tests =
        cargo(&["test", "--quiet", "--workspace", "--test", "golden_models", "--test", "edit_gradients"])
            .env("PELLUCID_GOLDEN_TABLE", &table)
            .status()?;
    let text = std::fs::read_to_string(&table)?;
    let rows: Vec<Row<'_>> = text.lines().filter_map(Row::parse).collect();
    println!("\n{}", by_family(&rows));
    if arguments.all {
        println!("{}", by_hook_point(&rows));
    }
    if tests.success() { Ok(()) } else { Err("some values do not agree: see above".into()) }
}

fn family(model: &str) -> Option<&'static str> {
    FAMILIES.iter().find(|(_, beginning)| model.starts_with(beginning)).map(|(family, _)| *family)
}

/// The worst of each kind, family by family.
fn by_family(rows: &[Row<'_>]) -> String {
    let models: BTreeSet<&str> = rows.iter().map(|row| row.model).collect();
    let mut text = format!(
        "{} comparisons with transformers on {} models, f32; each figure is the largest deviation of its kind.\n\
         Hook points, and gradients: max|a−b| / max|b| of a tensor, below 1e-5. Logits, and logits after interventions: max|a−b|, below 1e-4.\n\
         Greedy tokens: how many continuations are the same, token by token. ·: the family has none.\n\n",
        rows.len(),
        models.len()
    );
    let mut worst: BTreeMap<(&str, &str), (f64, usize)> = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        let kind = row.kind();
        *counts.entry(kind).or_default() += 1;
        if let Some(family) = family(row.model) {
            let cell = worst.entry((kind, family)).or_insert((0.0, 0));
            *cell = (cell.0.max(row.error), cell.1 + 1);
        }
    }
    let line = |cells: Vec<String>| cells.concat().trim_end().to_owned() + "\n";
    let titles = FAMILIES.iter().map(|(family, _)| format!("{family:>9}"));
    text.push_str(&line([format!("{:<42}{:>6}", "", "count")].into_iter().chain(titles).collect()));
    for kind in KINDS.iter().chain(&RUNS) {
        let Some(count) = counts.get(kind) else { continue };
        let cells = FAMILIES.iter().map(|(family, _)| match worst.get(&(kind, family)) {
            None => format!("{:>9}", "·"),
            Some((error, same)) if *kind == "greedy tokens" && *error == 0.0 => format!("{same:>9}"),
            Some((error, _)) if error.is_infinite() => format!("{:>9}", "DIFFERS"),
            Some((error, _)) if *error == 0.0 => format!("{:>9}", "0"),
            Some((error, _)) => format!("{error:>9.1e}"),
        });
        text.push_str(&line([format!("{kind:<42}{count:>6}")].into_iter().chain(cells).collect()));
    }
    for (measure, name, bound) in [("relative", "hook point", 1e-5), ("absolute", "logits", 1e-4)] {
        let of = rows.iter().filter(|row| row.measure == measure);
        if let Some(row) = of.max_by(|a, b| a.error.total_cmp(&b.error)) {
            text.push_str(&format!(
                "\nLargest deviation, {name}: {:.1e} of {bound:.0e} allowed, at {} ({})",
                row.error, row.what, row.model
            ));
        }
    }
    text.push('\n');
    text
}

/// Every hook point of every model.
fn by_hook_point(rows: &[Row<'_>]) -> String {
    let mut worst: BTreeMap<(&str, &str), (f64, &str)> = BTreeMap::new();
    for row in rows {
        let entry = worst.entry((row.model, row.what)).or_insert((0.0, row.measure));
        entry.0 = entry.0.max(row.error);
    }
    let mut text = String::new();
    for ((model, what), (error, measure)) in worst {
        text.push_str(&format!("{model:<22} {what:<56} {error:>9.1e}  {measure}\n"));
    }
    text
}

/// A hook point's kind, by the last words of its path.
fn kind(path: &str) -> &'static str {
    let words: Vec<&str> = path.split('.').filter(|word| word.parse::<usize>().is_err()).collect();
    let (name, module) = match words[..] {
        [.., module, name] => (name, module),
        [name] => (name, ""),
        [] => ("", ""),
    };
    let found = |room: &str| KINDS.iter().find(|kind| **kind == format!("{room}: {name}")).copied();
    let is_norm = module.contains("norm") || module.starts_with("ln_");
    let is_embedding = ["wte", "wpe"].contains(&module) || module.starts_with("embed_");
    let by_room = match module {
        "h" | "layers" => found("blocks"),
        "attn" | "self_attn" | "attention" => found("attention"),
        "mlp" => found("MLP"),
        _ if is_norm => found("norms"),
        _ if is_embedding => Some(if name == "input" { KINDS[0] } else { KINDS[1] }),
        // OPT has no module around its MLP: its parts stand in the block.
        _ if ["pre", "up", "post"].contains(&name) => found("MLP"),
        _ => None,
    };
    let is_projection = ["proj", "fc", "dense", "c_attn", "query_key_value", "lm_head", "project"]
        .iter()
        .any(|part| module.contains(part));
    by_room.unwrap_or(if module.is_empty() && name == "input" {
        KINDS[0]
    } else if is_projection {
        "projections"
    } else {
        "the rest (dropouts, activations, wrappers)"
    })
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn hook_points_are_told_apart_by_their_paths() {
        for (path, expected) in [
            ("transformer.h.1.output", "blocks: output"),
            ("model.layers.0.self_attn.pattern", "attention: pattern"),
            ("model.layers.0.self_attn.q_proj.output", "projections"),
            ("gpt_neox.layers.0.input_layernorm.scale", "norms: scale"),
            ("transformer.h.0.ln_1.input", "norms: input"),
            ("transformer.wpe.input", "token ids and positions"),
            ("model.embed_tokens.output", "embeddings"),
            ("transformer.h.0.mlp.act.output", "the rest (dropouts, activations, wrappers)"),
            ("input", "token ids and positions"),
            ("lm_head.output", "projections"),
        ] {
            assert_eq!(kind(path), expected, "{path}");
        }
    }
}
