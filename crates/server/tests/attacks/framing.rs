//! Requests that are none: where one ends and the next begins is never a matter of opinion.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::harness::{Answer, Service, text};

/// How many answers there are in bytes.
fn answers(bytes: &[u8]) -> usize {
    text(bytes).matches("HTTP/1.1 ").count()
}

#[test]
fn a_body_whose_length_is_told_twice_is_refused() {
    let service = Service::of_two();
    let key = &service.keys[0];
    let hidden =
        format!("GET /v1/account HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", service.keys[1]);
    for lengths in [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: +5",
        "content-length: -1",
        "content-length: 0x5",
        "content-length: 99999999999999999999999",
        "content-length: 5\r\ntransfer-encoding: identity, chunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: xchunked",
        "transfer-encoding : chunked",
        "transfer-encoding:\u{b}chunked",
        " transfer-encoding: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
    ] {
        let request = format!(
            "POST /v1/explain HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n{lengths}\r\n\r\n0\r\n\r\n{hidden}"
        );
        let answer = service.raw(request.as_bytes());
        assert!(answers(&answer) <= 1, "{lengths:?}: {}", text(&answer));
        assert!(
            !text(&answer).contains("\"account\""),
            "{lengths:?}: what was hidden in a body was answered"
        );
        if let Some(answer) = Answer::parse(&answer) {
            assert!(
                (400..500).contains(&answer.status) || answer.status == 501,
                "{lengths:?}: {}",
                answer.status
            );
        }
    }
    service.works(0);
}

#[test]
fn of_a_length_and_chunks_the_chunks_count_and_nothing_comes_after() {
    let service = Service::of_two();
    let (own, other) = (&service.keys[0], &service.keys[1]);
    let program = crate::harness::GOOD;
    let hidden = format!("GET /v1/account HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {other}\r\n\r\n");
    for lengths in
        ["content-length: 5\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 5"]
    {
        let request = format!(
            "POST /v1/explain HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {own}\r\ncontent-type: application/json\r\n{lengths}\r\n\r\n{:x}\r\n{program}\r\n0\r\n\r\n{hidden}",
            program.len()
        );
        let begun = Instant::now();
        let answer = text(&service.raw(request.as_bytes()));
        // Whoever stands between may have taken another end for the right one: this connection is not used again.
        assert_eq!(answers(answer.as_bytes()), 1, "{answer}");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
        assert!(begun.elapsed() < Duration::from_secs(3), "the connection is not closed");
    }
    service.works(0);
}

#[test]
fn heads_that_are_none_end_their_connection() {
    let service = Service::of_two();
    let many: String = (0..2_000).map(|number| format!("x-{number}: y\r\n")).collect();
    let long = "a".repeat(1 << 20);
    for head in [
        "GET / HTTP/0.9\r\n\r\n".to_owned(),
        "GET /\r\n\r\n".to_owned(),
        "GET / HTTP/2.0\r\nhost: x\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}".to_owned(),
        "GET /v1/status HTTP/1.1\r\nhost: x\r\nx: a\u{0}b\r\n\r\n".to_owned(),
        "GET /v1/status HTTP/1.1\r\nhost: x\r\nx: a\r\n folded\r\n\r\n".to_owned(),
        "GET /v1/status HTTP/1.1\r\nhost : x\r\n\r\n".to_owned(),
        "GET /v1/ status HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "G\u{e9}T / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
    ] {
        let answer = service.raw(head.as_bytes());
        if let Some(answer) = Answer::parse(&answer) {
            assert!(
                (400..506).contains(&answer.status),
                "{:?}: {}",
                &head[..60.min(head.len())],
                answer.status
            );
        }
    }
    service.works(0);
}

#[test]
fn chunks_that_are_none_are_refused() {
    let service = Service::of_two();
    let key = &service.keys[0];
    for chunks in [
        "FFFFFFFFFFFFFFFFF\r\n{}",
        "ffffffffffffffff\r\n{}",
        "-1\r\n{}",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2;ext=\u{0}\r\n{}\r\n0\r\n\r\n",
        "\r\n{}\r\n0\r\n\r\n",
        "g\r\n{}",
        "7fffffffffffffff\r\n{}",
    ] {
        let request = format!(
            "POST /v1/explain HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"
        );
        let mut stream = service.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        if let Some(answer) = Answer::parse(&bytes) {
            assert!((400..500).contains(&answer.status), "{chunks:?}: {}", answer.status);
        }
    }
    service.works(0);
}

#[test]
fn who_dawdles_is_dropped() {
    let settings = [("server.header_seconds", "1"), ("server.idle_seconds", "1")];
    let service = Service::start(&settings, &[("ann", &[])]);
    let key = service.keys[0].clone();
    let body = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n"
    );
    for (begin, drip) in
        [("GET /v1/sta", "t"), ("GET / HTTP/1.1\r\nhost: x\r\n", "x: y\r\n"), (body.as_str(), ""), ("", "")]
    {
        let mut stream = service.connect();
        let begun = Instant::now();
        let _ = stream.write_all(begin.as_bytes());
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                // It is closed, with a word or without.
                Ok(0) => break,
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    let _ = stream.write_all(drip.as_bytes());
                }
                Err(_) => break,
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{begin:?} {drip:?} is still waited for");
        }
    }
    service.works(0);
}

/// A service that waits for so many seconds, a job there with a result of some megabytes, which is more than fits between two
/// sockets, and its bytes.
fn with_a_large_result(idle_seconds: &str) -> (Service, String, u64) {
    let service = Service::start(&[("server.idle_seconds", idle_seconds)], &[("ann", &[])]);
    let prompts: Vec<String> = (0..16)
        .map(|_| "\"When Mary and John went to the store, John gave a drink to\"".to_owned())
        .collect();
    let program = format!(
        r#"{{ "pellucid": 1, "body": [{{ "op": "trace", "invokes": [{{ "name": "a", "prompts": [{}] }}], "body": [
            {{ "op": "cache", "name": "all" }}] }}] }}"#,
        prompts.join(", ")
    );
    let job = service.run(0, &program);
    let bytes = job["result"]["bytes"].as_u64().unwrap_or_else(|| panic!("{job}"));
    assert!(bytes > 8 << 20, "{bytes}");
    let request = format!(
        "GET /v1/jobs/{}/result HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        job["id"].as_str().unwrap(),
        service.keys[0]
    );
    (service, request, bytes)
}

#[test]
fn a_result_that_is_taken_too_slowly_is_not_held_for_ever() {
    let (service, request, bytes) = with_a_large_result("3");
    // Its window is small: what it takes is seen at once.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut slow = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(service.address).await.unwrap().into_std().unwrap()
    });
    slow.set_nonblocking(false).unwrap();
    let mut steady = service.connect();
    for stream in [&mut slow, &mut steady] {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
    }
    // Half a kilobyte a second, and some hundred times that: only one of them is served to the end.
    let steady = std::thread::spawn(move || {
        let mut all = vec![0; 12 << 10];
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(50));
            steady.read_exact(&mut all[..12 << 10]).unwrap();
        }
        all.clear();
        steady.read_to_end(&mut all).unwrap();
        200 * (12 << 10) + all.len() as u64
    });
    let mut of_slow = 0;
    for _ in 0..40 {
        std::thread::sleep(Duration::from_millis(250));
        of_slow += slow.read(&mut [0; 128]).unwrap_or(0) as u64;
    }
    let mut rest = Vec::new();
    let read = slow.read_to_end(&mut rest);
    of_slow += rest.len() as u64;
    assert!(of_slow < bytes / 2, "{read:?}: half a kilobyte a second was still served, {of_slow} of {bytes}");
    let of_steady = steady.join().unwrap();
    assert!(of_steady >= bytes, "who takes what there is has {of_steady} of {bytes}");
    service.works(0);
}

#[test]
fn a_result_that_nobody_takes_is_not_held_for_ever() {
    let (service, request, bytes) = with_a_large_result("1");
    let mut stream = service.connect();
    stream.write_all(request.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_secs(5));
    let mut taken = Vec::new();
    let read = stream.read_to_end(&mut taken);
    assert!(
        (taken.len() as u64) < bytes,
        "{read:?}: it was still being sent after five seconds without a taker"
    );
    service.works(0);
}

#[test]
fn one_address_cannot_have_all_connections() {
    let settings = [("server.connections_per_address", "8"), ("server.header_seconds", "2")];
    let service = Service::start(&settings, &[("ann", &[])]);
    let held: Vec<_> = (0..32).map(|_| service.connect()).collect();
    std::thread::sleep(Duration::from_millis(500));
    let closed = held
        .iter()
        .filter(|stream| {
            let mut stream = *stream;
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            match stream.read(&mut [0; 256]) {
                // Closed, or told so first.
                Ok(0..) => true,
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        })
        .count();
    assert!(closed >= 24, "{} of 32 are held", 32 - closed);
    drop(held);
    std::thread::sleep(Duration::from_millis(500));
    service.works(0);
}

#[test]
fn heads_are_as_large_as_is_documented_and_no_larger() {
    const MOST: usize = 32 << 10;
    let service = Service::of_two();
    let (before, after) = ("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: ", "\r\n\r\n");
    // One header; and as many as make up the same, which come in pieces.
    let one = |size: usize| {
        let head = format!("{before}{}{after}", "a".repeat(size - before.len() - after.len()));
        assert_eq!(head.len(), size);
        Answer::parse(&service.raw(head.as_bytes())).map(|answer| answer.status)
    };
    let many = |size: usize| {
        let mut stream = service.connect();
        let each = (size - before.len() - after.len()) / 50;
        let mut sent = stream.write_all(format!("{before}a\r\n").as_bytes());
        for number in 0..50 {
            let head = format!("x-{number:02}: ");
            let line = format!("{head}{}\r\n", "a".repeat(each - head.len() - 2));
            sent = sent.and_then(|()| stream.write_all(line.as_bytes()));
        }
        // Once it is refused it is not taken any more.
        let _ = sent.and_then(|()| stream.write_all(b"\r\n"));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Answer::parse(&answer).map(|answer| answer.status)
    };
    assert_eq!((one(MOST), many(MOST)), (Some(200), Some(200)));
    assert_eq!(one(MOST + 1), Some(431));
    for size in [MOST + 1_000, 40_000, 60_000, 70_000, 200_000] {
        // The answer may be lost where more was coming.
        for status in [one(size), many(size)] {
            assert!(matches!(status, Some(431) | None), "{size}: {status:?}");
        }
    }
    service.works(0);
}
