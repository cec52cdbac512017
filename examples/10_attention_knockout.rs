//! Attention knock-out: does the answer need this edge?
//!
//! Scores from one position to another are set to −∞ before the softmax, in every head of a window of layers.

use pellucid::picture::HeatMap;
use pellucid::{Axis, Model, Result, Results, s};

/// Cuts each edge (query position, key position) in each window of layers. Saves `answer_probability` and `difference`
/// (the answer's logit less the wrong one's), `[windows, edges]`, and `baseline_logits`.
pub fn attention_knockout(
    model: &Model,
    prompt: &str,
    (answer, wrong): (u32, u32),
    windows: &[Vec<usize>],
    edges: &[(usize, usize)],
) -> Result<Results> {
    let trace = model.trace();
    trace.invoke(prompt).logits().index(s![0, -1]).save("baseline_logits");
    let (queries, keys): (Vec<_>, Vec<_>) = edges.iter().copied().unzip();
    let edges = Axis::new("query", queries).with("key", keys); // the two go along together
    let (mut probabilities, mut differences) = (Vec::new(), Vec::new());
    for window in windows {
        let (probability, difference) = trace.sweep(edges.clone(), |cell| {
            let cut = cell.invoke(prompt);
            let edge = s![.., .., cell.value("query"), cell.value("key")]; // of [prompts, heads, length, context]
            for layer in window {
                let attention = cut.layer(layer).attention();
                attention.edit("scores", |scores| scores.index_put(edge.clone(), f64::NEG_INFINITY));
            }
            let logits = cut.logits().index(s![0, -1]);
            let (right, wrong) = (s![i64::from(answer)], s![i64::from(wrong)]);
            (logits.softmax(-1).index(right.clone()), logits.index(right) - logits.index(wrong))
        });
        probabilities.push(probability);
        differences.push(difference);
    }
    trace.stack(&probabilities, 0).save("answer_probability");
    trace.stack(&differences, 0).save("difference");
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let prompt = "The Eiffel Tower is in the city of";
    let tokens = model.encode(prompt)?;
    let last = tokens.len() - 1;
    let windows = [vec![0], vec![1], vec![2], vec![3], vec![0, 1, 2, 3]];
    let edges: Vec<(usize, usize)> = (0..last).map(|key| (last, key)).collect();
    let answers = (model.token(" Paris")?, model.token(" Rome")?);
    let results = attention_knockout(&model, prompt, answers, &windows, &edges)?;

    let keys = edges.iter().map(|(_, key)| model.decode(&tokens[*key..=*key]));
    let keys = keys.collect::<Result<Vec<_>>>()?;
    let windows = windows.map(|window| format!("in {window:?}"));
    let title = "The probability of Paris when the last position cannot look at a token, in some layers";
    println!("{}", HeatMap::new(title, windows, keys, &results["answer_probability"])?.transposed());
    Ok(())
}
