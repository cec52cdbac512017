//! Keys: what is none opens nothing, whatever it is like.

use std::collections::BTreeSet;
use std::time::Duration;

use pellucid_server::admin::{self, KeyRequest};
use pellucid_server::keys::Scope;

use crate::harness::{GOOD, Service, text};

const ROUTES: &[(&str, &str)] = &[
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/job_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ("DELETE", "/v1/jobs/job_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ("GET", "/v1/jobs/job_aaaaaaaaaaaaaaaaaaaaaaaaaa/events"),
    ("GET", "/v1/jobs/job_aaaaaaaaaaaaaaaaaaaaaaaaaa/result"),
    ("POST", "/v1/explain"),
    ("POST", "/v1/encode"),
    ("POST", "/v1/decode"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/bundled"),
    ("GET", "/v1/account"),
    ("GET", "/v1/usage"),
    ("GET", "/v1/status"),
    ("GET", "/metrics"),
];

#[test]
fn every_route_but_health_and_what_is_the_same_for_all_needs_a_key() {
    let service = Service::of_two();
    for (method, target) in ROUTES {
        let headers = [("content-type", "application/json")];
        let answer =
            service.ask_without_key(method, target, &headers, if *method == "POST" { b"{}" } else { b"" });
        assert_eq!(answer.status, 401, "{method} {target}: {}", text(&answer.body));
        assert_eq!(answer.problem(), "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    // Ready is what has its model in memory, a moment later.
    let ready = || service.ask_without_key("GET", "/readyz", &[], b"").status == 200;
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !ready() && std::time::Instant::now() < patience {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for target in ["/healthz", "/readyz", "/", "/docs", "/openapi.json", "/v1/program.schema.json"] {
        assert_eq!(service.ask_without_key("GET", target, &[], b"").status, 200, "{target}");
    }
}

#[test]
fn what_is_like_a_key_is_none() {
    let service = Service::of_two();
    let key = service.keys[0].clone();
    let other = &service.keys[1];
    let half = key.len() - 20;
    let mixed = format!("{}{}", &key[..half], &other[half..]);
    let wrong = format!("{}{}", &key[..key.len() - 1], if key.ends_with('a') { 'b' } else { 'a' });
    let mut told = BTreeSet::new();
    for value in [
        format!("Bearer {mixed}"),
        format!("Bearer {wrong}"),
        format!("Bearer {}", &key[..key.len() - 1]),
        format!("Bearer {key}a"),
        format!("Bearer {key} a"),
        format!("Bearer {key},Bearer {key}"),
        format!("Basic {key}"),
        key.clone(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Bearer\t{key}"),
        "Bearer pellucid_".to_owned(),
        "Bearer pellucid__".to_owned(),
        "Bearer pellucid_' OR 1=1 --_x".to_owned(),
        format!("Bearer {}", key.to_uppercase()),
        format!("Bearer {}", "a".repeat(20_000)),
        "Bearer \u{fffd}".to_owned(),
    ] {
        let answer = service.ask_without_key("GET", "/v1/account", &[("authorization", &value)], b"");
        assert!(matches!(answer.status, 400 | 401 | 431), "{value}: {}", answer.status);
        if answer.status == 401 {
            let mut problem = answer.json();
            problem.as_object_mut().unwrap().remove("instance");
            told.insert(problem.to_string());
        }
        assert!(!text(&answer.body).contains(&key[..half]), "a key is never repeated");
    }
    assert!(told.len() <= 2, "what is wrong with a key is not told: {told:#?}");
    // By other ways than the header there are no keys.
    for target in [
        format!("/v1/account?key={key}"),
        format!("/v1/account?access_token={key}"),
        format!("/v1/account?authorization=Bearer%20{key}"),
    ] {
        assert_eq!(service.ask_without_key("GET", &target, &[], b"").status, 401);
    }
    for header in ["cookie", "x-api-key", "proxy-authorization", "x-authorization"] {
        let value = format!("Bearer {key}");
        assert_eq!(
            service.ask_without_key("GET", "/v1/account", &[(header, &value)], b"").status,
            401,
            "{header}"
        );
    }
}

#[test]
fn two_keys_are_no_key() {
    let service = Service::of_two();
    let [one, other] = [0, 1].map(|key| format!("Bearer {}", service.keys[key]));
    let answer = service.ask_without_key(
        "GET",
        "/v1/account",
        &[("authorization", &one), ("authorization", &other)],
        b"",
    );
    assert_eq!(answer.problem(), "bad-request");
}

#[test]
fn a_revoked_key_opens_nothing_from_then_on() {
    let service = Service::of_two();
    service.works(1);
    let id = service.get(1, "/v1/account").json()["key"].as_str().unwrap().to_owned();
    assert!(admin::revoke_key(&service.config, &id).unwrap());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(service.get(1, "/v1/account").status, 401);
    assert_eq!(service.submit(1, GOOD, &[]).status, 401);
    service.works(0);
}

#[test]
fn a_key_without_a_scope_has_it_not() {
    let service = Service::of_two();
    assert_eq!(service.get(0, "/metrics").problem(), "forbidden");
    let account = service.get(0, "/v1/account").json();
    assert_eq!(account["scopes"], serde_json::json!(["submit"]));
    assert!(!account.to_string().contains(&service.keys[0]));
}

#[test]
fn without_keys_only_this_machine_by_its_own_name_is_answered() {
    let service = Service::start(&[("server.open", "true")], &[]);
    for host in [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "0.0.0.0.nip.io",
        "[::2]",
    ] {
        let answer = service.ask_without_key("GET", "/v1/jobs", &[("host", host)], b"");
        assert_eq!(answer.problem(), "forbidden", "{host}");
    }
    // A page elsewhere can send such requests without asking first: they must not do anything.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let headers = [("content-type", kind), ("origin", "https://evil.example")];
        let answer = service.ask_without_key("POST", "/v1/jobs", &headers, GOOD.as_bytes());
        assert_eq!(answer.problem(), "unsupported-media-type", "{kind}");
    }
    let answer =
        service.ask_without_key("POST", "/v1/jobs", &[("origin", "https://evil.example")], GOOD.as_bytes());
    assert_eq!(answer.problem(), "unsupported-media-type");
    let answer = service.ask_without_key("OPTIONS", "/v1/jobs", &[("origin", "https://evil.example")], b"");
    assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control-")), "{answer:?}");
    let answer = service.ask_without_key("GET", "/v1/jobs", &[], b"");
    assert_eq!(answer.json()["jobs"], serde_json::json!([]));
    assert!(
        Service::refuses(&[("server.open", "true"), ("server.listen", "0.0.0.0:0")]),
        "open is for loopback only"
    );
}

#[test]
fn what_is_measured_holds_no_prompt_of_a_job_that_succeeds_or_fails() {
    let service = Service::of_two();
    let prompted = |program: &str| program.replace("Mary has", "a very private prompt");
    assert_eq!(service.run(0, &prompted(GOOD))["state"], "succeeded");
    // One that fails while it runs, one that is refused, and a path and a query of somebody's choice.
    let fails = prompted(GOOD).replace("\"body\": [\n", "\"body\": [\n    { \"op\": \"private\" },");
    assert!(service.submit(0, &fails, &[]).status >= 400);
    service.get(0, "/v1/models/a-very-private-prompt");
    service.get(0, "/a-very-private-path");
    let request = KeyRequest { account: "eve".into(), scopes: vec![Scope::Admin], ..KeyRequest::default() };
    let key = format!("Bearer {}", admin::create_key(&service.config, &request).unwrap());
    let metrics = service.ask_without_key("GET", "/metrics", &[("authorization", &key)], b"");
    let metrics = text(&metrics.body);
    assert!(metrics.contains("pellucid_jobs_ended_total{state=\"succeeded\"} 1"), "{metrics}");
    assert!(!metrics.contains("private"), "{metrics}");
}
