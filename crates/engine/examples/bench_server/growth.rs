//! How cost grows: the same experiment ever larger, beside the arithmetic that its plan needs and that it would need without one.

use std::time::Instant;

use pellucid_engine::{Engine, RunOptions};
use pellucid_graph::check::CheckedProgram;
use pellucid_kernels::{Epilogue, PackedMatrix, WeightLayout, matmul};

use super::{LAST, answer, cases, checked, tokens, try_checked};

/// Floating-point operations a second in a product of large matrices: what this machine can do at least.
pub fn product() {
    const SIDE: usize = 2048;
    let numbers: Vec<f32> = (0..SIDE * SIDE).map(|at| (at % 251) as f32 / 251.0 - 0.5).collect();
    let weights = PackedMatrix::pack_f32(SIDE, SIDE, &numbers, WeightLayout::InputMajor);
    let mut out = vec![0.0; SIDE * SIDE];
    let seconds = (0..20).map(|_| {
        let started = Instant::now();
        matmul(&numbers, SIDE, SIDE, &weights, &Epilogue::default(), &mut out, SIDE);
        started.elapsed().as_secs_f64()
    });
    let least = seconds.fold(f64::INFINITY, f64::min);
    answer(&format!(r#"{{"flops_per_second": {}}}"#, 2.0 * (SIDE as f64).powi(3) / least));
}

/// Prompts of a length, of which the last logits are read.
pub fn prompts(engine: &Engine, prompts: usize, length: usize) {
    let prompts = tokens(prompts, length, engine.model().spec().sizes.vocabulary);
    grown(engine, &checked(engine, &prompts, "", LAST));
}

/// Patching a head's mixed values at one position, so many cells of every layer, head and position.
pub fn cells(engine: &Engine, count: usize, length: usize) {
    let sizes = &engine.model().spec().sizes;
    let all = sizes.layers as usize * sizes.heads as usize * length;
    assert!(count <= all, "there are {all} cells");
    // Evenly over the layers, the positions and the heads.
    let cell = |number: usize| {
        let at = number * all / count;
        let (layer, rest) = (at / (sizes.heads as usize * length), at % (sizes.heads as usize * length));
        let (position, head) = (rest / sizes.heads as usize, rest % sizes.heads as usize);
        (format!("layers.{layer}.attention.mixed"), format!(r#"[":",{position},{head}]"#))
    };
    let cells: Vec<(String, String)> = (0..count).map(cell).collect();
    grown(engine, &try_checked(engine, &cases::patching_of(engine, 1, length, &cells)).unwrap());
}

/// The seconds of a run, and what its passes compute and move; of a run that shares nothing and stops nowhere as well.
fn grown(engine: &Engine, program: &CheckedProgram) {
    let explained = engine.explain(program).unwrap();
    let started = Instant::now();
    engine.run(program, &RunOptions::default()).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let sum =
        |of: &dyn Fn(&pellucid_engine::ExplainedPass) -> u64| explained.passes.iter().map(of).sum::<u64>();
    answer(&format!(
        r#"{{"seconds": {seconds}, "passes": {}, "flops": {}, "bytes": {}, "naive_flops": {}}}"#,
        explained.passes.len(),
        sum(&|pass| pass.flops),
        sum(&|pass| pass.bytes),
        sum(&|pass| pass.naive_flops),
    ));
}
