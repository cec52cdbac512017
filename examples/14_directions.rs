//! Reading and removing directions: what direction does a concept have in the residual stream?
//!
//! Prompts come in pairs that differ in one concept. The leading singular vector of their differences is its direction; added, it
//! puts the concept in, and projected out of every position, it takes the concept away. A random direction does neither.

use pellucid::picture::HeatMap;
use pellucid::{Axis, Invoke, Model, Reduce, Result, Results, Tensor, Value, s};

/// What is compared.
pub struct Pairs<'a> {
    /// Prompts with the concept, and, in the same order, without.
    pub with: &'a [String],
    /// Those without.
    pub without: &'a [String],
    /// The layer whose input is read and changed.
    pub layer: usize,
}

/// Saves the `singular_values`, the `direction`, `[hidden]`, its cosine with the mean difference (`cosine_with_mean`), where
/// both sides lie on it (`projections`, `[2, pairs]`), and how many are on the right side of the middle (`accuracy`).
pub fn read_direction(model: &Model, pairs: &Pairs<'_>) -> Result<Results> {
    let trace = model.trace();
    let data_set = Axis::new("with", pairs.with).with("without", pairs.without);
    let (with, without, mean) = trace.sweep(data_set, |cell| {
        let state = |side: &str| cell.invoke_of(side).layer(pairs.layer).input().index(s![0, -1]);
        let (with, without) = (state("with"), state("without"));
        let mean = cell.reduce(&(&with - &without), Reduce::mean());
        (with, without, mean) // [pairs, hidden] twice, and [hidden]
    });
    let (_, singular, right) = (&with - &without).svd();
    let first = right.index(s![0]);
    // The sign of a singular vector says nothing: the one that points from without to with is taken.
    let direction = &first * (&first * &mean).sum(..).sign();
    let on_it = |states: &Value| (states * &direction).sum(-1);
    let projections = trace.stack([&on_it(&with), &on_it(&without)], 0);
    let middle = projections.mean(..);
    let right_side =
        trace.cat([&projections.index(s![0]).gt(&middle), &projections.index(s![1]).lt(&middle)], 0);

    singular.save("singular_values");
    ((&direction * &mean).sum(..) / mean.norm(..)).save("cosine_with_mean");
    direction.save("direction");
    projections.save("projections");
    right_side.to(pellucid::DType::F32).mean(..).save("accuracy");
    trace.run()
}

/// Saves by how much the logit of `answers.0` leads that of `answers.1` after each prompt: as it is (`baseline`); with the
/// direction projected out of every position of the layer's input (`removed`), or a random one (`control`); with `scale` times
/// the direction added at the last position (`added`), or taken off (`subtracted`).
pub fn change_direction(
    model: &Model,
    prompts: &[String],
    (layer, direction, scale): (usize, &Tensor, f64),
    answers: (u32, u32),
    seed: u64,
) -> Result<Results> {
    let trace = model.trace();
    trace.seed(seed);
    let direction = trace.constant(direction);
    let noise = trace.randn([model.hidden()]).named("noise");
    let random = &noise / noise.norm(..);
    let lead = |run: &Invoke| {
        let logits = run.logits().index(s![.., -1]);
        logits.index(s![.., i64::from(answers.0)]) - logits.index(s![.., i64::from(answers.1)])
    };
    lead(&trace.invoke(prompts)).save("baseline");
    for (name, axis) in [("removed", &direction), ("control", &random)] {
        let run = trace.invoke(prompts);
        run.layer(layer).edit_input(|input| &input - (&input * axis).sum_keepdim(-1) * axis);
        lead(&run).save(name);
    }
    for (name, scale) in [("added", scale), ("subtracted", -scale)] {
        let run = trace.invoke(prompts);
        run.layer(layer).edit_input(|input| input.index_add(s![.., -1], &direction * scale));
        lead(&run).save(name);
    }
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let reviews = |words: [&str; 3]| -> Vec<String> {
        let things = ["movie", "book", "food", "song", "party", "hotel"];
        things.iter().flat_map(|thing| words.map(|word| format!("The {thing} was {word}. I"))).collect()
    };
    let (with, without) =
        (reviews(["wonderful", "great", "excellent"]), reviews(["awful", "terrible", "horrible"]));
    let found = read_direction(&model, &Pairs { with: &with, without: &without, layer: 2 })?;
    println!("singular values: {:.1?}", found["singular_values"].to_vec_f32()?);
    println!("cosine with the mean difference: {:.4}\n", found["cosine_with_mean"].to_vec_f32()?[0]);

    let prompts = [
        "The trip was lovely. I",
        "The game was amazing. I",
        "The meal was boring. I",
        "The trip was disgusting. I",
    ];
    let answers = (model.token(" loved")?, model.token(" hated")?);
    let texts = prompts.map(str::to_owned);
    let results = change_direction(&model, &texts, (2, &found["direction"], 4.0), answers, 0)?;
    let kinds = ["baseline", "removed", "control", "added", "subtracted"];
    let mut leads = Vec::new();
    for kind in kinds {
        leads.extend(results[kind].to_vec_f32()?);
    }
    let leads = Tensor::from_f32(leads, &[kinds.len(), prompts.len()])?;
    let map = HeatMap::new("The logit of loved less that of hated", kinds, prompts, &leads)?;
    println!("{}", map.transposed().full_at_largest());
    Ok(())
}
