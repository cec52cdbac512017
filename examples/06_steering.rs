//! Steering: the mean difference between good and bad reviews, added while the model reads and writes.
//!
//! A vector is built in one run, kept, and used in others: it comes back as a tensor and goes in as a constant.

use pellucid::picture::Curves;
use pellucid::{Axis, Model, Result, Results, Tensor, s};

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

/// Saves the `probability` of each answer, `[scales, answers]`, after a prompt to whose last position so many times the vector
/// is added.
pub fn steering_curve(
    model: &Model,
    prompt: &str,
    vector: &Tensor,
    scales: &[f64],
    answers: &[u32],
) -> Result<Results> {
    let trace = model.trace();
    let vector = trace.constant(vector);
    let answers = trace.literal(answers.iter().copied(), &[answers.len() as u64]);
    let probability = trace.sweep(Axis::new("scale", scales), |cell| {
        let run = cell.invoke(prompt);
        run.layer(LAYER).edit_input(|input| input.index_add(s![.., -1], &vector * cell.value("scale")));
        run.logits().index(s![0, -1]).softmax(-1).index(s![&answers])
    });
    probability.save("probability");
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

    let scales: Vec<f64> = (-8..=8).map(|quarter| f64::from(quarter) / 4.0).collect();
    let answers = [" loved", " hated"];
    let tokens = [model.token(answers[0])?, model.token(answers[1])?];
    let results = steering_curve(&model, prompt, &vector, &scales, &tokens)?;
    let curves = Curves::new("The next word's probability, from −2 to 2 × good − bad");
    println!("\n{}", curves.lines(answers, &results["probability"])?);
    Ok(())
}
