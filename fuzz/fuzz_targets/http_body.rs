//! Any bytes at all as the body of a request, over a real connection to a real service: an answer that says what is wrong,
//! quickly, and the next request is answered as ever.
//!
//! A first byte below 32 chooses route and content type; without one, the bytes are a program to be explained.
#![no_main]

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::sync::mpsc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pellucid_server::config::Layers;

const ROUTES: [&str; 4] = ["/v1/explain", "/v1/jobs", "/v1/encode", "/v1/decode"];
const TYPES: [&str; 3] = ["application/json", "application/vnd.safetensors", "application/octet-stream"];

/// A service in this process. What is submitted runs on the bundled model.
static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| {
    let data = std::env::temp_dir().join(format!("pellucid-fuzz-{}", std::process::id()));
    let settings = [
        ("server.listen", "127.0.0.1:0"),
        ("server.open", "true"),
        ("server.data", data.to_str().expect("a folder with a plain name")),
        ("server.idle_seconds", "3600"),
        ("retention.result_hours", "0.001"),
        ("retention.job_days", "0.0001"),
        ("log.level", "error"),
    ];
    let layers = settings.iter().try_fold(Layers::default(), |layers, (path, text)| layers.set(path, text));
    let config = layers.and_then(Layers::config).expect("a configuration");
    let (ready, address) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads");
        let served = pellucid_server::serve(
            config,
            move |at, _| ready.send(at).expect("who waits"),
            std::future::pending(),
        );
        runtime.block_on(served).expect("it serves");
    });
    address.recv().expect("it starts")
});

thread_local! {
    static CONNECTION: RefCell<Option<TcpStream>> = const { RefCell::new(None) };
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect(*ADDRESS).expect("it takes connections");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// A request, and its answer's head and body; `None`: the connection was closed before there was any answer.
fn ask(stream: &mut TcpStream, request: &[u8]) -> Option<(String, Vec<u8>)> {
    stream.write_all(request).ok()?;
    let (mut received, mut buffer) = (Vec::new(), [0; 1 << 14]);
    let (head, mut body) = loop {
        let count = stream.read(&mut buffer).ok().filter(|&count| count > 0)?;
        received.extend_from_slice(&buffer[..count]);
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break (
                String::from_utf8_lossy(&received[..end]).to_ascii_lowercase(),
                received.split_off(end + 4),
            );
        }
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.expect("a length").parse().expect("a number");
    while body.len() < length {
        let count = stream.read(&mut buffer).expect("the whole body");
        assert!(count > 0, "an answer that breaks off");
        body.extend_from_slice(&buffer[..count]);
    }
    Some((head, body))
}

fuzz_target!(|bytes: &[u8]| {
    let (choice, body) = match bytes.split_first() {
        Some((&choice, rest)) if choice < 32 => (usize::from(choice), rest),
        _ => (0, bytes),
    };
    let (route, kind) = (ROUTES[choice % ROUTES.len()], TYPES[choice / ROUTES.len() % TYPES.len()]);
    let mut request = format!(
        "POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    CONNECTION.with_borrow_mut(|kept| {
        // A connection may have been closed after the last answer, but a new one is answered.
        let mut answered = kept.as_mut().and_then(|stream| ask(stream, &request));
        if answered.is_none() {
            answered = ask(kept.insert(connect()), &request);
        }
        let (head, body) = answered.expect("an answer");
        let status: u16 = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        assert!(
            [200, 202, 400, 404, 413, 415, 422, 429].contains(&status),
            "{head}\n{}",
            String::from_utf8_lossy(&body)
        );
        let told: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        if status >= 400 {
            assert!(head.contains("application/problem+json"), "{head}");
            assert!(told["type"].is_string() && told["title"].is_string(), "{told}");
        }
        if head.contains("connection: close") {
            *kept = None;
        }
    });
});
