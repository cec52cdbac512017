//! Distributed alignment search: which subspace of a hidden state holds a variable?
//!
//! Two sentences about the same people differ in who gives. A basis of a few directions is learned such that exchanging only
//! those coordinates of one hidden state makes the model answer as if the other sentence's giver gave. If the variable is there,
//! and nowhere else, few directions suffice; a random basis of as many, or one learned at another position, does nothing.

use pellucid::picture::Curves;
use pellucid::{Invoke, Model, Optimiser, Result, Results, Value, s};

/// A sentence, another from which the variable is taken, and what the model should then say.
pub struct Pair {
    /// The sentence.
    pub base: String,
    /// The one whose variable is put in. As long.
    pub source: String,
    /// The token that should come next.
    pub answer: u32,
    /// The one that would come if the variable had another value.
    pub wrong: u32,
}

/// Where the variable is searched for, and how.
pub struct Search {
    /// The layer whose input is searched.
    pub layer: usize,
    /// The position.
    pub position: usize,
    /// How many directions.
    pub width: usize,
    /// Steps of training, each over all pairs; 0: the basis stays random.
    pub steps: u64,
    /// The learning rate.
    pub rate: f64,
}

/// Saves the loss at each step (`losses`); on the test pairs the answer's logit less the wrong one's (`margin`) and how often
/// that is positive (`accuracy`); and how much of each hidden unit lies in the subspace (`projection_diagonal`, `[hidden]`).
pub fn distributed_alignment_search(
    model: &Model,
    train: &[Pair],
    test: &[Pair],
    search: &Search,
) -> Result<Results> {
    let session = model.session();
    let read = session.trace();
    let place = s![.., search.position];
    let sources = |pairs: &[Pair]| {
        let prompts: Vec<&str> = pairs.iter().map(|pair| pair.source.as_str()).collect();
        read.invoke(prompts).layer(search.layer).input().index(place.clone()) // [pairs, hidden]
    };
    let bases = |pairs: &[Pair]| pairs.iter().map(|pair| pair.base.clone()).collect::<Vec<_>>();
    let (train_sources, test_sources) = (sources(train), sources(test));
    let answers = session.literal(train.iter().map(|pair| pair.answer), &[train.len() as u64]);

    // What is trained is free; the basis is its orthonormal part.
    let exchange = |run: &Invoke, free: &Value, source: &Value| {
        let (basis, _) = free.qr(); // [hidden, width]
        run.layer(search.layer).edit_input(|input| {
            let here = input.index(place.clone());
            let change = (source - &here).matmul(&basis).matmul(&basis.transpose(0, 1));
            input.index_put(place.clone(), here + change)
        });
        run.logits().index(s![.., -1]) // [pairs, vocabulary]
    };
    let free = session.randn([model.hidden(), search.width]).named("rotation");
    let free = session.train(search.steps, Optimiser::adam(search.rate), free, |_step, trace, free| {
        let loss = exchange(&trace.invoke(bases(train)), free, &train_sources).cross_entropy(&answers);
        loss.save("losses");
        loss
    });

    let judge = session.trace();
    let logits = exchange(&judge.invoke(bases(test)), &free, &test_sources);
    let count = test.len();
    let every = judge.arange(0, count as i64);
    let token = |of: fn(&Pair) -> u32| judge.literal(test.iter().map(of), &[count as u64]);
    let right = logits.index(s![&every, token(|pair| pair.answer)]);
    let margin = right - logits.index(s![&every, token(|pair| pair.wrong)]);
    margin.save("margin");
    margin.gt(0.0).to(pellucid::DType::F32).mean(..).save("accuracy");
    let (basis, _) = free.qr();
    basis.pow(2i64).sum(-1).save("projection_diagonal");
    session.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let sentence = |a: &str, b: &str, giver: &str, place: &str, thing: &str| {
        format!("When {a} and {b} went to the {place}, {giver} gave a {thing} to")
    };
    let pairs = |settings: &[(&str, &str)]| {
        let mut pairs = Vec::new();
        for (one, other) in [("Mary", "John"), ("Emma", "James"), ("Mary", "James"), ("Emma", "John")] {
            for &(place, thing) in settings {
                for (gives, gets) in [(one, other), (other, one)] {
                    pairs.push(Pair {
                        base: sentence(one, other, gets, place, thing),
                        source: sentence(other, one, gives, "office", "coin"),
                        answer: model.token(&format!(" {gets}"))?,
                        wrong: model.token(&format!(" {gives}"))?,
                    });
                }
            }
        }
        Ok::<_, pellucid::Error>(pairs)
    };
    let train = pairs(&[("store", "drink"), ("park", "book"), ("school", "ring")])?;
    let test = pairs(&[("station", "hat"), ("beach", "flower")])?;
    let search = |position, steps| Search { layer: 2, position, width: 4, steps, rate: 0.05 };
    for (name, search) in [
        ("learned where the giver is named", search(9, 25)),
        ("a random subspace there", search(9, 0)),
        ("learned at another position", search(5, 25)),
    ] {
        let results = distributed_alignment_search(&model, &train, &test, &search)?;
        println!("{name}: {:.2} of the answers follow", results["accuracy"].to_vec_f32()?[0]);
        if search.steps > 0 {
            println!("{}", Curves::new("").line("loss", &results["losses"])?);
        }
    }
    Ok(())
}
