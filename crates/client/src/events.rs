//! What happens to a job, over cut connections.

use std::fmt;
use std::io::BufReader;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::api::{EVENT_STREAM, Event, Job};
use crate::client::job_path;
use crate::error::{Error, Result};
use crate::retry::Backoff;
use crate::send::{Fate, Request, SILENCE, Sender};
use crate::server_sent::{Item, Reader};

/// Events that may lie between the thread that reads them and whoever takes them.
const WAITING: usize = 256;

/// What happens to a job, as it happens. Where the connection is cut, it is made again, and goes on after the last event
/// that was seen.
pub struct Events {
    sender: Arc<Sender>,
    job: String,
    /// The id of the last event.
    last: Option<String>,
    connection: Option<Receiver<Sign>>,
    /// When the next connection may be made.
    not_before: Instant,
    backoff: Backoff,
    /// Whether the last connection fell silent: something between here and the service may hold events back.
    silent: bool,
    ended: bool,
    retrying: Option<(Error, Duration)>,
}

/// What the thread of a connection tells.
enum Sign {
    Event(String, Event),
    /// The connection is alive.
    Alive,
    End(Fate),
}

impl fmt::Debug for Events {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Events {{ {}, after {:?} }}", self.job, self.last)
    }
}

impl Events {
    pub(crate) fn new(sender: Arc<Sender>, job: &str) -> Events {
        Events {
            sender,
            job: job.to_owned(),
            last: None,
            connection: None,
            not_before: Instant::now(),
            backoff: Backoff::new(),
            silent: false,
            ended: false,
            retrying: None,
        }
    }

    /// The next event, if one comes in time. After [`Event::Done`] none comes.
    ///
    /// # Errors
    /// [`Error`]: the job is not known, or the connection could not be made again for as long as there is patience.
    pub fn next_within(&mut self, time: Duration) -> Result<Option<Event>> {
        let until = Instant::now() + time;
        loop {
            if self.ended {
                return Ok(None);
            }
            let left = until.saturating_duration_since(Instant::now());
            if self.connection.is_none() {
                let pause = self.not_before.saturating_duration_since(Instant::now());
                if pause > left {
                    std::thread::sleep(left);
                    return Ok(None);
                }
                std::thread::sleep(pause);
                self.connect()?;
            }
            let Some(connection) = &self.connection else { return Ok(None) };
            let sign = match connection.recv_timeout(left) {
                Ok(sign) => sign,
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => Sign::End(self.sender.broken_off("events broke off")),
            };
            match sign {
                Sign::Alive => self.backoff = Backoff::new(),
                Sign::Event(id, event) => {
                    self.backoff = Backoff::new();
                    if !id.is_empty() {
                        self.last = Some(id);
                    }
                    self.ended = matches!(event, Event::Done(_));
                    return Ok(Some(event));
                }
                Sign::End(Fate::Final(error)) => {
                    self.ended = true;
                    return Err(error);
                }
                Sign::End(Fate::Again { error, after, .. }) => {
                    self.connection = None;
                    let (error, pause) = self.sender.pause(&mut self.backoff, error, after)?;
                    self.silent = error.to_string().contains("in time");
                    self.not_before = Instant::now() + pause;
                    self.retrying = Some((error, pause));
                }
            }
        }
    }

    /// Why the connection is being made again, and after which pause, told once.
    pub(crate) fn retrying(&mut self) -> Option<(Error, Duration)> {
        self.retrying.take()
    }

    /// A thread for one connection, since nothing else can look aside while it waits for an event. It ends with its
    /// connection, or when it has something to tell and nobody listens.
    fn connect(&mut self) -> Result<()> {
        let (signs, connection) = sync_channel(WAITING);
        let (sender, job, last) = (self.sender.clone(), self.job.clone(), self.last.clone());
        let silent = std::mem::take(&mut self.silent);
        let read = move || {
            if silent && let Some(job) = ended(&sender, &job) {
                let _ = signs.send(Sign::Event(String::new(), Event::Done(Box::new(job))));
                return;
            }
            let fate = follow(&sender, &job, last.as_deref(), &signs);
            let _ = signs.send(Sign::End(fate));
        };
        std::thread::Builder::new().name("pellucid-events".to_owned()).spawn(read)?;
        self.connection = Some(connection);
        Ok(())
    }
}

/// The job, if it has ended.
fn ended(sender: &Sender, job: &str) -> Option<Job> {
    let answer = sender.once(&Request::get(job_path(job))).ok()?;
    sender.read_json::<Job>(answer).ok().filter(|job| job.state.is_final())
}

/// Follows one connection to its end.
fn follow(sender: &Sender, job: &str, last: Option<&str>, signs: &SyncSender<Sign>) -> Fate {
    let mut request = Request::get(format!("{}/events", job_path(job))).header("accept", EVENT_STREAM);
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let answer = match sender.once(&request) {
        Ok(answer) => answer,
        Err(fate) => return fate,
    };
    let mut reader = Reader::new(BufReader::new(answer.into_body().into_reader()));
    loop {
        let sign = match reader.next() {
            Ok(None) => return sender.broken_off("events broke off"),
            Err(error) => return sender.lost(ureq::Error::from(error)),
            Ok(Some(Item::Message { id, event, data })) => match Event::parse(&event, &data) {
                Ok(Some(event)) => Sign::Event(id, event),
                // Of a newer service: it may say more than is known here.
                Ok(None) => Sign::Alive,
                Err(error) => return Fate::Final(sender.protocol(format!("the event `{event}`: {error}"))),
            },
            Ok(Some(Item::Comment | Item::Retry(_))) => Sign::Alive,
        };
        let last = matches!(&sign, Sign::Event(_, Event::Done(_)));
        if signs.send(sign).is_err() || last {
            return sender.broken_off("nobody listens");
        }
    }
}

impl Iterator for Events {
    type Item = Result<Event>;

    /// The next event, for which it waits; none after [`Event::Done`] or an error.
    fn next(&mut self) -> Option<Result<Event>> {
        while !self.ended {
            match self.next_within(SILENCE) {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) => {}
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
