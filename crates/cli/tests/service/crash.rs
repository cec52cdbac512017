//! `kill -9` at moments that are chosen: what becomes of jobs, events, results and files.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Server, long, next_token};
use crate::raw;

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
