//! A service in this process, and requests byte by byte.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pellucid_server::admin::{self, KeyRequest};
use pellucid_server::config::{Config, Layers};
use pellucid_server::keys::Scope;
use serde_json::Value;
use tokio::sync::oneshot;

/// A program that anybody may run.
pub const GOOD: &str = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
    { "op": "get", "name": "l", "hook": "logits" }, { "op": "getitem", "name": "last", "input": "l", "index": [0, -1] },
    { "op": "amax", "name": "most", "input": "last" }, { "op": "save", "name": "largest", "value": "most" } ] }] }"#;

/// How long anything may take that is refused or small.
pub const SOON: Duration = Duration::from_secs(20);

/// A service, which ends with its test.
pub struct Service {
    pub address: SocketAddr,
    /// Keys in the order of the accounts that it was started with.
    pub keys: Vec<String>,
    pub config: Config,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _data: tempfile::TempDir,
}

impl Service {
    /// A service with settings other than the usual ones, and accounts with limits other than the usual ones.
    pub fn start(settings: &[(&str, &str)], accounts: &[(&str, &[&str])]) -> Service {
        Service::start_with("", settings, accounts)
    }

    /// The same, with a configuration file.
    pub fn start_with(file: &str, settings: &[(&str, &str)], accounts: &[(&str, &[&str])]) -> Service {
        let data = tempfile::tempdir().unwrap();
        let mut layers = Layers::default();
        if !file.is_empty() {
            layers = layers.file("the test's file", file).unwrap();
        }
        layers = layers.set("server.listen", "127.0.0.1:0").unwrap();
        layers = layers.set("server.data", data.path().to_str().unwrap()).unwrap();
        for (path, text) in settings {
            layers = layers.set(path, text).unwrap();
        }
        let config = layers.config().unwrap();
        let keys = accounts
            .iter()
            .map(|(account, limits)| {
                let request = KeyRequest {
                    account: (*account).to_owned(),
                    scopes: vec![Scope::Submit],
                    limits: limits.iter().map(|limit| (*limit).to_owned()).collect(),
                    ..KeyRequest::default()
                };
                admin::create_key(&config, &request).unwrap()
            })
            .collect();
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = mpsc::channel();
        let own = config.clone();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let stopped = async {
                let _ = stopped.await;
            };
            runtime
                .block_on(pellucid_server::serve(own, move |at, _| ready.send(at).unwrap(), stopped))
                .unwrap();
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        let address = address.recv_timeout(Duration::from_secs(60)).expect("the service does not start");
        Service { address, keys, config, stop: Some(stop), thread: Some(thread), _data: data }
    }

    /// One with two accounts.
    pub fn of_two() -> Service {
        Service::start(&[], &[("ann", &[]), ("bob", &[])])
    }

    /// Whether a service with these settings does not start.
    pub fn refuses(settings: &[(&str, &str)]) -> bool {
        let data = tempfile::tempdir().unwrap();
        let mut layers = Layers::default().set("server.data", data.path().to_str().unwrap()).unwrap();
        for (path, text) in settings {
            layers = layers.set(path, text).unwrap();
        }
        layers.config().is_err()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream
    }

    /// Sends bytes, and gives all that comes back until the service closes the connection, or is silent for a while.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        // A service that refuses early may have closed already.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    /// Asks with a key.
    pub fn ask(
        &self,
        key: usize,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let authorization = format!("Bearer {}", self.keys[key]);
        let all: Vec<_> =
            headers.iter().copied().chain([("authorization", authorization.as_str())]).collect();
        self.ask_without_key(method, target, &all, body)
    }

    /// Asks with nothing but these headers.
    pub fn ask_without_key(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head.push_str(&format!("host: {}\r\n", self.address));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let begun = Instant::now();
        let mut stream = self.connect();
        let _ = stream.write_all(&[head.as_bytes(), b"\r\n", body].concat());
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        let answer =
            Answer::parse(&bytes).unwrap_or_else(|| panic!("{method} {target}: {read:?} {:?}", text(&bytes)));
        assert!(begun.elapsed() < SOON, "{method} {target} took {:?}", begun.elapsed());
        answer
    }

    pub fn get(&self, key: usize, target: &str) -> Answer {
        self.ask(key, "GET", target, &[], b"")
    }

    /// Submits a program, as JSON.
    pub fn submit(&self, key: usize, program: &str, headers: &[(&str, &str)]) -> Answer {
        let headers: Vec<_> = headers.iter().copied().chain([("content-type", "application/json")]).collect();
        self.ask(key, "POST", "/v1/jobs", &headers, program.as_bytes())
    }

    /// Runs a program to its end, and gives the job.
    pub fn run(&self, key: usize, program: &str) -> Value {
        let submitted = self.submit(key, program, &[("prefer", "wait=15")]);
        assert_eq!(submitted.status, 200, "{}", text(&submitted.body));
        submitted.json()
    }

    /// That it still works, for whoever has that key.
    pub fn works(&self, key: usize) {
        let job = self.run(key, GOOD);
        assert_eq!(job["state"], "succeeded", "{job}");
    }
}

impl Service {
    /// Tells it to end, as SIGTERM does.
    pub fn begin_to_end(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until it has ended.
    pub fn ended(&mut self) {
        self.begin_to_end();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            // In a test that fails already, one failure is enough.
            assert!(ended.is_ok() || std::thread::panicking(), "the service panicked");
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ended();
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Option<Answer> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = text(&bytes[..end]);
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut body = bytes[end + 4..].to_vec();
        if headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
            body = unchunked(&body).ok()?;
        }
        Some(Answer { status, headers, body })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", text(&self.body)))
    }

    /// The kind of problem that it is, which must be one in every part.
    pub fn problem(&self) -> String {
        let problem = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{problem}");
        assert_eq!(problem["status"], self.status, "{problem}");
        assert!(problem["title"].is_string() && problem["instance"].is_string(), "{problem}");
        problem["type"].as_str().unwrap().strip_prefix("urn:pellucid:problem:").unwrap().to_owned()
    }
}

fn unchunked(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let broken = || io::Error::other("broken chunks");
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n").ok_or_else(broken)?;
        let size = usize::from_str_radix(text(&bytes[..end]).trim(), 16).map_err(|_| broken())?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(bytes.get(..size).ok_or_else(broken)?);
        bytes = bytes.get(size + 2..).ok_or_else(broken)?;
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
