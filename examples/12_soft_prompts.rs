//! Soft prompts: a few embeddings that are no words, learned so that they ask for the capital of the country that follows.
//!
//! Before each prompt stand a few tokens of no meaning whose embeddings are replaced by a parameter. It is trained on some
//! countries and tested on others.

use pellucid::picture::Curves;
use pellucid::{Model, Optimiser, Result, Results, Trace, Value, s};

/// Prompts of one length as token ids, and the token that should come next.
pub struct Data {
    /// The prompts.
    pub prompts: Vec<Vec<u32>>,
    /// The answers.
    pub answers: Vec<u32>,
}

/// The soft prompt, and how it is trained.
pub struct Training {
    /// How many embeddings.
    pub tokens: usize,
    /// Steps, each over all prompts.
    pub steps: u64,
    /// The learning rate.
    pub rate: f64,
    /// The standard deviation of what the embeddings start as.
    pub spread: f64,
}

/// The logits after a soft prompt and each of the prompts, `[prompts, vocabulary]`.
fn logits(trace: &Trace, data: &Data, soft: Option<(&Value, usize)>) -> Value {
    let tokens = soft.map_or(0, |(_, tokens)| tokens);
    let run =
        trace.invoke_tokens(data.prompts.iter().map(|prompt| [vec![0; tokens], prompt.clone()].concat()));
    if let Some((soft, tokens)) = soft {
        run.embed().edit_output(|embeddings| embeddings.index_put(s![.., ..tokens], soft));
    }
    run.logits().index(s![.., -1])
}

/// Saves the loss at each step (`losses`), the trained `prompt`, `[tokens, hidden]`, the answers' probabilities on the test
/// prompts (`test_probabilities`), and how often they are the most probable token: without a soft prompt, with it as it starts,
/// and trained (`accuracy_without`, `accuracy_untrained`, `accuracy_trained`).
pub fn soft_prompts(model: &Model, train: &Data, test: &Data, training: &Training) -> Result<Results> {
    let session = model.session();
    let answers = |data: &Data| session.literal(data.answers.iter().copied(), &[data.answers.len() as u64]);
    let (train_answers, test_answers) = (answers(train), answers(test));
    let start = session.randn([training.tokens, model.hidden()]).named("soft_prompt") * training.spread;
    let optimiser = Optimiser::adam(training.rate);
    let trained = session.train(training.steps, optimiser, start.clone(), |_step, trace, soft| {
        let loss = logits(trace, train, Some((soft, training.tokens))).cross_entropy(&train_answers);
        loss.save("losses");
        loss
    });
    trained.save("prompt");

    let judge = session.trace();
    for (name, soft) in [("without", None), ("untrained", Some(&start)), ("trained", Some(&trained))] {
        let logits = logits(&judge, test, soft.map(|soft| (soft, training.tokens)));
        let right = logits.argmax(-1).eq(&test_answers).to(pellucid::DType::F32);
        right.mean(..).save(&format!("accuracy_{name}"));
        if name == "trained" {
            let every = judge.arange(0, test.answers.len() as i64);
            logits.softmax(-1).index(s![&every, &test_answers]).save("test_probabilities");
        }
    }
    session.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let data = |facts: &[(&str, &str)]| {
        let prompts = facts.iter().map(|(country, _)| model.encode(&format!("{country}:")));
        let answers = facts.iter().map(|(_, capital)| model.token(&format!(" {capital}")));
        Ok::<_, pellucid::Error>(Data {
            prompts: prompts.collect::<Result<_>>()?,
            answers: answers.collect::<Result<_>>()?,
        })
    };
    let train = data(&[
        ("France", "Paris"),
        ("Italy", "Rome"),
        ("Egypt", "Cairo"),
        ("Japan", "Tokyo"),
        ("Cuba", "Havana"),
        ("Norway", "Oslo"),
        ("Russia", "Moscow"),
        ("Kenya", "Nairobi"),
    ])?;
    let test = data(&[
        ("Poland", "Warsaw"),
        ("Peru", "Lima"),
        ("Korea", "Seoul"),
        ("Ghana", "Accra"),
        ("Spain", "Madrid"),
    ])?;
    let training = Training { tokens: 4, steps: 25, rate: 0.03, spread: 0.1 };
    let results = soft_prompts(&model, &train, &test, &training)?;
    println!("{}", Curves::new("Training").line("loss", &results["losses"])?);
    for name in ["without", "untrained", "trained"] {
        let accuracy = results[&format!("accuracy_{name}")].to_vec_f32()?[0];
        println!(
            "{name:>10}: the capital comes first for {accuracy:.2} of the countries that were not trained"
        );
    }
    Ok(())
}
