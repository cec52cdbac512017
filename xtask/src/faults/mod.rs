//! `cargo xtask faults`: the tests have teeth. A list of faults is put into a scratch copy of the tree, each behind a switch
//! that an environment variable throws, so that all are built at once. Then the tests that are named beside each fault run
//! with its switch thrown, and must fail; with none thrown they must pass.

mod list;
mod tree;

use std::path::{Path, PathBuf};

use crate::records::Record;
use crate::shell::Outcome;
use list::Fault;
use tree::{Binaries, Run, Test, Tree};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only faults whose words or file contain this. Nothing is recorded then.
    #[arg(long)]
    only: Option<String>,
    /// Print the list, and run nothing.
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut chosen = list::read()?;
    chosen.retain(|fault| {
        arguments.only.as_ref().is_none_or(|word| fault.what.contains(word) || fault.file.contains(word))
    });
    if chosen.is_empty() {
        return Err("there is no such fault; `cargo xtask faults --list` prints all".into());
    }
    if arguments.list {
        for fault in &chosen {
            println!("{}\n    {}\n    {}", fault.what, fault.file, fault.caught_by.join("\n    "));
        }
        return Ok(());
    }
    let record = Record::begin("Seeded faults", "cargo xtask faults")?;
    let tree = Tree::with(&chosen)?;
    let binaries = tree.build(&chosen)?;
    without_faults(&tree, &binaries)?;
    let mut rows = Vec::new();
    let mut missed = 0;
    for (number, fault) in chosen.iter().enumerate() {
        println!("[{}/{}] {}", number + 1, chosen.len(), fault.what);
        for path in &fault.caught_by {
            let test = Test::parse(path)?;
            let run = tree.run(&binaries, &test, Some(number + 1))?;
            missed += usize::from(run == Run::Passed);
            let outcome = match run {
                Run::Failed => "caught",
                Run::Hung => "caught (it never ends)",
                Run::Passed => "MISSED",
            };
            println!("    {outcome} by {test}");
            rows.push((fault.what.as_str(), fault.file.as_str(), test.to_string(), outcome));
        }
    }
    let table = table(&rows);
    println!("\n{table}");
    if arguments.only.is_none() {
        let summary = format!(
            "{} faults, each caught by every test named beside it: {}.\n\n{table}",
            chosen.len(),
            if missed == 0 { "yes".into() } else { format!("no, {missed} times not") }
        );
        record.write(&summary)?;
    }
    if missed == 0 {
        Ok(())
    } else {
        Err(format!("{missed} times a fault was missed: see MISSED above").into())
    }
}

/// The tests pass where nothing is wrong: else their failure would say nothing.
fn without_faults(tree: &Tree, binaries: &Binaries) -> Outcome {
    println!("{} tests, without a fault", binaries.len());
    for test in binaries.keys() {
        if tree.run(binaries, test, None)? != Run::Passed {
            return Err(format!("{test} does not pass on the tree as it is").into());
        }
    }
    Ok(())
}

/// The file that a fault is put into, and its text as it is.
fn place(root: &Path, fault: &Fault) -> Outcome<(PathBuf, String)> {
    let mut files = vec![root.join(&fault.file)];
    let mut found = Vec::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(path)? {
                files.push(entry?.path());
            }
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let count = text.matches(fault.right.as_str()).count();
            found.extend((0..count).map(|_| (path.clone(), text.clone())));
        }
    }
    match (found.pop(), found.len()) {
        (Some(only), 0) => Ok(only),
        (one, more) => Err(format!(
            "the fault \"{}\" no longer fits: what it replaces stands {} times in {}; bring xtask/faults up to date",
            fault.what,
            more + usize::from(one.is_some()),
            fault.file
        )
        .into()),
    }
}

fn table(rows: &[(&str, &str, String, &str)]) -> String {
    let mut text = String::from("| fault | in | test | |\n| --- | --- | --- | --- |\n");
    for (what, file, test, outcome) in rows {
        text.push_str(&format!("| {what} | `{file}` | `{test}` | {outcome} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Test, list, place};
    use crate::shell::root;

    /// The code moves on under the list; this says at once which fault has to move with it.
    #[test]
    fn every_fault_fits_the_code_as_it_is() {
        let faults = list::read().unwrap_or_default();
        assert!(faults.len() > 50, "{}", faults.len());
        let misfits: Vec<String> =
            faults.iter().filter_map(|fault| Some(place(&root(), fault).err()?.to_string())).collect();
        assert!(misfits.is_empty(), "{}", misfits.join("\n"));
        for path in faults.iter().flat_map(|fault| &fault.caught_by) {
            assert!(Test::parse(path).is_ok(), "{path}");
        }
    }
}
