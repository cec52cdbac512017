//! Direct logit attribution: who writes the answer?
//!
//! The residual stream is a sum of everything that was ever added to it. With the last norm's scale held fixed the logits are
//! linear in it, so that each part's share of a logit is a dot product: with what the unembedding reads. All shares together
//! are the logit.

use pellucid::picture::HeatMap;
use pellucid::{Model, Result, Results, Value, s};

/// Saves the answer's logit less the wrong one's at the last position (`difference`), the last norm's `scale`, and the shares in
/// the difference of the `token` embedding, the `position` embedding, the `heads`, `[layers, heads]`, the attentions' biases
/// (`attention_biases`, `[layers]`), the `mlps`, `[layers]`, and the last norm's bias (`norm_bias`).
pub fn direct_logit_attribution(model: &Model, prompt: &str, (answer, wrong): (u32, u32)) -> Result<Results> {
    let trace = model.trace();
    let invoke = trace.invoke(prompt);
    let logits = invoke.logits().index(s![0, -1]);
    (logits.index(s![i64::from(answer)]) - logits.index(s![i64::from(wrong)])).save("difference");

    let row = |token: u32| trace.weight_at("lm_head.weight", s![i64::from(token)]); // [hidden]
    let reads = row(answer) - row(wrong);
    let scale = invoke.final_norm().get("scale").index(s![0, -1]); // [1]
    let weight = trace.weight("transformer.ln_f.weight");
    // The norm takes the mean off each part; then the dot product over the last dimension.
    let share = |part: &Value| ((part - part.mean_keepdim(-1)) / &scale * &weight * &reads).sum(-1);

    let (mut heads, mut biases, mut mlps) = (Vec::new(), Vec::new(), Vec::new());
    for layer in 0..model.layers() {
        let mixed = invoke.layer(layer).get("attention.mixed").index(s![0, -1]); // [heads, head size]
        let rows = trace.weight(&format!("transformer.h.{layer}.attn.c_proj.weight"));
        let rows = rows.unflatten(0, [model.heads() as i64, -1]); // [heads, head size, hidden]
        heads.push(share(&trace.einsum("hd,hdo->ho", [&mixed, &rows])));
        biases.push(share(&trace.weight(&format!("transformer.h.{layer}.attn.c_proj.bias"))));
        mlps.push(share(&invoke.layer(layer).mlp().output().index(s![0, -1])));
    }
    scale.squeeze(0).save("scale");
    share(&invoke.embed().output().index(s![0, -1])).save("token");
    share(&invoke.module("transformer.wpe").output().index(s![0, -1])).save("position");
    trace.stack(&heads, 0).save("heads");
    trace.stack(&biases, 0).save("attention_biases");
    trace.stack(&mlps, 0).save("mlps");
    (trace.weight("transformer.ln_f.bias") * &reads).sum(..).save("norm_bias");
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let prompt = "When Mary and John went to the store, John gave a drink to";
    let answers = (model.token(" Mary")?, model.token(" John")?);
    let results = direct_logit_attribution(&model, prompt, answers)?;
    let layers: Vec<String> = (0..model.layers()).map(|layer| format!("layer {layer}")).collect();
    let heads = (0..model.heads()).map(|head| format!("head {head}"));
    let map =
        HeatMap::new("Shares in the logit of Mary less that of John", &layers, heads, &results["heads"])?;
    println!("{}", map.full_at_largest());
    println!("MLPs, by layer: {:.2?}", results["mlps"].to_vec_f32()?);
    let mut total = 0.0;
    for part in ["token", "position", "heads", "attention_biases", "mlps", "norm_bias"] {
        total += results[part].to_vec_f32()?.iter().sum::<f32>();
    }
    println!("all parts together {total:.3}, the difference {:.3}", results["difference"].to_vec_f32()?[0]);
    Ok(())
}
