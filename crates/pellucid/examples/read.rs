//! Open a model, trace a prompt, read values inside it.

use pellucid::{Model, Result, s};

fn main() -> Result<()> {
    // A Hugging Face folder, a GGUF file or a hub id would do as well: `Model::open("openai-community/gpt2")`.
    let model = Model::bundled()?;

    let trace = model.trace();
    let prompt = trace.invoke("The Eiffel Tower is in the city of");
    // Hugging Face's own path, and the standard name that works on every family: the same value.
    prompt.get("transformer.h.2.output").save("residual"); //            [prompts, length, hidden]
    prompt.layer(2).attention().get("pattern").save("pattern"); //       [prompts, heads, length, context]
    // What is computed from a value is computed beside the model; only what is saved comes back.
    let (probabilities, tokens) = prompt.logits().index(s![0, -1]).softmax(-1).topk(3, -1);
    probabilities.save("probabilities");
    tokens.save("tokens");

    // Nothing has been computed yet.
    let results = trace.run()?;
    println!("residual {:?}, pattern {:?}", results["residual"].shape(), results["pattern"].shape());
    for (token, probability) in
        results["tokens"].to_vec_i64()?.into_iter().zip(results["probabilities"].to_vec_f32()?)
    {
        println!("{:?} {probability:.4}", model.decode(&[token as u32])?);
    }
    Ok(())
}
