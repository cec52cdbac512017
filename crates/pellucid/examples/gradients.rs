//! Gradients: of whatever was computed from whatever it was computed from, read and written on the way back.

use pellucid::{Model, Result, s};

fn main() -> Result<()> {
    let model = Model::bundled()?;
    let (mary, john) = (i64::from(model.token(" Mary")?), i64::from(model.token(" John")?));
    let trace = model.trace();
    let prompt = trace.invoke("When Mary and John went to the store, John gave a drink to");
    let logits = prompt.logits().index(s![0, -1]); // [vocabulary]
    let difference = logits.index(s![mary]) - logits.index(s![john]);

    // Which heads speak for Mary: what each wrote, times the gradient there.
    let back = trace.backward(&difference);
    for layer in 0..4 {
        let mixed = prompt.layer(layer).attention().get("mixed"); // [prompts, length, heads, head size]
        (back.grad(&mixed) * &mixed).sum([0, 1, 3]).save(&format!("heads_{layer}"));
    }

    // A second way back of the same pass, with the gradient through one layer's MLP left out.
    let without = trace.backward(&difference);
    let through = without.hook_grad(&prompt, "layers.1.mlp.output");
    without.set_hook_grad(&prompt, "layers.1.mlp.output", &(through * 0.0));
    let embeddings = prompt.embed().output();
    (without.grad(&embeddings) - back.grad(&embeddings)).norm(-1).save("through_the_mlp"); // [prompts, length]

    let results = trace.run()?;
    for layer in 0..4 {
        println!("layer {layer}: {:>7.3?}", results[format!("heads_{layer}").as_str()].to_vec_f32()?);
    }
    println!("through layer 1's MLP, by token: {:.3?}", results["through_the_mlp"].to_vec_f32()?);
    Ok(())
}
