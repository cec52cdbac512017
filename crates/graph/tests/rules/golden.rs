//! Every golden case: the rule gives the shapes and number types that PyTorch gave, and refuses what it refused.

use std::collections::HashMap;
use std::path::PathBuf;

use pellucid_graph::{DType, TensorType};
use serde_json::{Map, Value as Json, json};

use crate::support::{apply, outputs, read};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/operations").join(name)
}

fn parsed(name: &str) -> Json {
    let text = std::fs::read_to_string(file(name)).expect("the golden file is there");
    serde_json::from_str(&text).expect("the golden file is JSON")
}

/// The types of the tensors in the golden file.
fn tensors() -> HashMap<String, TensorType> {
    let bytes = std::fs::read(file("operations.safetensors")).expect("the golden file is there");
    let (_, metadata) =
        safetensors::SafeTensors::read_metadata(&bytes).expect("the golden file is safetensors");
    let dtype = |dtype| match dtype {
        safetensors::Dtype::F64 => DType::F64,
        safetensors::Dtype::F32 => DType::F32,
        safetensors::Dtype::BF16 => DType::Bf16,
        safetensors::Dtype::F16 => DType::F16,
        safetensors::Dtype::I64 => DType::I64,
        safetensors::Dtype::I32 => DType::I32,
        safetensors::Dtype::U8 => DType::U8,
        safetensors::Dtype::BOOL => DType::Bool,
        other => panic!("no such number type: {other:?}"),
    };
    let typed = |info: &safetensors::tensor::TensorInfo| {
        let shape: Vec<u64> = info.shape.iter().map(|&size| size as u64).collect();
        TensorType::known(dtype(info.dtype), &shape)
    };
    metadata.tensors().into_iter().map(|(name, info)| (name, typed(info))).collect()
}

#[test]
fn shapes_and_number_types_of_every_case_are_pytorchs() {
    let tensors = tensors();
    let cases = parsed("operations.json");
    let mut wrong = Vec::new();
    let mut covered = std::collections::BTreeSet::new();
    for case in cases.as_array().expect("a list of cases") {
        let operation = case["operation"].as_str().expect("a name");
        covered.insert(operation.to_owned());
        let expected = match &case["expected"] {
            Json::Array(list) => list.clone(),
            one => vec![one.clone()],
        };
        let expected: Vec<_> =
            expected.iter().map(|key| tensors[key.as_str().expect("a key")].clone()).collect();
        let call = read(operation, &case["arguments"], &|key| tensors.get(key).cloned());
        match apply(&call) {
            Ok(typed) if typed.outputs == expected => {}
            other => wrong.push(format!("{}: expected {expected:?}, got {other:?}", case["name"])),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let all = pellucid_graph::operation::table().iter().map(|definition| definition.name);
    let noise = ["randn", "rand", "randint", "randperm"];
    let missing: Vec<_> = all.filter(|name| !covered.contains(*name) && !noise.contains(name)).collect();
    assert!(missing.is_empty(), "no golden case of {missing:?}");
}

fn object(json: &Json) -> &Map<String, Json> {
    json.as_object().expect("an object")
}

/// The number type that came out, or null where the rule refuses.
fn dtype_of(operation: &str, arguments: Json) -> Json {
    let text = outputs(operation, arguments);
    if text.starts_with("error") { Json::Null } else { json!(text.split('[').next()) }
}

#[test]
fn number_types_promote_as_in_pytorch() {
    let tables = parsed("promotion.json");
    let numbers = json!({"bool": true, "int": 1, "float": 1.0});
    let mut wrong = Vec::new();
    let mut compared = 0;
    let mut compare = |what: String, expected: &Json, found: Json| {
        compared += 1;
        if *expected != found {
            wrong.push(format!("{what}: expected {expected}, got {found}"));
        }
    };
    for (table, rows) in object(&tables["result_type"]) {
        for (row, columns) in object(rows) {
            for (column, expected) in object(columns) {
                // Addition gives the promoted type as it is.
                let input =
                    if table.starts_with("tensor") { format!("{row}[2]") } else { format!("{row}[]") };
                let other = match numbers.get(column).filter(|_| table.ends_with("number")) {
                    Some(number) => number.clone(),
                    None if table.ends_with("zero_dim") => json!(format!("{column}[]")),
                    None => json!(format!("{column}[2]")),
                };
                let found = dtype_of("add", json!({"input": input, "other": other}));
                compare(format!("{table} {row} {column}"), expected, found);
            }
        }
    }
    for (operation, row) in object(&tables["one_tensor"]) {
        for (dtype, expected) in object(row) {
            let mut arguments = json!({"input": format!("{dtype}[2, 2]")});
            let along = ["logsumexp", "cumsum", "cumprod", "softmax", "log_softmax"];
            if along.contains(&operation.as_str()) {
                arguments["dim"] = json!(0);
            }
            compare(format!("{operation} {dtype}"), expected, dtype_of(operation, arguments));
        }
    }
    for group in ["two_tensors", "tensor_and_number"] {
        for (operation, rows) in object(&tables[group]) {
            for (row, columns) in object(rows) {
                for (column, expected) in object(columns) {
                    let first = json!(format!("{row}[2, 2]"));
                    let second = match group {
                        "two_tensors" => json!(format!("{column}[2, 2]")),
                        _ => numbers[column].clone(),
                    };
                    let mask = json!("bool[2, 2]");
                    let arguments = match operation.as_str() {
                        "where" => json!({"condition": mask, "input": first, "other": second}),
                        "masked_fill" => json!({"input": first, "mask": mask, "value": second}),
                        "clamp" => json!({"input": first, "min": second}),
                        "cat" => json!({"tensors": [first, second]}),
                        "pow" => json!({"input": first, "exponent": second}),
                        _ => json!({"input": first, "other": second}),
                    };
                    compare(format!("{operation} {row} {column}"), expected, dtype_of(operation, arguments));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 1500, "only {compared} entries: the tables have shrunk");
}

#[test]
fn random_arguments_are_taken_and_refused_as_in_pytorch() {
    let mut wrong = Vec::new();
    for case in parsed("shapes.json").as_array().expect("a list of cases") {
        let (operation, arguments) = (case[0].as_str().expect("a name"), case[1].clone());
        let expected = match &case[2] {
            Json::Array(outputs) => outputs.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(" "),
            _ => "error".to_owned(),
        };
        let found = outputs(operation, arguments.clone());
        if found.strip_prefix("error").map_or(found.as_str(), |_| "error") != expected {
            wrong.push(format!("{operation} {arguments}: expected {expected}, got {found}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}
