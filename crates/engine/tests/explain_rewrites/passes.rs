//! Rewrites that make passes: within a program, and between programs.

use pellucid_engine::{RunOptions, ServeOptions};

use super::{PROMPT, checked, engine, hold, patch, read, told, trace};

/// Six invokes that have nothing in common.
fn six() -> String {
    let names = ["a", "b", "c", "d", "e", "f"];
    let prompts: Vec<String> = (0..6).map(|first| format!("[[{first},3,9,1,4,4,2]]")).collect();
    let invokes: Vec<(&str, &str)> = names.iter().copied().zip(prompts.iter().map(String::as_str)).collect();
    let nodes: Vec<String> =
        names.iter().map(|name| read(name, "layers.1.attention.pattern", r#"[":"]"#)).collect();
    trace(&invokes, &nodes.join(","))
}

/// The plan of programs at a service.
fn served(bodies: &[&str], options: &ServeOptions, memory_bytes: Option<u64>) -> String {
    let engine = engine();
    let programs: Vec<_> = bodies.iter().map(|body| checked(&engine, body)).collect();
    let own = RunOptions { memory_bytes, ..RunOptions::default() };
    let programs: Vec<_> = programs.iter().map(|program| (program, &own)).collect();
    engine.explain_together(&programs, options).unwrap().to_string()
}

#[test]
fn batching() {
    let most = ServeOptions::default();
    hold(
        "batching",
        "One pass for all six, or waves: of 16 tokens, of 0.06 ms by the estimate, of what half of the program's memory holds of what \
         is read. One that alone takes longer than a pass may is cut.",
        &[
            ("as the engine runs it by itself", told(&engine(), &six())),
            ("in passes of 16 tokens", served(&[&six()], &ServeOptions { pass_tokens: 16, ..most }, None)),
            (
                "in passes of 0.06 ms, estimated",
                served(&[&six()], &ServeOptions { pass_ms: 0.06, ..most }, None),
            ),
            ("in 6 kB of memory", served(&[&six()], &most, Some(6_000))),
            (
                "one invoke, in passes of 0.03 ms, estimated",
                served(
                    &[&trace(&[("p", PROMPT)], &read("p", "logits", r#"[":",-1]"#))],
                    &ServeOptions { pass_ms: 0.03, ..most },
                    None,
                ),
            ),
        ],
    );
}

#[test]
fn between_programs() {
    let steered = |layer: usize| {
        let hook = format!("layers.{layer}.output");
        let nodes = [
            read("clean", "logits", r#"[":",-1]"#),
            patch("p", &hook, r#"[":",-1]"#),
            read("p", "logits", r#"[":",-1]"#),
        ];
        trace(&[("clean", PROMPT), ("p", PROMPT)], &nodes.join(","))
    };
    let (one, two) = (steered(1), steered(2));
    let most = ServeOptions::default();
    hold(
        "between_programs",
        "Two programs share a pass: weights are read once. Each shares rows within itself, none with the other, though the prompt is the same.",
        &[
            ("the first alone", served(&[&one], &most, None)),
            ("the second alone", served(&[&two], &most, None)),
            ("both", served(&[&one, &two], &most, None)),
        ],
    );
}
