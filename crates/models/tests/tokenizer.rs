//! Tokenizers from folders.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use pellucid_models::tokenizer::Tokenizer;

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-gpt2/model")
}

fn open(folder: &Path) -> Tokenizer {
    Tokenizer::from_folder(folder).unwrap().unwrap()
}

#[test]
fn the_bundled_tokenizer_gives_the_reference_ids() {
    let text = std::fs::read_to_string(bundled().join("reference.json")).unwrap();
    let reference: serde_json::Value = serde_json::from_str(&text).unwrap();
    let tokenizer = open(&bundled());
    let mut seen = 0;
    for entry in reference.as_object().unwrap().values() {
        let Some(prompt) = entry.get("prompt").and_then(|prompt| prompt.as_str()) else { continue };
        let ids: Vec<u32> = serde_json::from_value(entry["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(prompt, true).unwrap(), ids);
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), prompt);
        let tokens: Vec<String> = serde_json::from_value(entry["tokens"].clone()).unwrap();
        assert_eq!(ids.iter().map(|id| tokenizer.token_text(*id).unwrap()).collect::<Vec<_>>(), tokens);
        assert_eq!(tokenizer.id_of(&tokens[0]), Some(ids[0]));
        seen += 1;
    }
    assert!(seen >= 2);
    assert_eq!(tokenizer.vocab_size(), 2048);
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (Some(0), Some(0)));
}

#[test]
fn streamed_text_is_the_decoded_text_and_never_half_a_character() {
    let tokenizer = open(&bundled());
    for text in ["Zoë saw 東京 🗼🇯🇵 and went — home.", "plain words", "", "🗼", "e\u{301}é"] {
        let ids = tokenizer.encode(text, false).unwrap();
        let mut stream = tokenizer.stream(&[], true);
        let mut pieces: Vec<String> = ids.iter().filter_map(|id| stream.push(*id).unwrap()).collect();
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}') && !piece.is_empty()), "{pieces:?}");
        assert_eq!(stream.finish().unwrap(), None);
        assert_eq!(pieces.concat(), text);
        pieces.clear();
    }
    // A text that ends within a character: the half is given at the end, not before.
    let ids = tokenizer.encode("a🗼", false).unwrap();
    let mut stream = tokenizer.stream(&[], true);
    let pieces: Vec<String> =
        ids[..ids.len() - 1].iter().filter_map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(pieces.concat(), "a");
    assert!(stream.finish().unwrap().unwrap().contains('\u{fffd}'));
}

#[test]
fn streaming_continues_a_context() {
    let tokenizer = open(&bundled());
    let prompt = tokenizer.encode("John gave a drink to", false).unwrap();
    let mut stream = tokenizer.stream(&prompt, true);
    let id = tokenizer.id_of("ĠMary").unwrap();
    assert_eq!(stream.push(id).unwrap().unwrap(), " Mary");
    assert_eq!(stream.push(tokenizer.eos_id().unwrap()).unwrap(), None);
}

#[test]
fn the_configuration_decides_which_special_tokens_are_added() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| std::fs::copy(bundled().join(name), folder.path().join(name)).unwrap();
    copy("tokenizer.json");
    let plain = open(&bundled()).encode("The city", true).unwrap();
    assert_eq!(open(folder.path()).encode("The city", true).unwrap(), plain);
    let config = r#"{"bos_token": {"content": "<|endoftext|>"}, "eos_token": "<|endoftext|>",
                     "add_bos_token": true, "add_eos_token": true}"#;
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    let tokenizer = open(folder.path());
    let expected: Vec<u32> = [&[0][..], &plain, &[0]].concat();
    assert_eq!(tokenizer.encode("The city", true).unwrap(), expected);
    assert_eq!(tokenizer.encode("The city", false).unwrap(), plain);
    assert_eq!(tokenizer.encode("<|endoftext|>The city", false).unwrap(), expected[..expected.len() - 1]);
    assert_eq!(tokenizer.decode(&expected, true).unwrap(), "The city");

    // The older form of folder, without a `tokenizer.json`.
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    assert!(Tokenizer::from_folder(folder.path()).unwrap().is_none());
    copy("vocab.json");
    copy("merges.txt");
    let tokenizer = open(folder.path());
    assert_eq!(tokenizer.encode("The city", true).unwrap(), expected);
    assert_eq!(tokenizer.decode(&expected, true).unwrap(), "The city");
}

#[test]
fn a_text_that_cannot_be_of_so_few_tokens_is_known_before_it_is_tokenised() {
    let tokenizer = open(&bundled());
    let longest =
        (0..tokenizer.vocab_size() as u32).filter_map(|id| Some(tokenizer.token_text(id)?.len())).max();
    let longest = longest.unwrap();
    assert!(!tokenizer.is_beyond(10 * longest, 10));
    assert!(tokenizer.is_beyond(10 * longest + 1, 10));
    // One that may leave out some of the text is given the benefit of the doubt.
    let mut json: serde_json::Value = serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap();
    json["normalizer"] = serde_json::json!({"type": "Strip", "strip_left": true, "strip_right": true});
    let strips = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
    assert!(!strips.is_beyond(10 * longest + 1, 10));
    assert!(strips.is_beyond(1000 * longest, 10));
}

#[test]
fn a_broken_tokenizer_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), b"{\"version\": \"1.0\"}").unwrap();
    assert!(Tokenizer::from_folder(folder.path()).is_err());
    assert!(Tokenizer::from_json(b"nonsense").is_err());
    // The crate that reads it takes this one, and panics when it is used.
    let mut json: serde_json::Value = serde_json::from_str(&open(&bundled()).to_json().unwrap()).unwrap();
    json["normalizer"] = serde_json::json!({"type": "Replace", "pattern": {"String": ""}, "content": "xx"});
    let broken = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
    let message = broken.encode("Hello there you", true).unwrap_err().to_string();
    assert!(message.contains("it fails on its own rules") && message.contains("hint: "), "{message}");
    let copy = Tokenizer::from_json(open(&bundled()).to_json().unwrap().as_bytes()).unwrap();
    assert_eq!(copy.encode("The city", true).unwrap(), open(&bundled()).encode("The city", true).unwrap());
}
