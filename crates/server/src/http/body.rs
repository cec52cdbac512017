//! Receiving bodies: bounded each and all together, and from nobody who dawdles.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use pellucid_client::api::{self, ProblemKind};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::answer::Refusal;
use crate::account::exceeded;
use crate::config::Config;
use crate::service::Caller;

/// Bytes that one permit stands for.
const GRANULE: u64 = 4_096;
/// The part of the room for all bodies that those of one account may take, at most: one of so many.
const PARTS: u64 = 4;
/// The least bytes a second that a body comes at, after a start.
const SLOWEST: u64 = 16 << 10;

/// Where bodies are received.
#[derive(Clone)]
pub(super) struct Receiving {
    room: Arc<Semaphore>,
    /// Of each account that sends one: nobody's bodies take all the room.
    by_account: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
    /// Granules of an account.
    own: usize,
    most: u64,
    idle: Duration,
}

/// A body, and the room that it takes.
pub(super) struct Received {
    pub bytes: Bytes,
    _room: Option<Room>,
}

/// Room that is taken: of the account's own, and of all.
struct Room {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Receiving {
    pub fn new(config: &Config) -> Receiving {
        let admission = &config.admission;
        let granules = |bytes: u64| {
            let granules = bytes.div_ceil(GRANULE).max(1);
            usize::try_from(granules).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
        };
        Receiving {
            room: Arc::new(Semaphore::new(granules(admission.receiving_bytes))),
            by_account: Arc::default(),
            // One of the largest, however little room there is.
            own: granules((admission.receiving_bytes / PARTS).max(admission.request_bytes)),
            most: admission.request_bytes,
            idle: Duration::from_secs_f64(config.server.idle_seconds),
        }
    }

    /// A body of one of the types that are read.
    pub async fn receive(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        mut body: Body,
        kind: Kind,
    ) -> Result<Received, Refusal> {
        of_type(headers, kind.types)?;
        let own = caller.account.limits.request_bytes.map(|own| ("request_bytes", own));
        let all = [Some(("admission.request_bytes", self.most)), own, kind.most];
        let least = all.into_iter().flatten().min_by_key(|&(_, most)| most);
        let (name, most) = least.unwrap_or(("admission.request_bytes", self.most));
        let too_large = |size: u64| {
            Refusal::from(Box::new(exceeded(ProblemKind::TooLarge, name, most as f64, size as f64, "bytes")))
        };
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if let Some(size) = announced.filter(|&size| size > most) {
            return Err(too_large(size));
        }
        let mut bytes = BytesMut::new();
        let mut room: Option<Room> = None;
        let own = self.of(&caller.account.name);
        // What is announced gets its room at once, so that no two bodies that are half there wait for one another.
        self.make_room(&own, &mut room, announced.unwrap_or(0)).await?;
        let started = tokio::time::Instant::now();
        let slow = || Refusal::of(ProblemKind::Timeout, "The body did not come in time.");
        loop {
            let frame = tokio::time::timeout(self.idle, body.frame()).await.map_err(|_| slow())?;
            let Some(frame) = frame else { break };
            let frame =
                frame.map_err(|_| Refusal::of(ProblemKind::BadRequest, "The body ended before its end."))?;
            let Ok(data) = frame.into_data() else { continue };
            let size = bytes.len() as u64 + data.len() as u64;
            if size > most {
                return Err(too_large(size));
            }
            let patience = self.idle + Duration::from_secs(size / SLOWEST);
            if started.elapsed() > patience {
                return Err(slow());
            }
            self.make_room(&own, &mut room, size).await?;
            bytes.extend_from_slice(&data);
        }
        Ok(Received { bytes: bytes.freeze(), _room: room })
    }

    /// The room of an account.
    fn of(&self, account: &str) -> Arc<Semaphore> {
        let mut accounts = self.by_account.lock().unwrap_or_else(PoisonError::into_inner);
        // Who holds some of it holds it too: one that nobody but this holds is of no use.
        accounts.retain(|_, own| Arc::strong_count(own) > 1);
        let fresh = || Arc::new(Semaphore::new(self.own));
        accounts.entry(account.to_owned()).or_insert_with(fresh).clone()
    }

    async fn make_room(
        &self,
        own: &Arc<Semaphore>,
        room: &mut Option<Room>,
        size: u64,
    ) -> Result<(), Refusal> {
        let needed = size.div_ceil(GRANULE) as usize;
        let held = room.as_ref().map_or(0, |room| room.all.num_permits());
        let Some(more) = needed.checked_sub(held).filter(|&more| more > 0) else { return Ok(()) };
        let full = || {
            let mut problem =
                exceeded(ProblemKind::QueueFull, "admission.receiving_bytes", 0.0, 0.0, "bytes");
            problem.limit = None;
            problem.detail = Some("Too many bodies are being received at once.".into());
            problem.retry_after_s = Some(5.0);
            Refusal::from(Box::new(problem))
        };
        let both = async {
            // Who waits for its own room takes none of the others'.
            let own = own.clone().acquire_many_owned(more as u32).await?;
            let all = self.room.clone().acquire_many_owned(more as u32).await?;
            Ok::<Room, AcquireError>(Room { own, all })
        };
        let taken = tokio::time::timeout(self.idle, both).await;
        let taken = taken.map_err(|_| full())?.map_err(|_| full())?;
        match room {
            Some(room) => {
                room.own.merge(taken.own);
                room.all.merge(taken.all);
            }
            None => *room = Some(taken),
        }
        Ok(())
    }
}

fn of_type(headers: &HeaderMap, types: &[&str]) -> Result<(), Refusal> {
    let refused = |message: String| Err(Refusal::of(ProblemKind::UnsupportedMediaType, message));
    let encoded = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        return refused("Bodies are taken as they are: without `Content-Encoding`.".into());
    }
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.split(';').next().unwrap_or_default().trim();
    if types.iter().any(|known| given.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    refused(format!("The body's `Content-Type` is one of {}.", types.join(", ")))
}

/// What a body may be.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    types: &'static [&'static str],
    /// Bytes that it may have, where that is fewer than any may, and what that is called.
    most: Option<(&'static str, u64)>,
}

/// A program.
pub(super) const PROGRAM: Kind =
    Kind { types: &[api::JSON, api::SAFETENSORS, "application/octet-stream"], most: None };
/// Texts, or token ids: each byte or token of [`api::MAXIMUM_TEXT_SIZE`] is at most eight characters of JSON.
pub(super) const TEXTS: Kind =
    Kind { types: &[api::JSON], most: Some(("text_bytes", 8 * api::MAXIMUM_TEXT_SIZE as u64 + (64 << 10))) };

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_accounts_bodies_leave_room_for_anothers() {
        let mut config = Config::default();
        config.admission.receiving_bytes = 64 * GRANULE;
        config.admission.request_bytes = 8 * GRANULE;
        config.server.idle_seconds = 0.05;
        let receiving = Receiving::new(&config);
        let flood = receiving.of("flood");
        let mut held = Vec::new();
        loop {
            let mut room = None;
            if receiving.make_room(&flood, &mut room, 8 * GRANULE).await.is_err() {
                break;
            }
            held.push(room);
        }
        assert_eq!(held.len(), 2);
        let (mut room, other) = (None, receiving.of("other"));
        assert!(receiving.make_room(&other, &mut room, 8 * GRANULE).await.is_ok());
        // As it grows; and what is over is given back, and forgotten.
        assert!(receiving.make_room(&other, &mut room, 16 * GRANULE).await.is_ok());
        held.clear();
        assert!(receiving.make_room(&flood, &mut None, GRANULE).await.is_ok());
        drop((room, flood, other));
        receiving.of("third");
        assert_eq!(receiving.by_account.lock().unwrap_or_else(PoisonError::into_inner).len(), 1);
    }
}
