//! The disk is full, nothing can be written, the folder is read-only: a clear error, nothing lost, and `/readyz` tells the truth.

#![cfg(target_os = "linux")]

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Client, Server, command_within, long, next_token, values};

const PROMPTS: [&str; 4] =
    ["The Eiffel Tower is in the city of", "Mary has", "The movie was awful. I", "The capital of France is"];

/// By which a developer says that the system lets nobody make mounts of their own, where all tests are to be there.
const WITHOUT: &str = "PELLUCID_WITHOUT_MOUNTS";

/// A command that runs another with mounts of its own, after a script has made them: `$0` is the data folder. None where the system
/// does not allow it; where all tests are to be there (`CI`, `cargo xtask test`) that is a failure, unless it was said.
fn mounts(script: &str, folder: &Path) -> Option<Vec<String>> {
    let namespaces: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let allowed = namespaces.iter().find(|namespace| {
        let tried =
            Command::new("unshare").args(**namespace).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
        tried.is_ok_and(|output| output.status.success())
    });
    let Some(allowed) = allowed else {
        let set = |name: &str| std::env::var_os(name).is_some();
        let message = "this system lets nobody make mounts of their own (`unshare --mount`): what a full disk and a read-only store do is not tested";
        assert!(
            set(WITHOUT) || !(set("CI") || set("PELLUCID_ALL_TESTS")),
            "{message}; {WITHOUT}=1 leaves it out"
        );
        // Not by `eprintln!`, which a test that passes keeps to itself.
        let _ = writeln!(std::io::stderr(), "\nLEFT OUT: {message}\n");
        return None;
    };
    let shell =
        ["sh", "-c", &format!("{script} && exec \"$@\""), folder.to_str().unwrap()].map(str::to_owned);
    Some(["unshare"].iter().chain(*allowed).map(|word| (*word).to_owned()).chain(shell).collect())
}

fn words(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

fn ready(client: &Client) -> (u16, String) {
    let answer = client.get("/readyz");
    (answer.status, answer.json()["checks"]["store"].as_str().unwrap().to_owned())
}

fn until(what: &str, server: &Server, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: never\n{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Four people submit while the store breaks and is mended. Whatever was acknowledged ends once, with the right result;
/// whatever was refused was told so, and is a job of nobody.
fn through(server: &Server, break_it: impl Fn(), mend_it: impl Fn()) {
    let client = server.anyone();
    let expected: Vec<_> = PROMPTS.iter().map(|prompt| values(&client.result(&next_token(prompt)))).collect();
    assert_eq!(ready(&client), (200, "ok".to_owned()));
    let before = client.run(&next_token("Mary has"));
    let running = client.post("/v1/jobs", &long(50), &[]).json()["id"].as_str().unwrap().to_owned();
    let acknowledged: Mutex<HashMap<String, u64>> = Mutex::default();
    let (over, refused, next) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (client, acknowledged, over, refused, next) =
                (client.clone(), &acknowledged, &over, &refused, &next);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let program = next_token(PROMPTS[number as usize % PROMPTS.len()]);
                    let answer =
                        client.post("/v1/jobs", &program, &[("Idempotency-Key", &format!("key-{number}"))]);
                    if answer.status == 202 {
                        let id = answer.json()["id"].as_str().unwrap().to_owned();
                        acknowledged.lock().unwrap().insert(id, number);
                    } else {
                        assert_eq!(
                            (answer.status, answer.problem().as_str()),
                            (503, "store-unavailable"),
                            "{}",
                            answer.text()
                        );
                        assert_eq!(answer.header("retry-after"), "5");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        break_it();
        until("/readyz tells that the store fails", server, || ready(&client) == (503, "failing".to_owned()));
        until("submissions are refused", server, || refused.load(Ordering::Relaxed) > 3);
        // What is there can be read all the same, and the process lives.
        assert_eq!(client.get("/healthz").status, 200);
        let id = before["id"].as_str().unwrap();
        assert_eq!(client.get(&format!("/v1/jobs/{id}")).json()["state"], "succeeded");
        assert_eq!(client.get(&format!("/v1/jobs/{id}/result")).status, 200);
        mend_it();
        until("/readyz tells that the store works", server, || ready(&client) == (200, "ok".to_owned()));
        let then = refused.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(500));
        assert!(
            refused.load(Ordering::Relaxed) <= then + 4,
            "submissions are refused after /readyz said that all is well"
        );
        over.store(true, Ordering::Relaxed);
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() > 5, "only {} jobs: too few to tell", acknowledged.len());
    for (id, number) in &acknowledged {
        let job = client.until(id, &["succeeded", "failed", "cancelled"]);
        assert_eq!((job["state"].as_str(), job["attempts"].as_u64()), (Some("succeeded"), Some(1)), "{job}");
        let result = client.get(&format!("/v1/jobs/{id}/result"));
        assert!(
            values(&result.body) == expected[*number as usize % PROMPTS.len()],
            "{id} has a wrong result"
        );
    }
    assert_eq!(client.until(&running, &["succeeded", "failed"])["state"], "succeeded");
    println!("{} jobs acknowledged, {} refused", acknowledged.len(), refused.load(Ordering::Relaxed));
    // What was refused is no job: each is counted once, and no more than were acknowledged (and run before).
    let usage = client.get("/v1/usage").json();
    let counted: u64 =
        usage["days"].as_array().unwrap().iter().map(|day| day["jobs"].as_u64().unwrap()).sum();
    assert_eq!(counted as usize, acknowledged.len() + PROMPTS.len() + 2);
    assert!(server.log().contains("not ready"), "{}", server.log());
}

#[test]
fn a_full_disk_is_told_and_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let Some(within) = mounts("mount -t tmpfs -o size=24m none \"$0\"", folder.path()) else { return };
    let server = Server::within(&words(&within), folder.path());
    // The same folder, as the service sees it.
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.child.id(), folder.path().display()));
    let filler = inside.join("filler");
    through(
        &server,
        || {
            let mut file = std::fs::File::create(&filler).unwrap();
            let block = vec![0; 1 << 16];
            while file.write_all(&block).is_ok() {}
            while file.write_all(&block[..256]).is_ok() {}
        },
        || std::fs::remove_file(&filler).unwrap(),
    );
    let log = server.log();
    assert!(log.contains("No space left") || log.contains("full"), "{log}");
    // No file is left of what could not be written.
    let files: Vec<String> = std::fs::read_dir(inside.join("files"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(files.iter().all(|name| ["results", "programs"].contains(&name.as_str())), "{files:?}");
}

#[test]
fn where_nothing_can_be_written_for_a_while_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), true, &[]);
    let limit = |bytes: &str| {
        let pid = server.child.id().to_string();
        let set =
            Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:unlimited")]).status();
        assert!(set.unwrap().success());
    };
    // From here on every write to a file fails, wherever it is.
    through(&server, || limit("0"), || limit("unlimited"));
}

#[test]
fn a_read_only_folder_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    drop(Server::start(folder.path(), true, &[]));
    let read_only = |what: &str| {
        let script =
            format!("mount --bind \"$0{what}\" \"$0{what}\" && mount -o remount,bind,ro \"$0{what}\"");
        let within = mounts(&script, folder.path())?;
        let data = folder.path().to_str().unwrap();
        let arguments = ["serve", "--open", "--listen", "127.0.0.1:0", "--data", data];
        let output = command_within(&words(&within), &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        Some(String::from_utf8(output.stderr).unwrap())
    };
    let Some(message) = read_only("") else { return };
    assert!(message.contains("the data folder") && message.contains("Read-only"), "{message}");
    let message = read_only("/pellucid.sqlite").unwrap();
    assert!(message.contains("pellucid.sqlite") && message.contains("readonly"), "{message}");
    // Nothing has happened to it.
    let server = Server::start(folder.path(), true, &[]);
    server.anyone().run(&next_token("Mary has"));
}
