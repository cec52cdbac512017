//! `cargo xtask browser`: the service's pages in a real browser, over a real service.

use std::path::PathBuf;
use std::process::Command;

use crate::shell::{Outcome, cargo, root, run as command, target};

/// Names under which browsers are found that can be driven.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Builds the command, sets up what the tests need, and runs them. Screenshots go to `target/browser`.
pub(crate) fn run() -> Outcome {
    let browser = browser()?;
    command(&mut cargo(&["build", "--package", "pellucid-cli"]))?;
    let folder = root().join("browser");
    let lock = folder.join("package-lock.json");
    let installed = folder.join("node_modules/.package-lock.json");
    let modified = |path: &PathBuf| path.metadata().and_then(|about| about.modified()).ok();
    if modified(&installed) < modified(&lock) {
        let mut install = Command::new("npm");
        command(install.args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder))?;
    }
    let screenshots = target().join("browser");
    let mut tests = Command::new("npm");
    tests.args(["test", "--silent"]).current_dir(&folder);
    tests.env("CHROMIUM", browser).env("PELLUCID", target().join("debug/pellucid"));
    command(tests.env("SCREENSHOTS", &screenshots))?;
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
    let found = BROWSERS
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|file| file.is_file());
    found.ok_or_else(|| {
        format!(
            "no browser is found: install Chromium, or name one in CHROMIUM (looked for {})",
            BROWSERS.join(", ")
        )
        .into()
    })
}
