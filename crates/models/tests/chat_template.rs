//! Chat templates write what transformers writes.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use pellucid_models::Error;
use pellucid_models::chat_template::{ChatTemplate, Message};
use pellucid_models::tokenizer::SpecialTokens;
use serde_json::{Value, json};

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn special() -> SpecialTokens {
    SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), unk: None, pad: None }
}

#[test]
fn conversations_are_written_as_transformers_writes_them() {
    let golden = golden("chats.json");
    let mut refused = 0;
    for case in golden["cases"].as_array().unwrap() {
        let source = golden["templates"][case["template"].as_str().unwrap()].as_str().unwrap();
        let conversation = &golden["conversations"][case["conversation"].as_str().unwrap()];
        let template = ChatTemplate::new(source, &special());
        let prompt = case["add_generation_prompt"].as_bool().unwrap();
        let ours = template.apply_with(&conversation["messages"], prompt, &conversation["variables"]);
        match case["text"].as_str() {
            Some(theirs) => assert_eq!(ours.unwrap(), theirs, "{case}"),
            None => {
                refused += 1;
                assert!(ours.is_err(), "{case}");
                let message = case["error"].as_str().unwrap();
                // What a template itself says is passed on; how an interpreter complains is its own affair.
                if source.contains(message) {
                    assert!(ours.unwrap_err().to_string().contains(message), "{case}");
                }
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn smollm2_is_written_as_transformers_writes_it() {
    // The template of the GGUF file and of the model's own repository.
    let source = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    let template = ChatTemplate::new(source, &SpecialTokens::default());
    let reference = golden("gguf/smollm2-135m-instruct.json");
    for chat in reference["chats"].as_array().unwrap() {
        let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
        let prompt = chat["add_generation_prompt"].as_bool().unwrap();
        assert_eq!(template.apply(&messages, prompt).unwrap(), chat["text"].as_str().unwrap());
    }
}

#[test]
fn a_folder_gives_its_template() {
    let folder = tempfile::tempdir().unwrap();
    let open = || ChatTemplate::from_folder(folder.path(), &special()).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    assert!(open().is_none());
    write("tokenizer_config.json", &json!({ "chat_template": "plain {{ bos_token }}" }).to_string());
    assert_eq!(open().unwrap().apply(&[], false).unwrap(), "plain <s>");
    let several = json!([{ "name": "tool_use", "template": "no" }, { "name": "default", "template": "yes" }]);
    write("tokenizer_config.json", &json!({ "chat_template": several }).to_string());
    assert_eq!(open().unwrap().source(), "yes");
    write("chat_template.jinja", "from its own file\n");
    assert_eq!(open().unwrap().apply(&[], false).unwrap(), "from its own file");
}

#[test]
fn the_date_can_be_fixed() {
    let template = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}", &special());
    let at = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(951_827_696);
    assert_eq!(template.at(at).apply(&[], false).unwrap(), "29 Feb 2000");
}

#[test]
fn what_cannot_be_a_template_or_does_not_end_is_an_error() {
    let error = ChatTemplate::new("{% for %}", &special()).apply(&[], false).unwrap_err();
    assert!(matches!(error, Error::ChatTemplate { .. }));
    assert!(ChatTemplate::new(&" ".repeat(1 << 21), &special()).apply(&[], false).is_err());
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x\
                   {% endfor %}{% endfor %}{% endfor %}";
    let message = ChatTemplate::new(endless, &special()).apply(&[], false).unwrap_err().to_string();
    assert!(message.contains("steps"), "{message}");
    for hostile in [
        "{{ 'x' * 99999999999 }}",
        "{{ range(99999999999) | list }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ messages.missing.attribute }}",
    ] {
        assert!(ChatTemplate::new(hostile, &special()).apply(&[], false).is_err(), "{hostile}");
    }
}
