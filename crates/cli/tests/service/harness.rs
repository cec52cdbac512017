//! Starting the service, and asking it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::in_clean_environment;

pub const SAFETENSORS: &str = "application/vnd.safetensors";

/// The command, with nothing of the caller's environment that matters to it.
pub fn command(arguments: &[&str]) -> Command {
    command_within(&[], arguments)
}

/// The same, begun by another command, which is given it as its last arguments.
pub fn command_within(within: &[&str], arguments: &[&str]) -> Command {
    let words: Vec<&str> = within.iter().copied().chain([env!("CARGO_BIN_EXE_pellucid")]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(arguments);
    in_clean_environment(command)
}

/// A service that runs.
pub struct Server {
    pub child: Child,
    pub address: String,
    pub folder: PathBuf,
    own: Option<tempfile::TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Without keys, in a folder of its own.
    pub fn open(settings: &[&str]) -> Server {
        let own = tempfile::tempdir().unwrap();
        let folder = own.path().to_owned();
        let mut server = Server::start(&folder, true, settings);
        server.own = Some(own);
        server
    }

    /// With keys, in a folder of its own.
    pub fn keyed(settings: &[&str]) -> Server {
        let own = tempfile::tempdir().unwrap();
        let folder = own.path().to_owned();
        let mut server = Server::start(&folder, false, settings);
        server.own = Some(own);
        server
    }

    /// With keys, in a folder, with a configuration's file.
    pub fn with_config(folder: &Path, config: &Path) -> Server {
        Server::begin(&[], folder, false, &[], Some(config))
    }

    /// As a configuration's file has it, in a folder, begun by another command.
    pub fn within_with_config(command: &[&str], folder: &Path, config: &Path) -> Server {
        Server::begin(command, folder, true, &[], Some(config))
    }

    /// Without keys, in a folder, begun by another command.
    pub fn within(command: &[&str], folder: &Path) -> Server {
        Server::begin(command, folder, true, &[], None)
    }

    /// In a folder, with settings such as `engine.delay_ms=1`.
    pub fn start(folder: &Path, open: bool, settings: &[&str]) -> Server {
        Server::begin(&[], folder, open, settings, None)
    }

    fn begin(within: &[&str], folder: &Path, open: bool, settings: &[&str], config: Option<&Path>) -> Server {
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--data", folder.to_str().unwrap()];
        if let Some(config) = config {
            arguments.extend(["--config", config.to_str().unwrap()]);
        }
        if open {
            arguments.push("--open");
        }
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        let mut command = command_within(within, &arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening = line.trim().strip_prefix("listening on ");
        let Some((_, address)) = listening.and_then(|url| url.split_once("://")) else {
            let mut message = String::new();
            child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
            panic!("it did not start: {line}{message}");
        };
        // Logs are kept, so that the pipe does not fill.
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let log = folder.join("test.log");
        std::thread::spawn(move || {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
            let _ = std::io::copy(&mut errors, &mut file);
        });
        Server { address: address.to_owned(), child, folder: folder.to_owned(), own: None }
    }

    /// What it has logged until now.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("test.log")).unwrap_or_default()
    }

    /// Someone without a key.
    pub fn anyone(&self) -> Client {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
        Client { address: self.address.clone(), key: None, agent: agent.into() }
    }

    /// Someone with a new key of an account.
    pub fn account(&self, name: &str, choices: &[&str]) -> Client {
        let mut arguments =
            vec!["keys", "create", "--data", self.folder.to_str().unwrap(), "--account", name];
        arguments.extend(choices);
        let output = command(&arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let key = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        Client { key: Some(key), ..self.anyone() }
    }

    /// Ends it in order; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

/// Someone who asks.
#[derive(Clone)]
pub struct Client {
    pub address: String,
    pub key: Option<String>,
    pub agent: ureq::Agent,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The kind of the problem that it is.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        problem["type"].as_str().unwrap().trim_start_matches("urn:pellucid:problem:").to_owned()
    }
}

impl Client {
    pub fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, ureq::Error> {
        let uri = format!("http://{}{path}", self.address);
        let mut request = ureq::http::Request::builder().method(method).uri(uri);
        if let Some(key) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = if body.is_empty() {
            self.agent.run(request.body(()).unwrap())?
        } else {
            self.agent.run(request.body(body).unwrap())?
        };
        let body = response.body_mut().with_config().limit(1 << 30).read_to_vec()?;
        Ok(Answer { status: response.status().as_u16(), headers: response.headers().clone(), body })
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_ask(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[], b"")
    }

    pub fn post(&self, path: &str, program: &Value, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![("Content-Type", "application/json")];
        all.extend(headers);
        self.ask("POST", path, &all, program.to_string().as_bytes())
    }

    /// A job that is submitted and waited for.
    pub fn run(&self, program: &Value) -> Value {
        let answer = self.post("/v1/jobs", program, &[("Prefer", "wait=60")]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// The bytes of a program's result.
    pub fn result(&self, program: &Value) -> Vec<u8> {
        let answer = self.post("/v1/jobs", program, &[("Prefer", "wait=60"), ("Accept", SAFETENSORS)]);
        assert_eq!((answer.status, answer.header("content-type")), (200, SAFETENSORS), "{}", answer.text());
        answer.body
    }

    /// A job, once its state is one of these.
    pub fn until(&self, id: &str, states: &[&str]) -> Value {
        let started = Instant::now();
        loop {
            let job = self.get(&format!("/v1/jobs/{id}")).json();
            if states.iter().any(|state| job["state"] == *state) {
                return job;
            }
            assert!(started.elapsed() < Duration::from_secs(120), "{job}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A program that says what comes after a prompt.
pub fn next_token(prompt: &str) -> Value {
    json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": prompt }], "body": [
        { "op": "get", "name": "logits", "hook": "logits" },
        { "op": "getitem", "name": "last", "input": "logits", "index": [":", -1] },
        { "op": "save", "name": "last_logits", "value": "last" },
        { "op": "topk", "name": "top", "input": "last", "k": 3 },
        { "op": "save", "name": "tokens", "value": "top.1" } ] }] })
}

/// A program that takes long: so many prompts are continued by a hundred tokens.
pub fn long(prompts: usize) -> Value {
    json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompts": vec!["When Mary and John went"; prompts] }],
        "generate": { "max_new_tokens": 100, "stop_tokens": [] }, "body": [
        { "op": "generated", "name": "g" }, { "op": "save", "name": "made", "value": "g" } ] }] })
}

/// Saved values of a result, as bytes by name: without what tells how it was made.
pub fn values(result: &[u8]) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let file = safetensors::SafeTensors::deserialize(result).unwrap();
    let mut values: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec()))
        .collect();
    values.sort();
    values
}
