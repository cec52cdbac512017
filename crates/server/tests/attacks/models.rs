//! One account's steady use of a model keeps another's model out of memory for no longer than its turn.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{GOOD, Service, text};
use crate::limits::longer;

/// Two models, neither of which stays, with so much room.
fn service(weight_bytes: u64) -> Service {
    let file = format!(
        "[engine]\nweight_bytes = {weight_bytes}\nidle_seconds = 1.5\n\
         [[model]]\nid = \"a\"\nsource = \"bundled\"\ndefault = true\n[[model]]\nid = \"b\"\nsource = \"bundled\"\n"
    );
    Service::start_with(&file, &[], &[("ann", &[]), ("bob", &[])])
}

#[test]
fn a_model_in_steady_use_makes_way_for_another_accounts() {
    let bytes = {
        let probe = service(16 << 30);
        assert_eq!(probe.get(0, "/v1/models/a").status, 200);
        let models = probe.get(0, "/v1/models").json();
        models["models"][0]["parameters_bytes"].as_u64().unwrap()
    };
    let service = service(bytes * 3 / 2);
    let submit = |key: usize, model: &str| {
        let headers = [("content-type", "application/json")];
        let taken = service.ask(key, "POST", &format!("/v1/jobs?model={model}"), &headers, GOOD.as_bytes());
        assert_eq!(taken.status, 202, "{}", text(&taken.body));
        taken.json()["id"].as_str().unwrap().to_owned()
    };
    let state = |key: usize, id: &str| service.get(key, &format!("/v1/jobs/{id}")).json()["state"].clone();
    let ends = |key: usize, id: &str| {
        let until = Instant::now() + Duration::from_secs(40);
        while ["queued", "running"].iter().any(|going| state(key, id) == *going) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        state(key, id)
    };
    let (over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // A small job now and then: never is the model idle for as long as one stays that nobody uses.
        let steady = scope.spawn(|| {
            let mut jobs = Vec::new();
            while !over.load(Ordering::Relaxed) {
                jobs.push(submit(0, "a"));
                sent.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(250));
            }
            jobs
        });
        while sent.load(Ordering::Relaxed) < 4 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let (first, began) = (submit(1, "b"), Instant::now());
        let first = ends(1, &first);
        println!("the other's job took {:?}", began.elapsed());
        // And once more: turns go round.
        let second = (first == "succeeded").then(|| ends(1, &submit(1, "b")));
        over.store(true, Ordering::Relaxed);
        let jobs = steady.join().unwrap();
        assert_eq!((first, second), ("succeeded".into(), Some(Value::from("succeeded"))));
        for id in jobs {
            assert_eq!(ends(0, &id), "succeeded", "who makes way gets on too");
        }
    });
}

#[test]
fn a_long_job_and_a_request_for_another_model_keep_nobody_off() {
    let bytes = {
        let probe = service(16 << 30);
        assert_eq!(probe.get(0, "/v1/models/a").status, 200);
        probe.get(0, "/v1/models").json()["models"][0]["parameters_bytes"].as_u64().unwrap()
    };
    let service = service(bytes * 3 / 2);
    let submit = |key: usize, model: &str, program: &str| {
        let headers = [("content-type", "application/json"), ("prefer", "wait=0")];
        let taken =
            service.ask(key, "POST", &format!("/v1/jobs?model={model}"), &headers, program.as_bytes());
        assert!([200, 202].contains(&taken.status), "{}", text(&taken.body));
        taken.json()["id"].as_str().unwrap().to_owned()
    };
    let state = |key: usize, id: &str| service.get(key, &format!("/v1/jobs/{id}")).json()["state"].clone();
    let becomes = |key: usize, id: &str, wanted: &str| {
        let until = Instant::now() + Duration::from_secs(15);
        while state(key, id) != wanted && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(state(key, id), wanted);
    };
    let long = submit(0, "a", &longer());
    becomes(0, &long, "running");
    let other = submit(0, "b", GOOD);
    // Longer than until the first is asked to make way.
    std::thread::sleep(Duration::from_secs(3));
    becomes(1, &submit(1, "a", GOOD), "succeeded");
    assert_eq!((state(0, &long), state(0, &other)), ("running".into(), "queued".into()));
    service.ask(0, "DELETE", &format!("/v1/jobs/{long}"), &[], b"");
    becomes(0, &other, "succeeded");
}
