//! `kill -9` at random moments, also while the service mends what the last one left: every job that was acknowledged ends once,
//! with the right result; one during which the process died twice, as poisoned.
//!
//! `PELLUCID_CRASHES=100` kills a hundred times; without it, a handful. `PELLUCID_SEED` chooses other moments.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::harness::{Client, SAFETENSORS, Server, command, next_token, values};

const PROMPTS: [&str; 5] = [
    "The Eiffel Tower is in the city of",
    "When Mary and John went to the store, John gave a drink to",
    "The movie was awful. I",
    "Mary has",
    "The capital of France is",
];

/// A small generator: the same moments for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What a job does, as it is sent.
struct Work {
    name: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Work {
    fn json(name: &'static str, program: &Value) -> Work {
        Work { name, content_type: "application/json", body: program.to_string().into_bytes() }
    }

    /// Small traces, a generation, a result of a megabyte, and a program with constants that is so large that it is kept as a file.
    fn all() -> Vec<Work> {
        let mut all: Vec<Work> =
            PROMPTS.iter().map(|prompt| Work::json("small trace", &next_token(prompt))).collect();
        let generation = json!({ "pellucid": 1, "seed": 7, "body": [{ "op": "trace", "invokes": [{ "prompts": &PROMPTS[..3] }],
            "generate": { "max_new_tokens": 24, "stop_tokens": [], "temperature": 1.0 }, "body": [
            { "op": "generated", "name": "g" }, { "op": "save", "name": "made", "value": "g" } ] }] });
        all.push(Work::json("generation", &generation));
        let large = json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompts": vec![PROMPTS[1]; 12] }], "body": [
            { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "logits", "value": "l" } ] }] });
        all.push(Work::json("large result", &large));
        let program = json!({ "pellucid": 1, "body": [
            { "op": "constant", "name": "c", "key": "given" },
            { "op": "trace", "invokes": [{ "prompt": PROMPTS[0] }], "body": [
                { "op": "getitem", "name": "direction", "input": "c", "index": [600] },
                { "op": "get", "name": "h", "hook": "layers.1.output" },
                { "op": "add", "name": "steered", "input": "h", "other": "direction" },
                { "op": "set", "hook": "layers.1.output", "value": "steered" },
                { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "logits", "value": "l" } ] }] });
        let data: Vec<u8> = (0..700 * 128).flat_map(|at| (at as f32 * 1e-4).sin().to_le_bytes()).collect();
        let view = TensorView::new(safetensors::Dtype::F32, vec![700, 128], &data).unwrap();
        let metadata = HashMap::from([("pellucid.program".to_owned(), program.to_string())]);
        let body = safetensors::serialize([("given", view)], Some(metadata)).unwrap();
        all.push(Work { name: "large program", content_type: SAFETENSORS, body });
        all
    }

    fn headers<'a>(&'a self, key: &'a str, wait: &'a str) -> [(&'a str, &'a str); 3] {
        [("Content-Type", self.content_type), ("Idempotency-Key", key), ("Prefer", wait)]
    }
}

const ACCOUNTS: usize = 3;

/// What is submitted, and what was acknowledged.
struct Load {
    work: Vec<Work>,
    /// The keys of the accounts.
    keys: Vec<String>,
    next: AtomicU64,
    /// By number: the id.
    acknowledged: Mutex<HashMap<u64, String>>,
}

impl Load {
    fn work(&self, number: u64) -> usize {
        number as usize % self.work.len()
    }

    fn client(&self, server: &Server, account: usize) -> Client {
        Client { key: Some(self.keys[account].clone()), ..server.anyone() }
    }

    fn clients(&self, server: &Server) -> Vec<Client> {
        (0..ACCOUNTS).map(|account| self.client(server, account)).collect()
    }

    fn account(number: u64) -> usize {
        // Not always the same work from the same account.
        (number / 8 + number) as usize % ACCOUNTS
    }

    /// Submits until it is acknowledged or the service is gone.
    fn submit(&self, clients: &[Client], number: u64, over: &AtomicBool) {
        let work = &self.work[self.work(number)];
        let key = format!("key-{number}");
        let wait = if number.is_multiple_of(3) { "respond-async" } else { "wait=5" };
        loop {
            let client = &clients[Load::account(number)];
            match client.try_ask("POST", "/v1/jobs", &work.headers(&key, wait), &work.body) {
                Ok(answer) if [200, 202].contains(&answer.status) => {
                    let id = answer.json()["id"].as_str().unwrap().to_owned();
                    let before = self.acknowledged.lock().unwrap().insert(number, id.clone());
                    assert!(before.is_none_or(|before| before == id), "one key, two jobs");
                    return;
                }
                Ok(answer) if [429, 503].contains(&answer.status) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(answer) => panic!("{}: {}", answer.status, answer.text()),
                Err(_) if over.load(Ordering::Relaxed) => return,
                // The process has just died.
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// Whether jobs that ran when the process died have not ended yet: each runs alone first.
fn recovers(clients: &[Client]) -> bool {
    let any = |client: &Client, query: &str, more_than: u64| {
        let jobs = client.get(&format!("/v1/jobs?{query}&limit=200")).json();
        jobs["jobs"].as_array().unwrap().iter().any(|job| job["attempts"].as_u64() > Some(more_than))
    };
    clients.iter().any(|client| any(client, "state=running", 1) || any(client, "state=queued", 0))
}

/// Starts the service, and kills it after so long, wherever it is: before it listens, too.
fn killed_at_start(folder: &Path, after: Duration) {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("test.log")).unwrap();
    let mut serve = command(&["serve", "--listen", "127.0.0.1:0", "--data", folder.to_str().unwrap()]);
    let mut child = serve.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    std::thread::sleep(after);
    assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// One start under load, and its end; gives what it was doing then.
fn killed_under_load(folder: &Path, load: &Load, recovered: bool, after: Duration) -> &'static str {
    let mut server = Server::start(folder, false, &[]);
    let clients = load.clients(&server);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (clients, over) = (&clients, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let number = load.next.fetch_add(1, Ordering::Relaxed);
                    load.submit(clients, number, over);
                }
            });
        }
        let mut mends = true;
        if recovered {
            while recovers(&clients) {
                std::thread::sleep(Duration::from_millis(5));
            }
            mends = false;
            std::thread::sleep(after);
        } else {
            let until = Instant::now() + after;
            while Instant::now() < until {
                mends = mends && recovers(&clients);
                std::thread::sleep(
                    Duration::from_millis(2).min(until.saturating_duration_since(Instant::now())),
                );
            }
        }
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        over.store(true, Ordering::Relaxed);
        if mends { "while jobs of before ran again" } else { "when all of before had ended" }
    })
}

/// All jobs of an account, page by page.
fn listed(client: &Client) -> usize {
    let (mut listed, mut after) = (0, String::new());
    loop {
        let page = client.get(&format!("/v1/jobs?limit=200{after}")).json();
        listed += page["jobs"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return listed,
        }
    }
}

/// Jobs that count in what an account has used.
fn counted(client: &Client) -> u64 {
    let usage = client.get("/v1/usage").json();
    usage["days"].as_array().unwrap().iter().map(|day| day["jobs"].as_u64().unwrap()).sum()
}

#[test]
fn whatever_was_acknowledged_ends_once_however_often_the_process_dies() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let crashes = number("PELLUCID_CRASHES").unwrap_or(4);
    let mut dice = Dice(number("PELLUCID_SEED").unwrap_or(42));
    let work = Work::all();
    // What each gives, from a service that nobody disturbs.
    let expected: Vec<_> = {
        let calm = Server::open(&[]);
        let client = calm.anyone();
        let run = |work: &Work| {
            let mut headers = work.headers("once", "wait=60").to_vec();
            headers[1] = ("Accept", SAFETENSORS);
            let answer = client.ask("POST", "/v1/jobs", &headers, &work.body);
            assert_eq!(answer.status, 200, "{}: {}", work.name, answer.text());
            values(&answer.body)
        };
        work.iter().map(run).collect()
    };
    let folder = tempfile::tempdir().unwrap();
    let keys = {
        let server = Server::start(folder.path(), false, &[]);
        let unlimited = ["requests_per_minute", "milliseconds_per_minute", "milliseconds_per_day"]
            .map(|limit| format!("{limit}=none"));
        let unlimited: Vec<&str> = unlimited.iter().flat_map(|limit| ["--limit", limit]).collect();
        let key = |number| server.account(&format!("person-{number}"), &unlimited).key.unwrap();
        (0..ACCOUNTS).map(key).collect()
    };
    let load = Load { work, keys, next: AtomicU64::new(0), acknowledged: Mutex::default() };
    let mut moments: BTreeMap<&str, u64> = BTreeMap::new();
    for crash in 0..crashes {
        let moment = match crash % 4 {
            1 => {
                killed_at_start(folder.path(), Duration::from_millis(dice.below(400)));
                "within 400 ms of the start, before anybody asked"
            }
            3 => killed_under_load(folder.path(), &load, false, Duration::from_millis(dice.below(200))),
            _ => killed_under_load(folder.path(), &load, true, Duration::from_millis(20 + dice.below(600))),
        };
        *moments.entry(moment).or_default() += 1;
        println!("crash {crash}, {moment}: {} jobs acknowledged", load.acknowledged.lock().unwrap().len());
    }
    let server = Server::start(folder.path(), false, &[]);
    let clients = load.clients(&server);
    // What got no answer is tried again under its own key, as a client would.
    let never = AtomicBool::new(false);
    for number in 0..load.next.load(Ordering::Relaxed) {
        if !load.acknowledged.lock().unwrap().contains_key(&number) {
            load.submit(&clients, number, &never);
        }
    }
    let acknowledged = load.acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() as u64 >= 5 * crashes, "only {} jobs: too few to tell", acknowledged.len());
    let (mut by_work, mut attempts) = (BTreeMap::<&str, u64>::new(), BTreeMap::<u64, u64>::new());
    let mut poisoned = 0;
    for (number, id) in &acknowledged {
        let client = &clients[Load::account(*number)];
        let job = client.until(id, &["succeeded", "failed", "cancelled"]);
        let begun = job["attempts"].as_u64().unwrap();
        if job["error"]["type"] == "urn:pellucid:problem:poisoned" {
            // Two attempts began, and none that ended in order leaves a job that fails so: the process died during both.
            assert_eq!((&job["state"], begun), (&json!("failed"), 2), "{job}");
            assert_ne!(client.get(&format!("/v1/jobs/{id}/result")).status, 200);
            poisoned += 1;
            continue;
        }
        assert_eq!(job["state"], "succeeded", "{job}");
        assert!((1..=2).contains(&begun), "{job}");
        *attempts.entry(begun).or_default() += 1;
        *by_work.entry(load.work[*number as usize % load.work.len()].name).or_default() += 1;
        let result = client.get(&format!("/v1/jobs/{id}/result"));
        assert!(
            values(&result.body) == expected[*number as usize % expected.len()],
            "{id} has a wrong result"
        );
    }
    // What ran when the process died runs alone: each death is the second one of one job at most.
    assert!(poisoned <= crashes, "{poisoned} jobs are poisoned by {crashes} crashes");
    println!(
        "{} jobs of {ACCOUNTS} accounts over {crashes} crashes; succeeded by attempts: {attempts:?}, by work: {by_work:?}; \
         poisoned, the process having died twice during them: {poisoned}; killed: {moments:?}",
        acknowledged.len()
    );
    // Once each: no job more than were asked for, and each counted once.
    let listed: usize = clients.iter().map(listed).sum();
    let counted: u64 = clients.iter().map(counted).sum();
    assert_eq!((listed, counted), (acknowledged.len(), acknowledged.len() as u64));
    // One result each, and no file of nobody.
    let files =
        |name: &str| std::fs::read_dir(folder.path().join("files").join(name)).map_or(0, Iterator::count);
    assert_eq!((files("results"), files("programs")), (acknowledged.len() - poisoned as usize, 0));
}
