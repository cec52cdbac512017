//! `pellucid run`.

use std::io::Write;

use pellucid::{Model, Program, Results, RunOptions, Tensor};
use serde::Serialize;

use crate::arguments::{Plan, ProgramChoice, Run};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::{models, text};

/// Elements shown of each value.
const SHOWN: usize = 6;

/// Runs a program and summarises what it saves.
pub(crate) fn run(run: &Run, out: &mut dyn Write) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let (model, program) = open(&run.program)?;
    let checked = model.check(program)?;
    let quiet = run.json;
    let options = RunOptions {
        cancel: Some(interrupt.run()),
        seconds: run.seconds,
        on_log: Some(std::sync::Arc::new(move |entry| {
            if !quiet {
                let step = entry.step.map_or(String::new(), |step| format!(" (step {step})"));
                eprintln!("{}{step}: {}", entry.name, first_elements(&entry.value));
            }
        })),
        ..RunOptions::default()
    };
    let outcome = match run.plan {
        Plan::Planned => model.run(&checked, &options),
        Plan::Naive => model.run_naive(&checked),
    };
    let results = keep(outcome, run.output.as_deref())?;
    if let Some(path) = &run.output {
        results.save(path)?;
    }
    let summary = summarise(&results)?;
    if run.json {
        return super::write_json(&summary, out);
    }
    draw(&summary, out)?;
    if let Some(path) = &run.output {
        writeln!(out, "\nwritten to {}", path.display())?;
    }
    Ok(())
}

/// The program of a file, and the model that it is for.
pub(crate) fn open(choice: &ProgramChoice) -> Result<(Model, Program), Failure> {
    let bytes = super::read_input(&choice.program)?;
    let name = if choice.program == "-" { "standard input" } else { &choice.program };
    let program =
        Program::from_bytes(&bytes).map_err(|faults| Failure::Program { name: name.to_owned(), faults })?;
    let (mut own, mut others) = (program.model.clone(), Vec::new());
    for given in &choice.model {
        match named(given) {
            Some(other) => others.push(other),
            None => own = Some(given.clone()),
        }
    }
    let mut model = models::open(own.as_deref().unwrap_or(models::BUNDLED), &choice.choices)?;
    for (name, source) in others {
        model = model.with_model(name, &models::open(source, &choice.choices)?);
    }
    Ok((model, program))
}

/// `NAME=MODEL`, for a model that traces call by name: what stands before the `=` is made of letters, digits and `_`.
fn named(given: &str) -> Option<(&str, &str)> {
    let (name, source) = given.split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some((name, source))
}

/// What the traces before a failure saved goes where all would have gone.
fn keep(outcome: pellucid::Result<Results>, output: Option<&std::path::Path>) -> Result<Results, Failure> {
    if let (Err(pellucid::Error::Run(failure)), Some(path)) = (&outcome, output)
        && failure.kept.names().next().is_some()
    {
        failure.kept.save(path)?;
        eprintln!("what was saved before the failure is written to {}", path.display());
    }
    Ok(outcome?)
}

/// What a run gave back, in short.
#[derive(Serialize)]
struct Summary {
    saved: Vec<Saved>,
    absent: Vec<String>,
    provenance: pellucid::Provenance,
    report: pellucid::Report,
}

/// One saved value, in short. Numbers of a bool value count true as 1; of an empty one there are none.
#[derive(Serialize)]
struct Saved {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    min: Option<f64>,
    mean: Option<f64>,
    max: Option<f64>,
    first: Vec<f64>,
}

fn summarise(results: &Results) -> Result<Summary, Failure> {
    let saved = results.iter().map(|(name, tensor)| {
        let elements = tensor.to_vec_f64()?;
        let some = |value: f64| (!elements.is_empty()).then_some(value);
        Ok(Saved {
            name: name.to_owned(),
            dtype: tensor.dtype().to_string(),
            shape: tensor.shape().to_vec(),
            min: some(elements.iter().copied().fold(f64::INFINITY, f64::min)),
            mean: some(elements.iter().sum::<f64>() / elements.len() as f64),
            max: some(elements.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            first: elements.iter().copied().take(SHOWN).collect(),
        })
    });
    Ok(Summary {
        saved: saved.collect::<Result<_, Failure>>()?,
        absent: results.absent().to_vec(),
        provenance: results.provenance().clone(),
        report: results.report().clone(),
    })
}

fn draw(summary: &Summary, out: &mut dyn Write) -> Result<(), Failure> {
    let rows: Vec<[String; 7]> = summary.saved.iter().map(row).collect();
    let titles = ["saved", "type", "shape", "min", "mean", "max", "first"].map(str::to_owned);
    let widths: Vec<usize> = (0..titles.len())
        .map(|column| {
            let cells = rows.iter().chain([&titles]).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        })
        .collect();
    for row in [&titles].into_iter().chain(&rows) {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| text::fit(cell, width)).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    for name in &summary.absent {
        writeln!(out, "{name}  absent: its generation had stopped before")?;
    }
    let (report, made) = (&summary.report, &summary.provenance);
    let how = match report.passes {
        // The simple interpreter counts nothing.
        0 => "one invoke at a time".to_owned(),
        1 => format!("1 pass, {} tokens, {:.3} s", report.tokens, report.seconds),
        passes => format!("{passes} passes, {} tokens, {:.3} s", report.tokens, report.seconds),
    };
    writeln!(out, "\n{}: {how} ({} weights, {})", made.model, made.weights, made.instruction_set)?;
    Ok(())
}

fn row(saved: &Saved) -> [String; 7] {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), text::number);
    let sizes: Vec<String> = saved.shape.iter().map(ToString::to_string).collect();
    let more = if saved.shape.iter().product::<usize>() > saved.first.len() { " …" } else { "" };
    let first: Vec<String> = saved.first.iter().copied().map(text::number).collect();
    [
        saved.name.clone(),
        saved.dtype.clone(),
        format!("[{}]", sizes.join(", ")),
        number(saved.min),
        number(saved.mean),
        number(saved.max),
        format!("{}{more}", first.join(" ")),
    ]
}

fn first_elements(tensor: &Tensor) -> String {
    match tensor.to_vec_f64() {
        Ok(elements) => {
            let shown: Vec<String> = elements.iter().copied().take(SHOWN).map(text::number).collect();
            let more =
                if elements.len() > SHOWN { format!(" … ({:?})", tensor.shape()) } else { String::new() };
            format!("{}{more}", shown.join(" "))
        }
        Err(error) => error.to_string(),
    }
}
