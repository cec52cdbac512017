//! Sweeps, loops, reductions and patterns through the builder, and how it says what is wrong with them.

#![allow(clippy::panic, reason = "helpers of tests may panic as tests do")]

use pellucid::{Axis, AxisValues, Error, Model, Pattern, Program, Reduce, Result, Results, Session, s};

fn numbers(results: &Results, name: &str) -> Result<Vec<f32>> {
    Ok(results[name].to_vec_f32()?)
}

fn refused(session: &Session) -> String {
    match session.run() {
        Err(Error::Faults(faults)) => faults.to_string(),
        other => panic!("{other:?}"),
    }
}

/// A written program is the same when it is read back, and runs as it did.
fn survives_writing(session: &Session) -> Result<()> {
    let program = session.program()?;
    let reread = Program::from_json(program.to_json().as_bytes())?;
    assert_eq!(reread, program);
    Ok(())
}

#[test]
fn a_sweep_in_a_trace_patches_layer_by_layer() -> Result<()> {
    let model = Model::bundled()?;
    let paris = i64::from(model.token(" Paris")?);
    let trace = model.trace();
    let clean = trace.invoke("The Eiffel Tower is in the city of");
    let grid = trace.sweep([Axis::new("layer", 0..3), Axis::new("position", [-1, -2])], |cell| {
        let patched = cell.invoke("The Colosseum is in the city of");
        let position = cell.value("position");
        let source = clean.layer("{layer}").output().index(s![.., &position]);
        patched.edit("layers.{layer}.output", |output| output.index_put(s![.., &position], &source));
        patched.logits().index(s![0, -1, paris])
    });
    grid.save("grid");
    (&grid - grid.mean(..)).save("centred");
    let results = trace.run()?;
    assert_eq!(results["grid"].shape(), [3, 2]);
    for layer in 0..3 {
        let trace = model.trace();
        let clean = trace.invoke("The Eiffel Tower is in the city of");
        let patched = trace.invoke("The Colosseum is in the city of");
        let source = clean.layer(layer).output().index(s![.., -2]);
        patched.layer(layer).edit_output(|output| output.index_put(s![.., -2], &source));
        patched.logits().index(s![0, -1, paris]).save("one");
        let alone = numbers(&trace.run()?, "one")?;
        assert_eq!(alone[0].to_bits(), numbers(&results, "grid")?[layer * 2 + 1].to_bits());
    }
    survives_writing(trace.session())
}

#[test]
fn a_sweep_over_a_data_set_reduces_as_it_goes() -> Result<()> {
    let model = Model::bundled()?;
    let session = model.session();
    let texts = ["The capital of France is", "The capital of Japan is", "The Eiffel Tower is in"];
    let texts = Axis::new("text", texts).with("number", [0, 1, 2]);
    // What is reduced comes out as it is, what is not is stacked, in any order.
    let (mean, stacked, (top, origins), doubled) = session.sweep(texts, |cell| {
        let trace = session.trace();
        let prompt = trace.invoke(cell.prompts("text"));
        let last = prompt.layer(1).output().index(s![0, -1]);
        let norm = last.norm(..);
        norm.save("norms");
        (cell.reduce(&last, Reduce::mean()), norm.clone(), cell.topk(&norm, 2), &norm * 2.0)
    });
    mean.save("mean");
    top.save("top");
    origins.save("where");
    (doubled - stacked * 2.0).abs().amax(..).save("nothing");
    // A trace after it reads what the sweep made.
    let trace = session.trace();
    let prompt = trace.invoke("The capital of France is");
    prompt.layer(1).edit_output(|output| output + &mean);
    prompt.logits().index(s![0, -1]).argmax(..).save("token");
    let results = session.run()?;
    let norms = numbers(&results, "norms")?;
    let mut order = [0, 1, 2];
    order.sort_by(|&a: &usize, &b: &usize| norms[b].total_cmp(&norms[a]));
    assert_eq!(numbers(&results, "nothing")?, [0.0]);
    assert_eq!(numbers(&results, "top")?, [norms[order[0]], norms[order[1]]]);
    assert_eq!(results["where"].to_vec_i64()?, [order[0] as i64, order[1] as i64]);
    assert_eq!(results["mean"].shape(), [model.hidden()]);
    survives_writing(&session)
}

#[test]
fn what_an_inner_sweep_reduces_is_stacked_by_the_outer_one() -> Result<()> {
    let session = Model::bundled()?.session();
    let (sums, total) = session.sweep(Axis::new("a", [1, 2, 3]), |outer| {
        let a = outer.value("a");
        let sum = session
            .sweep(Axis::new("b", [10, 20]), |inner| inner.reduce(&(&a * inner.value("b")), Reduce::sum()));
        (sum.clone(), outer.reduce(&sum, Reduce::sum()))
    });
    sums.save("sums");
    total.save("total");
    let results = session.run()?;
    assert_eq!(results["sums"].to_vec_i64()?, [30, 60, 90]);
    assert_eq!(results["total"].to_vec_i64()?, [180]);
    survives_writing(&session)
}

#[test]
fn a_data_set_is_swept_in_batches() -> Result<()> {
    let model = Model::bundled()?;
    let session = model.session();
    let prompts =
        ["The capital of France is", "The capital of Japan is", "The Eiffel Tower is in"].map(str::to_owned);
    let mean = |batch: usize| {
        session.sweep(Axis::new("batch", AxisValues::batches(&prompts, batch)), |cell| {
            let last = session.trace().invoke(cell.prompts("batch")).layer(1).output().index(s![.., -1]);
            cell.reduce(&last, Reduce::mean().over([0]))
        })
    };
    (mean(2) - mean(3)).abs().amax(..).save("distance"); // the last batch of the first is smaller
    assert!(numbers(&session.run()?, "distance")?[0] < 1e-5);
    survives_writing(&session)
}

#[test]
fn loops_carry_what_their_closure_gives() -> Result<()> {
    let session = Model::bundled()?.session();
    let (a, b) = (session.literal([0], &[]), session.literal([1], &[]));
    let [last, _] = session.repeat(10, [a, b], |iteration, [a, b]| {
        a.save("fibonacci");
        iteration.index().save("places");
        let sum = &a + &b;
        [b, sum]
    });
    last.save("tenth");
    let results = session.run()?;
    assert_eq!(results["fibonacci"].to_vec_i64()?, [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]);
    assert_eq!(results["tenth"].to_vec_i64()?, [55]);
    assert_eq!(results["places"].to_vec_i64()?, (0..10).collect::<Vec<_>>());
    survives_writing(&session)
}

#[test]
fn a_loop_in_a_trace_may_edit_again_and_again() -> Result<()> {
    let model = Model::bundled()?;
    let looped = model.trace();
    let prompt = looped.invoke("The capital of France is");
    looped.repeat_over(Axis::new("layer", 1..4), (), |_, ()| {
        prompt.edit("layers.{layer}.mlp.output", |output| output * 0.5);
    });
    prompt.logits().save("logits");
    let written = model.trace();
    let prompt = written.invoke("The capital of France is");
    for layer in 1..4 {
        prompt.layer(layer).mlp().edit_output(|output| output * 0.5);
    }
    prompt.logits().save("logits");
    assert_eq!(numbers(&looped.run()?, "logits")?, numbers(&written.run()?, "logits")?);
    survives_writing(looped.session())
}

#[test]
fn rows_of_a_value_and_sweeps_inside_sweeps() -> Result<()> {
    let session = Model::bundled()?.session();
    let directions = session.randn([3, 4]).named("directions");
    let products = session.sweep(Axis::new("one", &directions), |outer| {
        let one = outer.value("one");
        session.sweep(Axis::new("other", &directions), |inner| (&one * inner.value("other")).sum(..))
    });
    products.save("products");
    directions.matmul(&directions.transpose(0, 1)).save("matmul");
    let results = session.run()?;
    assert_eq!(results["products"].shape(), [3, 3]);
    let pairs = numbers(&results, "products")?.into_iter().zip(numbers(&results, "matmul")?);
    assert!(pairs.into_iter().all(|(one, other)| (one - other).abs() < 1e-5));
    survives_writing(&session)
}

#[test]
fn patterns_read_write_and_cache() -> Result<()> {
    let model = Model::bundled()?;
    let trace = model.trace();
    let (one, other) = (trace.invoke("The capital of France is"), trace.invoke("The capital of Japan is"));
    let streams = Pattern::new("layers.*.output").except(["layers.0.output"]);
    other.set_each(streams.clone(), &one.get_all(streams));
    other.cache("all", "layers.0.attention.*");
    one.logits().save("one");
    other.logits().save("other");
    let results = trace.run()?;
    assert_eq!(numbers(&results, "one")?, numbers(&results, "other")?);
    assert!(results.names().any(|name| name == "all/transformer.h.0.attn.pattern"));
    survives_writing(trace.session())
}

#[test]
fn mistakes_are_told_with_the_line_they_stand_in() -> Result<()> {
    let model = Model::bundled()?;
    let session = model.session();
    let mut kept = None;
    session.sweep(Axis::new("a", 0..3), |cell| kept = Some(cell.value("a") + 1));
    let inside = kept.unwrap_or_else(|| panic!("the body was not written"));
    session.sweep(Axis::new("b", 0..3), |cell| cell.value("b") + inside).save("other");
    let message = refused(&session);
    assert!(message.contains("cannot be seen here") && message.contains("regions.rs:"), "{message}");

    let session = model.session();
    session.sweep(Axis::new("a", 0..3), |cell| cell.value("b")).save("out");
    let message = refused(&session);
    assert!(
        message.contains("there is no parameter `b`") && message.contains("the parameters are a"),
        "{message}"
    );

    let session = model.session();
    let start = vec![session.literal([0.0], &[1])];
    session.repeat(3, start, |_, _| Vec::new());
    let message = refused(&session);
    assert!(message.contains("carries 1 values, but its body gives 0"), "{message}");

    let trace = model.trace();
    let prompt = trace.invoke("The capital of France is");
    trace.sweep(Axis::new("layer", 0..3), |_| {
        prompt.edit("layers.{layer}.output", |output| output * 2.0);
        prompt.logits().index(s![0, -1, 0])
    });
    let message = refused(trace.session());
    assert!(message.contains("invokes` of its own"), "{message}");

    let session = model.session();
    session.sweep(Axis::new("a", AxisValues::tokens([[1, 2], [3, 4]])), |cell| cell.value("a")).save("out");
    let message = refused(&session);
    assert!(message.contains("is a parameter of prompts"), "{message}");
    Ok(())
}
