//! What goes wrong with one program is its own.

use std::sync::Arc;

use pellucid_engine::{Admitted, EngineError, RunOptions, ServeOptions, Ticket};
use pellucid_graph::{NodeKind, Prompts};

use crate::exact::{broken, quietly};
use crate::script::{Script, logits, trace};
use crate::support::Golden;

#[test]
fn a_panic_in_a_node_names_it_and_ends_its_program_alone() {
    let engine = Golden::open("gpt2").engine();
    let lens = format!(
        r#"{{"op":"get","name":"h","invoke":"i0","hook":"layers.0.output"}},{{"op":"apply","name":"lens","module":"final_norm","input":"h"}},{{"op":"save","name":"s","value":"lens"}},{}"#,
        logits(0)
    );
    let program = trace(&engine, &[6], "", &lens);
    let broken = Arc::new(broken(&program).unwrap());
    let alone = engine.run(&program, &RunOptions::default()).unwrap();
    let mut script = Script::default();
    for ticket in 0..6 {
        let own = if ticket % 3 == 1 { &broken } else { &program };
        script.join(0, ticket, own, RunOptions::default());
    }
    let script = quietly(|| script.play(&engine, &ServeOptions::default()));
    assert_eq!(script.passes.len(), 1);
    assert_eq!(script.passes[0].programs, 6);
    for ticket in 0..6 {
        if ticket % 3 == 1 {
            let EngineError::Internal(message) = script.error(ticket) else {
                panic!("{}", script.error(ticket))
            };
            assert!(message.contains("lens") && message.contains("panicked"), "{message}");
        } else {
            assert_eq!(script.result(ticket).tensors.len(), 2);
            for (name, tensor) in &alone.tensors {
                assert!(tensor.is_same_bits(&script.result(ticket).tensors[name]));
            }
        }
    }
    // An engine that runs without a host does not panic either.
    let error = quietly(|| engine.run(&broken, &RunOptions::default())).unwrap_err();
    assert!(matches!(error, EngineError::Internal(_)), "{error}");
}

#[test]
fn what_goes_wrong_with_a_pass_is_told_to_all_that_rode_and_the_engine_goes_on() {
    let engine = Golden::open("gpt2").engine();
    let program = trace(&engine, &[6], "", &logits(0));
    let mut poisoned = (*program).clone();
    for node in &mut poisoned.program.nodes {
        if let NodeKind::Trace(trace) = &mut node.kind
            && let Prompts::Tokens(prompts) = &mut trace.invokes[0].prompts
        {
            prompts[0][0] = u32::MAX;
        }
    }
    // Another that lets the pass itself panic: the hook point of a gradient is none of the model's.
    let gradient = trace(
        &engine,
        &[6],
        "",
        r#"{"op":"get","name":"h","invoke":"i0","hook":"layers.0.output"},{"op":"sum","name":"loss","input":"h"},{"op":"backward","name":"b","of":"loss"},
        {"op":"grad","name":"g","backward":"b","invoke":"i0","hook":"layers.0.input"},{"op":"save","name":"s","value":"g"}"#,
    );
    let mut placeless = (*gradient).clone();
    let grad = placeless.program.nodes.iter().position(|node| node.name == "g").unwrap();
    placeless.nodes[grad].place = Some(usize::MAX);
    let (poisoned, placeless) = (Arc::new(poisoned), Arc::new(placeless));
    let alone = engine.run(&program, &RunOptions::default()).unwrap();
    let mut script = Script::default();
    script.join(0, 0, &program, RunOptions::default());
    script.join(0, 1, &poisoned, RunOptions::default());
    script.join(0, 2, &program, RunOptions::default());
    script.join(3, 5, &program, RunOptions::default());
    script.join(3, 6, &placeless, RunOptions::default());
    // Run again, each by itself, beside others that come later.
    script.arrive(
        4,
        Admitted { alone: true, ..Admitted::new(Ticket(10), program.clone(), RunOptions::default()) },
    );
    script.arrive(4, Admitted { alone: true, ..Admitted::new(Ticket(11), poisoned, RunOptions::default()) });
    script.arrive(
        4,
        Admitted { alone: true, ..Admitted::new(Ticket(12), program.clone(), RunOptions::default()) },
    );
    script.join(4, 13, &program, RunOptions::default());
    let script = quietly(|| script.play(&engine, &ServeOptions::default()));
    for ticket in 0..3 {
        let EngineError::PassFailed { programs: 3, message } = script.error(ticket) else {
            panic!("{}", script.error(ticket))
        };
        assert!(message.contains("embedding"), "{message}");
    }
    for ticket in [5, 6] {
        let EngineError::PassFailed { programs: 2, message } = script.error(ticket) else {
            panic!("{}", script.error(ticket))
        };
        assert!(message.contains("panicked"), "{message}");
    }
    assert!(matches!(script.error(11), EngineError::Internal(_)), "{}", script.error(11));
    for ticket in [10, 12, 13] {
        assert!(alone.tensors["s0"].is_same_bits(&script.result(ticket).tensors["s0"]));
    }
}

#[test]
fn a_panic_on_another_thread_is_the_programs_own() {
    let engine = Golden::open("gpt2").engine();
    let nodes = format!(
        r#"{{"op":"get","name":"h","invoke":"i0","hook":"layers.0.output"}},{{"op":"apply","name":"lens","module":"final_norm","input":"h"}},{{"op":"save","name":"s","value":"lens"}},{}"#,
        logits(0)
    );
    // As if applying it took longer than any pass may.
    let mut program = (*trace(&engine, &[6], "", &nodes)).clone();
    let place = program.program.nodes.iter().position(|node| node.name == "lens").unwrap();
    program.nodes[place].flops = u64::MAX / 4;
    let broken = broken(&program).unwrap();
    let program = Arc::new(program);
    let mut script = Script::default();
    script.join(0, 0, &Arc::new(broken), RunOptions::default());
    script.join(0, 1, &program, RunOptions::default());
    let script = quietly(|| script.play(&engine, &ServeOptions::default()));
    let error = script.error(0).to_string();
    assert!(error.contains("lens") && error.contains("panicked"), "{error}");
    let alone = engine.run(&program, &RunOptions::default()).unwrap();
    for (name, tensor) in &alone.tensors {
        assert!(tensor.is_same_bits(&script.result(1).tensors[name]));
    }
}
