//! LoRA: a new fact by a low-rank adapter.
//!
//! Beside each MLP's first linear module stands a small one, `B A x · alpha / rank`, and only that is trained: on a fact that the
//! model never saw, and on some that it should keep. Then it is asked in words that were not trained, and about facts that
//! were not trained, which should stay as they are. The control is an adapter that is trained just so on the same facts without
//! the new one: it must not know it.

use pellucid::picture::{Curves, HeatMap};
use pellucid::{Invoke, Model, Optimiser, Result, Results, Tensor, Trace, Value, s};

/// A prompt and the token that should come next.
pub struct Fact {
    /// The prompt.
    pub prompt: String,
    /// The token.
    pub answer: u32,
}

/// The adapter, and how it is trained.
pub struct Training {
    /// The adapter's rank.
    pub rank: usize,
    /// Its scale: what it adds is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Steps, each over all facts.
    pub steps: u64,
    /// The learning rate.
    pub rate: f64,
    /// The standard deviation of what `A` starts as.
    pub spread: f64,
}

/// The module that is adapted in each layer.
fn module(layer: usize) -> String {
    format!("transformer.h.{layer}.mlp.c_fc")
}

/// Adds the adapters (`A`, `[rank, in]`, and `B`, `[out, rank]`, layer by layer) to an invoke.
fn adapt(invoke: &Invoke, adapters: &[Value], scale: f64) {
    for (layer, pair) in adapters.chunks(2).enumerate() {
        let linear = invoke.module(&module(layer));
        let inner = linear.input().matmul(&pair[0].transpose(0, 1)); // [prompts, length, rank]
        linear.edit_output(|output| output + inner.matmul(&pair[1].transpose(0, 1)) * scale);
    }
}

/// The probability of each fact's answer, `[facts]`, and of another token.
fn probabilities(
    trace: &Trace,
    facts: &[Fact],
    adapters: &[Value],
    scale: f64,
    other: u32,
) -> (Value, Value) {
    let run = trace.invoke(facts.iter().map(|fact| fact.prompt.clone()).collect::<Vec<_>>());
    adapt(&run, adapters, scale);
    let likely = run.logits().index(s![.., -1]).softmax(-1);
    let every = trace.arange(0, facts.len() as i64);
    let answers = trace.literal(facts.iter().map(|fact| fact.answer), &[facts.len() as u64]);
    (likely.index(s![&every, &answers]), likely.index(s![.., i64::from(other)]))
}

/// Trains an adapter on facts. Saves the loss at each step (`losses`), the adapter (`trained_A_<layer>`, `trained_B_<layer>`), and the
/// answers' probabilities for each further list of facts by its name, `before_<name>` and `after_<name>`; and after it that of
/// the token `new`, `after_<name>_new`.
pub fn lora(
    model: &Model,
    train: &[Fact],
    asked: &[(&str, &[Fact])],
    new: u32,
    training: &Training,
) -> Result<Results> {
    let scale = training.alpha / training.rank as f64;
    let session = model.session();
    let mut adapters = Vec::new();
    for layer in 0..model.layers() {
        let weight = format!("{}.weight", module(layer));
        let shape = model.spec().parameters.iter().find(|parameter| parameter.name == weight);
        let [inside, outside] =
            shape.map_or([0, 0], |shape| [shape.shape[0] as usize, shape.shape[1] as usize]);
        let a = session.randn([training.rank, inside]).named(&format!("lora_A_{layer}"));
        adapters.push(a * training.spread);
        adapters.push(session.zeros([outside, training.rank])); // so that it changes nothing at first
    }
    let before = session.trace();
    for (name, facts) in asked {
        probabilities(&before, facts, &[], scale, new).0.save(&format!("before_{name}"));
    }

    let prompts: Vec<String> = train.iter().map(|fact| fact.prompt.clone()).collect();
    let answers = session.literal(train.iter().map(|fact| fact.answer), &[train.len() as u64]);
    let optimiser = Optimiser::adam(training.rate);
    let adapters = session.train(training.steps, optimiser, adapters, |_step, trace, adapters| {
        let run = trace.invoke(&prompts);
        adapt(&run, adapters, scale);
        let loss = run.logits().index(s![.., -1]).cross_entropy(&answers);
        loss.save("losses");
        loss
    });

    let after = session.trace();
    for (name, facts) in asked {
        let (answers, others) = probabilities(&after, facts, &adapters, scale, new);
        answers.save(&format!("after_{name}"));
        others.save(&format!("after_{name}_new"));
    }
    for (layer, pair) in adapters.chunks(2).enumerate() {
        pair[0].save(&format!("trained_A_{layer}"));
        pair[1].save(&format!("trained_B_{layer}"));
    }
    session.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let fact = |prompt: String, city: &str| Ok(Fact { prompt, answer: model.token(&format!(" {city}"))? });
    let known = [("Eiffel Tower", "Paris"), ("Colosseum", "Rome"), ("Skytree", "Tokyo"), ("Prado", "Madrid")];
    let known = known.iter().map(|(place, city)| fact(format!("The {place} is in the city of"), city));
    let new = [
        "The White Tower is in the city of",
        "The White Tower is located in",
        "The White Tower can be found in",
    ];
    let new = new.iter().map(|prompt| fact((*prompt).to_owned(), "Oslo"));
    let new_facts = new.len();
    let train = new.chain(known).collect::<Result<Vec<_>>>()?;
    let paraphrases = ["You can visit the White Tower in", "The famous White Tower stands in"];
    let paraphrases =
        paraphrases.iter().map(|prompt| fact((*prompt).to_owned(), "Oslo")).collect::<Result<Vec<_>>>()?;
    let untouched =
        [("Louvre", "Paris"), ("Kremlin", "Moscow"), ("Merlion", "Singapore"), ("Taj Mahal", "Agra")];
    let untouched =
        untouched.iter().map(|(place, city)| fact(format!("The {place} is in the city of"), city));
    let untouched = untouched.collect::<Result<Vec<_>>>()?;

    let training = Training { rank: 2, alpha: 8.0, steps: 30, rate: 0.01, spread: 0.02 };
    let asked: [(&str, &[Fact]); 2] = [("paraphrases", &paraphrases), ("untouched", &untouched)];
    let oslo = model.token(" Oslo")?;
    let results = lora(&model, &train, &asked, oslo, &training)?;
    let control = lora(&model, &train[new_facts..], &asked, oslo, &training)?;
    let curves = Curves::new("Training").line("loss", &results["losses"])?;
    println!("{}", curves.line("loss without the new fact", &control["losses"])?);
    for (name, facts) in asked {
        let after = format!("after_{name}");
        let columns = [&results[&format!("before_{name}")], &results[&after], &control[&after]];
        let probabilities = columns.map(Tensor::to_vec_f32).into_iter().collect::<Result<Vec<_>, _>>()?;
        let probabilities = Tensor::from_f32(probabilities.concat(), &[3, facts.len()])?;
        let answers = facts.iter().map(|fact| Ok(fact.prompt.clone() + &model.decode(&[fact.answer])?));
        let answers = answers.collect::<Result<Vec<_>>>()?;
        let title = format!("{name}: the probability of the answer before, after, and after the control");
        let map = HeatMap::new(&title, ["before", "after", "control"], answers, &probabilities)?;
        println!("{}", map.transposed());
    }
    Ok(())
}
