//! Answers that are held in memory until their readers have taken them: bounded all together, and of each account.

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use pellucid_client::api::ProblemKind;
use serde::Serialize;

use super::answer::{self, Refusal};
use super::body::{Room, Taken};
use crate::service::Caller;

/// Bytes of all answers together that lie ready.
const READY: u64 = 256 << 20;
/// Bytes of an answer up to which it takes no room: of these there are no more than connections.
const SMALL: usize = 64 << 10;

/// Room for answers.
#[derive(Clone)]
pub(super) struct Answering(Room);

/// An answer, with the room that it takes.
struct Kept {
    bytes: Vec<u8>,
    _taken: Taken,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Answering {
    pub fn new() -> Answering {
        Answering(Room::new(READY, 0))
    }

    /// A value as JSON, for an account that takes the answers that it asks for.
    ///
    /// # Errors
    /// Where too many lie ready that nobody takes.
    pub fn json<T: Serialize>(
        &self,
        caller: &Caller,
        status: StatusCode,
        value: &T,
    ) -> Result<Response, Refusal> {
        let bytes = serde_json::to_vec(value).map_err(|error| {
            tracing::error!(%error, "an answer cannot be written as JSON");
            Refusal::of(ProblemKind::Internal, "The answer cannot be written.")
        })?;
        let bytes = if bytes.len() <= SMALL { bytes.into() } else { self.kept(&caller.account.name, bytes)? };
        Ok(answer::json_of(status, bytes))
    }

    /// Bytes that keep their room as long as they are there.
    fn kept(&self, account: &str, bytes: Vec<u8>) -> Result<Bytes, Refusal> {
        match self.0.take_now(account, bytes.len() as u64) {
            Some(taken) => Ok(Bytes::from_owner(Kept { bytes, _taken: taken })),
            None => {
                let message = "Too many large answers lie ready, and are not taken, or only slowly: read those that were asked for.";
                Err(Refusal::later(ProblemKind::QueueFull, message, 5.0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_take_room_until_they_are_taken_and_of_one_account_only_a_part() {
        let answering = Answering::new();
        let answer = || vec![b' '; 8 << 20];
        let mut flood = Vec::new();
        while let Ok(bytes) = answering.kept("flood", answer()) {
            flood.push(bytes);
        }
        assert_eq!(flood.len(), 8, "a quarter of all");
        assert!(answering.kept("other", answer()).is_ok());
        // A part that is still to be sent keeps all of it.
        let part = flood.pop().map(|bytes| bytes.slice(1..2));
        assert!(answering.kept("flood", answer()).is_err());
        drop(part);
        assert!(answering.kept("flood", answer()).is_ok());
        // One that is larger than an account's part is answered where nothing else is.
        drop(flood);
        assert!(answering.kept("flood", vec![b' '; 65 << 20]).is_ok());
    }
}
