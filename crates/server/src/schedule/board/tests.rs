//! Who begins when, who waits for whom.

use std::time::Duration;

use super::*;
use crate::config::{ModelConfig, WeightType};
use crate::models::Entry;
use crate::schedule::queue;

fn waiting(job: &str, account: &str, cost: f64) -> Waiting {
    Waiting { concurrent: Some(3), bytes: 10, ..queue::tests::waiting(job, account, cost) }
}

fn names(chosen: &[Chosen]) -> Vec<&str> {
    chosen.iter().map(|chosen| chosen.waiting.job.as_str()).collect()
}

fn held(id: &str) -> Held {
    let config = ModelConfig {
        id: id.into(),
        source: None,
        dtype: WeightType::F32,
        revision: None,
        pinned: false,
        default: false,
        strict: false,
    };
    Arc::new(Entry::new(config)).hold()
}

fn begin(board: &mut Board, model: &str, chosen: Chosen) -> Ticket {
    board.begin(Running {
        waiting: chosen.waiting,
        attempt: 1,
        cancel: Arc::default(),
        put_back: Arc::default(),
        overflows: Arc::default(),
        alone: chosen.alone,
        leaving: 0,
        held: held(model),
    })
}

#[test]
fn an_engine_is_given_work_for_two_passes_and_every_account_a_place() {
    let engine = EngineConfig { delay_ms: 20.0, ..EngineConfig::default() };
    let mut board = Board::default();
    for number in 0..10 {
        board.push("m", waiting(&format!("a{number}"), "a", 8.0), false);
    }
    board.push("m", waiting("b0", "b", 100.0), false);
    let chosen = board.choose("m", &engine, false);
    assert_eq!(names(&chosen), ["a0", "b0", "a1"]);
    assert!(board.choose("m", &engine, false).is_empty());
    board.push("m", waiting("c0", "c", 1.0), false);
    assert_eq!(names(&board.choose("m", &engine, false)), ["c0"]);
}

#[test]
fn a_short_job_does_not_wait_behind_its_accounts_own_long_ones() {
    let engine = EngineConfig { delay_ms: 20.0, ..EngineConfig::default() };
    let unbounded = |job: &str, cost| Waiting { concurrent: None, ..waiting(job, "a", cost) };
    let mut board = Board::default();
    (0..4).for_each(|number| board.push("m", unbounded(&format!("long{number}"), 1e6), false));
    board.push("m", unbounded("short", 8.0), false);
    (4..6).for_each(|number| board.push("m", unbounded(&format!("long{number}"), 1e6), false));
    let chosen = board.choose("m", &engine, false);
    assert_eq!(names(&chosen), ["long0", "long1", "long2", "long3", "short"]);
    // Where one of them ends, one more goes.
    let tickets: Vec<Ticket> = chosen.into_iter().map(|chosen| begin(&mut board, "m", chosen)).collect();
    board.left(tickets[1], 1e6, 0);
    assert_eq!(names(&board.choose("m", &engine, false)), ["long4"]);
    board.left(tickets[4], 8.0, 0);
    assert!(board.choose("m", &engine, false).is_empty());
}

#[test]
fn who_is_in_already_leaves_room_for_those_who_are_not() {
    let engine = EngineConfig { jobs: 10, ..EngineConfig::default() };
    let flood = |board: &mut Board, bytes| {
        for number in 0..20 {
            let job = Waiting { concurrent: None, bytes, ..waiting(&format!("a{number}"), "a", 0.1) };
            board.push("m", job, false);
        }
    };
    let mut board = Board::default();
    flood(&mut board, 1);
    assert_eq!(board.choose("m", &engine, false).len(), 5);
    board.push("m", waiting("b0", "b", 1.0), false);
    assert_eq!(names(&board.choose("m", &engine, false)), ["b0"]);
    let engine = EngineConfig { value_bytes: 100, ..EngineConfig::default() };
    let mut board = Board::default();
    flood(&mut board, 20);
    assert_eq!(board.choose("m", &engine, false).len(), 2);
    board.push("m", Waiting { bytes: 50, ..waiting("b0", "b", 1.0) }, false);
    assert_eq!(names(&board.choose("m", &engine, false)), ["b0"]);
}

#[test]
fn an_account_has_only_so_many_at_once_and_memory_is_bounded() {
    let engine = EngineConfig::default();
    let mut board = Board::default();
    for number in 0..5 {
        board.push("m", waiting(&format!("a{number}"), "a", 1.0), false);
        board.push("m", waiting(&format!("b{number}"), "b", 1.0), false);
    }
    assert_eq!(board.choose("m", &engine, false).len(), 6);
    let mut board = Board::default();
    (0..5).for_each(|number| board.push("m", waiting(&number.to_string(), &number.to_string(), 1.0), false));
    let chosen = board.choose("m", &EngineConfig { value_bytes: 25, ..engine.clone() }, false);
    assert_eq!(chosen.len(), 2);
    let mut board = Board::default();
    (0..5).for_each(|number| board.push("m", waiting(&number.to_string(), &number.to_string(), 1.0), false));
    assert_eq!(board.choose("m", &EngineConfig { packing: false, ..engine }, false).len(), 1);
}

#[test]
fn short_jobs_go_before_one_that_finds_no_room_beside_long_ones_and_no_others_do() {
    let engine = EngineConfig { delay_ms: 20.0, value_bytes: 100, ..EngineConfig::default() };
    let sized = |job: &str, account: &str, cost: f64, bytes| Waiting { bytes, ..waiting(job, account, cost) };
    let mut board = Board::default();
    board.push("m", sized("long", "a", 600.0, 60), false);
    let mut chosen = board.choose("m", &engine, false);
    let long = begin(&mut board, "m", chosen.remove(0));
    board.push("m", sized("large", "b", 1.0, 60), false);
    board.push("m", sized("other", "c", 600.0, 10), false);
    board.push("m", sized("short", "d", 1.0, 10), false);
    let mut chosen = board.choose("m", &engine, false);
    assert_eq!(names(&chosen), ["short"], "`large` holds up everybody until `long` ends");
    let short = begin(&mut board, "m", chosen.remove(0));
    // Where it waits for short ones alone, nobody goes before it: they end soon.
    board.left(long, 600.0, 0);
    board.end(long);
    board.push("m", sized("after", "e", 1.0, 40), false);
    let mut chosen = board.choose("m", &engine, false);
    assert_eq!(names(&chosen)[0], "large");
    let large = begin(&mut board, "m", chosen.remove(0));
    board.push("m", sized("huge", "f", 1.0, 90), false);
    board.push("m", sized("late", "g", 1.0, 1), false);
    assert!(!names(&board.choose("m", &engine, false)).contains(&"late"), "`huge` waits for ever");
    for ticket in [short, large] {
        board.left(ticket, 1.0, 0);
        board.end(ticket);
    }
}

#[test]
fn one_that_needs_more_than_all_room_goes_when_nothing_runs_and_nobody_goes_before_it() {
    let engine = EngineConfig { delay_ms: 20.0, value_bytes: 100, ..EngineConfig::default() };
    let mut board = Board::default();
    board.push("m", waiting("short", "a", 1.0), false);
    let mut chosen = board.choose("m", &engine, false);
    let short = begin(&mut board, "m", chosen.remove(0));
    board.push("m", Waiting { bytes: 200, ..waiting("all", "b", 600.0) }, false);
    board.push("m", waiting("next", "c", 1.0), false);
    assert!(board.choose("m", &engine, false).is_empty(), "where others go before it, it never does");
    board.left(short, 1.0, 0);
    board.end(short);
    assert_eq!(names(&board.choose("m", &engine, false)), ["all"]);
}

#[test]
fn what_an_account_has_at_once_counts_over_all_models() {
    let engine = EngineConfig::default();
    let mut board = Board::default();
    for number in 0..3 {
        board.push("m", waiting(&format!("m{number}"), "a", 1.0), false);
        board.push("n", waiting(&format!("n{number}"), "a", 1.0), false);
    }
    board.push("n", waiting("b0", "b", 1.0), false);
    let first = board.choose("m", &engine, false);
    assert_eq!(names(&first), ["m0", "m1", "m2"]);
    // Three are allowed, and run on the other model.
    assert_eq!(names(&board.choose("n", &engine, false)), ["b0"]);
    let tickets: Vec<Ticket> = first.into_iter().map(|chosen| begin(&mut board, "m", chosen)).collect();
    board.left(tickets[0], 1.0, 0);
    assert_eq!(names(&board.choose("n", &engine, false)), ["n0"]);
    assert!(board.choose("n", &engine, false).is_empty());
}

#[test]
fn a_suspect_runs_while_nothing_else_does() {
    let engine = EngineConfig::default();
    let mut board = Board::default();
    board.push("other", waiting("x", "b", 1.0), false);
    let first = board.choose("other", &engine, false).remove(0);
    let first = begin(&mut board, "other", first);
    board.push("m", waiting("suspect", "a", 1.0), true);
    board.push("m", waiting("normal", "a", 1.0), false);
    assert!(board.choose("m", &engine, false).is_empty(), "another model is at work");
    board.left(first, 1.0, 0);
    board.end(first);
    let chosen = board.choose("m", &engine, false);
    assert_eq!(names(&chosen), ["suspect"]);
    let ticket = begin(&mut board, "m", chosen.into_iter().next().unwrap());
    assert!(board.choose("m", &engine, false).is_empty());
    board.left(ticket, 1.0, 0);
    assert!(board.choose("m", &engine, false).is_empty(), "it is not recorded yet");
    board.end(ticket);
    assert_eq!(names(&board.choose("m", &engine, false)), ["normal"]);
}

#[test]
fn results_that_are_being_written_take_of_the_room_and_their_account_waits_first() {
    let engine = EngineConfig { value_bytes: 100, ..EngineConfig::default() };
    let own = |job: &str, account: &str| Waiting { bytes: 30, ..waiting(job, account, 1.0) };
    let mut board = Board::default();
    board.push("m", own("a0", "a"), false);
    let first = board.choose("m", &engine, false).remove(0);
    let first = begin(&mut board, "m", first);
    board.left(first, 1.0, 60);
    board.push("m", own("a1", "a"), false);
    assert!(board.choose("m", &engine, false).is_empty(), "its account has more than half of the room");
    board.push("m", own("b0", "b"), false);
    assert_eq!(names(&board.choose("m", &engine, false)), ["b0"]);
    board.push("m", own("c0", "c"), false);
    assert!(board.choose("m", &engine, false).is_empty(), "with what runs it would be more than there is");
    board.end(first);
    assert_eq!(names(&board.choose("m", &engine, false)), ["c0", "a1"]);
}

#[test]
fn only_a_model_whose_turn_it_is_is_loaded() {
    let engine = EngineConfig::default();
    let mut board = Board::default();
    assert_eq!(board.turn("a"), None);
    board.push("a", waiting("first", "x", 1.0), false);
    board.push("b", waiting("second", "x", 1.0), false);
    assert_eq!((board.turn("a"), board.turn("b")), (Some(Haste::None), Some(Haste::None)));
    board.push("b", waiting("suspect", "x", 1.0), true);
    board.push("a", waiting("another", "x", 1.0), true);
    assert_eq!((board.turn("a"), board.turn("b")), (None, Some(Haste::All)), "b's suspect is next");
    let chosen = board.choose("b", &engine, false).remove(0);
    let ticket = begin(&mut board, "b", chosen);
    assert_eq!((board.turn("a"), board.turn("b")), (None, None), "it runs while nothing else does");
    board.left(ticket, 1.0, 0);
    board.end(ticket);
    board.respite = None;
    assert_eq!((board.turn("a"), board.turn("b")), (Some(Haste::All), None));
    let chosen = board.choose("a", &engine, false).remove(0);
    let ticket = begin(&mut board, "a", chosen);
    board.end(ticket);
    assert_eq!((board.turn("a"), board.turn("b")), (Some(Haste::None), Some(Haste::None)));
}

#[test]
fn suspects_take_turns_with_what_else_waits() {
    let engine = EngineConfig::default();
    let took = Duration::from_millis(300);
    let mut board = Board::default();
    for number in 0..3 {
        board.push("m", waiting(&format!("suspect{number}"), "a", 1.0), true);
    }
    board.push("m", waiting("b0", "b", 1.0), false);
    let one = |board: &mut Board| {
        let chosen = board.choose("m", &engine, false);
        assert_eq!(chosen.len(), 1, "{:?}", names(&chosen));
        let chosen = chosen.into_iter().next().unwrap();
        let job = chosen.waiting.job.clone();
        (job, begin(board, "m", chosen))
    };
    let (job, first) = one(&mut board);
    assert_eq!(job, "suspect0");
    std::thread::sleep(took);
    board.left(first, 1.0, 0);
    board.end(first);
    assert_eq!(board.turn("m"), Some(Haste::None));
    let (job, normal) = one(&mut board);
    assert_eq!(job, "b0", "another's job waits for all suspects");
    // It is still at work: no suspect begins, though nothing else waits. Who comes meanwhile goes, as there is time left.
    assert!(board.choose("m", &engine, false).is_empty());
    board.push("m", waiting("c0", "c", 1.0), false);
    let (job, late) = one(&mut board);
    assert_eq!(job, "c0");
    for ticket in [normal, late] {
        board.left(ticket, 1.0, 0);
        board.end(ticket);
    }
    // Nothing waits: the next does not.
    let (job, second) = one(&mut board);
    assert_eq!(job, "suspect1");
    std::thread::sleep(took / 10);
    board.push("m", waiting("b1", "b", 1.0), false);
    board.end(second);
    assert_eq!(one(&mut board).0, "b1");
    // Once they have had as long as the suspect took nothing else begins before the next.
    board.push("m", waiting("b2", "b", 1.0), false);
    std::thread::sleep(took / 5);
    assert_eq!(board.turn("m"), Some(Haste::All));
    assert!(board.choose("m", &engine, false).is_empty());
}

#[test]
fn what_begins_holds_its_model_and_what_waits_does_not() {
    let mut board = Board::default();
    board.push("m", waiting("one", "a", 1.0), false);
    let chosen = board.choose("m", &EngineConfig::default(), false).remove(0);
    let held = held("m");
    let entry = held.entry().clone();
    let running = Running {
        waiting: chosen.waiting,
        attempt: 1,
        cancel: Arc::default(),
        put_back: Arc::default(),
        overflows: Arc::default(),
        alone: false,
        leaving: 0,
        held,
    };
    let ticket = board.begin(running);
    board.left(ticket, 1.0, 0);
    assert!(entry.is_held(), "its end is not recorded yet");
    let waits = board.end(ticket).unwrap().waiting;
    board.push("m", waits, false);
    assert!(!entry.is_held());
}

#[test]
fn long_jobs_do_not_begin_where_a_model_makes_way_nor_while_a_suspect_waits() {
    let (mut board, engine) = (Board::default(), EngineConfig::default());
    let long = |name: &str| waiting(name, "a", 1e6);
    board.push("m", long("first"), false);
    assert!(!board.runs_long("m"));
    let first = board.choose("m", &engine, false).remove(0);
    assert!(board.runs_long("m"));
    board.push("m", long("second"), false);
    board.push("m", waiting("short", "b", 1.0), false);
    assert_eq!(names(&board.choose("m", &engine, true)), ["short"]);
    assert_eq!(names(&board.choose("m", &engine, false)), ["second"]);
    board.unchoose("m", &first.waiting, false);
    // In the time that all others have after a suspect.
    let mut board =
        Board { respite: Instant::now().checked_add(std::time::Duration::from_secs(60)), ..Board::default() };
    board.push("m", waiting("suspect", "c", 1.0), true);
    board.push("m", long("long"), false);
    board.push("m", waiting("short", "b", 1.0), false);
    assert_eq!(names(&board.choose("m", &engine, false)), ["short"]);
}

#[test]
fn who_is_cancelled_between_being_chosen_and_beginning_is_called_off_at_once() {
    let mut board = Board::default();
    for job in ["a0", "a1", "a2"] {
        board.push("m", waiting(job, "a", 1.0), false);
    }
    let mut chosen = board.choose("m", &EngineConfig::default(), false);
    ["a0", "a2"].iter().for_each(|job| board.cancel(job));
    let again = chosen.pop().unwrap();
    board.unchoose("m", &again.waiting, false);
    let tickets: Vec<Ticket> = chosen.into_iter().map(|chosen| begin(&mut board, "m", chosen)).collect();
    let cancelled =
        tickets.iter().map(|ticket| board.running(*ticket).unwrap().cancel.load(Ordering::Relaxed));
    assert_eq!(cancelled.collect::<Vec<_>>(), [true, false]);
    // One that waits again is not called off for what was said before: the store has ended it.
    assert!(board.beginning.is_empty());
}
