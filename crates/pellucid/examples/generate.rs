//! Generate, reading and writing at the steps of your choice.

use pellucid::{Generation, Model, Result, s};

fn main() -> Result<()> {
    let model = Model::bundled()?;
    let trace = model.trace();
    trace.seed(1);
    trace.generate(Generation::new(12).temperature(0.8).top_p(0.95));
    let prompt = trace.invoke("When Mary and John went to the");
    prompt.generated().save("tokens"); // [prompts, new tokens]

    // Step 0 is the prompt's; at each later step there is one new token.
    trace.steps(.., |step| {
        let logits = step.at(&prompt).logits().index(s![0, -1]);
        logits.softmax(-1).amax(..).save("certainty");
    });

    let results = trace.run()?;
    let tokens: Vec<u32> = results["tokens"].to_vec_i64()?.into_iter().map(|token| token as u32).collect();
    for (token, certainty) in tokens.iter().zip(results.steps("certainty")) {
        println!("{:>10} {:.3}", model.decode(&[*token])?, certainty.to_vec_f32()?[0]);
    }
    Ok(())
}
