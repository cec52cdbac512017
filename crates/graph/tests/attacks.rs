//! The attack corpus: every file of `attacks/` is refused, with the message that is pinned, and quickly. So are inputs
//! that are too large to keep in files. (What the wire lets through and the checker refuses is in `attacks/checker/`.)

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

mod support;

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pellucid_graph::check::{SpecIndex, check};
use pellucid_graph::{Faults, Program, limits};

/// What all files together may take; each of the large inputs may take five times as much.
const QUICK: Duration = Duration::from_secs(1);

fn refuse(read: impl FnOnce() -> Result<Program, Faults>) -> (String, Duration) {
    let start = Instant::now();
    let read = read();
    let faults = match read {
        Ok(program) => panic!("read as a program: {}", program.to_json()),
        Err(faults) => faults,
    };
    for fault in &faults.0 {
        assert!(fault.hint.is_some(), "it does not say what to do: {fault}");
    }
    (faults.to_string(), start.elapsed())
}

#[test]
fn every_attack_is_refused_with_its_message() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    assert!(files.len() > 60);
    let (mut pinned, mut total) = (String::new(), Duration::ZERO);
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let (message, time) =
            refuse(|| if is_json { Program::from_json(&bytes) } else { Program::from_bytes(&bytes) });
        writeln!(pinned, "=== {}\n{message}\n", path.file_name().unwrap().to_string_lossy()).unwrap();
        total += time;
    }
    assert!(total < QUICK, "{total:?}");
    insta::assert_snapshot!(pinned);
}

/// What the wire lets through, because it is well-formed, is checked against the bundled model.
#[test]
fn what_the_wire_lets_through_the_checker_refuses() {
    let spec = support::tiny_gpt2();
    let index = SpecIndex::new(&spec);
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/attacks/checker");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let (mut pinned, mut total) = (String::new(), Duration::ZERO);
    for path in files {
        let program = Program::from_json(&std::fs::read(&path).unwrap());
        let program = program.unwrap_or_else(|faults| panic!("{}: {faults}", path.display()));
        let (message, time) = refuse(|| check(program, &index).map(|checked| checked.program));
        writeln!(pinned, "=== {}\n{message}\n", path.file_name().unwrap().to_string_lossy()).unwrap();
        total += time;
    }
    assert!(total < QUICK, "{total:?}");
    insta::assert_snapshot!(pinned);
}

/// A program of one trace with that body.
fn with_body(nodes: impl Iterator<Item = String>) -> String {
    let body: Vec<_> = nodes.collect();
    let trace = r#"{"op": "trace", "invokes": [{"name": "i", "prompt": "a"}], "body": "#;
    format!(r#"{{"pellucid": 1, "body": [{trace}[{}]}}]}}"#, body.join(","))
}

fn in_safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn large_inputs_are_refused_before_they_cost_anything() {
    let zeros =
        |op: &str, count: usize| with_body((0..count).map(|_| format!(r#"{{"op": "{op}", "size": [1]}}"#)));
    let frame = |body: &str| format!(r#"{{"pellucid": 1, "body": {body}}}"#);
    let long = "x".repeat(8 << 20);
    let attacks: Vec<(&str, Vec<u8>)> = vec![
        ("white space", vec![b' '; limits::PROGRAM_BYTES + 1]),
        ("opening brackets", "[".repeat(8 << 20).into_bytes()),
        ("opening braces", r#"{"a":"#.repeat(2 << 20).into_bytes()),
        ("empty lists", frame(&format!("[{}[]]", "[],".repeat(limits::JSON_VALUES))).into_bytes()),
        (
            "one field again and again",
            format!("{{\"pellucid\": 1{}}}", ", \"seed\": 0".repeat(1 << 19)).into_bytes(),
        ),
        ("many unknown fields", {
            let fields: String = (0..1 << 18).map(|field| format!(", \"f{field}\": 0")).collect();
            format!("{{\"pellucid\": 1{fields}}}").into_bytes()
        }),
        ("one long number", frame(&"9".repeat(8 << 20)).into_bytes()),
        ("one long fraction", frame(&format!("0.{}", "9".repeat(1 << 20))).into_bytes()),
        ("one long text", format!(r#"{{"pellucid": 1, "model": "{long}", "body": []}}"#).into_bytes()),
        ("one long key", format!(r#"{{"pellucid": 1, "{long}": 1, "body": []}}"#).into_bytes()),
        ("one long operation", frame(&format!(r#"[{{"op": "{long}"}}]"#)).into_bytes()),
        ("nodes", zeros("zeros", limits::NODES).into_bytes()),
        ("faults", zeros("zeroes", limits::NODES - 1).into_bytes()),
        ("traces", frame(&format!("[{}0]", "0,".repeat(limits::TRACES))).into_bytes()),
        ("references to nothing", {
            let cat = |place| {
                format!(r#"{{"op": "relu", "name": "layer_{place}", "input": "layers_{place}_output"}}"#)
            };
            with_body((0..20_000).map(cat)).into_bytes()
        }),
        ("one name for all", {
            let node = |_| r#"{"op": "zeros", "name": "same", "size": [1]}"#.to_owned();
            with_body((0..50_000).map(node)).into_bytes()
        }),
        ("elements", {
            let elements = "0.5,".repeat(limits::LITERAL_ELEMENTS);
            with_body(std::iter::once(format!(
                r#"{{"op": "literal", "dtype": "f32", "shape": [1], "elements": [{elements}0.5]}}"#
            )))
            .into_bytes()
        }),
        ("tokens", {
            let tokens = "0,".repeat(limits::PROMPT_TOKENS);
            frame(&format!(r#"[{{"op": "trace", "invokes": [{{"tokens": [[{tokens}0]]}}], "body": []}}]"#))
                .into_bytes()
        }),
        ("arguments", {
            let names = r#""i","#.repeat(limits::LIST_ARGUMENTS);
            with_body(std::iter::once(format!(r#"{{"op": "cat", "tensors": [{names}"i"]}}"#))).into_bytes()
        }),
        ("tensors", {
            let tensors: String = (0..200_000)
                .map(|place| {
                    format!(r#""t{place}": {{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}},"#)
                })
                .collect();
            in_safetensors(&format!(r#"{{{tensors}"__metadata__": {{}}}}"#), 0)
        }),
        ("metadata", {
            let keys: String = (0..200_000).map(|key| format!(r#""k{key}": "","#)).collect();
            in_safetensors(&format!(r#"{{"__metadata__": {{{keys}"pellucid.program": ""}}}}"#), 0)
        }),
        (
            "one long tensor name",
            in_safetensors(
                &format!(r#"{{"__metadata__": {{"pellucid.program": "{{}}"}}, "{long}": {{}}}}"#),
                0,
            ),
        ),
        (
            "one long program",
            in_safetensors(&format!(r#"{{"__metadata__": {{"pellucid.program": "{long}"}}}}"#), 0),
        ),
    ];
    let mut pinned = String::new();
    for (name, bytes) in attacks {
        let (message, time) = refuse(|| Program::from_bytes(&bytes));
        assert!(time < 5 * QUICK, "{name}: {time:?}");
        // Hundreds of faults of one kind: the first says it.
        let first = message.split("\n\n").next().unwrap_or_default();
        let last = message.rsplit("\n\n").next().filter(|last| last.starts_with("There may be more"));
        assert!(message.len() < 100_000, "{name}: a message of {} bytes", message.len());
        writeln!(pinned, "=== {name}\n{first}\n{}", last.map_or(String::new(), |last| format!("{last}\n")))
            .unwrap();
    }
    insta::assert_snapshot!(pinned);
}

#[test]
fn names_that_mean_something_elsewhere_mean_nothing_here() {
    let text = r#"{"pellucid": 1, "body": [{"op": "trace", "name": "__proto__", "invokes": [{"name": "constructor", "prompt": "a"}],
        "body": [{"op": "get", "name": "toString", "hook": "x"}, {"op": "save", "name": "NaN", "value": "toString"},
        {"op": "save", "name": "null", "value": "toString"}, {"op": "save", "name": "0", "value": "toString"}]}]}"#;
    let program = Program::from_json(text.as_bytes()).unwrap();
    assert_eq!(Program::from_json(program.to_json().as_bytes()).unwrap(), program);
}

/// Found by fuzzing: the step after the first was computed beyond 64 bits.
#[test]
fn a_distance_between_steps_of_all_bits_is_taken() {
    let text = r#"{"pellucid": 1, "body": [{"op": "trace", "invokes": [{"tokens": [[1, 2]]}], "generate": {"max_new_tokens": 2},
        "body": [{"op": "steps", "every": 18446744073709551615, "body": [
            {"op": "get", "name": "h", "hook": "logits"}, {"op": "save", "name": "s", "value": "h"}]}]}]}"#;
    let spec = support::tiny_gpt2();
    let checked = check(Program::from_json(text.as_bytes()).unwrap(), &SpecIndex::new(&spec));
    assert!(checked.is_ok(), "{}", checked.unwrap_err());
}
