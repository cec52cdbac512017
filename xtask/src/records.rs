//! `docs/records.md`: what the long commands found when they last ran, each in a section of its own that the command
//! writes itself.

use std::fmt::Write;
use std::process::Command;

use crate::shell::{Outcome, root};

const FILE: &str = "docs/records.md";
const HEAD: &str = "# Records\n\nWhat the commands that take long found when they last ran. Each section is written by its command; nothing here is\nwritten by hand.\n";

/// What a command is going to find, on the tree as it was when it began.
pub(crate) struct Record {
    file: &'static str,
    title: &'static str,
    made: String,
}

impl Record {
    /// Notes the commit on which a command begins.
    pub(crate) fn begin(title: &'static str, command: &str) -> Outcome<Record> {
        Record::begin_in(FILE, title, command)
    }

    /// The same, to be written into another document.
    pub(crate) fn begin_in(file: &'static str, title: &'static str, command: &str) -> Outcome<Record> {
        Ok(Record { file, title, made: format!("`{command}` on {}", commit()?) })
    }

    /// Writes the command's section, in place of what it wrote before.
    pub(crate) fn write(self, text: &str) -> Outcome {
        let path = root().join(self.file);
        let before = std::fs::read_to_string(&path).unwrap_or_else(|_| HEAD.to_owned());
        let section = format!("{}\n\n{}\n", self.made, text.trim_end());
        std::fs::write(path, with_section(&before, self.title, &section))?;
        println!("\nrecorded in {}", self.file);
        Ok(())
    }
}

/// The document with one section replaced; a new one comes last.
fn with_section(document: &str, title: &str, section: &str) -> String {
    let mut parts = document.split("\n## ");
    let mut text = parts.next().unwrap_or(HEAD).trim_end().to_owned() + "\n";
    let mut replaced = false;
    let put = |text: &mut String, title: &str, body: &str| {
        let _ = write!(text, "\n## {title}\n\n{}\n", body.trim());
    };
    for part in parts {
        let (own, body) = part.split_once('\n').unwrap_or((part, ""));
        if own == title {
            put(&mut text, title, section);
            replaced = true;
        } else {
            put(&mut text, own, body);
        }
    }
    if !replaced {
        put(&mut text, title, section);
    }
    text
}

/// The commit that is checked out, with its day, and whether anything was changed since.
fn commit() -> Outcome<String> {
    let git = |arguments: &[&str]| -> Outcome<String> {
        let output = Command::new("git").args(arguments).current_dir(root()).output()?;
        if !output.status.success() {
            return Err(format!("`git {}` failed", arguments.join(" ")).into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let described = git(&["log", "-1", "--format=commit %h of %cs"])?;
    let changes = git(&[
        "status",
        "--porcelain",
        "--",
        ".",
        ":!docs/records.md",
        ":!docs/benchmarks.md",
        ":!docs/load.svg",
    ])?;
    Ok(if changes.is_empty() { described } else { format!("{described}, with changes") })
}

#[cfg(test)]
mod tests {
    use super::with_section;

    /// Paths in documentation are below the root or below `crates/`. Records name what there was.
    #[test]
    fn what_the_documentation_names_is_there() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut named = 0;
        for file in std::fs::read_dir(root.join("docs")).unwrap() {
            let path = file.unwrap().path();
            let is_text = path.extension().is_some_and(|ending| ending == "md");
            if !is_text || path.ends_with("records.md") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let sources = text
                .split('`')
                .skip(1)
                .step_by(2)
                .filter(|code| code.ends_with(".rs") && !code.contains(' '));
            for source in sources {
                named += 1;
                let there =
                    [root.to_owned(), root.join("crates")].iter().any(|folder| folder.join(source).is_file());
                assert!(there, "{} names {source}", path.display());
            }
        }
        assert!(named > 50, "{named}");
    }

    #[test]
    fn a_section_replaces_only_its_own() {
        let first = with_section("# Records\n\nHead.\n", "One", "a\n");
        let both = with_section(&first, "Two", "b\n\n| x |\n");
        assert_eq!(both, "# Records\n\nHead.\n\n## One\n\na\n\n## Two\n\nb\n\n| x |\n");
        let again = with_section(&both, "One", "c");
        assert_eq!(again, "# Records\n\nHead.\n\n## One\n\nc\n\n## Two\n\nb\n\n| x |\n");
        assert_eq!(with_section(&again, "Two", "b\n\n| x |\n"), again);
    }
}
