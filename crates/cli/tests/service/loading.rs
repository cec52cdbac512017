//! A model that is loaded on request, from a hub that takes its time: what is told meanwhile, and that others do not wait.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Server, next_token, values};
use crate::hub::{self, Answer, Request};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const FILES: [&str; 5] =
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];

/// Whether the weights may be had.
type Gate = Arc<(Mutex<bool>, Condvar)>;

/// A hub that has the bundled model as `owner/model`, and gives the second half of its weights when the gate is opened.
fn hub(gate: Gate) -> hub::Server {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-gpt2/model");
    hub::Server::start(move |request: &Request| {
        let path = request.path.as_str();
        if path.starts_with("/api/models/owner/model/revision/") {
            let siblings: Vec<_> = FILES.iter().map(|name| json!({ "rfilename": name })).collect();
            return Answer::new(200, json!({ "sha": COMMIT, "siblings": siblings }).to_string());
        }
        let Some(file) = path.strip_prefix(&format!("/owner/model/resolve/{COMMIT}/")) else {
            return Answer::new(404, "").with("x-error-code", "RepoNotFound");
        };
        let content = std::fs::read(folder.join(file)).unwrap();
        let tagged = |answer: Answer| answer.with("etag", format!("\"{}\"", file.replace('.', "-")));
        if request.method != "GET" || file != "model.safetensors" {
            return tagged(Answer::new(200, content));
        }
        let (half, all) = (content.len() / 2, content.len());
        if request.header("range").is_none() {
            // The connection breaks in the middle.
            return Answer { send_only: Some(half), ..tagged(Answer::new(200, content)) };
        }
        let (open, bell) = &*gate;
        let _open = bell.wait_while(open.lock().unwrap(), |open| !*open).unwrap();
        let range = format!("bytes {half}-{}/{all}", all - 1);
        tagged(Answer::new(206, &content[half..]).with("content-range", range))
    })
}

fn model(client: &Client, id: &str) -> Value {
    let status = client.get("/v1/status").json();
    status["models"].as_array().unwrap().iter().find(|model| model["id"] == id).unwrap().clone()
}

#[test]
fn a_model_that_is_being_loaded_says_so_and_holds_up_nobody() {
    let gate = Gate::default();
    let hub = hub(gate.clone());
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pellucid.toml");
    std::fs::write(
        &config,
        "[[model]]\nid = \"here\"\nsource = \"bundled\"\ndefault = true\n\
         [[model]]\nid = \"far\"\nsource = \"owner/model\"\n",
    )
    .unwrap();
    let endpoint = format!("HF_ENDPOINT={}", hub.address);
    let cache = format!("HF_HUB_CACHE={}", folder.path().join("cache").display());
    let within = ["env", "-u", "HF_HUB_OFFLINE", &endpoint, &cache];
    let server = Server::within_with_config(&within, folder.path(), &config);
    let client = server.anyone();
    assert_eq!(model(&client, "far")["state"], "cold");
    // Many wait for one loading: nothing can be said of their programs before the model is there.
    let submit = || client.post("/v1/jobs?model=far", &next_token("Mary has"), &[("Prefer", "wait=60")]);
    std::thread::scope(|scope| {
        let many: Vec<_> = (0..5).map(|_| scope.spawn(submit)).collect();
        let started = Instant::now();
        // Files come one after the other; of the last, the weights, half has come.
        let half = |far: &Value| {
            far["state"] == "loading" && (0.4..0.6).contains(&far["progress"].as_f64().unwrap())
        };
        while !half(&model(&client, "far")) {
            assert!(started.elapsed() < Duration::from_secs(20), "{}", model(&client, "far"));
            std::thread::sleep(Duration::from_millis(20));
        }
        let here = client.result(&next_token("Mary has"));
        assert_eq!(model(&client, "far")["state"], "loading", "the other model's job had to wait");
        let (open, bell) = &*gate;
        *open.lock().unwrap() = true;
        bell.notify_all();
        for one in many {
            let ended = one.join().unwrap();
            assert_eq!(
                (ended.status, &ended.json()["state"]),
                (200, &json!("succeeded")),
                "{}",
                server.log()
            );
            let id = ended.json()["id"].as_str().unwrap().to_owned();
            let result = client.get(&format!("/v1/jobs/{id}/result")).body;
            assert_eq!(values(&result), values(&here), "the same model from elsewhere");
        }
    });
    assert_eq!(model(&client, "far")["state"], "hot");
    let weights = |request: &&Request| request.method == "GET" && request.path.ends_with("model.safetensors");
    assert_eq!(hub.requests().iter().filter(weights).count(), 2, "they are downloaded once, in two parts");
}
