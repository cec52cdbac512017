//! What is looked at in a real browser: `cargo xtask browser`, the service's pages, over a real service;
//! `cargo xtask python displays`, the Python package's pictures.

use std::path::PathBuf;
use std::process::Command;

use crate::package;
use crate::shell::{Outcome, root, run as command, target};

/// Names under which browsers are found that can be driven.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Builds the command, and looks at the service's pages. Screenshots go to `target/browser`.
pub(crate) fn run() -> Outcome {
    package::build_workspace()?;
    look("pages.test.mjs", &target().join("browser"), |tests| {
        tests.env("PELLUCID", target().join("debug/pellucid"))
    })
}

/// Has the Python package's displays written as pages by `python`, which finds it, and looks at them. Pages and screenshots go to
/// `target/displays`.
pub(crate) fn displays(python: &mut Command) -> Outcome {
    let folder = target().join("displays");
    let pages = folder.join("pages");
    command(python.arg("browser/displays.py").arg(&pages))?;
    look("displays.test.mjs", &folder, |tests| tests.env("DISPLAYS", &pages))
}

/// Sets up what browser tests need, and runs one file of them.
fn look(file: &str, screenshots: &PathBuf, set: impl FnOnce(&mut Command) -> &mut Command) -> Outcome {
    let browser = browser()?;
    let folder = root().join("browser");
    let modified = |path: PathBuf| path.metadata().and_then(|about| about.modified()).ok();
    if modified(folder.join("node_modules/.package-lock.json")) < modified(folder.join("package-lock.json")) {
        let mut install = Command::new("npm");
        command(install.args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder))
            .map_err(|error| format!("{error}\nthe browser tests need Node.js 20 or later, with npm"))?;
    }
    let mut tests = Command::new("node");
    tests.args(["--test", "--test-reporter=spec", file]).current_dir(&folder);
    command(set(&mut tests).env("CHROMIUM", browser).env("SCREENSHOTS", screenshots))?;
    println!("\nscreenshots are in {}", screenshots.display());
    Ok(())
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
