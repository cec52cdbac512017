//! `pellucid explain`.

use std::io::Write;

use pellucid::picture::Page;
use pellucid::{Explanation, RunOptions, Service};

use crate::arguments::Explain;
use crate::commands::run;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::{models, remote};

/// Shows what a program would compute, or what it took.
pub(crate) fn explain(explain: &Explain, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(path) = &explain.html {
        run::can_be_written(path, &explain.program.program)?;
    }
    let plan = match remote::given(&explain.program.remote) {
        Some(_) if explain.analyze => {
            let message = "--analyze is for a run here: at a service others ride in the same passes\n  \
                           hint: `pellucid run --remote … --json` tells a program’s own share of each pass";
            return Err(Failure::Message(message.to_owned()));
        }
        Some(address) => {
            let (model, program) = run::read_remote(&explain.program)?;
            Service::at(address)?.explain(model.as_deref(), &program)?
        }
        None if explain.analyze => analyze(explain)?,
        None => {
            let (model, program) = run::open(&explain.program, models::outline)?;
            model.explain_program(program)?
        }
    };
    if let Some(path) = &explain.html {
        page(&plan).save(path)?;
    }
    if explain.json {
        return super::write_json(&plan, out);
    }
    write!(out, "{plan}")?;
    if let Some(path) = &explain.html {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        writeln!(out, "\nThe same, drawn: {}", path.display())?;
    }
    Ok(())
}

/// Runs the program, for what it takes.
fn analyze(explain: &Explain) -> Result<Explanation, Failure> {
    let interrupt = Interrupt::listen()?;
    let (model, program) = run::open(&explain.program, models::open)?;
    let memory_bytes = pellucid::available_memory();
    if let Some(memory) = memory_bytes {
        model.fits(&model.check(program.clone())?, memory)?;
    }
    let options = RunOptions {
        memory_bytes,
        cancel: Some(interrupt.run()),
        on_log: Some(run::log_to_stderr(explain.json, None)),
        ..RunOptions::default()
    };
    Ok(model.analyze_program(program, &options)?.0)
}

fn page(plan: &Explanation) -> Page {
    let lead = match plan.measured {
        Some(_) => "What a program computed, where, and what each pass took.",
        None => "What a program would compute, and where. Nothing was run.",
    };
    Page::new(&format!("A plan on {}", plan.model)).lead(lead).plan(plan)
}
