//! The logit lens: what would the model say if it stopped at this layer?
//!
//! The final norm and the unembedding are applied, out of their order, to the residual stream at every depth.

use pellucid::picture::HeatMap;
use pellucid::{Model, Result, Results, s};

/// Saves, by depth and position, `answer_probability`, `top_ids` and `top_probabilities` (five each) and `kl_to_final`,
/// and `last_logits` by depth.
pub fn logit_lens(model: &Model, prompt: &str, answer: u32) -> Result<Results> {
    let trace = model.trace();
    let invoke = trace.invoke(prompt);
    let outputs = invoke.get_all("layers.*.output").index(s![.., 0]); // [layers, positions, hidden]
    let residual = trace.cat([&invoke.layer(0).input(), &outputs], 0); // [depths, positions, hidden]
    let logits = residual.apply("final_norm").apply("unembed"); // [depths, positions, vocabulary]
    let (probabilities, logarithms) = (logits.softmax(-1), logits.log_softmax(-1));
    let (top_probabilities, top_ids) = probabilities.topk(5, -1);
    let surprise = probabilities.index(s![-1]) * (logarithms.index(s![-1]) - &logarithms);

    probabilities.index(s![.., .., i64::from(answer)]).save("answer_probability");
    top_ids.save("top_ids");
    top_probabilities.save("top_probabilities");
    logits.index(s![.., -1]).save("last_logits");
    surprise.sum(-1).save("kl_to_final");
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let prompt = "The Eiffel Tower is in the city of";
    let results = logit_lens(&model, prompt, model.token(" Paris")?)?;
    let tokens = model.encode(prompt)?.into_iter().map(|token| model.decode(&[token]));
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let depths = (0..=model.layers()).map(|depth| format!("depth {depth}"));
    let title = "The probability of Paris, read out of each position at each depth";
    println!("{}", HeatMap::new(title, depths, &tokens, &results["answer_probability"])?.transposed());
    let (ids, probabilities) = (results["top_ids"].to_vec_i64()?, results["top_probabilities"].to_vec_f32()?);
    println!("after {prompt:?}, the most probable token at each depth:");
    for depth in 0..=model.layers() {
        let last = (depth * tokens.len() + tokens.len() - 1) * 5;
        println!("  {depth}: {:?} ({:.3})", model.decode(&[ids[last] as u32])?, probabilities[last]);
    }
    Ok(())
}
