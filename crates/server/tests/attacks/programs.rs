//! Programs that want too much, and bytes that are none.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Service, text};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn every_attack_on_the_wire_is_refused_soon_by_http_too() {
    let service = Service::of_two();
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../graph/tests/attacks"), &mut found);
    assert!(found.len() > 60, "{}", found.len());
    for path in found {
        let bytes = std::fs::read(&path).unwrap();
        let kinds: &[&str] = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => &["application/json"],
            _ => &["application/vnd.safetensors", "application/octet-stream", "application/json"],
        };
        for kind in kinds {
            for target in ["/v1/jobs", "/v1/explain"] {
                let begun = Instant::now();
                let answer = service.ask(0, "POST", target, &[("content-type", kind)], &bytes);
                let name = path.file_name().unwrap().display().to_string();
                assert!(
                    (400..500).contains(&answer.status),
                    "{name}: {} {}",
                    answer.status,
                    text(&answer.body)
                );
                assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {:?}", begun.elapsed());
                answer.problem();
            }
        }
    }
    service.works(1);
}

/// A program of one trace with these nodes.
fn trace(nodes: &str) -> String {
    format!(
        r#"{{ "pellucid": 1, "body": [{{ "op": "trace", "invokes": [{{ "prompt": "Mary has" }}], "body": [{nodes}] }}] }}"#
    )
}

#[test]
fn sizes_beyond_all_measure_are_refused_by_their_price() {
    let service = Service::of_two();
    for nodes in [
        r#"{ "op": "zeros", "name": "z", "size": [1000000, 1000000] }, { "op": "save", "name": "s", "value": "z" }"#,
        r#"{ "op": "zeros", "name": "z", "size": [4294967296, 4294967296] }, { "op": "save", "name": "s", "value": "z" }"#,
        r#"{ "op": "zeros", "name": "z", "size": [9223372036854775807, 2, 2] }, { "op": "save", "name": "s", "value": "z" }"#,
        r#"{ "op": "zeros", "name": "z", "size": [-1] }, { "op": "save", "name": "s", "value": "z" }"#,
        r#"{ "op": "ones", "name": "a", "size": [60000, 1] }, { "op": "ones", "name": "b", "size": [1, 60000] },
           { "op": "matmul", "name": "m", "input": "a", "other": "b" }, { "op": "sum", "name": "t", "input": "m" }, { "op": "save", "name": "s", "value": "t" }"#,
        r#"{ "op": "ones", "name": "a", "size": [1] }, { "op": "expand", "name": "e", "input": "a", "size": [100000000000] },
           { "op": "exp", "name": "x", "input": "e" }, { "op": "sum", "name": "t", "input": "x" }, { "op": "save", "name": "s", "value": "t" }"#,
        r#"{ "op": "arange", "name": "a", "start": 0, "end": 1000000000000 }, { "op": "save", "name": "s", "value": "a" }"#,
        r#"{ "op": "get", "name": "l", "hook": "logits" }, { "op": "topk", "name": "k", "input": "l", "k": 9223372036854775807 }, { "op": "save", "name": "s", "value": "k" }"#,
    ] {
        let answer = service.submit(0, &trace(nodes), &[]);
        assert!(matches!(answer.status, 413 | 422), "{nodes}: {} {}", answer.status, text(&answer.body));
        assert!(matches!(answer.problem().as_str(), "too-large" | "invalid-program"));
    }
    service.works(1);
}

#[test]
fn work_that_never_ends_is_refused_or_cancelled() {
    let service = Service::start(
        &[],
        &[("ann", &["job_milliseconds=60000"]), ("bob", &["milliseconds_per_minute=none"])],
    );
    // A loop of a quarter of a million heavy steps has its price.
    let endless = r#"{ "pellucid": 1, "body": [
        { "op": "literal", "name": "start", "dtype": "f32", "shape": [], "elements": [1.0] },
        { "op": "expand", "name": "wide", "input": "start", "size": [512, 512] },
        { "op": "loop", "name": "l", "count": 60000, "carry": { "x": "wide" }, "body": [
            { "op": "matmul", "name": "y", "input": "x", "other": "x" }], "next": { "x": "y" } },
        { "op": "save", "name": "s", "value": "l" }] }"#;
    let answer = service.submit(0, endless, &[]);
    assert!(matches!(answer.status, 413 | 422), "{} {}", answer.status, text(&answer.body));
    // One that may run is cancelled while it runs, and others go before it meanwhile.
    let long = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "name": "a", "prompt": "Mary" }], "body": [
        { "op": "sweep", "name": "g", "over": [{ "k": { "range": [0, 20000] } }],
          "invokes": [{ "name": "b", "prompt": "When Mary and John went to the store, John gave a drink to" }], "body": [
            { "op": "get", "name": "h", "invoke": "b", "hook": "layers.0.output" }, { "op": "add", "name": "m", "input": "h", "other": "k" },
            { "op": "set", "invoke": "b", "hook": "layers.0.output", "value": "m" }, { "op": "get", "name": "l", "invoke": "b", "hook": "logits" },
            { "op": "amax", "name": "x", "input": "l" }], "yields": ["x"] }, { "op": "save", "name": "s", "value": "g" }] }] }"#;
    let submitted = service.submit(1, long, &[("prefer", "wait=1")]);
    assert_eq!(submitted.status, 202, "{}", text(&submitted.body));
    let id = submitted.json()["id"].as_str().unwrap().to_owned();
    let begun = Instant::now();
    service.works(0);
    assert!(begun.elapsed() < Duration::from_secs(10), "others wait for {:?}", begun.elapsed());
    let cancelled = service.ask(1, "DELETE", &format!("/v1/jobs/{id}"), &[], b"");
    assert!(matches!(cancelled.status, 200 | 202));
    let ended = service.ask(1, "GET", &format!("/v1/jobs/{id}"), &[("prefer", "wait=15")], b"").json();
    assert_eq!(ended["state"], "cancelled", "{ended}");
    service.works(1);
}

#[test]
fn logs_that_flood_are_bounded() {
    let service = Service::start(&[("admission.event_bytes", "65536")], &[("ann", &[]), ("bob", &[])]);
    let flood = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "name": "a", "prompt": "Mary" }], "body": [
        { "op": "sweep", "name": "g", "over": [{ "k": { "range": [0, 5000] } }], "body": [
            { "op": "get", "name": "l", "invoke": "a", "hook": "logits" }, { "op": "add", "name": "m", "input": "l", "other": "k" },
            { "op": "print", "name": "p", "value": "m" }, { "op": "amax", "name": "x", "input": "m" }], "yields": ["x"] },
        { "op": "save", "name": "s", "value": "g" }] }] }"#;
    let submitted = service.submit(0, flood, &[("prefer", "wait=15")]);
    if submitted.status == 413 {
        assert_eq!(submitted.problem(), "too-large");
    } else {
        let job = submitted.json();
        let id = job["id"].as_str().unwrap();
        let events = service.get(0, &format!("/v1/jobs/{id}/events"));
        assert!(events.body.len() < 1 << 20, "{} bytes of events", events.body.len());
        let told = text(&events.body);
        assert!(
            told.contains("event: gap") && told.contains("event: done"),
            "{}",
            &told[..1000.min(told.len())]
        );
    }
    service.works(1);
}

#[test]
fn numbers_that_are_none_are_json_all_the_same() {
    let service = Service::of_two();
    let program = trace(
        r#"{ "op": "literal", "name": "z", "dtype": "f32", "shape": [4], "elements": [{ "float": "nan" }, { "float": "inf" }, { "float": "-inf" }, -0.0] },
           { "op": "print", "name": "p", "value": "z" },
           { "op": "get", "name": "h", "hook": "layers.1.output" }, { "op": "mul", "name": "n", "input": "h", "other": { "float": "nan" } },
           { "op": "set", "hook": "layers.1.output", "value": "n" }, { "op": "get", "name": "l", "hook": "logits" },
           { "op": "amax", "name": "m", "input": "l" }, { "op": "save", "name": "logits", "value": "m" },
           { "op": "save", "name": "special", "value": "z" }"#,
    );
    let job = service.run(0, &program);
    assert_eq!(job["state"], "succeeded", "{job}");
    let values = |name: &str| {
        job["saved"].as_array().unwrap().iter().find(|saved| saved["name"] == name).unwrap()["values"].clone()
    };
    assert_eq!(values("special"), serde_json::json!(["nan", "inf", "-inf", -0.0]));
    assert_eq!(values("logits"), serde_json::json!(["nan"]));
    let events = text(&service.get(0, &format!("/v1/jobs/{}/events", job["id"].as_str().unwrap())).body);
    for data in events.lines().filter_map(|line| line.strip_prefix("data: ")) {
        serde_json::from_str::<Value>(data).unwrap_or_else(|error| panic!("{error}: {data}"));
    }
}

#[test]
fn what_an_account_may_not_do_it_may_do_nowhere_in_a_program() {
    let strict = "[[model]]\nid = \"bundled\"\npinned = true\ndefault = true\nstrict = true\n";
    let limits: &[&str] = &["generation=false", "training=false", "edits=false"];
    let service = Service::start_with(strict, &[], &[("ann", limits), ("bob", &[])]);
    let weight = r#"{ "op": "weight", "name": "w", "parameter": "transformer.h.0.ln_1.weight" }, { "op": "save", "name": "s", "value": "w" }"#;
    let apply = r#"{ "op": "ones", "name": "o", "size": [1, 1, 128] }, { "op": "apply", "name": "a", "module": "unembed", "input": "o" }, { "op": "save", "name": "s", "value": "a" }"#;
    let set_weight = r#"{ "op": "ones", "name": "o", "size": [128] }, { "op": "set_weight", "parameter": "transformer.h.0.ln_1.weight", "value": "o" },
        { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "s", "value": "l" }"#;
    let backward = r#"{ "op": "get", "name": "h", "hook": "layers.0.output" }, { "op": "get", "name": "l", "hook": "logits" }, { "op": "sum", "name": "t", "input": "l" },
        { "op": "backward", "name": "b", "of": "t" }, { "op": "grad", "name": "g", "backward": "b", "of": "h" }, { "op": "save", "name": "s", "value": "g" }"#;
    let nested = |nodes: &str, save: &str| {
        let (inner, _) = nodes.split_once(r#"{ "op": "save""#).unwrap();
        format!(
            r#"{{ "op": "sweep", "name": "g9", "over": [{{ "k": {{ "range": [0, 2] }} }}], "body": [{inner} {{ "op": "sum", "name": "q", "input": "{save}" }}], "yields": ["q"] }},
               {{ "op": "save", "name": "s", "value": "g9" }}"#
        )
    };
    let branch = |nodes: &str, save: &str| {
        let (inner, _) = nodes.split_once(r#"{ "op": "save""#).unwrap();
        format!(
            r#"{{ "op": "literal", "name": "yes", "dtype": "bool", "shape": [], "elements": [true] }},
               {{ "op": "cond", "name": "c", "condition": "yes", "then": {{ "body": [{inner} {{ "op": "sum", "name": "q", "input": "{save}" }}], "yields": ["q"] }},
                  "else": {{ "body": [{{ "op": "literal", "name": "zero", "dtype": "f32", "shape": [], "elements": [0.0] }}], "yields": ["zero"] }} }},
               {{ "op": "save", "name": "s", "value": "c" }}"#
        )
    };
    for (key, program) in [
        (1, trace(weight)),
        (1, trace(&nested(weight, "w"))),
        (1, trace(&branch(weight, "w"))),
        (1, trace(apply)),
        (1, trace(&nested(apply, "a"))),
        (0, trace(set_weight)),
        (0, trace(backward)),
        (0, r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "generate": { "max_new_tokens": 2 }, "body": [
            { "op": "generated", "name": "t" }, { "op": "save", "name": "s", "value": "t" }] }] }"#.to_owned()),
    ] {
        for target in ["/v1/jobs", "/v1/explain"] {
            let answer = service.ask(key, "POST", target, &[("content-type", "application/json")], program.as_bytes());
            assert_eq!(answer.status, 403, "{target} {program}: {}", text(&answer.body));
            assert_eq!(answer.problem(), "forbidden");
            assert!(answer.json()["faults"][0]["message"].is_string(), "it says which node");
        }
    }
    service.works(0);
}

#[test]
fn models_are_names_and_never_paths() {
    let service = Service::of_two();
    let long = "a/".repeat(2_000);
    for name in [
        "../bundled",
        "../../../etc/passwd",
        "/etc/passwd",
        "bundled/../bundled",
        "./bundled",
        "file:///etc/passwd",
        "C:\\\\Windows",
        "bundled\\u0000",
        "openai-community/gpt2",
        "https://example.org/x",
        "~",
        "$HOME",
        "*",
        "bundled@main",
        "bundled ",
        "",
        long.as_str(),
    ] {
        let program = format!(
            r#"{{ "pellucid": 1, "model": "{name}", "body": [{{ "op": "trace", "invokes": [{{ "prompt": "a" }}], "body": [
            {{ "op": "get", "name": "l", "hook": "logits" }}, {{ "op": "save", "name": "s", "value": "l" }}] }}] }}"#
        );
        let answer = service.submit(0, &program, &[]);
        assert!(matches!(answer.status, 404 | 422), "{name}: {} {}", answer.status, text(&answer.body));
        assert!(!text(&answer.body).contains("root:"));
    }
    for path in [
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/bundled",
        "bundled/../bundled",
        "bundled%00",
        "/bundled",
        "bundled/",
        "%ff",
        "bundled%2f..%2fbundled",
    ] {
        let answer = service.get(0, &format!("/v1/models/{path}"));
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
    }
    assert_eq!(service.get(0, "/v1/models/bundled").status, 200);
}

#[test]
fn a_strangers_words_come_back_as_words() {
    let service = Service::of_two();
    let program = trace(
        r#"{ "op": "get", "name": "l", "hook": "<script>alert(1)</script>\u001b[2J",
             "source": { "file": "</script><img src=x onerror=alert(1)>", "line": 1, "text": "\u202e\u0007" } }, { "op": "save", "name": "s", "value": "l" }"#,
    );
    let answer = service.submit(0, &program, &[]);
    assert_eq!(answer.problem(), "invalid-program");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(!answer.body.contains(&0x1b), "control characters are escaped");
    for label in ["%1b[2J", "a%0ab", &"x".repeat(201)] {
        let target = format!("/v1/jobs?label={label}");
        let answer = service.ask(
            0,
            "POST",
            &target,
            &[("content-type", "application/json")],
            crate::harness::GOOD.as_bytes(),
        );
        assert_eq!(answer.problem(), "bad-request", "{label}");
    }
}
