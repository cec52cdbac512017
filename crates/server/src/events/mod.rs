//! What happens to jobs, for those who watch: numbered, to be taken up again.
//!
//! [`Hub`] is the seam between whoever runs jobs and whoever tells of them. Here both are one process, and [`LocalHub`] keeps what
//! happens in memory; where they are several, a stream of messages for each job does (NATS JetStream: numbered, bounded, replayed from a
//! number on). Nothing that must not be lost is here: that is in the store.

mod local;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pellucid_client::api::{Event, Job, RunProgress};

pub use local::LocalHub;

/// An event, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// Its number; none: it need not be taken up again.
    pub id: Option<u64>,
    /// Its name.
    pub name: &'static str,
    /// Its content as JSON.
    pub data: String,
    /// Whether it is the last.
    pub last: bool,
}

/// Where what happens to each job is told.
pub trait Hub: Send + Sync {
    /// Opens the channel of a job that has begun so many attempts. `bytes` bounds what is kept of it.
    fn open(&self, job: &str, attempts: u32, bytes: usize) -> Arc<dyn Channel>;
    /// The channel of a job, if it is open or ended lately.
    fn get(&self, job: &str) -> Option<Arc<dyn Channel>>;
    /// Closes the channel of a job that was not kept after all, or is erased.
    fn forget(&self, job: &str);
    /// Tells that a job has ended: nothing more will happen to it. Who waits for its result finds the bytes here, if they are given.
    /// Whether nobody had told it before.
    fn end(&self, job: Job, result: Option<Bytes>) -> bool;
    /// The service ends: whoever waits for a job, or follows one, waits no longer.
    fn close(&self);
}

/// What happens to one job.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Tells an event. The oldest are forgotten where there are too many.
    fn push(&self, event: &Event);
    /// A run begins: what came of an earlier attempt counts no more.
    fn begin(&self, attempt: u32);
    /// How far the run is. Only the latest is kept.
    fn progress(&self, progress: RunProgress);
    /// How far the run is.
    fn latest_progress(&self) -> Option<RunProgress>;
    /// The job as it ended, if it has.
    fn done(&self) -> Option<Arc<Job>>;
    /// The result of the job that has ended, if it is here: once, to who waited for it.
    fn take_result(&self) -> Option<Bytes>;
    /// Waits until the job has ended, is there no more, or does not end before the service does; or for so long.
    async fn ended(&self, within: Duration) -> Option<Arc<Job>>;
    /// Follows what happens from after an event on.
    fn follow(self: Arc<Self>, after: Option<u64>) -> Box<dyn Follower>;
}

/// Someone who follows a job.
#[async_trait]
pub trait Follower: Send {
    /// What happened since the last call, after waiting for at most so long. Empty: nothing did.
    async fn next(&mut self, within: Duration) -> Vec<Sent>;
    /// Whether nothing more is told: there is no such job any more, or the service ends.
    fn is_gone(&self) -> bool;
    /// Waits for so long, but not beyond the job's end.
    async fn rest(&self, time: Duration);
    /// The job's end, once it has ended: it is told again to whoever asks for what comes after it.
    fn end(&self) -> Option<Sent>;
}
