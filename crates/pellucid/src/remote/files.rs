//! Files' names, which travel without their folders: where somebody keeps their work is nobody else's affair.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use pellucid_client::api::Problem;
use pellucid_graph::Program;

/// The files that a program's nodes were written in: as they are named to the service, and as they are named here.
#[derive(Default)]
pub(super) struct Files(BTreeMap<String, String>);

impl Files {
    /// Those of a program. Files of one name keep as much of their folders as tells them apart.
    pub fn of(program: &Program) -> Files {
        let sources = program.nodes.iter().filter_map(|node| node.source.as_ref());
        let full: BTreeSet<&str> = sources.map(|source| source.file.as_str()).collect();
        let longest = full.iter().map(|file| parts(file).count()).max().unwrap_or(0);
        let mut named = BTreeMap::new();
        for kept in 1..=longest {
            named = full.iter().map(|file| (last(file, kept).to_owned(), (*file).to_owned())).collect();
            if named.len() == full.len() {
                break;
            }
        }
        Files(named)
    }

    /// The program with the names that travel.
    pub fn without_folders<'p>(&self, program: &'p Program) -> Cow<'p, Program> {
        let short: BTreeMap<&str, &str> = self
            .0
            .iter()
            .filter(|(short, full)| short != full)
            .map(|(short, full)| (&**full, &**short))
            .collect();
        if short.is_empty() {
            return Cow::Borrowed(program);
        }
        let mut program = program.clone();
        for source in program.nodes.iter_mut().filter_map(|node| node.source.as_mut()) {
            if let Some(short) = short.get(source.file.as_str()) {
                source.file = (*short).to_owned();
            }
        }
        Cow::Owned(program)
    }

    /// A problem that names files as they are named here.
    pub fn restored_in(&self, mut problem: Problem) -> Problem {
        for source in problem.faults.iter_mut().filter_map(|fault| fault.source.as_mut()) {
            if let Some(full) = self.0.get(&source.file) {
                source.file.clone_from(full);
            }
        }
        problem
    }

    /// An error that names files as they are named here.
    pub fn restored(&self, error: pellucid_client::Error) -> pellucid_client::Error {
        match error {
            pellucid_client::Error::Refused { address, problem } => {
                pellucid_client::Error::Refused { address, problem: Box::new(self.restored_in(*problem)) }
            }
            other => other,
        }
    }
}

fn parts(file: &str) -> impl Iterator<Item = usize> {
    file.char_indices().filter(|(_, each)| matches!(each, '/' | '\\')).map(|(at, _)| at + 1).chain([0])
}

/// The last parts of a file's path.
fn last(file: &str, kept: usize) -> &str {
    let mut starts: Vec<usize> = parts(file).collect();
    starts.sort_unstable();
    let start = starts.iter().rev().nth(kept - 1).copied().unwrap_or(0);
    &file[start..]
}

#[cfg(test)]
mod tests {
    use pellucid_client::api::{Fault, ProblemKind};

    use super::*;

    fn program(files: &[&str]) -> Program {
        let nodes: Vec<String> = files
            .iter()
            .enumerate()
            .map(|(number, file)| {
                let source = serde_json::json!({ "file": file, "line": 7 });
                format!(
                    r#"{{ "op": "literal", "name": "x{number}", "dtype": "f32", "shape": [], "elements": [1.0], "source": {source} }}"#
                )
            })
            .collect();
        Program::from_json(format!(r#"{{ "pellucid": 1, "body": [{}] }}"#, nodes.join(",")).as_bytes())
            .unwrap()
    }

    fn travelled(program: &Program) -> Vec<String> {
        let travels = Files::of(program).without_folders(program).into_owned();
        travels.nodes.iter().map(|node| node.source.as_ref().unwrap().file.clone()).collect()
    }

    #[test]
    fn folders_stay_here_unless_they_tell_files_apart() {
        assert_eq!(travelled(&program(&["/home/ada/lens.py", "<stdin>"])), ["lens.py", "<stdin>"]);
        assert_eq!(travelled(&program(&["/home/ada/a/x.py", "/home/ada/b/x.py"])), ["a/x.py", "b/x.py"]);
        assert_eq!(travelled(&program(&["/ada/x.py", "x.py"])), ["ada/x.py", "x.py"]);
        assert_eq!(travelled(&program(&[r"C:\ada\x.py"])), ["x.py"]);
    }

    #[test]
    fn faults_are_told_of_the_files_as_they_are_here() {
        let program = program(&["/home/ada/a/x.py", "/home/ada/b/x.py"]);
        let files = Files::of(&program);
        let travels = files.without_folders(&program).into_owned();
        let mut problem = Problem::new(ProblemKind::InvalidProgram, "");
        for node in &travels.nodes {
            let fault =
                pellucid_graph::fault::Fault::new("wrong").at_node(node.name.clone(), node.source.clone());
            problem.faults.push(Fault::from(&fault));
        }
        let restored = files.restored_in(problem);
        let named: Vec<_> =
            restored.faults.iter().map(|fault| fault.source.as_ref().unwrap().file.as_str()).collect();
        assert_eq!(named, ["/home/ada/a/x.py", "/home/ada/b/x.py"]);
    }
}
