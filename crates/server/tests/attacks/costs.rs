//! Nodes cost too, however little each computes: they are priced, the engine makes way between them, and too many are refused
//! before they are made.

use std::time::{Duration, Instant};

use crate::harness::{GOOD, Service, text};

/// A loop of so many iterations of additions to one number.
fn additions(count: usize, each: usize) -> String {
    let body: Vec<String> = (0..each)
        .map(|number| {
            let input = number.checked_sub(1).map_or("c".to_owned(), |before| format!("n{before}"));
            format!(r#"{{ "op": "add", "name": "n{number}", "input": "{input}", "other": 1.0 }}"#)
        })
        .collect();
    format!(
        r#"{{ "pellucid": 1, "body": [{{ "op": "literal", "name": "l", "dtype": "f32", "shape": [], "elements": [1.0] }},
            {{ "op": "loop", "name": "z", "count": {count}, "carry": {{ "c": "l" }}, "body": [{}], "next": {{ "c": "n{}" }} }},
            {{ "op": "save", "name": "q", "value": "z" }}] }}"#,
        body.join(", "),
        each - 1
    )
}

#[test]
fn small_nodes_have_their_price() {
    let service = Service::start(&[], &[("ann", &[]), ("bob", &["job_milliseconds=100"])]);
    let answer = service.ask(
        0,
        "POST",
        "/v1/explain",
        &[("content-type", "application/json")],
        additions(100_000, 1).as_bytes(),
    );
    assert_eq!(answer.status, 200, "{}", text(&answer.body));
    let price = answer.json()["price"].clone();
    assert!(price["nodes"].as_u64().unwrap() >= 100_000, "{price}");
    assert!(price["milliseconds"].as_f64().unwrap() > 100.0, "{price}");
    // What it is priced at counts against what a job may be.
    let answer = service.submit(1, &additions(100_000, 1), &[]);
    assert_eq!((answer.status, answer.problem().as_str()), (413, "too-large"), "{}", text(&answer.body));
    assert_eq!(answer.json()["limit"]["name"], "job_milliseconds");
    service.works(1);
}

#[test]
fn a_program_of_many_small_nodes_makes_way_for_others_and_can_be_cancelled() {
    let service = Service::start(
        &[("engine.delay_ms", "100")],
        &[("ann", &["milliseconds_per_minute=none"]), ("bob", &[])],
    );
    service.works(1);
    // How long it takes by itself.
    let begun = Instant::now();
    assert_eq!(service.run(0, &additions(50_000, 2))["state"], "succeeded");
    let alone = begun.elapsed();
    let jobs: Vec<String> = (0..4)
        .map(|_| {
            let taken = service.submit(0, &additions(50_000, 4), &[]);
            assert_eq!(taken.status, 202, "{}", text(&taken.body));
            taken.json()["id"].as_str().unwrap().to_owned()
        })
        .collect();
    let state =
        |id: &str| service.get(0, &format!("/v1/jobs/{id}")).json()["state"].as_str().unwrap().to_owned();
    let (mut slowest, mut beside) = (Duration::ZERO, 0);
    while jobs.iter().any(|id| matches!(state(id).as_str(), "queued" | "running")) && beside < 8 {
        let begun = Instant::now();
        service.works(1);
        slowest = slowest.max(begun.elapsed());
        beside += 1;
    }
    println!("alone {alone:?}; beside them {beside} jobs, the slowest {slowest:?}");
    assert!(beside >= 3, "they were over before anybody could wait for them");
    // The whole of one would be a multiple.
    assert!(slowest < (alone / 2).max(Duration::from_millis(600)), "{slowest:?}, of {alone:?}");
    for id in &jobs {
        let cancelled = service.ask(0, "DELETE", &format!("/v1/jobs/{id}"), &[], b"");
        assert!(cancelled.status < 300);
        let ended = service.ask(0, "GET", &format!("/v1/jobs/{id}"), &[("prefer", "wait=5")], b"").json();
        assert!(matches!(ended["state"].as_str(), Some("cancelled" | "succeeded")), "{ended}");
    }
    assert_eq!(service.run(1, GOOD)["state"], "succeeded");
}

#[test]
fn what_has_too_many_nodes_is_refused_before_they_are_made() {
    let service = Service::of_two();
    for program in [additions(260_000, 3), additions(65_000, 14)] {
        let begun = Instant::now();
        let answer = service.submit(0, &program, &[]);
        let took = begun.elapsed();
        assert_eq!(answer.problem(), "invalid-program", "{}", text(&answer.body));
        assert!(text(&answer.body).contains("nodes"), "{}", text(&answer.body));
        // To make the quarter of a million that may be takes seconds here.
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
    service.works(1);
}

#[test]
fn a_program_that_is_read_again_holds_up_nobody_who_is_ready() {
    // What has many nodes is not kept in memory while it waits, however few bytes it was written with.
    let service = Service::start(
        &[("admission.waiting_bytes", "1000000")],
        &[("ann", &["milliseconds_per_minute=none"]), ("bob", &[])],
    );
    service.works(1);
    let begun = Instant::now();
    let first = service.submit(0, &additions(50_000, 4), &[]);
    let check = begun.elapsed();
    assert_eq!(first.status, 202, "{}", text(&first.body));
    let (mut slowest, mut beside) = (Duration::ZERO, 0);
    let until = Instant::now() + check;
    while Instant::now() < until {
        let begun = Instant::now();
        service.works(1);
        slowest = slowest.max(begun.elapsed());
        beside += 1;
    }
    println!("it is checked in {check:?}; meanwhile {beside} jobs, the slowest in {slowest:?}");
    assert!(
        beside >= 2 && slowest < (check / 2).max(Duration::from_millis(400)),
        "{beside}, {slowest:?} of {check:?}"
    );
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert!(service.ask(0, "DELETE", &format!("/v1/jobs/{id}"), &[], b"").status < 300);
}
