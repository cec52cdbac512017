//! Patchscopes: a hidden state of one prompt, read out by another prompt into which it is put.
//!
//! The state of every layer is put into every layer of the other prompt, which then generates. Two traces in one
//! session: the states flow from the one to the other.

use pellucid::picture::HeatMap;
use pellucid::{Axis, Model, Result, Results, s};

/// Where a state is taken, and where it is put.
pub struct Place<'a> {
    /// The prompt.
    pub prompt: &'a str,
    /// The position in it.
    pub position: usize,
}

/// For each pair of layers, `[source layers, target layers, …]`, saves `answer_probability`, the tokens that were made
/// (`generated`, `[…, new tokens]`), and each step's `logits`, `[…, vocabulary]`.
pub fn patchscopes(
    model: &Model,
    source: &Place<'_>,
    target: &Place<'_>,
    answer: u32,
    new_tokens: u64,
) -> Result<Results> {
    let session = model.session();
    let states = session.trace().invoke(source.prompt).get_all("layers.*.input");
    let states = states.index(s![.., 0, source.position]); // [layers, hidden]

    let write = session.trace();
    write.generate(new_tokens);
    let pairs = [Axis::new("state", &states), Axis::new("layer", 0..model.layers())];
    let probability = write.sweep(pairs, |cell| {
        let patched = cell.invoke(target.prompt);
        let state = cell.value("state");
        patched.layer("{layer}").edit_input(|input| input.index_put(s![.., target.position], state));
        patched.generated().index(s![0]).save("generated");
        write.steps(.., |step| step.at(&patched).logits().index(s![0, -1]).save("logits"));
        patched.logits().index(s![0, -1]).softmax(-1).index(s![i64::from(answer)])
    });
    probability.save("answer_probability");
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
    let generated = results["generated"].to_vec_i64()?;
    for (layer, into) in generated.chunks(generated.len() / model.layers()).enumerate() {
        let tokens: Vec<u32> = into[..2].iter().map(|&token| token as u32).collect();
        println!("from layer {layer} into layer 0: {:?}", model.decode(&tokens)?);
    }
    Ok(())
}
