//! How long programs wait for one another, and who leaves when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pellucid_engine::{
    Admission, EngineError, Explanation, Failure, Host, Load, Results, RunOptions, ServeOptions, Ticket,
    Usage,
};

use crate::script::{Script, checked, logits, trace, when};
use crate::support::Golden;

#[test]
fn a_newcomer_rides_in_the_next_pass_however_many_rows_others_have_left() {
    let engine = Golden::open("gpt2").engine();
    // One program of 200 invokes, in waves of 4; a small one comes while these go.
    let nodes: Vec<String> = (0..200).map(logits).collect();
    let flood = trace(&engine, &[4; 200], "", &nodes.join(","));
    let small = trace(&engine, &[3], "", &logits(0));
    let mut script = Script::default();
    script.join(0, 1, &flood, RunOptions::default());
    for ticket in 2..8 {
        script.join(ticket as usize * 5, ticket, &small, RunOptions::default());
    }
    let serve = ServeOptions { pass_tokens: 16, ..ServeOptions::default() };
    let script = script.play(&engine, &serve);
    assert!(script.passes.len() >= 50, "{} passes", script.passes.len());
    for ticket in 2..8 {
        let (ended, joined) = (&script.ended[&Ticket(ticket)], script.joined[&Ticket(ticket)]);
        assert_eq!(ended.passes, joined + 1, "{ticket} waits");
    }
    assert!(script.passes.iter().all(|pass| pass.tokens <= 16), "a pass is too large");
    let alone = engine.run(&flood, &RunOptions::default()).unwrap();
    assert!(alone.tensors.iter().all(|(name, tensor)| tensor.is_same_bits(&script.result(1).tensors[name])));
}

#[test]
fn a_program_of_several_traces_does_not_lose_its_turn_to_newcomers() {
    let engine = Golden::open("gpt2").engine();
    let trace_of = |place: usize| {
        format!(
            r#"{{"op":"trace","name":"t{place}","invokes":[{{"name":"i","tokens":[[1,2,3]]}}],"body":[{{"op":"get","name":"l{place}","hook":"logits"}},{{"op":"save","name":"s{place}","value":"l{place}"}}]}}"#
        )
    };
    let several = checked(&engine, &[trace_of(0), trace_of(1), trace_of(2)].join(","));
    let one = checked(&engine, &trace_of(0));
    let mut script = Script::default();
    script.join(0, 0, &several, RunOptions::default());
    // As many come as there is room for, for ever.
    for boundary in 0..40 {
        script.join(boundary, 1 + boundary as u64, &one, RunOptions::default());
    }
    let script = script.play(&engine, &ServeOptions { pass_tokens: 3, ..ServeOptions::default() });
    let ended = &script.ended[&Ticket(0)];
    assert!(ended.passes <= 20, "it waits for {} passes", ended.passes);
    let alone = engine.run(&several, &RunOptions::default()).unwrap();
    for (name, tensor) in &alone.tensors {
        assert!(tensor.is_same_bits(&script.result(0).tensors[name]));
    }
    // Nor do they wait long: each for no more than the passes of those that came before.
    for (ticket, ended) in &script.ended {
        let waited = ended.passes - script.joined[ticket];
        assert!(waited <= 20, "{ticket:?} waits for {waited} passes");
    }
}

#[test]
fn a_program_that_does_not_fit_into_a_pass_waits_for_the_next_whole() {
    let engine = Golden::open("gpt2").engine();
    let two = trace(&engine, &[4, 4], "", &format!("{},{}", logits(0), logits(1)));
    let mut script = Script::default();
    for ticket in 0..3 {
        script.join(0, ticket, &two, RunOptions::default());
    }
    let script = script.play(&engine, &ServeOptions { pass_tokens: 12, ..ServeOptions::default() });
    let tokens: Vec<usize> = script.passes.iter().map(|pass| pass.tokens).collect();
    assert_eq!(tokens, [8, 8, 8]);
    let last: Vec<usize> = (0..3).map(|ticket| script.ended[&Ticket(ticket)].passes).collect();
    assert_eq!(last, [1, 2, 3]);
}

#[test]
fn one_invoke_that_takes_too_long_is_walked_in_several_passes_and_others_ride_between() {
    for name in ["gpt2", "gemma2", "qwen3"] {
        let engine = Golden::open(name).engine();
        let large = trace(&engine, &[12], "", &logits(0));
        let small = trace(&engine, &[2], "", &logits(0));
        let alone = engine.run(&large, &RunOptions::default()).unwrap();
        let mut script = Script::default();
        script.join(0, 1, &large, RunOptions::default());
        script.join(2, 2, &small, RunOptions::default());
        // No pass is short enough: each is cut wherever it can be.
        let serve = ServeOptions { pass_ms: 0.0, ..ServeOptions::default() };
        let script = script.play(&engine, &serve);
        let own: Vec<_> = script.passes.iter().filter(|pass| pass.tickets == [Ticket(1)]).collect();
        assert!(own.len() > 1, "{name}: it is not cut");
        assert!(own.windows(2).all(|two| two[0].to == two[1].from), "{name}: it does not go on where it was");
        let between = script.passes.iter().position(|pass| pass.tickets.contains(&Ticket(2))).unwrap();
        let last = script.passes.iter().rposition(|pass| pass.tickets.contains(&Ticket(1))).unwrap();
        assert!(between < last, "{name}: the small one waits for all of the large one");
        assert_eq!(alone.report.passes, 1);
        for (name, tensor) in &alone.tensors {
            assert!(tensor.is_same_bits(&script.result(1).tensors[name]));
        }
    }
}

#[test]
fn generations_join_and_leave_at_any_step() {
    let engine = Golden::open("llama3").engine();
    let generation = |steps: usize, length: usize| {
        trace(
            &engine,
            &[length],
            &format!(r#","generate":{{"max_new_tokens":{steps},"stop_tokens":[],"temperature":0.8}}"#),
            r#"{"op":"generated","name":"g","invoke":"i0"},{"op":"save","name":"s","value":"g"},
            {"op":"steps","name":"each","body":[{"op":"get","name":"h","invoke":"i0","hook":"layers.1.output"},
            {"op":"mul","name":"more","input":"h","other":1.5},{"op":"set","invoke":"i0","hook":"layers.1.output","value":"more"},{"op":"save","name":"k","value":"more"}]}"#,
        )
    };
    let programs = [(9, 4), (3, 2), (5, 6), (1, 3), (12, 1)].map(|(steps, length)| generation(steps, length));
    let alone: Vec<_> =
        programs.iter().map(|program| engine.run(program, &RunOptions::default()).unwrap()).collect();
    let mut script = Script::default();
    let told = Arc::new(Mutex::new(Vec::new()));
    for (ticket, program) in programs.iter().enumerate() {
        let told = told.clone();
        let on_token: pellucid_engine::job::OnToken =
            Arc::new(move |token| told.lock().unwrap().push((ticket, token.step, token.token)));
        let options = RunOptions { on_token: Some(on_token), ..RunOptions::default() };
        script.join(2 * ticket, ticket as u64, program, options);
    }
    let script = script.play(&engine, &ServeOptions::default());
    for (ticket, alone) in alone.iter().enumerate() {
        let together = script.result(ticket as u64);
        assert_eq!(alone.tensors.len(), together.tensors.len());
        for (name, tensor) in &alone.tensors {
            assert!(tensor.is_same_bits(&together.tensors[name]), "{ticket} {name}");
        }
        let tokens: Vec<i64> = told
            .lock()
            .unwrap()
            .iter()
            .filter(|told| told.0 == ticket)
            .map(|&(_, _, token)| i64::from(token))
            .collect();
        assert_eq!(tokens, alone.tensors["s"].to_vec_i64().unwrap());
        // Everybody rides in every pass while there, and leaves after the last.
        let ended = &script.ended[&Ticket(ticket as u64)];
        assert_eq!(ended.usage.passes as usize, alone.report.passes);
        assert_eq!(ended.passes, script.joined[&Ticket(ticket as u64)] + alone.report.passes);
    }
    assert!(script.passes.iter().any(|pass| pass.programs >= 3));
    let tokens: usize = script.passes.iter().map(|pass| pass.tokens).sum();
    let used: u64 = script.ended.values().map(|ended| ended.usage.tokens).sum();
    assert_eq!(tokens as u64, used);
    let measured: f64 = script.passes.iter().map(|pass| pass.measured_ms).sum();
    let charged: f64 = script.ended.values().map(|ended| ended.usage.measured_ms).sum();
    assert!(charged >= measured * 0.999, "{charged} ms of {measured} ms are charged");
}

#[test]
fn a_long_operation_of_one_program_does_not_stop_the_others() {
    let engine = Golden::open("gpt2").engine();
    // A product that takes longer than a pass may, waited for by an edit; and one that goes between passes.
    let long = |size: usize| {
        format!(
            r#"{{"op":"randn","name":"a","size":[{size},{size}]}},{{"op":"matmul","name":"b","input":"a","other":"a"}},{{"op":"sum","name":"c","input":"b"}},
            {{"op":"get","name":"h","invoke":"i0","hook":"layers.0.output"}},{{"op":"add","name":"d","input":"h","other":"c"}},
            {{"op":"set","invoke":"i0","hook":"layers.0.output","value":"d"}},{}"#,
            logits(0)
        )
    };
    let heavy = trace(&engine, &[5], "", &long(700));
    let middling = trace(&engine, &[5], "", &long(288));
    let small = trace(
        &engine,
        &[4],
        r#","generate":{"max_new_tokens":40,"stop_tokens":[]}"#,
        r#"{"op":"generated","name":"g","invoke":"i0"},{"op":"save","name":"s0","value":"g"}"#,
    );
    for helper_threads in [0, 1, 2] {
        let mut script = Script::default();
        script.join(0, 0, &small, RunOptions::default());
        script.join(3, 1, &heavy, RunOptions::default());
        script.join(3, 2, &middling, RunOptions::default());
        let serve = ServeOptions { pass_ms: 20.0, helper_threads, ..ServeOptions::default() };
        let script = script.play(&engine, &serve);
        for (ticket, program) in [(0, &small), (1, &heavy), (2, &middling)] {
            let alone = engine.run(program, &RunOptions::default()).unwrap();
            assert!(alone.tensors["s0"].is_same_bits(&script.result(ticket).tensors["s0"]), "{ticket}");
        }
        if helper_threads > 0 {
            let (joined, ended) = (script.joined[&Ticket(1)], &script.ended[&Ticket(1)]);
            assert!(ended.passes - joined > 3, "others wait for it: {} passes", ended.passes - joined);
        }
        assert!(script.ended[&Ticket(1)].usage.measured_ms > 1.0);
    }
}

#[test]
fn what_nobody_waits_for_any_more_is_not_computed_to_its_end() {
    let engine = Golden::open("gpt2").engine();
    // Tens of seconds of work, on another thread and here.
    let long = trace(
        &engine,
        &[4],
        "",
        &format!(
            r#"{{"op":"ones","name":"a","size":[3000,3000],"dtype":"f64"}},{{"op":"matmul","name":"b","input":"a","other":"a"}},{{"op":"save","name":"s","value":"b"}},{}"#,
            logits(0)
        ),
    );
    let small = trace(&engine, &[4], "", &logits(0));
    for helper_threads in [0, 1] {
        let cancel = Arc::new(AtomicBool::new(false));
        let (started, later) = (Instant::now(), cancel.clone());
        let canceller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            later.store(true, Ordering::Relaxed);
        });
        let mut script = Script::default();
        script.join(0, 0, &long, RunOptions { cancel: Some(cancel), ..RunOptions::default() });
        script.join(0, 1, &small, RunOptions::default());
        let script = script.play(&engine, &ServeOptions { helper_threads, ..ServeOptions::default() });
        canceller.join().unwrap();
        assert_eq!(*script.error(0), EngineError::Cancelled);
        assert!(script.ended[&Ticket(1)].outcome.is_ok());
        let charged = script.ended[&Ticket(0)].usage.measured_ms;
        assert!(charged > 100.0, "{charged} ms are charged of what was stopped after 300 ms");
        let seconds = started.elapsed().as_secs_f64();
        assert!(seconds < 15.0, "it takes {seconds} s to stop");
    }
}

#[test]
fn budgets_hold_while_others_run() {
    let engine = Golden::open("gpt2").engine();
    let small = trace(&engine, &[4], "", &logits(0));
    let long = trace(
        &engine,
        &[4],
        r#","generate":{"max_new_tokens":50,"stop_tokens":[]}"#,
        r#"{"op":"generated","name":"g","invoke":"i0"},{"op":"save","name":"s0","value":"g"}"#,
    );
    let mut script = Script::default();
    script.join(0, 0, &long, RunOptions::default());
    script.join(2, 1, &long, RunOptions { seconds: Some(0.0), ..RunOptions::default() });
    script.join(4, 2, &small, RunOptions { memory_bytes: Some(16), ..RunOptions::default() });
    let script = script.play(&engine, &ServeOptions::default());
    assert!(matches!(script.error(1), EngineError::DeadlineExceeded { .. }), "{}", script.error(1));
    assert!(matches!(script.error(2), EngineError::MemoryExceeded { .. }), "{}", script.error(2));
    assert!(script.ended[&Ticket(1)].passes < script.ended[&Ticket(0)].passes);
    let alone = engine.run(&long, &RunOptions::default()).unwrap();
    assert!(alone.tensors["s0"].is_same_bits(&script.result(0).tensors["s0"]));
    // What is there is told at every boundary.
    let most = script.loads.iter().map(|load| load.programs).max();
    assert!(script.loads[0].is_idle() && most >= Some(1));
    assert!(script.loads.iter().any(|load| load.reserved_bytes >= long.price.peak_bytes));
}

/// A host that plays a script, and notes when it was asked.
#[derive(Default)]
struct Timed {
    script: Script,
    asked: Vec<Instant>,
    /// When those that are small were there and had left.
    small: Vec<(Instant, Option<Instant>)>,
}

impl Host for Timed {
    fn admit(&mut self, load: &Load) -> Admission {
        self.asked.push(Instant::now());
        let admission = self.script.admit(load);
        if let Admission::Programs(programs) = &admission {
            let small = programs.iter().filter(|admitted| admitted.ticket.0 > 100);
            self.small.extend(small.map(|_| (Instant::now(), None)));
        }
        admission
    }

    fn finished(&mut self, ticket: Ticket, outcome: Result<Results, Box<Failure>>, usage: Usage) {
        if ticket.0 > 100 {
            self.small[ticket.0 as usize - 101].1 = Some(Instant::now());
        }
        self.script.finished(ticket, outcome, usage);
    }
}

/// A loop of so many additions.
fn additions(place: usize, count: usize) -> String {
    format!(
        r#"{{"op":"loop","name":"z{place}","count":{count},"carry":{{"c{place}":"one"}},"body":[{{"op":"add","name":"n{place}","input":"c{place}","other":1.0}}],"next":{{"c{place}":"n{place}"}}}},{{"op":"save","name":"s{place}","value":"z{place}"}}"#
    )
}

/// What they begin with.
const ONE: &str = r#"{"op":"literal","name":"one","dtype":"f32","shape":[],"elements":[1.0]}"#;

#[test]
fn many_small_nodes_of_one_program_make_way_for_others() {
    let engine = Golden::open("gpt2").engine();
    let alone = checked(&engine, &format!("{ONE},{}", additions(0, 200_000)));
    assert!(alone.price.nodes >= 200_000, "{:?}", alone.price);
    // The same in the middle of a pass, where what is set at a later hook point waits for it.
    let inside = format!(
        r#"{{"op":"get","name":"h","hook":"layers.0.output"}},{{"op":"sum","name":"one","input":"h"}},{},
           {{"op":"mul","name":"zero","input":"z1","other":0.0}},{{"op":"get","name":"k","hook":"layers.1.output"}},
           {{"op":"add","name":"new","input":"k","other":"zero"}},{{"op":"set","hook":"layers.1.output","value":"new"}},{}"#,
        additions(1, 40_000),
        logits(0)
    );
    let inside = trace(&engine, &[3], "", &inside);
    // And as many getters at one hook point.
    let getters: String = format!(
        r#"{{"op":"loop","name":"g","count":20000,"body":[{{"op":"get","name":"h","hook":"layers.0.output"}},{{"op":"print","name":"p","value":"h"}}]}},{}"#,
        logits(0)
    );
    let getters = trace(&engine, &[3], "", &getters);
    let small = trace(&engine, &[3], "", &logits(0));
    let started = Instant::now();
    let expected: Vec<_> = [&alone, &inside, &getters]
        .map(|program| engine.run(program, &RunOptions::default()).unwrap())
        .into();
    let took = started.elapsed();
    let mut host = Timed::default();
    for (place, program) in [&alone, &inside, &getters].into_iter().enumerate() {
        host.script.join(0, place as u64 + 1, program, RunOptions::default());
    }
    for number in 0..10 {
        host.script.join(2 + 3 * number, 101 + number as u64, &small, RunOptions::default());
    }
    let serve = ServeOptions { pass_ms: 20.0, ..ServeOptions::default() };
    engine.serve(&mut host, &serve);
    for (place, expected) in expected.iter().enumerate() {
        let result = host.script.result(place as u64 + 1);
        assert!(
            expected.tensors.iter().all(|(name, tensor)| tensor.is_same_bits(&result.tensors[name])),
            "{place}"
        );
        assert_eq!(result.logs.len(), expected.logs.len());
    }
    let longest = host.asked.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    let waits: Vec<Duration> =
        host.small.iter().map(|(came, left)| left.unwrap().duration_since(*came)).collect();
    println!(
        "alone they take {took:?}; {} boundaries, at most {longest:?} apart; small ones {waits:?}",
        host.asked.len()
    );
    assert!(host.asked.len() > 20, "{} boundaries", host.asked.len());
    // Slices of 20 ms, on a machine that has other things to do.
    assert!(longest < (took / 4).max(Duration::from_millis(150)), "{longest:?} of {took:?}");
    assert!(waits.iter().all(|wait| *wait < took / 2), "{waits:?} of {took:?}");
}

#[test]
fn getters_that_share_rows_bring_no_more_than_the_program_may_hold() {
    const CELLS: usize = 3_000;
    const ALLOWED: u64 = 1 << 20;
    let engine = Golden::open("gpt2").engine();
    // All cells read the same prompt's residual stream: one row, were it not for what that brings at once.
    let invokes: Vec<String> = (0..CELLS)
        .map(|cell| format!(r#"{{"name":"i{cell}","tokens":[[5,22,39,56,73,90,8,25]]}}"#))
        .collect();
    let nodes: Vec<String> = (0..CELLS)
        .map(|cell| {
            format!(
                r#"{{"op":"get","name":"h{cell}","invoke":"i{cell}","hook":"layers.1.output"}},
                {{"op":"mul","name":"m{cell}","input":"h{cell}","other":{cell}.5}},
                {{"op":"sum","name":"t{cell}","input":"m{cell}"}},{{"op":"save","name":"s{cell}","value":"t{cell}"}}"#
            )
        })
        .collect();
    let (invokes, nodes) = (invokes.join(","), nodes.join(","));
    let cells = checked(&engine, &format!(r#"{{"op":"trace","invokes":[{invokes}],"body":[{nodes}]}}"#));
    let alone = engine.run(&cells, &RunOptions::default()).unwrap();
    let mut script = Script::default();
    script.join(0, 0, &cells, RunOptions { memory_bytes: Some(ALLOWED), ..RunOptions::default() });
    script.join(1, 1, &trace(&engine, &[3], "", &logits(0)), RunOptions::default());
    let script = script.play(&engine, &ServeOptions { pass_ms: 1.0, ..ServeOptions::default() });
    let result = script.result(0);
    assert!(alone.tensors.iter().all(|(name, tensor)| tensor.is_same_bits(&result.tensors[name])));
    assert!(script.loads.iter().all(|load| load.held_bytes <= ALLOWED), "it holds more than it may");
    // Together the getters bring more than that.
    let width = engine.model().spec().sizes.hidden;
    assert!(CELLS as u64 * 8 * width * 4 > 2 * ALLOWED);
}

#[test]
fn of_many_invokes_that_are_cut_few_wait_at_once() {
    let engine = Golden::open("gpt2").engine();
    let invoke =
        |number: usize| format!(r#"{{"name":"i{number}","tokens":[[{number},22,39,56,73,90,8,25]]}}"#);
    let nodes = |number: usize| {
        format!(
            r#"{{"op":"get","name":"h{number}","invoke":"i{number}","hook":"layers.1.output"}},
            {{"op":"sum","name":"t{number}","input":"h{number}"}},{{"op":"save","name":"s{number}","value":"t{number}"}}"#
        )
    };
    let (invokes, nodes): (Vec<_>, Vec<_>) = (0..60).map(|number| (invoke(number), nodes(number))).unzip();
    let (invokes, nodes) = (invokes.join(","), nodes.join(","));
    let program = checked(&engine, &format!(r#"{{"op":"trace","invokes":[{invokes}],"body":[{nodes}]}}"#));
    let alone = engine.run(&program, &RunOptions::default()).unwrap();
    let mut script = Script::default();
    script.join(0, 0, &program, RunOptions { memory_bytes: Some(20 << 10), ..RunOptions::default() });
    let script = script.play(&engine, &ServeOptions { pass_ms: 0.01, ..ServeOptions::default() });
    let result = script.result(0);
    assert!(alone.tensors.iter().all(|(name, tensor)| tensor.is_same_bits(&result.tensors[name])));
    assert!(result.report.passes > 60, "none is cut: {}", result.report.passes);
}

#[test]
fn a_copy_of_much_has_its_price_and_is_not_made_in_a_pass() {
    const SIDE: u64 = 1024;
    let engine = Golden::open("gpt2").engine();
    // In the middle of a pass one number is seen as a million, and these in another shape; an edit waits for one of them.
    let waiting = |nodes: &str| {
        trace(
            &engine,
            &[4],
            "",
            &format!(
                r#"{{"op":"get","name":"h","hook":"layers.0.output"}},{{"op":"sum","name":"one","input":"h"}},{nodes},
                {{"op":"reshape","name":"flat","input":"much","shape":[-1]}},{{"op":"getitem","name":"e","input":"flat","index":[5]}},
                {{"op":"get","name":"k","hook":"layers.1.output"}},{{"op":"add","name":"new","input":"k","other":"e"}},
                {{"op":"set","hook":"layers.1.output","value":"new"}},{}"#,
                logits(0)
            ),
        )
    };
    let copied = waiting(&format!(
        r#"{{"op":"expand","name":"much","input":"one","size":[{SIDE},{SIDE}]}},{{"op":"save","name":"all","value":"much"}}"#
    ));
    let viewed = waiting(&format!(
        r#"{{"op":"ones","name":"ones","size":[{SIDE},{SIDE}]}},{{"op":"mul","name":"much","input":"ones","other":"one"}}"#
    ));
    let forward = trace(&engine, &[4], "", &logits(0)).price.flops;
    // The reshape, and the save.
    assert!(copied.price.flops >= forward + 2 * SIDE * SIDE, "{:?}", copied.price);
    for (program, passes) in [(&copied, 2), (&viewed, 1)] {
        let alone = engine.run(program, &RunOptions::default()).unwrap();
        assert_eq!(alone.report.passes, 1);
        let mut script = Script::default();
        script.join(0, 1, program, RunOptions::default());
        let script = script.play(&engine, &ServeOptions { pass_ms: 1000.0, ..ServeOptions::default() });
        assert_eq!(script.ended[&Ticket(1)].usage.passes, passes, "where it is copied it leaves the pass");
        let result = script.result(1);
        assert_eq!(alone.tensors.len(), result.tensors.len());
        assert!(alone.tensors.iter().all(|(name, tensor)| tensor.is_same_bits(&result.tensors[name])));
    }
    // Seven times from one layout into the other, without a trace.
    let turns: Vec<String> = (0..7)
        .map(|turn| {
            let rows = SIDE << (turn % 2);
            format!(
                r#"{{"op":"transpose","name":"t{turn}","input":"z{turn}","dim0":0,"dim1":1}},{{"op":"reshape","name":"z{}","input":"t{turn}","shape":[{rows},-1]}}"#,
                turn + 1
            )
        })
        .collect();
    let turned = format!(
        r#"{{"op":"zeros","name":"z0","size":[{SIDE},{SIDE}],"dtype":"u8"}},{},{{"op":"getitem","name":"e","input":"z7","index":[0,0]}},{{"op":"save","name":"s","value":"e"}}"#,
        turns.join(",")
    );
    let price = checked(&engine, &turned).price;
    assert!(price.flops >= 8 * SIDE * SIDE, "{price:?}");
}

#[test]
fn what_runs_when_another_thread_brings_its_result_is_the_programs_time_and_makes_way() {
    let engine = Golden::open("gpt2").engine();
    // A product on another thread, and then very many additions that wait for it.
    let program = checked(
        &engine,
        &format!(
            r#"{{"op":"randn","name":"a","size":[288,288]}},{{"op":"matmul","name":"b","input":"a","other":"a"}},{{"op":"sum","name":"one","input":"b"}},{}"#,
            additions(0, 100_000)
        ),
    );
    let small = trace(&engine, &[3], "", &logits(0));
    let started = Instant::now();
    let alone = engine.run(&program, &RunOptions::default()).unwrap();
    let took = started.elapsed();
    let mut host = Timed::default();
    host.script.join(0, 1, &program, RunOptions::default());
    for number in 0..10 {
        host.script.join(2 + 3 * number, 101 + number as u64, &small, RunOptions::default());
    }
    engine.serve(&mut host, &ServeOptions { pass_ms: 2.0, ..ServeOptions::default() });
    assert!(alone.tensors["s0"].is_same_bits(&host.script.result(1).tensors["s0"]));
    let longest = host.asked.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    let usage = host.script.ended[&Ticket(1)].usage;
    println!("alone it takes {took:?}; boundaries at most {longest:?} apart; {usage:?}");
    assert!(longest < (took / 8).max(Duration::from_millis(150)), "{longest:?} of {took:?}");
    let milliseconds = took.as_secs_f64() * 1000.0;
    assert!(usage.measured_ms > milliseconds / 3.0, "{usage:?} of {milliseconds} ms");
    assert!(usage.nodes >= 100_000 && usage.nodes_ms > milliseconds / 3.0, "{usage:?} of {milliseconds} ms");
    // What it has been given, by which its account waits, is worth the time.
    assert!(usage.flops > 10 * 2 * 160_u64.pow(3), "{usage:?}");
}

#[test]
fn a_generation_that_stops_tells_of_the_passes_that_it_made_only() {
    let engine = Golden::open("gpt2").engine();
    let stops = trace(
        &engine,
        &[5],
        r#","generate":{"max_new_tokens":50,"stop_tokens":[]}"#,
        r#"{"op":"steps","name":"each","body":[{"op":"get","name":"l","hook":"logits"},{"op":"amax","name":"m","input":"l"},
        {"op":"lt","name":"is","input":"m","other":1e9},{"op":"stop","when":"is"}]},{"op":"generated","name":"g"},{"op":"save","name":"s","value":"g"}"#,
    );
    let mut script = Script::default();
    script.join(0, 1, &stops, RunOptions::default());
    let script = script.play(&engine, &ServeOptions::default());
    let usage = script.ended[&Ticket(1)].usage;
    assert_eq!(usage.passes, 1);
    assert!(
        usage.pass_flops > 0 && usage.pass_flops < stops.price.flops / 5,
        "{usage:?} of {:?}",
        stops.price
    );
    assert!(usage.nodes > 0 && usage.nodes < stops.price.nodes / 5, "{usage:?} of {:?}", stops.price);
    assert!(usage.pass_ms > 0.0 && usage.pass_ms <= usage.measured_ms, "{usage:?}");
}

#[test]
fn many_heavy_operations_of_one_program_take_turns_with_the_one_of_another() {
    const MANY: usize = 60;
    let engine = Golden::open("gpt2").engine();
    let products = |count: usize| {
        let nodes: Vec<String> = (0..count)
            .map(|place| {
                format!(
                    r#"{{"op":"matmul","name":"b{place}","input":"a","other":"a"}},{{"op":"sum","name":"c{place}","input":"b{place}"}},{{"op":"save","name":"s{place}","value":"c{place}"}}"#
                )
            })
            .collect();
        checked(&engine, &format!(r#"{{"op":"randn","name":"a","size":[288,288]}},{}"#, nodes.join(",")))
    };
    let (many, one) = (products(MANY), products(1));
    for helper_threads in [1, 2] {
        let mut script = Script::default();
        let listen = |ticket: u64| {
            let heard = script.heard.clone();
            let on_saved: pellucid_engine::job::OnSaved =
                Arc::new(move |_| heard.lock().unwrap().push(format!("{ticket} saves")));
            RunOptions { on_saved: Some(on_saved), ..RunOptions::default() }
        };
        let (first, second) = (listen(1), listen(2));
        script.join(0, 1, &many, first);
        script.join(4, 2, &one, second);
        let script =
            script.play(&engine, &ServeOptions { pass_ms: 2.0, helper_threads, ..ServeOptions::default() });
        let heard = script.heard.lock().unwrap().clone();
        let count = |events: &[String], what: &str| events.iter().filter(|event| *event == what).count();
        let (came, saved) = (when(&heard, "2 comes"), when(&heard, "2 saves"));
        assert_eq!(count(&heard, "1 saves"), MANY);
        let there = count(&heard[..came], "1 saves");
        let (before, after) = (count(&heard[came..saved], "1 saves"), count(&heard[saved..], "1 saves"));
        assert!(there < MANY / 2, "{there} had come to their end before it came: nobody has to make way");
        // What is saved lags behind what is computed; all that the other still has to compute does not come first.
        assert!(
            before < MANY / 2 && after > 4,
            "with {helper_threads} threads it waits for {before} of the other's {MANY}"
        );
        for (ticket, program) in [(1, &many), (2, &one)] {
            let alone = engine.run(program, &RunOptions::default()).unwrap();
            let result = script.result(ticket);
            assert!(alone.tensors.iter().all(|(name, tensor)| tensor.is_same_bits(&result.tensors[name])));
        }
        println!("after {there}, {before} before it, with {helper_threads} threads");
    }
}

#[test]
fn who_makes_what_it_writes_between_passes_is_not_told_to_go_on_with_others() {
    const MANY: usize = 12;
    let engine = Golden::open("gpt2").engine();
    let invokes: Vec<String> = (0..MANY)
        .map(|place| format!(r#"{{"name":"i{place}","tokens":[[5,22,39,56,73,90,8,25]]}}"#))
        .collect();
    // All write the same, of which a product of two large matrices is a part.
    let nodes: Vec<String> = (0..MANY)
        .map(|place| {
            format!(
                r#"{{"op":"get","name":"h{place}","invoke":"i{place}","hook":"layers.0.output"}},{{"op":"mean","name":"m{place}","input":"h{place}"}},
                {{"op":"mul","name":"w{place}","input":"big","other":"m{place}"}},{{"op":"matmul","name":"p{place}","input":"w{place}","other":"big"}},
                {{"op":"mean","name":"v{place}","input":"p{place}"}},{{"op":"set","invoke":"i{place}","hook":"layers.0.output","value":"v{place}"}},{}"#,
                logits(place)
            )
        })
        .collect();
    let body = format!(
        r#"{{"op":"ones","name":"big","size":[400,400]}},{{"op":"trace","invokes":[{}],"body":[{}]}}"#,
        invokes.join(","),
        nodes.join(",")
    );
    let (program, options) = (checked(&engine, &body), RunOptions::default());
    let serve = ServeOptions::default();
    let plan = engine.explain_together(&[(&*program, &options)], &serve).unwrap();
    let tokens = |plan: &Explanation| plan.passes.iter().map(|pass| pass.tokens).sum::<usize>();
    // Where nothing is left for later all are one row; where it is, each waits with rows of its own.
    assert!(tokens(&engine.explain(&program).unwrap()) < 3 * 8);
    assert!(tokens(&plan) >= 8 * MANY, "{plan}");
    let mut script = Script::default();
    script.join(0, 1, &program, options);
    let script = script.play(&engine, &serve);
    assert!(script.result(1).report.tokens >= 8 * MANY as u64);
}
