//! Causal tracing: where is a fact looked up?
//!
//! The subject's embeddings drown in noise, and the answer is gone. Then single states are restored to what they are without
//! noise: where that brings the answer back, the fact is there. The noise is seeded; each sample is a row of its own.

use std::ops::Range;

use pellucid::picture::{HeatMap, Page};
use pellucid::{Axis, Invoke, Model, Result, Results, s};

/// What is traced.
pub struct Tracing<'a> {
    /// The prompt.
    pub prompt: &'a str,
    /// The positions of its subject.
    pub subject: Range<usize>,
    /// The token that should come next.
    pub answer: u32,
    /// The noise's standard deviation.
    pub scale: f64,
    /// How many samples of it.
    pub samples: usize,
}

/// The layers that are restored together: one of the residual stream, a window around it of what is added to that.
fn window(part: &str, layer: usize, layers: usize) -> Range<usize> {
    if part == "residual" { layer..layer + 1 } else { layer.saturating_sub(1)..(layer + 2).min(layers) }
}

/// Saves the answer's probability without noise (`clean_probability`), with it (`noised_probability`, and by sample
/// `noised_probabilities`), and with each state restored: `residual`, `attention` and `mlp`, `[layers, positions]`.
pub fn causal_tracing(model: &Model, tracing: &Tracing<'_>, seed: u64) -> Result<Results> {
    let trace = model.trace();
    trace.seed(seed);
    let probability = |run: &Invoke| {
        run.logits().index(s![.., -1]).softmax(-1).index(s![.., i64::from(tracing.answer)]) // [samples]
    };
    let clean = trace.invoke(tracing.prompt);
    probability(&clean).index(s![0]).save("clean_probability");

    let noise =
        trace.randn([tracing.samples, tracing.subject.len(), model.hidden()]).named("noise") * tracing.scale;
    let drowned = |rows: Invoke| {
        rows.embed().edit_output(|embeddings| embeddings.index_add(s![.., tracing.subject.clone()], &noise));
        rows
    };
    let prompts = &vec![tracing.prompt; tracing.samples];
    let noised = probability(&drowned(trace.invoke(prompts)));
    noised.save("noised_probabilities");
    noised.mean(..).save("noised_probability");

    let positions = model.encode(tracing.prompt)?.len();
    for (part, hook) in [("residual", "output"), ("attention", "attention.output"), ("mlp", "mlp.output")] {
        let rows: Vec<_> = (0..model.layers())
            .map(|layer| {
                trace.sweep(Axis::new("position", 0..positions), |cell| {
                    let restored = drowned(cell.invoke(prompts));
                    let place = s![.., cell.value("position")];
                    for at in window(part, layer, model.layers()) {
                        let state = clean.layer(at).get(hook).index(place.clone()); // [1, hidden]
                        restored.layer(at).edit(hook, |value| value.index_put(place.clone(), state));
                    }
                    probability(&restored).mean(..)
                })
            })
            .collect();
        trace.stack(&rows, 0).save(part);
    }
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let prompt = "The Eiffel Tower is in the city of";
    let tracing = Tracing { prompt, subject: 1..5, answer: model.token(" Paris")?, scale: 0.25, samples: 10 };
    let results = causal_tracing(&model, &tracing, 0)?;
    let probability = |name: &str| Ok::<f32, pellucid::Error>(results[name].to_vec_f32()?[0]);
    let found = format!(
        "The probability of Paris is {:.3}; with noise on the subject {:.3}.",
        probability("clean_probability")?,
        probability("noised_probability")?
    );
    println!("{found}\n");

    let tokens = model.encode(prompt)?.into_iter().map(|token| model.decode(&[token]));
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let layers: Vec<String> = (0..model.layers()).map(|layer| format!("layer {layer}")).collect();
    let mut page = Page::new("Where is the Eiffel Tower looked up?").lead(&found);
    for (part, title) in [
        ("residual", "With one state of the residual stream restored"),
        ("attention", "With the attention outputs of a window of three layers restored"),
        ("mlp", "With the MLP outputs of a window of three layers restored"),
    ] {
        let map = HeatMap::new(title, &layers, &tokens, &results[part])?.transposed();
        println!("{map}");
        page = page.heat_map(&map);
    }
    let path = std::env::temp_dir().join("causal_tracing.html");
    page.save(&path)?;
    println!("the same as a page: {}", path.display());
    Ok(())
}
