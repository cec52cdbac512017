//! Patchscopes: a hidden state of one prompt, read out by another prompt into which it is put.
//!
//! The state of every layer is put into every layer of the other prompt, which then generates. Two traces in one
//! session: the states flow from the one to the other.

use pellucid::picture::HeatMap;
use pellucid::{Model, Result, Results, s};

/// Where a state is taken, and where it is put.
pub struct Place<'a> {
    /// The prompt.
    pub prompt: &'a str,
    /// The position in it.
    pub position: usize,
}

/// Saves `answer_probability`, `[source layers, target layers]`; and for each pair of layers the tokens that were made,
/// `generated_S_T`, and each step's logits, `logits_S_T`.
pub fn patchscopes(
    model: &Model,
    source: &Place<'_>,
    target: &Place<'_>,
    answer: u32,
    new_tokens: u64,
) -> Result<Results> {
    let session = model.session();
    let read = session.trace();
    let source_run = read.invoke(source.prompt);
    let states: Vec<_> = (0..model.layers())
        .map(|layer| source_run.layer(layer).input().index(s![.., source.position]))
        .collect();

    let write = session.trace();
    write.generate(new_tokens);
    let mut probabilities = Vec::new();
    for (source_layer, state) in states.iter().enumerate() {
        for target_layer in 0..model.layers() {
            let patched = write.invoke(target.prompt);
            patched.layer(target_layer).edit_input(|input| input.index_put(s![.., target.position], state));
            let logits = patched.logits().index(s![0, -1]);
            probabilities.push(logits.softmax(-1).index(s![i64::from(answer)]));
            patched.generated().save(&format!("generated_{source_layer}_{target_layer}"));
            let name = format!("logits_{source_layer}_{target_layer}");
            write.steps(.., |step| step.at(&patched).logits().index(s![0, -1]).save(&name));
        }
    }
    let shape = [model.layers(), model.layers()];
    write.stack(&probabilities, 0).reshape(shape).save("answer_probability");
    session.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let source = Place { prompt: "The Eiffel Tower is in the city of", position: 9 };
    let target = Place { prompt: "The capital of Japan is", position: 4 };
    let results = patchscopes(&model, &source, &target, model.token(" Paris")?, 2)?;

    println!("the last state of {:?}, put into {:?}", source.prompt, target.prompt);
    let from = (0..model.layers()).map(|layer| format!("from layer {layer}"));
    let into = (0..model.layers()).map(|layer| format!("into {layer}"));
    println!("{}", HeatMap::new("The probability of Paris", from, into, &results["answer_probability"])?);
    for layer in 0..model.layers() {
        let tokens: Vec<u32> = results[&format!("generated_{layer}_0")]
            .to_vec_i64()?
            .into_iter()
            .map(|token| token as u32)
            .collect();
        println!("from layer {layer} into layer 0: {:?}", model.decode(&tokens)?);
    }
    Ok(())
}
