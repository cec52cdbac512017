//! Conditional steering with an early stop: steering only where it is needed.
//!
//! At each step the last position is projected on a direction, and only where the projection is on the wrong side is the
//! vector added. The program ends each prompt's generation itself, once its own condition holds: the sentence is over.

use pellucid::picture::Curves;
use pellucid::{Invoke, Model, Result, Results, Tensor, s};

/// The vector from the mean of some prompts to that of others, and the point between them.
pub struct Direction {
    /// The layer whose input is read and steered.
    pub layer: usize,
    /// `[hidden]`
    pub vector: Tensor,
    /// The projection, on the vector's direction, of the point in the middle.
    pub threshold: f64,
}

/// The direction from bad prompts to good ones at the last position of a layer's input.
pub fn direction(model: &Model, good: &[String], bad: &[String], layer: usize) -> Result<Direction> {
    let trace = model.trace();
    let mean = |prompts: &[String]| trace.invoke(prompts).layer(layer).input().index(s![.., -1]).mean(0);
    let (good, bad) = (mean(good), mean(bad));
    let vector = &good - &bad;
    (((&good + &bad) * 0.5 * &vector).sum(..) / vector.norm(..)).save("threshold");
    vector.save("vector");
    let results = trace.run()?;
    let threshold = f64::from(results["threshold"].to_vec_f32()?[0]);
    Ok(Direction { layer, vector: results["vector"].clone(), threshold })
}

/// Generates after several prompts of any lengths, with `scale` times the vector added at each step's last position where the
/// projection is below the threshold; each ends after the step at which the token `stop` is more probable than not. Saves the
/// new tokens as `generated`, `[prompts, new]`, and each step's `projections` (before steering) and probability of the end
/// (`ending`), `[prompts]`.
pub fn steer_where_needed(
    model: &Model,
    prompts: &[String],
    direction: &Direction,
    scale: f64,
    stop: u32,
    new_tokens: u64,
) -> Result<Results> {
    let trace = model.trace();
    trace.generate(new_tokens);
    let invoke = trace.invoke(prompts);
    let vector = trace.constant(&direction.vector);
    let axis = &vector / vector.norm(..);
    trace.steps(.., |step| {
        let now: Invoke = step.at(&invoke);
        let here = now.layer(direction.layer).input().index(s![.., -1]); // [prompts, hidden]
        let projections = (&here * &axis).sum(-1);
        projections.save("projections");
        let needed = projections.lt(direction.threshold).unsqueeze(-1);
        let steered = needed.where_cond(&here + &vector * scale, &here);
        now.layer(direction.layer).edit_input(|input| input.index_put(s![.., -1], &steered));

        let ending = now.logits().index(s![.., -1]).softmax(-1).index(s![.., i64::from(stop)]);
        ending.save("ending");
        now.stop(&ending.gt(0.5));
    });
    invoke.generated().save("generated");
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let reviews = |words: [&str; 3]| -> Vec<String> {
        let things = ["movie", "book", "food", "song", "party", "hotel"];
        things.iter().flat_map(|thing| words.map(|word| format!("The {thing} was {word}. I"))).collect()
    };
    let (good, bad) =
        (reviews(["wonderful", "great", "excellent"]), reviews(["awful", "terrible", "horrible"]));
    let direction = direction(&model, &good, &bad, 2)?;
    let prompts =
        ["The movie was awful. I", "The game was boring and bad. I", "The song was amazing and lovely. I"];
    let stop = model.encode(".")?[0];
    for scale in [0.0, 1.0] {
        let results = steer_where_needed(&model, &prompts.map(str::to_owned), &direction, scale, stop, 6)?;
        println!("{scale} × good − bad, where a step is on the bad side:");
        let generated = results["generated"].to_vec_i64()?;
        let projections = results
            .steps("projections")
            .into_iter()
            .map(Tensor::to_vec_f32)
            .collect::<Result<Vec<_>, _>>()?;
        let mut curves = Curves::new("from bad to good, where each step lies before it is steered");
        for (row, (prompt, tokens)) in prompts.iter().zip(generated.chunks(6)).enumerate() {
            // −1 after a prompt had stopped.
            let tokens: Vec<u32> = tokens.iter().filter_map(|&token| u32::try_from(token).ok()).collect();
            println!("  {prompt}{}", model.decode(&tokens)?);
            let line = projections[..tokens.len()].iter().map(|step| step[row]).collect();
            curves = curves.line(prompt, &Tensor::from_f32(line, &[tokens.len()])?)?;
        }
        println!("\n{curves}");
    }
    Ok(())
}
