//! Random programs of strangers, packed as they come, beside neighbours that mean harm: every one ends as it does alone, bit for bit.
//!
//! `PELLUCID_PROGRAMS=N` tries N programs, `PELLUCID_SEED` begins elsewhere.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pellucid_graph::check::SpecIndex;
use pellucid_graph::spec::ModelSpec;
use pellucid_graph::{NodeKind, Program};
use serde_json::Value;

use crate::harness::{Client, SAFETENSORS, Server, values};
use crate::packing::{hostile, passes_of_several};
use crate::random::{Builder, Wishes};

const PROGRAMS: u64 = 120;
const PEOPLE: usize = 6;

fn number_from(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// How a program ended: what it saved, or why it failed and at which node.
#[derive(Debug, PartialEq)]
struct Outcome {
    state: String,
    error: Value,
    absent: Value,
    saved: Vec<(String, Vec<usize>, Vec<u8>)>,
}

fn outcome(client: &Client, body: &[u8]) -> Outcome {
    let kind = if body.first() == Some(&b'{') { "application/json" } else { SAFETENSORS };
    let answer = client.ask("POST", "/v1/jobs", &[("Content-Type", kind), ("Prefer", "wait=60")], body);
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), String::from_utf8_lossy(body));
    let mut job = answer.json();
    let id = job["id"].as_str().unwrap().to_owned();
    let mut error = job["error"].take();
    if let Some(error) = error.as_object_mut() {
        error.remove("instance");
    }
    let result = client.get(&format!("/v1/jobs/{id}/result"));
    let saved = if result.status == 200 { values(&result.body) } else { Vec::new() };
    let absent = job["absent"].take();
    Outcome { state: job["state"].as_str().unwrap().to_owned(), error, absent, saved }
}

/// Random programs, as they travel. Conditions are proposed as what they are expanded to, which does not travel.
fn programs(spec: &ModelSpec) -> Vec<(u64, Vec<u8>)> {
    let index = SpecIndex::new(spec);
    let travels = |program: &Program| {
        let merges = |kind: &NodeKind| matches!(kind, NodeKind::Merge { .. });
        program.nodes.iter().all(|node| node.guards.is_empty() && !merges(&node.kind))
    };
    let wishes = |seed: u64| Wishes {
        may_fail: seed.is_multiple_of(2),
        generation: true,
        alike: seed % 4 == 1,
        smooth: false,
    };
    (number_from("PELLUCID_SEED", 1)..)
        .map(|seed| (seed, Builder::generate(&index, seed, wishes(seed)).checked.program))
        .filter(|(_, program)| travels(program))
        .map(|(seed, program)| (seed, program.to_bytes().unwrap()))
        .take(number_from("PELLUCID_PROGRAMS", PROGRAMS) as usize)
        .collect()
}

#[test]
fn random_programs_of_strangers_end_as_they_do_alone() {
    let alone = Server::open(&["engine.packing=false"]);
    let client = alone.anyone();
    let spec: ModelSpec = serde_json::from_slice(&client.get("/v1/models/bundled").body).unwrap();
    let programs = programs(&spec);
    let expected: Vec<_> = programs.iter().map(|(_, body)| outcome(&client, body)).collect();
    drop(alone);
    let count = |state: &str| expected.iter().filter(|outcome| outcome.state == state).count();
    println!("{} programs: {} succeed, {} fail", programs.len(), count("succeeded"), count("failed"));
    assert!(count("succeeded") > programs.len() / 2 && count("failed") > 0);

    let server = Server::keyed(&[]);
    let unbounded = ["requests_per_minute", "milliseconds_per_minute", "queued_jobs"];
    let mut choices = vec!["--limit", "weights_readable=true", "--limit", "training=true"];
    let limits = unbounded.map(|limit| format!("{limit}=none"));
    choices.extend(limits.iter().flat_map(|limit| ["--limit", limit]));
    let account = |name: String| server.account(&name, &choices);
    let people: Vec<_> = (0..PEOPLE).map(|number| account(format!("honest-{number}"))).collect();
    let enemies: Vec<_> = (0..2).map(|number| account(format!("hostile-{number}"))).collect();
    let (over, harm) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for (number, enemy) in enemies.iter().enumerate() {
            let (over, harm) = (&over, &harm);
            scope.spawn(move || {
                let programs = hostile();
                for program in programs.iter().cycle().skip(number) {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let answer = enemy.post("/v1/jobs", program, &[("Prefer", "wait=10")]);
                    assert!([200, 202].contains(&answer.status), "{}", answer.text());
                    harm.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let threads: Vec<_> = people
            .iter()
            .enumerate()
            .map(|(number, person)| {
                let (programs, expected) = (&programs, &expected);
                scope.spawn(move || {
                    let count = programs.len();
                    // Everybody in an order of their own, so that ever others meet.
                    let stride = [1, 7, 11, 13, 17, 19][number % 6];
                    for round in 0..count {
                        let which = (number * 5 + round * stride) % count;
                        let (seed, body) = &programs[which];
                        let found = outcome(person, body);
                        assert!(
                            found == expected[which],
                            "seed {seed}, account {number}:\n{}\n{found:?}\nalone\n{:?}",
                            String::from_utf8_lossy(body),
                            expected[which]
                        );
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        over.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    assert!(harm.into_inner() > 0);
    assert!(passes_of_several(&server) > 0, "no pass had more than one account");
}
