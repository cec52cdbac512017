//! A job from its submission to its end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{SAFETENSORS, Server, command, long, next_token, values};
use crate::raw;

#[test]
fn a_job_is_taken_run_and_its_result_can_be_had() {
    let server = Server::open(&[]);
    let client = server.anyone();
    let answer = client.post(
        "/v1/jobs?label=first&priority=high",
        &next_token("The Eiffel Tower is in the city of"),
        &[],
    );
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.header("pellucid-version"), "1");
    assert_eq!(answer.header("x-request-id").len(), 26);
    let job = answer.json();
    let id = job["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/v1/jobs/{id}"));
    assert_eq!(
        (&job["label"], &job["priority"], &job["model"]),
        (&json!("first"), &json!("high"), &json!("bundled"))
    );
    assert!(
        job["price"]["milliseconds"].as_f64().unwrap() > 0.0 && job["price"]["flops"].as_u64().unwrap() > 0
    );

    let ended = client.until(id, &["succeeded"]);
    assert_eq!(ended["attempts"], 1);
    assert_eq!(ended["saved"][1]["name"], "tokens");
    let paris =
        client.post("/v1/encode", &json!({ "texts": [" Paris"], "special_tokens": false }), &[]).json();
    assert_eq!(ended["saved"][1]["values"][0], paris["tokens"][0][0]);
    let text = client.post("/v1/decode", &json!({ "tokens": paris["tokens"] }), &[]).json();
    assert_eq!(text["texts"][0], " Paris");

    // The result: whole, by ranges, not again.
    let path = format!("/v1/jobs/{id}/result");
    let whole = client.get(&path);
    assert_eq!((whole.status, whole.header("content-type")), (200, SAFETENSORS));
    assert_eq!(whole.header("etag"), ended["result"]["etag"].as_str().unwrap());
    let range = |range: &str| client.ask("GET", &path, &[("Range", range)], b"");
    let (first, rest) = (range("bytes=0-99"), range("bytes=100-"));
    assert_eq!((first.status, rest.status), (206, 206));
    assert_eq!(first.header("content-range"), format!("bytes 0-99/{}", whole.body.len()));
    assert_eq!([first.body, rest.body].concat(), whole.body);
    let beyond = range("bytes=999999999-");
    assert_eq!(beyond.problem(), "range-not-satisfiable");
    assert_eq!(beyond.header("content-range"), format!("bytes */{}", whole.body.len()));
    let changed = client.ask("GET", &path, &[("Range", "bytes=0-9"), ("If-Range", "\"other\"")], b"");
    assert_eq!((changed.status, changed.body.len()), (200, whole.body.len()));
    let same = client.ask("GET", &path, &[("If-None-Match", whole.header("etag"))], b"");
    assert_eq!((same.status, same.body.len()), (304, 0));
    let head = client.ask("HEAD", &path, &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, whole.body.len().to_string().as_str()));

    // The same as the command gives.
    let listed = client.get("/v1/jobs?limit=1").json();
    assert_eq!(listed["jobs"][0]["id"], *id);
    let usage = client.get("/v1/usage").json();
    assert_eq!((&usage["days"][0]["jobs"], &usage["days"][0]["failed"]), (&json!(1), &json!(0)));
}

#[test]
fn a_result_comes_with_the_answer_where_that_is_wanted() {
    let server = Server::open(&[]);
    let client = server.anyone();
    let job = client.run(&next_token("The Eiffel Tower is in the city of"));
    assert_eq!(job["state"], "succeeded");
    let bytes = client.result(&next_token("The Eiffel Tower is in the city of"));
    assert_eq!(values(&bytes)[0].0, "last_logits");
    // One that is little need not be read again, and is the same as its file in every way.
    let mut much = next_token("");
    much["body"][0]["invokes"][0] = json!({ "prompts": vec!["When Mary and John went to the store"; 16] });
    let body = much["body"][0]["body"].as_array_mut().unwrap();
    body.push(json!({ "op": "save", "name": "all", "value": "logits" }));
    for program in [next_token("Mary has"), much] {
        let waited = client.post("/v1/jobs", &program, &[("Prefer", "wait=60"), ("Accept", SAFETENSORS)]);
        let file = client.get(&format!("/v1/jobs/{}/result", waited.header("pellucid-job")));
        assert!(waited.status == 200 && waited.body == file.body);
        for name in ["content-type", "content-length", "etag", "accept-ranges", "cache-control"] {
            assert_eq!(waited.header(name), file.header(name), "{name}");
        }
    }
    let answer = client.post("/v1/jobs", &long(400), &[("Prefer", "wait=0"), ("Accept", SAFETENSORS)]);
    assert_eq!((answer.status, answer.header("preference-applied")), (202, "wait=0"));
}

#[test]
fn a_program_with_constants_comes_as_safetensors() {
    let server = Server::open(&[]);
    let client = server.anyone();
    let program = json!({ "pellucid": 1, "body": [
        { "op": "constant", "name": "c", "key": "given" },
        { "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
            { "op": "add", "name": "sum", "input": "c", "other": 1.0 }, { "op": "save", "name": "more", "value": "sum" } ] }] });
    let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &data).unwrap();
    let metadata = std::collections::HashMap::from([("pellucid.program".to_owned(), program.to_string())]);
    let file = safetensors::serialize([("given", view)], Some(metadata)).unwrap();
    let headers = [("Content-Type", SAFETENSORS), ("Prefer", "wait=60")];
    let answer = client.ask("POST", "/v1/jobs", &headers, &file);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["saved"][0]["values"], json!([2.5, -1.0]), "{}", answer.text());
}

#[test]
fn what_is_wrong_with_a_program_is_told_by_node_and_line() {
    let server = Server::open(&[]);
    let client = server.anyone();
    let program = json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "get", "name": "pattern", "hook": "layers.1.attention.patern",
          "source": { "file": "notebook.py", "line": 7, "text": "model.layers[1].attention.patern" } },
        { "op": "save", "name": "saved", "value": "pattern" } ] }] });
    for path in ["/v1/jobs", "/v1/explain"] {
        let answer = client.post(path, &program, &[]);
        assert_eq!((answer.status, answer.problem().as_str()), (422, "invalid-program"));
        let fault = &answer.json()["faults"][0];
        assert_eq!((&fault["node"], &fault["source"]["line"]), (&json!("pattern"), &json!(7)));
        assert!(fault["hint"].as_str().unwrap().contains("pattern"), "{fault}");
    }
    assert_eq!(client.get("/v1/jobs").json()["jobs"], json!([]));
    let typo = client.post("/v1/jobs?model=bundle", &next_token("x"), &[]);
    assert_eq!((typo.status, &typo.json()["nearest"]), (404, &json!(["bundled"])));
}

#[test]
fn a_run_that_fails_tells_the_node_and_keeps_what_came_before() {
    let server = Server::open(&[]);
    let client = server.anyone();
    let program = json!({ "pellucid": 1, "body": [
        { "op": "trace", "name": "first", "invokes": [{ "prompt": "Mary has" }], "body": [
            { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "early", "value": "l" } ] },
        { "op": "trace", "name": "second", "invokes": [{ "prompt": "Mary has" }], "body": [
            { "op": "get", "name": "h", "hook": "logits" },
            { "op": "literal", "name": "far", "dtype": "i64", "shape": [1], "elements": [99999] },
            { "op": "getitem", "name": "one", "input": "h", "index": [0, 0, { "tensor": "far" }] },
            { "op": "save", "name": "late", "value": "one" } ] }] });
    let job = client.run(&program);
    assert_eq!(job["state"], "failed");
    assert_eq!(job["error"]["type"], "urn:pellucid:problem:run-failed");
    assert_eq!(
        (&job["error"]["faults"][0]["node"], &job["error"]["trace"]),
        (&json!("one"), &json!("second"))
    );
    assert_eq!(job["result"]["partial"], true);
    let result = client.get(&format!("/v1/jobs/{}/result", job["id"].as_str().unwrap()));
    assert_eq!(values(&result.body)[0].0, "early");
    // Its neighbours do not notice: the service goes on.
    assert_eq!(client.run(&next_token("Mary"))["state"], "succeeded");
}

#[test]
fn a_retried_submission_is_one_job() {
    let server = Server::keyed(&[]);
    let (ada, bob) = (server.account("ada", &[]), server.account("bob", &[]));
    let key = [("Idempotency-Key", "experiment-1")];
    let first = ada.post("/v1/jobs", &next_token("Mary has"), &key);
    assert_eq!((first.status, first.header("idempotency-replayed")), (202, ""));
    let again = ada.post("/v1/jobs", &next_token("Mary has"), &key);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_eq!(ada.post("/v1/jobs", &next_token("Mary had"), &key).problem(), "idempotency-conflict");
    assert_eq!(
        ada.post("/v1/jobs?priority=low", &next_token("Mary has"), &key).problem(),
        "idempotency-conflict"
    );
    // Who may run no more is told of what runs already, all the same.
    let cat = server.account("cat", &[]);
    let first = cat.post("/v1/jobs", &next_token("Mary has"), &key);
    assert_eq!(first.status, 202);
    let data = server.folder.to_str().unwrap();
    let nothing = ["keys", "limit", "cat", "--data", data, "--limit", "queued_jobs=0"];
    assert!(command(&nothing).output().unwrap().status.success());
    let again = cat.post("/v1/jobs", &next_token("Mary has"), &key);
    assert_eq!((again.status, again.json()["id"].clone()), (202, first.json()["id"].clone()));
    assert_eq!(cat.post("/v1/jobs", &next_token("Mary has"), &[]).status, 429);
    // Another's key is another's.
    assert_ne!(bob.post("/v1/jobs", &next_token("Mary has"), &key).json()["id"], first.json()["id"]);
    // Many at once are one.
    let ids: Vec<String> = std::thread::scope(|scope| {
        let one = || {
            let answer = ada.post(
                "/v1/jobs",
                &next_token("at once"),
                &[("Idempotency-Key", "at-once"), ("Prefer", "wait=60")],
            );
            assert_eq!(answer.status, 200);
            answer.json()["id"].as_str().unwrap().to_owned()
        };
        let all: Vec<_> = (0..16).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(ada.get("/v1/jobs").json()["jobs"].as_array().unwrap().len(), 2);
}

#[test]
fn jobs_are_cancelled_while_they_wait_and_while_they_run() {
    let server = Server::open(&["engine.packing=false"]);
    let client = server.anyone();
    let submit =
        |program: &Value| client.post("/v1/jobs", program, &[]).json()["id"].as_str().unwrap().to_owned();
    let runs = submit(&long(400));
    client.until(&runs, &["running"]);
    let waits = submit(&long(400));
    let waiting = client.get(&format!("/v1/jobs/{waits}")).json();
    assert_eq!((&waiting["state"], &waiting["queue"]["position"]), (&json!("queued"), &json!(0)));
    let answer = client.delete(&format!("/v1/jobs/{waits}"));
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("cancelled")));
    let answer = client.delete(&format!("/v1/jobs/{runs}"));
    assert!(answer.status == 202 || answer.json()["state"] == "cancelled");
    let started = Instant::now();
    let ended = client.until(&runs, &["cancelled", "succeeded"]);
    assert_eq!(ended["state"], "cancelled");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(client.get(&format!("/v1/jobs/{runs}/result")).problem(), "no-result");
    // Once more changes nothing; what has ended stays as it ended.
    assert_eq!(client.delete(&format!("/v1/jobs/{runs}")).status, 200);
    let done = client.run(&next_token("Mary"));
    let path = format!("/v1/jobs/{}", done["id"].as_str().unwrap());
    assert_eq!(client.delete(&path).json()["state"], "succeeded");
    assert_eq!(client.get(&format!("{path}/result")).status, 200);
    // Erased, nothing is left.
    assert_eq!(client.delete(&format!("{path}?erase=true")).status, 204);
    assert_eq!(client.get(&path).problem(), "not-found");
    assert_eq!(client.get(&format!("{path}/result")).problem(), "not-found");
}

#[test]
fn a_deadline_ends_what_waits_and_what_runs() {
    let server = Server::open(&["engine.packing=false"]);
    let client = server.anyone();
    let first = client.post("/v1/jobs?deadline_s=1.5", &long(1000), &[]).json();
    let second = client.post("/v1/jobs?deadline_s=0.7", &long(1000), &[]).json();
    for job in [second, first] {
        let ended = client.until(job["id"].as_str().unwrap(), &["failed", "succeeded"]);
        // A fast machine may have been done with the first.
        if ended["state"] == "failed" {
            assert_eq!(ended["error"]["type"], "urn:pellucid:problem:deadline-exceeded");
        }
    }
    assert_eq!(client.post("/v1/jobs?deadline_s=-1", &next_token("x"), &[]).problem(), "bad-request");
}

#[test]
fn events_tell_everything_and_can_be_taken_up_again() {
    let server = Server::open(&[]);
    let client = server.anyone();
    let program = json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "The movie was awful. I" }],
        "generate": { "max_new_tokens": 3, "stop_tokens": [] }, "body": [
        { "op": "lengths", "name": "n" }, { "op": "print", "name": "how_many", "value": "n" },
        { "op": "generated", "name": "g" }, { "op": "save", "name": "made", "value": "g" } ] }] });
    let id = client.post("/v1/jobs", &program, &[]).json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/jobs/{id}/events");
    let events = raw::events(&client.get(&path).text());
    let names: Vec<&str> = events
        .iter()
        .map(|event| event.name.as_str())
        .filter(|name| !["queued", "progress", "value"].contains(name))
        .collect();
    assert_eq!(names, ["running", "log", "token", "token", "token", "done"]);
    let text: String = events
        .iter()
        .filter(|event| event.name == "token")
        .map(|event| event.data["text"].as_str().unwrap())
        .collect();
    assert_eq!(text, " hated it.");
    let log = events.iter().find(|event| event.name == "log").unwrap();
    let tokens = client.post("/v1/encode", &json!({ "texts": ["The movie was awful. I"] }), &[]).json();
    let length = tokens["tokens"][0].as_array().unwrap().len();
    assert_eq!((&log.data["name"], &log.data["values"]), (&json!("how_many"), &json!([length])));
    assert_eq!(events.last().unwrap().data["state"], "succeeded");
    let ids: Vec<u64> = events.iter().filter_map(|event| event.id).collect();
    assert!(ids.is_sorted_by(|one, other| one < other), "{ids:?}");
    // From the middle on, from the end, and after the end.
    let from =
        |id: u64| raw::events(&client.ask("GET", &path, &[("Last-Event-ID", &id.to_string())], b"").text());
    let rest: Vec<u64> = from(ids[2]).iter().filter_map(|event| event.id).collect();
    assert_eq!(rest, ids[3..]);
    assert_eq!(from(*ids.last().unwrap()).last().unwrap().name, "done");
    assert_eq!(
        raw::events(&client.get(&format!("{path}?last_event_id={}", ids[2])).text()).last().unwrap().name,
        "done"
    );
}

#[test]
fn values_come_as_they_are_saved() {
    let server = Server::open(&[]);
    let client = server.anyone();
    let program = json!({ "pellucid": 1, "body": [
        { "op": "trace", "invokes": [{ "prompt": "Mary has a little" }], "body": [
            { "op": "get", "name": "logits", "hook": "logits" },
            { "op": "getitem", "name": "last", "input": "logits", "index": [0, -1] },
            { "op": "topk", "name": "top", "input": "last", "k": 2 },
            { "op": "save", "name": "best", "value": "top.1" } ] },
        { "op": "trace", "invokes": [{ "prompt": "The movie was awful. I" }],
            "generate": { "max_new_tokens": 20, "stop_tokens": [] }, "body": [
            { "op": "generated", "name": "g" }, { "op": "save", "name": "made", "value": "g" } ] }] });
    let id = client.post("/v1/jobs", &program, &[]).json()["id"].as_str().unwrap().to_owned();
    let events = raw::events(&client.get(&format!("/v1/jobs/{id}/events")).text());
    let values: Vec<_> = events.iter().filter(|event| event.name == "value").collect();
    let shown: Vec<_> = values.iter().map(|event| (&event.data["name"], &event.data["shape"])).collect();
    assert_eq!(shown, [(&json!("best"), &json!([2])), (&json!("made"), &json!([1, 20]))]);
    // The first is there long before the job ends, and its numbers are the result's.
    let last_token = events.iter().rposition(|event| event.name == "token").unwrap();
    let best = events.iter().position(|event| event.data["name"] == "best").unwrap();
    assert!(best < last_token, "{events:?}");
    let result = client.ask("GET", &format!("/v1/jobs/{id}/result"), &[], b"").body;
    let kept: Vec<u8> = values[0].data["values"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|number| number.as_i64().unwrap().to_le_bytes())
        .collect();
    assert_eq!(crate::harness::values(&result)[0], ("best".to_owned(), vec![2], kept));
}

#[test]
fn models_are_listed_with_their_specification() {
    let server = Server::open(&[]);
    let client = server.anyone();
    let list = client.get("/v1/models").json();
    assert_eq!((&list["default"], &list["models"][0]["id"]), (&json!("bundled"), &json!("bundled")));
    let spec = client.get("/v1/models/bundled");
    assert_eq!(spec.json()["sizes"]["layers"], 4);
    let same = client.ask("GET", "/v1/models/bundled", &[("If-None-Match", spec.header("etag"))], b"");
    assert_eq!((same.status, same.body.len()), (304, 0));
    let explained = client.post("/v1/explain", &next_token("Mary has"), &[]).json();
    assert_eq!((explained["passes"].as_array().unwrap().len(), &explained["model"]), (1, &json!("bundled")));
    assert!(explained["text"].as_str().unwrap().contains("pass 1"));
}

#[test]
fn the_service_says_how_it_is() {
    let server = Server::open(&[]);
    let client = server.anyone();
    assert_eq!(client.get("/healthz").json()["status"], "ok");
    let started = Instant::now();
    while client.get("/readyz").status != 200 {
        assert!(started.elapsed() < Duration::from_secs(30), "{}", client.get("/readyz").text());
        std::thread::sleep(Duration::from_millis(20));
    }
    client.run(&next_token("Mary"));
    let metrics = client.get("/metrics").text();
    for name in [
        "pellucid_passes_total{model=\"bundled\"}",
        "pellucid_jobs_ended_total{state=\"succeeded\"} 1",
        "pellucid_pass_accounts_bucket",
        "pellucid_queue_wait_seconds_count 1",
        "pellucid_engine_reserved_bytes{model=\"bundled\"}",
        "pellucid_queue_jobs",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    let status = client.get("/v1/status").json();
    assert_eq!((&status["state"], &status["models"][0]["state"]), (&json!("serving"), &json!("hot")));
    assert_eq!(
        status["history"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["jobs"].as_u64().unwrap())
            .sum::<u64>(),
        1
    );
    for path in ["/", "/docs"] {
        let page = client.get(path);
        assert!(page.text().starts_with("<!doctype html>"));
        assert!(page.header("content-security-policy").contains("script-src 'sha256-"));
    }
    let document = client.get("/openapi.json").json();
    // Every route of the document is there, and knows the method.
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "job_aaaaaaaaaaaaaaaaaaaaaaaaaa");
        for method in methods.as_object().unwrap().keys() {
            let answer = client.ask(&method.to_uppercase(), &path, &[], b"");
            assert!(
                answer.status != 405 && !answer.text().contains("There is no such path"),
                "{method} {path}: {}",
                answer.text()
            );
        }
    }
}
