//! What accounts may use, and that one never learns of another.

use serde_json::{Value, json};

use crate::harness::{Client, Server, long, next_token};

fn weights() -> Value {
    json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "weight", "name": "w", "parameter": "transformer.wte.weight", "index": [0] }, { "op": "save", "name": "row", "value": "w" } ] }] })
}

fn gradient() -> Value {
    json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "get", "name": "l", "hook": "logits" }, { "op": "sum", "name": "loss", "input": "l" },
        { "op": "backward", "name": "back", "of": "loss" },
        { "op": "grad", "name": "g", "backward": "back", "hook": "layers.1.output" },
        { "op": "save", "name": "saved", "value": "g" } ] }] })
}

#[test]
fn every_route_but_health_needs_a_key() {
    let server = Server::keyed(&[]);
    let anyone = server.anyone();
    let document = anyone.get("/openapi.json").json();
    let mut checked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let target = path.replace("{id}", "job_aaaaaaaaaaaaaaaaaaaaaaaaaa");
            let needs_none = operation["security"] == json!([]);
            let answer = anyone.ask(&method.to_uppercase(), &target, &[], b"");
            assert_eq!(answer.status == 401, !needs_none, "{method} {path}: {}", answer.text());
            checked += 1;
        }
    }
    assert!(checked >= 20);
    let wrong = |key: &str| Client { key: Some(key.to_owned()), ..server.anyone() };
    let own = server.account("ada", &[]);
    let valid = own.key.clone().unwrap();
    let (last, other) = (&valid[..valid.len() - 1], if valid.ends_with('a') { 'b' } else { 'a' });
    for key in ["", "x", "pellucid_", &format!("{last}{other}"), &valid[..20], &valid.to_uppercase()] {
        let answer = wrong(key).get("/v1/jobs");
        assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthorized"), "{key}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert_eq!(own.get("/v1/jobs").status, 200);
    // A key that may submit may not see what all do; one that may see it may not submit.
    assert_eq!(own.get("/metrics").problem(), "forbidden");
    let prometheus = server.account("prometheus", &["--scope", "admin"]);
    assert_eq!(prometheus.get("/metrics").status, 200);
    assert_eq!(prometheus.post("/v1/jobs", &next_token("x"), &[]).problem(), "forbidden");
}

#[test]
fn one_account_never_learns_of_anothers_jobs() {
    let server = Server::keyed(&[]);
    let (ada, bob) = (server.account("ada", &[]), server.account("bob", &[]));
    let job = ada.run(&next_token("Mary has"));
    let id = job["id"].as_str().unwrap();
    let nowhere = "job_aaaaaaaaaaaaaaaaaaaaaaaaaa";
    for (method, rest) in
        [("GET", ""), ("GET", "/events"), ("GET", "/result"), ("DELETE", ""), ("DELETE", "?erase=true")]
    {
        let theirs = bob.ask(method, &format!("/v1/jobs/{id}{rest}"), &[], b"");
        let none = bob.ask(method, &format!("/v1/jobs/{nowhere}{rest}"), &[], b"");
        assert_eq!(theirs.problem(), "not-found");
        // Not even by a word: a job of another's is as one that is not there.
        let told = |answer: &crate::harness::Answer| {
            let mut problem = answer.json();
            problem.as_object_mut().unwrap().remove("instance");
            problem
        };
        assert_eq!(told(&theirs), told(&none));
    }
    assert_eq!(bob.get("/v1/jobs").json()["jobs"], json!([]));
    assert_eq!(bob.get(&format!("/v1/jobs?after={id}")).json()["jobs"], json!([]));
    assert_eq!(bob.get("/v1/usage").json()["days"], json!([]));
    assert_eq!(ada.get(&format!("/v1/jobs/{id}/result")).status, 200);
}

#[test]
fn what_an_account_may_not_is_refused_with_the_node() {
    let server = Server::keyed(&[]);
    let none = ["--limit", "generation=false", "--limit", "training=false", "--limit", "edits=false"];
    let bare = server.account("bare", &none);
    let all = server.account("all", &["--limit", "weights_readable=true"]);
    let edit = json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "name": "i", "prompt": "Mary has" }], "body": [
        { "op": "zeros", "name": "z", "size": [128] },
        { "op": "set_weight", "name": "s", "invoke": "i", "parameter": "transformer.ln_f.bias", "value": "z" },
        { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "saved", "value": "l" } ] }] });
    for (program, node, limit) in [
        (weights(), "w", "weights_readable"),
        (long(3), "trace_0", "generation"),
        (gradient(), "back", "training"),
        (edit, "s", "edits"),
    ] {
        assert_eq!(all.run(&program)["state"], "succeeded", "{limit}");
        let answer = bare.post("/v1/jobs", &program, &[]);
        assert_eq!((answer.status, answer.problem().as_str()), (403, "forbidden"), "{limit}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(limit));
        // A trace's own name is the reader's to make up.
        if limit != "generation" {
            assert_eq!(answer.json()["faults"][0]["node"], node);
        }
    }
    let strict = json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "get", "name": "h", "hook": "layers.1.output" },
        { "op": "apply", "name": "a", "module": "unembed", "input": "h" }, { "op": "save", "name": "saved", "value": "a" } ] }] });
    assert_eq!(bare.run(&strict)["state"], "succeeded");
}

#[test]
fn a_strict_model_applies_no_modules_for_those_who_may_not_read_weights() {
    let own = tempfile::tempdir().unwrap();
    let config = own.path().join("pellucid.toml");
    std::fs::write(&config, "[[model]]\nid = \"bundled\"\npinned = true\nstrict = true\n").unwrap();
    // The harness starts without a file; the environment names one.
    let server = Server::with_config(own.path(), &config);
    let apply = json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "get", "name": "h", "hook": "layers.1.output" },
        { "op": "apply", "name": "a", "module": "unembed", "input": "h" }, { "op": "save", "name": "saved", "value": "a" } ] }] });
    let answer = server.account("bare", &[]).post("/v1/jobs", &apply, &[]);
    assert_eq!((answer.problem().as_str(), &answer.json()["faults"][0]["node"]), ("forbidden", &json!("a")));
    assert_eq!(
        server.account("all", &["--limit", "weights_readable=true"]).run(&apply)["state"],
        "succeeded"
    );
}

#[test]
fn limits_are_told_with_their_figures() {
    let server = Server::keyed(&[]);
    let refused = |limit: &str, program: &Value, status: u16| {
        let client = server.account(&limit.replace('=', "-"), &["--limit", limit]);
        let answer = client.post("/v1/jobs", program, &[]);
        assert_eq!(answer.status, status, "{limit}: {}", answer.text());
        let exceeded = answer.json()["limit"].clone();
        assert_eq!(exceeded["name"], limit.split('=').next().unwrap());
        assert!(exceeded["used"].as_f64().unwrap() > exceeded["allowed"].as_f64().unwrap(), "{exceeded}");
    };
    let program = next_token("Mary has a little lamb");
    refused("job_milliseconds=0.01", &program, 413);
    refused("peak_bytes=1000", &program, 413);
    refused("result_bytes=100", &program, 413);
    refused("request_bytes=100", &program, 413);
    refused("queued_jobs=0", &program, 429);
    refused("milliseconds_per_day=0.01", &program, 429);
    refused("stored_bytes=0", &program, 413);

    let client = server.account("minute", &["--limit", "requests_per_minute=3"]);
    let answers: Vec<_> = (0..5).map(|_| client.get("/v1/jobs")).collect();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 200, 429, 429]);
    assert!(answers[4].header("retry-after").parse::<u64>().unwrap() >= 1);
    let elsewhere = server.account("elsewhere", &["--limit", "models="]);
    assert_eq!(elsewhere.post("/v1/jobs", &program, &[]).problem(), "unknown-model");
    assert_eq!(elsewhere.get("/v1/models").json()["models"], json!([]));
    assert_eq!(elsewhere.get("/v1/models/bundled").problem(), "unknown-model");
    let account = client_account(&server);
    assert_eq!((&account["account"], &account["limits"]["generation"]), (&json!("ada"), &json!(true)));
}

fn client_account(server: &Server) -> Value {
    server.account("ada", &[]).get("/v1/account").json()
}

#[test]
fn a_result_larger_than_it_may_be_is_not_kept() {
    let server = Server::keyed(&[]);
    // What is logged counts as well, and is told only when it is there.
    let flood = json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "get", "name": "l", "hook": "logits" },
        { "op": "loop", "name": "again", "count": 500, "body": [
            { "op": "print", "name": "flood", "value": "l" } ] },
        { "op": "sum", "name": "s", "input": "l" }, { "op": "save", "name": "saved", "value": "s" } ] }] });
    let client = server.account("small", &["--limit", "result_bytes=10000"]);
    let answer = client.post("/v1/jobs", &flood, &[("Prefer", "wait=60")]);
    if answer.status == 200 {
        assert_eq!(
            answer.json()["error"]["type"],
            "urn:pellucid:problem:result-too-large",
            "{}",
            answer.text()
        );
        assert_eq!(answer.json()["result"], Value::Null);
    } else {
        panic!("{}", answer.text());
    }
}

#[test]
fn a_key_that_is_revoked_is_none() {
    let server = Server::keyed(&[]);
    let client = server.account("ada", &[]);
    assert_eq!(client.get("/v1/jobs").status, 200);
    let id = client.key.as_ref().unwrap().split('_').nth(1).unwrap().to_owned();
    let revoke = |key: &str| {
        let arguments = ["keys", "revoke", key, "--data", server.folder.to_str().unwrap()];
        crate::harness::command(&arguments).output().unwrap().status.code()
    };
    assert_eq!(revoke(&id), Some(0));
    assert_eq!(client.get("/v1/jobs").problem(), "unauthorized");
    assert_eq!(revoke(&id), Some(1));
}
