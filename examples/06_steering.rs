//! Steering: the mean difference between good and bad reviews, added while the model reads and writes.
//!
//! A vector is built in one run, kept, and used in others: it comes back as a tensor and goes in as a constant.

use pellucid::{Model, Result, Results, Tensor, s};

/// The layer whose input is steered.
pub const LAYER: usize = 2;

/// Saves `vector`, `[hidden]`: the mean of the residual stream at the last position of the positive prompts, less that
/// of the negative ones; and its length as `norm`.
pub fn steering_vector<T: AsRef<str>>(model: &Model, positive: &[T], negative: &[T]) -> Result<Results> {
    let trace = model.trace();
    let mean = |prompts: &[T]| trace.invoke(prompts).layer(LAYER).input().index(s![.., -1]).mean(0);
    let vector = mean(positive) - mean(negative);
    vector.save("vector");
    vector.norm(..).save("norm");
    trace.run()
}

/// Where a vector is added, and how much of it.
pub struct Steering {
    /// How much of the vector.
    pub scale: f64,
    /// Positions of the prompt.
    pub positions: Vec<usize>,
    /// Whether at each new token too.
    pub generated: bool,
}

/// Generates with the vector added. Saves the new tokens as `generated`, and each step's `logits`.
pub fn steer(
    model: &Model,
    prompt: &str,
    vector: &Tensor,
    steering: &Steering,
    new_tokens: u64,
) -> Result<Results> {
    let trace = model.trace();
    trace.generate(new_tokens);
    let prompt = trace.invoke(prompt);
    let push = trace.constant(vector) * steering.scale;
    for &position in &steering.positions {
        prompt.layer(LAYER).edit_input(|input| input.index_add(s![.., position], &push));
    }
    if steering.generated {
        trace.steps(1.., |step| step.at(&prompt).layer(LAYER).edit_input(|input| input + &push));
    }
    trace.steps(.., |step| step.at(&prompt).logits().index(s![0, -1]).save("logits"));
    prompt.generated().save("generated");
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let reviews = |words: [&str; 3]| -> Vec<String> {
        let things = ["movie", "book", "food", "song", "party", "hotel"];
        things.iter().flat_map(|thing| words.map(|word| format!("The {thing} was {word}. I"))).collect()
    };
    let positive = reviews(["wonderful", "great", "excellent"]);
    let negative = reviews(["awful", "terrible", "horrible"]);
    let vector = steering_vector(&model, &positive, &negative)?["vector"].clone();

    let prompt = "The show was boring. I";
    let last = model.encode(prompt)?.len() - 1;
    for scale in [0.0, 1.0, -1.0] {
        let steering = Steering { scale, positions: vec![last], generated: true };
        let results = steer(&model, prompt, &vector, &steering, 3)?;
        let tokens: Vec<u32> =
            results["generated"].to_vec_i64()?.into_iter().map(|token| token as u32).collect();
        println!("{scale:+.1} × good − bad: {prompt}{}", model.decode(&tokens)?);
    }
    Ok(())
}
