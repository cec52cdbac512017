//! A service that is measured, and people with keys of their own.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::shell::{Outcome, target};

/// A service that runs, with a folder of its own.
pub(crate) struct Service {
    child: Child,
    folder: PathBuf,
    address: String,
    keys: Vec<String>,
    operator: String,
    again: Arc<AtomicU64>,
}

/// Someone with a key.
pub(crate) struct Person {
    agent: Agent,
    address: String,
    key: String,
    again: Arc<AtomicU64>,
}

/// How long a connection may lie idle to be used again: less than any service here keeps it open, so that none is used at the moment
/// at which it is closed.
const IDLE: Duration = Duration::from_secs(5);

fn pellucid() -> Command {
    Command::new(target().join("release/pellucid"))
}

impl Service {
    /// Starts a service of one model, with keys for so many people.
    pub fn start(source: &str, packing: bool, people: usize) -> Outcome<Service> {
        Service::start_with(source, &[&format!("engine.packing={packing}")], people)
    }

    /// The same with settings of its own.
    pub fn start_with(source: &str, settings: &[&str], people: usize) -> Outcome<Service> {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pellucid-load-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let config = folder.join("pellucid.toml");
        let text = format!("[[model]]\nid = \"model\"\nsource = {source:?}\npinned = true\ndefault = true\n");
        std::fs::write(&config, text)?;
        let data = folder.join("data");
        let make_key = |account: &str, choices: &[&str]| -> Outcome<String> {
            let mut make = pellucid();
            make.args(["keys", "create", "--account", account]).args(choices).arg("--data").arg(&data);
            let made = make.stderr(Stdio::null()).output()?;
            Ok(String::from_utf8(made.stdout)?.trim().to_owned())
        };
        let unlimited =
            ["requests_per_minute", "milliseconds_per_minute", "milliseconds_per_day", "queued_jobs"]
                .map(|limit| format!("{limit}=none"));
        let unlimited: Vec<&str> = unlimited.iter().flat_map(|limit| ["--limit", limit]).collect();
        let mut keys = Vec::with_capacity(people);
        for number in 0..people {
            keys.push(make_key(&format!("person-{number}"), &unlimited)?);
        }
        let operator = make_key("operator", &["--scope", "admin"])?;
        let mut serve = pellucid();
        serve
            .args(["serve", "--listen", "127.0.0.1:0"])
            .arg("--config")
            .arg(&config)
            .arg("--data")
            .arg(&data);
        for setting in settings.iter().chain(&["log.level=warn"]) {
            serve.args(["--set", setting]);
        }
        let mut child = serve.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().ok_or("it has no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let address =
            line.trim().strip_prefix("listening on ").ok_or("the service did not start")?.to_owned();
        let service = Service { child, folder, address, keys, operator, again: Arc::default() };
        while service.person(0).get("/readyz")?["status"] != "ok" {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Ok(service)
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The key of one of the people.
    pub fn key(&self, number: usize) -> &str {
        self.keys.get(number).map_or("", String::as_str)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// One of the people.
    pub fn person(&self, number: usize) -> Person {
        self.with_key(self.key(number))
    }

    /// Who may see its metrics.
    pub fn operator(&self) -> Person {
        self.with_key(&self.operator)
    }

    fn with_key(&self, key: &str) -> Person {
        let agent = Agent::config_builder().http_status_as_error(false).max_idle_age(IDLE).build().into();
        Person { agent, address: self.address.clone(), key: key.to_owned(), again: self.again.clone() }
    }

    /// Requests that were made a second time, because their connection was closed without an answer.
    pub fn again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Person {
    /// Makes a request; a second time, where the connection was closed without an answer. The service may close one that is idle at any
    /// time (RFC 9112, 9.5), also after a pause of the whole machine. A job that is there twice does no harm here.
    fn ask(
        &self,
        request: impl Fn(&Agent, String) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, ureq::Error> {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        let key = format!("Bearer {}", self.key);
        match request(&self.agent, key.clone()) {
            Err(ureq::Error::Io(error))
                if matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe) =>
            {
                self.again.fetch_add(1, Ordering::Relaxed);
                request(&self.agent, key)
            }
            outcome => outcome,
        }
    }

    /// Submits the bytes of a program: the answer's status and body.
    pub fn send(&self, program: &[u8], wait: &str) -> Outcome<(u16, Vec<u8>)> {
        let mut response = self.ask(|agent, key| {
            agent
                .post(format!("{}/v1/jobs", self.address))
                .header("Authorization", key)
                .header("Content-Type", "application/json")
                .header("Accept", "application/vnd.safetensors")
                .header("Prefer", wait)
                .send(program)
        })?;
        let mut bytes = Vec::new();
        response.body_mut().as_reader().read_to_end(&mut bytes)?;
        Ok((response.status().as_u16(), bytes))
    }

    /// Runs a program, and takes its result.
    pub fn result(&self, program: &Value) -> Outcome {
        match self.send(program.to_string().as_bytes(), "wait=60")? {
            (200, bytes) if bytes.get(8) == Some(&b'{') => Ok(()),
            (status, bytes) => Err(format!("{status}: {}", String::from_utf8_lossy(&bytes)).into()),
        }
    }

    /// Submits a program, and does not wait.
    pub fn submit(&self, program: &Value) -> Outcome {
        self.begin(program).map(|_| ())
    }

    /// The same; gives the job's id.
    pub fn begin(&self, program: &Value) -> Outcome<String> {
        match self.send(program.to_string().as_bytes(), "respond-async")? {
            (202, job) => {
                let job: Value = serde_json::from_slice(&job)?;
                Ok(job["id"].as_str().ok_or("a job without an id")?.to_owned())
            }
            (status, bytes) => Err(format!("{status}: {}", String::from_utf8_lossy(&bytes)).into()),
        }
    }

    /// The text that is answered to a path.
    pub fn text(&self, path: &str) -> Outcome<String> {
        Ok(self.answer(path)?.body_mut().read_to_string()?)
    }

    /// Deletes what is at a path; what is there no more is as well.
    pub fn delete(&self, path: &str) -> Outcome {
        let path = format!("{}{path}", self.address);
        let response = self.ask(|agent, key| agent.delete(&path).header("Authorization", key).call())?;
        match response.status().as_u16() {
            200 | 202 | 204 | 404 => Ok(()),
            status => Err(format!("{status} to deleting").into()),
        }
    }

    /// What is answered to a path.
    pub fn get(&self, path: &str) -> Outcome<Value> {
        Ok(serde_json::from_reader(self.answer(path)?.body_mut().as_reader())?)
    }

    fn answer(&self, path: &str) -> Result<Response<Body>, ureq::Error> {
        let path = format!("{}{path}", self.address);
        self.ask(|agent, key| agent.get(&path).header("Authorization", key).call())
    }

    /// One's own jobs that wait.
    pub fn queued(&self) -> Outcome<u64> {
        Ok(self.get("/v1/account")?["used"]["queued_jobs"].as_u64().unwrap_or(0))
    }
}
