//! What strangers may try. Each is refused at once, and the service goes on as if nothing had been.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Server, next_token};
use crate::raw;

/// The resident memory of the service, in bytes.
fn memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

fn still_works(server: &Server) {
    assert_eq!(server.anyone().run(&next_token("Mary has"))["state"], "succeeded");
}

fn trace(body: Value) -> Value {
    json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": body }] })
}

#[test]
fn bombs_are_refused_by_their_price() {
    let server = Server::open(&[]);
    let client = server.anyone();
    client.run(&next_token("Mary"));
    let before = memory(&server);
    let big = 9_223_372_036_854_775_807_i64;
    let square = [
        json!({ "op": "zeros", "name": "z", "size": [100_000, 100_000] }),
        json!({ "op": "matmul", "name": "m", "input": "z", "other": "z" }),
        json!({ "op": "sum", "name": "s", "input": "m" }),
        json!({ "op": "save", "name": "x", "value": "s" }),
    ];
    let programs = [
        trace(
            json!([{ "op": "zeros", "name": "z", "size": [big] }, { "op": "save", "name": "x", "value": "z" }]),
        ),
        trace(
            json!([{ "op": "zeros", "name": "z", "size": [big, big] }, { "op": "save", "name": "x", "value": "z" }]),
        ),
        trace(
            json!([{ "op": "zeros", "name": "z", "size": [-1] }, { "op": "save", "name": "x", "value": "z" }]),
        ),
        trace(
            json!([{ "op": "zeros", "name": "z", "size": [1 << 20, 1 << 15] }, { "op": "save", "name": "x", "value": "z" }]),
        ),
        trace(
            json!([{ "op": "literal", "name": "z", "dtype": "f32", "shape": [big, 2], "elements": [1.0] }, { "op": "save", "name": "x", "value": "z" }]),
        ),
        trace(
            json!([{ "op": "eye", "name": "z", "n": 1 << 30 }, { "op": "save", "name": "x", "value": "z" }]),
        ),
        trace(
            json!([{ "op": "arange", "name": "z", "end": 1i64 << 60 }, { "op": "save", "name": "x", "value": "z" }]),
        ),
        trace(json!(square)),
        // Loops that would never end, and sweeps of sweeps.
        trace(
            json!([{ "op": "loop", "name": "l", "count": big, "body": [{ "op": "zeros", "name": "z", "size": [1] }, { "op": "save", "name": "x", "value": "z" }] }]),
        ),
        trace(
            json!([{ "op": "loop", "name": "a", "count": 100_000, "body": [{ "op": "loop", "name": "b", "count": 100_000, "body": [
            { "op": "zeros", "name": "z", "size": [1] }, { "op": "save", "name": "x", "value": "z" }] }] }]),
        ),
        json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary" }], "generate": { "max_new_tokens": 1_000_000 },
            "body": [{ "op": "generated", "name": "g" }, { "op": "save", "name": "x", "value": "g" }] }] }),
    ];
    for program in &programs {
        let started = Instant::now();
        let answer = client.post("/v1/jobs", program, &[]);
        assert!([413, 422].contains(&answer.status), "{program}: {}", answer.text());
        assert!(started.elapsed() < Duration::from_secs(5), "{program}");
    }
    let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    let answer = client.ask("POST", "/v1/jobs", &[("Content-Type", "application/json")], deep.as_bytes());
    assert_eq!(answer.problem(), "invalid-program");
    still_works(&server);
    let after = memory(&server);
    assert!(after < before + (200 << 20), "from {before} to {after} bytes");
}

#[test]
fn bytes_that_mean_nothing_are_refused_as_such() {
    let server = Server::open(&[]);
    let client = server.anyone();
    // A small generator: the same bytes every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let program = next_token("Mary has").to_string();
    for round in 0..150 {
        let mut body = program.clone().into_bytes();
        match round % 3 {
            0 => body = (0..random() % 300).map(|_| random() as u8).collect(),
            1 => {
                for _ in 0..3 {
                    let at = random() as usize % body.len();
                    body[at] = random() as u8;
                }
            }
            _ => body.truncate(random() as usize % body.len()),
        }
        if body.is_empty() {
            continue;
        }
        for path in ["/v1/jobs", "/v1/explain"] {
            let answer = client.ask("POST", path, &[("Content-Type", "application/octet-stream")], &body);
            assert!(
                [200, 202, 404, 413, 422].contains(&answer.status),
                "{}: {}",
                String::from_utf8_lossy(&body),
                answer.text()
            );
        }
    }
    still_works(&server);
}

#[test]
fn paths_lead_nowhere() {
    let server = Server::open(&[]);
    let client = server.anyone();
    for id in [
        "../../../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc",
        "/etc/passwd",
        "a/../../b",
        "a%00b",
        "C:%5Cx",
        "file:%2F%2F%2Fetc%2Fpasswd",
        ".",
    ] {
        let answer = raw::send(
            &server.address,
            format!("GET /v1/models/{id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .as_bytes(),
            Duration::from_secs(5),
        );
        assert!([400, 404].contains(&raw::status(&answer)), "{id}: {answer}");
        assert!(!answer.contains("root:"), "{id}");
        let answer = raw::send(
            &server.address,
            format!("GET /v1/jobs/{id}/result HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .as_bytes(),
            Duration::from_secs(5),
        );
        assert!([400, 404].contains(&raw::status(&answer)), "{id}: {answer}");
    }
    for model in [
        "../../../../etc/passwd",
        "/etc/passwd",
        "./models/tiny-gpt2/model",
        "a/b/c/d",
        "openai-community/gpt2",
        "",
    ] {
        let mut program = next_token("Mary");
        program["model"] = json!(model);
        let answer = client.post("/v1/jobs", &program, &[]);
        assert!([404, 422].contains(&answer.status), "{model}: {}", answer.text());
    }
    still_works(&server);
}

#[test]
fn bodies_are_bounded() {
    let server = Server::open(&["admission.request_bytes=100000"]);
    let client = server.anyone();
    client.run(&next_token("Mary"));
    let before = memory(&server);
    // Announced: refused before it comes.
    let head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n";
    let answer = raw::send(&server.address, head.as_bytes(), Duration::from_secs(5));
    assert_eq!(raw::status(&answer), 413, "{answer}");
    assert!(answer.contains("admission.request_bytes"));
    // Not announced: refused when it is too much.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    for _ in 0..200 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let answer = raw::read(&mut stream);
    assert!(answer.is_empty() || raw::status(&answer) == 413, "{answer}");
    // Compressed bodies are not read at all: nothing can be blown up.
    for encoding in ["gzip", "br", "deflate", "zstd"] {
        let headers = [("Content-Type", "application/json"), ("Content-Encoding", encoding)];
        assert_eq!(client.ask("POST", "/v1/jobs", &headers, b"x").problem(), "unsupported-media-type");
    }
    // What a page of somebody else's could send from a browser is not taken.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        assert_eq!(
            client.ask("POST", "/v1/jobs", &[("Content-Type", kind)], b"{}").problem(),
            "unsupported-media-type"
        );
    }
    still_works(&server);
    assert!(memory(&server) < before + (50 << 20));
}

#[test]
fn heads_are_bounded_and_plain() {
    let server = Server::keyed(&[]);
    let send = |text: String| raw::send(&server.address, text.as_bytes(), Duration::from_secs(3));
    let long =
        send(format!("GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(200_000)));
    assert!([0, 400, 431].contains(&raw::status(&long)), "{long}");
    let many = send(format!("GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(500)));
    assert!([0, 400, 431].contains(&raw::status(&many)), "{many}");
    let path = send(format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(200_000)));
    assert!([0, 400, 414, 431].contains(&raw::status(&path)), "{path}");
    // Two lengths, or a length and chunks, could mean two different requests to two who read them.
    let smuggled = [
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxxx",
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization : Bearer x\r\n\r\n",
        "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n",
        "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\0y\r\n\r\n",
    ];
    for text in smuggled {
        let answer = send(text.to_owned());
        assert!([0, 400, 401].contains(&raw::status(&answer)), "{text}: {answer}");
        assert!(answer.matches("HTTP/1.1").count() <= 1, "{text}: {answer}");
    }
    let key = server.account("ada", &[]).key.unwrap();
    let twice = send(format!(
        "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    ));
    assert_eq!(raw::status(&twice), 400, "{twice}");
    let once = send(format!(
        "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    ));
    assert_eq!(raw::status(&once), 200, "{once}");
    let version = send(format!(
        "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nPellucid-Version: 2\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    ));
    assert!(raw::status(&version) == 400 && version.contains(r#""supported":[1]"#), "{version}");
}

#[test]
fn who_dawdles_is_cut_off_and_holds_up_nobody() {
    let server = Server::open(&[
        "server.header_seconds=1",
        "server.idle_seconds=1",
        "server.connections_per_address=40",
    ]);
    // Heads that never end, bodies that never come.
    let begun: Vec<TcpStream> = (0..30)
        .map(|number| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            let text: &[u8] = if number % 2 == 0 {
                b"GET / HTTP/1.1\r\nHost: loc"
            } else {
                b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
            };
            stream.write_all(text).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream
        })
        .collect();
    let started = Instant::now();
    still_works(&server);
    for mut stream in begun {
        let answer = raw::read(&mut stream);
        assert!([0, 408].contains(&raw::status(&answer)), "{answer}");
    }
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    // One byte now and then is no progress either.
    let mut drip = TcpStream::connect(&server.address).unwrap();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) && drip.write_all(b"G").is_ok() {
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(started.elapsed() < Duration::from_secs(6), "a head that drips is not cut off");
    // Too many connections of one address: the others' answers still come once those are gone.
    let many: Vec<_> = (0..60).filter_map(|_| TcpStream::connect(&server.address).ok()).collect();
    drop(many);
    std::thread::sleep(Duration::from_millis(200));
    still_works(&server);
}

#[test]
fn without_keys_no_name_of_somebody_elses_leads_here() {
    let server = Server::open(&[]);
    let send = |host: &str| {
        raw::status(&raw::send(
            &server.address,
            format!("GET /v1/jobs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes(),
            Duration::from_secs(5),
        ))
    };
    assert_eq!(send("localhost:1"), 200);
    assert_eq!(send("127.0.0.1"), 200);
    assert_eq!(send("evil.example"), 403);
    assert_eq!(send("localhost.evil.example"), 403);
}

#[test]
fn what_is_not_known_is_refused() {
    let server = Server::open(&[]);
    let client = server.anyone();
    assert_eq!(client.post("/v1/jobs?modle=bundled", &next_token("x"), &[]).problem(), "bad-request");
    assert_eq!(client.get("/v1/jobs?limit=0").problem(), "bad-request");
    assert_eq!(client.get("/v1/jobs?limit=201").problem(), "bad-request");
    assert_eq!(client.get("/v1/jobs?after=x").problem(), "bad-request");
    assert_eq!(client.get("/v1/jobs?state=ready").problem(), "bad-request");
    assert_eq!(
        client.post("/v1/encode", &json!({ "texts": ["x"], "text": "x" }), &[]).problem(),
        "bad-request"
    );
    assert_eq!(client.get("/v1/nowhere").problem(), "not-found");
    assert_eq!(client.ask("PUT", "/v1/jobs", &[], b"").problem(), "method-not-allowed");
    assert_eq!(client.get("/v1/jobs/job_x").problem(), "not-found");
    assert_eq!(client.get("/v1/jobs/%ff%fe").problem(), "bad-request");
    let job = client.run(&next_token("x"));
    let events = format!("/v1/jobs/{}/events", job["id"].as_str().unwrap());
    for id in ["18446744073709551615", "0", "9999999999999"] {
        let told = raw::events(&client.ask("GET", &events, &[("Last-Event-ID", id)], b"").text());
        assert_eq!(told.last().unwrap().name, "done", "{id}");
    }
    assert_eq!(client.ask("GET", &events, &[("Last-Event-ID", "-1")], b"").problem(), "bad-request");
    let mut program = next_token("x");
    program["surprise"] = json!(1);
    assert_eq!(client.post("/v1/jobs", &program, &[]).problem(), "invalid-program");
    for key in ["", &"x".repeat(256), "with space"] {
        let answer = client.post("/v1/jobs", &next_token("x"), &[("Idempotency-Key", key)]);
        assert_eq!(answer.problem(), "bad-request", "{key}");
    }
    let many = json!({ "texts": vec!["x"; 2000] });
    assert_eq!(client.post("/v1/encode", &many, &[]).problem(), "too-large");
}
