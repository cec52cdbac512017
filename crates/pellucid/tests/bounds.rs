//! Texts and programs that are too large are refused before they cost anything; a model without weights checks and does not run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

use std::time::{Duration, Instant};

use pellucid::{Error, Model, ModelOptions, Program, RunOptions, limits};

fn program(prompts: &[String]) -> Program {
    let text = serde_json::json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "name": "p", "prompts": prompts }],
        "body": [{ "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "o", "value": "l" }] }] });
    Program::from_json(text.to_string().as_bytes()).unwrap_or_else(|faults| panic!("{faults}"))
}

fn refused(model: &Model, program: Program) -> String {
    let began = Instant::now();
    let error = model.check(program).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(matches!(error, Error::Faults(_)), "{error}");
    error.to_string()
}

#[test]
fn a_text_that_cannot_fit_is_not_tokenised() {
    let model = Model::bundled().unwrap();
    let long = "store the John gave ".repeat(2_400);
    let message = refused(&model, program(&vec![long.clone(); 1_000]));
    assert!(
        message.contains("prompt 0 of invoke `p` has 48000 bytes, too many for the model's 128 positions"),
        "{message}"
    );
    assert!(message.contains("hint: shorten the prompt"), "{message}");
    // What might fit is tokenised and counted.
    let message = refused(&model, program(&[long[..1_500].to_owned()]));
    assert!(message.contains("positions, but the model has 128"), "{message}");
    let many = vec![long[..1_500].to_owned(); limits::TEXTS_BYTES / 1_500 + 1];
    let message = refused(&model, program(&many));
    assert!(message.contains(&format!("more than {} bytes of text", limits::TEXTS_BYTES)), "{message}");
}

#[test]
fn an_outline_checks_and_explains_and_does_not_run() {
    let folder = pellucid::bundled_folder().unwrap();
    let outline = Model::outline(&folder.to_string_lossy(), &ModelOptions::default()).unwrap();
    let checked = outline.check(program(&["Mary".to_owned()])).unwrap();
    assert_eq!(outline.explain(&checked).unwrap().passes.len(), 1);
    let options = RunOptions::default();
    for outcome in [outline.run(&checked, &options), outline.run_naive(&checked)] {
        let message = outcome.unwrap_err().to_string();
        assert!(
            message.contains("was opened without its weights") && message.contains("hint: "),
            "{message}"
        );
    }
    assert!(outline.run_together(&[(&checked, &options)]).pop().unwrap().is_err());
    let needed = checked.price.peak_bytes;
    assert!(outline.fits(&checked, needed).is_ok());
    assert!(matches!(outline.fits(&checked, needed - 1), Err(Error::TooLarge { .. })));
}
