//! Activation patching: which places carry what tells a clean prompt from a corrupted one?
//!
//! Each place of the clean run (residual stream, attention outputs, MLP outputs, single heads) is put into the corrupted
//! run, one at a time, and the share of the answer that comes back is measured. Each kind of place is one sweep: a body that is
//! written once, for every layer and position.

use pellucid::picture::{HeatMap, Page};
use pellucid::{Axis, Cell, Index, Invoke, Model, Result, Results, s};

/// Saves `residual`, `attention` and `mlp` as `[layers, positions]`, `heads` as `[layers, heads]`, and both runs' logits.
pub fn activation_patching(
    model: &Model,
    clean: &str,
    corrupted: &str,
    answer: u32,
    wrong: u32,
) -> Result<Results> {
    let trace = model.trace();
    let clean_run = trace.invoke(clean);
    let corrupted_run = trace.invoke(corrupted);
    let difference = |invoke: &Invoke| {
        let logits = invoke.logits().index(s![0, -1]);
        logits.index(s![i64::from(answer)]) - logits.index(s![i64::from(wrong)])
    };
    let (best, worst) = (difference(&clean_run), difference(&corrupted_run));
    let patched = |cell: &Cell, hook: &str, place: Index| {
        let source = clean_run.layer("{layer}").get(hook).index(place.clone());
        let run = cell.invoke(corrupted);
        run.layer("{layer}").edit(hook, |value| value.index_put(place, source));
        (difference(&run) - &worst) / (&best - &worst)
    };

    let layers = Axis::new("layer", 0..model.layers());
    let positions = Axis::new("position", 0..model.encode(clean)?.len());
    for (name, hook) in [("residual", "input"), ("attention", "attention.output"), ("mlp", "mlp.output")] {
        let shares = trace.sweep([layers.clone(), positions.clone()], |cell| {
            patched(cell, hook, s![.., cell.value("position")]) // of [prompts, length, hidden]
        });
        shares.save(name);
    }
    let heads = Axis::new("head", 0..model.heads());
    let shares = trace.sweep([layers, heads], |cell| {
        patched(cell, "attention.mixed", s![.., -1, cell.value("head")]) // of [prompts, length, heads, head size]
    });
    shares.save("heads");

    best.save("clean_difference");
    worst.save("corrupted_difference");
    clean_run.logits().index(s![0, -1]).save("clean_logits");
    corrupted_run.logits().index(s![0, -1]).save("corrupted_logits");
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let clean = "When Mary and John went to the store, John gave a drink to";
    let corrupted = "When Mary and John went to the store, Mary gave a drink to";
    let results =
        activation_patching(&model, clean, corrupted, model.token(" Mary")?, model.token(" John")?)?;

    let tokens = model.encode(clean)?.into_iter().map(|token| model.decode(&[token]));
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let layers: Vec<String> = (0..model.layers()).map(|layer| format!("layer {layer}")).collect();
    let mut page = Page::new("Where does it keep who gets the drink?");
    for (name, part) in
        [("residual", "the residual stream"), ("attention", "attention outputs"), ("mlp", "MLP outputs")]
    {
        let title = format!("The share of the answer that comes back: {part}");
        let map = HeatMap::new(&title, &layers, &tokens, &results[name])?.transposed();
        println!("{map}");
        page = page.heat_map(&map);
    }
    let heads = (0..model.heads()).map(|head| format!("head {head}"));
    let map = HeatMap::new("Heads, at the last position", &layers, heads, &results["heads"])?;
    println!("{map}");
    let path = std::env::temp_dir().join("activation_patching.html");
    page.heat_map(&map).save(&path)?;
    println!("the same as a page: {}", path.display());
    Ok(())
}
