//! `pellucid demo`.

use std::io::Write;

use pellucid::Model;
use pellucid::picture::Paint;

use crate::arguments::Demo;
use crate::demo::{experiment, page, terminal};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::{models, remote};

/// Runs the experiment and draws it.
pub(crate) fn demo(demo: &Demo, out: &mut dyn Write) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let model = match remote::given(&demo.remote) {
        Some(address) => Model::remote(address, models::BUNDLED)?,
        None => Model::bundled()?,
    };
    let findings = experiment::run(&model, Some(interrupt.run()))?;
    if demo.json {
        return crate::commands::write_json(&findings, out);
    }
    terminal::draw(&findings, Paint::for_stdout(), out)?;
    let file = |error| Failure::File { name: demo.html.display().to_string(), error };
    std::fs::write(&demo.html, page::page(&findings)?).map_err(file)?;
    let path = std::path::absolute(&demo.html).unwrap_or_else(|_| demo.html.clone());
    writeln!(out, "\nThe same picture, with every number: {}", path.display())?;
    Ok(())
}
