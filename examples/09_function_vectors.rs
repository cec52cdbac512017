//! Function vectors: a relation as a vector.
//!
//! In prompts that show a relation by examples ("France: Paris, Italy: Rome, Japan:") a few heads carry, at the last position,
//! which relation is meant. They are found by putting each head's mean into prompts whose examples are a muddle; what the best
//! of them write, in the mean, is a vector. Added to a prompt without any example, it asks for that relation.

use pellucid::picture::HeatMap;
use pellucid::{Axis, Invoke, Model, Result, Results, Tensor, s};

/// Prompts from which a function vector is made.
pub struct Examples {
    /// Prompts that show the relation. All have one length.
    pub clear: Vec<String>,
    /// Prompts whose examples show no one relation, of the same length.
    pub confused: Vec<String>,
    /// What the relation would answer to those.
    pub answers: Vec<u32>,
}

/// Saves the answers' mean probability after the confused prompts (`confused_probability`), what each head's mean adds to it
/// (`effect`, `[layers, heads]`), the places of the `top` best (`heads`, counted layer by layer), and what these heads write,
/// `vector`, `[hidden]`.
pub fn function_vector(model: &Model, examples: &Examples, top: i64) -> Result<Results> {
    let trace = model.trace();
    let count = examples.answers.len();
    let every = trace.arange(0, count as i64);
    let answers = trace.literal(examples.answers.iter().copied(), &[count as u64]);
    let clear = trace.invoke(&examples.clear);
    let probability = |run: &Invoke| {
        run.logits().index(s![.., -1]).softmax(-1).index(s![&every, &answers]).mean(..) // of [prompts]
    };
    let base = probability(&trace.invoke(&examples.confused));
    base.save("confused_probability");

    let means = clear.get_all("layers.*.attention.mixed").index(s![.., .., -1]).mean(1); // [layers, heads, head size]
    let heads = [Axis::new("layer", 0..model.layers()), Axis::new("head", 0..model.heads())];
    let effects = trace.sweep(heads, |cell| {
        let patched = cell.invoke(&examples.confused);
        let (layer, head) = (cell.value("layer"), cell.value("head"));
        let mean = means.index(s![layer, &head]);
        patched.layer("{layer}").edit("attention.mixed", |mixed| mixed.index_put(s![.., -1, head], mean));
        probability(&patched) - &base
    });
    effects.save("effect");
    let (_, best) = effects.flatten(0, 1).topk(top, 0);
    best.save("heads");
    // What each head writes: its mean times its rows of the output projection.
    let rows: Vec<_> = (0..model.layers())
        .map(|layer| trace.weight(&format!("transformer.h.{layer}.attn.c_proj.weight")))
        .collect();
    let rows = trace.stack(&rows, 0).unflatten(1, [model.heads() as i64, -1]); // [layers, heads, head size, hidden]
    let written = trace.einsum("lhd,lhdo->lho", [&means, &rows]).flatten(0, 1);
    written.index_select(0, &best).sum(0).save("vector");
    trace.run()
}

/// Adds a vector to each layer's output at the last position of prompts without examples. Saves `probability`, the mean of
/// each relation's answers': `[1 + layers, relations]`, first without the vector.
pub fn ask(model: &Model, prompts: &[String], vector: &Tensor, relations: &[Vec<u32>]) -> Result<Results> {
    let trace = model.trace();
    let count = prompts.len();
    let (every, vector) = (trace.arange(0, count as i64), trace.constant(vector));
    let mut probabilities = Vec::new();
    for place in 0..=model.layers() {
        let run = trace.invoke(prompts);
        if place > 0 {
            run.layer(place - 1).edit_output(|output| output.index_add(s![.., -1], &vector));
        }
        let likely = run.logits().index(s![.., -1]).softmax(-1);
        for answers in relations {
            let answers = trace.literal(answers.iter().copied(), &[count as u64]);
            probabilities.push(likely.index(s![&every, &answers]).mean(..));
        }
    }
    let shape = [model.layers() + 1, relations.len()];
    trace.stack(&probabilities, 0).reshape(shape).save("probability");
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let capitals =
        [("France", "Paris"), ("Italy", "Rome"), ("Egypt", "Cairo"), ("Japan", "Tokyo"), ("Cuba", "Havana")];
    let muddle = ["Europe", "Italian", "pound", "Asia", "Spanish"];
    let mut examples = Examples { clear: Vec::new(), confused: Vec::new(), answers: Vec::new() };
    for asked in 0..capitals.len() {
        let shown = || (0..capitals.len()).filter(move |&shown| shown != asked);
        let prompt = |answer: &dyn Fn(usize) -> &'static str| {
            let lines: Vec<_> = shown().map(|at| format!("{}: {}", capitals[at].0, answer(at))).collect();
            format!("{}, {}:", lines.join(", "), capitals[asked].0)
        };
        examples.clear.push(prompt(&|at| capitals[at].1));
        examples.confused.push(prompt(&|at| muddle[at]));
        examples.answers.push(model.token(&format!(" {}", capitals[asked].1))?);
    }
    let found = function_vector(&model, &examples, 3)?;
    let layers: Vec<String> = (0..model.layers()).map(|layer| format!("layer {layer}")).collect();
    let heads = (0..model.heads()).map(|head| format!("head {head}"));
    let title = "What a head's mean adds to the probability of the capital, in prompts that are a muddle";
    println!("{}", HeatMap::new(title, &layers, heads, &found["effect"])?);

    let prompts = ["Poland:", "Kenya:", "Peru:", "Korea:"].map(str::to_owned);
    let of = |words: [&str; 4]| words.iter().map(|word| model.token(word)).collect::<Result<Vec<u32>>>();
    let relations = [
        of([" Warsaw", " Nairobi", " Lima", " Seoul"])?,
        of([" Polish", " Swahili", " Spanish", " Korean"])?,
    ];
    let results = ask(&model, &prompts, &found["vector"], &relations)?;
    let places = std::iter::once("without".to_owned()).chain(layers);
    let title = "The answer's probability after \"Poland:\" and the like, with the vector added";
    println!("{}", HeatMap::new(title, places, ["capital", "language"], &results["probability"])?);
    Ok(())
}
