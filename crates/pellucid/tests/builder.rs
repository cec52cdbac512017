//! What the builder writes down, and how it says what is wrong.

use std::collections::BTreeSet;

use pellucid::{
    Adam, DType, Ellipsis, Error, Model, NewAxis, OrthogonalMap, Program, Reduction, RunOptions, Sgd, Trace,
    Value, s, shape, step,
};
use pellucid_graph::operation::table;
use pellucid_graph::{NodeKind, OperationKind};

fn faults(error: Error) -> String {
    assert!(matches!(error, Error::Faults(_)), "{error}");
    error.to_string()
}

/// Uses every method of values and every constructor once.
fn everything(trace: &Trace, x: &Value) -> Vec<Value> {
    let index = trace.literal([0, 1], &[2]);
    let whole = x.to(DType::I64);
    let condition = x.gt(0.0);
    let last = x.index(s![.., -1]);
    let mut all = vec![
        x + 1.0,
        x - 1.0,
        2.0 * x,
        x / 3.0,
        x % 2.0,
        -x,
        x.floor_divide(2.0),
        x.pow(2.0),
        x.maximum(0.0),
        x.minimum(0.0),
        x.eq(x),
        x.ne(x),
        x.lt(0.0),
        x.le(0.0),
        x.ge(0.0),
        &condition & x,
        &condition | true,
        &condition ^ x,
        !&condition,
        x.isnan(),
        x.isinf(),
        x.isfinite(),
        x.abs(),
        x.sign(),
        x.floor(),
        x.ceil(),
        x.round(),
        x.trunc(),
        x.clamp(-1.0, 1.0),
        x.clamp_min(0.0),
        x.clamp_max(0.0),
        x.exp(),
        x.expm1(),
        x.ln(),
        x.log2(),
        x.log1p(),
        x.sqrt(),
        x.rsqrt(),
        x.reciprocal(),
        x.sin(),
        x.cos(),
        x.tanh(),
        x.sigmoid(),
        x.erf(),
        x.relu(),
        x.gelu(),
        x.gelu_tanh(),
        x.silu(),
        x.softplus(),
        condition.where_cond(x, 0.0),
        x.masked_fill(&condition, 0.0),
        x.sum(..),
        x.sum_keepdim([0, 1]),
        x.mean(0),
        x.prod(-1),
        x.var(-1, 1.0),
        x.std(.., 0.0),
        x.amax(1),
        x.amin(..),
        x.argmax(-1),
        x.argmin(..),
        x.norm(-1),
        x.p_norm(1.0, ..),
        condition.any(..),
        condition.all(0),
        x.logsumexp(-1),
        x.cumsum(1),
        x.cumprod(1),
        x.softmax(-1),
        x.log_softmax(-1),
        x.layer_norm(&[128], None, None, 1e-5),
        x.rms_norm(&[128], None, 1e-5),
        x.matmul(&x.transpose(-1, -2)),
        last.index(s![0]).outer(&last.index(s![0])),
        trace.einsum("bld,bmd->blm", [x, x]),
        x.argsort(-1, true),
        x.gather(1, &whole.clamp(0, 1)),
        x.scatter(1, &whole.clamp(0, 1), 0.0),
        x.scatter_add(1, &whole.clamp(0, 1), x),
        x.index_select(1, &index),
        x.take_along_dim(&whole.clamp(0, 1), 1),
        x.index(s![Ellipsis, NewAxis, 1..3]),
        x.index(s![.., step(.., 2)]),
        x.index(s![0, &index, ..=-1]),
        x.index_put(s![.., 0], 0.0),
        x.index_add(s![.., 0], &last),
        x.reshape([-1, 64]),
        x.reshape(shape![x.size(0), -1]),
        x.flatten(0, 1),
        x.unflatten(-1, [4, 32]),
        x.permute([2, 0, 1]),
        x.movedim(0, 2),
        x.squeeze(0),
        x.unsqueeze(0),
        last.unsqueeze(1).expand(shape![x.size(0), 3, -1]),
        x.repeat([1, 1, 2]),
        trace.cat([x, x], 1),
        trace.stack([x, x], 0),
        x.split(64, -1).piece(1),
        x.chunk(2, -1).piece(0),
        x.pad(&[1, 1], 0.0),
        x.flip(1),
        x.roll(1, 1),
        x.tril(0),
        x.triu(0),
        x.diagonal(0, 1, 2),
        trace.zeros([2, 2]),
        trace.ones([2]),
        trace.full([2], 3),
        trace.arange(0, 4),
        trace.linspace(0.0, 1.0, 5),
        trace.eye(3),
        trace.literal([0, 2], &[2]).one_hot(4),
        trace.randn([2]),
        trace.rand(shape![x.size(1)]),
        trace.randint(0, 9, [3]),
        trace.randperm(5),
        x.to(DType::F16),
    ];
    let (rows, classes) = (last.log_softmax(-1), trace.full([1], 3));
    let matrix = trace.eye(3) * 2.0 + trace.ones([3, 3]);
    let (parameter, gradient) = (trace.ones([2, 2]), trace.randn([2, 2]));
    all.extend([
        last.cross_entropy(&classes.expand(shape![last.size(0)])),
        rows.nll_loss(&classes.expand(shape![last.size(0)]), Reduction::Sum),
        rows.kl_div(&rows, Reduction::BatchMean, true),
        x.mse_loss(x, Reduction::None),
        x.binary_cross_entropy_with_logits(&x.sigmoid(), Reduction::Mean),
        x.cosine_similarity(&x.roll(1, 1), -1),
        x.detach(),
        matrix.cholesky(),
        matrix.solve(&matrix),
        matrix.lstsq(&matrix),
        matrix.inv(),
        matrix.pinv(),
        matrix.det(),
        matrix.matrix_exp(),
        gradient.orthogonal(OrthogonalMap::Cayley),
    ]);
    for (one, other) in [
        matrix.qr(),
        matrix.eigh(),
        matrix.slogdet(),
        parameter.sgd_step(&gradient, 0.1, Sgd { momentum: 0.9, ..Sgd::default() }),
    ] {
        all.extend([one, other]);
    }
    let state = (&trace.zeros([2, 2]), &trace.zeros([2, 2]));
    for (one, two, three) in [matrix.svd(), parameter.adam_step(&gradient, state, 1, 0.1, Adam::default())] {
        all.extend([one, two, three]);
    }
    let (clipped, norm) = trace.clip_grad_norm([&parameter, &gradient], 1.0);
    all.extend(clipped);
    all.push(norm);
    let [one, other] = x.split_sizes([32, 96], -1);
    all.extend([one, other]);
    for (values, places) in [x.topk(2, -1), x.topk_smallest(2, -1), x.sort(-1, false)] {
        all.extend([values, places]);
    }
    all
}

#[test]
fn every_operation_of_the_language_has_a_method_that_runs() {
    let trace = Model::bundled().unwrap().trace();
    let x = trace.invoke("The capital of France is").layer(1).output();
    let values = everything(&trace, &x);
    values.iter().enumerate().for_each(|(place, value)| value.save(&format!("value_{place}")));
    let program = trace.program().unwrap();
    let used: BTreeSet<OperationKind> = program
        .nodes
        .iter()
        .filter_map(|node| match &node.kind {
            NodeKind::Operation(operation) => Some(operation.kind),
            _ => None,
        })
        .collect();
    let unused: Vec<&str> =
        table().iter().filter(|row| !used.contains(&row.kind)).map(|row| row.name).collect();
    assert!(unused.is_empty(), "no method writes {unused:?}");
    assert_eq!(trace.run().unwrap().names().count(), values.len());
}

#[test]
fn what_is_built_is_what_the_wire_carries() {
    let trace = Model::bundled().unwrap().trace();
    let x = trace.invoke("The capital of France is").layer(1).output();
    everything(&trace, &x)
        .iter()
        .enumerate()
        .for_each(|(place, value)| value.save(&format!("value_{place}")));
    let program = trace.program().unwrap();
    assert_eq!(Program::from_json(program.to_json().as_bytes()).unwrap(), program);
}

#[test]
fn the_planned_run_and_the_naive_one_agree_to_the_bit() {
    let model = Model::bundled().unwrap();
    let trace = model.trace();
    let x = trace.invoke(["The capital of France is", "Mary has"]).layer(1).output();
    everything(&trace, &x)
        .iter()
        .enumerate()
        .for_each(|(place, value)| value.save(&format!("value_{place}")));
    let checked = trace.session().check().unwrap();
    let (planned, naive) =
        (model.run(&checked, &RunOptions::default()).unwrap(), model.run_naive(&checked).unwrap());
    for (name, value) in planned.iter() {
        assert!(value.is_same_bits(naive.get(name).unwrap()), "{name}");
    }
}

#[test]
fn faults_name_the_callers_own_line() {
    let trace = Model::bundled().unwrap().trace();
    let invoke = trace.invoke("The capital of France is");
    let line = line!() + 1;
    let pattern = invoke.get("layers.1.attention.patern");
    pattern.save("pattern");
    let message = faults(trace.run().unwrap_err());
    assert!(message.contains(&format!("tests/builder.rs:{line}")), "{message}");
    assert!(message.contains("did you mean `layers.1.attention.pattern`"), "{message}");
}

#[test]
fn operators_and_setters_carry_their_line_too() {
    let trace = Model::bundled().unwrap().trace();
    let invoke = trace.invoke("The capital of France is");
    let x = invoke.layer(0).output();
    let lines = [line!() + 1, line!() + 2, line!() + 3];
    let sum = &x + trace.zeros([7]);
    invoke.layer(1).set_output(&x.index(s![.., 0, 0]).reshape([5, 5]));
    invoke.layer(2).edit_input(|input| invoke.layer(3).output() + input);
    sum.save("sum");
    invoke.logits().save("logits");
    let message = faults(trace.run().unwrap_err());
    for line in &lines[..2] {
        assert!(message.contains(&format!("tests/builder.rs:{line}")), "{line} in\n{message}");
    }
}

#[test]
fn a_setter_that_comes_too_early_is_refused_with_both_places() {
    let trace = Model::bundled().unwrap().trace();
    let invoke = trace.invoke("The capital of France is");
    invoke.layer(1).set_input(&invoke.layer(3).output());
    invoke.logits().save("logits");
    let message = faults(trace.run().unwrap_err());
    assert!(message.contains("layers.1.input") || message.contains("h.1.input"), "{message}");
    assert!(message.contains("layers.3.output") || message.contains("h.3.output"), "{message}");
}

#[test]
fn a_value_of_another_program_is_refused_without_a_panic() {
    let model = Model::bundled().unwrap();
    let other = model.trace();
    for _ in 0..9 {
        let _ = other.zeros([1]);
    }
    let foreign = other.invoke("Mary has").layer(0).output();

    let trace = model.trace();
    let invoke = trace.invoke("Mary has");
    let line = line!() + 1;
    let sum = invoke.layer(0).output() + &foreign;
    invoke.layer(1).set_output(&foreign);
    sum.save("sum");
    let message = faults(trace.run().unwrap_err());
    assert_eq!(message.matches("belongs to another program").count(), 2, "{message}");
    assert!(
        message.contains(&format!("tests/builder.rs:{line}")) && message.contains("model.session()"),
        "{message}"
    );
}

#[test]
fn values_flow_between_invokes_in_both_directions() {
    let model = Model::bundled().unwrap();
    let trace = model.trace();
    let (one, other) = (trace.invoke("Mary has the hat"), trace.invoke("John has the cup"));
    // Written before it is read, and the other way round: the planner finds the order.
    one.layer(3).set_input(&other.layer(2).output());
    other.layer(2).set_input(&one.layer(1).output());
    one.logits().index(s![0, -1]).save("one");
    other.logits().index(s![0, -1]).save("other");
    one.layer(1).output().save("source");
    other.layer(2).input().save("target");
    let results = trace.run().unwrap();
    assert!(results["source"].is_same_bits(&results["target"]));
    assert!(results["one"].is_same_bits(&results["other"]), "both went through the same last layers");
}

#[test]
fn values_flow_from_trace_to_trace_and_not_back() {
    let model = Model::bundled().unwrap();
    let session = model.session();
    let (first, second) = (session.trace(), session.trace());
    let (early, late) = (first.invoke("Mary has"), second.invoke("Mary has"));
    // Traces may be written in turns: what counts is the order in which they were opened.
    let hidden = early.layer(1).output();
    late.layer(2).set_input(&(&hidden * 2.0));
    late.layer(2).input().save("doubled");
    hidden.save("hidden");
    let results = session.run().unwrap();
    let (hidden, doubled) =
        (results["hidden"].to_vec_f32().unwrap(), results["doubled"].to_vec_f32().unwrap());
    assert!(hidden.iter().zip(&doubled).all(|(hidden, doubled)| hidden * 2.0 == *doubled));

    early.layer(3).set_input(&late.layer(0).output());
    assert!(faults(session.run().unwrap_err()).contains("of a later trace"));
}

#[test]
fn steps_read_and_write_at_each_step() {
    let model = Model::bundled().unwrap();
    let trace = model.trace();
    trace.generate(4);
    let prompt = trace.invoke("The movie was awful. I");
    trace.steps(.., |step| {
        let logits = step.at(&prompt).logits().index(s![0, -1]);
        logits.argmax(..).save("best");
        // Computed once, although it is written here.
        (prompt.at_step(0).layer(0).output() * 0.0).sum(..).save("once");
    });
    trace.steps_every(1..4, 2, |step| step.at(&prompt).layer(0).output().save("odd"));
    prompt.generated().save("generated");
    let results = trace.run().unwrap();
    let generated = results["generated"].to_vec_i64().unwrap();
    let best: Vec<i64> = results.steps("best").iter().flat_map(|best| best.to_vec_i64().unwrap()).collect();
    assert_eq!(best, generated);
    assert_eq!(results.steps("odd").len(), 2);
    assert_eq!(results.steps("odd")[0].shape(), [1, 1, 128]);
    assert_eq!(results["once"].shape(), [0; 0]);
}

#[test]
fn an_invoke_inside_steps_must_be_taken_at_a_step() {
    let trace = Model::bundled().unwrap().trace();
    trace.generate(2);
    let prompt = trace.invoke("Mary has");
    trace.steps(.., |_| prompt.layer(0).output().save("hidden"));
    let message = faults(trace.run().unwrap_err());
    assert!(message.contains("step.at(&invoke)"), "{message}");
}

#[test]
fn names_are_checked_and_given() {
    let trace = Model::bundled().unwrap().trace();
    trace.invoke("Mary has").layer(0).output().save("not a name");
    let message = faults(trace.run().unwrap_err());
    assert!(message.contains("letters a to z"), "{message}");
}

#[test]
fn named_noise_does_not_depend_on_the_program_around_it() {
    let model = Model::bundled().unwrap();
    let noise = |nodes_before: usize, name: &str, seed: u64| {
        let trace = model.trace();
        trace.seed(seed);
        (0..nodes_before).for_each(|place| trace.zeros([1]).save(&format!("before_{place}")));
        trace.invoke("Mary has").lengths().save("lengths");
        trace.randn([8]).named(name).save("saved");
        trace.run().unwrap()["saved"].clone()
    };
    assert!(noise(0, "noise", 1).is_same_bits(&noise(5, "noise", 1)));
    assert!(!noise(0, "noise", 1).is_same_bits(&noise(0, "other", 1)));
    assert!(!noise(0, "noise", 1).is_same_bits(&noise(0, "noise", 2)));
}

#[test]
fn results_travel_through_files_and_come_back_as_constants() {
    let model = Model::bundled().unwrap();
    let trace = model.trace();
    trace.invoke("Mary has").layer(1).output().save("hidden");
    let results = trace.run().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.safetensors");
    results.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("hidden").unwrap().data(), results["hidden"].to_bytes().unwrap());

    let again = model.trace();
    let invoke = again.invoke("Mary has");
    (again.constant(&results["hidden"]) - invoke.layer(1).output()).abs().amax(..).save("distance");
    let program = again.program().unwrap();
    assert_eq!(Program::from_bytes(&program.to_bytes().unwrap()).unwrap(), program);
    assert_eq!(again.run().unwrap()["distance"].to_vec_f32().unwrap(), [0.0]);
}

#[test]
fn what_is_not_saved_is_named_with_what_is() {
    let trace = Model::bundled().unwrap().trace();
    trace.invoke("Mary has").lengths().save("lengths");
    let message = trace.run().unwrap().get("length").unwrap_err().to_string();
    assert!(message.contains("`length`") && message.contains("`lengths`"), "{message}");
}

#[test]
fn a_word_without_its_space_says_so() {
    let message = Model::bundled().unwrap().token("Paris and Rome").unwrap_err().to_string();
    assert!(message.contains("tokens, not one") && message.contains("\" Paris and Rome\""), "{message}");
}

#[test]
fn models_traces_and_results_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<(Model, Trace, Value, pellucid::Session, pellucid::Results, Error)>();
}
