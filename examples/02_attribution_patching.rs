//! Attribution patching: activation patching at every place at once, to first order.
//!
//! Patching runs the model once for each place. But how much a small change at a place moves the answer is what a gradient
//! says, and one backward pass gives it for all places: the effect of patching is about the change that it would make, times
//! the gradient. It is right where the model is nearly linear between the two runs, and too small where something
//! saturates; example 01 has what is true.

use pellucid::picture::HeatMap;
use pellucid::{Invoke, Model, Result, Results, s};

/// The parts: a name, and the hook point in a layer.
pub const PARTS: [(&str, &str); 4] = [
    ("residual", "input"),
    ("attention", "attention.output"),
    ("mlp", "mlp.output"),
    ("heads", "attention.mixed"),
];

/// Saves the estimated share of the answer that patching each place would bring back: `residual`, `attention` and `mlp`,
/// `[layers, positions]`, and `heads`, `[layers, positions, heads]`; and the residual stream's gradient, `gradient`,
/// `[layers, positions, hidden]`.
pub fn attribution_patching(
    model: &Model,
    clean: &str,
    corrupted: &str,
    (answer, wrong): (u32, u32),
) -> Result<Results> {
    let trace = model.trace();
    let (clean, corrupted) = (trace.invoke(clean), trace.invoke(corrupted));
    let difference = |invoke: &Invoke| {
        let logits = invoke.logits().index(s![0, -1]);
        logits.index(s![i64::from(answer)]) - logits.index(s![i64::from(wrong)])
    };
    let (best, worst) = (difference(&clean), difference(&corrupted));
    let back = trace.backward(&worst);
    for (name, hook) in PARTS {
        let (mut effects, mut gradients) = (Vec::new(), Vec::new());
        for layer in 0..model.layers() {
            let here = corrupted.layer(layer).get(hook);
            let gradient = back.grad(&here).index(s![0]);
            let change = (clean.layer(layer).get(hook) - &here).index(s![0]);
            effects.push((change * &gradient).sum(-1) / (&best - &worst));
            gradients.push(gradient);
        }
        trace.stack(&effects, 0).save(name);
        if name == "residual" {
            trace.stack(&gradients, 0).save("gradient");
        }
    }
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let clean = "When Mary and John went to the store, John gave a drink to";
    let corrupted = "When Mary and John went to the store, Mary gave a drink to";
    let answers = (model.token(" Mary")?, model.token(" John")?);
    let results = attribution_patching(&model, clean, corrupted, answers)?;

    let tokens = model.encode(clean)?.into_iter().map(|token| model.decode(&[token]));
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    for (name, _) in &PARTS[..3] {
        let layers = (0..model.layers()).map(|layer| format!("layer {layer}"));
        let title = format!("{name}: the share of the answer that would come back, to first order");
        println!("{}", HeatMap::new(&title, layers, &tokens, &results[name])?.transposed());
    }
    Ok(())
}
