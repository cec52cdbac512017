//! Traces: with a collector, the whole way of a job is told, and nothing of what it says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::harness::Server;

/// A collector of OTLP over HTTP, that keeps whatever comes.
fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let received: Arc<Mutex<Vec<u8>>> = Arc::default();
    let kept = received.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let kept = kept.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut length, mut first) = (0, String::new());
                    loop {
                        let mut line = String::new();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        if first.is_empty() {
                            first.clone_from(&line);
                        }
                        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        if line == "\r\n" {
                            break;
                        }
                    }
                    assert!(first.starts_with("POST /v1/traces "), "{first}");
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    kept.lock().unwrap().extend(body);
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    (address, received)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn the_whole_way_of_a_job_is_traced_and_nothing_that_it_says() {
    let (address, received) = collector();
    let mut server = Server::keyed(&[&format!("trace.endpoint={address}")]);
    let client = server.account("ada", &[]);
    let program = json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "A secret nobody shall read" }], "body": [
        { "op": "get", "name": "l", "hook": "logits" }, { "op": "log", "name": "whispered", "input": "l" },
        { "op": "save", "name": "hidden_name", "value": "l" } ] }] });
    let trace =
        [0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36_u8];
    let parent = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let answer = client.post("/v1/jobs", &program, &[("Prefer", "wait=60"), parent]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    // What is not delivered yet is, at the end.
    assert_eq!(server.terminate(), Some(0));
    let told = received.lock().unwrap().clone();
    let stages = [
        "request",
        "check",
        "keep",
        "job",
        "wait for the engine",
        "run",
        "record the end",
        "/v1/jobs",
        "succeeded",
        "bundled",
    ];
    for name in stages.into_iter().chain([id.as_str()]) {
        assert!(
            contains(&told, name.as_bytes()),
            "{name} is not in the trace\n{}",
            String::from_utf8_lossy(&told)
        );
    }
    assert!(contains(&told, &trace), "the caller's trace is not continued");
    let secret = client.key.as_ref().unwrap().rsplit('_').next().unwrap();
    for word in ["secret", "nobody", "whispered", "hidden_name", secret] {
        assert!(!contains(&told, word.as_bytes()), "{word} is in the trace");
    }
}

#[test]
fn a_collector_that_is_not_there_harms_nobody() {
    let mut server = Server::open(&["trace.endpoint=http://127.0.0.1:9"]);
    let client = server.anyone();
    assert_eq!(client.run(&crate::harness::next_token("Mary has"))["state"], "succeeded");
    assert_eq!(server.terminate(), Some(0));
}
