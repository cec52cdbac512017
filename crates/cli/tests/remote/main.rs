//! The command against a service: the same programs, here and there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails in a helper fails its test")]
#![cfg(unix)]

mod service_process;
#[path = "../support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pellucid::{Error, Model, RemoteOptions, RunOptions, s};
use service_process::ServiceProcess;
use support::{command, printed, text};

const PROGRAM: &str = "examples/patching.json";

fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&printed(arguments)).unwrap()
}

fn with_input(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = command(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// What a summary says that does not depend on when and where it ran.
fn saved(summary: &serde_json::Value) -> (serde_json::Value, serde_json::Value) {
    (summary["saved"].clone(), summary["provenance"].clone())
}

/// A program that takes a while: a sweep of so many cells.
fn long(cells: u64) -> Vec<u8> {
    format!(
        r#"{{ "pellucid": 1, "body": [{{ "op": "trace", "name": "t", "invokes": [{{ "name": "a", "prompt": "Mary" }}], "body": [
        {{ "op": "sweep", "name": "grid", "over": [{{ "k": {{ "range": [0, {cells}] }} }}],
           "invokes": [{{ "name": "b", "prompt": "When Mary and John went to the store, John gave a drink to" }}], "body": [
            {{ "op": "get", "name": "h", "invoke": "b", "hook": "layers.0.output" }},
            {{ "op": "add", "name": "moved", "input": "h", "other": "k" }},
            {{ "op": "set", "invoke": "b", "hook": "layers.0.output", "value": "moved" }},
            {{ "op": "get", "name": "l", "invoke": "b", "hook": "logits" }},
            {{ "op": "getitem", "name": "last", "input": "l", "index": [0, -1] }},
            {{ "op": "amax", "name": "largest", "input": "last" }}],
          "yields": ["largest"] }},
        {{ "op": "save", "name": "result", "value": "grid" }}] }}] }}"#
    )
    .into_bytes()
}

#[test]
fn a_program_runs_there_as_it_runs_here() {
    let service = ServiceProcess::open();
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    // A service calls a model by its own id. What ran there before is in its cache: this is asked first.
    let told = printed(&["explain", PROGRAM, "--remote", &service.address]);
    assert_eq!(told.replacen("bundled: ", "tiny-gpt2: ", 1), printed(&["explain", PROGRAM]));
    let of_here = json(&["run", PROGRAM, "--json", "-o", here.to_str().unwrap()]);
    let remote = ["run", PROGRAM, "--json", "--remote", &service.address, "-o", there.to_str().unwrap()];
    let of_there = json(&remote);
    assert_eq!(saved(&of_here), saved(&of_there));
    let (here, there) = (std::fs::read(here).unwrap(), std::fs::read(there).unwrap());
    let tensors = |bytes: &[u8]| -> Vec<(String, Vec<u8>)> {
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let mut tensors: Vec<_> =
            file.iter().map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec())).collect();
        tensors.sort();
        tensors
    };
    assert_eq!(tensors(&here).len(), 2);
    assert_eq!(tensors(&here), tensors(&there));
    // Without a file, and as a table.
    let (table, _) = printed(&["run", PROGRAM, "--remote", &service.address])
        .split_once("\n\n")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert!(table.contains("18.7155") && table.contains("829 916 863"), "{table}");
    let told = printed(&["explain", PROGRAM, "--remote", &service.address]);
    assert!(told.contains("from the cache: 18 tokens"), "{told}");
    assert_eq!(
        json(&["models", "show", "bundled", "--json", "--remote", &service.address]),
        json(&["models", "show", "bundled", "--json"])
    );
}

#[test]
fn the_demonstration_finds_the_same() {
    let service = ServiceProcess::open();
    let mut here = json(&["demo", "--json"]);
    let mut there = json(&["demo", "--json", "--remote", &service.address]);
    for findings in [&mut here, &mut there] {
        // How long it takes, and in how many passes: a service cuts what is too long for one, where the machine is slow.
        let findings = findings.as_object_mut().unwrap();
        assert!(findings.remove("seconds").is_some() && findings.remove("passes").is_some());
    }
    assert_eq!(here, there);
}

#[test]
fn mistakes_are_told_in_the_same_words() {
    let service = ServiceProcess::open();
    let wrong =
        br#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "get", "name": "late", "hook": "layers.3.output" },
        { "op": "set", "name": "early", "hook": "layers.1.input", "value": "late",
          "source": { "file": "notebook.py", "line": 7, "text": "model.layers[1].input = late" } },
        { "op": "get", "name": "pattern", "hook": "layers.1.attention.patern" },
        { "op": "save", "name": "saved", "value": "pattern" } ] }] }"#;
    let failing = br#"{ "pellucid": 1, "body": [
        { "op": "trace", "name": "first", "invokes": [{ "prompt": "Mary has" }], "body": [
            { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "early", "value": "l" } ] },
        { "op": "trace", "name": "second", "invokes": [{ "prompt": "Mary has" }], "body": [
            { "op": "get", "name": "h", "hook": "logits" },
            { "op": "literal", "name": "far", "dtype": "i64", "shape": [1], "elements": [99999] },
            { "op": "getitem", "name": "one", "input": "h", "index": [0, 0, { "tensor": "far" }],
              "source": { "file": "notebook.py", "line": 3, "text": "h[0, 0, far]" } },
            { "op": "save", "name": "late", "value": "one" } ] }] }"#;
    let folder = tempfile::tempdir().unwrap();
    for (program, code) in [(&wrong[..], 3), (&failing[..], 1)] {
        let outputs = ["here", "there"].map(|place| {
            let path = folder.path().join(place);
            let mut arguments = vec!["run", "-", "-o", path.to_str().unwrap()];
            if place == "there" {
                arguments.extend(["--remote", &service.address]);
            }
            let output = with_input(&arguments, program);
            assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
            text(&output.stderr).replace(path.to_str().unwrap(), "FILE")
        });
        assert_eq!(outputs[0], outputs[1]);
        assert!(outputs[0].contains("notebook.py"), "{}", outputs[0]);
    }
    let kept = |place| std::fs::read(folder.path().join(place)).unwrap();
    let (here, there) = (kept("here"), kept("there"));
    let early = |bytes: &[u8]| {
        safetensors::SafeTensors::deserialize(bytes).unwrap().tensor("early").unwrap().data().to_vec()
    };
    assert_eq!(early(&here), early(&there));

    let output = command(&["run", PROGRAM, "--remote", &service.address, "-m", "bundlde"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("`bundled`"), "{}", text(&output.stderr));
}

#[test]
fn the_library_runs_there_what_it_runs_here() {
    let service = ServiceProcess::open();
    let here = Model::bundled().unwrap();
    let there = Model::remote(&service.address, "bundled").unwrap();
    assert_eq!(here.spec(), there.spec());
    let text = "When Mary and John went to the store, John gave a drink to";
    assert_eq!(here.encode(text).unwrap(), there.encode(text).unwrap());
    assert_eq!(here.token(" Mary").unwrap(), there.token(" Mary").unwrap());
    assert_eq!(here.decode(&[829]).unwrap(), there.decode(&[829]).unwrap());
    assert!(matches!(there.token("Mary gave").unwrap_err(), Error::NotOneToken { .. }));

    let both = [&here, &there].map(|model| {
        let session = model.session();
        session.seed(7);
        let first = session.trace();
        let clean = first.invoke(text);
        clean.logits().index(s![0, -1]).softmax(-1).log("probabilities");
        let hidden = clean.layer(1).output();
        let second = session.trace();
        second.generate(pellucid::Generation::new(6).temperature(0.8));
        let prompt = second.invoke("The movie was awful. I");
        prompt.layer(2).edit_output(|output| output.index_put(s![.., -1], hidden.index(s![.., -1])));
        prompt.generated().save("tokens");
        session.randn([3, 5]).save("noise");
        second.steps(1.., |step| step.at(&prompt).logits().amax(..).log("largest"));
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let (logs, tokens) = (heard.clone(), heard.clone());
        let options = RunOptions {
            on_log: Some(Arc::new(move |entry| {
                let value = entry.value.to_vec_f32().unwrap();
                logs.lock().unwrap().push(format!("{} {:?} {}", entry.name, entry.step, value.len()));
            })),
            on_token: Some(Arc::new(move |token| tokens.lock().unwrap().push(format!("{token:?}")))),
            ..RunOptions::default()
        };
        let results = session.run_with(&options).unwrap();
        let quiet = session.run().unwrap();
        assert_eq!(quiet.logs().len(), results.logs().len());
        let mut heard = heard.lock().unwrap().clone();
        heard.sort();
        (results, heard)
    });
    let [(here, heard_here), (there, heard_there)] = both;
    assert_eq!(here.names().collect::<Vec<_>>(), there.names().collect::<Vec<_>>());
    for (name, tensor) in here.iter() {
        assert!(tensor.is_same_bits(&there[name]), "{name}");
    }
    assert_eq!(here.logs().len(), there.logs().len());
    assert!(here.logs().len() >= 6);
    for (one, other) in here.logs().iter().zip(there.logs()) {
        assert_eq!((&one.name, one.step, &one.coordinates), (&other.name, other.step, &other.coordinates));
        assert!(one.value.is_same_bits(&other.value));
    }
    assert_eq!(here.provenance(), there.provenance());
    assert_eq!(heard_here, heard_there, "listeners hear the same");
}

#[test]
fn ctrl_c_cancels_the_job() {
    let service = ServiceProcess::open();
    let mut command = command(&["run", "-", "--remote", &service.address, "--label", "long"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&long(20_000)).unwrap();
    let job = service.wait_for_job("running");
    assert_eq!(job["label"], "long");
    let begun = Instant::now();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!((text(&output.stderr), output.status.code()), ("interrupted\n".to_owned(), Some(130)));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let job = json(&["jobs", job["id"].as_str().unwrap(), "--json", "--remote", &service.address]);
    assert_eq!(job["state"], "cancelled");
}

#[test]
fn jobs_are_left_there_listed_fetched_and_cancelled() {
    let service = ServiceProcess::open();
    let remote = ["--remote", &service.address];
    let with = |arguments: &[&str]| printed(&[arguments, &remote].concat());
    let id = with(&["run", PROGRAM, "--detach", "--label", "patching"]).trim().to_owned();
    assert!(id.starts_with("job_"), "{id}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results");
    let shown = with(&["jobs", &id, "-o", path.to_str().unwrap()]);
    assert!(shown.starts_with(&format!("{id} (patching): succeeded on bundled\n")), "{shown}");
    let file = std::fs::read(&path).unwrap();
    assert_eq!(safetensors::SafeTensors::deserialize(&file).unwrap().tensor("logit").unwrap().shape(), [3]);
    let list = with(&["jobs"]);
    assert!(list.contains(&id) && list.contains("succeeded") && list.contains("patching"), "{list}");
    assert_eq!(with(&["jobs", "--state", "failed"]), "no jobs\n");

    let newer = with(&["run", PROGRAM, "--detach", "--priority", "high"]).trim().to_owned();
    let shown = json(&["jobs", &newer, "--json", "--remote", &service.address]);
    assert_eq!(shown["priority"], "high");
    let list = with(&["jobs", "--limit", "1"]);
    assert!(list.contains(&newer) && list.contains(&format!("--after {newer}")), "{list}");
    let list = with(&["jobs", "--after", &newer]);
    assert!(list.contains(&id) && !list.contains(&newer), "{list}");

    let output = with_input(&["run", "-", "--detach", "--remote", &service.address], &long(20_000));
    let running = text(&output.stdout).trim().to_owned();
    let said = with(&["cancel", &running, &id]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with(&format!("{running}: ")), "{said}");
    assert_eq!(lines[1], format!("{id}: had ended already (succeeded)"));
    assert_eq!(with(&["cancel", &id, "--erase"]), format!("{id}: erased\n"));
    let gone = command(&["jobs", &id, "--remote", &service.address]).output().unwrap();
    assert_eq!(gone.status.code(), Some(1), "{}", text(&gone.stdout));

    let status = with(&["status"]);
    assert!(status.contains("serving") && status.contains("bundled (default)  hot"), "{status}");
    assert!(status.contains("account local"), "{status}");
    assert_eq!(json(&["status", "--json", "--remote", &service.address])["service"]["state"], "serving");
}

#[test]
fn a_job_that_was_left_there_and_fails_is_a_failure_for_who_fetches_it() {
    let service = ServiceProcess::open();
    let failing =
        br#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "get", "name": "h", "hook": "logits" },
        { "op": "literal", "name": "far", "dtype": "i64", "shape": [1], "elements": [99999] },
        { "op": "getitem", "name": "one", "input": "h", "index": [0, 0, { "tensor": "far" }],
          "source": { "file": "/home/ada/secret/notebook.py", "line": 3, "text": "h[0, 0, far]" } },
        { "op": "save", "name": "late", "value": "one" } ] }] }"#;
    let output = with_input(&["run", "-", "--detach", "--remote", &service.address], failing);
    let id = text(&output.stdout).trim().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results");
    let arguments = ["jobs", &id, "-o", path.to_str().unwrap(), "--remote", &service.address];
    for more in [&[][..], &["--json"]] {
        let output = command(&[&arguments[..], more].concat()).output().unwrap();
        let (said, error) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(error.contains(&format!("{id} has failed")) && said.contains("notebook.py"), "{said}{error}");
        // Where it was written is nobody's business there.
        assert!(!said.contains("secret") && !path.exists(), "{said}");
    }
}

#[test]
fn a_key_is_kept_for_its_owner_alone_once_it_is_known_there() {
    let (service, key) = ServiceProcess::with_key("lab");
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("pellucid").join("config.toml");
    let run = |arguments: &[&str], input: &str| {
        let mut command = command(arguments);
        command.env("XDG_CONFIG_HOME", home.path()).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        let output = child.wait_with_output().unwrap();
        (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
    };
    let (_, error, code) = run(&["status"], "");
    assert_eq!((error.contains("no service is set up"), code), (true, 1), "{error}");
    let (_, error, code) = run(&["jobs", "--remote", &service.address], "");
    assert_eq!((error.contains("pellucid login http://127.0.0.1"), code), (true, 1), "{error}");
    let wrong = key.replace(&key[key.len() - 8..], "aaaaaaaa");
    let (_, error, code) = run(&["login", &service.address], &wrong);
    assert_eq!(code, 1, "{error}");
    assert!(!file.exists() && !error.contains(&wrong), "{error}");

    let (said, error, code) = run(&["login", &service.address], &format!("  {key}\n"));
    assert_eq!(code, 0, "{error}");
    assert!(said.contains("logged in as lab") && !said.contains(&key), "{said}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (said, error, code) = run(&["status"], "");
    assert_eq!(code, 0, "{error}");
    assert!(said.contains("account lab"), "{said}");
    let (_, error, code) = run(&["run", PROGRAM, "--remote", &service.address], "");
    assert_eq!(code, 0, "{error}");

    let (said, _, code) = run(&["login", "--remove"], "");
    assert_eq!((said.contains("removed from"), code), (true, 0), "{said}");
    assert_eq!(run(&["status"], "").2, 1);
}

#[test]
fn a_service_that_is_killed_and_started_again_loses_nothing() {
    let mut service = ServiceProcess::open();
    let here = with_input(&["run", "-", "--json"], &long(3_000));
    let here: serde_json::Value = serde_json::from_slice(&here.stdout).unwrap();
    let mut command = command(&["run", "-", "--json", "--remote", &service.address]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&long(3_000)).unwrap();
    service.wait_for_job("running");
    service.kill_and_start_again();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let there: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(saved(&here), saved(&there));
    let list = json(&["jobs", "--json", "--remote", &service.address]);
    assert_eq!(list["jobs"].as_array().unwrap().len(), 1, "it is one job");
    assert_eq!(list["jobs"][0]["attempts"], 2);
}

/// Passes connections on to a service, and cuts each after so many bytes of its answer.
fn cutting(service: &str, after: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (to, cuts) = (service.trim_start_matches("http://").to_owned(), Arc::<AtomicUsize>::default());
    let counted = cuts.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (to, counted) = (to.clone(), counted.clone());
            std::thread::spawn(move || {
                let Ok(mut client) = client else { return };
                let Ok(mut service) = TcpStream::connect(to) else { return };
                let (mut from_client, mut to_service) =
                    (client.try_clone().unwrap(), service.try_clone().unwrap());
                std::thread::spawn(move || drop(std::io::copy(&mut from_client, &mut to_service)));
                let mut left = after;
                let mut buffer = [0; 4096];
                while left > 0 {
                    let most = left.min(buffer.len());
                    match service.read(&mut buffer[..most]) {
                        Ok(0) | Err(_) => return,
                        Ok(read) => {
                            left -= read;
                            if client.write_all(&buffer[..read]).is_err() {
                                return;
                            }
                        }
                    }
                }
                counted.fetch_add(1, Ordering::SeqCst);
                drop(client.shutdown(std::net::Shutdown::Both));
                drop(service.shutdown(std::net::Shutdown::Both));
            });
        }
    });
    (address, cuts)
}

#[test]
fn a_result_comes_whole_over_connections_that_are_cut() {
    let service = ServiceProcess::open();
    let here = Model::bundled().unwrap();
    // The specification is fetched on the straight way; what is run goes by the cut one.
    let (cut, cuts) = cutting(&service.address, 40_000);
    let options = RemoteOptions { patience: Some(Duration::from_secs(20)), ..RemoteOptions::default() };
    let there = pellucid::Service::with(&cut, &options).unwrap();
    let trace = here.trace();
    let prompt = trace.invoke("When Mary and John went to the store, John gave a drink to");
    prompt.logits().save("logits");
    for layer in 0..here.layers() {
        prompt.layer(layer).output().save(&format!("layer_{layer}"));
    }
    let expected = trace.run().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results");
    let program = trace.program().unwrap();
    let results = there.run(None, &program, &RunOptions::default()).unwrap();
    let written = there.run_to(None, &program, &RunOptions::default(), &path).unwrap();
    for (name, tensor) in expected.iter() {
        assert!(tensor.is_same_bits(&results[name]) && tensor.is_same_bits(&written[name]), "{name}");
    }
    assert!(cuts.load(Ordering::SeqCst) >= 4, "{cuts:?}");
    assert!(Path::new(&path).exists());
}
