//! Traces of a session that do not depend on one another run together: which these are, what that comes to, and that nobody who
//! watches sees it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pellucid_engine::{Engine, EngineError, Progress, Results, Rewrites, RunOptions, Tensor};
use pellucid_graph::check::CheckedProgram;
use pellucid_graph::{Program, limits};

use support::Golden;

fn engine() -> Engine {
    Golden::open("gpt2").engine()
}

fn apart(engine: &Engine) -> Engine {
    engine.share().with_rewrites(Rewrites { traces: false, ..Rewrites::ALL })
}

fn checked(engine: &Engine, body: &str) -> CheckedProgram {
    let text = format!(r#"{{"pellucid":1,"body":[{body}]}}"#);
    let program = Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    engine.check(program).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

const TOKENS: &str = "[[8,3,9,5,4,4,2]]";

/// A trace of one invoke.
fn trace(name: &str, nodes: &str) -> String {
    format!(
        r#"{{"op":"trace","name":"{name}","invokes":[{{"name":"p","tokens":{TOKENS}}}],"body":[{nodes}]}}"#
    )
}

/// A trace that saves a hook point, and something that it makes of it.
fn reading(name: &str, hook: &str) -> String {
    trace(
        name,
        &format!(
            r#"{{"op":"get","name":"h_{name}","hook":"{hook}"}},{{"op":"mean","name":"m_{name}","input":"h_{name}"}},{{"op":"save","name":"s_{name}","value":"m_{name}"}}"#
        ),
    )
}

/// A trace whose rows get a value added from outside.
fn adding(name: &str, value: &str) -> String {
    trace(
        name,
        &format!(
            r#"{{"op":"get","name":"h_{name}","hook":"layers.0.output"}},{{"op":"add","name":"a_{name}","input":"h_{name}","other":"{value}"}},
            {{"op":"set","hook":"layers.0.output","value":"a_{name}"}},{{"op":"get","name":"l_{name}","hook":"logits"}},
            {{"op":"mean","name":"m_{name}","input":"l_{name}"}},{{"op":"save","name":"s_{name}","value":"m_{name}"}}"#
        ),
    )
}

fn assert_same(one: &Results, other: &Results) {
    assert!(one.tensors.keys().eq(other.tensors.keys()));
    for (name, tensor) in &one.tensors {
        assert!(tensor.is_same_bits(&other.tensors[name]), "`{name}` differs");
    }
    // Within a trace they come as they arise.
    let logs = |results: &Results| {
        let bits =
            |value: &Tensor| value.to_vec_f64().unwrap().into_iter().map(f64::to_bits).collect::<Vec<_>>();
        let entries = results.logs.iter().map(|entry| (entry.name.clone(), bits(&entry.value)));
        entries.collect::<BTreeSet<_>>()
    };
    assert_eq!(logs(one), logs(other));
}

/// Runs a program together, apart and the simple way.
fn run(engine: &Engine, program: &CheckedProgram) -> Results {
    let together = engine.run(program, &RunOptions::default()).unwrap();
    assert_same(&together, &apart(engine).run(program, &RunOptions::default()).unwrap());
    assert_same(&together, &engine.run_naive(program).unwrap());
    together
}

/// Patching one head's mixed values at the last position, for every layer and head, a trace for each.
fn every_head(layers: u64, heads: u64) -> String {
    let hooks: Vec<String> = (0..layers).map(|layer| format!("layers.{layer}.attention.mixed")).collect();
    let clean: Vec<String> = hooks
        .iter()
        .enumerate()
        .map(|(layer, hook)| {
            format!(
                r#"{{"op":"get","name":"c{layer}","hook":"{hook}"}},{{"op":"getitem","name":"z{layer}","input":"c{layer}","index":[":",-1]}}"#
            )
        })
        .collect();
    let mut traces = vec![format!(
        r#"{{"op":"trace","name":"clean","invokes":[{{"name":"clean","tokens":[[7,3,9,1,4,4,2]]}}],"body":[{}]}}"#,
        clean.join(",")
    )];
    for (layer, hook) in hooks.iter().enumerate() {
        for head in 0..heads {
            let at = format!("{layer}_{head}");
            traces.push(trace(
                &format!("t{at}"),
                &format!(
                    r#"{{"op":"getitem","name":"w{at}","input":"z{layer}","index":[":",{head}]}},
                    {{"op":"get","name":"m{at}","hook":"{hook}"}},{{"op":"index_put","name":"n{at}","input":"m{at}","index":[":",-1,{head}],"values":"w{at}"}},
                    {{"op":"set","hook":"{hook}","value":"n{at}"}},{{"op":"get","name":"l{at}","hook":"logits"}},
                    {{"op":"getitem","name":"a{at}","input":"l{at}","index":[":",-1,0]}},{{"op":"save","name":"s{at}","value":"a{at}"}}"#
                ),
            ));
        }
    }
    traces.join(",")
}

#[test]
fn a_session_of_many_traces_costs_what_one_trace_of_many_invokes_does() {
    let engine = engine();
    let sizes = &engine.model().spec().sizes;
    let cells = sizes.layers * sizes.heads;
    let program = checked(&engine, &every_head(sizes.layers, sizes.heads));
    let results = run(&engine, &program);
    // The clean prompt, then the corrupted one and one position of each cell.
    assert_eq!((results.report.passes, results.report.tokens), (2, 7 + 7 + cells));
    let one_after_another = apart(&engine).run(&program, &RunOptions::default()).unwrap();
    assert_eq!(one_after_another.report.passes as u64, 1 + cells);
    let explanation = engine.explain(&program).unwrap();
    let told = explanation.to_string();
    for line in [
        format!(
            "pass 2: the beginning → lm_head.output ({} tokens, traces 2 to {} together)",
            7 + cells,
            1 + cells
        ),
        format!(
            "  {cells} × p: 7 tokens each, shared as far as transformer.h.0.attn.mixed … transformer.h.{}.attn.mixed, from there 1 own from column 6 on, until lm_head.output, logits of 1 vocabulary column at position 6",
            sizes.layers - 1
        ),
    ] {
        assert!(told.lines().any(|told| told == line), "{line}\n{told}");
    }
    assert_eq!(explanation.passes[1].traces, (1, cells as usize));
}

/// Which traces of a session run together with the one before them.
fn joins(engine: &Engine, body: &str) -> Vec<bool> {
    let program = checked(engine, body);
    let found = program.traces.iter().map(|trace| trace.joins).collect();
    run(engine, &program);
    found
}

#[test]
fn what_depends_on_an_earlier_trace_waits_for_it() {
    let engine = engine();
    let (one, two) = (reading("one", "layers.1.output"), reading("two", "layers.0.output"));
    assert_eq!(joins(&engine, &format!("{one},{two}")), [false, true]);
    // By itself, through a node between them, and past a trace that depends on nothing.
    assert_eq!(joins(&engine, &format!("{one},{}", adding("three", "m_one"))), [false, false]);
    let between = r#"{"op":"mul","name":"twice","input":"m_one","other":2.0}"#;
    assert_eq!(joins(&engine, &format!("{one},{between},{}", adding("three", "twice"))), [false, false]);
    let past = format!("{one},{between},{two},{}", adding("three", "twice"));
    assert_eq!(joins(&engine, &past), [false, true, false]);
    // On what came before all of them two depend together.
    let both = format!("{one},{},{}", adding("three", "m_one"), adding("four", "m_one"));
    assert_eq!(joins(&engine, &both), [false, false, true]);
    // By a condition.
    let condition = format!(
        r#"{{"op":"gt","name":"large","input":"m_one","other":0.0}},
        {{"op":"cond","name":"c","condition":"large","then":{{"body":[{two}]}},"else":{{"body":[{}]}}}}"#,
        reading("three", "layers.0.output")
    );
    assert_eq!(joins(&engine, &format!("{one},{condition}")), [false, false, true]);
    // By what a loop carries; not by what is reduced over it.
    let looped = |first: &str, rest: &str, next: &str, after: &str| {
        format!(
            r#"{{"op":"zeros","name":"start","size":[]}},
            {{"op":"loop","name":"l","count":3,"carry":{{"x":"start"}},"body":[{first},{rest}],"next":{{"x":"{next}"}}}}{after}"#
        )
    };
    let carried = looped(&adding("three", "x"), r#"{"op":"neg","name":"n","input":"m_three"}"#, "n", "");
    assert_eq!(joins(&engine, &carried), [false, false, false]);
    let summed = looped(
        &trace(
            "r",
            r#"{"op":"get","name":"h","hook":"layers.0.output"},{"op":"mean","name":"m","input":"h"}"#,
        ),
        r#"{"op":"add","name":"n","input":"x","other":"m"}"#,
        "n",
        r#",{"op":"save","name":"sum","value":"l"}"#,
    );
    assert_eq!(joins(&engine, &summed), [false, true, true]);
}

#[test]
fn what_does_more_than_go_forward_runs_alone() {
    let engine = engine();
    let plain = reading("plain", "layers.1.output");
    let generation = format!(
        r#"{{"op":"trace","name":"g","generate":{{"max_new_tokens":2}},"invokes":[{{"name":"p","tokens":{TOKENS}}}],"body":[{{"op":"generated","name":"made"}},{{"op":"save","name":"tokens","value":"made"}}]}}"#
    );
    let back = trace(
        "b",
        r#"{"op":"get","name":"h_b","hook":"layers.0.output"},{"op":"get","name":"l_b","hook":"logits"},{"op":"mean","name":"loss","input":"l_b"},
        {"op":"backward","name":"way","of":"loss"},{"op":"grad","name":"g_b","backward":"way","of":"h_b"},{"op":"save","name":"gradient","value":"g_b"}"#,
    );
    let weights = trace(
        "w",
        r#"{"op":"weight","name":"v","parameter":"layers.0.norm_1.weight"},{"op":"mul","name":"half","input":"v","other":0.5},
        {"op":"set_weight","parameter":"layers.0.norm_1.weight","value":"half"},{"op":"get","name":"l_w","hook":"logits"},{"op":"save","name":"s_w","value":"l_w"}"#,
    );
    // Nothing but its trace tells that it generates.
    let later = generation
        .replace(r#"{"op":"generated","name":"made"}"#, r#"{"op":"get","name":"made","hook":"logits"}"#);
    assert_ne!(later, generation);
    for special in [generation, later, back, weights] {
        let other = reading("other", "layers.0.output");
        let last = reading("last", "layers.0.output");
        assert_eq!(
            joins(&engine, &format!("{plain},{special},{other},{last}")),
            [false, false, false, true],
            "{special}"
        );
    }
}

/// Three traces of which the later ones reach their ends first, with something between them.
fn staggered(second: &str, first: &str) -> String {
    let log = |name: &str, value: &str| format!(r#"{{"op":"print","name":"{name}","value":"{value}"}}"#);
    let one = trace(
        "one",
        &format!(
            r#"{{"op":"get","name":"a","hook":"logits"}},{{"op":"mean","name":"ma","input":"a"}},{first}{{"op":"save","name":"sa","value":"ma"}},{}"#,
            log("la", "ma")
        ),
    );
    let two = trace(
        "two",
        &format!(
            r#"{{"op":"get","name":"b","hook":"layers.0.output"}},{},{{"op":"save","name":"sb","value":"b"}}{second},
            {{"op":"get","name":"b2","hook":"layers.1.output"}},{{"op":"mean","name":"mb","input":"b2"}},{}"#,
            log("lb", "b"),
            log("lb2", "mb")
        ),
    );
    let three = trace(
        "three",
        &format!(
            r#"{{"op":"get","name":"c","hook":"layers.0.attention.input"}},{{"op":"save","name":"sc","value":"c"}},{}"#,
            log("lc", "c")
        ),
    );
    let between = r#"{"op":"neg","name":"n","input":"b"},{"op":"print","name":"ln","value":"n"}"#;
    format!("{one},{two},{between},{three}")
}

/// Something of that which fails, in that trace.
fn failing(name: &str, value: &str) -> String {
    format!(
        r#"{{"op":"literal","name":"f{name}","dtype":"i64","shape":[1],"elements":[9999]}},{{"op":"index_select","name":"{name}","input":"{value}","dim":0,"index":"f{name}"}},{{"op":"save","name":"never{name}","value":"{name}"}}"#
    )
}

/// What is told while a program runs, in order.
fn watched(told: &Arc<Mutex<Vec<String>>>) -> RunOptions {
    let (logs, saves) = (told.clone(), told.clone());
    RunOptions {
        on_log: Some(Arc::new(move |entry| logs.lock().unwrap().push(entry.name.clone()))),
        on_saved: Some(Arc::new(move |saved| saves.lock().unwrap().push(saved.name.to_owned()))),
        ..RunOptions::default()
    }
}

type Watching = Option<Arc<dyn Fn(&Progress) + Send + Sync>>;

fn watching(watch: impl Fn(&Progress) + Send + Sync + 'static) -> Watching {
    Some(Arc::new(watch))
}

#[test]
fn what_is_saved_and_logged_is_told_in_program_order() {
    let engine = engine();
    let program = checked(&engine, &staggered("", ""));
    assert_eq!(run(&engine, &program).report.passes, 1);
    let told = Arc::default();
    let results = engine.run(&program, &watched(&told)).unwrap();
    assert_eq!(*told.lock().unwrap(), ["sa", "la", "lb", "sb", "lb2", "ln", "sc", "lc"]);
    for results in [results, engine.run_naive(&program).unwrap()] {
        let logged: Vec<&str> = results.logs.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(logged, ["la", "lb", "lb2", "ln", "lc"]);
    }
}

#[test]
fn a_trace_that_fails_leaves_what_the_traces_before_it_give_and_nothing_of_the_later_ones() {
    let engine = engine();
    let second = format!(",{}", failing("bad", "b"));
    let program = checked(&engine, &staggered(&second, ""));
    let told = Arc::default();
    let failure = engine.run_keeping(&program, &watched(&told)).unwrap_err();
    let naive = engine.run_naive_keeping(&program, &RunOptions::default()).unwrap_err();
    assert_eq!((failure.trace.as_deref(), &failure.error), (Some("two"), &naive.error));
    assert_eq!(naive.trace.as_deref(), Some("two"));
    assert_eq!(failure.kept.tensors.keys().collect::<Vec<_>>(), ["sa"]);
    assert_eq!(*told.lock().unwrap(), ["sa", "la", "lb", "sb"]);
    assert!(failure.kept.tensors["sa"].is_same_bits(&naive.kept.tensors["sa"]));
    // A fault of an earlier trace that comes later is the one.
    let first = format!("{},", failing("worse", "ma"));
    let program = checked(&engine, &staggered(&second, &first.replace(r#""input":"ma""#, r#""input":"a""#)));
    let failure = engine.run_keeping(&program, &RunOptions::default()).unwrap_err();
    let naive = engine.run_naive_keeping(&program, &RunOptions::default()).unwrap_err();
    assert_eq!((failure.trace.as_deref(), &failure.error), (Some("one"), &naive.error));
    assert!(failure.kept.tensors.is_empty() && failure.kept.logs.is_empty());
    // Beside others nothing of it is theirs.
    let sound = checked(&engine, &staggered("", ""));
    let options = RunOptions::default();
    let mut outcomes = engine.run_together(&[(&sound, &options), (&program, &options), (&sound, &options)]);
    assert_same(&outcomes.pop().unwrap().unwrap(), &outcomes.swap_remove(0).unwrap());
}

#[test]
fn of_very_many_traces_only_so_many_are_begun() {
    let engine = engine();
    let traces: Vec<String> = (0..limits::TRACES).map(|n| reading(&format!("t{n}"), "logits")).collect();
    let program = checked(&engine, &traces.join(","));
    let places = Arc::new(Mutex::new(Vec::new()));
    let seen = places.clone();
    let on_progress = watching(move |progress| {
        seen.lock().unwrap().push((progress.trace, progress.traces));
    });
    let results = engine.run(&program, &RunOptions { on_progress, ..RunOptions::default() }).unwrap();
    let windows = limits::TRACES / limits::TRACES_TOGETHER;
    assert_eq!(results.report.passes, windows);
    let mut places = places.lock().unwrap().clone();
    places.dedup();
    let firsts = (0..windows).map(|window| (window * limits::TRACES_TOGETHER, limits::TRACES));
    assert_eq!(places, firsts.collect::<Vec<_>>());
    // Each has the logits for a moment, and its mean to the end.
    let alone = checked(&engine, &traces[0]);
    let alone = engine.run(&alone, &RunOptions::default()).unwrap().report.peak_value_bytes;
    assert!(results.report.peak_value_bytes < 2 * alone + 4 * limits::TRACES as u64 * 4);
}

#[test]
fn traces_run_together_only_where_there_is_memory_for_it() {
    let engine = engine();
    // Each holds the stream until its own last value is there.
    let one = |name: String| {
        trace(
            &name,
            &format!(
                r#"{{"op":"get","name":"h{name}","hook":"layers.0.output"}},{{"op":"get","name":"k{name}","hook":"layers.1.output"}},
                {{"op":"sub","name":"d{name}","input":"k{name}","other":"h{name}"}},{{"op":"mean","name":"m{name}","input":"d{name}"}},{{"op":"save","name":"s{name}","value":"m{name}"}}"#
            ),
        )
    };
    let traces: Vec<String> = (0..40).map(|number| one(format!("t{number}"))).collect();
    let program = checked(&engine, &traces.join(","));
    let free = engine.run(&program, &RunOptions::default()).unwrap();
    let narrow = apart(&engine).run(&program, &RunOptions::default()).unwrap();
    assert_eq!((free.report.passes, narrow.report.passes), (1, 40));
    assert!(free.report.peak_value_bytes > 10 * narrow.report.peak_value_bytes);
    assert!(free.report.peak_value_bytes <= program.price.peak_bytes);
    let mut passes = BTreeSet::new();
    for eighths in (8..48).step_by(2).chain([1000]) {
        let memory_bytes = Some(narrow.report.peak_value_bytes * eighths / 8);
        let options = RunOptions { memory_bytes, ..RunOptions::default() };
        // What fits one after another never fails because it was to run together.
        match (apart(&engine).run(&program, &options), engine.run(&program, &options)) {
            (Ok(apart), Ok(together)) => {
                assert_same(&together, &apart);
                passes.insert(together.report.passes);
            }
            (Err(EngineError::MemoryExceeded { .. }), Err(EngineError::MemoryExceeded { .. })) => {}
            (apart, together) => panic!("{memory_bytes:?}: {:?}, {:?}", apart.err(), together.err()),
        }
    }
    assert!(passes.len() >= 4 && passes.contains(&1), "{passes:?}");
}

#[test]
fn a_session_that_is_cancelled_keeps_only_what_is_over() {
    let engine = engine();
    let program = checked(&engine, &staggered("", ""));
    let cancel = Arc::new(AtomicBool::new(false));
    let set = cancel.clone();
    let on_progress = watching(move |progress| {
        set.store(progress.layer == 1, Ordering::Relaxed);
    });
    let options = RunOptions { cancel: Some(cancel), on_progress, ..RunOptions::default() };
    let failure = engine.run_keeping(&program, &options).unwrap_err();
    assert_eq!(failure.error, EngineError::Cancelled);
    // `three` was through, but its turn had not come.
    assert_eq!(failure.trace.as_deref(), Some("one"));
    assert!(failure.kept.tensors.is_empty() && failure.kept.logs.is_empty());
}

#[test]
fn what_views_keep_counts_as_held_and_small_ones_keep_nothing() {
    let engine = engine();
    // Each is of a value that nobody else reads.
    let program = |stop: usize| {
        let one = |number: usize| {
            format!(
                r#"{{"op":"full","name":"x{number}","size":[262144],"fill_value":{number}.0}},
                {{"op":"getitem","name":"v{number}","input":"x{number}","index":[":{stop}"]}}"#
            )
        };
        let all: Vec<String> = (0..30).map(one).collect();
        let views: Vec<String> = (0..30).map(|number| format!(r#""v{number}""#)).collect();
        let body = format!(
            r#"{},{{"op":"cat","name":"all","tensors":[{}]}},{{"op":"sum","name":"s","input":"all"}},{{"op":"save","name":"saved","value":"s"}}"#,
            all.join(","),
            views.join(",")
        );
        checked(&engine, &body)
    };
    let (large, small) = (program(32_768), program(1_000));
    let megabytes = |program: &CheckedProgram| {
        engine.run(program, &RunOptions::default()).unwrap().report.peak_value_bytes >> 20
    };
    assert!(megabytes(&large) >= 30 && megabytes(&small) < 3);
    let options = RunOptions { memory_bytes: Some(20 << 20), ..RunOptions::default() };
    assert!(matches!(engine.run(&large, &options), Err(EngineError::MemoryExceeded { .. })));
    assert!(engine.run(&small, &options).is_ok());
    // Views of views, in another shape, of what is still there otherwise.
    let again = r#"{"op":"full","name":"x","size":[4,65536],"fill_value":1.0},{"op":"getitem","name":"v","input":"x","index":[":2"]},
        {"op":"reshape","name":"r","input":"v","shape":[-1]},{"op":"getitem","name":"w","input":"r","index":[":65536"]},
        {"op":"sum","name":"a","input":"w"},{"op":"sum","name":"b","input":"x"},{"op":"add","name":"c","input":"a","other":"b"},
        {"op":"save","name":"saved","value":"c"},{"op":"save","name":"part","value":"w"}"#;
    let results = engine.run(&checked(&engine, again), &RunOptions::default()).unwrap();
    assert_eq!(results.tensors["saved"].to_vec_f32().unwrap(), [327_680.0]);
    assert_eq!(results.tensors["part"].to_vec_f32().unwrap(), [1.0; 65_536]);
}

#[test]
fn of_a_plan_of_very_many_passes_the_first_are_told_and_all_are_counted() {
    let engine = engine();
    // As many traces one after the other, or invokes in one trace.
    let generation = |name: &str, invokes: usize| {
        let all: Vec<String> =
            (0..invokes).map(|number| format!(r#"{{"name":"p{number}","tokens":{TOKENS}}}"#)).collect();
        let save = |number: usize| {
            format!(
                r#"{{"op":"generated","name":"g{name}{number}","invoke":"p{number}"}},
                {{"op":"save","name":"s{name}{number}","value":"g{name}{number}"}}"#
            )
        };
        let saves: Vec<String> = (0..invokes).map(save).collect();
        format!(
            r#"{{"op":"trace","name":"{name}","generate":{{"max_new_tokens":50,"stop_tokens":[]}},"invokes":[{}],
            "body":[{}]}}"#,
            all.join(","),
            saves.join(",")
        )
    };
    let traces: Vec<String> = (0..120).map(|number| generation(&format!("t{number}_"), 1)).collect();
    for (body, passes) in [(traces.join(","), 120 * 50), (generation("t", 120), 50)] {
        let program = checked(&engine, &body);
        let (plan, results) = engine.analyze(&program, &RunOptions::default()).unwrap();
        assert_eq!((plan.pass_count(), results.report.passes), (passes, passes));
        let told: usize = plan.passes.iter().map(|pass| pass.passengers.len()).sum();
        let cells: usize = plan.passes.iter().flat_map(|pass| &pass.passengers).map(|one| one.cells).sum();
        let more: usize = plan.passes.iter().map(|pass| pass.more_passengers).sum();
        assert!(plan.passes.len() <= 4_200 && told <= 6_300, "{} {told}", plan.passes.len());
        assert_eq!(cells + more, 120 * 50, "everybody rides in 50 steps");
        let tokens: usize = plan.passes.iter().map(|pass| pass.tokens).sum();
        assert_eq!(tokens as u64, results.report.tokens);
        assert!(serde_json::to_vec(&plan).unwrap().len() < 8 << 20);
        assert_eq!(engine.explain(&program).unwrap().pass_count(), passes);
    }
}
