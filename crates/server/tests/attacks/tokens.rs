//! Texts to be tokenised: bounded, in turn, counted, and for nobody who has gone.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::harness::{Answer, Service, text};

/// What is the most work for a tokenizer, and as much of it as is taken.
fn heaviest() -> String {
    serde_json::json!({ "texts": ["a".repeat(256 << 10)] }).to_string()
}

fn encode(service: &Service, key: usize, body: &str) -> Answer {
    service.ask(key, "POST", "/v1/encode", &[("content-type", "application/json")], body.as_bytes())
}

fn request(service: &Service, key: usize, body: &str) -> String {
    format!(
        "POST /v1/encode HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        service.keys[key],
        body.len()
    )
}

#[test]
fn of_an_account_one_is_tokenised_at_a_time_and_only_so_many_wait() {
    let service = Service::start(&[], &[("ann", &["milliseconds_per_minute=none"]), ("bob", &[])]);
    let body = heaviest();
    // How long one takes, and what it counts.
    let begun = Instant::now();
    assert_eq!(encode(&service, 0, &body).status, 200);
    let alone = begun.elapsed();
    let used =
        |key: usize| service.get(key, "/v1/account").json()["used"]["milliseconds_minute"].as_f64().unwrap();
    let counted = used(0);
    assert!(
        counted > 0.0 && counted <= alone.as_secs_f64() * 1000.0,
        "{counted} ms are counted of {alone:?}"
    );
    service.works(1);
    let (answers, slowest) = std::thread::scope(|scope| {
        let flood: Vec<_> = (0..60).map(|_| scope.spawn(|| raw(&service, &body))).collect();
        let mut slowest = Duration::ZERO;
        for _ in 0..5 {
            let begun = Instant::now();
            service.works(1);
            slowest = slowest.max(begun.elapsed());
        }
        (flood.into_iter().map(|one| one.join().unwrap()).collect::<Vec<Answer>>(), slowest)
    });
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(count(200) + count(429), 60, "{:?}", answers.iter().map(|one| one.status).collect::<Vec<_>>());
    assert!(count(200) >= 1 && count(429) >= 1, "{} are done, {} refused", count(200), count(429));
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    let limit = refused.json()["limit"].clone();
    assert_eq!((&limit["name"], &limit["allowed"]), (&"texts_at_once".into(), &16.0.into()), "{limit}");
    assert!(refused.header("retry-after").is_some());
    println!("alone {alone:?}; {} done; the slowest beside them {slowest:?}", count(200));
    // Sixty at once would take every core for as long as all of them do.
    assert!(slowest < alone * 8 + Duration::from_secs(1), "{slowest:?} beside what takes {alone:?} alone");
    assert!(used(0) > counted * count(200) as f64 / 2.0, "{} ms are counted", used(0));
}

fn raw(service: &Service, body: &str) -> Answer {
    let mut stream = service.connect();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream.write_all(request(service, 0, body).as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut bytes);
    Answer::parse(&bytes).unwrap_or_else(|| panic!("{}", text(&bytes)))
}

#[test]
fn what_nobody_waits_for_any_more_is_not_computed() {
    let service = Service::start(&[], &[("ann", &["milliseconds_per_minute=none"])]);
    let body = heaviest();
    let begun = Instant::now();
    assert_eq!(encode(&service, 0, &body).status, 200);
    let alone = begun.elapsed();
    let before = service.get(0, "/v1/account").json()["used"]["milliseconds_minute"].as_f64().unwrap();
    for _ in 0..12 {
        let mut stream = service.connect();
        stream.write_all(request(&service, 0, &body).as_bytes()).unwrap();
        // Until it waits for its turn.
        std::thread::sleep(Duration::from_millis(20));
    }
    // Of those who have gone at most one has its turn, and one has come to it meanwhile.
    let begun = Instant::now();
    assert_eq!(encode(&service, 0, r#"{ "texts": ["Mary has"] }"#).status, 200);
    let waited = begun.elapsed();
    let used = service.get(0, "/v1/account").json()["used"]["milliseconds_minute"].as_f64().unwrap() - before;
    println!("alone {alone:?}; behind twelve that have gone {waited:?}, of which {used} ms were computed");
    assert!(waited < alone * 5, "{waited:?} behind twelve that have gone, of which one takes {alone:?}");
}

#[test]
fn who_has_used_up_a_minute_tokenises_no_more_in_it() {
    let service = Service::start(&[], &[("ann", &["milliseconds_per_minute=1"]), ("bob", &[])]);
    let body = heaviest();
    assert_eq!(encode(&service, 0, &body).status, 200);
    let refused = encode(&service, 0, r#"{ "texts": ["a"] }"#);
    assert_eq!((refused.status, refused.problem().as_str()), (429, "too-many-requests"));
    assert_eq!(refused.json()["limit"]["name"], "milliseconds_per_minute");
    assert_eq!(encode(&service, 1, r#"{ "texts": ["a"] }"#).status, 200);
}

#[test]
fn texts_have_their_bounds_before_they_are_read_and_after() {
    let service = Service::of_two();
    let limit = |answer: &Answer| {
        assert_eq!((answer.status, answer.problem().as_str()), (413, "too-large"), "{}", text(&answer.body));
        answer.json()["limit"]["name"].as_str().unwrap().to_owned()
    };
    let one_more = serde_json::json!({ "texts": ["a".repeat((256 << 10) + 1)] }).to_string();
    assert_eq!(limit(&encode(&service, 0, &one_more)), "text_size");
    let many = serde_json::json!({ "texts": vec!["a"; 1_025] }).to_string();
    assert_eq!(limit(&encode(&service, 0, &many)), "texts");
    // By what is announced: not a byte of it is read.
    let head = format!(
        "POST /v1/decode HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 4000000\r\n\r\n",
        service.keys[0]
    );
    assert_eq!(limit(&Answer::parse(&service.raw(head.as_bytes())).unwrap()), "text_bytes");
    // However it is written.
    let escaped = format!(r#"{{ "texts": ["{}"] }}"#, "\\u0061".repeat(256 << 10));
    assert_eq!(encode(&service, 0, &escaped).status, 200);
    let tokens = serde_json::json!({ "tokens": [vec![50_000; 256 << 10]] }).to_string();
    let answer =
        service.ask(0, "POST", "/v1/decode", &[("content-type", "application/json")], tokens.as_bytes());
    assert!(matches!(answer.status, 200 | 400), "{}", text(&answer.body));
    service.works(1);
}
