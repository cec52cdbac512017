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
/// Bytes of a small body. Small ones have a room of their own: they never wait for large ones.
const SMALL: u64 = 256 << 10;
/// Bytes of that room, beside `admission.receiving_bytes`.
const SMALL_ROOM: u64 = 32 << 20;
/// The least bytes a second that a body comes at, after a start; a large one takes no more than [`LONGEST`] all the same.
const SLOWEST: u64 = 16 << 10;
/// Seconds that a body of whatever size may take after its start, because it keeps others from its room.
const LONGEST: u64 = 90;

/// Where bodies are received.
#[derive(Clone)]
pub(super) struct Receiving {
    small: Room,
    large: Room,
    most: u64,
    idle: Duration,
}

/// Room for bodies, or answers.
#[derive(Clone)]
pub(super) struct Room {
    all: Arc<Semaphore>,
    /// Of each account that sends one: nobody's bodies take all the room.
    by_account: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
    /// Granules of an account.
    own: usize,
}

/// A body, and the room that it takes.
pub(super) struct Received {
    pub bytes: Bytes,
    _taken: Option<Taken>,
}

/// Room that is taken: of the account's own, and of all.
pub(super) struct Taken {
    is_small: bool,
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Room {
    /// Room for so many bytes, of which an account may take so many; of the largest body always one.
    pub fn new(bytes: u64, largest: u64) -> Room {
        let granules = |bytes: u64| {
            let granules = bytes.div_ceil(GRANULE).max(1);
            usize::try_from(granules).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
        };
        let all = Arc::new(Semaphore::new(granules(bytes)));
        Room { all, by_account: Arc::default(), own: granules((bytes / PARTS).max(largest)) }
    }

    /// Room for so many bytes, at most an account's whole part, if it is free now.
    pub fn take_now(&self, account: &str, bytes: u64) -> Option<Taken> {
        let needed = usize::try_from(bytes.div_ceil(GRANULE)).unwrap_or(usize::MAX).min(self.own) as u32;
        let own = self.of(account).try_acquire_many_owned(needed).ok()?;
        let all = self.all.clone().try_acquire_many_owned(needed).ok()?;
        Some(Taken { is_small: false, own, all })
    }

    /// The room of an account.
    fn of(&self, account: &str) -> Arc<Semaphore> {
        let mut accounts = self.by_account.lock().unwrap_or_else(PoisonError::into_inner);
        // Who holds some of it holds it too: one that nobody but this holds is of no use.
        accounts.retain(|_, own| Arc::strong_count(own) > 1);
        let fresh = || Arc::new(Semaphore::new(self.own));
        accounts.entry(account.to_owned()).or_insert_with(fresh).clone()
    }
}

impl Receiving {
    pub fn new(config: &Config) -> Receiving {
        let admission = &config.admission;
        Receiving {
            small: Room::new(SMALL_ROOM, SMALL),
            large: Room::new(admission.receiving_bytes, admission.request_bytes),
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
        let mut taken: Option<Taken> = None;
        let account = &caller.account.name;
        // What is announced gets its room at once, so that no two bodies that are half there wait for one another.
        let announced = announced.unwrap_or(0);
        self.make_room(account, &mut taken, announced).await?;
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
            if started.elapsed() > self.patience(size, announced) {
                return Err(slow());
            }
            self.make_room(account, &mut taken, size.max(announced)).await?;
            bytes.extend_from_slice(&data);
        }
        Ok(Received { bytes: bytes.freeze(), _taken: taken })
    }

    /// How long so much of a body may take to come, of which so much is announced.
    fn patience(&self, size: u64, announced: u64) -> Duration {
        let rate = (size.max(announced) / LONGEST).max(SLOWEST);
        self.idle + Duration::from_secs(size / rate)
    }

    /// Takes what is missing of the room for a body of so many bytes. One that was small, and is not any more, takes all of it anew.
    async fn make_room(&self, account: &str, taken: &mut Option<Taken>, size: u64) -> Result<(), Refusal> {
        let is_small = size <= SMALL;
        let room = if is_small { &self.small } else { &self.large };
        let needed = size.div_ceil(GRANULE) as usize;
        let before = taken.as_ref().filter(|taken| taken.is_small == is_small);
        let held = before.map_or(0, |taken| taken.all.num_permits());
        let Some(more) = needed.checked_sub(held).filter(|&more| more > 0) else { return Ok(()) };
        let full =
            || Refusal::later(ProblemKind::QueueFull, "Too many bodies are being received at once.", 5.0);
        let both = async {
            // Who waits for its own room takes none of the others'.
            let own = room.of(account).acquire_many_owned(more as u32).await?;
            let all = room.all.clone().acquire_many_owned(more as u32).await?;
            Ok::<Taken, AcquireError>(Taken { is_small, own, all })
        };
        let more = tokio::time::timeout(self.idle, both).await;
        let more = more.map_err(|_| full())?.map_err(|_| full())?;
        match taken {
            Some(taken) if taken.is_small == is_small => {
                taken.own.merge(more.own);
                taken.all.merge(more.all);
            }
            _ => *taken = Some(more),
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

    /// A large body.
    const LARGE: u64 = 2 * SMALL;

    /// Where so many large bodies find room.
    fn receiving(bodies: u64) -> Receiving {
        let mut config = Config::default();
        config.admission.receiving_bytes = bodies * LARGE;
        config.admission.request_bytes = LARGE;
        config.server.idle_seconds = 0.05;
        Receiving::new(&config)
    }

    /// Takes room for bodies of an account until there is none.
    async fn flood(receiving: &Receiving, account: &str, size: u64) -> Vec<Taken> {
        let mut held = Vec::new();
        loop {
            let mut taken = None;
            if receiving.make_room(account, &mut taken, size).await.is_err() {
                return held;
            }
            held.extend(taken);
        }
    }

    #[tokio::test]
    async fn one_accounts_bodies_leave_room_for_anothers() {
        let receiving = receiving(8);
        let mut held = flood(&receiving, "flood", LARGE).await;
        assert_eq!(held.len(), 2);
        let mut taken = None;
        assert!(receiving.make_room("other", &mut taken, LARGE).await.is_ok());
        // As it grows; and what is over is given back, and forgotten.
        assert!(receiving.make_room("other", &mut taken, 2 * LARGE).await.is_ok());
        held.clear();
        assert!(receiving.make_room("flood", &mut None, LARGE).await.is_ok());
        drop(taken);
        receiving.large.of("third");
        let accounts = receiving.large.by_account.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(accounts.len(), 1);
    }

    #[tokio::test]
    async fn small_bodies_do_not_wait_for_large_ones() {
        let receiving = receiving(8);
        let mut held = Vec::new();
        for account in ["a", "b", "c", "d"] {
            held.extend(flood(&receiving, account, LARGE).await);
        }
        assert_eq!(held.len(), 8);
        let (mut own, mut other) = (None, None);
        assert!(receiving.make_room("a", &mut own, SMALL).await.is_ok());
        assert!(receiving.make_room("e", &mut other, 300).await.is_ok());
        // One that grows large waits as a large one does, and then takes nothing of the small ones' room.
        assert!(receiving.make_room("e", &mut other, SMALL + 1).await.is_err());
        held.clear();
        drop(own);
        assert!(receiving.make_room("e", &mut other, SMALL + 1).await.is_ok());
        assert_eq!(receiving.small.all.available_permits() as u64, SMALL_ROOM / GRANULE);
    }

    #[test]
    fn a_large_body_comes_the_faster_the_larger_it_is() {
        let receiving = Receiving::new(&Config::default());
        let patience = |size: u64, announced: u64| receiving.patience(size, announced) - receiving.idle;
        assert!(patience(64 << 20, 64 << 20) <= Duration::from_secs(LONGEST));
        // It is known to be too slow long before that; also one that announces nothing has no longer.
        assert!(patience(1 << 20, 64 << 20) < Duration::from_secs(2));
        assert!(patience(64 << 20, 0) <= Duration::from_secs(LONGEST));
        assert_eq!(patience(1 << 20, 1 << 20), Duration::from_secs(64));
    }
}
