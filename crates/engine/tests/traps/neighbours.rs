//! Failures, cancellation and bounds are a program's own.

use super::*;

/// Programs that fail on their values, each in another way, and the node at fault.
fn failing(engine: &Engine) -> Vec<(CheckedProgram, &'static str)> {
    let prompt: &[(&str, &[Vec<u32>])] = &[("p", &[vec![5, 6, 7]])];
    let learned = engine.model().spec().hook_points.iter().any(|hook| hook.path() == "transformer.wpe.input");
    let mut programs = vec![
        (
            r#"{"op":"tokens","name":"t"},{"op":"get","name":"h","hook":"layers.1.output"},
            {"op":"index_select","name":"bad","input":"h","dim":1,"index":"i"},{"op":"save","name":"s","value":"bad"}"#
                .replace(r#""name":"t"}"#, r#""name":"t"},{"op":"reshape","name":"i","input":"t","shape":[-1]}"#),
            "bad",
        ),
        (
            r#"{"op":"get","name":"h","hook":"embed.input"},{"op":"mul","name":"m","input":"h","other":1000},
            {"op":"set","name":"bad","hook":"embed.input","value":"m"},"#
                .to_owned()
                + LOGITS,
            "bad",
        ),
    ];
    if learned {
        // Below the vocabulary, but beyond the table of positions.
        programs.push((
            r#"{"op":"get","name":"h","hook":"transformer.wpe.input"},{"op":"add","name":"m","input":"h","other":70},
            {"op":"set","name":"bad","hook":"transformer.wpe.input","value":"m"},"#
                .to_owned()
                + LOGITS,
            "bad",
        ));
    }
    programs.into_iter().map(|(nodes, node)| (check(engine, program(prompt, &nodes)), node)).collect()
}

#[test]
fn a_neighbours_failure_is_its_own() {
    for name in ["gpt2", "opt", "gemma3"] {
        let engine = engine(name);
        let defaults = RunOptions::default();
        // It looks where the others fail, and goes on.
        let looks = r#"{"op":"get","name":"e","hook":"embed.input"},{"op":"save","name":"ids","value":"e"},
            {"op":"get","name":"h","hook":"layers.1.output"},{"op":"save","name":"hidden","value":"h"},"#;
        let plain =
            check(&engine, program(&[("p", &[vec![9, 8, 7, 6], vec![3]])], &[looks, LOGITS].concat()));
        let alone = engine.run(&plain, &defaults).unwrap();
        let failing = failing(&engine);
        let mut crowd: Vec<(&CheckedProgram, &RunOptions)> = vec![(&plain, &defaults)];
        for (program, _) in &failing {
            crowd.push((program, &defaults));
            crowd.push((&plain, &defaults));
        }
        let outcomes = engine.run_together(&crowd);
        for outcome in outcomes.iter().step_by(2) {
            let results = outcome.as_ref().unwrap_or_else(|error| panic!("{name}: {error}"));
            for (saved, value) in &alone.tensors {
                assert!(results.tensors[saved].is_same_bits(value), "{name}: {saved}");
            }
        }
        for (outcome, (program, node)) in outcomes.iter().skip(1).step_by(2).zip(&failing) {
            let Err(EngineError::Node(fault)) = outcome else { panic!("{name}: {outcome:?}") };
            assert_eq!(fault.node.as_deref(), Some(*node), "{name}: {fault}");
            let naive = engine.run_naive(program);
            assert!(
                matches!(&naive, Err(EngineError::Node(other)) if other.message == fault.message),
                "{name}: {naive:?}"
            );
        }
    }
}

#[test]
fn cancellation_is_honoured_between_modules_and_reaches_nobody_else() {
    let engine = engine("llama3");
    let long = check(
        &engine,
        generation(
            &[("p", &[vec![1, 2, 3]])],
            r#""max_new_tokens":40,"stop_tokens":[]"#,
            r#"{"op":"generated","name":"g"},{"op":"save","name":"made","value":"g"}"#,
        ),
    );
    let defaults = RunOptions::default();
    let alone = engine.run(&long, &defaults).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let cancel = Arc::new(AtomicBool::new(false));
    let (counted, raised) = (calls.clone(), cancel.clone());
    let options = RunOptions {
        cancel: Some(cancel.clone()),
        on_progress: Some(Arc::new(move |_| {
            if counted.fetch_add(1, Ordering::Relaxed) == 10 {
                raised.store(true, Ordering::Relaxed);
            }
        })),
        ..RunOptions::default()
    };
    assert!(matches!(engine.run(&long, &options), Err(EngineError::Cancelled)));
    // Raised at the eleventh stage of the first pass; it is seen at the next.
    assert!(calls.load(Ordering::Relaxed) <= 12, "{} stages ran", calls.load(Ordering::Relaxed));
    calls.store(0, Ordering::Relaxed);
    cancel.store(false, Ordering::Relaxed);
    let outcomes = engine.run_together(&[(&long, &options), (&long, &defaults)]);
    assert!(matches!(&outcomes[0], Err(EngineError::Cancelled)));
    assert!(outcomes[1].as_ref().unwrap().tensors["made"].is_same_bits(&alone.tensors["made"]));
}

#[test]
fn time_and_memory_that_a_program_was_not_given_are_not_taken() {
    let engine = engine("llama3");
    let prompt: &[(&str, &[Vec<u32>])] = &[("p", &[vec![1, 2, 3]])];
    let endless = check(
        &engine,
        generation(
            prompt,
            r#""max_new_tokens":60,"stop_tokens":[]"#,
            r#"{"op":"generated","name":"g"},{"op":"save","name":"made","value":"g"}"#,
        ),
    );
    let hurried = RunOptions { seconds: Some(1e-6), ..RunOptions::default() };
    assert!(matches!(engine.run(&endless, &hurried), Err(EngineError::DeadlineExceeded { .. })));

    // A value that is larger than the budget is refused before it is made: making this one would end the process.
    let large = check(
        &engine,
        program(
            prompt,
            r#"{"op":"ones","name":"o","size":[1000000,1000,2],"dtype":"f64"},{"op":"sum","name":"s","input":"o"},{"op":"save","name":"v","value":"s"}"#,
        ),
    );
    let bounded = RunOptions { memory_bytes: Some(1 << 20), ..RunOptions::default() };
    let plain = check(&engine, program(prompt, LOGITS));
    let alone = engine.run(&plain, &RunOptions::default()).unwrap();
    let outcomes = engine.run_together(&[(&large, &bounded), (&plain, &bounded)]);
    assert!(
        matches!(&outcomes[0], Err(EngineError::MemoryExceeded { needed, allowed }) if *needed >= 16_000_000_000 && *allowed == 1 << 20),
        "{:?}",
        outcomes[0].as_ref().map(|_| ())
    );
    assert!(outcomes[1].as_ref().unwrap().tensors["logits"].is_same_bits(&alone.tensors["logits"]));

    // Saved values are held to the end, and count.
    let saves: Vec<String> = (0..40)
        .map(|number| format!(r#"{{"op":"zeros","name":"z{number}","size":[1000]}},{{"op":"save","name":"s{number}","value":"z{number}"}}"#))
        .collect();
    let many = check(&engine, program(prompt, &saves.join(",")));
    let few = RunOptions { memory_bytes: Some(100_000), ..RunOptions::default() };
    assert!(matches!(engine.run(&many, &few), Err(EngineError::MemoryExceeded { .. })));
    assert!(engine.run(&many, &RunOptions { memory_bytes: Some(200_000), ..RunOptions::default() }).is_ok());
}

#[test]
fn the_simple_run_is_cancelled_has_its_time_and_tells_what_it_logs() {
    let engine = engine("gpt2");
    let prompt: &[(&str, &[Vec<u32>])] = &[("p", &[vec![1, 2, 3]])];
    let long = check(
        &engine,
        generation(
            prompt,
            r#""max_new_tokens":60,"stop_tokens":[]"#,
            r#"{"op":"get","name":"h","hook":"layers.0.output"},{"op":"print","name":"early","value":"h"},
            {"op":"generated","name":"g"},{"op":"save","name":"made","value":"g"}"#,
        ),
    );
    let outcome =
        |options: RunOptions| engine.run_naive_keeping(&long, &options).map_err(|failure| failure.error);
    let hurried = RunOptions { seconds: Some(1e-6), ..RunOptions::default() };
    assert!(matches!(outcome(hurried), Err(EngineError::DeadlineExceeded { .. })));
    let cancelled = RunOptions { cancel: Some(Arc::new(AtomicBool::new(true))), ..RunOptions::default() };
    assert!(matches!(outcome(cancelled), Err(EngineError::Cancelled)));

    // It is told while the run goes on: time enough to cancel it.
    let (told, cancel) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, raised) = (told.clone(), cancel.clone());
    let listening = RunOptions {
        cancel: Some(cancel),
        seconds: Some(1e6),
        on_log: Some(Arc::new(move |entry| {
            assert_eq!(entry.name, "early");
            counted.fetch_add(1, Ordering::Relaxed);
            raised.store(true, Ordering::Relaxed);
        })),
        ..RunOptions::default()
    };
    assert!(matches!(outcome(listening), Err(EngineError::Cancelled)));
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

#[test]
fn what_is_freed_is_given_back_to_the_budget() {
    let engine = engine("gpt2");
    // Each value is read once: no two need be there together but the last and the next.
    let chain: Vec<String> = (0..50)
        .map(|number| format!(r#"{{"op":"add","name":"v{}","input":"v{number}","other":1.0}}"#, number + 1))
        .collect();
    let nodes = format!(
        r#"{{"op":"zeros","name":"v0","size":[1000]}},{},{{"op":"mean","name":"m","input":"v50"}},{{"op":"save","name":"s","value":"m"}}"#,
        chain.join(",")
    );
    let checked = check(&engine, program(&[("p", &[vec![1]])], &nodes));
    let results = engine.run(&checked, &RunOptions { memory_bytes: Some(10_000), ..RunOptions::default() });
    let results = results.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(numbers(&results, "s"), [50.0]);
    assert!(results.report.peak_value_bytes <= 10_000, "{}", results.report.peak_value_bytes);
}

#[test]
fn rows_that_wait_for_a_later_invoke_are_held() {
    let engine = engine("gpt2");
    let hidden = engine.model().spec().sizes.hidden;
    let (length, many) = (12, 20);
    // Each waits after the first layer for what the last one reads after the second.
    let prompt = |number: u32| vec![(0..length).map(|place| (number * 7 + place) % 50).collect::<Vec<u32>>()];
    let prompts: Vec<Vec<Vec<u32>>> = (0..many).map(prompt).collect();
    let names: Vec<String> = (0..many).map(|number| format!("p{number}")).collect();
    let mut invokes: Vec<(&str, &[Vec<u32>])> =
        names.iter().map(String::as_str).zip(prompts.iter().map(Vec::as_slice)).collect();
    let last = [vec![1]];
    invokes.push(("last", &last));
    let mut nodes = vec![
        r#"{"op":"get","name":"g","invoke":"last","hook":"layers.1.output"},{"op":"getitem","name":"x","input":"g","index":[":",-1]}"#.to_owned(),
    ];
    for name in &names {
        nodes.push(format!(
            r#"{{"op":"set","invoke":"{name}","hook":"layers.0.output","value":"x"}},{{"op":"get","name":"l{name}","invoke":"{name}","hook":"logits"}},
            {{"op":"getitem","name":"a{name}","input":"l{name}","index":[0,-1,3]}},{{"op":"save","name":"s{name}","value":"a{name}"}}"#
        ));
    }
    let checked = check(&engine, program(&invokes, &nodes.join(",")));
    let results = engine.run(&checked, &RunOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let held = u64::from(many * length) * hidden * 4;
    assert!(results.report.peak_value_bytes >= held, "{} of {held}", results.report.peak_value_bytes);
    assert!(results.report.peak_value_bytes <= checked.price.peak_bytes, "{:?}", checked.price);
    let narrow = RunOptions { memory_bytes: Some(held / 2), ..RunOptions::default() };
    assert!(matches!(engine.run(&checked, &narrow), Err(EngineError::MemoryExceeded { .. })));
}
