//! What happens to a job, as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use pellucid_client::api::{self, Event, EventQuery, ProblemKind, QueuePlace};
use tokio::time::Instant;

use super::answer::Refusal;
use super::jobs::text;
use super::{Id, Reply, Shared, caller, query};
use crate::account::Watcher;
use crate::core::Core;
use crate::events::{Follower, Sent};
use crate::keys::Scope;

/// After so long without events something is sent all the same, so that nobody between takes the connection for dead;
/// and as often it is looked whether the key is still valid.
const ALIVE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });
/// How often a waiting job's place is looked at, at most: who looks walks the queue.
const PLACE: Duration = Duration::from_secs(1);
/// The least time between two tellings; the end is told at once.
const BREATH: Duration = Duration::from_millis(20);

pub(super) async fn get(State(shared): State<Shared>, Id(id): Id, headers: HeaderMap, uri: Uri) -> Reply {
    let caller = caller(&shared, &headers, Some(Scope::Submit)).await?;
    let asked = query::<EventQuery>(&uri)?;
    let after = match text(&headers, "last-event-id")? {
        Some(id) => Some(id.trim().parse::<u64>().map_err(|_| {
            Refusal::of(ProblemKind::BadRequest, "The header `Last-Event-ID` is a number that an event had.")
        })?),
        None => asked.last_event_id,
    };
    let (job, channel) = shared.service.channel(&caller, &id).await?;
    let Some(channel) = channel else {
        // It ended long ago, or while we looked: all that is left to tell is its end.
        let job = shared.service.core.view(job);
        let data = Event::Done(Box::new(job)).data();
        let data =
            data.map_err(|_| Refusal::of(ProblemKind::Internal, "The job cannot be written as JSON."))?;
        let end = write(&Sent { id: None, name: "done", data, last: true });
        return Ok(stream(Body::from(format!("retry: 1000\n\n{end}"))));
    };
    let telling = Telling {
        _watches: shared.service.watch(&caller)?,
        core: shared.service.core.clone(),
        key: caller.key,
        keys: Seldom { pause: ALIVE, next_at: Instant::now() + ALIVE },
        job: id,
        follower: channel.follow(after),
        place: None,
        looks: Seldom::new(PLACE),
        told: Instant::now(),
        next_at: Instant::now(),
        begun: false,
        ended: false,
    };
    Ok(stream(Body::from_stream(unfold(telling, |telling| telling.next()))))
}

fn stream(body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(api::EVENT_STREAM));
    // Proxies must not hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Something that is done only every so often.
struct Seldom {
    pause: Duration,
    next_at: Instant,
}

impl Seldom {
    /// For the first time at once.
    fn new(pause: Duration) -> Seldom {
        Seldom { pause, next_at: Instant::now() }
    }

    /// Whether it is to be done now.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next_at;
        if due {
            self.next_at = now + self.pause;
        }
        due
    }
}

struct Telling {
    _watches: Option<Watcher>,
    core: Arc<Core>,
    /// The key with which it was asked for; none where none is needed.
    key: Option<String>,
    keys: Seldom,
    job: String,
    follower: Box<dyn Follower>,
    place: Option<QueuePlace>,
    looks: Seldom,
    told: Instant,
    /// When the next telling may be.
    next_at: Instant,
    begun: bool,
    ended: bool,
}

impl Telling {
    async fn next(mut self) -> Option<(Result<Bytes, std::convert::Infallible>, Telling)> {
        if self.ended {
            return None;
        }
        if !self.begun {
            self.begun = true;
            return Some((Ok(Bytes::from_static(b"retry: 1000\n\n")), self));
        }
        self.follower.rest(self.next_at.saturating_duration_since(Instant::now())).await;
        loop {
            let now = Instant::now();
            // One that cannot be read now may be valid.
            if self.keys.is_due(now)
                && let Some(key) = &self.key
                && matches!(self.core.store.key(key).await, Ok(None))
            {
                return None;
            }
            let place = match self.looks.is_due(now) {
                true => self.core.board().place(&self.job),
                false => self.place,
            };
            let mut events = Vec::new();
            if place.is_some() && place != self.place {
                let data = place.map(|place| Event::Queued(place).data());
                if let Some(Ok(data)) = data {
                    events.push(Sent { id: None, name: "queued", data, last: false });
                }
            }
            let over = self.follower.end();
            let patience = match (events.is_empty(), place) {
                (false, _) => Duration::ZERO,
                // All that will ever come is there.
                _ if over.is_some() => Duration::ZERO,
                (true, Some(_)) => self.looks.next_at.saturating_duration_since(now),
                (true, None) => self.keys.next_at.min(self.told + ALIVE).saturating_duration_since(now),
            };
            self.place = place;
            events.extend(self.follower.next(patience).await);
            if events.is_empty() {
                events.extend(over);
            }
            if events.is_empty() {
                if self.follower.is_gone() {
                    return None;
                }
                if self.told.elapsed() < ALIVE {
                    continue;
                }
                self.told = Instant::now();
                return Some((Ok(Bytes::from_static(b": keep-alive\n\n")), self));
            }
            // A run that goes on while the service ends has ever more to tell.
            self.ended = self.follower.is_gone() || events.iter().any(|event| event.last);
            self.told = Instant::now();
            self.next_at = self.told + BREATH;
            let text: String = events.iter().map(write).collect();
            return Some((Ok(Bytes::from(text)), self));
        }
    }
}

fn write(event: &Sent) -> String {
    let id = event.id.map_or_else(String::new, |id| format!("id: {id}\n"));
    format!("{id}event: {}\ndata: {}\n\n", event.name, event.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_seldom_is_done_at_once_and_then_only_after_a_pause() {
        let mut looks = Seldom::new(PLACE);
        let start = looks.next_at;
        // As often as a follower is told of a queue that moves.
        let done = (0..100).filter(|&tellings| looks.is_due(start + BREATH * tellings)).count();
        assert_eq!(done, 2);
    }
}
