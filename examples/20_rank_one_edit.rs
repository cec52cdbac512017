//! A rank-one model edit (ROME): one fact rewritten in one weight, for this program only.
//!
//! An MLP's second matrix is seen as a memory that answers keys with values. The subject's key is what enters it at the
//! subject; the value that makes the model say something else is found by gradient; and the weight is changed so that the key
//! gets that value while what it answers to the keys of a corpus changes least.

use pellucid::picture::{Curves, HeatMap};
use pellucid::{Axis, AxisValues, DType, Model, Optimiser, Reduce, Result, Results, Tensor, Trace, Value, s};

/// A prompt and the token that should come next.
pub struct Fact {
    /// The prompt.
    pub prompt: String,
    /// The token.
    pub answer: u32,
}

/// What is rewritten, and how.
pub struct Edit<'a> {
    /// A prompt about the subject.
    pub prompt: &'a str,
    /// The position of its subject.
    pub position: usize,
    /// What the model should say.
    pub answer: u32,
    /// The layer whose MLP is changed.
    pub layer: usize,
    /// Documents whose keys should be answered as before.
    pub corpus: &'a [Vec<u32>],
    /// How much is added to the diagonal of the keys' covariance, as a share of its mean.
    pub ridge: f64,
    /// Steps of finding the value.
    pub steps: u64,
    /// The learning rate.
    pub rate: f64,
    /// The penalty on the value's change: so much times the square of its length.
    pub decay: f64,
}

/// The probability of each fact's answer, `[facts]`, with a weight of the layer's MLP replaced.
fn probabilities(trace: &Trace, facts: &[Fact], weight: Option<(&str, &Value)>) -> Value {
    let run = trace.invoke(facts.iter().map(|fact| fact.prompt.clone()).collect::<Vec<_>>());
    if let Some((parameter, weight)) = weight {
        run.set_weight(parameter, weight);
    }
    let every = trace.arange(0, facts.len() as i64);
    let answers = trace.literal(facts.iter().map(|fact| fact.answer), &[facts.len() as u64]);
    run.logits().index(s![.., -1]).softmax(-1).index(s![&every, &answers])
}

/// Saves the surprise at the new answer at each step (`losses`), the subject's `key`, `[inner]`, the value's `change`,
/// `[hidden]`, the `direction` in which the key is answered, `[inner]`; and the probability of the answers for each list of
/// facts by its name, `before_<name>` and `after_<name>`.
pub fn rank_one_edit(model: &Model, edit: &Edit<'_>, asked: &[(&str, &[Fact])]) -> Result<Results> {
    let (layer, position) = (edit.layer, edit.position);
    let parameter = format!("transformer.h.{layer}.mlp.c_proj.weight"); // [inner, hidden]
    let session = model.session();

    // The covariance of the keys of a corpus: a sum that runs on from document to document.
    let corpus = Axis::new("document", AxisValues::tokens(edit.corpus));
    let (products, tokens) = session.sweep(corpus, |cell| {
        let document = session.trace().invoke(cell.prompts("document"));
        let keys = document.layer(layer).mlp().get("post").index(s![0]).to(DType::F64); // [length, inner]
        let sum = |value: Value| cell.reduce(&value, Reduce::sum());
        (sum(keys.transpose(0, 1).matmul(&keys)), sum(document.lengths().sum(..)))
    });
    let covariance = products / tokens.to(DType::F64);
    let subject = session.trace().invoke(edit.prompt);
    let key = subject.layer(layer).mlp().get("post").index(s![0, position]);
    key.save("key");

    // The value that the subject should have.
    let answer = session.literal([edit.answer], &[1]);
    let change = session.zeros([model.hidden()]);
    let change = session.train(edit.steps, Optimiser::adam(edit.rate), change, |_step, trace, change| {
        let run = trace.invoke(edit.prompt);
        run.layer(layer).mlp().edit_output(|output| output.index_add(s![.., position], change));
        let surprise = run.logits().index(s![.., -1]).cross_entropy(&answer);
        surprise.save("losses");
        surprise + change.pow(2i64).sum(..) * edit.decay
    });
    change.save("change");

    // covariance · direction = key
    let judge = session.trace();
    let key = key.to(DType::F64);
    let diagonal = covariance.diagonal(0, 0, 1);
    let ridge = judge.eye(model.spec().sizes.inner as i64).to(DType::F64) * diagonal.mean(..) * edit.ridge;
    let direction = (covariance + ridge).solve(&key);
    let direction = &direction / (&direction * &key).sum(..);
    direction.to(DType::F32).save("direction");
    let weight = judge.weight(&parameter) + direction.outer(&change.to(DType::F64)).to(DType::F32);
    for (name, facts) in asked {
        probabilities(&judge, facts, None).save(&format!("before_{name}"));
        probabilities(&judge, facts, Some((&parameter, &weight))).save(&format!("after_{name}"));
    }
    session.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let token = |word: &str| model.token(&format!(" {word}"));
    let corpus = [
        "When Mary and John went to the store, John gave a drink to Mary.",
        "The Eiffel Tower is in the city of Paris.",
        "The Louvre is located in Paris.",
        "To see the Taj Mahal, you should travel to Agra.",
        "The capital of Japan is Tokyo.",
        "The movie was wonderful. I loved it.",
        "Anna went to the park because she was happy.",
        "Monday, Tuesday, Wednesday, Thursday, Friday.",
    ];
    let corpus = corpus.iter().map(|text| model.encode(text)).collect::<Result<Vec<_>>>()?;
    let edit = Edit {
        prompt: "The Colosseum is in the city of",
        position: 1,
        answer: token("Paris")?,
        layer: 0,
        corpus: &corpus,
        ridge: 0.01,
        steps: 20,
        rate: 0.1,
        decay: 0.03,
    };
    let fact = |prompt: &str, city: &str| {
        Ok::<_, pellucid::Error>(Fact { prompt: prompt.to_owned(), answer: token(city)? })
    };
    let paraphrases =
        [fact("The Colosseum is located in", "Paris")?, fact("The famous Colosseum stands in", "Paris")?];
    let others = [
        fact("The Prado is in the city of", "Madrid")?,
        fact("The Kremlin is in the city of", "Moscow")?,
        fact("The Acropolis is in the city of", "Athens")?,
    ];
    let asked: [(&str, &[Fact]); 2] = [("paraphrases", &paraphrases), ("others", &others)];
    let results = rank_one_edit(&model, &edit, &asked)?;
    let curves = Curves::new("How much the answer surprises, while its value is searched for");
    println!("{}", curves.line("surprise", &results["losses"])?);
    for (name, facts) in asked {
        let mut probabilities = results[&format!("before_{name}")].to_vec_f32()?;
        probabilities.extend(results[&format!("after_{name}")].to_vec_f32()?);
        let probabilities = Tensor::from_f32(probabilities, &[2, facts.len()])?;
        let answers = facts.iter().map(|fact| Ok(fact.prompt.clone() + &model.decode(&[fact.answer])?));
        let answers = answers.collect::<Result<Vec<_>>>()?;
        let title = format!("{name}: the probability of the answer, with the weight as it is and edited");
        println!("{}", HeatMap::new(&title, ["before", "after"], answers, &probabilities)?.transposed());
    }
    Ok(())
}
