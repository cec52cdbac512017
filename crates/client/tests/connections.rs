//! What the client does when the network, or the service, does not do its part.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod fixture;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fixture::{Answer, Fixture, Received};
use pellucid_client::api::{
    Event, Job, JobState, Log, Number, Price, Priority, Problem, ProblemKind, QueuePlace, ResultInfo, Started,
};
use pellucid_client::{Client, Error, Options, Submission, Update};

const PROGRAM: &[u8] = br#"{"pellucid": 1, "body": []}"#;
const ID: &str = "job_aaaaaaaaaaaaaaaaaaaaaaaaaa";
const ETAG: &str = "\"one\"";

fn job(state: JobState) -> Job {
    let ended = state == JobState::Succeeded;
    Job {
        id: ID.into(),
        model: "bundled".into(),
        state,
        priority: Priority::Normal,
        label: None,
        created_at: "2026-01-31T00:00:00.000Z".into(),
        started_at: None,
        finished_at: None,
        deadline_at: None,
        attempts: 0,
        price: Price::default(),
        queue: None,
        progress: None,
        saved: Vec::new(),
        absent: Vec::new(),
        result: ended.then(|| ResultInfo {
            bytes: content().len() as u64,
            etag: ETAG.into(),
            expires_at: "2026-02-01T00:00:00.000Z".into(),
            partial: false,
        }),
        milliseconds: None,
        passes: None,
        tokens: None,
        error: None,
    }
}

/// What stands for a result.
fn content() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn client(fixture: &Fixture) -> Client {
    let options = Options::new(&fixture.address).key("pellucid_key").patience(Duration::from_secs(10));
    Client::new(&Options { cache: None, ..options }).unwrap()
}

/// An event as it travels.
fn sent(id: u64, event: &Event) -> String {
    format!("id: {id}\nevent: {}\ndata: {}\n\n", event.name(), event.data().unwrap())
}

fn done() -> String {
    sent(9, &Event::Done(Box::new(job(JobState::Succeeded))))
}

fn result(from: usize, to: usize) -> Answer {
    let content = content();
    let length = content.len().to_string();
    let headers =
        [("content-type", "application/vnd.safetensors"), ("etag", ETAG), ("content-length", &*length)];
    Answer::new("200 OK", &headers, &content[from..to])
}

fn rest(from: usize, etag: &str) -> Answer {
    let content = content();
    let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
    let headers =
        [("content-type", "application/vnd.safetensors"), ("etag", etag), ("content-range", &*range)];
    Answer::new("206 Partial Content", &headers, &content[from..])
}

/// Everything as it should be.
fn good(request: &Received) -> Answer {
    match request.line.split('?').next().unwrap() {
        "POST /v1/jobs" => Answer::json("202 Accepted", &job(JobState::Queued)),
        line if line.ends_with("/events") => Answer::events(&done()),
        line if line.ends_with("/result") => result(0, content().len()),
        _ => Answer::json("200 OK", &job(JobState::Succeeded)),
    }
}

/// Runs the program, and gives the result's bytes and what was said meanwhile.
fn run(client: &Client) -> (Vec<u8>, Vec<Update>) {
    let mut updates = Vec::new();
    let ended =
        client.run(PROGRAM, &Submission::default(), &mut |update| updates.push(update), None).unwrap();
    assert_eq!(ended.state(), JobState::Succeeded);
    let mut bytes = Vec::new();
    ended.result.unwrap().read_to_end(&mut bytes).unwrap();
    (bytes, updates)
}

#[test]
fn a_submission_whose_answer_is_lost_is_sent_again_as_the_same_one() {
    for broken in [
        "",
        "HTTP/1.1 202 Acc",
        "HTTP/1.1 202 Accepted\r\npellucid-version: 1\r\ncontent-length: 900\r\n\r\n{\"id\"",
        "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\noops!",
        "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\r\n",
    ] {
        let fixture = Fixture::start(move |request, number| match number {
            0 => Answer::Bytes(broken.as_bytes().to_vec()),
            _ => good(request),
        });
        let (bytes, updates) = run(&client(&fixture));
        assert!(bytes == content());
        assert!(matches!(&updates[0], Update::Retrying { .. }), "{updates:?}");
        let received = fixture.received();
        assert_eq!(fixture.lines()[..2], ["POST /v1/jobs", "POST /v1/jobs"], "{broken}");
        let key = received[0].header("idempotency-key").unwrap();
        assert!(key.len() >= 32 && received[1].header("idempotency-key") == Some(key));
        assert!(received.iter().take(2).all(|request| request.body == PROGRAM));
        assert!(
            received.iter().all(|request| request.header("authorization") == Some("Bearer pellucid_key"))
        );
    }
}

#[test]
fn every_request_of_a_run_belongs_to_the_callers_trace() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (named, sent) in [(Some(trace), Some(trace)), (Some("no trace"), None), (None, None)] {
        let fixture = Fixture::start(|request, _| good(request));
        let options = Options { traceparent: named.map(str::to_owned), ..Options::new(&fixture.address) };
        run(&Client::new(&Options { cache: None, ..options }).unwrap());
        let received = fixture.received();
        assert!(received.len() >= 2);
        assert!(received.iter().all(|request| request.header("traceparent") == sent), "{named:?}");
    }
}

#[test]
fn two_runs_are_two_submissions() {
    let fixture = Fixture::start(|request, _| good(request));
    let client = client(&fixture);
    run(&client);
    run(&client);
    let received = fixture.received();
    let keys: Vec<_> = received.iter().filter_map(|request| request.header("idempotency-key")).collect();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn the_time_that_a_service_asks_for_is_kept() {
    let fixture = Fixture::start(|request, number| match number {
        0 => {
            let problem = Problem::new(ProblemKind::TooManyRequests, "30 requests in a minute.");
            let body = serde_json::to_vec(&problem).unwrap();
            let headers = [("content-type", "application/problem+json"), ("retry-after", "1")];
            Answer::new("429 Too Many Requests", &headers, &body)
        }
        _ => good(request),
    });
    let (bytes, updates) = run(&client(&fixture));
    assert!(bytes == content());
    assert!(updates[0].to_string().contains("30 requests in a minute."), "{}", updates[0]);
    let received = fixture.received();
    assert!(received[1].at - received[0].at >= Duration::from_secs(1));
    assert_eq!(received[0].header("idempotency-key"), received[1].header("idempotency-key"));
}

#[test]
fn a_time_beyond_all_patience_is_told_at_once() {
    let fixture = Fixture::start(|_, _| {
        let mut problem = Problem::new(ProblemKind::TooManyRequests, "The day's milliseconds are used up.");
        problem.limit = Some(pellucid_client::api::ExceededLimit {
            name: "milliseconds_per_day".into(),
            allowed: 1000.0,
            used: 1200.5,
            unit: "ms".into(),
        });
        problem.retry_after_s = Some(40_000.0);
        Answer::json("429 Too Many Requests", &problem)
    });
    let error = client(&fixture).submit(PROGRAM, &Submission::default()).unwrap_err().to_string();
    assert!(
        error.contains("used up") && error.contains("milliseconds_per_day is 1000 ms; this would be 1200.5"),
        "{error}"
    );
    assert_eq!(fixture.lines().len(), 1);
}

#[test]
fn what_will_be_no_different_next_time_is_not_tried_again() {
    for (status, kind) in [
        ("401 Unauthorized", ProblemKind::Unauthorized),
        ("403 Forbidden", ProblemKind::Forbidden),
        ("404 Not Found", ProblemKind::UnknownModel),
        ("422 Unprocessable Content", ProblemKind::InvalidProgram),
        ("500 Internal Server Error", ProblemKind::Internal),
    ] {
        let problem = Problem::new(kind, "No.");
        let fixture = Fixture::start(move |_, _| Answer::json(status, &problem));
        let error = client(&fixture).submit(PROGRAM, &Submission::default()).unwrap_err();
        assert!(error.problem().is_some(), "{error}");
        assert_eq!(fixture.lines().len(), 1, "{status}");
    }
}

#[test]
fn a_result_that_breaks_off_goes_on_from_there() {
    let all = content().len();
    let fixture = Fixture::start(move |request, number| {
        let range = request.header("range").map(str::to_owned);
        match (request.line.ends_with("/result"), range) {
            (false, _) => good(request),
            (true, None) => result(0, 1000),
            (true, Some(range)) => {
                let from: usize =
                    range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
                assert_eq!(request.header("if-range"), Some(ETAG));
                // Once more it breaks off, once nothing comes at all.
                match number {
                    3 => match rest(from, ETAG) {
                        Answer::Bytes(bytes) => Answer::Bytes(bytes[..bytes.len() - all / 2].to_vec()),
                        other => other,
                    },
                    4 => Answer::lost(),
                    _ => rest(from, ETAG),
                }
            }
        }
    });
    let (bytes, _) = run(&client(&fixture));
    assert!(bytes == content());
    let ranges: Vec<_> =
        fixture.received().iter().filter_map(|request| request.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    assert_eq!(ranges[0], "bytes=1000-");
    assert_eq!(ranges[1], ranges[2], "what did not come is asked for again");
}

#[test]
fn a_part_that_ends_early_by_its_own_account_is_not_the_whole() {
    let all = content().len();
    let fixture = Fixture::start(move |request, _| {
        match (request.line.ends_with("/result"), request.header("range")) {
            (true, None) => result(0, 1000),
            // It promises the rest, and then says that this is all of it, as a proxy may: nothing is cut.
            (true, Some("bytes=1000-")) => {
                let range = format!("bytes 1000-{}/{all}", all - 1);
                let headers = [
                    ("content-type", "application/vnd.safetensors"),
                    ("etag", ETAG),
                    ("content-range", &*range),
                ];
                Answer::new("206 Partial Content", &headers, &content()[1000..2000])
            }
            (true, Some(_)) => rest(2000, ETAG),
            _ => good(request),
        }
    });
    assert!(run(&client(&fixture)).0 == content());
}

#[test]
fn a_service_that_knows_no_ranges_gives_the_same_bytes() {
    let all = content().len();
    let fixture = Fixture::start(move |request, _| {
        match (request.line.ends_with("/result"), request.header("range")) {
            (true, None) => result(0, all / 3),
            _ => good(request),
        }
    });
    assert!(run(&client(&fixture)).0 == content());
}

#[test]
fn two_halves_of_different_results_are_never_one() {
    let changed: [fn(usize) -> Answer; 3] = [
        |from| rest(from, "\"two\""),
        |_| {
            let headers = [("content-type", "application/vnd.safetensors"), ("etag", "\"two\"")];
            Answer::new("200 OK", &headers, &content())
        },
        |from| rest(from + 4, ETAG),
    ];
    for change in changed {
        let fixture = Fixture::start(move |request, _| {
            match (request.line.ends_with("/result"), request.header("range")) {
                (true, None) => result(0, 1000),
                (true, Some(_)) => change(1000),
                _ => good(request),
            }
        });
        let ended = client(&fixture).run(PROGRAM, &Submission::default(), &mut |_| {}, None).unwrap();
        let error = ended.result.unwrap().read_to_end(&mut Vec::new()).unwrap_err();
        assert!(matches!(error.downcast::<Error>(), Ok(Error::Changed { .. })));
    }
}

#[test]
fn a_connection_whose_result_was_read_is_used_again() {
    let fixture = Fixture::start(|_, _| {
        let headers = [("content-type", "application/vnd.safetensors"), ("etag", ETAG), ("pellucid-job", ID)];
        Answer::new("200 OK", &headers, &content()).kept()
    });
    let client = client(&fixture);
    for _ in 0..3 {
        let mut result = client.run_quietly(PROGRAM, &Submission::default(), None).unwrap().result.unwrap();
        // As many bytes as there are, and not one more is asked for.
        let mut read = vec![0; content().len()];
        result.read_exact(&mut read).unwrap();
        assert!(read == content());
    }
    assert_eq!((fixture.received().len(), fixture.connections()), (3, 1));
}

#[test]
fn a_result_is_written_whole_or_not_at_all() {
    let all = content().len();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.safetensors");
    let fixture = Fixture::start(move |request, _| {
        match (request.line.ends_with("/result"), request.header("range")) {
            (true, None) => result(0, all / 2),
            (true, Some(_)) => Answer::json("410 Gone", &Problem::new(ProblemKind::Gone, "It has expired.")),
            _ => good(request),
        }
    });
    let ended = client(&fixture).run(PROGRAM, &Submission::default(), &mut |_| {}, None).unwrap();
    let error = ended.result.unwrap().save(&path).unwrap_err();
    assert!(error.to_string().contains("It has expired."), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let fixture = Fixture::start(|request, _| good(request));
    let ended = client(&fixture).run(PROGRAM, &Submission::default(), &mut |_| {}, None).unwrap();
    ended.result.unwrap().save(&path).unwrap();
    assert!(std::fs::read(&path).unwrap() == content());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn events_go_on_after_the_last_one_that_came() {
    let log = |number: i64| {
        let values = vec![Number::Integer(number)];
        let (name, coordinates) = ("n".to_owned(), Vec::new());
        Event::Log(Log {
            name,
            coordinates,
            step: None,
            dtype: "i64".into(),
            shape: vec![1],
            values,
            truncated: false,
        })
    };
    // Of the connections, the first is cut in an event, the second is lost.
    let second = AtomicBool::new(false);
    let fixture = Fixture::start(move |request, _| {
        if !request.line.ends_with("/events") {
            return good(request);
        }
        match request.header("last-event-id") {
            // One that is cut off does not count.
            None => Answer::events(&format!(
                "retry: 10\n: hello\n\n{}{}{}",
                sent(1, &Event::Queued(QueuePlace { position: 3, ahead_milliseconds: 12.0 })),
                sent(2, &log(0)),
                sent(3, &log(1)).trim_end()
            )),
            Some("2") if !second.swap(true, Ordering::SeqCst) => Answer::lost(),
            Some("2") => Answer::events(&format!(
                "{}event: tomorrow\ndata: {{}}\n\n{}{}",
                sent(3, &log(1)),
                sent(4, &Event::Running(Started { attempt: 1 })),
                done()
            )),
            Some(other) => panic!("after {other}"),
        }
    });
    let (_, updates) = run(&client(&fixture));
    let logs: Vec<&Number> = updates
        .iter()
        .filter_map(|update| match update {
            Update::Happened(Event::Log(log)) => Some(&log.values[0]),
            _ => None,
        })
        .collect();
    assert_eq!(logs, [&Number::Integer(0), &Number::Integer(1)]);
    assert_eq!(updates.iter().filter(|update| matches!(update, Update::Retrying { .. })).count(), 2);
}

#[test]
fn a_run_that_is_cancelled_cancels_its_job() {
    let fixture = Fixture::start(|request, _| match request.line.split('?').next().unwrap() {
        line if line.starts_with("DELETE ") => Answer::json("202 Accepted", &job(JobState::Cancelled)),
        line if line.ends_with("/events") => Answer::silent_events(": alive\n\n", Duration::from_secs(20)),
        _ => good(request),
    });
    let cancel = Arc::new(AtomicBool::new(false));
    let cancelling = cancel.clone();
    let begun = Instant::now();
    let mut updates = |update: Update| {
        if matches!(update, Update::Submitted(_)) {
            cancelling.store(true, Ordering::SeqCst);
        }
    };
    let ended = client(&fixture).run(PROGRAM, &Submission::default(), &mut updates, Some(&cancel)).unwrap();
    assert_eq!(ended.state(), JobState::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(fixture.lines().contains(&format!("DELETE /v1/jobs/{ID}")));
}

#[test]
fn a_job_that_may_be_there_without_an_answer_is_cancelled_too() {
    let fixture = Fixture::start(|request, number| match (number, request.line.split(' ').next().unwrap()) {
        (0, _) => Answer::lost(),
        (_, "DELETE") => Answer::json("202 Accepted", &job(JobState::Cancelled)),
        _ => good(request),
    });
    let cancel = Arc::new(AtomicBool::new(false));
    let cancelling = cancel.clone();
    let mut updates = |update: Update| {
        assert!(matches!(update, Update::Retrying { .. }), "{update:?}");
        cancelling.store(true, Ordering::SeqCst);
    };
    let error =
        client(&fixture).run(PROGRAM, &Submission::default(), &mut updates, Some(&cancel)).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!(fixture.lines(), ["POST /v1/jobs", "POST /v1/jobs", &format!("DELETE /v1/jobs/{ID}")]);
    let received = fixture.received();
    assert_eq!(received[0].header("idempotency-key"), received[1].header("idempotency-key"));
}

#[test]
fn a_job_that_may_be_there_is_cancelled_when_the_service_answers_again() {
    let fixture = Fixture::start(|request, number| match (number, request.line.split(' ').next().unwrap()) {
        (0 | 1 | 3, _) => Answer::lost(),
        (_, "DELETE") => Answer::json("202 Accepted", &job(JobState::Cancelled)),
        _ => good(request),
    });
    let cancel = Arc::new(AtomicBool::new(false));
    let cancelling = cancel.clone();
    let mut updates = |_: Update| cancelling.store(true, Ordering::SeqCst);
    let error =
        client(&fixture).run(PROGRAM, &Submission::default(), &mut updates, Some(&cancel)).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    let (post, delete) = ("POST /v1/jobs".to_owned(), format!("DELETE /v1/jobs/{ID}"));
    assert_eq!(fixture.lines(), [&post, &post, &post, &delete, &post, &delete].map(String::clone));
}

#[test]
fn a_key_never_follows_a_redirection() {
    let elsewhere = Fixture::start(|request, _| good(request));
    let to = format!("{}/v1/jobs", elsewhere.address);
    let fixture =
        Fixture::start(move |_, _| Answer::new("307 Temporary Redirect", &[("location", &to)], b""));
    let error = client(&fixture).submit(PROGRAM, &Submission::default()).unwrap_err().to_string();
    assert!(error.contains("it points to http://127.0.0.1"), "{error}");
    assert!(elsewhere.lines().is_empty());
}

#[test]
fn what_is_no_service_is_told_from_one() {
    for bytes in [
        "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n<html></html>",
        "HTTP/1.1 404 Not Found\r\ncontent-length: 13\r\n\r\n<html></html>",
        "HTTP/1.1 200 OK\r\npellucid-version: 2\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\npellucid-version: 1\r\ncontent-length: 2\r\n\r\n{}",
    ] {
        let fixture = Fixture::start(move |_, _| Answer::Bytes(bytes.as_bytes().to_vec()));
        let error = client(&fixture).account().unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
        assert!(error.to_string().contains("hint: is the address right?"), "{error}");
        assert_eq!(fixture.lines().len(), 1, "{bytes}");
    }
}

#[test]
fn where_nobody_listens_it_is_said_soon() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let begun = Instant::now();
    let error = Client::new(&Options::new(format!("http://{unused}"))).unwrap().status().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn who_loses_the_service_while_a_job_runs_is_told_which_job_goes_on() {
    let fixture = Fixture::start(|request, _| match request.line.ends_with("/events") {
        true => Answer::Bytes(Vec::new()),
        false => good(request),
    });
    let options = Options::new(&fixture.address).patience(Duration::from_millis(300));
    let client = Client::new(&Options { cache: None, ..options }).unwrap();
    let error = client.run(PROGRAM, &Submission::default(), &mut |_| {}, None).unwrap_err().to_string();
    assert!(error.contains("cannot be reached") && error.contains(&format!("{ID} goes on there")), "{error}");
}

#[test]
fn a_specification_is_fetched_once_while_it_stays_the_same() {
    let spec = |name: &str| pellucid_graph::ModelSpec {
        name: name.into(),
        revision: None,
        family: "gpt2".into(),
        compute_type: pellucid_graph::DType::F32,
        sizes: Default::default(),
        modules: Vec::new(),
        hook_points: Vec::new(),
        parameters: Vec::new(),
        aliases: Vec::new(),
        capabilities: Vec::new(),
        end_tokens: Vec::new(),
    };
    let fixture = Fixture::start(move |request, number| {
        let etag = if number < 2 { "\"a\"" } else { "\"b\"" };
        if request.header("if-none-match") == Some(etag) {
            return Answer::new("304 Not Modified", &[("etag", etag)], b"");
        }
        let body = serde_json::to_vec(&spec(if number < 2 { "old" } else { "new" })).unwrap();
        Answer::new("200 OK", &[("content-type", "application/json"), ("etag", etag)], &body)
    });
    let folder = tempfile::tempdir().unwrap();
    let options = Options { cache: Some(folder.path().to_owned()), ..Options::new(&fixture.address) };
    let name = || Client::new(&options).unwrap().spec("owner/a b").unwrap().name;
    assert_eq!([name(), name(), name(), name()], ["old", "old", "new", "new"]);
    let asked: Vec<_> =
        fixture.received().iter().map(|request| request.header("if-none-match").map(str::to_owned)).collect();
    assert_eq!(asked, [None, Some("\"a\"".into()), Some("\"a\"".into()), Some("\"b\"".into())]);
    assert_eq!(fixture.lines()[0], "GET /v1/models/owner/a%20b");
}
