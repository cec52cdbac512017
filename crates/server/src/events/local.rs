//! What happens to jobs, where one process takes and runs them: kept in memory, bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use pellucid_client::api::{Event, Gap, Job, RunProgress, Started};
use tokio::sync::watch;

use super::{Channel, Follower, Hub, Sent};

/// How long the events of a job that has ended can still be had.
const AFTERWARDS: Duration = Duration::from_secs(600);
/// Jobs that have ended whose events are kept, at most, and the bytes of these.
const ENDED: usize = 10_000;
const ENDED_BYTES: usize = 64 << 20;
/// Of a job itself, its end and who may follow it, about.
const CHANNEL_BYTES: usize = 2 << 10;

/// The channels of this process's jobs.
#[derive(Default)]
pub struct LocalHub {
    channels: Mutex<Channels>,
}

#[derive(Default)]
struct Channels {
    open: HashMap<String, Arc<LocalChannel>>,
    /// When, which, and the bytes of its events.
    ended: VecDeque<(Instant, String, usize)>,
    ended_bytes: usize,
    /// The service ends: nothing more is told.
    closed: bool,
}

impl LocalHub {
    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub for LocalHub {
    fn open(&self, job: &str, attempts: u32, bytes: usize) -> Arc<dyn Channel> {
        let channel = Arc::new(LocalChannel::new(attempts, bytes));
        let mut channels = self.channels();
        if channels.closed {
            channel.leave();
        }
        channels.open.insert(job.to_owned(), channel.clone());
        channel
    }

    fn get(&self, job: &str) -> Option<Arc<dyn Channel>> {
        let channel = self.channels().open.get(job).cloned();
        channel.map(|channel| channel as Arc<dyn Channel>)
    }

    fn forget(&self, job: &str) {
        let channel = self.channels().open.remove(job);
        if let Some(channel) = channel {
            channel.leave();
        }
    }

    fn close(&self) {
        let mut channels = self.channels();
        channels.closed = true;
        channels.open.values().for_each(|channel| channel.leave());
    }

    fn end(&self, job: Job, result: Option<Bytes>) -> bool {
        let mut channels = self.channels();
        let channel = channels.open.get(&job.id);
        // An end is told once, whoever finds it; where there is no channel nobody had a way to.
        let is_first = channel.is_none_or(|channel| channel.done().is_none());
        if let Some(channel) = channel.filter(|_| is_first) {
            let kept = result.filter(|_| channel.over.receiver_count() > 0);
            let bytes = kept.as_ref().map_or(0, Bytes::len);
            channel.state().result = kept;
            channels_end(channel, &job);
            let bytes = bytes + channel.state().held();
            channels.ended_bytes += bytes;
            channels.ended.push_back((Instant::now(), job.id, bytes));
        }
        // Who still follows one that is forgotten holds it.
        while channels.ended.len() > ENDED
            || (channels.ended_bytes > ENDED_BYTES && channels.ended.len() > 1)
            || channels.ended.front().is_some_and(|(at, ..)| at.elapsed() > AFTERWARDS)
        {
            if let Some((_, job, bytes)) = channels.ended.pop_front() {
                channels.open.remove(&job);
                channels.ended_bytes -= bytes;
            }
        }
        is_first
    }
}

fn channels_end(channel: &LocalChannel, job: &Job) {
    channel.state().done = Some(Arc::new(job.clone()));
    channel.push(&Event::Done(Box::new(job.clone())));
    channel.over.send_replace(true);
}

/// What happens to one job of this process.
struct LocalChannel {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// Whether it has ended, or is gone. Who waits for nothing else is not woken at every layer of a pass.
    over: watch::Sender<bool>,
}

struct State {
    /// The number of the next event.
    next: u64,
    events: VecDeque<Sent>,
    /// Of the events that are kept.
    bytes: usize,
    bound: usize,
    progress: Option<RunProgress>,
    done: Option<Arc<Job>>,
    /// Its result, until it is taken.
    result: Option<Bytes>,
    /// Nothing more is told: there is no such job any more, or the service ends.
    gone: bool,
}

impl State {
    /// Bytes of memory that its events take, once no more come: of small ones the text is the least.
    fn held(&mut self) -> usize {
        self.events.shrink_to_fit();
        CHANNEL_BYTES + self.bytes + self.events.len() * size_of::<Sent>()
    }
}

impl LocalChannel {
    fn new(attempts: u32, bound: usize) -> LocalChannel {
        let state = State {
            next: first(attempts),
            events: VecDeque::new(),
            bytes: 0,
            bound,
            progress: None,
            done: None,
            result: None,
            gone: false,
        };
        LocalChannel {
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            over: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever follows it waits for nothing any more.
    fn leave(&self) {
        self.state().gone = true;
        self.changed.send_modify(|version| *version += 1);
        self.over.send_replace(true);
    }
}

#[async_trait]
impl Channel for LocalChannel {
    fn push(&self, event: &Event) {
        let Ok(mut data) = event.data() else { return };
        // Most are far smaller than what they were written into.
        data.shrink_to_fit();
        let last = matches!(event, Event::Done(_));
        {
            let mut state = self.state();
            let id = Some(state.next);
            state.next += 1;
            state.bytes += data.len();
            state.events.push_back(Sent { id, name: event.name(), data, last });
            while state.bytes > state.bound && state.events.len() > 1 {
                if let Some(oldest) = state.events.pop_front() {
                    state.bytes -= oldest.data.len();
                }
            }
        }
        self.changed.send_modify(|version| *version += 1);
    }

    fn begin(&self, attempt: u32) {
        {
            let mut state = self.state();
            state.next = state.next.max(first(attempt));
            state.events.clear();
            state.bytes = 0;
        }
        self.push(&Event::Running(Started { attempt }));
    }

    fn progress(&self, progress: RunProgress) {
        self.state().progress = Some(progress);
        self.changed.send_modify(|version| *version += 1);
    }

    fn latest_progress(&self) -> Option<RunProgress> {
        self.state().progress
    }

    fn done(&self) -> Option<Arc<Job>> {
        self.state().done.clone()
    }

    fn take_result(&self) -> Option<Bytes> {
        self.state().result.take()
    }

    async fn ended(&self, within: Duration) -> Option<Arc<Job>> {
        let mut over = self.over.subscribe();
        let _ = tokio::time::timeout(within, over.wait_for(|over| *over)).await;
        self.done()
    }

    fn follow(self: Arc<Self>, after: Option<u64>) -> Box<dyn Follower> {
        let mut changed = self.changed.subscribe();
        changed.mark_changed();
        Box::new(LocalFollower { channel: self, changed, after, shown: None })
    }
}

/// The number before the first event of an attempt.
fn first(attempt: u32) -> u64 {
    u64::from(attempt) << 32 | 1
}

struct LocalFollower {
    channel: Arc<LocalChannel>,
    changed: watch::Receiver<u64>,
    after: Option<u64>,
    shown: Option<RunProgress>,
}

#[async_trait]
impl Follower for LocalFollower {
    async fn next(&mut self, within: Duration) -> Vec<Sent> {
        let _ = tokio::time::timeout(within, self.changed.changed()).await;
        let state = self.channel.state();
        let mut found = Vec::new();
        let new = state.events.iter().filter(|event| event.id > self.after);
        let new: Vec<Sent> = new.cloned().collect();
        // Events of an earlier attempt are not missed: they count no more.
        let oldest = state.events.front().and_then(|event| event.id).unwrap_or(state.next);
        let expected = self.after.map_or(first(attempt_of(oldest)), |after| after.saturating_add(1));
        if oldest > expected && attempt_of(oldest) == attempt_of(expected) && !new.is_empty() {
            let missed = oldest - expected;
            if let Ok(data) = (Event::Gap(Gap { missed })).data() {
                found.push(Sent { id: None, name: "gap", data, last: false });
            }
        }
        self.after = new.last().map_or(self.after, |event| event.id);
        let ended = new.last().is_some_and(|event| event.last);
        if !ended && state.done.is_none() && state.progress != self.shown {
            self.shown = state.progress;
            if let Some(Ok(data)) = state.progress.map(|progress| Event::Progress(progress).data()) {
                found.push(Sent { id: None, name: "progress", data, last: false });
            }
        }
        found.extend(new);
        found
    }

    fn is_gone(&self) -> bool {
        self.channel.state().gone
    }

    async fn rest(&self, time: Duration) {
        if !time.is_zero() {
            self.channel.ended(time).await;
        }
    }

    fn end(&self) -> Option<Sent> {
        self.channel.state().events.back().filter(|event| event.last).cloned()
    }
}

fn attempt_of(id: u64) -> u32 {
    (id >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::super::tests::job;
    use super::*;

    #[test]
    fn what_ended_is_forgotten_in_time() {
        let hub = LocalHub::default();
        let text = "x".repeat(1 << 20);
        for number in 0..100 {
            let job = Job { id: number.to_string(), label: Some(text.clone()), ..job() };
            hub.open(&job.id, 1, usize::MAX);
            assert!(hub.end(job, None));
        }
        assert!(hub.get("99").is_some_and(|channel| channel.done().is_some()));
        let events = |hub: &LocalHub| hub.channels().open["99"].state().events.len();
        let before = events(&hub);
        assert!(!hub.end(Job { id: "99".into(), ..job() }, None));
        assert_eq!(events(&hub), before, "its end is told twice");
        assert!(hub.get("0").is_none());
        let channels = hub.channels();
        assert!(channels.ended_bytes <= ENDED_BYTES && channels.open.len() < 65);
    }

    #[test]
    fn many_small_events_count_as_what_they_take() {
        let hub = LocalHub::default();
        const EVENTS: usize = 1000;
        for number in 0..2000 {
            let job = Job { id: number.to_string(), ..job() };
            let channel = hub.open(&job.id, 1, usize::MAX);
            for _ in 0..EVENTS {
                channel.push(&Event::Running(Started { attempt: 1 }));
            }
            hub.end(job, None);
        }
        let most = ENDED_BYTES / (EVENTS * size_of::<Sent>());
        let channels = hub.channels();
        assert!(channels.open.len() <= most, "{} jobs", channels.open.len());
        assert!(channels.open.values().all(|channel| channel.state().events.capacity() <= EVENTS + 1));
    }
}
