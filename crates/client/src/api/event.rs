//! What happens to a job, as it happens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Job, Number, QueuePlace, RunProgress, Saved};

/// Something that happened to a job: a server-sent event, its name in the field `event`, its content as JSON on one line in `data`.
/// Ids grow; who comes back with the last one in `Last-Event-ID` gets what came after it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `queued`: it waits; at first, and whenever its place changes.
    Queued(QueuePlace),
    /// `running`: its run begins. What came of an earlier attempt counts no more.
    Running(Started),
    /// `progress`: its run goes on.
    Progress(RunProgress),
    /// `log`: a logged value.
    Log(Log),
    /// `token`: a generated token.
    Token(Token),
    /// `value`: a saved value, before the whole result is there.
    Value(Saved),
    /// `gap`: events were left out, because there were more than are kept.
    Gap(Gap),
    /// `done`: it has ended, as its state says. Nothing comes after it.
    Done(Box<Job>),
}

impl Event {
    /// Its name: the field `event`.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Queued(_) => "queued",
            Event::Running(_) => "running",
            Event::Progress(_) => "progress",
            Event::Log(_) => "log",
            Event::Token(_) => "token",
            Event::Value(_) => "value",
            Event::Gap(_) => "gap",
            Event::Done(_) => "done",
        }
    }

    /// Its content: the field `data`.
    ///
    /// # Errors
    /// Only where a number is none that JSON has.
    pub fn data(&self) -> serde_json::Result<String> {
        match self {
            Event::Queued(place) => serde_json::to_string(place),
            Event::Running(started) => serde_json::to_string(started),
            Event::Progress(progress) => serde_json::to_string(progress),
            Event::Log(log) => serde_json::to_string(log),
            Event::Token(token) => serde_json::to_string(token),
            Event::Value(saved) => serde_json::to_string(saved),
            Event::Gap(gap) => serde_json::to_string(gap),
            Event::Done(job) => serde_json::to_string(job),
        }
    }

    /// The event of that name and content; none where the name is not known, as that of a newer server's event.
    ///
    /// # Errors
    /// Where the content is not that of such an event.
    pub fn parse(name: &str, data: &str) -> serde_json::Result<Option<Event>> {
        Ok(Some(match name {
            "queued" => Event::Queued(serde_json::from_str(data)?),
            "running" => Event::Running(serde_json::from_str(data)?),
            "progress" => Event::Progress(serde_json::from_str(data)?),
            "log" => Event::Log(serde_json::from_str(data)?),
            "token" => Event::Token(serde_json::from_str(data)?),
            "value" => Event::Value(serde_json::from_str(data)?),
            "gap" => Event::Gap(serde_json::from_str(data)?),
            "done" => Event::Done(serde_json::from_str(data)?),
            _ => return Ok(None),
        }))
    }
}

/// The beginning of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// Which attempt, from 1: above it, the service was interrupted.
    pub attempt: u32,
}

/// A logged value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Log {
    /// The `print` node's name.
    pub name: String,
    /// The cell of the sweeps and the iteration of the loops that it stands in, from the outermost axis to the innermost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coordinates: Vec<u64>,
    /// The step of a generation, inside `steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// Its number type.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its first elements, row by row.
    pub values: Vec<Number>,
    /// Whether it has more elements than these.
    pub truncated: bool,
}

/// A generated token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// The invoke's number in its trace.
    pub invoke: u64,
    /// The prompt's number within the invoke.
    pub prompt: u64,
    /// The step.
    pub step: u64,
    /// The token's id.
    pub token: u32,
    /// What it adds to the text: nothing, where a character is not complete, or there is no tokenizer.
    pub text: String,
}

/// Events that were left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// How many.
    pub missed: u64,
}

/// The query of a job's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Only events after the one of this id; the header `Last-Event-ID` goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event_id: Option<u64>,
}
