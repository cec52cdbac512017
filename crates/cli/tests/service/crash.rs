//! `kill -9`: every job that was acknowledged ends once, with the right result.
//!
//! `PELLUCID_CRASHES=100` kills a hundred times; without it, a handful.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Server, long, next_token, values};
use crate::raw;

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

#[test]
fn whatever_was_acknowledged_ends_once_however_often_the_process_dies() {
    let crashes: u64 = std::env::var("PELLUCID_CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let seed = std::env::var("PELLUCID_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(42);
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(seed);
    // What each program gives, from a service that nobody disturbs.
    let expected: Vec<_> = {
        let calm = Server::open(&[]);
        PROMPTS.iter().map(|prompt| values(&calm.anyone().result(&next_token(prompt)))).collect()
    };
    // Idempotency key → job, as acknowledged.
    let acknowledged: Mutex<HashMap<String, String>> = Mutex::default();
    let next = AtomicU64::new(0);
    for crash in 0..crashes {
        let mut server = Server::start(folder.path(), true, &[]);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (server, over, next, acknowledged) = (server.anyone(), &over, &next, &acknowledged);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        submit(&server, number, over, acknowledged);
                    }
                });
            }
            // What ran when it died runs alone first; a job that is hit twice would be taken for the culprit.
            let client = server.anyone();
            while client.get("/v1/jobs?state=running").json()["jobs"]
                .as_array()
                .unwrap()
                .iter()
                .any(|job| job["attempts"].as_u64() > Some(1))
                || client.get("/v1/jobs?state=queued&limit=200").json()["jobs"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|job| job["attempts"].as_u64() > Some(0))
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(20 + dice.below(600)));
            server.child.kill().unwrap();
            server.child.wait().unwrap();
            over.store(true, Ordering::Relaxed);
        });
        println!("crash {crash}: {} jobs acknowledged", acknowledged.lock().unwrap().len());
    }
    let server = Server::start(folder.path(), true, &[]);
    let client = server.anyone();
    // What got no answer is tried again under its own key, as a client would.
    let never = AtomicBool::new(false);
    for number in 0..next.load(Ordering::Relaxed) {
        if !acknowledged.lock().unwrap().contains_key(&key(number)) {
            submit(&client, number, &never, &acknowledged);
        }
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() as u64 >= 10 * crashes, "only {} jobs: too few to tell", acknowledged.len());
    let mut attempts = HashMap::new();
    for (key, id) in &acknowledged {
        let job = client.until(id, &["succeeded", "failed", "cancelled"]);
        assert_eq!(job["state"], "succeeded", "{job}");
        *attempts.entry(job["attempts"].as_u64().unwrap()).or_insert(0) += 1;
        let number: usize = key.trim_start_matches("key-").parse().unwrap();
        let result = client.get(&format!("/v1/jobs/{id}/result"));
        assert!(values(&result.body) == expected[number % PROMPTS.len()], "{id} has a wrong result");
    }
    println!("{} jobs over {crashes} crashes; by attempts: {attempts:?}", acknowledged.len());
    // Once each: no job more than were asked for, and each counted once.
    let mut listed = 0;
    let mut after = String::new();
    loop {
        let page = client.get(&format!("/v1/jobs?limit=200{after}")).json();
        listed += page["jobs"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(listed, acknowledged.len());
    let usage = client.get("/v1/usage").json();
    let counted: u64 =
        usage["days"].as_array().unwrap().iter().map(|day| day["jobs"].as_u64().unwrap()).sum();
    assert_eq!(counted, acknowledged.len() as u64);
    // One result each, and no file of nobody.
    let results = std::fs::read_dir(folder.path().join("files/results")).unwrap().count();
    assert_eq!(results, acknowledged.len());
}

fn key(number: u64) -> String {
    format!("key-{number}")
}

/// Submits until it is acknowledged or the service is gone.
fn submit(
    client: &crate::harness::Client,
    number: u64,
    over: &AtomicBool,
    acknowledged: &Mutex<HashMap<String, String>>,
) {
    let program = next_token(PROMPTS[number as usize % PROMPTS.len()]).to_string();
    let key = key(number);
    let wait = if number.is_multiple_of(3) { "wait=5" } else { "respond-async" };
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key.as_str()), ("Prefer", wait)];
    loop {
        match client.try_ask("POST", "/v1/jobs", &headers, program.as_bytes()) {
            Ok(answer) if [200, 202].contains(&answer.status) => {
                let id = answer.json()["id"].as_str().unwrap().to_owned();
                let before = acknowledged.lock().unwrap().insert(key, id.clone());
                assert!(before.is_none_or(|before| before == id), "one key, two jobs");
                return;
            }
            Ok(answer) if [429, 503].contains(&answer.status) => {
                std::thread::sleep(Duration::from_millis(20))
            }
            Ok(answer) => panic!("{}", answer.text()),
            Err(_) if over.load(Ordering::Relaxed) => return,
            // The process has just died.
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

#[test]
fn a_job_on_which_the_process_died_twice_is_not_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), true, &[]);
    let id = server.anyone().post("/v1/jobs", &long(400), &[]).json()["id"].as_str().unwrap().to_owned();
    server.anyone().until(&id, &["running"]);
    let kill = |server: &mut Server| {
        server.child.kill().unwrap();
        server.child.wait().unwrap();
    };
    kill(&mut server);
    let mut server = Server::start(folder.path(), true, &[]);
    let client = server.anyone();
    // It runs alone now: others wait meanwhile.
    let job = client.until(&id, &["running"]);
    assert_eq!(job["attempts"], 2);
    let other = client.post("/v1/jobs", &next_token("Mary"), &[]).json()["id"].as_str().unwrap().to_owned();
    let deadline = Instant::now() + Duration::from_millis(300);
    while Instant::now() < deadline && client.get(&format!("/v1/jobs/{id}")).json()["state"] == "running" {
        assert_eq!(client.get(&format!("/v1/jobs/{other}")).json()["state"], "queued");
    }
    kill(&mut server);
    let server = Server::start(folder.path(), true, &[]);
    let client = server.anyone();
    let job = client.get(&format!("/v1/jobs/{id}")).json();
    assert_eq!(
        (&job["state"], &job["error"]["type"]),
        (&json!("failed"), &json!("urn:pellucid:problem:poisoned"))
    );
    // The other never began, so it is no suspect, and runs.
    let other = client.until(&other, &["succeeded", "failed"]);
    assert_eq!((&other["state"], &other["attempts"]), (&json!("succeeded"), &json!(1)));
}

#[test]
fn events_are_taken_up_again_where_the_process_has_died_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), true, &[]);
    let client = server.anyone();
    let id = client.post("/v1/jobs", &long(60), &[]).json()["id"].as_str().unwrap().to_owned();
    client.until(&id, &["running"]);
    // Who follows has seen tokens when the connection breaks.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET /v1/jobs/{id}/events HTTP/1.1\r\nhost: {}\r\n\r\n", server.address).unwrap();
    let (mut told, mut part) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&told).contains("event: token") {
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&told));
        told.extend_from_slice(&part[..read]);
    }
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    // What was on its way is read; then the connection is gone, in whichever manner.
    let _ = stream.read_to_end(&mut told);
    let told = String::from_utf8_lossy(&told);
    assert!(!told.contains("event: done"), "it was to die before the end");
    let seen = told.lines().filter_map(|line| line.strip_prefix("id: ")?.parse::<u64>().ok()).max().unwrap();
    let server = Server::start(folder.path(), true, &[]);
    let client = server.anyone();
    let again = [("Last-Event-ID", seen.to_string())];
    let headers: Vec<(&str, &str)> = again.iter().map(|(name, id)| (*name, id.as_str())).collect();
    let events = raw::events(&client.ask("GET", &format!("/v1/jobs/{id}/events"), &headers, b"").text());
    let ids: Vec<u64> = events.iter().filter_map(|event| event.id).collect();
    assert!(ids.iter().all(|id| *id > seen) && ids.is_sorted_by(|one, other| one < other), "{seen} {ids:?}");
    // What is told again is the second attempt, whole: whoever follows begins anew, and misses nothing.
    let begun = events.iter().find(|event| event.name == "running").unwrap();
    assert_eq!(begun.data["attempt"], 2);
    let count = |name: &str| events.iter().filter(|event| event.name == name).count();
    assert_eq!((count("running"), count("gap"), count("token"), count("done")), (1, 0, 60 * 100, 1));
    assert_eq!(events.last().unwrap().data["state"], "succeeded");
}

#[test]
fn a_store_that_cannot_be_used_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("pellucid.sqlite"),
        "this is no database, but it is long enough to be taken for one".repeat(20),
    )
    .unwrap();
    let arguments = ["serve", "--open", "--listen", "127.0.0.1:0", "--data", folder.path().to_str().unwrap()];
    let output = crate::harness::command(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("pellucid.sqlite") && message.contains("not a database"), "{message}");
}

#[test]
fn results_that_cannot_be_written_are_kept_until_they_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), true, &[]);
    let client = server.anyone();
    client.run(&next_token("Mary"));
    // A file where the folder was: nothing can be written there, whoever one is.
    let (results, aside) = (folder.path().join("files/results"), folder.path().join("aside"));
    std::fs::rename(&results, &aside).unwrap();
    std::fs::write(&results, "").unwrap();
    let id = client.post("/v1/jobs", &next_token("Mary"), &[]).json()["id"].as_str().unwrap().to_owned();
    let started = Instant::now();
    while !server.log().contains("the result cannot be written") {
        assert!(started.elapsed() < Duration::from_secs(20), "{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.get(&format!("/v1/jobs/{id}")).json()["state"], "running");
    std::fs::remove_file(&results).unwrap();
    std::fs::rename(&aside, &results).unwrap();
    let job: Value = client.until(&id, &["succeeded", "failed"]);
    assert_eq!((&job["state"], &job["attempts"]), (&json!("succeeded"), &json!(1)));
    assert_eq!(client.get(&format!("/v1/jobs/{id}/result")).status, 200);
}

#[test]
fn a_suspect_finds_room_for_its_model_whoever_waits_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pellucid.toml");
    // Models none of which stays; with room for one of them, once it is known how much that is. So many that the suspect's is hardly
    // the first to be loaded by chance.
    let others = ["a", "c", "d", "e", "f", "g"];
    let write = |weight_bytes: u64| {
        let mut text = format!("[engine]\nweight_bytes = {weight_bytes}\nidle_seconds = 0.1\n");
        for id in others.iter().chain(&["b"]) {
            let default = *id == "a";
            text.push_str(&format!("[[model]]\nid = \"{id}\"\nsource = \"bundled\"\ndefault = {default}\n"));
        }
        std::fs::write(&config, text).unwrap();
    };
    write(16 << 30);
    let mut server = Server::with_config(folder.path(), &config);
    let key = server.account("ada", &[]).key;
    assert_eq!(Client { key: key.clone(), ..server.anyone() }.get("/v1/models/a").status, 200);
    let models = Client { key: key.clone(), ..server.anyone() }.get("/v1/models").json();
    let bytes = models["models"][0]["parameters_bytes"].as_u64().unwrap();
    assert_eq!(server.terminate(), Some(0));
    write(bytes * 3 / 2);
    let mut server = Server::with_config(folder.path(), &config);
    let client = Client { key: key.clone(), ..server.anyone() };
    let submit = |client: &Client, model: &str, program: &Value| {
        let taken = client.post(&format!("/v1/jobs?model={model}"), program, &[]);
        assert_eq!(taken.status, 202, "{}", taken.text());
        taken.json()["id"].as_str().unwrap().to_owned()
    };
    let suspect = submit(&client, "b", &long(40));
    client.until(&suspect, &["running"]);
    let waiting: Vec<String> =
        others.iter().map(|model| submit(&client, model, &next_token("Mary has"))).collect();
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let server = Server::with_config(folder.path(), &config);
    let client = Client { key, ..server.anyone() };
    let job = client.until(&suspect, &["succeeded", "failed"]);
    assert_eq!((&job["state"], &job["attempts"]), (&json!("succeeded"), &json!(2)), "{job}");
    for id in waiting {
        let job = client.until(&id, &["succeeded", "failed"]);
        assert_eq!((&job["state"], &job["attempts"]), (&json!("succeeded"), &json!(1)), "{job}");
    }
}

#[test]
fn what_a_result_had_come_to_when_the_process_died_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), true, &[]);
    let job = server.anyone().run(&next_token("Mary has"));
    let id = job["id"].as_str().unwrap().to_owned();
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    // As they lie there when they were being written.
    let files = folder.path().join("files");
    std::fs::create_dir_all(files.join("programs")).unwrap();
    let half = [format!("results/{id}/2#1"), format!("programs/{id}#1"), "probe#1".to_owned()];
    half.iter().for_each(|name| std::fs::write(files.join(name), "somebody's values").unwrap());
    let server = Server::start(folder.path(), true, &[]);
    for name in &half {
        assert!(!files.join(name).exists(), "{name} is still there");
    }
    assert_eq!(server.anyone().get(&format!("/v1/jobs/{id}/result")).status, 200);
}
