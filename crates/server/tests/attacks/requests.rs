//! Well-formed requests that mean mischief.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{GOOD, Service, text};

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn one_submission_sent_many_times_at_once_is_one_job() {
    let service = Service::of_two();
    let ids: BTreeSet<String> = std::thread::scope(|scope| {
        let ask = || {
            let answer = service.submit(0, GOOD, &[("idempotency-key", "once"), ("prefer", "wait=15")]);
            assert!(matches!(answer.status, 200 | 202), "{}", text(&answer.body));
            answer.json()["id"].as_str().unwrap().to_owned()
        };
        let asked: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(service.get(0, "/v1/jobs").json()["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(service.get(0, "/v1/usage").json()["days"][0]["jobs"], 1);
    let other = GOOD.replace("Mary has", "John has");
    assert_eq!(service.submit(0, &other, &[("idempotency-key", "once")]).problem(), "idempotency-conflict");
    let answer = service.ask(
        0,
        "POST",
        "/v1/jobs?priority=high",
        &[JSON, ("idempotency-key", "once")],
        GOOD.as_bytes(),
    );
    assert_eq!(answer.problem(), "idempotency-conflict");
    for key in ["", "a b", &"a".repeat(256)] {
        let answer = service.submit(0, GOOD, &[("idempotency-key", key)]);
        assert_eq!(answer.problem(), "bad-request", "{key:?}");
    }
}

#[test]
fn what_is_not_known_is_refused() {
    let service = Service::of_two();
    for target in [
        "/v1/jobs?limit=0",
        "/v1/jobs?limit=201",
        "/v1/jobs?limit=-1",
        "/v1/jobs?limit=1e9",
        "/v1/jobs?after=x",
        "/v1/jobs?state=done",
        "/v1/jobs?account=ann",
        "/v1/jobs?limit=1&limit=2",
        "/v1/usage?days=0",
        "/v1/usage?days=367",
        "/v1/usage?account=ann",
    ] {
        assert_eq!(service.get(0, target).problem(), "bad-request", "{target}");
    }
    for target in [
        "/v1/jobs?deadline_s=0",
        "/v1/jobs?deadline_s=-1",
        "/v1/jobs?deadline_s=NaN",
        "/v1/jobs?deadline_s=inf",
        "/v1/jobs?deadline_s=1e300",
        "/v1/jobs?priority=highest",
        "/v1/jobs?account=bob",
        "/v1/jobs?wait=60",
    ] {
        assert_eq!(
            service.ask(0, "POST", target, &[JSON], GOOD.as_bytes()).problem(),
            "bad-request",
            "{target}"
        );
    }
    for (target, body) in [
        ("/v1/encode", json!({ "texts": ["a"], "account": "bob" })),
        ("/v1/encode", json!({ "texts": "a" })),
        ("/v1/decode", json!({ "tokens": [[-1]] })),
        ("/v1/decode", json!({ "tokens": [[4294967296_u64]] })),
        ("/v1/decode", json!([])),
    ] {
        assert_eq!(
            service.ask(0, "POST", target, &[JSON], body.to_string().as_bytes()).problem(),
            "bad-request",
            "{body}"
        );
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(service.ask(0, "POST", "/v1/decode", &[JSON], deep.as_bytes()).problem(), "bad-request");
    let far = json!({ "tokens": [[4294967295_u64]] });
    assert!(service.ask(0, "POST", "/v1/decode", &[JSON], far.to_string().as_bytes()).status < 500);
    for value in ["-1", "NaN", "99999999999999999999999", "1.5", ""] {
        let answer = service.submit(0, GOOD, &[("prefer", &format!("wait={value}"))]);
        assert_eq!(answer.problem(), "bad-request", "wait={value}");
    }
    for version in ["0", "2", "one", "1.0", "18446744073709551616"] {
        let answer = service.ask(0, "GET", "/v1/status", &[("pellucid-version", version)], b"");
        assert_eq!(
            (answer.problem().as_str(), &answer.json()["supported"]),
            ("unsupported-version", &json!([1])),
            "{version}"
        );
    }
    for (method, target) in [
        ("PUT", "/v1/jobs"),
        ("PATCH", "/v1/jobs/x"),
        ("TRACE", "/"),
        ("DELETE", "/v1/models/bundled"),
        ("GET", "/v1/explain"),
    ] {
        assert_eq!(
            service.ask(0, method, target, &[], b"").problem(),
            "method-not-allowed",
            "{method} {target}"
        );
    }
    let overridden = service.ask(0, "GET", "/v1/jobs", &[("x-http-method-override", "DELETE")], b"");
    assert_eq!(overridden.status, 200);
    for target in [
        "/v1",
        "/v2/jobs",
        "/v1/jobs/",
        "//v1/jobs",
        "/v1/../v1/jobs",
        "/admin",
        "/.env",
        "/metrics/",
        "/v1/keys",
    ] {
        assert_eq!(service.get(0, target).problem(), "not-found", "{target}");
    }
    service.works(0);
}

#[test]
fn bodies_are_taken_as_they_are() {
    let service = Service::of_two();
    for encoding in ["gzip", "br", "deflate", "gzip, identity", "zstd"] {
        let answer = service.submit(0, GOOD, &[("content-encoding", encoding)]);
        assert_eq!(answer.problem(), "unsupported-media-type", "{encoding}");
    }
    for kind in ["text/plain", "application/x-python-pickle", "application/json5", "", "application/json/x"] {
        let answer = service.ask(0, "POST", "/v1/jobs", &[("content-type", kind)], GOOD.as_bytes());
        assert_eq!(answer.problem(), "unsupported-media-type", "{kind}");
    }
    let pickle = b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.";
    for kind in ["application/octet-stream", "application/vnd.safetensors", "application/json"] {
        let answer = service.ask(0, "POST", "/v1/jobs", &[("content-type", kind)], pickle);
        assert_eq!(answer.problem(), "invalid-program", "{kind}");
    }
}

#[test]
fn no_range_gives_more_than_there_is() {
    let service = Service::of_two();
    let job = service.run(0, GOOD);
    let target = format!("/v1/jobs/{}/result", job["id"].as_str().unwrap());
    let whole = service.get(0, &target).body;
    assert_eq!(whole.len() as u64, job["result"]["bytes"].as_u64().unwrap());
    let many = format!("bytes={}", (0..1_000).map(|_| "0-").collect::<Vec<_>>().join(","));
    for range in [
        many.as_str(),
        "bytes=0-0,0-0",
        "bytes=5-2",
        "bytes=a-b",
        "bytes=--1",
        "lines=0-1",
        "bytes=0-1-2",
        "bytes",
        "bytes=-",
        "bytes= 0-1",
    ] {
        let answer = service.ask(0, "GET", &target, &[("range", range)], b"");
        assert!(
            answer.status == 200 && answer.body == whole || answer.body.len() <= 2 || answer.status == 416,
            "{range}: {}",
            answer.status
        );
        assert!(answer.body.len() <= whole.len().max(1_000), "{range}: {} bytes", answer.body.len());
    }
    for (range, expected) in [
        ("bytes=0-0", &whole[..1]),
        ("bytes=3-", &whole[3..]),
        ("bytes=-4", &whole[whole.len() - 4..]),
        ("bytes=0-18446744073709551615", &whole[..]),
    ] {
        let answer = service.ask(0, "GET", &target, &[("range", range)], b"");
        assert_eq!((answer.status, &answer.body[..]), (206, expected), "{range}");
    }
    for range in ["bytes=18446744073709551615-", "bytes=-0", &format!("bytes={}-", whole.len())] {
        assert_eq!(
            service.ask(0, "GET", &target, &[("range", range)], b"").problem(),
            "range-not-satisfiable",
            "{range}"
        );
    }
    let etag = job["result"]["etag"].as_str().unwrap();
    let stale = [("range", "bytes=3-"), ("if-range", "\"other\"")];
    assert_eq!(
        service.ask(0, "GET", &target, &stale, b"").body,
        whole,
        "a part of another result is of no use"
    );
    assert_eq!(service.ask(0, "GET", &target, &[("if-none-match", etag)], b"").status, 304);
}

#[test]
fn events_can_be_taken_up_at_no_place_that_there_is_not() {
    let service = Service::of_two();
    let id = service.run(0, GOOD)["id"].as_str().unwrap().to_owned();
    let target = format!("/v1/jobs/{id}/events");
    for last in ["-1", "x", "1e3", "18446744073709551616", ""] {
        let answer = service.ask(0, "GET", &target, &[("last-event-id", last)], b"");
        assert!(answer.status == 400 || last.is_empty(), "{last:?}: {}", answer.status);
    }
    for last in ["0", "1", "4294967297", "18446744073709551615"] {
        let answer = service.ask(0, "GET", &target, &[("last-event-id", last)], b"");
        assert!(text(&answer.body).contains("event: done"), "after {last}: {}", text(&answer.body));
    }
}
