//! One account never learns of another's jobs.

use serde_json::Value;

use crate::harness::{GOOD, Service, text};

/// An answer without what is its own: the name of the request.
fn anonymous(service: &Service, method: &str, target: &str) -> (u16, Value) {
    let answer = service.ask(1, method, target, &[], b"");
    let mut body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    if let Some(body) = body.as_object_mut() {
        body.remove("instance");
    }
    (answer.status, body)
}

#[test]
fn another_accounts_job_is_as_one_that_never_was() {
    let service = Service::of_two();
    let job = service.run(0, GOOD);
    let id = job["id"].as_str().unwrap();
    // One of the same form that there is not.
    let other: String = id.chars().rev().collect::<String>().chars().take(id.len() - 4).collect();
    let never = format!("job_{other}");
    for (method, path) in
        [("GET", ""), ("GET", "/events"), ("GET", "/result"), ("DELETE", ""), ("DELETE", "?erase=true")]
    {
        let there = anonymous(&service, method, &format!("/v1/jobs/{id}{path}"));
        let never = anonymous(&service, method, &format!("/v1/jobs/{never}{path}"));
        assert_eq!(there.0, 404, "{method} {path}: {there:?}");
        assert_eq!(there, never, "{method} {path}");
    }
    let own = service.get(0, &format!("/v1/jobs/{id}")).json();
    assert_eq!(own["state"], "succeeded", "what somebody else tried has changed nothing");
    assert_eq!(service.get(1, "/v1/jobs").json()["jobs"], Value::Array(Vec::new()));
    let after = service.get(1, &format!("/v1/jobs?after={id}"));
    assert!(after.status >= 400 || after.json()["jobs"] == Value::Array(Vec::new()), "{}", text(&after.body));
    assert_eq!(service.get(1, "/v1/usage").json()["days"], Value::Array(Vec::new()));
    assert_eq!(service.get(1, "/v1/account").json()["used"]["milliseconds_minute"], 0.0);
}

#[test]
fn another_accounts_idempotency_key_means_nothing() {
    let service = Service::of_two();
    let submit = |key: usize| service.submit(key, GOOD, &[("idempotency-key", "the-same")]);
    let (ann, bob) = (submit(0), submit(1));
    assert_eq!((ann.status, bob.status), (202, 202));
    assert_ne!(ann.json()["id"], bob.json()["id"]);
    assert_eq!(bob.header("idempotency-replayed"), None);
    assert_eq!(submit(0).header("idempotency-replayed"), Some("true"));
}

#[test]
fn ids_that_are_none_lead_nowhere() {
    let service = Service::of_two();
    let long = format!("job_{}", "a".repeat(20_000));
    for id in [
        "..",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "job_",
        "job_%00aaaaaaaaaaaaaaaaaaaaaaaaa",
        "JOB_AAAAAAAAAAAAAAAAAAAAAAAAAA",
        "job_'%20OR%20'1'='1",
        "job_aaaaaaaaaaaaaaaaaaaaaaaaaa%0d%0aset-cookie:%20a",
        "%F0%9F%92%A9",
        "%ff%fe",
        long.as_str(),
        "*",
        "%25",
    ] {
        for path in ["", "/events", "/result"] {
            let answer = service.get(0, &format!("/v1/jobs/{id}{path}"));
            assert!((400..500).contains(&answer.status), "{id}{path}: {}", answer.status);
            assert!(answer.header("set-cookie").is_none());
        }
    }
    service.works(0);
}

#[test]
fn a_model_that_one_may_not_use_is_as_one_that_there_is_not() {
    let file = "[[model]]\nid = \"bundled\"\npinned = true\ndefault = true\n[[model]]\nid = \"secret-model\"\nsource = \"bundled\"\n";
    let service = Service::start_with(file, &[], &[("ann", &[]), ("bob", &["models=bundled"])]);
    assert_eq!(service.get(0, "/v1/models/secret-model").status, 200);
    let told = |target: &str| {
        let answer = service.get(1, target);
        assert_eq!(answer.problem(), "unknown-model");
        text(&answer.body)
    };
    assert!(
        !told("/v1/models/secret-mode").contains("secret-model\""),
        "nearest names are told of one's own models only"
    );
    let there = told("/v1/models/secret-model").replace("secret-model", "X");
    let never = told("/v1/models/sacred-model").replace("sacred-model", "X");
    let without_instance = |text: &str| {
        let mut value: Value = serde_json::from_str(text).unwrap();
        value.as_object_mut().unwrap().remove("instance");
        value
    };
    assert_eq!(without_instance(&there), without_instance(&never));
    for body in ["/v1/models", "/v1/status"] {
        assert!(!text(&service.get(1, body).body).contains("secret-model"), "{body}");
    }
    for target in ["/v1/jobs?model=secret-model", "/v1/explain?model=secret-model"] {
        let answer = service.ask(1, "POST", target, &[("content-type", "application/json")], GOOD.as_bytes());
        assert_eq!(answer.problem(), "unknown-model", "{target}");
    }
    let encode = br#"{"model": "secret-model", "texts": ["a"]}"#;
    let answer = service.ask(1, "POST", "/v1/encode", &[("content-type", "application/json")], encode);
    assert_eq!(answer.problem(), "unknown-model");
}

#[test]
fn what_a_neighbour_does_changes_no_bit() {
    let service = Service::of_two();
    let alone = service.run(0, GOOD)["saved"].clone();
    let hostile = [
        // Setters at every layer, infinities, NaN, an index that is out of range.
        r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
            { "op": "literal", "name": "i", "dtype": "f32", "shape": [], "elements": [{ "float": "inf" }] },
            { "op": "set", "hook": "layers.*.output", "value": "i" },
            { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "s", "value": "l" }] }] }"#,
        r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
            { "op": "get", "name": "h", "hook": "layers.0.output" }, { "op": "mul", "name": "n", "input": "h", "other": { "float": "nan" } },
            { "op": "set", "hook": "layers.0.output", "value": "n" },
            { "op": "literal", "name": "far", "dtype": "i64", "shape": [1], "elements": [99999] },
            { "op": "get", "name": "l", "hook": "logits" },
            { "op": "getitem", "name": "one", "input": "l", "index": [0, 0, { "tensor": "far" }] }, { "op": "save", "name": "s", "value": "one" }] }] }"#,
    ];
    std::thread::scope(|scope| {
        for program in hostile {
            let service = &service;
            scope.spawn(move || {
                for _ in 0..20 {
                    let answer = service.submit(1, program, &[]);
                    assert!(answer.status < 500, "{}", text(&answer.body));
                }
            });
        }
        for _ in 0..20 {
            assert_eq!(service.run(0, GOOD)["saved"], alone);
        }
    });
}

#[test]
fn where_the_service_keeps_its_models_is_told_to_nobody() {
    let models = "[[model]]\nid = \"bundled\"\ndefault = true\n[[model]]\nid = \"gone\"\nsource = \"/nowhere/secret-folder/model\"\n";
    let service = Service::start_with(models, &[], &[("ann", &[])]);
    for target in ["/v1/models/gone", "/v1/models"] {
        let answer = service.get(0, target);
        assert!(!text(&answer.body).contains("secret-folder"), "{}", text(&answer.body));
    }
    let program = GOOD.replacen('{', "{ \"model\": \"gone\",", 1);
    let answer = service.submit(0, &program, &[]);
    assert_eq!(answer.problem(), "model-unavailable");
    assert!(!text(&answer.body).contains("secret-folder"), "{}", text(&answer.body));
    service.works(0);
}
