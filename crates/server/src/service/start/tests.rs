use pellucid_client::api::{JobState, Price, Priority, Problem, ProblemKind};
use pellucid_engine::{Load, Ticket};

use sqlx::{ConnectOptions, Executor};
use tower::ServiceExt;

use super::*;
use crate::config::Layers;
use crate::schedule::board::Running;
use crate::schedule::house::House;
use crate::service::SubmitOptions;
use crate::store::{Accepted, NewJob, StoredJob};

const PROGRAM: &str = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
    { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "logits", "value": "l" } ] }] }"#;

fn config(data: &Path) -> Config {
    let layers = [
        ("server.data", data.to_str().unwrap()),
        ("server.listen", "127.0.0.1:0"),
        ("server.open", "true"),
        ("server.drain_seconds", "0"),
    ];
    let set = |layers: Layers, (path, text): (&str, &str)| layers.set(path, text).unwrap();
    layers.into_iter().fold(Layers::default(), set).config().unwrap()
}

/// A job that waits in the store of a service.
async fn job(core: &Core, id: &str, deadline_ms: Option<u64>) -> StoredJob {
    let price = Price {
        milliseconds: 1.0,
        flops: 1,
        tokens: 2,
        nodes: 2,
        peak_bytes: 1 << 20,
        kept_bytes: 0,
        recomputed_flops: 0,
        result_bytes: 1 << 20,
    };
    let job = NewJob {
        id: id.to_owned(),
        account: OPEN_ACCOUNT.to_owned(),
        model: crate::config::BUNDLED.to_owned(),
        label: None,
        priority: Priority::Normal,
        submitted_ms: time::now_ms(),
        deadline_ms,
        idempotency_key: None,
        fingerprint: vec![1; 32],
        price,
        stored_bytes: None,
        program: Some(PROGRAM.into()),
    };
    assert!(matches!(core.store.accept(job).await.unwrap(), Accepted::New));
    stored(core, id).await
}

async fn stored(core: &Core, id: &str) -> StoredJob {
    core.store.job(OPEN_ACCOUNT, id).await.unwrap().unwrap()
}

/// Lets a job begin, and never end, whatever it is told. What runs by itself meanwhile is to be drained.
async fn begins_and_stays(core: &Core, job: &StoredJob) {
    let account = core.store.account(OPEN_ACCOUNT).await.unwrap().unwrap();
    let begun = core.store.begin(std::slice::from_ref(&job.id), time::now_ms()).await.unwrap();
    core.board().begin(Running {
        waiting: waiting(job, &account, 1 << 16),
        attempt: begun[0].1,
        cancel: Arc::default(),
        put_back: Arc::default(),
        overflows: Arc::default(),
        alone: false,
        leaving: 0,
        held: core.registry.get(crate::config::BUNDLED).unwrap().hold(),
    });
}

async fn until(core: &Core, id: &str, state: JobState) -> StoredJob {
    for _ in 0..6_000 {
        let job = stored(core, id).await;
        if job.state == state {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", stored(core, id).await)
}

/// Another connection to the store of a service.
async fn beside(data: &Path) -> sqlx::SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(data.join("pellucid.sqlite"));
    options.connect().await.unwrap()
}

/// Waits until something is so; not for ever.
async fn patiently(mut is_so: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never was so")
}

// On one thread, what is spawned begins where something is awaited: after it is told that nothing may begin.
#[tokio::test]
async fn a_job_that_outlasts_two_stops_is_not_poisoned() {
    let data = tempfile::tempdir().unwrap();
    let id = crate::keys::job_id().unwrap();
    for stop in 0..2 {
        let (service, _held) = Service::start(config(data.path())).await.unwrap();
        service.core.drain();
        let job =
            if stop == 0 { job(&service.core, &id, None).await } else { stored(&service.core, &id).await };
        assert_eq!((job.state, job.suspect), (JobState::Queued, false), "stop {stop}");
        begins_and_stays(&service.core, &job).await;
        service.stop().await;
        // What leaves after that changes nothing, and takes nothing along.
        service.core.tell_end(OPEN_ACCOUNT, &id).await;
        assert_eq!(stored(&service.core, &id).await.state, JobState::Queued);
        service.close().await;
    }
    let (service, _held) = Service::start(config(data.path())).await.unwrap();
    let ended = until(&service.core, &id, JobState::Succeeded).await;
    assert_eq!(ended.attempts, 3);
    service.stop().await;
    service.close().await;
}

#[tokio::test]
async fn a_job_that_cannot_be_failed_is_failed_once_the_store_can_be_written() {
    let data = tempfile::tempdir().unwrap();
    let (service, _held) = Service::start(config(data.path())).await.unwrap();
    let core = &service.core;
    core.drain();
    let mut other = beside(data.path()).await;
    other
        .execute(
            "CREATE TRIGGER fails BEFORE UPDATE ON jobs WHEN NEW.state = 'failed'
             BEGIN SELECT RAISE(ABORT, 'the store fails'); END",
        )
        .await
        .unwrap();
    let (id, late) = (crate::keys::job_id().unwrap(), time::now_ms() - 1);
    let job = job(core, &id, Some(late)).await;
    let account = core.store.account(OPEN_ACCOUNT).await.unwrap().unwrap();
    let (model, waiting) = (job.model.clone(), waiting(&job, &account, 1 << 16));
    core.handover.wait(Work { model, waiting, suspect: false, program: None, has_place: false });
    patiently(|| !core.unsettled().is_empty()).await;
    assert_eq!((stored(core, &id).await.state, core.board().queued()), (JobState::Queued, 0));
    other.execute("DROP TRIGGER fails").await.unwrap();
    until(core, &id, JobState::Failed).await;
    assert!(core.unsettled().is_empty());
}

#[tokio::test]
async fn an_end_that_cannot_be_read_is_told_once_it_can_be() {
    let data = tempfile::tempdir().unwrap();
    let (service, _held) = Service::start(config(data.path())).await.unwrap();
    let core = &service.core;
    core.drain();
    let id = crate::keys::job_id().unwrap();
    job(core, &id, None).await;
    let channel = core.hub.open(&id, 0, 1 << 20);
    let problem = Problem::new(ProblemKind::Internal, "it fails");
    core.store.refuse(&id, &problem, time::now_ms()).await.unwrap();
    let mut other = beside(data.path()).await;
    other.execute("ALTER TABLE jobs RENAME TO jobs_of_before").await.unwrap();
    core.tell_end(OPEN_ACCOUNT, &id).await;
    assert_eq!((core.unsettled().len(), channel.done().is_some()), (1, false));
    other.execute("ALTER TABLE jobs_of_before RENAME TO jobs").await.unwrap();
    let told = channel.ended(Duration::from_secs(60)).await;
    assert_eq!(told.map(|job| job.state), Some(JobState::Failed));
    patiently(|| core.unsettled().is_empty()).await;
}

// On one thread, what is taken waits until something is awaited.
#[tokio::test]
async fn a_job_takes_room_for_its_program_too_also_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let (service, _held) = Service::start(config(data.path())).await.unwrap();
    let core = &service.core;
    let caller = service.caller(None).await.unwrap();
    let literal = |number: usize| {
        format!(
            r#"{{ "op": "literal", "name": "c{number}", "dtype": "f32", "shape": [], "elements": [1.0] }},"#
        )
    };
    let mut taken = BTreeMap::new();
    // The second is kept with its job, the third is a file.
    let literals = [0, 1_000, 4_000];
    for literals in literals {
        let body: String = (0..literals).map(literal).collect();
        let program = PROGRAM.replacen("[", &format!("[{body}"), 1);
        service.submit(&caller, SubmitOptions::default(), program.into()).await.unwrap();
        let waiting = core.board().drain(crate::config::BUNDLED).pop().unwrap();
        taken.insert(waiting.job, (literals, waiting.bytes));
    }
    core.drain();
    mend(core).await.unwrap();
    let waiting = core.board().drain(crate::config::BUNDLED);
    for again in waiting {
        let (literals, before) = taken.remove(&again.job).unwrap();
        let held = stored(core, &again.job).await.price.peak_bytes;
        for bytes in [before, again.bytes] {
            assert!(bytes > held + literals as u64 * 1_024, "{bytes} with {literals} literals");
        }
        // The same, but for what each node was taken for when it was counted.
        assert!(again.bytes <= before && before < 3 * again.bytes, "{before} bytes, then {}", again.bytes);
    }
    assert!(taken.is_empty());
}

/// One life of a service, which ends as by `kill -9`: nothing is told to anybody.
fn life<T>(data: &Path, work: impl AsyncFnOnce(&Service) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let given = runtime.block_on(async {
        let (service, _held) = Service::start(config(data)).await.unwrap();
        work(&service).await
    });
    runtime.shutdown_background();
    given
}

#[test]
fn a_job_on_which_the_process_died_runs_alone() {
    let data = tempfile::tempdir().unwrap();
    let (id, others) = (crate::keys::job_id().unwrap(), [0; 4].map(|_| crate::keys::job_id().unwrap()));
    life(data.path(), async |service| {
        service.core.drain();
        let begins = job(&service.core, &id, None).await;
        begins_and_stays(&service.core, &begins).await;
        for other in &others {
            job(&service.core, other, None).await;
        }
    });
    life(data.path(), async |service| {
        let core = &service.core;
        let mut alone = 0;
        let began = std::time::Instant::now();
        while stored(core, &id).await.state != JobState::Succeeded {
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", stored(core, &id).await);
            let board = core.board();
            let running: Vec<_> = (0..16).filter_map(|ticket| board.running(Ticket(ticket))).collect();
            if running.iter().any(|one| one.waiting.job == id) {
                assert_eq!((running.len(), running[0].alone), (1, true));
                alone += 1;
            }
        }
        assert!(alone > 0, "it was never seen to run");
        assert_eq!(stored(core, &id).await.attempts, 2);
        for other in &others {
            assert_eq!(until(core, other, JobState::Succeeded).await.attempts, 1);
        }
    });
}

#[test]
fn a_job_on_which_the_process_died_twice_is_poisoned() {
    let data = tempfile::tempdir().unwrap();
    let id = crate::keys::job_id().unwrap();
    for death in 0..2 {
        life(data.path(), async |service| {
            service.core.drain();
            let job = if death == 0 {
                job(&service.core, &id, None).await
            } else {
                stored(&service.core, &id).await
            };
            assert_eq!((job.state, job.suspect), (JobState::Queued, death == 1));
            begins_and_stays(&service.core, &job).await;
        });
    }
    life(data.path(), async |service| {
        let failed = stored(&service.core, &id).await;
        let why = failed.problem.map(|problem| problem.kind);
        assert_eq!((failed.state, why), (JobState::Failed, Some(ProblemKind::Poisoned)));
    });
}

#[tokio::test]
async fn what_panics_in_the_background_begins_again() {
    let (sender, mut began) = mpsc::unbounded_channel();
    let times = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    supervise("test", move || {
        let (sender, time) = (sender.clone(), times.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        async move {
            sender.send(time).unwrap();
            if time < 2 {
                std::panic::resume_unwind(Box::new("it fails"));
            }
        }
    });
    for time in 0..3 {
        assert_eq!(began.recv().await, Some(time));
    }
    // What ends by itself has ended.
    assert_eq!(began.recv().await, None);
}

/// What `/readyz` answers: its status, and what it says of the store and of the engine.
async fn ready(service: &Service) -> (u16, String, String) {
    let request = axum::http::Request::builder().uri("/readyz").header("host", "127.0.0.1");
    let request = request.body(axum::body::Body::empty()).unwrap();
    let answer = crate::http::router(service.clone()).oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let said = |check: &str| body["checks"][check].as_str().unwrap().to_owned();
    (status, said("store"), said("engine"))
}

async fn until_ready(service: &Service, wanted: (u16, &str, &str)) {
    for _ in 0..600 {
        let (status, store, engine) = ready(service).await;
        if (status, store.as_str(), engine.as_str()) == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{:?} is not {wanted:?}", ready(service).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tells_of_a_store_that_does_not_write_and_an_engine_that_does_not_answer() {
    let data = tempfile::tempdir().unwrap();
    let (service, _held) = Service::start(config(data.path())).await.unwrap();
    until_ready(&service, (200, "ok", "ok")).await;
    let mut other = beside(data.path()).await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    until_ready(&service, (503, "failing", "ok")).await;
    other.execute("ROLLBACK").await.unwrap();
    until_ready(&service, (200, "ok", "ok")).await;
    // One that has something to do, and comes to the end of no pass.
    let entry = service.core.registry.get(crate::config::BUNDLED).unwrap();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let hangs = House::spawn(crate::config::BUNDLED, mpsc::unbounded_channel().0, move |host| {
        host.admit(&Load { programs: 1, ..Load::default() });
        let _ = wait.recv();
        std::panic::resume_unwind(Box::new("it ends"));
    });
    entry.inhabit(hangs.unwrap());
    until_ready(&service, (503, "ok", "failing")).await;
    // One whose thread has ended: it is stuck no more, but there is none.
    go.send(()).unwrap();
    patiently(|| entry.house().is_none()).await;
    until_ready(&service, (503, "ok", "failing")).await;
}

/// Asks for a result with the submission, under a key.
async fn submit_for_result(service: &Service) -> axum::response::Response {
    let request = axum::http::Request::post("/v1/jobs")
        .header("host", "127.0.0.1")
        .header("content-type", "application/json")
        .header("accept", pellucid_client::api::SAFETENSORS)
        .header("prefer", "wait=60")
        .header("idempotency-key", "k");
    let request = request.body(axum::body::Body::from(PROGRAM)).unwrap();
    crate::http::router(service.clone()).oneshot(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_taken_is_told_of_also_where_its_result_cannot_be_read() {
    let data = tempfile::tempdir().unwrap();
    let (service, _held) = Service::start(config(data.path())).await.unwrap();
    let first = submit_for_result(&service).await;
    let id = first.headers()["pellucid-job"].to_str().unwrap().to_owned();
    assert_eq!(first.status().as_u16(), 200);
    let file = stored(&service.core, &id).await.result_key.unwrap();
    service.core.files.delete(&file).await.unwrap();
    let again = submit_for_result(&service).await;
    assert_eq!(
        (again.status().as_u16(), again.headers()["pellucid-job"].to_str().unwrap()),
        (202, id.as_str())
    );
    assert_eq!(again.headers()["location"], format!("/v1/jobs/{id}"));
    let body = axum::body::to_bytes(again.into_body(), 1 << 16).await.unwrap();
    let job: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((job["id"].as_str(), job["state"].as_str()), (Some(id.as_str()), Some("succeeded")));
}

#[tokio::test]
async fn who_follows_a_job_with_a_key_that_is_revoked_is_told_nothing_more() {
    let data = tempfile::tempdir().unwrap();
    let mut config = config(data.path());
    config.server.open = false;
    let (service, _held) = Service::start(config).await.unwrap();
    let core = &service.core;
    core.drain();
    let account = Account { name: OPEN_ACCOUNT.into(), limits: Limits::default(), weight: 1.0 };
    let made = crate::keys::NewKey::make().unwrap();
    let key = crate::store::Key {
        id: made.id.clone(),
        account: account.name.clone(),
        digest: made.digest,
        scopes: crate::keys::Scope::ALL.to_vec(),
        label: String::new(),
        created_ms: 1,
        revoked_ms: None,
    };
    core.store.create_key(&account, &key, None).await.unwrap();
    let id = crate::keys::job_id().unwrap();
    job(core, &id, None).await;
    core.hub.open(&id, 0, 1 << 20);
    let request = axum::http::Request::get(format!("/v1/jobs/{id}/events"))
        .header("authorization", format!("Bearer {}", made.text))
        .body(axum::body::Body::empty());
    let answer = crate::http::router(service.clone()).oneshot(request.unwrap()).await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let mut told = std::pin::pin!(axum::body::to_bytes(answer.into_body(), 1 << 16));
    // As long as the key is valid it goes on.
    assert!(tokio::time::timeout(Duration::from_millis(2_500), &mut told).await.is_err());
    core.store.revoke_key(&made.id, None, 2).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(60), told).await.unwrap().unwrap();
    let told = String::from_utf8(told.to_vec()).unwrap();
    assert!(told.contains("keep-alive") && !told.contains("done"), "{told}");
}

#[tokio::test]
async fn an_end_that_two_find_is_counted_once() {
    let data = tempfile::tempdir().unwrap();
    let (service, _held) = Service::start(config(data.path())).await.unwrap();
    let core = &service.core;
    core.drain();
    let id = crate::keys::job_id().unwrap();
    job(core, &id, None).await;
    core.hub.open(&id, 0, 1 << 20);
    core.store.cancel(OPEN_ACCOUNT, &id, time::now_ms()).await.unwrap();
    for _ in 0..2 {
        core.tell_end(OPEN_ACCOUNT, &id).await;
    }
    let text = core.metrics.text();
    assert!(text.contains("pellucid_jobs_ended_total{state=\"cancelled\"} 1\n"), "{text}");
    assert!(text.contains("pellucid_job_seconds_count 1\n"), "{text}");
}
