//! Linear probes: can a property be read off a hidden state?
//!
//! A logistic probe for each layer's input at the last position is trained in the engine, all layers at once, on what a pass
//! over the data set reads in each step. Its control is the same probe trained on shuffled labels: what that one reaches on new prompts, a
//! probe reaches by chance.

use pellucid::picture::Curves;
use pellucid::{Model, Optimiser, Reduction, Result, Results, Tensor, Trace, Value, s};

/// Prompts, and whether each has the property.
pub struct Data {
    /// The prompts.
    pub prompts: Vec<String>,
    /// 1 or 0 for each.
    pub labels: Vec<f32>,
}

/// How a probe is trained.
pub struct Training {
    /// Steps, each over all prompts.
    pub steps: u64,
    /// The learning rate.
    pub rate: f64,
    /// How much of the last step's direction is kept.
    pub momentum: f64,
    /// The penalty: so much times half the square of the weight's length.
    pub decay: f64,
    /// Whether the labels are shuffled: the control.
    pub shuffled: bool,
}

/// Saves the loss at each step, `losses`, `[steps, layers]`; the probes, `weight`, `[layers, hidden]`, and `bias`; and how often
/// they are right, `train_accuracy` and `test_accuracy`, `[layers]`.
pub fn linear_probes(model: &Model, train: &Data, test: &Data, training: &Training) -> Result<Results> {
    let (layers, hidden) = (model.layers(), model.hidden());
    let session = model.session();
    let features = |trace: &Trace, data: &Data| {
        let run = trace.invoke(&data.prompts);
        let states: Vec<Value> =
            (0..layers).map(|layer| run.layer(layer).input().index(s![.., -1])).collect();
        trace.stack(&states, 0) // [layers, prompts, hidden]
    };
    // To mean 0 and deviation 1 by the training set, so that one rate suits every layer.
    let states = features(&session.trace(), train);
    let (mean, deviation) = (states.mean_keepdim(1), states.std_keepdim(1, 0.0) + 1e-3);
    let standardised = |trace: &Trace, data: &Data| (features(trace, data) - &mean) / &deviation;

    let labels = |data: &Data| session.literal(data.labels.iter().copied(), &[data.labels.len() as u64]);
    let (mut goal, truth) = (labels(train), labels(test));
    if training.shuffled {
        goal = goal.index_select(0, &session.randperm(train.labels.len() as i64).named("shuffle"));
    }

    let logits = |states: &Value, [weight, bias]: &[Value; 2]| {
        states.matmul(&weight.unsqueeze(-1)).squeeze(-1) + bias.unsqueeze(-1) // [layers, prompts]
    };
    let start = [session.zeros([layers, hidden]), session.zeros([layers])];
    let optimiser = Optimiser::sgd(training.rate).momentum(training.momentum);
    let goals = goal.expand([layers as i64, -1]);
    let probe = session.train(training.steps, optimiser, start, |_step, trace, probe| {
        let logits = logits(&standardised(trace, train), probe);
        let loss = logits.binary_cross_entropy_with_logits(&goals, Reduction::None).mean(-1);
        loss.save("losses");
        (loss + probe[0].pow(2i64).sum(-1) * (training.decay / 2.0)).sum(..)
    });
    probe[0].save("weight");
    probe[1].save("bias");

    let judge = session.trace();
    for (name, data, labels) in [("train_accuracy", train, &goal), ("test_accuracy", test, &truth)] {
        let right = logits(&standardised(&judge, data), &probe).gt(0.0).eq(labels.gt(0.5));
        right.to(pellucid::DType::F32).mean(-1).save(name);
    }
    session.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    // Is the one who gets it a woman? Asked where the model is about to name them.
    let women = ["Mary", "Alice", "Emma", "Laura", "Anna", "Julia", "Helen", "Susan", "Karen", "Nancy"];
    let men =
        ["John", "James", "Robert", "Michael", "David", "William", "Thomas", "Daniel", "Paul", "Steven"];
    let data = |place: &str, thing: &str| {
        let mut data = Data { prompts: Vec::new(), labels: Vec::new() };
        for (at, (woman, man)) in women.iter().zip(men).enumerate() {
            let other = (women[(at + 3) % 10], men[(at + 4) % 10]);
            for (receiver, giver, label) in [(*woman, other.1, 1.0), (man, other.0, 0.0)] {
                let prompt =
                    format!("When {receiver} and {giver} went to the {place}, {giver} gave a {thing} to");
                data.prompts.push(prompt);
                data.labels.push(label);
            }
        }
        data
    };
    let (train, test) = (data("store", "drink"), data("park", "book"));
    for shuffled in [false, true] {
        let training = Training { steps: 60, rate: 0.5, momentum: 0.9, decay: 0.01, shuffled };
        let results = linear_probes(&model, &train, &test, &training)?;
        let losses = results["losses"].to_vec_f32()?;
        let mut curves = Curves::new(if shuffled { "Loss, on shuffled labels" } else { "Loss" });
        for layer in 0..model.layers() {
            let line: Vec<f32> = losses.iter().skip(layer).step_by(model.layers()).copied().collect();
            curves = curves.line(&format!("layer {layer}"), &Tensor::from_f32(line, &[60])?)?;
        }
        println!("{curves}");
        println!("right on new prompts, by layer: {:.2?}\n", results["test_accuracy"].to_vec_f32()?);
    }
    Ok(())
}
