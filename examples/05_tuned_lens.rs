//! The tuned lens: the logit lens with a translator for each depth.
//!
//! What is read out of the residual stream early is often no word at all, because the layers speak slightly different
//! languages. A translator, an affine map for each depth, is trained so that what is read out there is what the model says
//! in the end; on prompts that were not trained it is nearer to that at every depth.

use pellucid::picture::Curves;
use pellucid::{Invoke, Model, Optimiser, Result, Results, Value};

/// How the translators are trained.
pub struct Training {
    /// Steps, each over all prompts.
    pub steps: u64,
    /// The learning rate.
    pub rate: f64,
    /// How much of the last step's direction is kept.
    pub momentum: f64,
}

/// Trains on prompts of one length, and measures on others. Saves the divergence from the model's own prediction at each
/// step, `losses`, `[steps, depths]`; the translators' `bias`, `[depths, hidden]`, and the lengths of their matrices,
/// `matrix_norms`; and on the test prompts, with the logit lens and with the tuned one, the divergence
/// (`held_out_logit_lens`, `held_out_tuned_lens`) and how often the most probable token is the model's
/// (`agreement_logit_lens`, …), `[depths]`.
pub fn tuned_lens(
    model: &Model,
    train: &[Vec<u32>],
    test: &[Vec<u32>],
    training: &Training,
) -> Result<Results> {
    let (depths, hidden) = (model.layers(), model.hidden());
    let session = model.session();
    let states = |run: &Invoke| run.get_all("layers.*.input"); // [depths, prompts, length, hidden]
    let read_out = |states: &Value| states.apply("final_norm").apply("unembed");
    // KL(final || lens), the mean over prompts and positions.
    let divergence = |last: &Value, lens: &Value| {
        let terms = last.softmax(-1) * (last.log_softmax(-1) - lens.log_softmax(-1));
        terms.sum(-1).mean([1, 2]) // [depths]
    };
    let translate = |states: &Value, [matrix, bias]: &[Value; 2]| {
        let moved = states.flatten(1, 2).matmul(matrix); // [depths, prompts · length, hidden]
        states
            + moved.reshape(pellucid::shape![depths, states.size(1), states.size(2), hidden])
            + bias.unsqueeze(1).unsqueeze(1)
    };

    let translators = [session.zeros([depths, hidden, hidden]), session.zeros([depths, hidden])];
    let optimiser = Optimiser::sgd(training.rate).momentum(training.momentum);
    let translators = session.train(training.steps, optimiser, translators, |_step, trace, translators| {
        let run = trace.invoke_tokens(train);
        let loss = divergence(&run.logits(), &read_out(&translate(&states(&run), translators)));
        loss.save("losses");
        loss.sum(..)
    });
    translators[0].norm([1, 2]).save("matrix_norms");
    translators[1].save("bias");

    let judge = session.trace();
    let run = judge.invoke_tokens(test);
    let (last, states) = (run.logits(), states(&run));
    for (name, states) in [("logit_lens", states.clone()), ("tuned_lens", translate(&states, &translators))] {
        let lens = read_out(&states);
        divergence(&last, &lens).save(&format!("held_out_{name}"));
        let same = lens.argmax(-1).eq(last.argmax(-1)).to(pellucid::DType::F32);
        same.mean([1, 2]).save(&format!("agreement_{name}"));
    }
    session.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let prompts = |texts: &[&str]| {
        let tokens = |text: &&str| model.encode(text).map(|tokens| tokens[..6].to_vec());
        texts.iter().map(tokens).collect::<Result<Vec<_>>>()
    };
    let train = prompts(&[
        "The Eiffel Tower is in the city of Paris.",
        "When Mary and John went to the store, John gave",
        "The movie was wonderful. I loved it.",
        "The capital of France is Paris.",
        "Anna went to the park because she was happy.",
        "Monday, Tuesday, Wednesday, Thursday",
    ])?;
    let test =
        prompts(&["The capital of Japan is Tokyo.", "When Emma and James went to the park, Emma gave"])?;
    let results = tuned_lens(&model, &train, &test, &Training { steps: 15, rate: 0.1, momentum: 0.9 })?;

    let depths = (0..model.layers()).map(|depth| format!("into layer {depth}"));
    let curves = Curves::new("The divergence from what the model says, in training");
    let curves = curves.lines(depths, &results["losses"])?;
    println!("{curves}");
    for name in ["logit_lens", "tuned_lens"] {
        let held_out = results[&format!("held_out_{name}")].to_vec_f32()?;
        println!("on prompts that were not trained, {name}: {held_out:.2?}");
    }
    Ok(())
}
