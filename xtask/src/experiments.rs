//! `cargo xtask experiments`: how near the classic experiments are to PyTorch.

use std::collections::BTreeMap;

use crate::shell::{Outcome, cargo, root};

pub(crate) fn run() -> Outcome {
    let table = root().join("target/experiments-table.tsv");
    let _ = std::fs::remove_file(&table);
    let tests = cargo(&["test", "--quiet", "--workspace", "--test", "experiments"])
        .env("PELLUCID_EXPERIMENTS_TABLE", &table)
        .status()?;
    let text = std::fs::read_to_string(&table)?;
    // Number and name of an experiment, quantity: the largest deviation, and the bound.
    let mut rows: BTreeMap<(u64, String, String), (f64, f64)> = BTreeMap::new();
    for line in text.lines() {
        let [number, name, quantity, worst, bound] = line.split('\t').collect::<Vec<_>>()[..] else {
            continue;
        };
        let (worst, bound) = (worst.parse().unwrap_or(f64::NAN), bound.parse().unwrap_or(f64::NAN));
        let row = rows.entry((number.parse()?, name.to_owned(), quantity.to_owned())).or_insert((0.0, bound));
        *row = (row.0.max(worst), row.1.min(bound));
    }
    println!("Against plain PyTorch hooks, f32: max|a−b|, and the bound it is held to.\n");
    println!("{:>2} {:<30} {:<34} {:>9} {:>7}", "#", "experiment", "quantity", "deviation", "bound");
    for ((number, name, quantity), (worst, bound)) in &rows {
        let mark = if worst <= bound { "" } else { "  ← too far" };
        let bound = if *bound == 0.0 { "exact".to_owned() } else { format!("{bound:.0e}") };
        println!("{number:>2} {name:<30} {quantity:<34} {worst:>9.1e} {bound:>7}{mark}");
    }
    let mut left = experiments()?;
    left.retain(|experiment| !rows.keys().any(|(_, name, _)| name == experiment));
    match (tests.success(), left.is_empty()) {
        (false, _) => Err("some values do not agree: see above".into()),
        (true, false) => {
            Err(format!("no test holds anything to the golden values of {}", left.join(", ")).into())
        }
        (true, true) => Ok(()),
    }
}

/// The names of all that there are golden values for.
fn experiments() -> Outcome<Vec<String>> {
    let files = std::fs::read_dir(root().join("golden/experiments"))?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "json")
            && let Some(name) = path.file_stem()
        {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
