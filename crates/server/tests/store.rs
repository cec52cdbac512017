//! What the service counts on of a store. Every test takes a store by its trait: a second one is held to the same.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

use pellucid_client::api::{JobQuery, Limits, Price, Priority, Problem, ProblemKind};
use pellucid_server::keys::{NewKey, Scope, job_id};
use pellucid_server::store::sqlite::{Durability, Sqlite};
use pellucid_server::store::{
    Accepted, Account, AuditEntry, Ending, Finished, JobState, Key, NewJob, Outcome, Store, StoredResult,
};

const NOW: u64 = 1_700_000_000_000;

/// Stores that there are, each new, with what keeps its files.
async fn stores() -> Vec<(Box<dyn Store>, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(&folder.path().join("store.sqlite"), Durability::Process).await.unwrap();
    vec![(Box::new(sqlite), folder)]
}

fn new_job(account: &str, key: Option<&str>) -> NewJob {
    NewJob {
        id: job_id().unwrap(),
        account: account.into(),
        model: "bundled".into(),
        label: Some("one".into()),
        priority: Priority::High,
        submitted_ms: NOW,
        deadline_ms: Some(NOW + 1000),
        idempotency_key: key.map(str::to_owned),
        fingerprint: vec![1; 32],
        price: Price {
            milliseconds: 1.5,
            flops: u64::MAX,
            tokens: 3,
            nodes: 6,
            peak_bytes: 4,
            kept_bytes: 0,
            recomputed_flops: 0,
            result_bytes: 5,
        },
        stored_bytes: None,
        program: Some(b"program".to_vec()),
    }
}

fn done(job: &str, attempt: u32) -> Finished {
    let result = StoredResult {
        key: format!("results/{job}/{attempt}"),
        bytes: 10,
        etag: "\"x\"".into(),
        expires_ms: NOW + 50,
    };
    let outcome = Outcome { milliseconds: 2.0, passes: 1, tokens: 7, ..Outcome::default() };
    Finished { job: job.into(), attempt, ending: Ending::Done(result), outcome, at_ms: NOW + 20 }
}

async fn accepted(store: &dyn Store, job: NewJob) -> String {
    let id = job.id.clone();
    assert!(matches!(store.accept(job).await.unwrap(), Accepted::New));
    id
}

#[tokio::test]
async fn a_job_goes_its_way_once() {
    for (store, _folder) in stores().await {
        let job = accepted(&*store, new_job("ada", None)).await;
        let kept = store.job("ada", &job).await.unwrap().unwrap();
        assert_eq!((kept.state, kept.priority, kept.attempts), (JobState::Queued, Priority::High, 0));
        // What a column cannot hold is the largest that it can.
        assert_eq!(kept.price.flops, i64::MAX as u64);
        assert_eq!(store.program(&job).await.unwrap().unwrap(), b"program");
        assert_eq!(store.begin(std::slice::from_ref(&job), NOW).await.unwrap(), [(job.clone(), 1)]);
        assert_eq!(store.begin(std::slice::from_ref(&job), NOW).await.unwrap(), []);
        assert!(store.finish(done(&job, 1)).await.unwrap().is_some());
        assert!(store.finish(done(&job, 1)).await.unwrap().is_none());
        let ended = store.job("ada", &job).await.unwrap().unwrap();
        assert_eq!(
            (ended.state, ended.result.unwrap().bytes, ended.outcome.tokens),
            (JobState::Succeeded, 10, 7)
        );
        assert_eq!(
            store.program(&job).await.unwrap(),
            None,
            "the program is not kept longer than it is needed"
        );
        let usage = store.usage("ada", "2023-11-14").await.unwrap();
        assert_eq!((usage[0].jobs, usage[0].failed, usage[0].tokens, usage[0].result_bytes), (1, 0, 7, 10));
        assert_eq!(store.stored_bytes("ada").await.unwrap(), 10);
        assert_eq!(store.stored_bytes("bob").await.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_idempotency_key_is_one_job_of_one_account() {
    for (store, _folder) in stores().await {
        let job = accepted(&*store, new_job("ada", Some("k"))).await;
        match store.accept(new_job("ada", Some("k"))).await.unwrap() {
            Accepted::Before(before) => assert_eq!(before.id, job),
            other => panic!("{other:?}"),
        }
        let other = NewJob { fingerprint: vec![2; 32], ..new_job("ada", Some("k")) };
        assert!(matches!(store.accept(other).await.unwrap(), Accepted::Conflict));
        accepted(&*store, new_job("bob", Some("k"))).await;
        accepted(&*store, new_job("ada", None)).await;
        accepted(&*store, new_job("ada", None)).await;
        assert_eq!(store.job_by_idempotency_key("ada", "k").await.unwrap().unwrap().0.id, job);
        assert!(store.job_by_idempotency_key("eve", "k").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_death_makes_a_suspect_and_a_second_one_a_poisoned_job() {
    for (store, _folder) in stores().await {
        let job = accepted(&*store, new_job("ada", None)).await;
        let waits = accepted(&*store, new_job("ada", None)).await;
        store.begin(std::slice::from_ref(&job), NOW).await.unwrap();
        let repaired = store.repair(NOW).await.unwrap();
        assert_eq!((repaired.suspects, repaired.poisoned, repaired.queued), (1, 0, 2));
        let queued = store.queued().await.unwrap();
        assert_eq!(
            (queued[0].job.id.as_str(), queued[0].job.suspect, queued[1].job.suspect),
            (job.as_str(), true, false)
        );
        // Being put back is no death.
        store.begin(std::slice::from_ref(&job), NOW).await.unwrap();
        let back = Finished { ending: Ending::PutBack, ..done(&job, 2) };
        assert!(store.finish(back).await.unwrap().is_some());
        assert_eq!(store.repair(NOW).await.unwrap().poisoned, 0);
        store.begin(std::slice::from_ref(&job), NOW).await.unwrap();
        let repaired = store.repair(NOW).await.unwrap();
        assert_eq!((repaired.suspects, repaired.poisoned, repaired.queued), (0, 1, 1));
        let failed = store.job("ada", &job).await.unwrap().unwrap();
        assert_eq!((failed.state, failed.problem.unwrap().kind), (JobState::Failed, ProblemKind::Poisoned));
        assert_eq!(store.queued().await.unwrap()[0].job.id, waits);
        // What ended before counts no more.
        assert!(store.finish(done(&job, 3)).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_is_cancelled_does_not_begin() {
    for (store, _folder) in stores().await {
        let (waits, runs) =
            (accepted(&*store, new_job("ada", None)).await, accepted(&*store, new_job("ada", None)).await);
        store.begin(std::slice::from_ref(&runs), NOW).await.unwrap();
        assert!(store.cancel("bob", &waits, NOW).await.unwrap().is_none());
        assert_eq!(store.cancel("ada", &waits, NOW).await.unwrap().unwrap().state, JobState::Cancelled);
        assert_eq!(store.begin(&[waits], NOW).await.unwrap(), []);
        assert_eq!(store.cancel("ada", &runs, NOW).await.unwrap().unwrap().state, JobState::Running);
        // The process dies before it could be told to the engine: it does not run again.
        let repaired = store.repair(NOW).await.unwrap();
        assert_eq!((repaired.suspects, repaired.queued), (0, 0));
        assert_eq!(store.job("ada", &runs).await.unwrap().unwrap().state, JobState::Cancelled);
    }
}

#[tokio::test]
async fn many_begin_at_once_in_their_order_without_those_that_were_cancelled() {
    for (store, _folder) in stores().await {
        let mut jobs = Vec::new();
        for _ in 0..150 {
            jobs.push(accepted(&*store, new_job("ada", None)).await);
        }
        jobs.reverse();
        for cancelled in jobs.iter().step_by(7) {
            store.cancel("ada", cancelled, NOW).await.unwrap();
        }
        let left = jobs.iter().enumerate().filter(|(place, _)| place % 7 != 0);
        let left: Vec<(String, u32)> = left.map(|(_, job)| (job.clone(), 1)).collect();
        assert_eq!(store.begin(&jobs, NOW).await.unwrap(), left);
        // Whoever runs already does not begin again, and each has its attempt.
        assert_eq!(store.begin(&jobs, NOW).await.unwrap(), []);
        for (job, attempt) in left {
            let ended = store.finish(done(&job, attempt)).await.unwrap();
            assert_eq!(ended.unwrap().state, JobState::Succeeded);
        }
    }
}

#[tokio::test]
async fn a_job_that_is_refused_has_its_problem() {
    for (store, _folder) in stores().await {
        let job = accepted(&*store, new_job("ada", None)).await;
        let problem = Problem::new(ProblemKind::DeadlineExceeded, "late");
        assert!(store.refuse(&job, &problem, NOW).await.unwrap());
        assert!(!store.refuse(&job, &problem, NOW).await.unwrap());
        let failed = store.job("ada", &job).await.unwrap().unwrap();
        assert_eq!(failed.problem.unwrap(), problem);
    }
}

#[tokio::test]
async fn results_expire_and_jobs_are_forgotten() {
    for (store, _folder) in stores().await {
        let job = accepted(&*store, new_job("ada", None)).await;
        store.begin(std::slice::from_ref(&job), NOW).await.unwrap();
        store.finish(done(&job, 1)).await.unwrap();
        assert!(store.expire(NOW + 49, 0, 100).await.unwrap().files.is_empty());
        assert_eq!(store.expire(NOW + 50, 0, 100).await.unwrap().files, [format!("results/{job}/1")]);
        let expired = store.job("ada", &job).await.unwrap().unwrap();
        assert!(expired.result.is_none() && expired.result_gone && expired.outcome.saved.is_empty());
        assert_eq!(store.stored_bytes("ada").await.unwrap(), 0);
        assert_eq!(store.expire(NOW + 50, NOW + 19, 100).await.unwrap().jobs, 0);
        assert_eq!(store.expire(NOW + 50, NOW + 20, 100).await.unwrap().jobs, 1);
        assert!(store.job("ada", &job).await.unwrap().is_none());
        // Usage is kept.
        assert_eq!(store.usage("ada", "2023-01-01").await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn an_account_keeps_only_its_newest_jobs() {
    for (store, _folder) in stores().await {
        let mut jobs = Vec::new();
        for number in 0..5 {
            let job = NewJob { submitted_ms: NOW + number, ..new_job("ada", None) };
            jobs.push(accepted(&*store, job).await);
        }
        let other = accepted(&*store, new_job("bob", None)).await;
        for job in jobs[..4].iter().chain([&other]) {
            store.begin(std::slice::from_ref(job), NOW).await.unwrap();
            store.finish(done(job, 1)).await.unwrap();
        }
        // Of five, one has not ended: it stays, and two of the others.
        let expired = store.expire(NOW, 0, 2).await.unwrap();
        let mut files = expired.files;
        files.sort();
        let mut gone = jobs[..2].iter().map(|job| format!("results/{job}/1")).collect::<Vec<_>>();
        gone.sort();
        assert_eq!((files, expired.jobs), (gone, 2));
        for (number, job) in jobs.iter().enumerate() {
            assert_eq!(store.job("ada", job).await.unwrap().is_some(), number >= 2, "{number}");
        }
        assert_eq!(store.stored_bytes("ada").await.unwrap(), 20);
        assert!(store.job("bob", &other).await.unwrap().is_some());
        assert_eq!(store.expire(NOW, 0, 2).await.unwrap().jobs, 0);
    }
}

#[tokio::test]
async fn an_account_keeps_its_newest_jobs_also_where_the_clock_was_set_back() {
    for (store, _folder) in stores().await {
        let mut jobs = Vec::new();
        for submitted_ms in [NOW, NOW + 1, NOW - 5_000, NOW - 4_000] {
            let job = accepted(&*store, NewJob { submitted_ms, ..new_job("ada", None) }).await;
            store.begin(std::slice::from_ref(&job), NOW).await.unwrap();
            store.finish(done(&job, 1)).await.unwrap();
            jobs.push(job);
        }
        assert_eq!(store.expire(NOW, 0, 2).await.unwrap().jobs, 2);
        for (number, job) in jobs.iter().enumerate() {
            assert_eq!(store.job("ada", job).await.unwrap().is_some(), number >= 2, "{number}");
        }
    }
}

#[tokio::test]
async fn erased_is_gone_and_files_of_nobody_are_found() {
    for (store, _folder) in stores().await {
        let job = accepted(&*store, new_job("ada", None)).await;
        let program = format!("programs/{job}");
        let (own, other) = (format!("results/{job}/1"), format!("results/{job}/2"));
        let files = [program.clone(), own.clone(), other.clone(), "results/job_x/1".to_owned()];
        assert_eq!(store.orphans(&files).await.unwrap(), files[1..]);
        store.begin(std::slice::from_ref(&job), NOW).await.unwrap();
        store.finish(done(&job, 1)).await.unwrap();
        assert_eq!(store.orphans(&files).await.unwrap(), [program.clone(), other, files[3].clone()]);
        assert!(store.erase("bob", &job, NOW).await.unwrap().is_none());
        assert_eq!(store.stored_bytes("ada").await.unwrap(), 10);
        assert_eq!(store.erase("ada", &job, NOW).await.unwrap().unwrap(), [own, program]);
        assert!(store.job("ada", &job).await.unwrap().is_none());
        assert_eq!(store.stored_bytes("ada").await.unwrap(), 0);
    }
}

#[tokio::test]
async fn lists_are_ones_own_in_pages_the_newest_first() {
    for (store, _folder) in stores().await {
        let mut ids = Vec::new();
        for number in 0..5 {
            let job = NewJob { submitted_ms: NOW + number / 2, ..new_job("ada", None) };
            ids.push(accepted(&*store, job).await);
            accepted(&*store, new_job("bob", None)).await;
        }
        let page = async |query: JobQuery| -> Vec<String> {
            store.jobs("ada", &query, 2).await.unwrap().into_iter().map(|job| job.id).collect()
        };
        let mut seen = page(JobQuery::default()).await;
        loop {
            let next = page(JobQuery { after: seen.last().cloned(), ..JobQuery::default() }).await;
            if next.is_empty() {
                break;
            }
            seen.extend(next);
        }
        assert_eq!((seen.len(), &seen[0]), (5, &ids[4]));
        let queued = |after: &String| JobQuery {
            state: Some(JobState::Queued),
            after: Some(after.clone()),
            ..JobQuery::default()
        };
        assert_eq!(page(queued(&seen[1])).await, seen[2..4]);
        ids.sort();
        seen.sort();
        assert_eq!(seen, ids);
        let running = JobQuery { state: Some(JobState::Running), ..JobQuery::default() };
        assert!(page(running).await.is_empty());
    }
}

#[tokio::test]
async fn keys_belong_to_accounts_and_can_be_revoked() {
    for (store, _folder) in stores().await {
        let limits = Limits { peak_bytes: Some(5), ..Limits::default() };
        let account = Account { name: "ada".into(), limits, weight: 2.0 };
        let made = NewKey::make().unwrap();
        let key = Key {
            id: made.id.clone(),
            account: "ada".into(),
            digest: made.digest,
            scopes: vec![Scope::Submit, Scope::Admin],
            label: "l".into(),
            created_ms: NOW,
            revoked_ms: None,
        };
        let entry = |action: &str| AuditEntry {
            at_ms: NOW,
            account: "ada".into(),
            key: "operator".into(),
            action: action.into(),
            subject: made.id.clone(),
        };
        store.create_key(&account, &key, Some(entry("create key"))).await.unwrap();
        // The same once more is refused, whole: neither is the account changed nor is anything noted.
        let changed = Account { weight: 9.0, ..account.clone() };
        assert!(store.create_key(&changed, &key, Some(entry("create key"))).await.is_err());
        assert_eq!(store.key(&made.id).await.unwrap().unwrap(), (key, account.clone()));
        assert!(store.key("' OR 1=1 --").await.unwrap().is_none());
        assert!(store.revoke_key(&made.id, Some(entry("revoke key")), NOW).await.unwrap());
        assert!(!store.revoke_key(&made.id, Some(entry("revoke key")), NOW).await.unwrap());
        let mut noted: Vec<_> =
            store.audit_log(9).await.unwrap().into_iter().map(|entry| entry.action).collect();
        noted.sort();
        assert_eq!(noted, ["create key", "revoke key"]);
        assert!(store.key(&made.id).await.unwrap().is_none());
        assert_eq!(store.keys().await.unwrap()[0].revoked_ms, Some(NOW));
        store.put_account(&Account { weight: 3.0, ..account }, None, NOW).await.unwrap();
        assert_eq!(store.accounts().await.unwrap()[0].weight, 3.0);
    }
}

#[tokio::test]
async fn the_audit_log_is_the_newest_first_and_goes_back_only_so_far() {
    for (store, _folder) in stores().await {
        for at_ms in [NOW, NOW + 1, NOW + 2] {
            let entry = AuditEntry {
                at_ms,
                account: "ada".into(),
                key: "k".into(),
                action: "erase".into(),
                subject: "job".into(),
            };
            store.audit(entry).await.unwrap();
        }
        store.expire_audit(NOW + 1, 100).await.unwrap();
        let times: Vec<u64> =
            store.audit_log(10).await.unwrap().into_iter().map(|entry| entry.at_ms).collect();
        assert_eq!(times, [NOW + 2, NOW + 1]);
        assert_eq!(store.audit_log(1).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn who_erases_all_the_time_does_not_fill_the_audit_log() {
    for (store, _folder) in stores().await {
        for (account, action, entries) in
            [("ada", "erase", 30), ("ada", "revoke key", 3), ("bob", "erase", 10)]
        {
            for number in 0..entries {
                // Some of them in the same moment.
                let entry = AuditEntry {
                    at_ms: NOW + number / 3,
                    account: account.into(),
                    key: "k".into(),
                    action: action.into(),
                    subject: format!("job_{number:02}"),
                };
                store.audit(entry).await.unwrap();
            }
        }
        store.expire_audit(NOW, 10).await.unwrap();
        let left = store.audit_log(100).await.unwrap();
        let of = |account: &str, action: &str| {
            let own = left.iter().filter(|entry| entry.account == account && entry.action == action);
            let mut subjects: Vec<String> = own.map(|entry| entry.subject.clone()).collect();
            subjects.sort();
            subjects
        };
        let newest: Vec<String> = (20..30).map(|number| format!("job_{number}")).collect();
        assert_eq!(of("ada", "erase"), newest);
        assert_eq!((of("ada", "revoke key").len(), of("bob", "erase").len()), (3, 10));
    }
}

#[tokio::test]
async fn many_changes_at_once_are_all_made_and_one_that_fails_fails_alone() {
    for (store, _folder) in stores().await {
        let store: std::sync::Arc<dyn Store> = store.into();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..500 {
            let store = store.clone();
            tasks.spawn(async move {
                let job = NewJob { id: format!("job_{}", number % 400), ..new_job("ada", None) };
                store.accept(job).await.is_ok()
            });
        }
        let outcomes = tasks.join_all().await;
        // The id of a hundred is there already.
        assert_eq!(outcomes.iter().filter(|ok| **ok).count(), 400);
        assert_eq!(store.queued().await.unwrap().len(), 400);
        store.check().await.unwrap();
    }
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    drop(Sqlite::open(&path, Durability::Power).await.unwrap());
    {
        use sqlx::{ConnectOptions, Connection, Executor};
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        let mut connection = options.connect().await.unwrap();
        connection.execute("PRAGMA user_version = 99").await.unwrap();
        connection.close().await.unwrap();
    }
    let error = Sqlite::open(&path, Durability::Power).await.err().unwrap().to_string();
    assert!(error.contains("99") && error.contains("newer"), "{error}");
}

/// The version of a store's schema.
async fn version(path: &std::path::Path) -> i64 {
    use sqlx::{ConnectOptions, Row};
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    sqlx::query("PRAGMA user_version").fetch_one(&mut connection).await.unwrap().get(0)
}

/// A store of the first version that there was.
async fn first_version(path: &std::path::Path) -> sqlx::SqliteConnection {
    use sqlx::{ConnectOptions, Executor};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut first = options.connect().await.unwrap();
    first.execute(sqlx::raw_sql(include_str!("../src/store/schema.sql"))).await.unwrap();
    first.execute("PRAGMA user_version = 1").await.unwrap();
    first
}

#[tokio::test]
async fn who_looks_whether_a_store_works_does_not_take_it_back_to_an_older_version() {
    use sqlx::{ConnectOptions, Executor};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let store = Sqlite::open(&path, Durability::Process).await.unwrap();
    store.check().await.unwrap();
    let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    other.execute("PRAGMA user_version = 99").await.unwrap();
    let error = store.check().await.unwrap_err().to_string();
    assert!(error.contains("99"), "{error}");
    assert_eq!(version(&path).await, 99);
}

#[tokio::test]
async fn a_store_of_an_older_version_that_is_only_read_stays_one() {
    use sqlx::Executor;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let mut first = first_version(&path).await;
    first.execute("INSERT INTO accounts VALUES ('ada', '{}', 1.0, 1)").await.unwrap();
    first.execute("INSERT INTO keys VALUES ('k', 'ada', x'00', 'submit', '', 1, NULL)").await.unwrap();
    first.execute("INSERT INTO usage VALUES ('ada', '2026-01-31', 'm', 1, 0, 1, 1, 1, 1.0)").await.unwrap();
    first.execute("INSERT INTO audit VALUES (1, 'ada', 'k', 'erase', 'job')").await.unwrap();
    let store = Sqlite::open_to_read(&path, Durability::Process).await.unwrap();
    assert_eq!(store.accounts().await.unwrap().len(), 1);
    assert_eq!(store.keys().await.unwrap().len(), 1);
    assert_eq!(store.usage_of_all("2026-01-01").await.unwrap().len(), 1);
    assert_eq!(store.audit_log(9).await.unwrap().len(), 1);
    assert_eq!(version(&path).await, 1);
}

#[tokio::test]
async fn a_store_of_an_older_version_is_brought_up_to_date() {
    use sqlx::{Connection, Executor};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let mut first = first_version(&path).await;
    for (id, key, bytes) in [("a", "'x'", 7), ("b", "'y'", 5), ("c", "NULL", 100)] {
        let row = format!(
            "INSERT INTO jobs (id, account, model, priority, state, submitted_ms, fingerprint, flops, peak_bytes, \
             price_result_bytes, tokens, estimated_ms, result_key, result_bytes) \
             VALUES ('{id}', 'ada', 'm', 0, 'succeeded', 1, x'00', 1, 1, 1, 1, 1.0, {key}, {bytes})"
        );
        first.execute(sqlx::AssertSqlSafe(row)).await.unwrap();
    }
    first.close().await.unwrap();
    for _ in 0..2 {
        let store = Sqlite::open(&path, Durability::Process).await.unwrap();
        assert_eq!(store.stored_bytes("ada").await.unwrap(), 12);
        store.close().await;
    }
}

#[tokio::test]
async fn results_to_come_are_counted_with_those_that_are_there_at_once() {
    for (store, _folder) in stores().await {
        let limited = || NewJob { stored_bytes: Some(17), ..new_job("ada", None) };
        // Three may come to 5 bytes each.
        let first = accepted(&*store, limited()).await;
        for _ in 0..2 {
            accepted(&*store, limited()).await;
        }
        let keyed = NewJob { idempotency_key: Some("k".into()), ..limited() };
        let full = store.accept(keyed).await.unwrap();
        assert!(matches!(full, Accepted::Full(20)), "{full:?}");
        // Of somebody else's nothing counts.
        accepted(&*store, NewJob { stored_bytes: Some(5), ..new_job("bob", Some("k")) }).await;
        let replayed =
            store.accept(NewJob { stored_bytes: Some(5), ..new_job("bob", Some("k")) }).await.unwrap();
        assert!(matches!(replayed, Accepted::Before(_)), "{replayed:?}");
        // One that has ended counts with what it is.
        store.begin(std::slice::from_ref(&first), NOW).await.unwrap();
        assert!(store.finish(done(&first, 1)).await.unwrap().is_some());
        let full = store.accept(limited()).await.unwrap();
        assert!(matches!(full, Accepted::Full(25)), "{full:?}");
        store.erase("ada", &first, NOW).await.unwrap();
        accepted(&*store, limited()).await;
    }
}

#[tokio::test]
async fn a_day_is_metered_as_priced_or_measured_and_who_is_poisoned_counts() {
    for (store, _folder) in stores().await {
        let day = pellucid_server::time::day(NOW);
        let metered = async |account: &str| store.metered(account, &day, NOW - 1).await.unwrap();
        assert_eq!(metered("ada").await.to_bits(), 0);
        // One waits, at 1.5 ms; one has taken 2 ms.
        accepted(&*store, new_job("ada", None)).await;
        let ended = accepted(&*store, new_job("ada", None)).await;
        store.begin(std::slice::from_ref(&ended), NOW).await.unwrap();
        assert!(store.finish(done(&ended, 1)).await.unwrap().is_some());
        assert_eq!(metered("ada").await, 3.5);
        // One is cancelled before it has done anything that was measured.
        let cancelled = accepted(&*store, new_job("bob", None)).await;
        store.begin(std::slice::from_ref(&cancelled), NOW).await.unwrap();
        let outcome = Outcome::default();
        let finished =
            Finished { job: cancelled, attempt: 1, ending: Ending::Cancelled, outcome, at_ms: NOW };
        assert!(store.finish(finished).await.unwrap().is_some());
        assert_eq!(metered("bob").await, 1.5);
        let poisoned = accepted(&*store, new_job("cat", None)).await;
        for _ in 0..2 {
            store.begin(std::slice::from_ref(&poisoned), NOW).await.unwrap();
            store.repair(NOW).await.unwrap();
        }
        assert_eq!(store.job("cat", &poisoned).await.unwrap().unwrap().state, JobState::Failed);
        let usage = store.usage("cat", &day).await.unwrap();
        assert_eq!((usage[0].jobs, usage[0].failed), (1, 1));
        assert_eq!(metered("cat").await, 1.5);
        // So do those whose owners ended them where the service's end, or the process's, came first; their programs are gone.
        for (account, dies) in [("dan", false), ("eve", true)] {
            let job = accepted(&*store, new_job(account, None)).await;
            store.begin(std::slice::from_ref(&job), NOW).await.unwrap();
            store.cancel(account, &job, NOW).await.unwrap();
            match dies {
                true => drop(store.repair(NOW).await.unwrap()),
                false => {
                    drop(store.finish(Finished { ending: Ending::PutBack, ..done(&job, 1) }).await.unwrap())
                }
            }
            assert_eq!(store.job(account, &job).await.unwrap().unwrap().state, JobState::Cancelled);
            assert_eq!(store.program(&job).await.unwrap(), None);
            // What it took is known where the process lived to tell.
            let used = (metered(account).await, store.usage(account, &day).await.unwrap()[0].jobs);
            assert_eq!(used, (if dies { 1.5 } else { 2.0 }, 1));
        }
    }
}

#[tokio::test]
async fn a_job_that_is_erased_while_it_runs_has_been_used_once() {
    for (store, _folder) in stores().await {
        let day = pellucid_server::time::day(NOW);
        let job = accepted(&*store, new_job("ada", None)).await;
        store.begin(std::slice::from_ref(&job), NOW).await.unwrap();
        assert!(store.erase("ada", &job, NOW).await.unwrap().is_some());
        assert!(store.finish(done(&job, 1)).await.unwrap().is_none());
        let usage = store.usage("ada", &day).await.unwrap();
        assert_eq!((usage[0].jobs, usage[0].failed), (1, 0));
        assert_eq!(store.metered("ada", &day, NOW).await.unwrap(), 1.5);
        // One that has ended was counted then, and one that has not begun took nothing.
        let ended = accepted(&*store, new_job("ada", None)).await;
        store.begin(std::slice::from_ref(&ended), NOW).await.unwrap();
        assert!(store.finish(done(&ended, 1)).await.unwrap().is_some());
        for job in [ended, accepted(&*store, new_job("ada", None)).await] {
            assert!(store.erase("ada", &job, NOW).await.unwrap().is_some());
        }
        assert_eq!(store.usage("ada", &day).await.unwrap()[0].jobs, 2);
    }
}

#[tokio::test]
async fn a_store_that_is_only_read_is_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pellucid.sqlite");
    let account = Account { name: "ada".into(), limits: Limits::default(), weight: 1.0 };
    let store = Sqlite::open(&path, Durability::Process).await.unwrap();
    store.put_account(&account, None, NOW).await.unwrap();
    // While another has it open.
    let reading = Sqlite::open_to_read(&path, Durability::Process).await.unwrap();
    assert_eq!(reading.accounts().await.unwrap().len(), 1);
    assert!(reading.put_account(&account, None, NOW).await.is_err());
    // The one that writes closes its connection by itself, and last: then all is in the one file.
    for store in [reading, store] {
        store.close().await;
        drop(store);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    let log = path.with_extension("sqlite-wal");
    for _ in 0..500 {
        if log.metadata().map_or(0, |log| log.len()) == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let _ = std::fs::remove_file(&log);
        let _ = std::fs::remove_file(path.with_extension("sqlite-shm"));
        // Nothing may be made beside it, unless the test's user may do everything.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    }
    let before = std::fs::read(&path).unwrap();
    let reading = Sqlite::open_to_read(&path, Durability::Process).await.unwrap();
    assert_eq!(reading.accounts().await.unwrap()[0].name, "ada");
    assert!(reading.put_account(&account, None, NOW).await.is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}

/// Whether one of a folder's files holds a text.
fn holds(folder: &std::path::Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn what_was_erased_lies_in_none_of_the_files() {
    const PROMPT: &str = "a very private prompt";
    for (store, folder) in stores().await {
        let mut jobs = Vec::new();
        // Small and large ones, so that pages are split and joined, and some lie over many.
        for number in 0..300 {
            let program = PROMPT.repeat([1, 30, 500][number % 3]).into_bytes();
            let job = NewJob { program: Some(program), ..new_job("ada", None) };
            jobs.push(accepted(&*store, job).await);
        }
        assert!(holds(folder.path(), PROMPT), "what is searched for is not found where it is");
        let problem = Problem::new(ProblemKind::DeadlineExceeded, "late");
        // In an order of its own: erased, ended, and forgotten when its time was over.
        for number in 0..jobs.len() {
            let job = &jobs[number * 7 % jobs.len()];
            match number % 3 {
                0 => assert!(store.erase("ada", job, NOW).await.unwrap().is_some()),
                1 => assert!(store.refuse(job, &problem, NOW).await.unwrap()),
                _ => {
                    store.begin(std::slice::from_ref(job), NOW).await.unwrap();
                    store.finish(done(job, 1)).await.unwrap();
                }
            }
        }
        store.wipe().await.unwrap();
        assert!(!holds(folder.path(), PROMPT));
        // What waits is whole.
        let waits = NewJob { program: Some(PROMPT.into()), ..new_job("ada", None) };
        let waits = accepted(&*store, waits).await;
        store.wipe().await.unwrap();
        assert_eq!(store.program(&waits).await.unwrap().unwrap(), PROMPT.as_bytes());
        store.begin(std::slice::from_ref(&waits), NOW).await.unwrap();
        store.finish(done(&waits, 1)).await.unwrap();
        store.expire(NOW + 60, NOW + 60, 0).await.unwrap();
        store.wipe().await.unwrap();
        assert!(!holds(folder.path(), PROMPT));
    }
}

/// What SQLite understands and PostgreSQL does not, or otherwise. `BLOB` is the one difference: `BYTEA` stands there instead.
const DIALECT: [&str; 20] = [
    "LIMIT -1",
    "INSERT OR",
    "UPDATE OR",
    "REPLACE INTO",
    "AUTOINCREMENT",
    "ROWID",
    "PRAGMA",
    "STRICT",
    "DATETIME(",
    "STRFTIME(",
    "JULIANDAY(",
    "UNIXEPOCH(",
    "IFNULL(",
    "TYPEOF(",
    "GROUP_CONCAT(",
    "TOTAL(",
    "RANDOMBLOB(",
    "GLOB ",
    "COLLATE NOCASE",
    "X'",
];

#[test]
fn statements_are_of_no_dialect() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // How a file is opened, wiped and brought up to date is SQLite's own.
        if path.ends_with("sqlite.rs") {
            continue;
        }
        files += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let comment = ["//", "--"].iter().any(|begin| line.trim_start().starts_with(begin));
            let upper = line.to_uppercase();
            let found = DIALECT.iter().find(|word| upper.contains(*word)).filter(|_| !comment);
            assert!(found.is_none(), "{}:{}: {found:?}", path.display(), number + 1);
            // A place is a numbered one.
            assert!(comment || !line.contains("= ?"), "{}:{}", path.display(), number + 1);
        }
    }
    assert!(files > 8, "{files}");
}
