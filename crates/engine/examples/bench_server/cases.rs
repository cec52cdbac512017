//! Whole experiments, each one program as it is first written down. `benchmarks/cases.py` and `benchmarks/patching.py`
//! have the peers' side.

use std::time::Instant;

use pellucid_engine::{Engine, Results, Rewrites, RunOptions};
use pellucid_graph::check::CheckedProgram;
use pellucid_graph::spec::HookPointSpec;

use super::{answer, backward, hook_points, tokens, trace, try_checked};

/// Runs a lone trace, checking included, and answers with its seconds, with what `read` takes of its results, and with the
/// bytes of the file as which a service hands them out.
fn case(engine: &Engine, body: &str, how: &str, read: impl Fn(&Results) -> Vec<f64>) {
    let started = Instant::now();
    let program = try_checked(engine, body).unwrap();
    let checked = started.elapsed().as_secs_f64();
    let results = run(engine, &program, how);
    let seconds = started.elapsed().as_secs_f64();
    let bytes = results.to_safetensors().unwrap().len();
    answer(&format!(
        r#"{{"seconds": {seconds}, "checked": {checked}, "tokens": {}, "passes": {}, "saved": {}, "bytes": {bytes}, "values": {:?}}}"#,
        results.report.tokens,
        results.report.passes,
        results.tensors.len(),
        read(&results)
    ));
}

/// `how` is `planned`, `every-logit` (all rewrites but that of the unembedding), `alone` (no rewrites) or `naive`.
fn run(engine: &Engine, program: &CheckedProgram, how: &str) -> Results {
    let options = RunOptions::default();
    match how {
        "planned" => engine.run(program, &options),
        "every-logit" => {
            let all_but_one = Rewrites { unembedding: false, ..Rewrites::ALL };
            engine.share().with_rewrites(all_but_one).run(program, &options)
        }
        "alone" => engine.share().with_rewrites(Rewrites::NONE).run(program, &options),
        _ => engine.run_naive(program),
    }
    .unwrap()
}

fn numbers(results: &Results, name: &str) -> Vec<f64> {
    results.tensors[name].to_vec_f64().unwrap()
}

/// The difference `d{at}` of two logits at the last position of the invoke `p{at}`.
fn logit_difference(at: &str) -> String {
    format!(
        r#"{{"op":"get","name":"l{at}","invoke":"p{at}","hook":"logits"}},
        {{"op":"getitem","name":"a{at}","input":"l{at}","index":[":",-1,0]}},{{"op":"getitem","name":"b{at}","input":"l{at}","index":[":",-1,1]}},
        {{"op":"sub","name":"d{at}","input":"a{at}","other":"b{at}"}}"#
    )
}

/// Patching from clean prompts into as many corrupted ones: an invoke for each cell, whose hook point and index it says.
pub fn patching_of(engine: &Engine, pairs: usize, length: usize, cells: &[(String, String)]) -> String {
    let prompts = tokens(2 * pairs, length, engine.model().spec().sizes.vocabulary);
    let (clean, corrupted) = prompts.split_at(pairs);
    let mut invokes = vec![format!(r#"{{"name":"clean","tokens":{clean:?}}}"#)];
    let mut nodes = Vec::new();
    for (at, (hook, index)) in cells.iter().enumerate() {
        invokes.push(format!(r#"{{"name":"p{at}","tokens":{corrupted:?}}}"#));
        nodes.push(format!(
            r#"{{"op":"get","name":"c{at}","invoke":"clean","hook":"{hook}"}},{{"op":"getitem","name":"z{at}","input":"c{at}","index":{index}}},
            {{"op":"get","name":"m{at}","invoke":"p{at}","hook":"{hook}"}},{{"op":"index_put","name":"n{at}","input":"m{at}","index":{index},"values":"z{at}"}},
            {{"op":"set","invoke":"p{at}","hook":"{hook}","value":"n{at}"}},{},
            {{"op":"save","name":"s{at}","value":"d{at}"}}"#,
            logit_difference(&at.to_string())
        ));
    }
    trace(&invokes.join(","), "", &nodes.join(","))
}

fn patched(engine: &Engine, pairs: usize, length: usize, cells: &[(String, String)], how: &str) {
    let body = patching_of(engine, pairs, length, cells);
    let read =
        |results: &Results| (0..cells.len()).flat_map(|at| numbers(results, &format!("s{at}"))).collect();
    case(engine, &body, how, read);
}

/// One head's mixed values at the last position, for every layer and head: of so many pairs of prompts.
pub fn patching(engine: &Engine, pairs: usize, length: usize, how: &str) {
    let sizes = &engine.model().spec().sizes;
    let heads = |layer| {
        (0..sizes.heads)
            .map(move |head| (format!("layers.{layer}.attention.mixed"), format!(r#"[":",-1,{head}]"#)))
    };
    let cells: Vec<(String, String)> = (0..sizes.layers).flat_map(heads).collect();
    patched(engine, pairs, length, &cells, how);
}

/// The same of one pair as a sweep, whose result is one tensor.
pub fn sweep(engine: &Engine, length: usize) {
    let sizes = &engine.model().spec().sizes;
    let prompts = tokens(2, length, sizes.vocabulary);
    let nodes = format!(
        r#"{{"op":"sweep","name":"grid","over":[{{"layer":{{"range":[0,{}]}}}},{{"head":{{"range":[0,{}]}}}}],
        "invokes":[{{"name":"p","tokens":[{:?}]}}],"body":[
        {{"op":"get","name":"c","invoke":"clean","hook":"layers.{{layer}}.attention.mixed"}},
        {{"op":"getitem","name":"z","input":"c","index":[":",-1,{{"tensor":"head"}}]}},
        {{"op":"get","name":"m","invoke":"p","hook":"layers.{{layer}}.attention.mixed"}},
        {{"op":"index_put","name":"n","input":"m","index":[":",-1,{{"tensor":"head"}}],"values":"z"}},
        {{"op":"set","invoke":"p","hook":"layers.{{layer}}.attention.mixed","value":"n"}},
        {}],"yields":["d"]}},{{"op":"save","name":"s","value":"grid"}}"#,
        sizes.layers,
        sizes.heads,
        prompts[1],
        logit_difference(""),
    );
    let body = trace(&format!(r#"{{"name":"clean","tokens":[{:?}]}}"#, prompts[0]), "", &nodes);
    case(engine, &body, "planned", |results| numbers(results, "s"));
}

/// The residual stream that enters a layer, for every layer and position.
pub fn residual(engine: &Engine, length: usize, how: &str) {
    let positions =
        |layer| (0..length).map(move |at| (format!("layers.{layer}.input"), format!(r#"[":",{at}]"#)));
    let cells: Vec<(String, String)> = (0..engine.model().spec().sizes.layers).flat_map(positions).collect();
    patched(engine, 1, length, &cells, how);
}

/// Every hook point of a prompt, saved. Of what peers have too it answers with the sums: of the attentions' outputs, the MLPs'
/// and the layers'.
pub fn everything(engine: &Engine, length: usize) {
    let spec = engine.model().spec();
    let nodes: Vec<String> = spec
        .hook_points
        .iter()
        .enumerate()
        .map(|(place, hook)| {
            let path = hook.path();
            format!(r#"{{"op":"get","name":"h{place}","hook":"{path}"}},{{"op":"save","name":"s{place}","value":"h{place}"}}"#)
        })
        .collect();
    let prompts = tokens(1, length, spec.sizes.vocabulary);
    let body = trace(&format!(r#"{{"tokens":{prompts:?}}}"#), "", &nodes.join(","));
    let place_of = |alias: String| {
        let target = &spec.aliases.iter().find(|known| known.alias == alias).unwrap().target;
        let hook = |hook: &HookPointSpec| hook.module == *target && hook.name == "output";
        spec.hook_points.iter().position(hook).unwrap()
    };
    let compared: Vec<usize> = [".attention", ".mlp", ""]
        .iter()
        .flat_map(|part| (0..spec.sizes.layers).map(move |layer| place_of(format!("layers.{layer}{part}"))))
        .collect();
    let sum = |results: &Results, place| numbers(results, &format!("s{place}")).iter().sum();
    let read = |results: &Results| compared.iter().map(|place| sum(results, place)).collect();
    case(engine, &body, "planned", read);
}

/// The logit lens on the last position of many prompts: the largest logit after each layer.
pub fn lens(engine: &Engine, prompts: usize, length: usize) {
    let sizes = &engine.model().spec().sizes;
    let nodes: Vec<String> = (0..sizes.layers)
        .map(|layer| {
            format!(
                r#"{{"op":"get","name":"h{layer}","hook":"layers.{layer}.output"}},{{"op":"getitem","name":"x{layer}","input":"h{layer}","index":[":",-1]}},
                {{"op":"apply","name":"n{layer}","module":"final_norm","input":"x{layer}"}},{{"op":"apply","name":"u{layer}","module":"unembed","input":"n{layer}"}},
                {{"op":"amax","name":"t{layer}","input":"u{layer}","dim":-1}},{{"op":"save","name":"s{layer}","value":"t{layer}"}}"#
            )
        })
        .collect();
    let prompts = tokens(prompts, length, sizes.vocabulary);
    let body = trace(&format!(r#"{{"tokens":{prompts:?}}}"#), "", &nodes.join(","));
    let layers = sizes.layers;
    let read =
        |results: &Results| (0..layers).flat_map(|layer| numbers(results, &format!("s{layer}"))).collect();
    case(engine, &body, "planned", read);
}

/// Attribution patching: at every hook point of [`hook_points`], the clean value less the corrupted one, times the
/// corrupted run's gradient.
pub fn attribution(engine: &Engine, length: usize) {
    let prompts = tokens(2, length, engine.model().spec().sizes.vocabulary);
    let invokes: Vec<String> = ["clean", "corrupted"]
        .iter()
        .zip(&prompts)
        .map(|(name, tokens)| format!(r#"{{"name":"{name}","tokens":[{tokens:?}]}}"#))
        .collect();
    let mut nodes = vec![backward("corrupted")];
    let hooks = hook_points(engine);
    for (place, hook) in hooks.iter().enumerate() {
        nodes.push(format!(
            r#"{{"op":"get","name":"c{place}","invoke":"clean","hook":"{hook}"}},{{"op":"get","name":"k{place}","invoke":"corrupted","hook":"{hook}"}},
            {{"op":"grad","name":"g{place}","backward":"back","of":"k{place}"}},{{"op":"sub","name":"d{place}","input":"c{place}","other":"k{place}"}},
            {{"op":"mul","name":"m{place}","input":"d{place}","other":"g{place}"}},{{"op":"sum","name":"a{place}","input":"m{place}"}},
            {{"op":"save","name":"s{place}","value":"a{place}"}}"#
        ));
    }
    let read =
        |results: &Results| (0..hooks.len()).flat_map(|at| numbers(results, &format!("s{at}"))).collect();
    case(engine, &trace(&invokes.join(","), "", &nodes.join(",")), "planned", read);
}

/// Which row of the embedding is added, how often, and after which layer.
const STEERED: (usize, f64, usize) = (100, 1.0, 6);

/// A generation with a vector added to a layer's output at every position and step: its tokens, or the largest logit of each step
/// and prompt, which tell more of models with random weights, that say one token again and again.
pub fn steering(engine: &Engine, prompts: usize, length: usize, count: usize, what: &str) {
    let (row, factor, layer) = STEERED;
    let prompts = tokens(prompts, length, engine.model().spec().sizes.vocabulary);
    let (largest, found) = match what {
        "logits" => (
            r#",{"op":"get","name":"l","hook":"logits"},{"op":"getitem","name":"e","input":"l","index":[":",-1]},
            {"op":"amax","name":"t","input":"e","dim":-1},{"op":"save","name":"s","value":"t"}"#,
            "",
        ),
        _ => ("", r#",{"op":"generated","name":"g"},{"op":"save","name":"s","value":"g"}"#),
    };
    let nodes = format!(
        r#"{{"op":"weight","name":"w","parameter":"embed.weight"}},{{"op":"getitem","name":"r","input":"w","index":[{row}]}},
        {{"op":"mul","name":"v","input":"r","other":{factor}}},{{"op":"steps","body":[
        {{"op":"get","name":"h","hook":"layers.{layer}.output"}},{{"op":"add","name":"x","input":"h","other":"v"}},
        {{"op":"set","hook":"layers.{layer}.output","value":"x"}}{largest}]}}{found}"#
    );
    let generate = format!(r#","generate":{{"max_new_tokens":{count},"stop_tokens":[]}}"#);
    let body = trace(&format!(r#"{{"tokens":{prompts:?}}}"#), &generate, &nodes);
    case(engine, &body, "planned", |results| match what {
        "logits" => (0..count).flat_map(|step| numbers(results, &format!("s/{step}"))).collect(),
        _ => numbers(results, "s"),
    });
}
