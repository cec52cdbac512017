//! Those who use the service for long: people with good programs, and people who try to do harm.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::Counts;
use crate::load::service::{Person, Service};
use crate::shell::Outcome;

/// Nothing that is good may take longer.
const SOON: Duration = Duration::from_secs(60);

/// A small generator: the same choices for the same person.
struct Dice(u64);

impl Dice {
    fn of(number: usize) -> Dice {
        Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

const PROMPTS: [&str; 5] = [
    "The Eiffel Tower is in the city of",
    "When Mary and John went to the store, John gave a drink to",
    "The movie was awful. I",
    "Mary has",
    "The capital of France is",
];

/// A program that says what comes after a prompt.
pub(super) fn next_token(which: usize) -> Value {
    json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": PROMPTS[which % PROMPTS.len()] }], "body": [
        { "op": "get", "name": "logits", "hook": "logits" },
        { "op": "getitem", "name": "last", "input": "logits", "index": [":", -1] },
        { "op": "topk", "name": "top", "input": "last", "k": 3 },
        { "op": "save", "name": "tokens", "value": "top.1" } ] }] })
}

fn generation(which: usize, tokens: u64) -> Value {
    json!({ "pellucid": 1, "seed": which, "body": [{ "op": "trace", "invokes": [{ "prompt": PROMPTS[which % PROMPTS.len()] }],
        "generate": { "max_new_tokens": tokens, "stop_tokens": [], "temperature": 1.0 }, "body": [
        { "op": "generated", "name": "g" }, { "op": "save", "name": "made", "value": "g" } ] }] })
}

fn gradient(which: usize) -> Value {
    json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": PROMPTS[which % PROMPTS.len()] }], "body": [
        { "op": "get", "name": "l", "hook": "logits" }, { "op": "sum", "name": "loss", "input": "l" },
        { "op": "backward", "name": "back", "of": "loss" },
        { "op": "grad", "name": "g", "backward": "back", "hook": "layers.1.output" }, { "op": "save", "name": "saved", "value": "g" } ] }] })
}

/// Everything of one value, a megabyte and more.
fn large(which: usize) -> Value {
    json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompts": vec![PROMPTS[which % PROMPTS.len()]; 40] }], "body": [
        { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "logits", "value": "l" } ] }] })
}

/// One with good programs.
pub(super) fn good(
    service: &Service,
    number: usize,
    over: &AtomicBool,
    counts: &Counts,
) -> Result<(), String> {
    let (client, mut dice) = (service.person(number), Dice::of(number));
    while !over.load(Ordering::Relaxed) {
        let which = dice.below(1000) as usize;
        let outcome = match dice.below(12) {
            0..6 => client.result(&next_token(which)),
            6 | 7 => client.result(&generation(which, 1 + dice.below(60))),
            8 => client.result(&gradient(which)),
            9 => client.result(&large(which)),
            10 => cancelled(&client, which),
            _ => watched(&client, which),
        };
        match outcome {
            Ok(()) => counts.done.fetch_add(1, Ordering::Relaxed),
            Err(error) if ["202", "429", "503"].iter().any(|told| error.to_string().starts_with(told)) => {
                std::thread::sleep(Duration::from_millis(200));
                counts.later.fetch_add(1, Ordering::Relaxed)
            }
            Err(error) => return Err(format!("a good program: {error}")),
        };
    }
    Ok(())
}

/// A long one that is cancelled while it waits or runs, then erased.
fn cancelled(client: &Person, which: usize) -> Outcome {
    let id = client.begin(&generation(which, 100))?;
    client.delete(&format!("/v1/jobs/{id}"))?;
    client.delete(&format!("/v1/jobs/{id}?erase=true"))
}

/// One whose events are listened to, to their end.
fn watched(client: &Person, which: usize) -> Outcome {
    let id = client.begin(&generation(which, 20))?;
    let events = client.text(&format!("/v1/jobs/{id}/events"))?;
    if events.contains("event: done") {
        Ok(())
    } else {
        Err(format!("events without an end: {events}").into())
    }
}

/// One who tries to do harm.
pub(super) fn hostile(
    service: &Service,
    number: usize,
    over: &AtomicBool,
    counts: &Counts,
) -> Result<(), String> {
    let (client, mut dice) = (service.person(number), Dice::of(number));
    let address = service.address().trim_start_matches("http://").to_owned();
    let key = service.key(number).to_owned();
    while !over.load(Ordering::Relaxed) {
        let harm = match dice.below(8) {
            0 => refused(&client, &bomb(&mut dice)),
            1 => broken(&client, &mut dice),
            2 => poisoned(&client, &mut dice),
            3 => raw(&address, &head(&key, &mut dice), Duration::from_millis(500)),
            4 => abandoned(&address, &key, &mut dice),
            5 => stranger(&address, &mut dice),
            6 => raw(&address, b"GET / HTTP/1.1\r\nHost: loc", Duration::from_millis(100)),
            _ => flood(&client, &mut dice),
        };
        harm.map_err(|error| format!("a hostile request: {error}"))?;
        counts.hostile.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(dice.below(60)));
    }
    Ok(())
}

fn refused(client: &Person, program: &Value) -> Outcome {
    match client.send(program.to_string().as_bytes(), "wait=20")? {
        (413 | 422 | 429, _) => Ok(()),
        (status, bytes) => Err(format!("{program}: {status}: {}", String::from_utf8_lossy(&bytes)).into()),
    }
}

/// What would take all memory or all time.
fn bomb(dice: &mut Dice) -> Value {
    let big = 9_223_372_036_854_775_807_i64 >> dice.below(20);
    let trace = |node: Value| json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [node, { "op": "save", "name": "x", "value": "z" }] }] });
    match dice.below(5) {
        0 => trace(json!({ "op": "zeros", "name": "z", "size": [big] })),
        1 => trace(json!({ "op": "zeros", "name": "z", "size": [big, big] })),
        2 => trace(json!({ "op": "eye", "name": "z", "n": 1_i64 << 30 })),
        3 => trace(
            json!({ "op": "loop", "name": "z", "count": big, "body": [{ "op": "zeros", "name": "y", "size": [1] }] }),
        ),
        _ => trace(
            json!({ "op": "literal", "name": "z", "dtype": "f32", "shape": [big, 2], "elements": [1.0] }),
        ),
    }
}

/// A good program with some of its bytes changed, or cut off.
fn broken(client: &Person, dice: &mut Dice) -> Outcome {
    let mut body = next_token(dice.below(5) as usize).to_string().into_bytes();
    for _ in 0..1 + dice.below(4) {
        let at = dice.below(body.len() as u64) as usize;
        body[at] = dice.below(256) as u8;
    }
    if dice.below(3) == 0 {
        body.truncate(1 + dice.below(body.len() as u64 - 1) as usize);
    }
    match client.send(&body, "wait=20")? {
        (200 | 400 | 404 | 413 | 422 | 429 | 503, _) => Ok(()),
        (status, bytes) => Err(format!("{status}: {}", String::from_utf8_lossy(&bytes)).into()),
    }
}

/// NaN and infinity in the residual stream, or an index that is out of range when it runs.
fn poisoned(client: &Person, dice: &mut Dice) -> Outcome {
    let program = match dice.below(3) {
        0 => {
            json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
            { "op": "get", "name": "h", "hook": "layers.2.output" },
            { "op": "literal", "name": "far", "dtype": "i64", "shape": [1], "elements": [99999] },
            { "op": "getitem", "name": "one", "input": "h", "index": [0, 0, { "tensor": "far" }] },
            { "op": "save", "name": "x", "value": "one" } ] }] })
        }
        which => {
            json!({ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
            { "op": "full", "name": "p", "size": [128], "fill_value": { "float": if which == 1 { "nan" } else { "inf" } } },
            { "op": "set", "hook": "layers.0.output", "value": "p" },
            { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "x", "value": "l" } ] }] })
        }
    };
    match client.send(program.to_string().as_bytes(), "wait=20")? {
        (200 | 202 | 429 | 503, _) => Ok(()),
        (status, bytes) => Err(format!("{status}: {}", String::from_utf8_lossy(&bytes)).into()),
    }
}

/// Heads that mean two things, or are too much.
fn head(key: &str, dice: &mut Dice) -> Vec<u8> {
    let head = match dice.below(5) {
        0 => "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxxx"
            .to_owned(),
        1 => "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"
            .to_owned(),
        2 => format!("GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000)),
        3 => format!(
            "GET /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nAuthorization: Bearer {key}\r\n\r\n"
        ),
        _ => format!(
            "GET /v1/jobs/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
        ),
    };
    head.into_bytes()
}

/// Sends bytes, and reads for a while what comes.
fn raw(address: &str, bytes: &[u8], patience: Duration) -> Outcome {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(patience))?;
    // Whoever is refused early may not be listened to any more.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    if answer.contains("root:") || answer.starts_with("HTTP/1.1 5") {
        Err(answer.into_owned().into())
    } else {
        Ok(())
    }
}

/// A job whose answer, or whose events, nobody waits for.
fn abandoned(address: &str, key: &str, dice: &mut Dice) -> Outcome {
    let program = generation(dice.below(5) as usize, 30).to_string();
    let mut stream = TcpStream::connect(address)?;
    stream.set_write_timeout(Some(SOON))?;
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nPrefer: wait=30\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        program.len()
    );
    stream.write_all(head.as_bytes())?;
    let cut = if dice.below(2) == 0 { program.len() } else { dice.below(program.len() as u64) as usize };
    stream.write_all(&program.as_bytes()[..cut])?;
    std::thread::sleep(Duration::from_millis(dice.below(50)));
    Ok(())
}

/// Somebody without a key, or with one that is made up.
fn stranger(address: &str, dice: &mut Dice) -> Outcome {
    let key = format!("pellucid_{:08x}_{:032x}", dice.below(u64::from(u32::MAX)), dice.below(u64::MAX));
    let request = format!(
        "GET /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    );
    raw(address, request.as_bytes(), Duration::from_secs(5))
}

/// Many jobs at once.
fn flood(client: &Person, dice: &mut Dice) -> Outcome {
    for number in 0..dice.below(40) {
        match client.send(next_token(number as usize).to_string().as_bytes(), "respond-async")? {
            (202 | 429 | 503, _) => {}
            (status, bytes) => return Err(format!("{status}: {}", String::from_utf8_lossy(&bytes)).into()),
        }
    }
    Ok(())
}
