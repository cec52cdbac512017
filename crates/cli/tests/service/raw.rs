//! HTTP by hand, for what no decent client sends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Sends bytes and reads until the other side closes, or for so long.
pub fn send(address: &str, bytes: &[u8], patience: Duration) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    // The other side may close before everything is sent.
    let _ = stream.write_all(bytes);
    read(&mut stream)
}

/// What comes until the other side closes, or nothing more does.
pub fn read(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            break;
        }
        received.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&received).into_owned()
}

/// The status of an answer; 0: there was none.
pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// A server-sent event.
#[derive(Debug)]
pub struct Event {
    pub id: Option<u64>,
    pub name: String,
    pub data: Value,
}

/// The events of a stream that has ended.
pub fn events(text: &str) -> Vec<Event> {
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
    };
    text.split("\n\n")
        .filter_map(|block| {
            Some(Event {
                id: field(block, "id").map(|id| id.parse().unwrap()),
                name: field(block, "event")?,
                data: serde_json::from_str(&field(block, "data")?).unwrap(),
            })
        })
        .collect()
}
