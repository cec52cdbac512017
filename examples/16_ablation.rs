//! Ablation: what does the model lose without this part?
//!
//! Each part is set to 0, to its mean over a data set, or to another prompt's value. The prompts are the rows of one
//! invoke; what they are replaced by flows from the invoke that was left alone.

use pellucid::{Invoke, Model, Result, Results, Value, s};

/// One prompt of the data set, the answer and what would be wrong.
pub struct Example {
    /// The prompt. All have the same number of tokens.
    pub prompt: String,
    /// The right next token.
    pub answer: u32,
    /// The wrong one.
    pub wrong: u32,
}

/// The parts that are ablated: a name, and the hook point in a layer.
pub const PARTS: [(&str, &str); 3] =
    [("mixed", "attention.mixed"), ("attention", "attention.output"), ("mlp", "mlp.output")];

/// Saves `baseline`, the mean difference of logits; for each part its mean by layer (`mixed_means`, …) and the differences
/// without it: `[kinds, layers]`, of `mixed` `[kinds, layers, heads]`; kinds are zero, mean and resample, in which row i
/// gets the value of row `permutation[i]`.
pub fn ablation(model: &Model, data_set: &[Example], permutation: &[i64]) -> Result<Results> {
    let trace = model.trace();
    let rows = data_set.len() as i64;
    let prompts: Vec<&str> = data_set.iter().map(|example| example.prompt.as_str()).collect();
    let every = trace.arange(0, rows);
    let answers = trace.literal(data_set.iter().map(|example| example.answer), &[rows as u64]);
    let wrongs = trace.literal(data_set.iter().map(|example| example.wrong), &[rows as u64]);
    let permutation = trace.literal(permutation.iter().copied(), &[rows as u64]);
    let difference = |invoke: &Invoke| {
        let logits = invoke.logits().index(s![.., -1]); // [prompts, vocabulary]
        (logits.index(s![&every, &answers]) - logits.index(s![&every, &wrongs])).mean(..)
    };

    let clean = trace.invoke(&prompts);
    difference(&clean).save("baseline");
    for (name, hook) in PARTS {
        let (mut means, mut differences) = (Vec::new(), vec![Vec::new(); 3]);
        for layer in 0..model.layers() {
            let value = clean.layer(layer).get(hook); // [prompts, length, …]
            let mean = value.mean_keepdim(0); // a setter takes what expands to the shape
            let replacements = [&value * 0.0, mean.clone(), value.index_select(0, &permutation)];
            means.push(mean.squeeze(0));
            for (kind, replacement) in replacements.iter().enumerate() {
                let parts = if name == "mixed" { model.heads() } else { 1 };
                for part in 0..parts {
                    let ablated = trace.invoke(&prompts);
                    ablated
                        .layer(layer)
                        .edit(hook, |value| replace(&value, replacement, (name == "mixed").then_some(part)));
                    differences[kind].push(difference(&ablated));
                }
            }
        }
        trace.stack(&means, 0).save(&format!("{name}_means"));
        let differences = trace.stack(differences.iter().flatten(), 0);
        let shape =
            if name == "mixed" { vec![3, model.layers(), model.heads()] } else { vec![3, model.layers()] };
        differences.reshape(shape).save(&format!("{name}_difference"));
    }
    trace.run()
}

/// All of a value, or one head of it, replaced.
fn replace(value: &Value, replacement: &Value, head: Option<usize>) -> Value {
    match head {
        Some(head) => value.index_put(s![.., .., head], replacement.index(s![.., .., head])),
        None => replacement.clone(),
    }
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let people = [
        ("Mary", "John", "store", "drink"),
        ("Alice", "James", "school", "book"),
        ("Emma", "Robert", "park", "ball"),
        ("Anna", "David", "station", "flower"),
    ];
    let mut data_set = Vec::new();
    for (receiver, giver, place, thing) in people {
        data_set.push(Example {
            prompt: format!("When {receiver} and {giver} went to the {place}, {giver} gave a {thing} to"),
            answer: model.token(&format!(" {receiver}"))?,
            wrong: model.token(&format!(" {giver}"))?,
        });
    }
    let results = ablation(&model, &data_set, &[1, 2, 3, 0])?;
    println!("the right name's logit less the wrong one's: {:.2}", results["baseline"].to_vec_f32()?[0]);
    for (name, _) in PARTS {
        let differences = &results[&format!("{name}_difference")];
        let kind = differences.elements() / 3;
        for (kind, differences) in
            ["zero", "mean", "resample"].iter().zip(differences.to_vec_f32()?.chunks(kind))
        {
            println!("{name:>10} {kind:>9}, by layer: {differences:.2?}");
        }
    }
    Ok(())
}
