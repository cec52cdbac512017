//! `pellucid explain`.

use std::io::Write;

use pellucid::Service;

use crate::arguments::Explain;
use crate::commands::run;
use crate::failure::Failure;
use crate::{models, remote};

/// Shows what a program would compute.
pub(crate) fn explain(explain: &Explain, out: &mut dyn Write) -> Result<(), Failure> {
    let plan = match remote::given(&explain.program.remote) {
        Some(address) => {
            let (model, program) = run::read_remote(&explain.program)?;
            Service::at(address)?.explain(model.as_deref(), &program)?
        }
        None => {
            let (model, program) = run::open(&explain.program, models::outline)?;
            model.explain_program(program)?
        }
    };
    if explain.json {
        return super::write_json(&plan, out);
    }
    write!(out, "{plan}")?;
    Ok(())
}
