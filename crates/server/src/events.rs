//! What happens to jobs, for those who watch: kept in memory, bounded, numbered, to be taken up again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pellucid_client::api::{Event, Gap, Job, RunProgress, Started};
use tokio::sync::watch;

/// How long the events of a job that has ended can still be had.
const AFTERWARDS: Duration = Duration::from_secs(600);
/// Jobs that have ended whose events are kept, at most, and the bytes of these.
const ENDED: usize = 10_000;
const ENDED_BYTES: usize = 64 << 20;

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
#[derive(Default)]
pub struct Hub {
    channels: Mutex<Channels>,
}

#[derive(Default)]
struct Channels {
    open: HashMap<String, Arc<Channel>>,
    /// When, which, and the bytes of its events.
    ended: VecDeque<(Instant, String, usize)>,
    ended_bytes: usize,
    /// The service ends: nothing more is told.
    closed: bool,
}

impl Hub {
    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the channel of a job that has begun so many attempts. `bytes` bounds what is kept of it.
    pub fn open(&self, job: &str, attempts: u32, bytes: usize) -> Arc<Channel> {
        let channel = Arc::new(Channel::new(attempts, bytes));
        let mut channels = self.channels();
        if channels.closed {
            channel.leave();
        }
        channels.open.insert(job.to_owned(), channel.clone());
        channel
    }

    /// The channel of a job, if it is open or ended lately.
    pub fn get(&self, job: &str) -> Option<Arc<Channel>> {
        self.channels().open.get(job).cloned()
    }

    /// Closes the channel of a job that was not kept after all, or is erased.
    pub fn drop(&self, job: &str) {
        let channel = self.channels().open.remove(job);
        if let Some(channel) = channel {
            channel.leave();
        }
    }

    /// The service ends: whoever waits for a job, or follows one, waits no longer.
    pub fn close(&self) {
        let mut channels = self.channels();
        channels.closed = true;
        channels.open.values().for_each(|channel| channel.leave());
    }

    /// Tells that a job has ended: nothing more will happen to it. Who waits for its result finds the bytes here, if they are given.
    pub fn end(&self, job: Job, result: Option<Bytes>) {
        let mut channels = self.channels();
        // An end is told once, whoever finds it.
        if let Some(channel) = channels.open.get(&job.id).filter(|channel| channel.done().is_none()) {
            let kept = result.filter(|_| channel.over.receiver_count() > 0);
            let bytes = kept.as_ref().map_or(0, Bytes::len);
            channel.state().result = kept;
            channels_end(channel, &job);
            let bytes = bytes + channel.state().bytes;
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
    }
}

fn channels_end(channel: &Channel, job: &Job) {
    channel.state().done = Some(Arc::new(job.clone()));
    channel.push(&Event::Done(Box::new(job.clone())));
    channel.over.send_replace(true);
}

/// What happens to one job.
pub struct Channel {
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

impl Channel {
    fn new(attempts: u32, bound: usize) -> Channel {
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
        Channel { state: Mutex::new(state), changed: watch::Sender::new(0), over: watch::Sender::new(false) }
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

    /// Tells an event. The oldest are forgotten where there are too many.
    pub fn push(&self, event: &Event) {
        let Ok(data) = event.data() else { return };
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

    /// A run begins: what came of an earlier attempt counts no more.
    pub fn begin(&self, attempt: u32) {
        {
            let mut state = self.state();
            state.next = state.next.max(first(attempt));
            state.events.clear();
            state.bytes = 0;
        }
        self.push(&Event::Running(Started { attempt }));
    }

    /// How far the run is. Only the latest is kept.
    pub fn progress(&self, progress: RunProgress) {
        self.state().progress = Some(progress);
        self.changed.send_modify(|version| *version += 1);
    }

    /// How far the run is.
    pub fn latest_progress(&self) -> Option<RunProgress> {
        self.state().progress
    }

    /// The job as it ended, if it has.
    pub fn done(&self) -> Option<Arc<Job>> {
        self.state().done.clone()
    }

    /// The result of the job that has ended, if it is here: once, to who waited for it.
    pub fn take_result(&self) -> Option<Bytes> {
        self.state().result.take()
    }

    /// Whether nothing more is told: there is no such job any more, or the service ends.
    pub fn is_gone(&self) -> bool {
        self.state().gone
    }

    /// Waits until the job has ended, is there no more, or does not end before the service does; or for so long.
    pub async fn ended(&self, within: Duration) -> Option<Arc<Job>> {
        let mut over = self.over.subscribe();
        let _ = tokio::time::timeout(within, over.wait_for(|over| *over)).await;
        self.done()
    }

    /// Follows what happens from after an event on.
    pub fn follow(self: &Arc<Self>, after: Option<u64>) -> Follower {
        let mut changed = self.changed.subscribe();
        changed.mark_changed();
        Follower { channel: self.clone(), changed, after, shown: None }
    }
}

/// The number before the first event of an attempt.
fn first(attempt: u32) -> u64 {
    u64::from(attempt) << 32 | 1
}

/// Someone who follows.
pub struct Follower {
    channel: Arc<Channel>,
    changed: watch::Receiver<u64>,
    after: Option<u64>,
    shown: Option<RunProgress>,
}

impl Follower {
    /// What happened since the last call, after waiting for at most so long. Empty: nothing did.
    pub async fn next(&mut self, within: Duration) -> Vec<Sent> {
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
}

impl Follower {
    /// Whether nothing more is told: there is no such job any more, or the service ends.
    pub fn is_gone(&self) -> bool {
        self.channel.is_gone()
    }

    /// Waits for so long, but not beyond the job's end.
    pub async fn rest(&self, time: Duration) {
        if !time.is_zero() {
            self.channel.ended(time).await;
        }
    }

    /// The job's end, once it has ended: it is told again to whoever asks for what comes after it.
    pub fn end(&self) -> Option<Sent> {
        self.channel.state().events.back().filter(|event| event.last).cloned()
    }
}

fn attempt_of(id: u64) -> u32 {
    (id >> 32) as u32
}

#[cfg(test)]
mod tests {
    use pellucid_client::api::Token;

    use super::*;

    fn token(step: u64) -> Event {
        Event::Token(Token { invoke: 0, prompt: 0, step, token: 7, text: "x".into() })
    }

    async fn ids(follower: &mut Follower) -> Vec<(Option<u64>, &'static str)> {
        follower.next(Duration::ZERO).await.into_iter().map(|event| (event.id, event.name)).collect()
    }

    const FIRST: u64 = 1 << 32 | 1;

    #[tokio::test]
    async fn events_are_numbered_and_taken_up_again() {
        let hub = Hub::default();
        let channel = hub.open("job", 0, 1000);
        channel.begin(1);
        channel.push(&token(0));
        let mut follower = channel.follow(None);
        assert_eq!(ids(&mut follower).await, [(Some(FIRST), "running"), (Some(FIRST + 1), "token")]);
        assert_eq!(ids(&mut follower).await, []);
        channel.push(&token(1));
        assert_eq!(ids(&mut follower).await, [(Some(FIRST + 2), "token")]);
        assert_eq!(ids(&mut channel.follow(Some(FIRST + 1))).await, [(Some(FIRST + 2), "token")]);
        // A second attempt begins anew, and its numbers are greater.
        channel.begin(2);
        assert_eq!(ids(&mut follower).await, [(Some((2 << 32) + 1), "running")]);
    }

    #[tokio::test]
    async fn what_was_forgotten_is_told() {
        let channel = Hub::default().open("job", 1, 200);
        channel.begin(1);
        (0..100).for_each(|step| channel.push(&token(step)));
        let events = ids(&mut channel.follow(None)).await;
        assert_eq!(events[0], (None, "gap"));
        assert!(events.len() < 6, "{events:?}");
        assert_eq!(events.last(), Some(&(Some(FIRST + 100), "token")));
        assert_eq!(ids(&mut channel.follow(Some(FIRST + 99))).await, [(Some(FIRST + 100), "token")]);
    }

    #[tokio::test]
    async fn who_waits_for_a_job_that_is_erased_waits_no_longer() {
        let hub = Hub::default();
        let channel = hub.open("job", 1, 1000);
        let waits = {
            let channel = channel.clone();
            tokio::spawn(async move { channel.ended(Duration::from_secs(600)).await })
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        hub.drop("job");
        let ended = tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap().unwrap();
        assert!(ended.is_none() && channel.follow(None).is_gone());
    }

    #[tokio::test]
    async fn where_the_service_ends_nobody_waits_and_what_happened_is_told() {
        let hub = Hub::default();
        let before = hub.open("before", 1, 1000);
        before.begin(1);
        hub.close();
        for channel in [before.clone(), hub.open("after", 0, 1000)] {
            let ended = channel.ended(Duration::from_secs(600));
            let ended = tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
            assert!(ended.is_none() && channel.follow(None).is_gone());
        }
        assert_eq!(ids(&mut before.follow(None)).await, [(Some(FIRST), "running")]);
    }

    #[test]
    fn what_ended_is_forgotten_in_time() {
        let hub = Hub::default();
        let text = "x".repeat(1 << 20);
        for number in 0..100 {
            let job = Job { id: number.to_string(), label: Some(text.clone()), ..job() };
            hub.open(&job.id, 1, usize::MAX);
            hub.end(job, None);
        }
        assert!(hub.get("99").is_some_and(|channel| channel.done().is_some()));
        let events = hub.get("99").unwrap().state().events.len();
        hub.end(Job { id: "99".into(), ..job() }, None);
        assert_eq!(hub.get("99").unwrap().state().events.len(), events, "its end is told twice");
        assert!(hub.get("0").is_none());
        let channels = hub.channels();
        assert!(channels.ended_bytes <= ENDED_BYTES && channels.open.len() < 65);
    }

    fn job() -> Job {
        let text = r#"{"id":"","model":"m","state":"succeeded","priority":"normal","created_at":"","attempts":1,
            "price":{"milliseconds":0.0,"flops":0,"tokens":0,"peak_bytes":0,"result_bytes":0}}"#;
        serde_json::from_str(text).unwrap()
    }

    #[tokio::test]
    async fn a_result_is_here_for_who_waits_and_for_nobody_else() {
        let hub = Hub::default();
        let result = || Some(Bytes::from_static(b"result"));
        let nobody = hub.open("nobody", 1, 1000);
        hub.end(Job { id: "nobody".into(), ..job() }, result());
        assert!(nobody.done().is_some() && nobody.take_result().is_none());
        let waited = hub.open("waited", 1, 1000);
        let mut waits = std::pin::pin!(waited.ended(Duration::from_secs(60)));
        assert!(futures_util::poll!(&mut waits).is_pending());
        hub.end(Job { id: "waited".into(), ..job() }, result());
        assert!(waits.await.is_some());
        assert_eq!((waited.take_result(), waited.take_result()), (result(), None));
    }

    #[tokio::test]
    async fn only_the_latest_progress_is_shown() {
        let channel = Hub::default().open("job", 1, 200);
        let mut follower = channel.follow(None);
        channel.progress(RunProgress { passes: 1, part: 0.1, ..RunProgress::default() });
        channel.progress(RunProgress { passes: 1, part: 0.2, ..RunProgress::default() });
        let events = follower.next(Duration::ZERO).await;
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].id, events[0].data.as_str()), (None, r#"{"passes":1,"part":0.2}"#));
        assert_eq!(follower.next(Duration::ZERO).await, []);
    }
}
