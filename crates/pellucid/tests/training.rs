//! Training: what stops and goes on has the numbers of what did not stop; schedules, clipping and accumulated gradients are torch's.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use pellucid::{Axis, AxisValues, Checkpoint, Lora, LoraValues, Model, Optimiser, Result, Results, Schedule};
use pellucid::{Session, Training, Value, s};

fn loss(prompt: &pellucid::Invoke, target: &Value) -> Value {
    let loss = prompt.logits().index(s![.., -1]).cross_entropy(target);
    loss.save("losses");
    loss
}

fn optimiser() -> Optimiser {
    Optimiser::adam(0.02).schedule(Schedule::Cosine { warmup: 2, total: 9 }).clip_grad_norm(0.5)
}

/// Steps of an adapter's training, from its beginning or from where it stopped.
fn steps(session: &Session, begun: Training<LoraValues>, count: u64, oslo: u32) -> Training<LoraValues> {
    let target = session.literal([oslo], &[1]);
    begun.steps(count, |_step, trace, adapter| {
        let prompt = trace.invoke("The White Tower is in the city of");
        adapter.attach(&prompt);
        loss(&prompt, &target)
    })
}

#[test]
fn an_adapter_that_stopped_and_went_on_has_the_numbers_of_one_that_did_not() -> Result<()> {
    let model = Model::bundled()?;
    let (lora, oslo) = (Lora::new(&model, 2, 8.0, &["mlp.c_fc"], 3)?, model.token(" Oslo")?);
    let session = model.session();
    let whole = steps(&session, session.training(optimiser(), lora.values_in(&session)?), 7, oslo);
    whole.save("run");
    whole.parameters().save("adapter");
    let whole = session.run()?;

    let session = model.session();
    let first = steps(&session, session.training(optimiser(), lora.values_in(&session)?), 3, oslo);
    first.save("run");
    first.parameters().save("adapter");
    let first = session.run()?;
    // Both of what is kept goes through files: the checkpoint, and the adapter in peft's layout.
    let folder = std::env::temp_dir().join(format!("pellucid-training-{}", std::process::id()));
    lora.with_results(&first, "adapter")?.save(folder.join("adapter"))?;
    first.save(folder.join("first.safetensors"))?;
    let kept = Results::load(folder.join("first.safetensors"))?;
    let again = Lora::open(folder.join("adapter").to_str().unwrap())?;
    std::fs::remove_dir_all(&folder).ok();
    let checkpoint = Checkpoint::of(&kept, "run")?;
    assert_eq!(checkpoint.steps()?, 3);

    let session = model.session();
    let begun = session.resume(optimiser(), again.values_in(&session)?, &checkpoint);
    let rest = steps(&session, begun, 4, oslo);
    rest.save("run");
    rest.parameters().save("adapter");
    let rest = session.run()?;
    let mut losses = first["losses"].to_vec_f32()?;
    losses.extend(rest["losses"].to_vec_f32()?);
    assert_eq!(losses, whole["losses"].to_vec_f32()?);
    let names: Vec<&str> = whole.names().filter(|name| *name != "losses").collect();
    assert!(names.len() > 3 * 2 * model.layers(), "{names:?}");
    for name in names {
        assert!(rest[name].is_same_bits(&whole[name]), "{name}");
    }
    // It learned something, so that the comparison says something.
    assert!(losses[6] < 0.9 * losses[0], "{losses:?}");
    Ok(())
}

/// A vector's training, whose every step draws noise and a token; all but the nodes' names are left to the façade.
fn noisy_steps(begun: Training<Value>, count: u64) -> Training<Value> {
    begun.steps(count, |step, trace, vector| {
        let noise = trace.randn([vector_width()]) * 0.1;
        noise.save("noise");
        (step.index() * 1i64).save("numbers");
        let prompt = trace.invoke("The White Tower is in the city of");
        prompt.layer(2).edit_output(|output| output.index_add(s![.., -1], &(vector + noise)));
        let loss = prompt.logits().index(s![0, -1, 0]);
        loss.save("losses");
        loss
    })
}

fn vector_width() -> i64 {
    128
}

#[test]
fn noise_goes_on_where_a_training_stopped() -> Result<()> {
    let model = Model::bundled()?;
    let run = |begun: &dyn Fn(&Session) -> Training<Value>, count| -> Result<Results> {
        let session = model.session();
        noisy_steps(begun(&session), count).save("run");
        session.run()
    };
    let fresh = |session: &Session| session.training(optimiser(), session.zeros([vector_width()]));
    let whole = run(&fresh, 5)?;
    let first = run(&fresh, 2)?;
    let checkpoint = Checkpoint::of(&first, "run")?;
    // More nodes stand before the loop than did in the first run: the noise does not depend on them.
    let resumed = |session: &Session| {
        let like = session.zeros([vector_width()]) * 2.0 + 1.0;
        session.resume(optimiser(), like, &checkpoint)
    };
    let rest = run(&resumed, 3)?;
    assert_eq!(rest["numbers"].to_vec_i64()?, [2, 3, 4]);
    for name in ["noise", "losses"] {
        let mut both = first[name].to_vec_f32()?;
        both.extend(rest[name].to_vec_f32()?);
        assert_eq!(both, whole[name].to_vec_f32()?, "{name}");
    }
    for name in whole.names().filter(|name| name.starts_with("run")) {
        assert!(rest[name].is_same_bits(&whole[name]), "{name}");
    }
    let noise = whole["noise"].to_vec_f32()?;
    assert_ne!(noise[..4], noise[128..132]);
    Ok(())
}

#[test]
fn training_over_data_goes_on_with_the_cells_that_are_left() -> Result<()> {
    let model = Model::bundled()?;
    let prompts = ["The Eiffel Tower is in", "The Louvre is in", "The White Tower is in"];
    // Three epochs in one grid, stopped after so many epochs and gone on with, and in the end once more.
    let run = |epochs: i64, checkpoint: Option<&Checkpoint>, accumulated: bool| -> Result<Results> {
        let session = model.session();
        let begun = match checkpoint {
            Some(checkpoint) => session.resume(optimiser(), session.zeros([128]), checkpoint),
            None => session.training(optimiser(), session.zeros([128])),
        };
        let batches = AxisValues::prompts(prompts.map(|prompt| vec![prompt]));
        let data = [Axis::new("epoch", 0..epochs), Axis::new("batch", batches)];
        let step = |prompt: &pellucid::Invoke, trace: &pellucid::Trace, vector: &Value| {
            let noise = trace.randn([128]) * 0.1;
            prompt.layer(2).edit_output(|output| output.index_add(s![.., -1], &(vector + noise)));
            let loss = prompt.logits().index(s![0, -1, 0]);
            loss.save("losses");
            loss
        };
        let trained = match accumulated {
            false => begun
                .over(data, |cell, trace, vector| step(&trace.invoke(cell.prompts("batch")), trace, vector)),
            true => begun.accumulated(data, Axis::new("part", 0..2), |cell, _part, trace, vector| {
                step(&trace.invoke(cell.prompts("batch")), trace, vector)
            }),
        };
        trained.save("run");
        session.run()
    };
    for accumulated in [false, true] {
        let whole = run(3, None, accumulated)?;
        let first = run(1, None, accumulated)?;
        let rest = run(3, Some(&Checkpoint::of(&first, "run")?), accumulated)?;
        let parts = if accumulated { vec![6, 2] } else { vec![6] };
        assert_eq!(rest["losses"].shape(), parts);
        let mut both = first["losses"].to_vec_f32()?;
        both.extend(rest["losses"].to_vec_f32()?);
        assert_eq!(both, whole["losses"].to_vec_f32()?);
        let ended = run(3, Some(&Checkpoint::of(&rest, "run")?), accumulated)?;
        assert!(ended.get("losses").is_err());
        for name in whole.names().filter(|name| name.starts_with("run")) {
            assert!(rest[name].is_same_bits(&whole[name]), "{name}");
            assert!(ended[name].is_same_bits(&whole[name]), "{name}");
        }
    }
    Ok(())
}

#[test]
fn a_checkpoint_of_another_optimiser_is_refused() -> Result<()> {
    let model = Model::bundled()?;
    let session = model.session();
    session.training(Optimiser::sgd(0.1), session.zeros([2])).save("run");
    let checkpoint = Checkpoint::of(&session.run()?, "run")?;
    let session = model.session();
    session.resume(Optimiser::adam(0.1), session.zeros([2]), &checkpoint).save("run");
    let error = session.run().unwrap_err().to_string();
    assert!(
        error.contains("2 tensors") && error.contains("have 3") && error.contains("training.rs"),
        "{error}"
    );
    Ok(())
}

/// transformers 5.23: `get_linear_schedule_with_warmup(optimizer, 2, 6)` and the cosine's, `get_last_lr()` before each step.
#[test]
fn schedules_are_those_of_transformers() -> Result<()> {
    let linear = [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0];
    let cosine = [0.0, 0.5, 1.0, 0.853_553_4, 0.5, 0.146_446_6, 0.0, 0.0];
    let model = Model::bundled()?;
    for (schedule, expected) in [
        (Schedule::Linear { warmup: 2, total: 6 }, linear),
        (Schedule::Cosine { warmup: 2, total: 6 }, cosine),
        (Schedule::Constant, [1.0; 8]),
    ] {
        let session = model.session();
        // The loss is the parameter itself: each step of gradient descent is as long as the rate.
        let start = session.zeros([1]);
        let optimiser = Optimiser::sgd(1.0).schedule(schedule);
        let trained = session.train(8, optimiser, start, |_step, trace, parameter| {
            trace.invoke("a").tokens().save("tokens");
            parameter.save("before");
            parameter.sum(..)
        });
        trained.save("after");
        let results = session.run()?;
        let mut places = results["before"].to_vec_f32()?;
        places.extend(results["after"].to_vec_f32()?);
        let rates: Vec<f32> = places.windows(2).map(|pair| pair[0] - pair[1]).collect();
        for (rate, expected) in rates.iter().zip(expected) {
            assert!((rate - expected).abs() < 1e-6, "{schedule:?}: {rates:?}");
        }
    }
    Ok(())
}

#[test]
fn gradients_that_are_accumulated_are_those_of_the_whole_batch() -> Result<()> {
    let model = Model::bundled()?;
    let prompts = ["The Eiffel Tower is in the city of", "The Louvre is in the city of"];
    let rome = model.token(" Rome")?;
    let run = |accumulated: bool| -> Result<Vec<f32>> {
        let session = model.session();
        let training =
            session.training(Optimiser::sgd(0.5).clip_grad_norm(0.4), session.zeros([model.hidden()]));
        let trained = if accumulated {
            let target = session.literal([rome], &[1]);
            let parts = Axis::new("prompt", AxisValues::prompts(prompts.map(|prompt| vec![prompt])));
            training.accumulated(Axis::new("step", 0..3), parts, |_step, part, trace, vector| {
                let prompt = trace.invoke(part.prompts("prompt"));
                prompt.layer(2).edit_output(|output| output.index_add(s![.., -1], vector));
                loss(&prompt, &target) / 2.0
            })
        } else {
            let target = session.literal([rome, rome], &[2]);
            training.steps(3, |_step, trace, vector| {
                let batch = trace.invoke(prompts.to_vec());
                batch.layer(2).edit_output(|output| output.index_add(s![.., -1], vector));
                loss(&batch, &target)
            })
        };
        trained.parameters().save("vector");
        Ok(session.run()?["vector"].to_vec_f32()?)
    };
    let (parts, whole) = (run(true)?, run(false)?);
    let largest = whole.iter().fold(0.0f32, |largest, number| largest.max(number.abs()));
    assert!(largest > 0.01);
    for (part, whole) in parts.iter().zip(&whole) {
        assert!((part - whole).abs() < 1e-4 * largest, "{part} against {whole}");
    }
    Ok(())
}

#[test]
fn a_loss_of_what_was_read_before_needs_no_prompt() -> Result<()> {
    let model = Model::bundled()?;
    let session = model.session();
    let state = session.trace().invoke("The capital of France is").layer(2).output().index(s![0, -1]);
    let trained =
        session.train(6, Optimiser::sgd(0.25), session.zeros([model.hidden()]), |_step, _trace, vector| {
            let loss = (vector - &state).pow(2i64).sum(..);
            loss.save("losses");
            loss
        });
    (trained - &state).abs().amax(..).save("distance");
    state.abs().amax(..).save("largest");
    let results = session.run()?;
    let single = |name: &str| Ok::<f32, pellucid::Error>(results[name].to_vec_f32()?[0]);
    // Each step halves the distance.
    assert!((single("distance")? * 64.0 / single("largest")? - 1.0).abs() < 1e-3);
    assert_eq!(results.report().passes, 1, "only the prompt that was read runs");
    Ok(())
}
