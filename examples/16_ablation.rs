//! Ablation: what does the model lose without this part?
//!
//! Each part is set to 0, to its mean over a data set, or to another prompt's value. The means are a sweep over the data set
//! that holds nothing but the running result; what an ablated module would have written is given, and the module skipped.

use pellucid::picture::HeatMap;
use pellucid::{Axis, Invoke, Model, Reduce, Result, Results, s};

/// One prompt of the data set, the answer and what would be wrong.
pub struct Example {
    /// The prompt. All have as many tokens.
    pub prompt: String,
    /// The right next token.
    pub answer: u32,
    /// The wrong one.
    pub wrong: u32,
}

/// The parts that are ablated, `mixed` by head: a name, and the hook point in a layer.
pub const PARTS: [(&str, &str); 3] =
    [("mixed", "attention.mixed"), ("attention", "attention.output"), ("mlp", "mlp.output")];

/// Saves `baseline`, the mean difference of logits; for each part its mean by layer (`mixed_means`, …) and the differences
/// without it: `[kinds, layers]`, of `mixed` `[kinds, layers, heads]`; kinds are zero, mean and resample, in which row i
/// gets the value of row `permutation[i]`.
pub fn ablation(model: &Model, data_set: &[Example], permutation: &[i64]) -> Result<Results> {
    let session = model.session();
    let rows = data_set.len();
    let prompts: Vec<&str> = data_set.iter().map(|example| example.prompt.as_str()).collect();
    let means = session.sweep(Axis::new("prompt", &prompts), |cell| {
        let run = session.trace().invoke(cell.prompts("prompt"));
        let values = PARTS.map(|(_, hook)| run.get_all(format!("layers.*.{hook}")).index(s![.., 0]));
        values.map(|value| cell.reduce(&value, Reduce::mean())) // [layers, length, …]
    });

    let trace = session.trace();
    let every = trace.arange(0, rows as i64);
    let answers = trace.literal(data_set.iter().map(|example| example.answer), &[rows as u64]);
    let wrongs = trace.literal(data_set.iter().map(|example| example.wrong), &[rows as u64]);
    let permutation = trace.literal(permutation.iter().copied(), &[rows as u64]);
    let difference = |invoke: &Invoke| {
        let logits = invoke.logits().index(s![.., -1]); // [prompts, vocabulary]
        (logits.index(s![&every, &answers]) - logits.index(s![&every, &wrongs])).mean(..)
    };
    let clean = trace.invoke(&prompts);
    difference(&clean).save("baseline");
    let layers = Axis::new("layer", 0..model.layers());
    for ((name, hook), mean) in PARTS.iter().zip(&means) {
        mean.save(&format!("{name}_means"));
        let values = clean.get_all(format!("layers.*.{hook}")); // [layers, prompts, length, …]
        let zero = &values * 0.0;
        let mean = &zero + mean.unsqueeze(1);
        let kinds = trace.stack([&zero, &mean, &values.index_select(1, &permutation)], 0);
        let kinds = Axis::new("kind", &kinds);
        let differences = match hook.strip_suffix(".output") {
            Some(module) => trace.sweep([kinds, layers.clone()], |cell| {
                let ablated = cell.invoke(&prompts);
                let replacement = cell.value("kind").index(s![cell.value("layer")]);
                ablated.layer("{layer}").child(module).skip(&replacement);
                difference(&ablated)
            }),
            None => trace.sweep([kinds, layers.clone(), Axis::new("head", 0..model.heads())], |cell| {
                let ablated = cell.invoke(&prompts);
                let replacement = cell.value("kind").index(s![cell.value("layer")]);
                let place = s![.., .., cell.value("head")]; // of [prompts, length, heads, head size]
                let head = replacement.index(place.clone());
                ablated.layer("{layer}").edit(hook, |value| value.index_put(place, head));
                difference(&ablated)
            }),
        };
        differences.save(&format!("{name}_difference"));
    }
    session.run()
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
    println!("the right name's logit less the wrong one's: {:.2}\n", results["baseline"].to_vec_f32()?[0]);
    let layers: Vec<String> = (0..model.layers()).map(|layer| format!("layer {layer}")).collect();
    let kinds = ["zero", "mean", "resample"];
    for (name, part) in [("attention", "attention outputs"), ("mlp", "MLP outputs")] {
        let title = format!("The same without a layer's {part}");
        let map = HeatMap::new(&title, kinds, &layers, &results[&format!("{name}_difference")])?;
        println!("{}", map.transposed().full_at_largest());
    }
    let heads = (0..model.heads()).map(|head| format!("head {head}"));
    let rows = kinds.iter().flat_map(|kind| layers.iter().map(move |layer| format!("{kind}, {layer}")));
    let map = HeatMap::new("The same without a head", rows, heads, &results["mixed_difference"])?;
    println!("{}", map.full_at_largest());
    Ok(())
}
