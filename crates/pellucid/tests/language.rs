//! The examples of the documents on the language: every block marked `json` is a whole program that runs on the bundled model.

use pellucid::{Model, Program, Result, RunOptions};

/// The blocks of a document that are marked as JSON, with the line in which each begins.
fn blocks(document: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in document.lines().enumerate() {
        match (&mut open, line.trim()) {
            (None, "```json") => open = Some((number + 2, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, text)), _) => {
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

#[test]
fn every_program_in_the_documents_runs() -> Result<()> {
    // Where an example names a second model, it is the same one.
    let model = Model::bundled()?;
    let model = model.with_model("teacher", &model);
    let documents = [
        ("language.md", include_str!("../../../docs/language.md")),
        ("coming-from-nnsight.md", include_str!("../../../docs/coming-from-nnsight.md")),
        ("coming-from-transformerlens.md", include_str!("../../../docs/coming-from-transformerlens.md")),
    ];
    let blocks: Vec<(&str, usize, String)> = documents
        .iter()
        .flat_map(|(name, text)| blocks(text).into_iter().map(|(line, text)| (*name, line, text)))
        .collect();
    assert!(blocks.len() >= 15, "{} blocks were found", blocks.len());
    for (document, line, text) in blocks {
        let at = |what: &dyn std::fmt::Display| format!("docs/{document}:{line}: {what}\n{text}");
        let program = Program::from_json(text.as_bytes()).map_err(|faults| at(&faults));
        let program = program.unwrap_or_else(|message| panic!("{message}"));
        let checked = model.check(program).unwrap_or_else(|error| panic!("{}", at(&error)));
        let results = model.run(&checked, &RunOptions::default());
        let results = results.unwrap_or_else(|error| panic!("{}", at(&error)));
        let naive = model.run_naive(&checked).unwrap_or_else(|error| panic!("{}", at(&error)));
        for (name, tensor) in results.iter() {
            assert!(tensor.is_same_bits(&naive[name]), "{}", at(&format!("`{name}` differs")));
        }
        assert!(results.iter().next().is_some(), "{}", at(&"it saves nothing"));
    }
    Ok(())
}
