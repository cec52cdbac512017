//! `pellucid demo`.

use std::io::Write;

use pellucid::picture::Paint;
use pellucid::{Model, RemoteOptions};

use crate::arguments::Demo;
use crate::demo::{experiment, page, terminal};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::models;
use crate::remote::{self, Bar};

/// Runs the experiment and draws it.
pub(crate) fn demo(demo: &Demo, out: &mut dyn Write) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let bar = remote::given(&demo.remote).map(|address| (address, Bar::new()));
    let model = match &bar {
        Some((address, bar)) => {
            remote::service(address, &RemoteOptions::default(), bar)?.model(models::BUNDLED)?
        }
        None => Model::bundled()?,
    };
    let findings = experiment::run(&model, Some(interrupt.run()));
    if let Some((_, bar)) = bar {
        bar.clear();
    }
    let findings = findings?;
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
