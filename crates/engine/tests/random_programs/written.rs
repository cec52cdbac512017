//! Random programs of the whole surface, as they are written: taken by the wire and the checker, the same bits by both
//! interpreters, reread, and beside one another; and a sweep against its loop, every cell.

use std::collections::BTreeMap;
use std::sync::Arc;

use pellucid_engine::{Engine, RunOptions};
use pellucid_graph::Program;

use crate::random::coverage::Coverage;
use crate::random::outcomes::{difference, difference_from_naive};
use crate::random::written::{Writer, Written};
use crate::support::engines;
use crate::{Crowd, PROGRAMS, all_were_tried, finish, seeds};

/// Constructs, and how many programs each stands in at least.
const CONSTRUCTS: [(&str, usize); 23] = [
    ("sweeps in traces", 20),
    ("sweeps of traces", 10),
    ("sweeps in steps", 5),
    ("sweeps inside another region", 10),
    ("sweeps with invokes of their own", 20),
    ("loops in traces", 20),
    ("loops of traces", 10),
    ("loops in steps", 5),
    ("loops inside another region", 10),
    ("loops with invokes of their own", 10),
    ("carried tensors", 10),
    ("conds", 20),
    ("getters by a pattern", 10),
    ("setters by a pattern", 10),
    ("setters of each by a pattern", 10),
    ("addresses with a parameter", 20),
    ("prompts along an axis", 10),
    ("rows along an axis", 10),
    ("edits", 10),
    ("covariances", 10),
    ("traces of another model", 10),
    ("gradients", 10),
    ("caches", 10),
];

/// The engines, each with the next one's model beside its own.
fn pairs() -> Vec<(String, Engine)> {
    let engines = engines();
    let models: Vec<_> = engines.iter().map(|(_, engine)| Arc::clone(engine.model())).collect();
    let paired = engines.iter().enumerate().map(|(place, (name, engine))| {
        (name.clone(), engine.share().with_model("other", models[(place + 1) % models.len()].clone()))
    });
    paired.collect()
}

fn parsed(json: &serde_json::Value) -> Result<Program, String> {
    let text = serde_json::to_vec(json).map_err(|error| error.to_string())?;
    Program::from_json(&text).map_err(|faults| faults.to_string())
}

#[test]
fn programs_of_the_whole_surface_give_the_same_bits_however_they_run() {
    let mut coverage = Coverage::default();
    let mut failures = Vec::new();
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    let (mut written, mut refused, mut failed) = (0, 0, 0);
    for (number, (model, engine)) in pairs().into_iter().enumerate() {
        let spec = engine.model().spec().clone();
        let mut crowd = Crowd::default();
        for seed in seeds(number, PROGRAMS) {
            let Written { program: json, constructs } = Writer::write(&spec, seed);
            written += 1;
            let told = |what: String| format!("{model}, seed {seed}: {what}\n{json}");
            let program = match parsed(&json) {
                Ok(program) => program,
                Err(faults) => {
                    failures.push(told(format!("cannot be read: {faults}")));
                    continue;
                }
            };
            let checked = match engine.check(program.clone()) {
                Ok(checked) => checked,
                Err(faults) => {
                    refused += 1;
                    let first = faults.0[0].message.chars().filter(|c| !c.is_ascii_digit()).take(70);
                    *refusals.entry(first.collect()).or_default() += 1;
                    continue;
                }
            };
            constructs.keys().for_each(|construct| coverage.add("construct", *construct));
            let planned = engine.run(&checked, &RunOptions::default());
            failed += usize::from(planned.is_err());
            let naive = engine.run_naive(&checked);
            if let Some(difference) = difference_from_naive(&engine, &checked, &planned, &naive) {
                failures.push(told(format!("planned against naive: {difference}")));
            }
            match program.to_bytes().map(|bytes| Program::from_bytes(&bytes)) {
                Ok(Ok(reread)) if reread == program => {}
                Ok(Ok(_)) => failures.push(told("is another program when reread".into())),
                Ok(Err(faults)) => failures.push(told(format!("cannot be reread: {faults}"))),
                Err(faults) => failures.push(told(format!("cannot be written: {faults:?}"))),
            }
            crowd.join(&engine, &model, (seed, checked, planned), &mut failures);
        }
        crowd.run(&engine, &model, &mut failures);
    }
    println!("{written} programs, of which {refused} are refused and {failed} fail");
    refusals.iter().for_each(|(message, count)| println!("  {count:>5} {message}"));
    println!("{}", coverage.table());
    finish(failures);
    assert!(refused * 4 <= written, "{refused} of {written} programs are refused");
    assert!(failed * 10 <= written, "{failed} programs fail");
    if all_were_tried() {
        let wanted: Vec<_> =
            CONSTRUCTS.iter().map(|(name, least)| ("construct", vec![(*name).to_owned()], *least)).collect();
        let missing = coverage.missing(&wanted);
        assert!(missing.is_empty(), "too little was tried:\n{}", missing.join("\n"));
    }
}

#[test]
fn a_sweep_gives_in_every_cell_what_its_loop_gives() {
    let mut failures = Vec::new();
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    let (mut written, mut compared, mut cells) = (0, 0, 0);
    for (number, (model, engine)) in pairs().into_iter().enumerate() {
        let spec = engine.model().spec().clone();
        for seed in seeds(number, PROGRAMS) {
            let (repeated, Written { program: swept, .. }) = Writer::sweep_and_loop(&spec, seed);
            written += 1;
            let run = |json: &serde_json::Value| -> Result<_, String> {
                let checked = engine.check(parsed(json)?).map_err(|faults| faults.to_string())?;
                Ok(engine.run(&checked, &RunOptions::default()))
            };
            let told = |what: String| format!("{model}, seed {seed}: {what}\n{swept}");
            let (swept_gives, loop_gives) = match (run(&swept), run(&repeated)) {
                (Ok(swept), Ok(repeated)) => (swept, repeated),
                (Err(one), Err(_)) => {
                    let first = one.chars().filter(|c| !c.is_ascii_digit()).take(90);
                    *refusals.entry(first.collect()).or_default() += 1;
                    continue;
                }
                (Err(one), Ok(_)) => {
                    failures.push(told(format!("the sweep alone is refused: {one}")));
                    continue;
                }
                (Ok(_), Err(other)) => {
                    failures.push(told(format!("the loop alone is refused: {other}")));
                    continue;
                }
            };
            compared += 1;
            if let Ok(results) = &swept_gives {
                cells += results.tensors.values().map(|tensor| tensor.elements()).sum::<usize>();
            }
            if let Some(difference) = difference(&swept_gives, &loop_gives) {
                failures.push(told(format!("the sweep against its loop: {difference}")));
            }
        }
    }
    println!("{written} sweeps, {compared} compared with their loops in {cells} elements");
    refusals.iter().for_each(|(message, count)| println!("  {count:>5} {message}"));
    finish(failures);
    if all_were_tried() {
        assert!(compared >= 150, "only {compared} sweeps were compared");
    }
}
