//! How a model may be named.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use pellucid_models::weights::Source;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn message(text: &str) -> String {
    Source::parse(text).unwrap_err().to_string()
}

#[test]
fn a_folder_is_opened_with_all_it_has() {
    let folder = root("models/tiny-gpt2/model");
    let files = Source::resolve(folder.to_str().unwrap()).unwrap();
    assert_eq!(files.config["model_type"], "gpt2");
    assert_eq!(files.tokenizer.unwrap().eos_id(), Some(0));
    assert!(files.generation_config.is_some());
    assert!(files.checkpoint.names().count() > 20);
    assert_eq!((files.revision, files.origin), (None, folder.display().to_string()));
    assert_eq!(files.name, "model");
}

#[test]
fn a_gguf_file_is_opened_with_all_it_has() {
    let files = Source::resolve(root("golden/gguf/gemma3.gguf").to_str().unwrap()).unwrap();
    assert_eq!(files.config["model_type"], "gemma3_text");
    assert!(files.checkpoint.contains("model.layers.0.self_attn.q_norm.weight"));
    assert!(files.tokenizer.is_none() && files.chat_template.is_none());
}

#[test]
fn a_folder_of_one_gguf_file_is_that_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::copy(root("golden/gguf/gpt2.gguf"), &path).unwrap();
    assert_eq!(Source::parse(folder.path().to_str().unwrap()).unwrap(), Source::Gguf(path));
    std::fs::copy(root("golden/gguf/gpt2.gguf"), folder.path().join("another.gguf")).unwrap();
    let message = Source::resolve(folder.path().to_str().unwrap()).unwrap_err().to_string();
    assert!(message.contains("config.json"), "{message}");
}

#[test]
fn names_are_paths_or_a_hubs() {
    assert!(matches!(Source::parse("owner/model@main").unwrap(), Source::Hub(_)));
    assert!(matches!(Source::parse("gpt2").unwrap(), Source::Hub(_)));
    assert!(matches!(Source::parse(env!("CARGO_MANIFEST_DIR")).unwrap(), Source::Folder(_)));
}

#[test]
fn a_mistyped_path_is_said_to_be_one() {
    for path in ["./no/such/model", "/no/such/model", "../no-such-model", "~/model", "model/", "a\\b"] {
        let message = message(path);
        assert!(message.contains("there is no such file or folder"), "{message}");
    }
    let near = root("golden/gguf/gemma.gguf");
    let message = message(near.to_str().unwrap());
    assert!(message.contains("no such file") && message.contains("did you mean"), "{message}");
    assert!(message.contains("gemma2.gguf"), "{message}");
}

#[test]
fn what_is_neither_says_what_would_be() {
    assert!(message("a/b/c").contains("`owner/name`"));
    assert!(message("two words").contains("`owner/name`"));
    let file = root("models/tiny-gpt2/model/model.safetensors");
    assert!(message(file.to_str().unwrap()).contains("name the folder it lies in"));
    assert!(message(root("Cargo.toml").to_str().unwrap()).contains("not a GGUF file"));
}
