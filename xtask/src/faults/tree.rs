//! The scratch copy of the tree in which faults are tried, and the tests that run there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::list::Fault;
use super::place;
use crate::shell::{Outcome, cargo, root};

/// A test that runs longer than this has been caught too: it hangs.
const PATIENCE: Duration = Duration::from_secs(300);
/// Random programs of each model: enough to catch what is on the list.
const PROGRAMS: &str = "16";

/// The environment variable that throws a switch.
const VARIABLE: &str = "PELLUCID_SEEDED_FAULT";
/// What the root of each crate with faults in it has, in the copy.
const SWITCHES: &str = "
/// Whether the fault of that number is switched on.
fn seeded_fault(number: usize) -> bool {
    static CHOSEN: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let chosen = || std::env::var(\"PELLUCID_SEEDED_FAULT\").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    *CHOSEN.get_or_init(chosen) == number
}
";

/// One test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    /// The crate's folder under `crates/`.
    pub package: String,
    /// The file under `tests/` without its ending; `lib`: the crate's own tests.
    pub target: String,
    /// Its full name.
    pub name: String,
}

impl Test {
    /// `crate/target/test`.
    pub fn parse(path: &str) -> Outcome<Test> {
        let parts: Vec<&str> = path.splitn(3, '/').collect();
        match parts[..] {
            [package, target, name] => {
                Ok(Test { package: package.into(), target: target.into(), name: name.into() })
            }
            _ => Err(format!("`{path}` is not `crate/target/test`").into()),
        }
    }
}

impl Test {
    /// The binary of this test's target, if this is cargo's message about it.
    fn binary(&self, message: &serde_json::Value) -> Option<PathBuf> {
        let executable = message["executable"].as_str()?;
        let manifest = message["manifest_path"].as_str()?.replace('\\', "/");
        let (kind, name) = (message["target"]["kind"][0].as_str()?, message["target"]["name"].as_str()?);
        let is_its_own = manifest.ends_with(&format!("crates/{}/Cargo.toml", self.package))
            && if self.target == "lib" { kind == "lib" } else { kind == "test" && name == self.target };
        (message["profile"]["test"].as_bool()? && is_its_own).then(|| PathBuf::from(executable))
    }
}

/// The files that faults change, by their paths in the real tree, as they are with all faults in them.
fn patched(faults: &[Fault]) -> Outcome<BTreeMap<PathBuf, String>> {
    let mut patched: BTreeMap<PathBuf, String> = BTreeMap::new();
    for (number, fault) in faults.iter().enumerate() {
        let (file, original) = place(&root(), fault)?;
        // The switches stand in the crate's own root.
        let source =
            file.ancestors().find(|folder| folder.join("lib.rs").is_file() && folder.ends_with("src"));
        let crate_root = source.ok_or_else(|| format!("{} is in no crate", fault.file))?.join("lib.rs");
        let text = patched.entry(file).or_insert(original);
        if text.matches(fault.right.as_str()).count() != 1 {
            return Err(format!("the fault \"{}\" stands where another one does", fault.what).into());
        }
        let switch = format!("crate::seeded_fault({})", number + 1);
        *text = text.replacen(&fault.right, &fault.wrong.replace("FAULT", &switch), 1);
        let text = match patched.get(&crate_root) {
            Some(text) => text.clone(),
            None => std::fs::read_to_string(&crate_root)?,
        };
        if !text.contains(SWITCHES) {
            patched.insert(crate_root, text + SWITCHES);
        }
    }
    Ok(patched)
}

/// The binary of each test.
pub(super) type Binaries = BTreeMap<Test, PathBuf>;

impl fmt::Display for Test {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.package, self.target, self.name)
    }
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Passed,
    Failed,
    Hung,
}

/// A copy of everything that is under version control, with a target folder of its own.
pub(super) struct Tree {
    folder: PathBuf,
    target: PathBuf,
}

impl Tree {
    /// A copy with these faults in it, the first behind switch 1. Only what differs from an earlier copy is written, so
    /// that its builds are used again.
    pub fn with(faults: &[Fault]) -> Outcome<Tree> {
        let scratch = root().join("target/faults");
        let tree = Tree { folder: scratch.join("tree"), target: scratch.join("target") };
        let patched = patched(faults)?;
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root())
            .output()?;
        if !listed.status.success() {
            return Err(
                "`git ls-files` failed: faults are tried on a copy of what is under version control".into()
            );
        }
        let listed = String::from_utf8(listed.stdout)?;
        let files: BTreeSet<&str> = listed.split('\0').filter(|name| !name.is_empty()).collect();
        for name in &files {
            let own = root().join(name);
            let bytes = match patched.get(&own) {
                Some(text) => text.clone().into_bytes(),
                None => match std::fs::read(&own) {
                    Ok(bytes) => bytes,
                    Err(_) => continue,
                },
            };
            let to = tree.folder.join(name);
            if std::fs::read(&to).is_ok_and(|there| there == bytes) {
                continue;
            }
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(to, bytes)?;
        }
        tree.remove_others(&tree.folder, &files)?;
        Ok(tree)
    }

    /// Files of an earlier copy that are gone since.
    fn remove_others(&self, folder: &Path, files: &BTreeSet<&str>) -> Outcome {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.remove_others(&path, files)?;
            } else {
                let name = path.strip_prefix(&self.folder)?.to_string_lossy().replace('\\', "/");
                if !files.contains(name.as_str()) || !root().join(&name).exists() {
                    std::fs::remove_file(path)?;
                }
            }
        }
        Ok(())
    }

    /// Builds the targets of all tests that faults name. The whole workspace is named, so that dependencies have the same
    /// features, and are built once, for all targets.
    pub fn build(&self, faults: &[Fault]) -> Outcome<Binaries> {
        let paths: BTreeSet<&str> =
            faults.iter().flat_map(|fault| &fault.caught_by).map(String::as_str).collect();
        let tests: Vec<Test> = paths.into_iter().map(Test::parse).collect::<Outcome<_>>()?;
        let targets: BTreeSet<&str> = tests.iter().map(|test| test.target.as_str()).collect();
        let mut command =
            cargo(&["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
        for target in targets {
            match target {
                "lib" => command.arg("--lib"),
                target => command.args(["--test", target]),
            };
        }
        println!("building {} tests with {} faults in them", tests.len(), faults.len());
        let command = command.current_dir(&self.folder).env("CARGO_TARGET_DIR", &self.target);
        let output = command.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err("the copy with the faults in it does not build".into());
        }
        let messages = String::from_utf8(output.stdout)?;
        let messages: Vec<serde_json::Value> =
            messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut binaries = Binaries::new();
        for test in tests {
            let binary = messages.iter().find_map(|message| test.binary(message));
            let binary = binary.ok_or_else(|| format!("cargo names no binary of {test}"))?;
            Self::is_there(&binary, &test)?;
            binaries.insert(test, binary);
        }
        Ok(binaries)
    }

    /// Runs one test, with the switch of that number thrown, if any.
    pub fn run(&self, binaries: &Binaries, test: &Test, fault: Option<usize>) -> Outcome<Run> {
        let binary = binaries.get(test).ok_or_else(|| format!("{test} was not built"))?;
        let mut command = Command::new(binary);
        command.args([&test.name, "--exact"]).current_dir(self.folder.join("crates").join(&test.package));
        command.env("PELLUCID_PROGRAMS", PROGRAMS).env("INSTA_UPDATE", "no");
        command.env(VARIABLE, fault.map_or_else(String::new, |number| number.to_string()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(if status.success() { Run::Passed } else { Run::Failed });
            }
            if started.elapsed() > PATIENCE {
                child.kill()?;
                child.wait()?;
                return Ok(Run::Hung);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A name that no test has would pass whatever is wrong.
    fn is_there(binary: &Path, test: &Test) -> Outcome {
        let output =
            Command::new(binary).args([&test.name, "--exact", "--list", "--format", "terse"]).output()?;
        let listed = String::from_utf8_lossy(&output.stdout);
        if listed.lines().any(|line| line.strip_suffix(": test") == Some(&test.name)) {
            Ok(())
        } else {
            Err(format!("there is no test {test}").into())
        }
    }
}
