//! What a run at a service costs beyond one here: `overhead MODEL ADDRESS PROGRAM` runs a program here and there in turn, and
//! prints the medians and quartiles in milliseconds as JSON. `cargo xtask load --overhead` uses it.

use std::time::Instant;

use pellucid::{Model, PREFIX_CACHE_BYTES, Program, RunOptions};
use serde_json::json;

const ROUNDS: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [source, address, program] = words.as_slice() else {
        return Err("usage: overhead MODEL ADDRESS PROGRAM".into());
    };
    let program = std::fs::read(program)?;
    let here = if source == "bundled" { Model::bundled()? } else { Model::open(source)? };
    // The service keeps what the prompts begin with: so is it kept here.
    let here = here.with_prefix_cache(PREFIX_CACHE_BYTES);
    let there = Model::remote(address, "model")?;
    let milliseconds = |model: &Model| -> pellucid::Result<f64> {
        let started = Instant::now();
        let program = Program::from_bytes(&program)?;
        model.run_program(program, &RunOptions::default())?;
        Ok(started.elapsed().as_secs_f64() * 1000.0)
    };
    for _ in 0..10 {
        milliseconds(&here)?;
        milliseconds(&there)?;
    }
    let (mut local, mut remote, mut difference) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Whoever goes first may find the caches cold: they take turns in that too.
        let (one, other) = if round % 2 == 0 {
            let one = milliseconds(&here)?;
            (one, milliseconds(&there)?)
        } else {
            let other = milliseconds(&there)?;
            (milliseconds(&here)?, other)
        };
        local.push(one);
        remote.push(other);
        difference.push(other - one);
    }
    let mut all = json!({ "rounds": ROUNDS });
    for (name, values) in [("here", &mut local), ("there", &mut remote), ("difference", &mut difference)] {
        values.sort_by(f64::total_cmp);
        all[name] = values[ROUNDS / 2].into();
        all[format!("{name}_q1")] = values[ROUNDS / 4].into();
        all[format!("{name}_q3")] = values[ROUNDS * 3 / 4].into();
    }
    println!("{all}");
    Ok(())
}
