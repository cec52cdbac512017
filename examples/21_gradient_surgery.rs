//! Gradient surgery: what does the gradient come through?
//!
//! On its way back the gradient is zeroed at one layer's attention and doubled at another's MLP. What was computed stays as it
//! is; only what is blamed for it changes.

use pellucid::picture::HeatMap;
use pellucid::{Model, Result, Results, s};

/// A hook point, and what its gradient is multiplied by.
pub struct Cut {
    /// The hook point.
    pub hook: String,
    /// The factor.
    pub factor: f64,
}

/// Saves the answer's logit less the wrong one's (`difference`), its gradient at the token embeddings (`embeddings`,
/// `[positions, hidden]`), and the length of that at each layer's input (`norms`, `[layers, positions]`).
pub fn gradient_surgery(
    model: &Model,
    prompt: &str,
    (answer, wrong): (u32, u32),
    cuts: &[Cut],
) -> Result<Results> {
    let trace = model.trace();
    let invoke = trace.invoke(prompt);
    let logits = invoke.logits().index(s![0, -1]);
    let difference = logits.index(s![i64::from(answer)]) - logits.index(s![i64::from(wrong)]);
    difference.save("difference");

    let back = trace.backward(&difference);
    for cut in cuts {
        let gradient = back.hook_grad(&invoke, &cut.hook);
        back.set_hook_grad(&invoke, &cut.hook, &(gradient * cut.factor));
    }
    let lengths: Vec<_> = (0..model.layers())
        .map(|layer| back.hook_grad(&invoke, &format!("layers.{layer}.input")).index(s![0]).norm(-1))
        .collect();
    trace.stack(&lengths, 0).save("norms");
    back.hook_grad(&invoke, "embed.output").index(s![0]).save("embeddings");
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let prompt = "When Mary and John went to the store, John gave a drink to";
    let answers = (model.token(" Mary")?, model.token(" John")?);
    let cut = |hook: &str, factor| Cut { hook: hook.to_owned(), factor };
    let tokens = model.encode(prompt)?.into_iter().map(|token| model.decode(&[token]));
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let layers: Vec<String> = (0..model.layers()).map(|layer| format!("layer {layer}")).collect();
    for (name, cuts) in [
        ("as it is", vec![]),
        ("nothing through layer 2's attention", vec![cut("layers.2.attention.output", 0.0)]),
        ("twice as much through layer 1's MLP", vec![cut("layers.1.mlp.output", 2.0)]),
    ] {
        let results = gradient_surgery(&model, prompt, answers, &cuts)?;
        let title = format!("{name}: the length of the gradient at each layer's input");
        println!("{}", HeatMap::new(&title, &layers, &tokens, &results["norms"])?.transposed().full_at(10.0));
    }
    Ok(())
}
