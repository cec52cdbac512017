//! Change values: what is set is what the model goes on with, and what is read after it.

use pellucid::{Invoke, Model, Result, s};

fn main() -> Result<()> {
    let model = Model::bundled()?;
    let prompt = "The Eiffel Tower is in the city of";
    let paris = i64::from(model.token(" Paris")?);
    let probability = |invoke: &Invoke| invoke.logits().index(s![0, -1]).softmax(-1).index(s![paris]);

    // Several invokes of one trace run side by side, each with changes of its own.
    let trace = model.trace();
    let untouched = trace.invoke(prompt);
    probability(&untouched).save("untouched");

    let without_layer = trace.invoke(prompt);
    let layer = without_layer.layer(1);
    layer.set_output(&layer.input()); // skips the block
    probability(&without_layer).save("without_layer_1");

    let without_head = trace.invoke(prompt);
    without_head.layer(2).attention().edit("mixed", |mixed| mixed.index_put(s![.., .., 0], 0.0)); // [prompts, length, heads, head size]
    probability(&without_head).save("without_head_2_0");

    // A value of one invoke can be set in another.
    let swapped = trace.invoke("The Colosseum is in the city of");
    swapped
        .layer(3)
        .edit_input(|input| input.index_put(s![.., -1], untouched.layer(3).input().index(s![.., -1])));
    probability(&swapped).save("from_the_other_prompt");

    for (name, value) in trace.run()?.iter() {
        println!("{name:>22}: Paris with probability {:.4}", value.to_vec_f32()?[0]);
    }
    Ok(())
}
