//! `pellucid explain`.

use std::io::Write;

use crate::arguments::Explain;
use crate::commands::run;
use crate::failure::Failure;

/// Shows what a program would compute.
pub(crate) fn explain(explain: &Explain, out: &mut dyn Write) -> Result<(), Failure> {
    let (model, program) = run::open(&explain.program)?;
    let plan = model.explain(&model.check(program)?)?;
    if explain.json {
        return super::write_json(&plan, out);
    }
    write!(out, "{plan}")?;
    Ok(())
}
