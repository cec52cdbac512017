//! What whoever runs the service does: configuration, keys, usage, ending it.

use serde_json::{Value, json};

use crate::harness::{Server, command, long, next_token};

fn output(arguments: &[&str]) -> (String, String, i32) {
    let output = command(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

#[test]
fn a_configuration_is_checked_before_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pellucid.toml");
    let (example, _, code) = output(&["config", "example"]);
    assert_eq!(code, 0);
    std::fs::write(&path, example).unwrap();
    let (told, errors, code) = output(&["config", "check", "--config", path.to_str().unwrap()]);
    assert_eq!((errors.as_str(), code), ("", 0));
    // What is shown is a configuration itself, and the same.
    let shown = told.strip_suffix("the configuration can be used\n").unwrap_or_else(|| panic!("{told}"));
    std::fs::write(&path, shown).unwrap();
    let again = output(&["config", "check", "--config", path.to_str().unwrap()]);
    assert_eq!(again, (told.clone(), String::new(), 0));
    std::fs::write(&path, "[server]\nlissten = \"x\"\n").unwrap();
    let (_, errors, code) = output(&["config", "check", "--config", path.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(errors.contains("lissten") && errors.contains("line 2"), "{errors}");
    let (_, errors, code) =
        output(&["serve", "--open", "--listen", "0.0.0.0:0", "--data", folder.path().to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(errors.contains("loopback"), "{errors}");
    let (_, errors, code) = output(&["config", "check", "--set", "server.listn=x"]);
    assert_eq!(code, 1);
    assert!(errors.contains("did you mean `server.listen`?"), "{errors}");
}

#[test]
fn what_a_configuration_names_is_opened_when_it_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("server.data={}", folder.path().join("data").display());
    for (settings, told) in [
        (vec!["server.certificate=/nowhere/c.pem", "server.private_key=/nowhere/k.pem"], "/nowhere/c.pem"),
        (vec!["engine.weight_bytes=1000"], "engine.weight_bytes"),
        (vec!["store.durability=yes"], "store.durability"),
        (vec!["limits.concurrent_jobs=0"], "limits.concurrent_jobs"),
    ] {
        let mut arguments = vec!["config", "check", "--set", &data];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        let (_, errors, code) = output(&arguments);
        assert!(code == 1 && errors.contains(told), "{settings:?}: {code} {errors}");
    }
    assert!(!folder.path().join("data").exists(), "a check makes nothing");
}

#[test]
fn an_accounts_limits_are_changed_while_the_service_runs() {
    let server = Server::keyed(&[]);
    let data = server.folder.to_str().unwrap();
    let client = server.account("ada", &[]);
    assert_eq!(client.get("/v1/jobs").status, 200);
    let change = |limits: &[&str]| {
        let mut arguments = vec!["keys", "limit", "ada", "--data", data];
        limits.iter().for_each(|limit| arguments.extend(["--limit", limit]));
        output(&arguments)
    };
    let (told, _, code) = change(&["queued_jobs=0", "stored_bytes=none"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["limits"]["queued_jobs"]), (0, &json!(0)));
    assert!(told["limits"].get("stored_bytes").is_none(), "{told}");
    assert_eq!(client.post("/v1/jobs", &next_token("Mary has"), &[]).status, 429);
    assert_eq!(change(&["queued_jobs=10"]).2, 0);
    client.run(&next_token("Mary has"));
    let (_, errors, code) = change(&["queued_job=10"]);
    assert!(code == 1 && errors.contains("queued_jobs"), "{errors}");
    let (_, errors, code) = output(&["keys", "limit", "adda", "--data", data]);
    assert!(code == 1 && errors.contains("did you mean `ada`?"), "{errors}");
    let all: Value = serde_json::from_str(&output(&["keys", "limit", "--data", data]).0).unwrap();
    let (ada, all) = (&all[0], all.as_array().unwrap().len());
    assert_eq!((&ada["account"], &ada["limits"]["queued_jobs"], all), (&json!("ada"), &json!(10), 1));
    // Who uses a service without keys may do all: nobody else gets that account.
    let (_, errors, code) = output(&["keys", "create", "--account", "local", "--data", data]);
    assert!(code == 1 && errors.contains("another name"), "{errors}");
    let log = output(&["keys", "log", "--data", data]).0;
    assert!(log.contains("change limits") && log.contains("queued_jobs=0"), "{log}");
    // There is still the one key.
    let keys: Value = serde_json::from_str(&output(&["keys", "list", "--json", "--data", data]).0).unwrap();
    assert_eq!(keys.as_array().unwrap().len(), 1);
}

#[test]
fn usage_and_keys_are_listed() {
    let server = Server::keyed(&[]);
    let data = server.folder.to_str().unwrap();
    let client = server.account("ada", &["--label", "laptop"]);
    client.run(&next_token("Mary has"));
    let keys: Value = serde_json::from_str(&output(&["keys", "list", "--json", "--data", data]).0).unwrap();
    assert_eq!(
        (&keys[0]["account"], &keys[0]["label"], &keys[0]["scopes"]),
        (&json!("ada"), &json!("laptop"), &json!(["submit"]))
    );
    let usage: Value = serde_json::from_str(&output(&["usage", "--json", "--data", data]).0).unwrap();
    assert_eq!((&usage[0]["account"], &usage[0]["used"]["jobs"]), (&json!("ada"), &json!(1)));
    assert!(output(&["usage", "--data", data]).0.contains("ada"));
    let log: Value = serde_json::from_str(&output(&["keys", "log", "--json", "--data", data]).0).unwrap();
    assert_eq!((&log[0]["action"], &log[0]["subject"]), (&json!("create key"), &keys[0]["id"]));
    assert!(output(&["keys", "log", "--data", data]).0.contains("create key"));
    // No secret is kept: neither of the key nor of the prompt, but in the job's own program until it is done.
    let secret = client.key.unwrap().split('_').nth(2).unwrap().to_owned();
    for entry in std::fs::read_dir(&server.folder).unwrap().filter_map(|entry| entry.ok()) {
        let Ok(bytes) = std::fs::read(entry.path()) else { continue };
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{:?}", entry.path());
    }
}

#[test]
fn no_prompt_and_no_key_is_logged() {
    let mut server = Server::keyed(&["log.level=trace", "log.format=json"]);
    let client = server.account("ada", &[]);
    let job = client.run(&next_token("a very private prompt"));
    let wrong = json!({ "pellucid": 1, "body": [{ "op": "a very private prompt" }] });
    client.post("/v1/jobs", &wrong, &[]);
    client.get("/v1/models/a-very-private-prompt?key=a-very-private-prompt");
    // What is logged is written by a thread of its own: all of it is there when the process has ended.
    assert_eq!(server.terminate(), Some(0));
    let log = server.log();
    assert!(log.contains(job["id"].as_str().unwrap()), "{log}");
    assert!(!log.contains("private"), "{log}");
    assert!(!log.contains(client.key.unwrap().split('_').nth(2).unwrap()));
    // What is said before it begins to log is for people.
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with('{')).collect();
    assert!(lines.len() > 5, "{log}");
    for line in lines {
        serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}"));
    }
}

#[test]
fn it_ends_in_order_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), true, &["server.drain_seconds=0", "engine.packing=false"]);
    let client = server.anyone();
    let runs = client.post("/v1/jobs", &long(150), &[]).json()["id"].as_str().unwrap().to_owned();
    client.until(&runs, &["running", "succeeded"]);
    let waits = client.post("/v1/jobs", &next_token("Mary"), &[]).json()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.terminate(), Some(0));
    let again = Server::start(folder.path(), true, &[]);
    let client = again.anyone();
    assert_eq!(client.until(&waits, &["succeeded", "failed"])["state"], "succeeded");
    let ended = client.until(&runs, &["succeeded", "failed"]);
    assert_eq!(ended["state"], "succeeded");
    // It was put back, not suspected: only its attempts are more.
    assert!(!again.log().contains("suspects=1"), "{}", again.log());
}

#[test]
fn while_it_ends_it_takes_nothing_new_and_finishes_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), true, &[]);
    let client = server.anyone();
    let runs = client.post("/v1/jobs", &long(60), &[]).json()["id"].as_str().unwrap().to_owned();
    client.until(&runs, &["running", "succeeded"]);
    let pid = server.child.id().to_string();
    std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    // It may have been done already: then nobody answers.
    if let Ok(answer) = client.try_ask(
        "POST",
        "/v1/jobs",
        &[("Content-Type", "application/json")],
        next_token("x").to_string().as_bytes(),
    ) {
        assert_eq!(answer.problem(), "draining");
    }
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let again = Server::start(folder.path(), true, &[]);
    let job = again.anyone().get(&format!("/v1/jobs/{runs}")).json();
    assert_eq!((&job["state"], &job["attempts"]), (&json!("succeeded"), &json!(1)));
}

#[test]
fn two_do_not_use_one_folder() {
    let server = Server::open(&[]);
    let (_, errors, code) =
        output(&["serve", "--open", "--listen", "127.0.0.1:0", "--data", server.folder.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(errors.contains("in use"), "{errors}");
}

#[test]
fn with_a_certificate_connections_are_tls_and_nothing_else() {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/tls");
    let own = tempfile::tempdir().unwrap();
    let (certificate, key) = (format!("{files}/certificate.pem"), format!("{files}/key.pem"));
    let settings = [format!("server.certificate={certificate}"), format!("server.private_key={key}")];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = Server::start(own.path(), true, &settings);
    let pem = std::fs::read(&certificate).unwrap();
    let root = ureq::tls::Certificate::from_pem(&pem).unwrap();
    let tls =
        ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::new_with_certs(&[root])).build();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).proxy(None).build().into();
    let status = agent.get(format!("https://{}/healthz", server.address)).call().unwrap().status();
    assert_eq!(status, 200);
    // Who does not know the certificate does not speak to it, and nobody does in the clear.
    let stranger: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    assert!(stranger.get(format!("https://{}/healthz", server.address)).call().is_err());
    let clear = crate::raw::send(
        &server.address,
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        std::time::Duration::from_secs(5),
    );
    assert!(!clear.contains("200 OK"), "{clear}");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--data"].map(str::to_owned);
    let wrong = format!("server.certificate={key}");
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let elsewhere = own.path().join("elsewhere");
    arguments.extend([elsewhere.to_str().unwrap(), "--open", "--set", &wrong, "--set", settings[1]]);
    let (_, errors, code) = output(&arguments);
    assert_eq!(code, 1);
    assert!(errors.contains("key.pem: there is no certificate in it"), "{errors}");
}
