//! The form of server-sent events, as the HTML standard has it: lines `field: value`, an event at each empty line.

use std::io::{self, BufRead};

/// Bytes of one event, at most: a job's last event names all that it saved.
const EVENT_BYTES: usize = 64 << 20;

/// One event, or a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// An event.
    Message {
        /// The last id that was given, by this event or one before it.
        id: String,
        /// Its name; `message` where it has none.
        event: String,
        /// Its lines of data, with line feeds between them.
        data: String,
    },
    /// A comment: the connection is alive.
    Comment,
    /// The milliseconds to wait before connecting again.
    Retry(u64),
}

/// Reads events from a stream of bytes.
pub(crate) struct Reader<R> {
    from: R,
    line: Vec<u8>,
    begun: bool,
    /// The last line ended with a carriage return: a line feed right after it belongs to it.
    after_return: bool,
    id: String,
    event: String,
    data: String,
    has_data: bool,
}

impl<R: BufRead> Reader<R> {
    pub fn new(from: R) -> Reader<R> {
        Reader {
            from,
            line: Vec::new(),
            begun: false,
            after_return: false,
            id: String::new(),
            event: String::new(),
            data: String::new(),
            has_data: false,
        }
    }

    /// The next item; none at the end of the stream, where an event that is not complete is dropped.
    ///
    /// # Errors
    /// Those of reading, and an event that is too long.
    pub fn next(&mut self) -> io::Result<Option<Item>> {
        loop {
            if !self.read_line()? {
                return Ok(None);
            }
            let line = String::from_utf8_lossy(&self.line).into_owned();
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                let data = std::mem::take(&mut self.data);
                if std::mem::take(&mut self.has_data) {
                    let event = if event.is_empty() { "message".to_owned() } else { event };
                    return Ok(Some(Item::Message { id: self.id.clone(), event, data }));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => return Ok(Some(Item::Comment)),
                "event" => self.event = value.to_owned(),
                "data" => {
                    if self.has_data {
                        self.data.push('\n');
                    }
                    self.has_data = true;
                    self.data.push_str(value);
                    if self.data.len() > EVENT_BYTES {
                        return Err(too_long());
                    }
                }
                "id" if !value.contains('\0') => self.id = value.to_owned(),
                "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                    if let Ok(milliseconds) = value.parse() {
                        return Ok(Some(Item::Retry(milliseconds)));
                    }
                }
                _ => {}
            }
        }
    }

    /// Reads a line without its end into `line`; false at the end of the stream, where a line without an end does not count.
    fn read_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        loop {
            let buffer = self.from.fill_buf()?;
            if buffer.is_empty() {
                return Ok(false);
            }
            if std::mem::take(&mut self.after_return) && buffer[0] == b'\n' {
                self.from.consume(1);
                continue;
            }
            let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let taken = end.unwrap_or(buffer.len());
            if self.line.len() + taken > EVENT_BYTES {
                return Err(too_long());
            }
            self.line.extend_from_slice(&buffer[..taken]);
            let Some(end) = end else {
                self.from.consume(taken);
                continue;
            };
            self.after_return = buffer[end] == b'\r';
            self.from.consume(taken + 1);
            if !std::mem::replace(&mut self.begun, true) && self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
            return Ok(true);
        }
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an event is longer than any may be")
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use super::*;

    /// The items of a text that comes in pieces of so many bytes.
    fn items(text: &str, pieces: usize) -> Vec<Item> {
        let mut reader = Reader::new(BufReader::with_capacity(pieces, Cursor::new(text.as_bytes().to_vec())));
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    fn message(id: &str, event: &str, data: &str) -> Item {
        Item::Message { id: id.into(), event: event.into(), data: data.into() }
    }

    #[test]
    fn events_are_read_however_they_are_cut_and_whatever_ends_their_lines() {
        let text = "\u{feff}: hi\nid: 7\nevent: log\ndata: {\"a\":\ndata:1}\n\ndata\n\nevent: empty\n\n\
                    retry: 1500\nid\ndata:  two spaces\nunknown: x\n\nretry: soon\nid: \0\ndata: x\n\ndata: cut off";
        let expected = [
            Item::Comment,
            message("7", "log", "{\"a\":\n1}"),
            message("7", "message", ""),
            Item::Retry(1500),
            message("", "message", " two spaces"),
            message("", "message", "x"),
        ];
        for pieces in [1, 2, 3, 7, 4096] {
            for ends in ["\n", "\r", "\r\n"] {
                assert_eq!(items(&text.replace('\n', ends), pieces), expected, "{pieces} {ends:?}");
            }
        }
    }

    #[test]
    fn an_event_that_never_ends_is_an_error_and_not_all_memory() {
        let endless = io::repeat(b'a').take(1 << 40);
        let mut reader = Reader::new(BufReader::new(io::Read::chain(&b"data: "[..], endless)));
        assert_eq!(reader.next().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    use std::io::Read;
}
