//! What every [`Hub`] promises.

use std::pin::pin;

use pellucid_client::api::Token;

use super::local::LocalHub;
use super::*;

/// What every implementation is held to.
fn hub() -> Arc<dyn Hub> {
    Arc::new(LocalHub::default())
}

fn token(step: u64) -> Event {
    Event::Token(Token { invoke: 0, prompt: 0, step, token: 7, text: "x".into() })
}

async fn ids(follower: &mut Box<dyn Follower>) -> Vec<(Option<u64>, &'static str)> {
    follower.next(Duration::ZERO).await.into_iter().map(|event| (event.id, event.name)).collect()
}

const FIRST: u64 = 1 << 32 | 1;

#[tokio::test]
async fn events_are_numbered_and_taken_up_again() {
    let hub = hub();
    let channel = hub.open("job", 0, 1000);
    channel.begin(1);
    channel.push(&token(0));
    let mut follower = channel.clone().follow(None);
    assert_eq!(ids(&mut follower).await, [(Some(FIRST), "running"), (Some(FIRST + 1), "token")]);
    assert_eq!(ids(&mut follower).await, []);
    channel.push(&token(1));
    assert_eq!(ids(&mut follower).await, [(Some(FIRST + 2), "token")]);
    assert_eq!(ids(&mut channel.clone().follow(Some(FIRST + 1))).await, [(Some(FIRST + 2), "token")]);
    // A second attempt begins anew, and its numbers are greater.
    channel.begin(2);
    assert_eq!(ids(&mut follower).await, [(Some((2 << 32) + 1), "running")]);
}

#[tokio::test]
async fn what_was_forgotten_is_told() {
    let channel = hub().open("job", 1, 200);
    channel.begin(1);
    (0..100).for_each(|step| channel.push(&token(step)));
    let events = ids(&mut channel.clone().follow(None)).await;
    assert_eq!(events[0], (None, "gap"));
    assert!(events.len() < 6, "{events:?}");
    assert_eq!(events.last(), Some(&(Some(FIRST + 100), "token")));
    assert_eq!(ids(&mut channel.clone().follow(Some(FIRST + 99))).await, [(Some(FIRST + 100), "token")]);
}

#[tokio::test]
async fn who_waits_for_a_job_that_is_erased_waits_no_longer() {
    let hub = hub();
    let channel = hub.open("job", 1, 1000);
    let waits = {
        let channel = channel.clone();
        tokio::spawn(async move { channel.ended(Duration::from_secs(600)).await })
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    hub.forget("job");
    let ended = tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap().unwrap();
    assert!(ended.is_none() && channel.clone().follow(None).is_gone());
}

#[tokio::test]
async fn where_the_service_ends_nobody_waits_and_what_happened_is_told() {
    let hub = hub();
    let before = hub.open("before", 1, 1000);
    before.begin(1);
    hub.close();
    for channel in [before.clone(), hub.open("after", 0, 1000)] {
        let ended = channel.ended(Duration::from_secs(600));
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
        assert!(ended.is_none() && channel.clone().follow(None).is_gone());
    }
    assert_eq!(ids(&mut before.clone().follow(None)).await, [(Some(FIRST), "running")]);
}

pub(super) fn job() -> Job {
    let text = r#"{"id":"","model":"m","state":"succeeded","priority":"normal","created_at":"","attempts":1,
        "price":{"milliseconds":0.0,"flops":0,"tokens":0,"peak_bytes":0,"result_bytes":0}}"#;
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_result_is_here_for_who_waits_and_for_nobody_else() {
    let hub = hub();
    let result = || Some(Bytes::from_static(b"result"));
    let nobody = hub.open("nobody", 1, 1000);
    hub.end(Job { id: "nobody".into(), ..job() }, result());
    assert!(nobody.done().is_some() && nobody.take_result().is_none());
    let waited = hub.open("waited", 1, 1000);
    let mut waits = pin!(waited.ended(Duration::from_secs(60)));
    assert!(futures_util::poll!(&mut waits).is_pending());
    hub.end(Job { id: "waited".into(), ..job() }, result());
    assert!(waits.await.is_some());
    assert_eq!((waited.take_result(), waited.take_result()), (result(), None));
}

#[tokio::test]
async fn only_the_latest_progress_is_shown() {
    let channel = hub().open("job", 1, 200);
    let mut follower = channel.clone().follow(None);
    channel.progress(RunProgress { passes: 1, part: 0.1, ..RunProgress::default() });
    channel.progress(RunProgress { passes: 1, part: 0.2, ..RunProgress::default() });
    let events = follower.next(Duration::ZERO).await;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].id, events[0].data.as_str()), (None, r#"{"passes":1,"part":0.2}"#));
    assert_eq!(follower.next(Duration::ZERO).await, []);
}
