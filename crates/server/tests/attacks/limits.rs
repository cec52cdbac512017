//! Limits hold, and say by how much they were exceeded.

use std::io::{Read, Write};
use std::net::Shutdown;

use serde_json::Value;

use crate::harness::{Answer, GOOD, SOON, Service, text};

/// That an answer names that limit, and gives its name back.
fn exceeded(answer: &Answer, name: &str) -> Value {
    let problem = answer.json();
    assert!(matches!(answer.status, 413 | 429), "{problem}");
    answer.problem();
    let limit = &problem["limit"];
    assert!(limit["name"].as_str().is_some_and(|known| known.ends_with(name)), "{problem}");
    assert!(limit["used"].as_f64() >= limit["allowed"].as_f64(), "{problem}");
    if answer.status == 429 {
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    }
    problem
}

#[test]
fn requests_in_a_minute_are_counted_for_each_account() {
    let service = Service::start(&[], &[("ann", &["requests_per_minute=5"]), ("bob", &[])]);
    let answers: Vec<Answer> = (0..12).map(|_| service.get(0, "/v1/account")).collect();
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!((4..=7).contains(&refused.len()), "{} of 12 are refused", refused.len());
    exceeded(refused[0], "requests_per_minute");
    service.works(1);
}

#[test]
fn sizes_are_refused_before_they_are_read_or_run() {
    let limits: &[&str] = &["request_bytes=100000", "result_bytes=1000", "peak_bytes=50000000"];
    let service = Service::start(&[], &[("ann", limits), ("bob", &["job_milliseconds=0.0001"])]);
    let key = &service.keys[0];
    // By what is announced, before a byte of it comes.
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 100001\r\n\r\n"
    );
    let answer = Answer::parse(&service.raw(head.as_bytes())).unwrap();
    exceeded(&answer, "request_bytes");
    // By what comes, where nothing is announced.
    let mut stream = service.connect();
    let head = head.replace("content-length: 100001", "transfer-encoding: chunked");
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(4096));
    for _ in 0..1_000 {
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    // Where the service closed while more was coming, its answer may be lost on the way.
    if let Some(answer) = Answer::parse(&bytes) {
        exceeded(&answer, "request_bytes");
    }
    let wide = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "s", "value": "l" }] }] }"#;
    exceeded(&service.submit(0, wide, &[]), "result_bytes");
    let held = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "ones", "name": "o", "size": [20000, 1000] }, { "op": "sum", "name": "t", "input": "o" }, { "op": "save", "name": "s", "value": "t" }] }] }"#;
    exceeded(&service.submit(0, held, &[]), "peak_bytes");
    exceeded(&service.submit(1, GOOD, &[]), "job_milliseconds");
    service.works(0);
}

#[test]
fn a_queue_is_full_for_its_own_account_only() {
    let service = Service::start(
        &[],
        &[("ann", &["queued_jobs=3", "concurrent_jobs=1", "milliseconds_per_minute=none"]), ("bob", &[])],
    );
    let long = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "name": "a", "prompt": "Mary" }], "body": [
        { "op": "sweep", "name": "g", "over": [{ "k": { "range": [0, 4000] } }],
          "invokes": [{ "name": "b", "prompt": "When Mary and John went to the store, John gave a drink to" }], "body": [
            { "op": "get", "name": "h", "invoke": "b", "hook": "layers.0.output" }, { "op": "add", "name": "m", "input": "h", "other": "k" },
            { "op": "set", "invoke": "b", "hook": "layers.0.output", "value": "m" }, { "op": "get", "name": "l", "invoke": "b", "hook": "logits" },
            { "op": "amax", "name": "x", "input": "l" }], "yields": ["x"] }, { "op": "save", "name": "s", "value": "g" }] }] }"#;
    let answers: Vec<Answer> = (0..10).map(|_| service.submit(0, long, &[])).collect();
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(refused.len() >= 5, "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
    exceeded(refused[0], "queued_jobs");
    service.works(1);
    for answer in answers.iter().filter(|answer| answer.status == 202) {
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let cancelled = service.ask(0, "DELETE", &format!("/v1/jobs/{id}"), &[], b"");
        assert!(cancelled.status < 300, "{}", text(&cancelled.body));
    }
}

#[test]
fn texts_to_be_tokenised_are_bounded_too() {
    let service = Service::of_two();
    let many: Vec<&str> = vec!["a"; 5_000];
    let long = ["a ".repeat(3 << 20)];
    for texts in [serde_json::json!(many), serde_json::json!(long)] {
        let body = serde_json::json!({ "texts": texts }).to_string();
        let answer =
            service.ask(0, "POST", "/v1/encode", &[("content-type", "application/json")], body.as_bytes());
        assert_eq!(answer.problem(), "too-large");
    }
    service.works(0);
}

/// Sends a program so many times at once; gives all answers.
fn at_once(service: &Service, times: usize, program: &str) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let sent: Vec<_> = (0..times).map(|_| scope.spawn(|| service.submit(0, program, &[]))).collect();
        sent.into_iter().map(|answer| answer.join().unwrap()).collect()
    })
}

/// A program that takes long, and saves little.
const LONG: &str = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "name": "a", "prompt": "Mary" }], "body": [
    { "op": "sweep", "name": "g", "over": [{ "k": { "range": [0, 4000] } }],
      "invokes": [{ "name": "b", "prompt": "When Mary and John went to the store, John gave a drink to" }], "body": [
        { "op": "get", "name": "h", "invoke": "b", "hook": "layers.0.output" }, { "op": "add", "name": "m", "input": "h", "other": "k" },
        { "op": "set", "invoke": "b", "hook": "layers.0.output", "value": "m" }, { "op": "get", "name": "l", "invoke": "b", "hook": "logits" },
        { "op": "amax", "name": "x", "input": "l" }], "yields": ["x"] }, { "op": "save", "name": "s", "value": "g" }] }] }"#;

/// The same, five times as long.
pub fn longer() -> String {
    LONG.replace("4000", "20000")
}

#[test]
fn a_queue_is_not_overrun_by_many_who_come_at_once() {
    let service = Service::start(
        &[],
        &[("ann", &["queued_jobs=2", "concurrent_jobs=1", "milliseconds_per_minute=none"]), ("bob", &[])],
    );
    // One runs, and two wait.
    let first = service.submit(0, LONG, &[]);
    assert_eq!(first.status, 202, "{}", text(&first.body));
    let answers = at_once(&service, 30, LONG);
    let taken: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 202).collect();
    let queued = service.get(0, "/v1/account").json()["used"]["queued_jobs"].as_u64().unwrap();
    assert!(queued <= 2 && taken.len() <= 3, "{} are taken, {queued} wait", taken.len());
    exceeded(answers.iter().find(|answer| answer.status == 429).unwrap(), "queued_jobs");
    // Who was refused has left no place occupied.
    for answer in taken.into_iter().chain([&first]) {
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        assert!(service.ask(0, "DELETE", &format!("/v1/jobs/{id}"), &[], b"").status < 300);
    }
    service.works(0);
    let again = at_once(&service, 2, GOOD);
    assert!(again.iter().all(|answer| answer.status == 202), "{again:?}");
}

#[test]
fn results_that_are_still_to_come_count_as_stored() {
    let wide = r#"{ "pellucid": 1, "body": [{ "op": "ones", "name": "o", "size": [1000, 250] }, { "op": "save", "name": "s", "value": "o" }] }"#;
    let service = Service::start(&[], &[("ann", &["stored_bytes=3500000"]), ("bob", &[])]);
    let answers = at_once(&service, 20, wide);
    let taken: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 202).collect();
    assert_eq!(taken.len(), 3, "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
    exceeded(answers.iter().find(|answer| answer.status == 413).unwrap(), "stored_bytes");
    for answer in &taken {
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let ended = service.ask(0, "GET", &format!("/v1/jobs/{id}"), &[("prefer", "wait=15")], b"").json();
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
    let stored = service.get(0, "/v1/account").json()["used"]["stored_bytes"].as_u64().unwrap();
    assert!((3_000_000..=3_500_000).contains(&stored), "{stored}");
    exceeded(&service.submit(0, wide, &[]), "stored_bytes");
    // What is erased makes room.
    let id = taken[0].json()["id"].as_str().unwrap().to_owned();
    assert!(service.ask(0, "DELETE", &format!("/v1/jobs/{id}?erase=true"), &[], b"").status < 300);
    assert_eq!(service.submit(0, wide, &[]).status, 202);
    service.works(1);
}

#[test]
fn a_job_whose_result_cannot_be_written_is_cancelled_or_fails_and_the_service_ends_in_time() {
    let service = Service::start(&[("server.drain_seconds", "2")], &[("ann", &[]), ("bob", &[])]);
    let wide = r#"{ "pellucid": 1, "body": [{ "op": "ones", "name": "o", "size": [1000, 250] }, { "op": "save", "name": "s", "value": "o" }] }"#;
    // A file stands where the folder of results would be: other files can be written.
    let results = service.config.server.data.join("files/results");
    std::fs::write(&results, "").unwrap();
    let submitted =
        || service.submit(0, wide, &[("prefer", "wait=1")]).json()["id"].as_str().unwrap().to_owned();
    let state = |id: &str| service.get(0, &format!("/v1/jobs/{id}")).json()["state"].clone();
    let waited = |id: &str, seconds: u32| {
        let prefer = format!("wait={seconds}");
        service.ask(0, "GET", &format!("/v1/jobs/{id}"), &[("prefer", &prefer)], b"").json()
    };
    let id = submitted();
    assert_eq!(state(&id), "running");
    assert!(service.ask(0, "DELETE", &format!("/v1/jobs/{id}"), &[], b"").status < 300);
    let ended = waited(&id, 3);
    assert_eq!(ended["state"], "cancelled", "{ended}");
    let ended = waited(&submitted(), 15);
    assert_eq!(
        (&ended["state"], &ended["error"]["type"]),
        (&"failed".into(), &"urn:pellucid:problem:store-unavailable".into()),
        "{ended}"
    );
    assert!(
        ended["result"].is_null() && ended["error"]["detail"].as_str().unwrap().contains("room"),
        "{ended}"
    );
    // What comes before it is given up is not lost.
    let id = submitted();
    std::fs::remove_file(&results).unwrap();
    assert_eq!(waited(&id, 15)["state"], "succeeded");
    service.works(1);
    std::fs::remove_dir_all(&results).unwrap();
    std::fs::write(&results, "").unwrap();
    submitted();
    let begun = std::time::Instant::now();
    drop(service);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "it ends after {:?}", begun.elapsed());
}

#[test]
fn a_job_whose_time_is_over_when_it_begins_fails() {
    let service = Service::start(&[], &[("ann", &[])]);
    let headers = [("content-type", "application/json"), ("prefer", "wait=15")];
    let target = "/v1/jobs?deadline_s=0.0000001";
    let job = service.ask(0, "POST", target, &headers, GOOD.as_bytes()).json();
    assert_eq!(job["state"], "failed", "{job}");
    assert_eq!(job["error"]["type"], "urn:pellucid:problem:deadline-exceeded", "{job}");
    assert!(job["attempts"] == 0 && job["result"].is_null(), "{job}");
    service.works(0);
}

#[test]
fn one_account_cannot_have_all_connections_by_waiting() {
    let service = Service::start(
        &[("server.connections_per_address", "16")],
        &[("ann", &["milliseconds_per_minute=none"]), ("bob", &[])],
    );
    let id = service.submit(0, &longer(), &[]).json()["id"].as_str().unwrap().to_owned();
    let events = format!("/v1/jobs/{id}/events");
    let request =
        format!("GET {events} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", service.keys[0]);
    let mut held: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = service.connect();
            stream.write_all(request.as_bytes()).unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(text(&head), "HTTP/1.1 200");
            stream
        })
        .collect();
    exceeded(&service.get(0, &events), "waiting_requests");
    exceeded(&service.submit(0, GOOD, &[("prefer", "wait=5")]), "waiting_requests");
    let job = format!("/v1/jobs/{id}");
    exceeded(&service.ask(0, "GET", &job, &[("prefer", "wait=5")], b""), "waiting_requests");
    // Who does not wait is answered, and so is everybody else.
    assert_eq!(service.get(0, &job).status, 200);
    assert_eq!(service.submit(0, GOOD, &[]).status, 202);
    service.works(1);
    // Who has gone is not counted.
    held.pop();
    let begun = std::time::Instant::now();
    while service.ask(0, "GET", &job, &[("prefer", "wait=1")], b"").status == 429 {
        assert!(begun.elapsed() < SOON, "who has gone still counts");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    service.ask(0, "DELETE", &job, &[], b"");
    drop(held);
}

#[test]
fn one_account_cannot_have_all_connections_of_an_address() {
    let service = Service::start(&[("server.connections_per_address", "8")], &[("ann", &[]), ("bob", &[])]);
    let ask = |key: usize| {
        let mut stream = service.connect();
        let key = &service.keys[key];
        let request = format!("GET /v1/account HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (text(&head), stream)
    };
    let mut held: Vec<_> = (0..4).map(|_| ask(0)).collect();
    assert!(held.iter().all(|(head, _)| head == "HTTP/1.1 200"));
    let (head, mut refused) = ask(0);
    assert_eq!(head, "HTTP/1.1 429");
    // It is closed, so that it takes nobody's place.
    let mut rest = Vec::new();
    refused.read_to_end(&mut rest).unwrap();
    assert!(text(&rest).contains("account_connections"), "{}", text(&rest));
    assert_eq!(ask(1).0, "HTTP/1.1 200");
    // Who has gone is not counted.
    held.pop();
    let begun = std::time::Instant::now();
    while ask(0).0 != "HTTP/1.1 200" {
        assert!(begun.elapsed() < SOON, "who has gone still counts");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// A good program with so many bytes of nothing.
fn padded(bytes: usize) -> String {
    format!("{GOOD}{}", " ".repeat(bytes))
}

#[test]
fn large_programs_are_there_until_their_jobs_end_and_count() {
    let limits = &["stored_bytes=1000000", "milliseconds_per_minute=none"] as &[&str];
    let service = Service::start(&[("engine.packing", "false")], &[("ann", limits)]);
    let folder = service.config.server.data.join("files/programs");
    let files = || std::fs::read_dir(&folder).map_or(0, |files| files.count());
    // It runs alone: what is submitted after it waits.
    let long = service.submit(0, &longer(), &[]).json()["id"].as_str().unwrap().to_owned();
    let waits = service.submit(0, &padded(600_000), &[]);
    assert_eq!((waits.status, files()), (202, 1), "{}", text(&waits.body));
    let one_more = service.submit(0, &padded(600_000), &[]);
    assert_eq!(one_more.status, 413);
    assert_eq!(one_more.json()["limit"]["name"], "stored_bytes");
    // What a small one may come to is to lie beside it.
    let half = r#"{ "pellucid": 1, "body": [{ "op": "ones", "name": "o", "size": [500, 250] }, { "op": "save", "name": "s", "value": "o" }] }"#;
    exceeded(&service.submit(0, half, &[]), "stored_bytes");
    service.ask(0, "DELETE", &format!("/v1/jobs/{long}"), &[], b"");
    let none_is_left = || {
        let begun = std::time::Instant::now();
        while files() > 0 {
            assert!(begun.elapsed() < SOON, "a program is kept whose job has ended");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    none_is_left();
    let waited = service.get(0, &format!("/v1/jobs/{}", waits.json()["id"].as_str().unwrap())).json();
    assert_eq!(waited["state"], "succeeded", "{waited}");
    // There is room again for one that counted until then.
    let job = service.run(0, &padded(600_000));
    assert_eq!(job["state"], "succeeded", "{job}");
    none_is_left();
    // Of many who come at once each sees the others.
    service.submit(0, &longer(), &[]);
    let answers = at_once(&service, 12, &padded(300_000));
    let taken = answers.iter().filter(|answer| answer.status == 202).count();
    let bytes: u64 =
        std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(taken <= 3 && bytes <= 1_000_000, "{taken} are taken, {bytes} bytes");
}

#[test]
fn of_many_who_wait_for_their_turn_those_go_for_whom_something_is_left() {
    let service = Service::start(&[], &[("ann", &["milliseconds_per_minute=5"])]);
    let body = format!(r#"{{"texts":["{}"]}}"#, "When Mary and John went to the store. ".repeat(6_000));
    let headers = [("content-type", "application/json")];
    let encode = || service.ask(0, "POST", "/v1/encode", &headers, body.as_bytes()).status;
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(encode)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let count = |status: u16| answers.iter().filter(|answer| **answer == status).count();
    assert!(count(200) >= 1 && count(200) <= 2 && count(429) >= 6, "{answers:?}");
}
