//! The command as its users meet it: what it prints, writes and returns.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod support;

use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use support::{command, pellucid, printed, refused, scratch, text, with_input};

const PROGRAM: &str = "examples/patching.json";

fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&printed(arguments)).unwrap()
}

#[test]
fn every_command_explains_itself() {
    let commands = [
        "",
        "demo",
        "run",
        "explain",
        "models",
        "models show",
        "lens",
        "generate",
        "jobs",
        "cancel",
        "status",
        "login",
        "serve",
        "keys",
        "keys create",
        "keys limit",
        "keys list",
        "keys log",
        "keys revoke",
        "usage",
        "config",
        "config check",
        "config example",
        "completions",
    ];
    for command in commands {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let name = format!("help_{}", command.replace(' ', "_"));
        insta::assert_snapshot!(name.trim_end_matches('_'), printed(&arguments));
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let (message, code) = refused(pellucid(&["lens", "bundled"]));
    assert_eq!(code, 2);
    assert!(message.contains("<PROMPT>"), "{message}");
}

#[test]
fn the_demo_finds_what_the_golden_experiment_holds() {
    let golden = "../../golden/experiments/activation_patching.safetensors";
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(golden)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let elements = file.tensor("residual").unwrap().data().chunks_exact(4);
    let expected = elements.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    let findings = json(&["demo", "--json"]);
    let rows = findings["restored"].as_array().unwrap().iter();
    let found: Vec<f64> =
        rows.flat_map(|row| row.as_array().unwrap()).map(|share| share.as_f64().unwrap()).collect();
    assert_eq!(found.len(), 4 * 14);
    for (place, (found, expected)) in found.into_iter().zip(expected).enumerate() {
        assert!((found - f64::from(expected)).abs() < 1e-5, "{place}: {found}, in PyTorch {expected}");
    }
}

#[test]
fn the_demo_draws_without_colours_for_a_pipe_and_writes_the_same_numbers_to_the_page() {
    let (_folder, path) = scratch("demo.html");
    let drawn = printed(&["demo", "--html", path.to_str().unwrap()]);
    assert!(!drawn.contains('\x1b'));
    let (picture, rest) = drawn.split_once("\nThe same picture").unwrap();
    insta::assert_snapshot!("demo", picture);
    assert!(rest.contains(path.to_str().unwrap()));

    let is_number = |word: &&str| word.contains('.') && word.parse::<f32>().is_ok();
    let table = picture.split("layer 3\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let numbers: Vec<&str> = table.split_whitespace().filter(is_number).collect();
    let page = std::fs::read_to_string(&path).unwrap();
    let cells: Vec<&str> =
        page.split("</td>").filter_map(|cell| Some(cell.rsplit_once("comes back\">")?.1)).collect();
    assert_eq!(cells.len(), 4 * 14);
    assert_eq!(cells, numbers);
}

#[test]
fn a_page_that_cannot_be_written_is_an_error() {
    let output = pellucid(&["demo", "--html", "/nowhere/at/all.html"]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.starts_with("error: /nowhere/at/all.html: "), "{message}");
}

#[test]
fn a_program_runs_and_its_results_are_written() {
    let (_folder, path) = scratch("results.safetensors");
    let summary = json(&["run", PROGRAM, "--json", "--output", path.to_str().unwrap()]);
    assert_eq!(summary["saved"][1]["name"], "token");
    assert_eq!(summary["saved"][1]["first"][0], 829.0, "the token of ` Mary`");
    assert_eq!(summary["report"]["passes"], 1);
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("logit").unwrap().shape(), [3]);

    let naive = json(&["run", PROGRAM, "--json", "--plan", "naive"]);
    assert_eq!(naive["saved"], summary["saved"]);
}

#[test]
fn a_program_can_come_by_standard_input() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PROGRAM);
    let output = with_input(&["run", "-"], &std::fs::read_to_string(path).unwrap());
    assert!(output.status.success());
    let shown = text(&output.stdout);
    let (table, run) = shown.split_once("\n\n").unwrap();
    insta::assert_snapshot!(table, @r"
    saved  type  shape  min     mean      max      first
    logit  f32   [3]    8.3760  11.8429   18.7155  18.7155 8.4373 8.3760
    token  i64   [3]    829     869.3333  916      829 916 863
    ");
    assert!(run.starts_with("tiny-gpt2: 1 pass, 19 tokens, "), "{run}");
}

#[test]
fn what_a_branch_that_did_not_run_would_have_saved_is_said_to_be_absent() {
    let program = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "The capital of France is" }], "body": [
        { "op": "literal", "name": "no", "dtype": "bool", "shape": [], "elements": [false] },
        { "op": "get", "name": "h", "hook": "layers.1.output" },
        { "op": "cond", "name": "c", "condition": "no",
          "then": { "body": [{ "op": "save", "name": "x", "value": "h" }] },
          "else": { "body": [{ "op": "save", "name": "y", "value": "h" }] } }] }] }"#;
    let output = with_input(&["run", "-"], program);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(printed.contains("x  absent: its step or its branch did not run"), "{printed}");
    assert!(printed.contains("y") && !printed.contains("generation"), "{printed}");
}

#[test]
fn logs_go_to_standard_error_while_the_program_runs() {
    let program = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "lengths", "name": "n" }, { "op": "print", "name": "how_many", "value": "n" } ] }] }"#;
    let output = with_input(&["run", "-"], program);
    assert_eq!(text(&output.stderr), "how_many: 2\n");
}

#[test]
fn a_plan_is_explained() {
    insta::assert_snapshot!("explain", printed(&["explain", PROGRAM]));
    assert_eq!(json(&["explain", PROGRAM, "--json"])["passes"].as_array().unwrap().len(), 1);
}

#[test]
fn a_plan_tells_which_traces_run_together() {
    let patched = |layer: usize| {
        let text = r#"{ "op": "trace", "invokes": [{ "prompt": "The capital of Japan is" }], "body": [
                { "op": "get", "name": "own_LAYER", "hook": "layers.LAYER.output" },
                { "op": "index_put", "name": "put_LAYER", "input": "own_LAYER", "index": [":", -1], "values": "state" },
                { "op": "set", "hook": "layers.LAYER.output", "value": "put_LAYER" },
                { "op": "get", "name": "logits_LAYER", "hook": "logits" },
                { "op": "getitem", "name": "last_LAYER", "input": "logits_LAYER", "index": [":", -1] },
                { "op": "argmax", "name": "token_LAYER", "input": "last_LAYER", "dim": -1 },
                { "op": "save", "name": "said_LAYER", "value": "token_LAYER" }] }"#;
        text.replace("LAYER", &layer.to_string())
    };
    let traces: Vec<String> = (0..3).map(patched).collect();
    let program = format!(
        r#"{{ "pellucid": 1, "body": [{{ "op": "trace", "invokes": [{{ "prompt": "The capital of France is" }}], "body": [
            {{ "op": "get", "name": "h", "hook": "layers.1.output" }},
            {{ "op": "getitem", "name": "state", "input": "h", "index": [":", -1] }}] }}, {}] }}"#,
        traces.join(",")
    );
    let output = with_input(&["explain", "-"], &program);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert!(told.contains(", traces 2 to 4 together)"), "{told}");
}

#[test]
fn a_plan_is_drawn_as_a_page_that_stands_alone() {
    let (_folder, path) = scratch("plan.html");
    let told = printed(&["explain", PROGRAM, "--html", path.to_str().unwrap()]);
    let (text, rest) = told.split_once("\nThe same, drawn: ").unwrap();
    assert_eq!((text, rest.trim()), (printed(&["explain", PROGRAM]).as_str(), path.to_str().unwrap()));
    let page = std::fs::read_to_string(&path).unwrap();
    for elsewhere in ["http:", "https:", "//", "<script", "url(", "@import"] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    insta::assert_snapshot!("explain_html", page.split_once("<main>").unwrap().1);
}

#[test]
fn a_plan_is_analysed_by_running_it() {
    let told = printed(&["explain", PROGRAM, "--analyze"]);
    let line = |beginning: &str| told.lines().find(|line| line.starts_with(beginning)).unwrap();
    assert!(line("measured: ").contains(" GFLOP/s), estimated at "), "{told}");
    assert!(told.contains("\n  20.9 M operations, ") && told.contains(" moved, in "), "{told}");
    // But for what was measured it is the plan.
    let is_measured = |line: &&str| !line.starts_with("measured: ") && !line.contains(" moved, in ");
    let untimed: Vec<&str> = told.lines().filter(is_measured).collect();
    assert_eq!(untimed.join("\n") + "\n", printed(&["explain", PROGRAM]));

    let (_folder, path) = scratch("plan.html");
    let plan = json(&["explain", PROGRAM, "--analyze", "--json", "--html", path.to_str().unwrap()]);
    let pass = &plan["passes"][0];
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let (ms, flops) = (number(&pass["measured_ms"]), number(&pass["flops"]));
    assert!(number(&pass["estimated_ms"]) > 0.0);
    assert!((number(&pass["gigaflops"]) - flops / ms / 1e6).abs() < 1e-9 && ms > 0.0);
    assert!(number(&plan["measured"]["ms"]) >= ms && number(&plan["measured"]["naive_ms"]) > 0.0);
    assert!(std::fs::read_to_string(&path).unwrap().contains(" GFLOP/s"));

    let (message, code) =
        refused(pellucid(&["explain", PROGRAM, "--analyze", "--remote", "http://127.0.0.1:9"]));
    assert_eq!(code, 1);
    assert!(message.contains("--analyze is for a run here") && message.contains("hint: "), "{message}");
    let (message, _) = refused(pellucid(&["explain", PROGRAM, "--html", "/nowhere/at/all.html"]));
    assert!(message.contains("there is no folder ") && message.contains("nothing was run"), "{message}");
}

#[test]
fn what_is_wrong_with_a_program_is_said_with_hints_and_exit_code_3() {
    let program = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "get", "name": "late", "hook": "layers.3.output" },
        { "op": "set", "name": "early", "hook": "layers.1.input", "value": "late",
          "source": { "file": "notebook.py", "line": 7, "text": "model.layers[1].input = late" } },
        { "op": "get", "name": "pattern", "hook": "layers.1.attention.patern" },
        { "op": "save", "name": "saved", "value": "pattern" } ] }] }"#;
    let (message, code) = refused(with_input(&["run", "-"], program));
    assert_eq!(code, 3);
    insta::assert_snapshot!("faults", message);
}

#[test]
fn a_second_model_is_called_by_the_name_that_it_was_given() {
    let program = r#"{ "pellucid": 1, "body": [
        { "op": "trace", "model": "teacher", "invokes": [{ "prompt": "Mary has" }], "body": [
            { "op": "get", "name": "t", "hook": "logits" } ] },
        { "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
            { "op": "get", "name": "l", "hook": "logits" }, { "op": "sub", "name": "d", "input": "l", "other": "t" },
            { "op": "amax", "name": "most", "input": "d" }, { "op": "save", "name": "gap", "value": "most" } ] }] }"#;
    let both = with_input(&["run", "-", "--model", "teacher=bundled", "--json"], program);
    let summary: serde_json::Value = serde_json::from_slice(&both.stdout).unwrap();
    assert_eq!(summary["saved"][0]["max"], 0.0);
    assert_eq!(summary["provenance"]["others"][0]["name"], "teacher");
    let (message, code) = refused(with_input(&["run", "-"], program));
    assert_eq!(code, 3);
    assert!(message.contains("no model is loaded as `teacher`"), "{message}");
}

#[test]
fn what_was_saved_before_a_failure_is_written_all_the_same() {
    let program = r#"{ "pellucid": 1, "body": [
        { "op": "trace", "name": "first", "invokes": [{ "prompt": "Mary has" }], "body": [
            { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "early", "value": "l" } ] },
        { "op": "trace", "name": "second", "invokes": [{ "prompt": "Mary has" }], "body": [
            { "op": "get", "name": "h", "hook": "logits" },
            { "op": "literal", "name": "far", "dtype": "i64", "shape": [1], "elements": [99999] },
            { "op": "getitem", "name": "one", "input": "h", "index": [0, 0, { "tensor": "far" }] },
            { "op": "save", "name": "late", "value": "one" } ] }] }"#;
    let (_folder, path) = scratch("kept.safetensors");
    let (message, code) = refused(with_input(&["run", "-", "-o", path.to_str().unwrap()], program));
    assert_eq!(code, 1);
    assert!(message.starts_with("what was saved before the failure is written to "), "{message}");
    assert!(
        message.contains("in trace `second`; what the traces before it saved is kept: `early`"),
        "{message}"
    );
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.names(), ["early"]);
}

#[test]
fn a_run_whose_results_cannot_be_written_does_not_begin() {
    let (folder, path) = scratch("nowhere/results.safetensors");
    // The program itself is not even read.
    let (message, code) = refused(pellucid(&["run", "nowhere.json", "-o", path.to_str().unwrap()]));
    assert_eq!(code, 1);
    assert!(message.contains("there is no folder ") && message.ends_with("nothing was run\n"), "{message}");
    let (message, _) = refused(pellucid(&["run", "nowhere.json", "-o", folder.path().to_str().unwrap()]));
    assert!(message.contains("is a folder; results are written to a file"), "{message}");
}

#[test]
fn a_lens_on_nothing_says_so() {
    let (message, code) = refused(pellucid(&["lens", "bundled", ""]));
    assert_eq!(
        (message.as_str(), code),
        ("error: the prompt has no tokens: there is nothing to look into\n", 1)
    );
}

#[test]
fn what_is_no_program_says_where_and_is_exit_code_3() {
    let (message, code) =
        refused(with_input(&["explain", "-"], r#"{ "pellucid": 1, "body": [{ "op": "trase" }] }"#));
    assert_eq!(code, 3);
    insta::assert_snapshot!(message, @r"
    error: standard input is not a program

    `n0`: there is no operation `trase`
      at /body/0/op
      hint: did you mean `trace`?
    ");
}

#[test]
fn what_is_not_there_is_exit_code_1() {
    let (message, code) = refused(pellucid(&["run", "nowhere.json"]));
    assert_eq!(
        (message.as_str(), code),
        ("error: nowhere.json: No such file or directory (os error 2)\n", 1)
    );
    let (message, code) = refused(pellucid(&["lens", "./nowhere", "x"]));
    assert_eq!(code, 1);
    assert!(message.starts_with("error: ") && message.contains("./nowhere"), "{message}");
}

#[test]
fn a_gguf_files_own_blocks_give_the_results_of_f32_and_other_models_have_none() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/gguf/quantised-llama.gguf");
    let program = r#"{"pellucid":1,"body":[{"op":"trace","invokes":[{"name":"p","tokens":[[3,1,4,1,5]]}],"body":[
        {"op":"get","name":"l","hook":"logits"},{"op":"save","name":"logits","value":"l"}]}]}"#;
    let (folder, written) = scratch("program.json");
    std::fs::write(&written, program).unwrap();
    let bytes = |dtype: &str| {
        let out = folder.path().join(dtype);
        let arguments =
            [written.to_str().unwrap(), "--model", file.to_str().unwrap(), "--dtype", dtype, "--output"];
        printed(&[&["run"], &arguments[..], &[out.to_str().unwrap()]].concat());
        let bytes = std::fs::read(out).unwrap();
        safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor("logits").unwrap().data().to_vec()
    };
    assert_eq!(bytes("quantised"), bytes("f32"));
    assert_ne!(bytes("bf16"), bytes("f32"));
    let (message, code) = refused(pellucid(&["lens", "bundled", "When", "--dtype", "quantised"]));
    assert_eq!(code, 1);
    assert!(message.contains("no quantised weights") && message.contains("choose `f32`"), "{message}");
}

#[test]
fn modules_are_shown_folded_or_all() {
    let folded = printed(&["models", "show"]);
    assert!(folded.starts_with("tiny-gpt2 (gpt2): 1,071,872 parameters, f32\n"), "{folded}");
    assert!(folded.contains("0 … 3 (4 alike)") && folded.contains("198,272 each"), "{folded}");
    assert_eq!(folded.matches(".pattern").count(), 1);
    let all = printed(&["models", "show", "bundled", "--all"]);
    assert!(!all.contains("alike"), "{all}");
    assert_eq!(all.matches(".pattern").count(), 4);
    let spec = json(&["models", "show", "models/tiny-gpt2/model", "--json"]);
    assert_eq!(spec["sizes"]["layers"], 4);
}

#[test]
fn the_lens_sees_the_answer_before_the_end() {
    let prompt = "The Eiffel Tower is in the city of";
    insta::assert_snapshot!("lens", printed(&["lens", "bundled", prompt]));
    let table = json(&["lens", "bundled", prompt, "--json", "--top", "2"]);
    let last = &table["layers"][4]["positions"][9];
    assert_eq!(last.as_array().unwrap().len(), 2);
    assert_eq!(last[0]["token"], " Paris");
    assert!(last[0]["probability"].as_f64().unwrap() > 0.99);
    assert_eq!(printed(&["lens", "bundled", "Mary", "--top", "3"]).lines().count(), 1 + 5 * 3);
}

#[test]
fn text_is_generated() {
    let prompt = "The movie was awful. I";
    assert_eq!(printed(&["generate", "bundled", prompt, "-n", "3"]), " hated it.\n");
    assert_eq!(text(&with_input(&["generate", "bundled", "-", "-n", "3"], prompt).stdout), " hated it.\n");
    let generated = json(&["generate", "bundled", prompt, "-n", "3", "--json"]);
    assert_eq!(generated["text"], " hated it.");
    assert_eq!(generated["tokens"].as_array().unwrap().len(), 3);
    let drawn = |seed| {
        printed(&["generate", "bundled", "When Mary", "-n", "12", "--temperature", "2", "--seed", seed])
    };
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
}

#[test]
fn a_generation_that_cannot_be_is_refused_before_it_begins() {
    let (message, code) = refused(pellucid(&["generate", "bundled", "hi", "--top-p", "2"]));
    assert_eq!(code, 3);
    insta::assert_snapshot!(message, @r"
    error: `trace_0`: `top_p` must be above 0 and at most 1
      hint: 0.9 is usual; left out: all tokens
    ");
    let (message, code) = refused(pellucid(&["generate", "bundled", "hi", "--chat"]));
    assert_eq!(code, 1);
    insta::assert_snapshot!(message, @r"
    error: `tiny-gpt2` came without a chat template
      hint: give the prompt as plain text
    ");
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(printed(&["completions", shell]).contains("max-new-tokens"), "{shell}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut command = command(&["models", "show", "--all"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut message = String::new();
    child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
    assert_eq!((message.as_str(), child.wait().unwrap().code()), ("", Some(0)));
}
