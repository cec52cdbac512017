//! What is looked at in a real browser: `cargo xtask browser`, the service's pages, over a real service;
//! `cargo xtask python displays`, the Python package's pictures.

use std::path::PathBuf;
use std::process::Command;

use crate::package;
use crate::records::Record;
use crate::shell::{Outcome, root, run as command, target};

/// Names under which browsers are found that can be driven.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Builds the command, and looks at the service's pages. Screenshots go to `target/browser`.
pub(crate) fn run() -> Outcome {
    let record = Record::begin("Pages in a browser", "cargo xtask browser")?;
    package::build_workspace()?;
    let looked = look("pages.test.mjs", &target().join("browser"), |tests| {
        tests.env("PELLUCID", target().join("debug/pellucid"))
    })?;
    record.write(&looked)
}

/// Has the Python package's displays written as pages by `python`, which finds it, and looks at them. Pages and screenshots go to
/// `target/displays`.
pub(crate) fn displays(python: &mut Command) -> Outcome {
    let record = Record::begin("Displays in a browser", "cargo xtask python displays")?;
    let folder = target().join("displays");
    let pages = folder.join("pages");
    command(python.arg("browser/displays.py").arg(&pages))?;
    let looked = look("displays.test.mjs", &folder, |tests| tests.env("DISPLAYS", &pages))?;
    record.write(&looked)
}

/// Sets up what browser tests need, and runs one file of them; what was looked at, in words.
fn look(
    file: &str,
    screenshots: &PathBuf,
    set: impl FnOnce(&mut Command) -> &mut Command,
) -> Outcome<String> {
    let browser = browser()?;
    let folder = root().join("browser");
    let modified = |path: PathBuf| path.metadata().and_then(|about| about.modified()).ok();
    if modified(folder.join("node_modules/.package-lock.json")) < modified(folder.join("package-lock.json")) {
        let mut install = Command::new("npm");
        command(install.args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder))
            .map_err(|error| format!("{error}\nthe browser tests need Node.js 20 or later, with npm"))?;
    }
    std::fs::create_dir_all(screenshots)?;
    let told = screenshots.join("tests.tap");
    let mut tests = Command::new("node");
    tests.args(["--test", "--test-reporter=spec", "--test-reporter-destination=stdout"]);
    tests.arg("--test-reporter=tap").arg(format!("--test-reporter-destination={}", told.display()));
    tests.arg(file).current_dir(&folder);
    command(set(&mut tests).env("CHROMIUM", &browser).env("SCREENSHOTS", screenshots))?;
    println!("\nscreenshots are in {}", screenshots.display());
    let version = Command::new(&browser).arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let held = held(&std::fs::read_to_string(&told)?);
    if held.is_empty() {
        return Err(format!("no test is told of in {}", told.display()).into());
    }
    Ok(format!("In {version}, each of these holds:\n\n- {}\n", held.join("\n- ")))
}

/// The names of the tests that hold, of what tests tell in the TAP format; one that was skipped does not count.
fn held(told: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in told.lines() {
        let Some((_, name)) = line.trim_start().strip_prefix("ok ").and_then(|rest| rest.split_once(" - "))
        else {
            continue;
        };
        let (name, directive) = name.split_once(" # ").unwrap_or((name, ""));
        let skipped = directive.starts_with("SKIP") || directive.starts_with("TODO");
        // A file of tests is told of as one, after them.
        if !skipped && !name.ends_with(".mjs") {
            names.push(name.replace("\\#", "#"));
        }
    }
    names
}

/// The browser: the one in `CHROMIUM`, or one that is installed.
fn browser() -> Outcome<PathBuf> {
    if let Some(chosen) = std::env::var_os("CHROMIUM") {
        return Ok(chosen.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut files = BROWSERS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    files.find(|file| file.is_file()).ok_or_else(|| {
        format!(
            "no browser is found: install Chromium (Debian and Ubuntu: `sudo apt install chromium`), or name one in CHROMIUM (looked for {})",
            BROWSERS.join(", ")
        )
        .into()
    })
}

#[cfg(test)]
mod tests {
    use super::held;

    #[test]
    fn what_holds_is_told_by_name() {
        let told = "TAP version 13\n# Subtest: one\nok 1 - one\n  ---\n  duration_ms: 3\n  ...\n\
            ok 2 - two \\# 2 # SKIP\nnot ok 3 - three\n    ok 1 - within\nok 4 - /tmp/pages.test.mjs\n1..4\n";
        assert_eq!(held(told), ["one", "within"]);
    }
}
