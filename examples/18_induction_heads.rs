//! Induction heads: which heads look for what came after the last time?
//!
//! On random tokens that are repeated, such a head attends from a token to the one after its first occurrence. How much
//! is the mean of the pattern along a diagonal.

use pellucid::picture::HeatMap;
use pellucid::{Model, Result, Results, s};

/// Prompts of `2 * half` tokens, the second half a repetition of the first. Saves `induction`, `previous_token` and
/// `duplicate_token`, `[layers, heads]`, and `accuracy`: how often the second half is predicted.
pub fn induction_heads(model: &Model, prompts: &[Vec<u32>], half: i64) -> Result<Results> {
    let trace = model.trace();
    let invoke = trace.invoke_tokens(prompts);
    let offsets = [("induction", 1 - half), ("previous_token", -1), ("duplicate_token", -half)];
    let patterns = invoke.get_all("layers.*.attention.pattern"); // [layers, prompts, heads, length, context]
    for (name, offset) in offsets {
        patterns.diagonal(offset, -2, -1).mean([1, -1]).save(name);
    }
    let predicted = invoke.logits().index(s![.., half..-1]).argmax(-1);
    let right = predicted.eq(invoke.tokens().index(s![.., half + 1..]));
    right.to(pellucid::DType::F32).mean(..).save("accuracy");
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    // A small generator of its own, so that the same prompts come out everywhere.
    let mut state = 7u64;
    let mut random_token = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        1 + (state >> 33) as u32 % 2047
    };
    let half = 20;
    let prompts: Vec<Vec<u32>> =
        (0..6).map(|_| (0..half).map(|_| random_token()).collect::<Vec<u32>>().repeat(2)).collect();
    let results = induction_heads(&model, &prompts, half)?;
    for name in ["induction", "previous_token", "duplicate_token"] {
        let layers = (0..model.layers()).map(|layer| format!("layer {layer}"));
        let heads = (0..model.heads()).map(|head| format!("head {head}"));
        let title = format!("{name}: how much of its attention a head gives to such tokens");
        println!("{}", HeatMap::new(&title, layers, heads, &results[name])?);
    }
    println!("accuracy on the second half: {:.3}", results["accuracy"].to_vec_f32()?[0]);
    Ok(())
}
