//! The service ends in time, whoever waits for what; and who waits is told so.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::harness::{Answer, GOOD, SOON, Service, text};
use crate::limits::longer;

/// Seconds beyond those of the setting that ending takes at most, as is documented.
const BEYOND: u64 = 5;

#[test]
fn who_waits_for_a_job_that_is_put_back_is_answered_and_the_service_ends_in_time() {
    const DRAIN: u64 = 2;
    let drain = DRAIN.to_string();
    let limits: &[&str] = &["milliseconds_per_minute=none"];
    let mut service =
        Service::start(&[("server.drain_seconds", &drain), ("engine.packing", "false")], &[("ann", limits)]);
    // It runs alone: what is submitted after it waits.
    let job = service.submit(0, &longer(), &[]).json();
    let id = job["id"].as_str().unwrap_or_else(|| panic!("{job}")).to_owned();
    let state = |service: &Service| service.get(0, &format!("/v1/jobs/{id}")).json()["state"].clone();
    let begun = Instant::now();
    while state(&service) != "running" {
        assert!(begun.elapsed() < SOON, "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let host = format!("host: x\r\nauthorization: Bearer {}\r\n", service.keys[0]);
    let waiting = [
        format!(
            "POST /v1/jobs HTTP/1.1\r\n{host}content-type: application/json\r\nprefer: wait=60\r\ncontent-length: {}\r\n\r\n{GOOD}",
            GOOD.len()
        ),
        format!("GET /v1/jobs/{id} HTTP/1.1\r\n{host}prefer: wait=60\r\n\r\n"),
        format!("GET /v1/jobs/{id}/events HTTP/1.1\r\n{host}\r\n"),
    ];
    let mut streams = waiting.map(|request| {
        let mut stream = service.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    });
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    service.begin_to_end();
    let answers = streams.each_mut().map(|stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    service.ended();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(DRAIN + BEYOND), "it took {took:?}");
    let [submitted, looked, events] = answers;
    let submitted = Answer::parse(&submitted).expect("who submitted and waits is cut off");
    assert_eq!((submitted.status, &submitted.json()["result"]), (202, &serde_json::Value::Null));
    assert!(submitted.header("x-pellucid-job").is_some() || submitted.json()["id"].is_string());
    let looked = Answer::parse(&looked).expect("who waits is cut off");
    // It is put back, unless its pass took longer than there was time.
    assert_eq!(looked.status, 200);
    assert!(matches!(looked.json()["state"].as_str(), Some("queued" | "running")), "{}", looked.json());
    // A stream that is whole has its end.
    assert!(events.ends_with(b"0\r\n\r\n"), "{}", text(&events));
    let events = text(&events);
    assert!(events.contains("event: running") && !events.contains("event: done"), "{events}");
}
