//! Weights in safetensors: that they are found, read exactly, and that what is wrong with them is said.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use pellucid_models::Error;
use pellucid_models::weights::{Checkpoint, TensorType};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-gpt2/model")
}

/// A safetensors file of the given tensors.
fn file(tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap()));
    serialize(views, None).unwrap()
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A folder that holds `bytes` as its one file of weights.
fn folder_of(bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    folder
}

fn message(folder: &Path) -> String {
    Checkpoint::open_folder(folder).unwrap_err().to_string()
}

#[test]
fn the_bundled_model_opens_and_its_rows_are_its_tensors() {
    let checkpoint = Checkpoint::open_folder(bundled()).unwrap();
    let name = checkpoint.names().find(|name| name.ends_with("wte.weight")).unwrap().to_owned();
    let shape = checkpoint.shape(&name).unwrap().to_vec();
    assert_eq!(shape[0], 2048);
    let embedding = checkpoint.expect(&name, &shape).unwrap();
    assert_eq!(embedding.dtype, TensorType::F32);
    let all = embedding.to_f32();
    assert_eq!(all.len(), shape[0] * shape[1]);
    assert!(all.iter().any(|value| *value != 0.0));
    assert_eq!(embedding.rows_to_f32(7..9), all[7 * shape[1]..9 * shape[1]]);
    embedding.release_pages();
    assert_eq!(embedding.to_f32(), all);
}

#[test]
fn every_plain_type_is_read() {
    let values = [0.0f32, 1.5, -2.25, 65504.0];
    let f16: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    let bf16: Vec<u8> =
        [0.0f32, 1.5, -2.25, 3e38].iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
    let f64: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
    let folder = folder_of(&file(&[
        ("f32", Dtype::F32, &[2, 2], f32_bytes(&values)),
        ("f16", Dtype::F16, &[4], f16),
        ("bf16", Dtype::BF16, &[4, 1], bf16),
        ("f64", Dtype::F64, &[2, 2], f64),
        ("mask", Dtype::BOOL, &[2], vec![0, 1]),
        ("number", Dtype::F32, &[], f32_bytes(&[7.0])),
    ]));
    let checkpoint = Checkpoint::open_folder(folder.path()).unwrap();
    for name in ["f32", "f16", "f64"] {
        assert_eq!(checkpoint.get(name).unwrap().to_f32(), values, "{name}");
    }
    let bf16 = checkpoint.get("bf16").unwrap();
    assert_eq!(bf16.to_f32(), bf16.to_bf16().iter().map(|v| v.to_f32()).collect::<Vec<_>>());
    assert_eq!(bf16.to_f32()[..3], values[..3]);
    assert_eq!(bf16.rows_to_f32(1..3), values[1..3]);
    assert_eq!(checkpoint.get("number").unwrap().to_f32(), [7.0]);
    let refused = checkpoint.get("mask").unwrap_err();
    assert!(matches!(refused, Error::UnsupportedTensorType { .. }), "{refused}");
}

#[test]
fn a_missing_or_mismatched_weight_is_named_with_both_shapes() {
    let folder = folder_of(&file(&[("h.0.ln_1.weight", Dtype::F32, &[3], f32_bytes(&[1.0, 2.0, 3.0]))]));
    let checkpoint = Checkpoint::open_folder(folder.path()).unwrap();
    let message = checkpoint.expect("h.0.ln_1.wieght", &[3]).unwrap_err().to_string();
    assert!(message.contains("`h.0.ln_1.wieght` (the model needs it with shape [3])"), "{message}");
    assert!(message.contains("`h.0.ln_1.weight` [3]"), "{message}");
    let message = checkpoint.expect("h.0.ln_1.weight", &[4, 2]).unwrap_err().to_string();
    assert!(message.contains("has shape [3]") && message.contains("needs [4, 2]"), "{message}");
}

#[test]
fn shards_are_one_checkpoint_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("one.safetensors", &file(&[("a", Dtype::F32, &[1], f32_bytes(&[1.0]))]));
    write("two.safetensors", &file(&[("b", Dtype::F32, &[1], f32_bytes(&[2.0]))]));
    let index = |map: &[(&str, &str)]| {
        let map: HashMap<_, _> = map.iter().copied().collect();
        serde_json::json!({ "metadata": {}, "weight_map": map }).to_string()
    };
    write(
        "model.safetensors.index.json",
        index(&[("a", "one.safetensors"), ("b", "two.safetensors")]).as_bytes(),
    );
    let checkpoint = Checkpoint::open_folder(folder.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(checkpoint.get("b").unwrap().to_f32(), [2.0]);

    write(
        "model.safetensors.index.json",
        index(&[("a", "one.safetensors"), ("c", "three.safetensors")]).as_bytes(),
    );
    assert!(message(folder.path()).contains("1 of the 2 files it names"));
    write("model.safetensors.index.json", index(&[("a", "two.safetensors")]).as_bytes());
    assert!(message(folder.path()).contains("says it holds tensor `a`"));
    for outside in ["../one.safetensors", "/etc/passwd", "..", "", "a/b", "a\\b"] {
        write("model.safetensors.index.json", index(&[("a", outside)]).as_bytes());
        assert!(message(folder.path()).contains("which is not a file name"), "{outside}");
    }
}

#[test]
fn a_file_cut_short_anywhere_is_an_error_that_says_so() {
    let whole = file(&[
        ("first", Dtype::F32, &[2, 3], f32_bytes(&[0.0; 6])),
        ("second", Dtype::F32, &[5], f32_bytes(&[0.0; 5])),
    ]);
    for length in 0..whole.len() {
        let folder = folder_of(&whole[..length]);
        let message = message(folder.path());
        assert!(message.contains("model.safetensors"), "{length}: {message}");
    }
    let message = message(folder_of(&whole[..whole.len() - 1]).path());
    assert!(message.contains("cut short: tensor `second` [5]"), "{message}");
}

#[test]
fn hostile_headers_are_errors() {
    let headers: &[&str] = &[
        "",
        "{",
        "[]",
        "\"\"",
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}"#,
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#,
        r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#,
    ];
    for header in headers {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 8]);
        let error = Checkpoint::open_folder(folder_of(&bytes).path()).unwrap_err();
        assert!(
            matches!(error, Error::Malformed { .. } | Error::TruncatedTensor { .. }),
            "{header}: {error}"
        );
    }
    let nested = "[".repeat(1 << 20);
    let mut bytes = (nested.len() as u64).to_le_bytes().to_vec();
    bytes.extend(nested.as_bytes());
    assert!(Checkpoint::open_folder(folder_of(&bytes).path()).is_err());
    for length in [1 << 40, u64::MAX, 100_000_000] {
        let mut bytes = u64::to_le_bytes(length).to_vec();
        bytes.extend([b' '; 64]);
        assert!(message(folder_of(&bytes).path()).contains("header"));
    }
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    assert!(message(folder_of(pointer).path()).contains("git lfs pull"));
}

#[test]
fn a_folder_without_weights_says_what_it_has_instead() {
    let folder = tempfile::tempdir().unwrap();
    assert!(message(folder.path()).contains("holds no `model.safetensors`"));
    std::fs::write(folder.path().join("pytorch_model.bin"), b"").unwrap();
    assert!(message(folder.path()).contains("pickled"));
    assert!(message(&folder.path().join("nowhere")).contains("there is no such folder"));
}
