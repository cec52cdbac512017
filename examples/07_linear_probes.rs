//! Linear probes: can a property be read off a hidden state?
//!
//! A sweep reads every layer's input at the last position, batch by batch of a data set, and its mean and variance on the way.
//! On that a logistic probe for each layer is trained in the engine, all layers at once. Its control is the same probe trained
//! on shuffled labels: what that one reaches on new prompts, a probe reaches by chance.

use pellucid::picture::Curves;
use pellucid::{Axis, AxisValues, Model, Optimiser, Reduce, Reduction, Result, Results, Value, s};

/// How many prompts are read together.
const BATCH: usize = 4;

/// Prompts, and whether each has the property.
pub struct Data {
    /// The prompts, in whole batches of four.
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
    let read = |data: &Data| {
        session.sweep(Axis::new("batch", AxisValues::batches(&data.prompts, BATCH)), |cell| {
            let inputs = session.trace().invoke(cell.prompts("batch")).get_all("layers.*.input");
            let states = inputs.index(s![.., .., -1]).transpose(0, 1); // [prompts, layers, hidden]
            let mean = cell.reduce(&states, Reduce::mean().over([0])); // [layers, hidden]
            let variance = cell.reduce(&states, Reduce::var().correction(0.0).over([0]));
            (states, mean, variance)
        })
    };
    let ((train_states, mean, variance), (test_states, ..)) = (read(train), read(test));
    // To mean 0 and deviation 1 by the training set, so that one rate suits every layer.
    let standardised = |states: &Value| (states.flatten(0, 1) - &mean) / (variance.sqrt() + 1e-3);
    let (train_states, test_states) = (standardised(&train_states), standardised(&test_states));

    let labels = |data: &Data| session.literal(data.labels.iter().copied(), &[data.labels.len() as u64, 1]);
    let (mut goal, truth) = (labels(train), labels(test));
    if training.shuffled {
        goal = goal.index_select(0, &session.randperm(train.labels.len() as i64).named("shuffle"));
    }

    let logits = |states: &Value, [weight, bias]: &[Value; 2]| (states * weight).sum(-1) + bias; // [prompts, layers]
    let start = [session.zeros([layers, hidden]), session.zeros([layers])];
    let optimiser = Optimiser::sgd(training.rate).momentum(training.momentum);
    let goals = goal.expand([-1, layers as i64]);
    let probe = session.train(training.steps, optimiser, start, |_step, _trace, probe| {
        let logits = logits(&train_states, probe);
        let loss = logits.binary_cross_entropy_with_logits(&goals, Reduction::None).mean(0);
        loss.save("losses");
        (loss + probe[0].pow(2i64).sum(-1) * (training.decay / 2.0)).sum(..)
    });
    probe[0].save("weight");
    probe[1].save("bias");

    for (name, states, labels) in
        [("train_accuracy", train_states, &goal), ("test_accuracy", test_states, &truth)]
    {
        let right = logits(&states, &probe).gt(0.0).eq(labels.gt(0.5));
        right.to(pellucid::DType::F32).mean(0).save(name);
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
        let title = if shuffled { "Loss, on shuffled labels" } else { "Loss" };
        let layers = (0..model.layers()).map(|layer| format!("layer {layer}"));
        let curves = Curves::new(title).lines(layers, &results["losses"])?;
        println!("{curves}");
        println!("right on new prompts, by layer: {:.2?}\n", results["test_accuracy"].to_vec_f32()?);
    }
    Ok(())
}
