//! What is too much, or not what it should be: refused with what to do about it, and nothing is lost.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod support;

use std::path::Path;
use std::process::Command;

use support::{fed, in_clean_environment, pellucid, printed, refused, scratch, text, with_input};

const PROGRAM: &str = "examples/patching.json";
/// 6.4 GB at once.
const LARGE: &str = r#"{ "pellucid": 1, "body": [{ "op": "zeros", "name": "a", "size": [40000, 40000] },
    { "op": "sum", "name": "s", "input": "a" }, { "op": "save", "name": "o", "value": "s" }] }"#;

/// The command by a shell that has done something before.
fn after(preparation: &str, arguments: &str) -> Command {
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_pellucid");
    command.args(["-c", &format!("{preparation}; exec '{program}' {arguments}")]);
    in_clean_environment(command)
}

/// The bundled model's folder, to be changed.
fn copied(without: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-gpt2/model");
    for entry in std::fs::read_dir(model).unwrap().flatten() {
        if entry.path().is_file() && entry.file_name() != without {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    folder
}

#[test]
fn a_program_larger_than_memory_is_refused_before_it_runs() {
    let (message, code) = refused(with_input(&["run", "-", "--memory", "1.5GB"], LARGE));
    assert_eq!(code, 1);
    assert!(message.contains("up to 6.40 GB at once beside the model, and 1.50 GB are there"), "{message}");
    assert!(message.contains("hint: ") && message.contains("--memory` allows more"), "{message}");
    let (message, code) = refused(pellucid(&["run", PROGRAM, "--memory", "much"]));
    assert_eq!(code, 2);
    assert!(message.contains("such as 500000000, 500MB or 1.5GiB"), "{message}");
    let remote = ["run", PROGRAM, "--memory", "1GB", "--remote", "http://127.0.0.1:9"];
    assert!(refused(pellucid(&remote)).0.contains("--memory is for a run here"));
}

#[cfg(target_os = "linux")]
#[test]
fn what_there_is_is_the_bound_where_none_is_given() {
    // Without a bound the process would be ended where the memory cannot be had.
    let (message, code) = refused(fed(after("ulimit -v 4000000", "run -"), LARGE));
    assert_eq!(code, 1, "{message}");
    assert!(message.contains("nothing was run"), "{message}");
}

#[test]
fn a_tensor_of_too_many_elements_is_refused_when_it_is_checked() {
    let (message, code) = refused(with_input(&["explain", "-"], &LARGE.replace("40000", "100000")));
    assert_eq!(code, 3);
    assert!(message.contains("of more elements than the 2147483648 that are allowed"), "{message}");
}

#[test]
fn the_simple_interpreter_prints_and_keeps_to_its_time() {
    let program = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "lengths", "name": "n" }, { "op": "print", "name": "how_many", "value": "n" } ] }] }"#;
    let output = with_input(&["run", "-", "--plan", "naive"], program);
    assert_eq!(text(&output.stderr), "how_many: 2\n");
    let (message, code) = refused(pellucid(&["run", PROGRAM, "--plan", "naive", "--seconds", "1e-6"]));
    assert_eq!(code, 1);
    assert!(message.contains("took longer than its 0.000001 s"), "{message}");
}

#[test]
fn a_time_that_is_none_is_refused() {
    for seconds in ["nan", "-1", "0"] {
        let (message, code) = refused(pellucid(&["run", PROGRAM, "--seconds", seconds]));
        assert_eq!(code, 2);
        assert!(message.contains("a number of seconds above 0"), "{message}");
    }
    let (message, code) = refused(pellucid(&["generate", "bundled", "hi", "--temperature", "-1"]));
    assert_eq!(code, 3);
    assert!(message.contains("`temperature` must be 0 (greedy)") && message.contains("hint: "), "{message}");
}

#[test]
fn a_result_that_cannot_be_written_is_shown_and_destroys_nothing() {
    let (folder, path) = scratch("results.safetensors");
    std::fs::write(&path, "what was there").unwrap();
    // No file may grow; the system says so with an error instead of a signal.
    printed(&["run", PROGRAM]);
    let run = after("trap '' XFSZ; ulimit -f 0", &format!("run {PROGRAM} -o '{}'", path.display()));
    let output = fed(run, "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("logit  f32   [3]"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("results.safetensors: "), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "what was there");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn results_do_not_replace_their_program() {
    let (folder, path) = scratch("program.json");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PROGRAM), &path).unwrap();
    let other = folder.path().join("../").join(folder.path().file_name().unwrap()).join("program.json");
    let arguments = ["run", path.to_str().unwrap(), "-o", other.to_str().unwrap()];
    let (message, code) = refused(pellucid(&arguments));
    assert_eq!(code, 1);
    assert!(message.contains("is the program itself"), "{message}");
}

#[test]
fn models_of_one_name_are_refused() {
    let twice = ["run", PROGRAM, "--model", "a=bundled", "--model", "a=bundled"];
    let (message, code) = refused(pellucid(&twice));
    assert_eq!(code, 1);
    assert!(message.contains("two models are called `a`\n  hint: "), "{message}");
    let nameless = ["run", PROGRAM, "--model", "bundled", "--model", "bundled"];
    assert!(refused(pellucid(&nameless)).0.contains("two models are given without a name"));
}

#[test]
fn an_instruction_set_that_is_none_is_an_error() {
    let (message, code) = refused(fed(after("export PELLUCID_ISA=foo", "models show"), ""));
    assert_eq!(code, 1);
    assert!(message.contains("PELLUCID_ISA=foo: not a path this CPU can run\n  hint: "), "{message}");
}

#[test]
fn a_folder_without_weights_is_shown_and_explained_and_does_not_run() {
    let folder = copied("model.safetensors");
    let path = folder.path().to_str().unwrap();
    assert!(printed(&["models", "show", path]).contains("1,071,872 parameters"));
    let explained = printed(&["explain", PROGRAM, "--model", path]);
    assert_eq!(
        explained.lines().skip(1).collect::<Vec<_>>(),
        printed(&["explain", PROGRAM]).lines().skip(1).collect::<Vec<_>>()
    );
    let (message, code) = refused(pellucid(&["run", PROGRAM, "--model", path]));
    assert_eq!(code, 1);
    assert!(message.contains("holds no `model.safetensors`"), "{message}");
}

#[test]
fn tensors_that_the_configuration_has_no_place_for_are_told() {
    let folder = copied("");
    let config = folder.path().join("config.json");
    let mut json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    json["n_layer"] = 3.into();
    std::fs::write(&config, json.to_string()).unwrap();
    let output = pellucid(&["generate", folder.path().to_str().unwrap(), "Mary", "-n", "1"]);
    assert!(output.status.success());
    let told = text(&output.stderr);
    assert!(told.starts_with("note: 12 tensors are in the files of ") && told.contains("h.3."), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}
