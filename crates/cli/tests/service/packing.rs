//! Whatever is packed with what: every result is bit for bit what it would be alone.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{Server, long, next_token, values};

/// What honest people run.
fn honest() -> Vec<Value> {
    let patch = |layer: u64, at: u64| {
        json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [
            { "name": "clean", "prompt": "When Mary and John went to the store, John gave a drink to" },
            { "name": "corrupted", "prompt": "When Mary and John went to the store, Mary gave a drink to" } ], "body": [
            { "op": "get", "name": "c", "invoke": "clean", "hook": format!("layers.{layer}.output") },
            { "op": "get", "name": "h", "invoke": "corrupted", "hook": format!("layers.{layer}.output") },
            { "op": "getitem", "name": "s", "input": "c", "index": [":", at] },
            { "op": "index_put", "name": "p", "input": "h", "index": [":", at], "values": "s" },
            { "op": "set", "invoke": "corrupted", "hook": format!("layers.{layer}.output"), "value": "p" },
            { "op": "get", "name": "l", "invoke": "corrupted", "hook": "logits" },
            { "op": "getitem", "name": "last", "input": "l", "index": [":", -1] },
            { "op": "save", "name": "logits", "value": "last" } ] }] })
    };
    let drawn = |seed: u64| {
        json!({ "pellucid": 1, "seed": seed, "body": [{ "op": "trace", "invokes": [{ "prompt": "When Mary" }],
            "generate": { "max_new_tokens": 12, "stop_tokens": [], "temperature": 2.0 }, "body": [
            { "op": "generated", "name": "g" }, { "op": "save", "name": "made", "value": "g" } ] }] })
    };
    let gradient = json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "The capital of France is" }], "body": [
        { "op": "get", "name": "l", "hook": "logits" }, { "op": "sum", "name": "loss", "input": "l" },
        { "op": "backward", "name": "back", "of": "loss" },
        { "op": "grad", "name": "g", "backward": "back", "hook": "layers.1.output" }, { "op": "save", "name": "saved", "value": "g" } ] }] });
    let noise = json!({ "pellucid": 1, "seed": 9, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary" }], "body": [
        { "op": "get", "name": "h", "hook": "layers.0.output" }, { "op": "randn", "name": "r", "size": [128] },
        { "op": "add", "name": "n", "input": "h", "other": "r" }, { "op": "set", "hook": "layers.0.output", "value": "n" },
        { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "logits", "value": "l" } ] }] });
    let mut all = vec![gradient, noise, next_token("The Eiffel Tower is in the city of"), next_token("Mary")];
    all.extend((0..4).map(|layer| patch(layer, 2 + layer)));
    all.extend([1, 2].map(drawn));
    all
}

/// What their neighbours run: NaN and infinity in every place, failures, floods.
pub fn hostile() -> Vec<Value> {
    let poison = |value: &str| {
        json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "When Mary and John went to the store" }], "body": [
            { "op": "get", "name": "h", "hook": "layers.0.output" },
            { "op": "full", "name": "p", "size": [128], "fill_value": { "float": value } },
            { "op": "set", "hook": "layers.0.output", "value": "p" },
            { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "x", "value": "l" } ] }] })
    };
    let fails = json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "get", "name": "h", "hook": "layers.2.output" },
        { "op": "literal", "name": "far", "dtype": "i64", "shape": [1], "elements": [99999] },
        { "op": "getitem", "name": "one", "input": "h", "index": [0, 0, { "tensor": "far" }] },
        { "op": "save", "name": "x", "value": "one" } ] }] });
    let long = json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompts": ["a", "b c d", "e f"] }],
        "generate": { "max_new_tokens": 40, "stop_tokens": [] }, "body": [
        { "op": "generated", "name": "g" }, { "op": "save", "name": "x", "value": "g" } ] }] });
    vec![poison("nan"), poison("inf"), poison("-inf"), fails, long]
}

#[test]
fn packed_is_alone_bit_for_bit_whoever_else_is_there() {
    // As if alone: one job at a time.
    let alone = Server::open(&["engine.packing=false"]);
    let client = alone.anyone();
    let programs = honest();
    let expected: Vec<_> = programs.iter().map(|program| values(&client.result(program))).collect();
    drop(alone);

    let server = Server::keyed(&[]);
    let accounts: Vec<_> = (0..6).map(|number| server.account(&format!("honest-{number}"), &[])).collect();
    let enemies: Vec<_> = (0..3).map(|number| server.account(&format!("hostile-{number}"), &[])).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (number, enemy) in enemies.iter().enumerate() {
            let over = &over;
            scope.spawn(move || {
                let programs = hostile();
                let mut at = number;
                while !over.load(Ordering::Relaxed) {
                    let answer =
                        enemy.post("/v1/jobs", &programs[at % programs.len()], &[("Prefer", "wait=10")]);
                    assert!([200, 202, 429].contains(&answer.status), "{}", answer.text());
                    at += 1;
                }
            });
        }
        let people: Vec<_> = accounts
            .iter()
            .enumerate()
            .map(|(number, person)| {
                let (programs, expected) = (&programs, &expected);
                scope.spawn(move || {
                    for round in 0..3 * programs.len() {
                        let which = (number * 7 + round) % programs.len();
                        let found = values(&person.result(&programs[which]));
                        assert!(
                            found == expected[which],
                            "program {which} of account {number} in round {round}"
                        );
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = people.into_iter().map(|person| person.join()).collect();
        over.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    assert!(passes_of_several(&server) > 0, "no pass had more than one account");
}

/// Passes in which several accounts were packed.
pub fn passes_of_several(server: &Server) -> u64 {
    let metrics = server.account("prometheus", &["--scope", "admin"]).get("/metrics").text();
    let bucket = |le: &str| {
        let name = format!("pellucid_pass_accounts_bucket{{model=\"bundled\",le=\"{le}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse::<u64>().unwrap()
    };
    bucket("+Inf") - bucket("1")
}

#[test]
fn a_flood_of_one_account_does_not_hold_up_nineteen_others() {
    let server = Server::keyed(&[]);
    let unbounded = ["--limit", "requests_per_minute=none", "--limit", "milliseconds_per_minute=none"];
    let flood = server.account("flood", &unbounded);
    let others: Vec<_> = (0..19).map(|number| server.account(&format!("person-{number}"), &[])).collect();
    let program = next_token("When Mary and John went to the store, John gave a drink to");
    others[0].run(&program);
    // Of a thousand jobs that take a hundred passes each, few are done by the time that the others come.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let flood = flood.clone();
            scope.spawn(move || {
                (0..250).for_each(|_| assert_eq!(flood.post("/v1/jobs", &long(4), &[]).status, 202))
            });
        }
    });
    let waits = || flood.get("/v1/account").json()["used"]["queued_jobs"].as_u64().unwrap();
    assert!(waits() > 800, "only {} jobs of the flood wait: too few to tell", waits());
    let jobs: Vec<Value> = std::thread::scope(|scope| {
        let one = |client: &crate::harness::Client| {
            let (client, program) = (client.clone(), &program);
            scope.spawn(move || {
                let accepted = client.post("/v1/jobs", program, &[]).json();
                // Whatever waits of the flood, nothing of it comes first: of the others one job each may.
                let ahead = accepted["queue"]["position"].as_u64().unwrap_or(0);
                assert!(ahead < 19, "{accepted}");
                client.until(accepted["id"].as_str().unwrap(), &["succeeded", "failed"])
            })
        };
        let all: Vec<_> = others.iter().map(one).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(jobs.iter().all(|job| job["state"] == "succeeded"));
    // In the order in which they came they would have waited for all of it.
    assert!(waits() > 500, "only {} jobs of the flood still wait when the others are done", waits());
}

#[test]
fn a_short_job_does_not_wait_behind_its_accounts_own_long_one() {
    let server = Server::open(&[]);
    let client = server.anyone();
    client.run(&next_token("Mary"));
    let id = client.post("/v1/jobs", &long(400), &[]).json()["id"].as_str().unwrap().to_owned();
    client.until(&id, &["running"]);
    assert_eq!(client.run(&next_token("Mary has"))["state"], "succeeded");
    assert_eq!(client.get(&format!("/v1/jobs/{id}")).json()["state"], "running");
    client.delete(&format!("/v1/jobs/{id}"));
}
