//! Circuit discovery by edge attribution (EAP, EAP-IG): which edges between components make the answer?
//!
//! An edge goes from what a component writes to what another reads. Its score is the change of what is written, from the clean
//! to the corrupted prompt, times the gradient where it is read: two forward passes and one backward for all edges. With
//! integrated gradients the gradient is averaged over runs whose embeddings lie between the two.
//!
//! A head reads the residual stream three times, for its query, key and value. To tell those gradients apart, each reads a
//! copy of its own: the copies go through the norm and the head's columns of the projection, and come out as the query, key
//! and value that the model goes on with.

use pellucid::picture::HeatMap;
use pellucid::{Axis, Backward, Invoke, Model, Reduce, Result, Results, Trace, Value, s};

/// What a circuit is searched for.
pub struct Circuit<'a> {
    /// The clean prompt.
    pub clean: &'a str,
    /// The corrupted one, as long.
    pub corrupted: &'a str,
    /// The right answer, and the wrong one.
    pub answers: (u32, u32),
    /// How many runs between the two the integrated gradient is averaged over.
    pub steps: u32,
}

/// The names of what writes: the embeddings, then each layer's heads and its MLP.
pub fn senders(model: &Model) -> Vec<String> {
    let of_layer = |layer: usize| {
        let heads = (0..model.heads()).map(move |head| format!("{layer}.{head}"));
        heads.chain([format!("mlp {layer}")])
    };
    std::iter::once("embeddings".to_owned()).chain((0..model.layers()).flat_map(of_layer)).collect()
}

/// The names of what reads: each layer's queries, keys and values by head, and its MLP; then the logits.
pub fn receivers(model: &Model) -> Vec<String> {
    let of_layer = |layer: usize| {
        let kinds = ["query", "key", "value"].into_iter();
        let heads =
            kinds.flat_map(|kind| (0..model.heads()).map(move |head| format!("{layer}.{head}.{kind}")));
        heads.chain([format!("mlp {layer}")]).collect::<Vec<_>>()
    };
    (0..model.layers()).flat_map(of_layer).chain(["logits".to_owned()]).collect()
}

/// What each sender writes, `[senders, length, hidden]`.
fn written(trace: &Trace, model: &Model, invoke: &Invoke) -> Value {
    let mut parts = vec![invoke.layer(0).input()];
    let width = (model.hidden() / model.heads()) as i64;
    for layer in 0..model.layers() {
        let mixed = invoke.layer(layer).get("attention.mixed").index(s![0]); // [length, heads, head size]
        let weight = trace.weight(&format!("transformer.h.{layer}.attn.c_proj.weight"));
        let weight = weight.unflatten(0, [model.heads() as i64, width]); //     [heads, head size, hidden]
        parts.push(trace.einsum("phd,hdo->hpo", [&mixed, &weight]));
        parts.push(invoke.layer(layer).mlp().output());
    }
    trace.cat(&parts, 0)
}

/// Gives every reader a copy of its own of what it reads. Returns them in the order of [`receivers`]:
/// `[readers, length, hidden]` each.
fn split_readers(trace: &Trace, model: &Model, invoke: &Invoke) -> Vec<Value> {
    let (heads, width) = (model.heads() as i64, (model.hidden() / model.heads()) as i64);
    let mut read = Vec::new();
    for layer in 0..model.layers() {
        let stream = invoke.layer(layer).input(); // [1, length, hidden]
        let copies = stream.repeat([3 * heads, 1, 1]);
        let normed = copies.apply(&format!("layers.{layer}.norm_1"));
        // Of each copy, only the columns that its head and kind of vector take.
        let weight = trace.weight(&format!("transformer.h.{layer}.attn.c_attn.weight"));
        let columns = weight.unflatten(1, [3 * heads, width]); // [hidden, 3 heads, head size]
        let bias =
            trace.weight(&format!("transformer.h.{layer}.attn.c_attn.bias")).unflatten(0, [3 * heads, width]);
        let parts = trace.einsum("cph,hcd->pcd", [&normed, &columns]) + bias; // [length, 3 heads, head size]
        for (kind, name) in ["query", "key", "value"].into_iter().enumerate() {
            let from = kind as i64 * heads;
            invoke.layer(layer).attention().set(name, &parts.index(s![.., from..from + heads]).unsqueeze(0));
        }
        read.push(copies);
        read.push(invoke.layer(layer).norm_2().input());
    }
    read.push(invoke.final_norm().input());
    read
}

/// The score of every edge, `[senders, receivers]`; 0 where the receiver comes first.
fn scores(trace: &Trace, model: &Model, change: &Value, back: &Backward, read: &[Value]) -> Value {
    let gradients: Vec<Value> = read.iter().map(|read| back.grad(read)).collect();
    let scores = trace.einsum("sph,rph->sr", [change, &trace.cat(&gradients, 0)]);
    let heads = model.heads();
    // When each is reached: in a layer the heads read, write, the MLP reads, writes.
    let sent =
        (0..model.layers()).flat_map(|layer| (0..=heads).map(move |at| 4 * layer + 1 + 2 * (at / heads)));
    let sent: Vec<i64> = std::iter::once(-1).chain(sent.map(|time| time as i64)).collect();
    let reads = (0..model.layers())
        .flat_map(|layer| (0..=3 * heads).map(move |at| 4 * layer + 2 * (at / (3 * heads))));
    let reads: Vec<i64> = reads.map(|time| time as i64).chain([4 * model.layers() as i64]).collect();
    let (senders, receivers) = (sent.len() as u64, reads.len() as u64);
    let in_order = trace.literal(sent, &[senders, 1]).lt(trace.literal(reads, &[1, receivers]));
    in_order.where_cond(scores, 0.0)
}

/// Saves `eap`, by the difference of the answers' logits, and `integrated`, by the divergence from the clean run averaged
/// over runs between the prompts: `[senders, receivers]`; and `clean_difference` and `corrupted_kl`.
pub fn edge_attribution(model: &Model, circuit: &Circuit<'_>) -> Result<Results> {
    let trace = model.trace();
    let (clean, corrupted) = (trace.invoke(circuit.clean), trace.invoke(circuit.corrupted));
    let change = written(&trace, model, &corrupted) - written(&trace, model, &clean);
    let (start, end) = (clean.embed().output(), corrupted.embed().output());
    let goal = clean.logits().index(s![0, -1]);
    let divergence =
        |logits: &Value| (goal.softmax(-1) * (goal.log_softmax(-1) - logits.log_softmax(-1))).sum(..);
    let (answer, wrong) = circuit.answers;
    let difference =
        |logits: &Value| logits.index(s![i64::from(answer)]) - logits.index(s![i64::from(wrong)]);
    difference(&goal).save("clean_difference");
    divergence(&corrupted.logits().index(s![0, -1])).save("corrupted_kl");

    // A run whose embeddings are that share of the way from the clean to the corrupted ones.
    let run = |between: Invoke, share: &Value, metric: &dyn Fn(&Value) -> Value| {
        between.embed().set_output(&(&start + (&end - &start) * share));
        let read = split_readers(&trace, model, &between);
        let back = trace.backward(&metric(&between.logits().index(s![0, -1])));
        scores(&trace, model, &change, &back, &read)
    };
    run(trace.invoke(circuit.clean), &trace.literal([0.0], &[]), &difference).save("eap");
    let shares: Vec<f64> =
        (1..=circuit.steps).map(|step| f64::from(step) / f64::from(circuit.steps)).collect();
    let integrated = trace.sweep(Axis::new("share", shares), |cell| {
        let scores = run(cell.invoke(circuit.clean), &cell.value("share"), &divergence);
        cell.reduce(&scores, Reduce::mean())
    });
    integrated.save("integrated");
    trace.run()
}

#[allow(dead_code, reason = "the tests use this file as a module")]
fn main() -> Result<()> {
    let model = Model::bundled()?;
    let circuit = Circuit {
        clean: "When Mary and John went to the store, John gave a drink to",
        corrupted: "When Mary and John went to the store, Mary gave a drink to",
        answers: (model.token(" Mary")?, model.token(" John")?),
        steps: 5,
    };
    let results = edge_attribution(&model, &circuit)?;
    let (senders, receivers) = (senders(&model), receivers(&model));
    for name in ["eap", "integrated"] {
        let scores = results[name].to_vec_f32()?;
        let mut edges: Vec<usize> = (0..scores.len()).collect();
        edges.sort_by(|&one, &other| scores[other].abs().total_cmp(&scores[one].abs()));
        println!("{name}: the strongest edges");
        for edge in &edges[..10] {
            let (sender, receiver) = (edge / receivers.len(), edge % receivers.len());
            println!("  {:>10} → {:<10} {:+.2}", senders[sender], receivers[receiver], scores[*edge]);
        }
    }
    let map =
        HeatMap::new("Every edge, by integrated gradients", &senders, &receivers, &results["integrated"])?;
    println!("\n{}", map.transposed().full_at_largest());
    Ok(())
}
