//! The list of faults: `xtask/faults/*.md`, each a heading, where it is, which tests catch it, and two pieces of code.

use crate::shell::{Outcome, root};

/// A mistake that somebody could make.
pub(super) struct Fault {
    /// What goes wrong, in words.
    pub what: String,
    /// The file, from the repository's root; or a folder, where files are still being moved about.
    pub file: String,
    /// What stands there, once.
    pub right: String,
    /// What is put in its place: the right thing, and the wrong one where `FAULT` is true.
    pub wrong: String,
    /// The tests that must catch it, every one: `crate/target/test`, where the target `lib` is the crate's own tests.
    pub caught_by: Vec<String>,
}

/// Every fault, file by file.
pub(super) fn read() -> Outcome<Vec<Fault>> {
    let mut files: Vec<_> = std::fs::read_dir(root().join("xtask/faults"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Outcome<_>>()?;
    files.sort();
    let mut faults = Vec::new();
    for file in files {
        for section in std::fs::read_to_string(&file)?.split("\n## ").skip(1) {
            let fault = parse(section).ok_or_else(|| {
                let what = section.lines().next().unwrap_or_default();
                format!(
                    "{}: \"{what}\" is not a fault: it needs `in`, `caught by`, and code that is `right` and `wrong`, with FAULT",
                    file.display()
                )
            })?;
            faults.push(fault);
        }
    }
    Ok(faults)
}

fn parse(section: &str) -> Option<Fault> {
    let quoted = |beginning: &str| {
        let lines = section.lines().filter_map(|line| line.strip_prefix(beginning)?.strip_suffix('`'));
        lines.map(str::to_owned).collect::<Vec<String>>()
    };
    let code = |name: &str| {
        let (_, rest) = section.split_once(&format!("\n```rust {name}\n"))?;
        Some(rest.split_once("\n```")?.0.to_owned())
    };
    let fault = Fault {
        what: section.lines().next()?.to_owned(),
        file: quoted("in `").pop()?,
        right: code("right")?,
        wrong: code("wrong")?,
        caught_by: quoted("caught by `"),
    };
    (fault.wrong.contains("FAULT") && !fault.caught_by.is_empty()).then_some(fault)
}
