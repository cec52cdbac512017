//! Path patching: which heads and MLPs speak to the answer directly, and which to the queries, keys and values of a layer?
//!
//! Activation patching says that a part matters, not to whom it speaks. Here one sender is set to what it wrote in the
//! corrupted run while every other head and MLP is frozen to what it wrote in the clean one, so that the change reaches a
//! receiver on no path but the direct one. What arrives there is put into a clean run, and the share of the answer that
//! is lost is measured.

use pellucid::picture::HeatMap;
use pellucid::{Axis, Cell, Invoke, Model, Pattern, Result, Results, s};

/// For each receiver (`logits`: what enters the last norm; `query`, `key`, `value` of the receiving layer's attention) saves
/// the share of the answer that is lost, `<receiver>_heads`, `[layers, heads]`, and `<receiver>_mlps`, `[layers]`, for all
/// layers that come before it, two or more; and both runs' logit differences.
pub fn path_patching(
    model: &Model,
    clean: &str,
    corrupted: &str,
    (answer, wrong): (u32, u32),
    receiving_layer: usize,
) -> Result<Results> {
    let trace = model.trace();
    let clean_run = trace.invoke(clean);
    let corrupted_run = trace.invoke(corrupted);
    let difference = |invoke: &Invoke| {
        let logits = invoke.logits().index(s![0, -1]);
        logits.index(s![i64::from(answer)]) - logits.index(s![i64::from(wrong)])
    };
    let (best, worst) = (difference(&clean_run), difference(&corrupted_run));
    best.save("clean_difference");
    worst.save("corrupted_difference");

    // A run in which all that heads and MLPs write in so many layers is as in the clean one, except at one hook point.
    let frozen = |cell: &Cell, layers: usize, free: &str| {
        let run = cell.invoke(clean);
        for written in ["attention.mixed", "mlp.output"] {
            let others = Pattern::new(format!("layers[0:{layers}].{written}")).except([free]);
            run.set_each(others.clone(), &clean_run.get_all(others));
        }
        run
    };

    let attention = format!("layers.{receiving_layer}.attention");
    for (name, receiver, layers) in [
        ("logits", "final_norm.input".to_owned(), model.layers()),
        ("query", format!("{attention}.query"), receiving_layer),
        ("key", format!("{attention}.key"), receiving_layer),
        ("value", format!("{attention}.value"), receiving_layer),
    ] {
        let lost = |cell: &Cell, sent: &Invoke| {
            let patched = cell.invoke(clean);
            patched.set(&receiver, &sent.get(&receiver));
            (&best - difference(&patched)) / (&best - &worst)
        };
        let senders = Axis::new("layer", 0..layers);
        let heads = [senders.clone(), Axis::new("head", 0..model.heads())];
        let heads = trace.sweep(heads, |cell| {
            let run = frozen(cell, layers, "layers.{layer}.attention.mixed");
            let place = s![.., .., cell.value("head")]; // of [prompts, length, heads, head size]
            let wrong = corrupted_run.layer("{layer}").get("attention.mixed").index(place.clone());
            run.layer("{layer}").edit("attention.mixed", |mixed| mixed.index_put(place, wrong));
            lost(cell, &run)
        });
        let mlps = trace.sweep(senders, |cell| {
            let run = frozen(cell, layers, "layers.{layer}.mlp.output");
            run.layer("{layer}").mlp().set_output(&corrupted_run.layer("{layer}").mlp().output());
            lost(cell, &run)
        });
        heads.save(&format!("{name}_heads"));
        mlps.save(&format!("{name}_mlps"));
    }
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let clean = "When Mary and John went to the store, John gave a drink to";
    let corrupted = "When Mary and John went to the store, Mary gave a drink to";
    let answers = (model.token(" Mary")?, model.token(" John")?);
    let results = path_patching(&model, clean, corrupted, answers, 2)?;

    let heads: Vec<String> = (0..model.heads()).map(|head| format!("head {head}")).collect();
    for (receiver, speaks_to) in [("logits", "the last norm"), ("value", "the values of layer 2")] {
        let lost = &results[&format!("{receiver}_heads")];
        let layers = (0..lost.shape()[0]).map(|layer| format!("layer {layer}"));
        let title = format!("The share of the answer that is lost when a head speaks falsely to {speaks_to}");
        println!("{}", HeatMap::new(&title, layers, &heads, lost)?);
        println!("and its MLPs: {:.2?}\n", results[&format!("{receiver}_mlps")].to_vec_f32()?);
    }
    Ok(())
}
