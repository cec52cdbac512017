//! Properties of the wire over arbitrary programs and arbitrary damage to them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

mod support;

use pellucid_graph::check::{SpecIndex, check};
use pellucid_graph::{NodeKind, Program, expand, wire};
use proptest::prelude::*;
use serde_json::Value;
use support::{Choices, programs};

/// The pointer of every value inside, its own included.
fn pointers(json: &Value, pointer: String, all: &mut Vec<String>) {
    match json {
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(place, item)| pointers(item, format!("{pointer}/{place}"), all));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(key, field)| pointers(field, format!("{pointer}/{key}"), all));
        }
        _ => {}
    }
    all.push(pointer);
}

/// Replaces, removes or adds something somewhere.
fn damage(json: &mut Value, choices: &mut Choices) {
    let mut all = Vec::new();
    pointers(json, String::new(), &mut all);
    let mut pick = || all[choices.below(all.len())].clone();
    let (place, other) = (pick(), pick());
    let junk = serde_json::json!([null, true, -1, 0, 2.5, u64::MAX, "", "n0", "n0.1", ":", "1:2:0", "...", [],
        [0, "n1", null], {}, { "float": "nan" }, { "int": "-5" }, { "tensor": "n1" }, { "size_of": "n1", "dim": 0 }]);
    let junk = match choices.below(2) {
        0 => json.pointer(&other).cloned(),
        _ => junk.get(choices.below(19)).cloned(),
    };
    let (Some(junk), Some(target)) = (junk, json.pointer_mut(&place)) else { return };
    match target {
        Value::Array(items) if choices.below(2) == 0 => items.push(junk),
        Value::Object(fields) if choices.below(3) == 0 => {
            let keys = ["op", "name", "source", "prompt", "special_tokens", "dim", "body", "step", "unknown"];
            fields.insert(keys[choices.below(keys.len())].into(), junk);
        }
        Value::Object(fields) if choices.below(2) == 0 && !fields.is_empty() => {
            let key = fields.keys().nth(choices.below(fields.len())).cloned();
            fields.shift_remove(&key.unwrap_or_default());
        }
        target => *target = junk,
    }
}

thread_local! {
    static SCHEMA: jsonschema::Validator = jsonschema::validator_for(&wire::schema()).unwrap();
}

fn assert_valid(json: &Value) {
    SCHEMA.with(|schema| {
        if let Err(error) = schema.validate(json) {
            panic!("accepted, but against the schema: {error} at {}\n{json}", error.instance_path());
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn json_gives_back_the_program(program in programs(false)) {
        let (compact, pretty) = (program.to_json(), program.to_json_pretty());
        prop_assert_eq!(&Program::from_json(compact.as_bytes()).unwrap(), &program);
        prop_assert_eq!(&Program::from_json(pretty.as_bytes()).unwrap(), &program);
        let json: Value = serde_json::from_str(&pretty).unwrap();
        prop_assert_eq!(&json, &serde_json::from_str::<Value>(&compact).unwrap());
        assert_valid(&json);
    }

    #[test]
    fn safetensors_give_back_the_program_and_its_constants(program in programs(true)) {
        let bytes = program.to_safetensors().unwrap();
        prop_assert_eq!(&Program::from_safetensors(&bytes).unwrap(), &program);
        prop_assert_eq!(&Program::from_bytes(&program.to_bytes().unwrap()).unwrap(), &program);
        // A constant that is named and does not travel is a fault.
        if program.nodes.iter().any(|node| matches!(node.kind, NodeKind::Constant(_))) {
            prop_assert!(Program::from_json(program.to_json().as_bytes()).is_err());
        }
    }

    #[test]
    fn a_damaged_program_is_refused_or_is_another_program(
        program in programs(false),
        choices in prop::collection::vec(any::<u64>(), 16),
    ) {
        let mut json: Value = serde_json::from_str(&program.to_json()).unwrap();
        let mut choices = Choices::new(choices);
        for _ in 0..1 + choices.below(2) {
            damage(&mut json, &mut choices);
        }
        match Program::from_json(json.to_string().as_bytes()) {
            Ok(other) => {
                assert_valid(&json);
                prop_assert_eq!(Program::from_json(other.to_json().as_bytes()), Ok(other));
            }
            Err(faults) => prop_assert!(!faults.is_empty()),
        }
    }

    #[test]
    fn the_checker_takes_any_program(program in programs(true)) {
        let spec = support::tiny_gpt2();
        let index = SpecIndex::new(&spec);
        if let Err(faults) = expand::expand(program, &index).and_then(|program| check(program, &index)) {
            prop_assert!(!faults.is_empty());
            prop_assert!(!faults.to_string().is_empty());
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_are_another_program(
        program in programs(true),
        json in any::<bool>(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
    ) {
        let mut bytes = if json { program.to_json().into_bytes() } else { program.to_safetensors().unwrap() };
        for (place, byte, what) in damages {
            let place = place.index(bytes.len());
            match what {
                0 => bytes[place] = byte,
                1 => bytes.truncate(place + 1),
                _ => bytes.insert(place, byte),
            }
        }
        if let Err(faults) = Program::from_bytes(&bytes) {
            prop_assert!(!faults.is_empty());
            prop_assert!(!faults.to_string().is_empty());
        }
    }
}
