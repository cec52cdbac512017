//! The experiment: which places of the residual stream carry the word that tells the clean prompt from the corrupted one?

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pellucid::picture::HeatMap;
use pellucid::{Invoke, Model, RunOptions, Tensor, Value, s};
use serde::Serialize;

use crate::failure::Failure;

/// The prompt whose answer is the indirect object: the name that does not give.
pub(crate) const CLEAN: &str = "When Mary and John went to the store, John gave a drink to";
/// The same with the other giver, so that the other name is the answer.
pub(crate) const CORRUPTED: &str = "When Mary and John went to the store, Mary gave a drink to";
/// The clean prompt's answer, and the corrupted one's.
pub(crate) const ANSWERS: (&str, &str) = (" Mary", " John");

/// What the experiment found.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    /// The model.
    pub(crate) model: String,
    /// The clean prompt.
    pub(crate) clean: Prompt,
    /// The corrupted prompt.
    pub(crate) corrupted: Prompt,
    /// The right answer and the wrong one.
    pub(crate) answers: (String, String),
    /// The position at which the prompts differ.
    pub(crate) differs_at: usize,
    /// By layer and position: 0 where patching the residual stream that enters the layer changes nothing, 1 where it
    /// brings the clean prompt's answer back entirely.
    pub(crate) restored: Vec<Vec<f32>>,
    /// Passes through the model that the run took.
    pub(crate) passes: usize,
    /// How long the run took, in seconds.
    pub(crate) seconds: f64,
    /// The number type of the weights.
    pub(crate) weights: String,
    /// The instruction-set path of the kernels.
    pub(crate) instruction_set: String,
}

/// One of the prompts.
#[derive(Debug, Serialize)]
pub(crate) struct Prompt {
    /// Its text.
    pub(crate) text: String,
    /// Its tokens' texts.
    pub(crate) tokens: Vec<String>,
    /// The logit of the right answer less that of the wrong one, at the last position.
    pub(crate) difference: f32,
    /// The probability of the right answer.
    pub(crate) probability: f32,
}

impl Findings {
    /// What was restored, as a picture: a line for each position, a column for each layer.
    pub(crate) fn heat_map(&self, title: &str, corner: &str, column: &str) -> pellucid::Result<HeatMap> {
        let (layers, tokens) = (self.layers(), &self.clean.tokens);
        let values = Tensor::from_f32(self.restored.concat(), &[layers, tokens.len()])?;
        let columns = (0..layers).map(|layer| format!("{column} {layer}"));
        let map = HeatMap::new(title, columns, tokens, &values)?.transposed();
        Ok(map
            .corner(corner)
            .meaning(" of the answer comes back")
            .note(tokens.len().saturating_sub(1), "where the model speaks")
            .mark(self.differs_at, "the word that differs"))
    }

    /// How many layers.
    pub(crate) fn layers(&self) -> usize {
        self.restored.len()
    }
}

/// Runs the experiment: two runs, and one for each layer and position, in one trace.
pub(crate) fn run(model: &Model, cancel: Option<Arc<AtomicBool>>) -> Result<Findings, Failure> {
    let (answer, wrong) = (model.token(ANSWERS.0)?, model.token(ANSWERS.1)?);
    let (clean_tokens, corrupted_tokens) = (model.encode(CLEAN)?, model.encode(CORRUPTED)?);
    let positions = clean_tokens.len();

    let trace = model.trace();
    let difference = |invoke: &Invoke| {
        let logits = invoke.logits().index(s![0, -1]);
        logits.index(s![i64::from(answer)]) - logits.index(s![i64::from(wrong)])
    };
    let probability =
        |invoke: &Invoke| invoke.logits().index(s![0, -1]).softmax(-1).index(s![i64::from(answer)]);

    let clean = trace.invoke(CLEAN).named("clean");
    let corrupted = trace.invoke(CORRUPTED).named("corrupted");
    let (best, worst) = (difference(&clean), difference(&corrupted));
    let mut restored: Vec<Value> = Vec::new();
    for layer in 0..model.layers() {
        let source = clean.layer(layer).input();
        for position in 0..positions {
            let patched = trace.invoke(CORRUPTED).named(&format!("layer_{layer}_position_{position}"));
            let place = s![.., position];
            patched.layer(layer).edit_input(|input| input.index_put(place.clone(), source.index(place)));
            restored.push((difference(&patched) - &worst) / (&best - &worst));
        }
    }
    trace.stack(&restored, 0).reshape([model.layers(), positions]).save("restored");
    trace.stack([&best, &worst], 0).save("differences");
    trace.stack([&probability(&clean), &probability(&corrupted)], 0).save("probabilities");

    let results = trace.run_with(&RunOptions { cancel, ..RunOptions::default() })?;
    let grid = results["restored"].to_vec_f32()?;
    let (differences, probabilities) =
        (results["differences"].to_vec_f32()?, results["probabilities"].to_vec_f32()?);
    let prompt = |text: &str, tokens: &[u32], place: usize| -> Result<Prompt, Failure> {
        let tokens = tokens.iter().map(|&token| model.decode(&[token])).collect::<pellucid::Result<_>>()?;
        let (difference, probability) = (differences[place], probabilities[place]);
        Ok(Prompt { text: text.to_owned(), tokens, difference, probability })
    };
    let differs_at = clean_tokens.iter().zip(&corrupted_tokens).position(|(one, other)| one != other);
    Ok(Findings {
        model: model.name().to_owned(),
        clean: prompt(CLEAN, &clean_tokens, 0)?,
        corrupted: prompt(CORRUPTED, &corrupted_tokens, 1)?,
        answers: (ANSWERS.0.to_owned(), ANSWERS.1.to_owned()),
        differs_at: differs_at.unwrap_or(0),
        restored: grid.chunks(positions).map(<[f32]>::to_vec).collect(),
        passes: results.report().passes,
        seconds: results.report().seconds,
        weights: results.provenance().weights.clone(),
        instruction_set: results.provenance().instruction_set.clone(),
    })
}
