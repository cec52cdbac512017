//! The clock is set back under a running service: nothing is lost, nobody is locked out. In a file of its own, because a clock is
//! a whole process's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a helper fails its test"
)]

#[path = "attacks/harness.rs"]
#[allow(dead_code)]
mod harness;

use std::time::{Duration, Instant};

use harness::{GOOD, Service};
use serde_json::Value;

const LONG: &str = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompts": ["a","b","c","d","e","f","g","h"] }],
    "generate": { "max_new_tokens": 100, "stop_tokens": [] }, "body": [
    { "op": "generated", "name": "g" }, { "op": "save", "name": "made", "value": "g" } ] }] }"#;

fn submit(service: &Service, program: &str, target: &str) -> Value {
    let answer = service.ask(0, "POST", target, &[("content-type", "application/json")], program.as_bytes());
    assert!([200, 202].contains(&answer.status), "{}", String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&answer.body).unwrap()
}

fn ended(service: &Service, job: &Value) -> Value {
    let (started, path) = (Instant::now(), format!("/v1/jobs/{}", job["id"].as_str().unwrap()));
    loop {
        let answer = service.ask(0, "GET", &path, &[], b"");
        let now: Value = serde_json::from_slice(&answer.body).unwrap();
        if ["succeeded", "failed", "cancelled"].contains(&now["state"].as_str().unwrap()) {
            return now;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{now}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_clock_that_is_set_back_and_forward_loses_nothing_and_locks_nobody_out() {
    // A minute's allowance that what is done before the clock moves has used up almost.
    let limits = ["milliseconds_per_minute=30000", "requests_per_minute=none"];
    let service = Service::start(&[("retention.result_hours", "1000")], &[("ann", &limits)]);
    let mut jobs = vec![submit(&service, GOOD, "/v1/jobs")];
    ended(&service, &jobs[0]);
    for number in 0..6 {
        let target = if number == 5 { "/v1/jobs?deadline_s=3600" } else { "/v1/jobs" };
        jobs.push(submit(&service, LONG, target));
    }
    let day = 86_400_000;
    for (moved, what) in [(-day, "back by a day"), (3 * day, "forward by three"), (-2 * day, "back again")] {
        pellucid_server::time::move_clock(moved);
        let ready = service.ask_without_key("GET", "/readyz", &[], b"");
        assert_eq!(ready.status, 200, "{what}");
        // What comes now is taken and runs.
        let job = submit(&service, GOOD, "/v1/jobs");
        assert_eq!(ended(&service, &job)["state"], "succeeded", "{what}");
        jobs.push(job);
    }
    let mut waits_too_long = 0;
    for job in &jobs {
        let job = ended(&service, job);
        // Three days later its time was over: the one job that has a deadline may say so, and no other.
        if job["state"] == "failed" && job["error"]["type"] == "urn:pellucid:problem:deadline-exceeded" {
            assert!(job["deadline_at"].is_string(), "{job}");
            waits_too_long += 1;
            continue;
        }
        assert_eq!(job["state"], "succeeded", "{job}");
        assert_eq!(job["attempts"], 1);
        let result = format!("/v1/jobs/{}/result", job["id"].as_str().unwrap());
        assert_eq!(service.ask(0, "GET", &result, &[], b"").status, 200);
    }
    let listed: Value =
        serde_json::from_slice(&service.ask(0, "GET", "/v1/jobs?limit=200", &[], b"").body).unwrap();
    assert_eq!(listed["jobs"].as_array().unwrap().len(), jobs.len());
    let usage: Value =
        serde_json::from_slice(&service.ask(0, "GET", "/v1/usage?days=30", &[], b"").body).unwrap();
    let counted: u64 =
        usage["days"].as_array().unwrap().iter().map(|day| day["jobs"].as_u64().unwrap()).sum();
    assert_eq!(counted as usize, jobs.len() - waits_too_long);
}
