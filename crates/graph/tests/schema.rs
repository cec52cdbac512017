//! The JSON Schema in `docs/` is the one that the types give, and tells programs from what is none.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

use std::path::PathBuf;

use pellucid_graph::{Program, wire};
use serde_json::Value;

/// `PELLUCID_BLESS=1` writes the file anew.
#[test]
fn the_schema_in_the_documents_is_the_one_generated() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/program.schema.json");
    let generated = wire::pretty(&wire::schema());
    if std::env::var_os("PELLUCID_BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == generated, "docs/program.schema.json has drifted: run `cargo xtask generate`");
}

#[test]
fn the_schema_is_itself_valid_and_has_a_branch_for_every_op() {
    let schema = wire::schema();
    assert!(jsonschema::meta::is_valid(&schema));
    let branches = schema["$defs"].as_object().unwrap().keys().filter(|name| name.starts_with("op_")).count();
    assert_eq!(branches, pellucid_graph::operation::table().len() + 26);
}

#[test]
fn programs_are_valid_in_hand_written_and_canonical_form() {
    let validator = jsonschema::validator_for(&wire::schema()).unwrap();
    let mut programs = 0;
    for file in std::fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/programs")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read(&path).unwrap();
        let program =
            Program::from_json(&text).unwrap_or_else(|faults| panic!("{}: {faults}", path.display()));
        for text in [text, program.to_json().into_bytes()] {
            let json: Value = serde_json::from_slice(&text).unwrap();
            if let Err(error) = validator.validate(&json) {
                panic!("{}: {error} at {}", path.display(), error.instance_path());
            }
        }
        programs += 1;
    }
    assert!(programs > 0);
}

#[test]
fn what_the_schema_exists_to_catch_it_catches() {
    let validator = jsonschema::validator_for(&wire::schema()).unwrap();
    let tour: Value = serde_json::from_str(include_str!("programs/tour.json")).unwrap();
    let slips: [(&str, Value); 9] = [
        ("/pellucid", 2.into()),
        ("/body/0/op", "get".into()),
        ("/body/0/body/0/op", "gett".into()),
        ("/body/0/body/0/step", "3".into()),
        ("/body/0/body/2/index", serde_json::json!([":", "1:2:0"])),
        ("/body/0/body/12/k", 2.5.into()),
        ("/body/0/invokes/2/tokens", serde_json::json!([1, 2, 3])),
        ("/body/0/body/6/dtype", "float32".into()),
        ("/body/0/body/11/every", 0.into()),
    ];
    for (pointer, value) in slips {
        let mut json = tour.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        json.pointer_mut(parent).unwrap()[key] = value;
        assert!(!validator.is_valid(&json), "{pointer}");
        assert!(Program::from_json(json.to_string().as_bytes()).is_err(), "{pointer}");
    }
}
