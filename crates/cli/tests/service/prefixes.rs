//! Accounts' caches of prefixes: what one account's prompts have in common is computed once, and never for another.

use serde_json::{Value, json};

use crate::harness::{Server, next_token, values};

const PROMPT: &str = "When Mary and John went to the store, John gave a drink to";

/// What a run did.
fn report(result: &[u8]) -> Value {
    let (_, header) = safetensors::SafeTensors::read_metadata(result).unwrap();
    let own = header.metadata().as_ref().unwrap()["pellucid.result"].clone();
    serde_json::from_str::<Value>(&own).unwrap()["report"].clone()
}

/// Tokens that were computed for a result, and those that were not.
fn tokens(result: &[u8]) -> (u64, u64) {
    let report = report(result);
    (report["tokens"].as_u64().unwrap(), report["cached_tokens"].as_u64().unwrap())
}

#[test]
fn an_account_pays_for_a_prompt_once_and_is_not_seen_by_others() {
    let server = Server::keyed(&[]);
    let (ann, ben) = (server.account("ann", &[]), server.account("ben", &[]));
    let program = next_token(PROMPT);
    let results = [&ann, &ann, &ben, &ann].map(|client| client.result(&program));
    for result in &results {
        assert_eq!(values(result), values(&results[0]));
    }
    assert_eq!(results.map(|result| tokens(&result)), [(14, 0), (1, 13), (14, 0), (1, 13)]);
    let metrics = server.account("prometheus", &["--scope", "admin"]);
    let told = |name: &str| {
        let text = metrics.get("/metrics").text();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap().to_owned();
        line.split(' ').next_back().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(told("pellucid_prefix_cache_tokens_total"), 26.0);
    assert_eq!(told("pellucid_prefix_cache_hits_total"), 2.0);
    assert_eq!(told("pellucid_prefix_cache_misses_total"), 2.0);
    assert_eq!(told("pellucid_prefix_cache_evictions_total"), 0.0);
    assert!(told("pellucid_prefix_cache_limit_bytes") >= told("pellucid_prefix_cache_bytes"));
    // A plan says so beforehand, leaves nothing there and is counted nowhere.
    let cached = |client: &crate::harness::Client| {
        let plan = client.post("/v1/explain", &program, &[]).json();
        plan["cached_tokens"].as_u64().unwrap_or(0)
    };
    assert_eq!((cached(&ann), cached(&server.account("cleo", &[]))), (13, 0));
    assert_eq!(told("pellucid_prefix_cache_hits_total"), 2.0);
    let started = std::time::Instant::now();
    while told("pellucid_prefix_cache_bytes") == 0.0 {
        assert!(started.elapsed().as_secs() < 30, "what the caches hold is not told");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }

    // What is erased leaves nothing behind.
    let job = ann.get("/v1/jobs?limit=1").json()["jobs"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(ann.delete(&format!("/v1/jobs/{job}?erase=true")).status, 204);
    assert_eq!(tokens(&ann.result(&program)), (14, 0));
    assert_eq!(tokens(&ben.result(&program)), (1, 13));
}

#[test]
fn a_plan_is_that_of_the_service_with_its_own_bounds() {
    let server = Server::open(&["engine.pass_tokens=16", "engine.prefix_bytes=0"]);
    let client = server.anyone();
    let invokes: Vec<Value> = (1..9)
        .map(|first| json!({"name": format!("i{first}"), "tokens": [[first, 2, 3, 4, 5, 6, 7, 8]]}))
        .collect();
    let nodes: Vec<Value> = (1..9)
        .flat_map(|invoke| {
            let name = format!("l{invoke}");
            [
                json!({"op": "get", "name": name, "invoke": format!("i{invoke}"), "hook": "logits"}),
                json!({"op": "save", "name": format!("s{invoke}"), "value": name}),
            ]
        })
        .collect();
    let program = json!({"pellucid": 1, "body": [{"op": "trace", "invokes": invokes, "body": nodes}]});
    let plan = client.post("/v1/explain", &program, &[]).json();
    let passes = plan["passes"].as_array().unwrap_or_else(|| panic!("{plan}"));
    assert!(passes.len() >= 4 && passes.iter().all(|pass| pass["tokens"].as_u64().unwrap() <= 16), "{plan}");
}

#[test]
fn without_room_for_them_there_are_none() {
    let server = Server::open(&["engine.prefix_bytes=0"]);
    let client = server.anyone();
    let program = next_token(PROMPT);
    assert_eq!([0; 2].map(|_| tokens(&client.result(&program))), [(14, 0); 2]);
    let explained = client.post("/v1/explain", &program, &[]).json();
    assert_eq!(
        explained["models"][0]["layers"].as_array().unwrap().len(),
        4,
        "{}",
        json!(explained["models"])
    );
}
