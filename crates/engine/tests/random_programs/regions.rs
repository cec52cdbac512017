//! Random programs put into a sweep or a loop.

use pellucid_engine::{RunOptions, Tensor};
use pellucid_graph::Program;
use pellucid_graph::check::SpecIndex;

use crate::random::dice::Dice;
use crate::random::outcomes::difference_from_naive;
use crate::random::regions::{Around, surrounded, with_start};
use crate::random::{Builder, Wishes};
use crate::support::engines;
use crate::{Crowd, PROGRAMS, finish, seeds, travels};

/// The first row of a tensor along its first dimensions: one cell of a grid of so many axes.
fn first_cell(tensor: &Tensor, axes: usize) -> Vec<u64> {
    let each: usize = tensor.shape()[axes..].iter().product();
    tensor.to_vec_f64().unwrap().into_iter().take(each).map(f64::to_bits).collect()
}

/// Whether a program draws anything at random: its cells then differ from it.
fn draws(program: &Program) -> bool {
    use pellucid_graph::{NodeKind, OperationKind};
    program.nodes.iter().any(|node| match &node.kind {
        NodeKind::Operation(operation) => matches!(
            operation.kind,
            OperationKind::Rand | OperationKind::Randn | OperationKind::Randint | OperationKind::Randperm
        ),
        NodeKind::Trace(trace) => {
            trace.generation.as_ref().is_some_and(|generation| generation.sampling.temperature > 0.0)
        }
        _ => false,
    })
}

#[test]
fn sweeps_and_loops_of_random_programs_give_the_same_bits_however_they_run() {
    let mut failures = Vec::new();
    let (mut sweeps, mut loops, mut cells_compared, mut failed) = (0, 0, 0, 0);
    for (number, (model, engine)) in engines().into_iter().enumerate() {
        let spec = engine.model().spec().clone();
        let index = SpecIndex::new(&spec);
        let mut crowd = Crowd::default();
        for seed in seeds(number, PROGRAMS / 4) {
            let generated = Builder::generate(
                &index,
                seed,
                Wishes { may_fail: false, generation: true, alike: false, smooth: false },
            );
            let plain = with_start(generated.checked.program);
            for around in [Around::Sweep, Around::Loop] {
                let mut dice = Dice::new(seed);
                let cells = dice.range(2, 4) as usize;
                let vocabulary = spec.sizes.vocabulary;
                let Some(program) = surrounded(&plain, around, cells, vocabulary, &mut dice) else {
                    continue;
                };
                let checked = match engine.check(program.clone()) {
                    Ok(checked) => checked,
                    // What is refused beforehand is a mistake of the generator.
                    Err(faults) => {
                        failures.push(format!("{model}, seed {seed}: {faults}\n{}", program.to_json()));
                        continue;
                    }
                };
                match around {
                    Around::Sweep => sweeps += 1,
                    Around::Loop => loops += 1,
                }
                let planned = engine.run(&checked, &RunOptions::default());
                let naive = engine.run_naive(&checked);
                if let Err(error) = &planned {
                    failed += 1;
                    println!("{model}, seed {seed}: {error}");
                }
                if let Some(difference) = difference_from_naive(&engine, &checked, &planned, &naive) {
                    failures.push(format!(
                        "{model}, seed {seed}, {around:?}: planned against naive: {difference}\n{}",
                        program.to_json()
                    ));
                }
                match Program::from_bytes(&program.to_bytes().unwrap()) {
                    _ if !travels(&program) => {}
                    Ok(reread) if reread == program => {}
                    Ok(_) => failures.push(format!("another program when reread\n{}", program.to_json())),
                    Err(faults) => {
                        failures.push(format!("cannot be reread: {faults}\n{}", program.to_json()))
                    }
                }
                // The first cell has the prompts of the program itself.
                if let (Ok(planned), false) = (&planned, draws(&plain)) {
                    let axes =
                        checked.program.nodes.iter().map(|node| node.coordinates().len()).max().unwrap_or(0);
                    let original = engine.run(&engine.check(plain.clone()).unwrap(), &RunOptions::default());
                    for (name, tensor) in original.iter().flat_map(|results| &results.tensors) {
                        let Some(grid) =
                            planned.tensors.get(name).filter(|grid| grid.shape() != tensor.shape())
                        else {
                            continue;
                        };
                        cells_compared += 1;
                        let expected = first_cell(tensor, 0);
                        if first_cell(grid, axes) != expected {
                            failures.push(format!(
                                "{model}, seed {seed}, {around:?}: the first cell of `{name}` is not the program's own\n{}",
                                program.to_json()
                            ));
                        }
                    }
                }
                crowd.join(&engine, &model, (seed, checked, planned), &mut failures);
            }
        }
        crowd.run(&engine, &model, &mut failures);
    }
    println!(
        "{sweeps} sweeps, {loops} loops, {cells_compared} cells compared, {failed} fail in both interpreters"
    );
    // Cells have the same shapes whenever each stops; what is left are values, as NaN in a matrix that is to be factored.
    assert!(failed * 100 <= sweeps + loops, "{failed} programs fail");
    finish(failures);
    if std::env::var("PELLUCID_MODEL").is_err() {
        assert!(sweeps >= 50 && loops >= 50 && cells_compared >= 50);
    }
}
