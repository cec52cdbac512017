//! `pellucid run`.

use std::io::Write;
use std::path::Path;

use pellucid::client::Submission;
use pellucid::{Model, Program, Results, RunOptions, Service, Tensor};
use serde::Serialize;

use crate::arguments::{Plan, ProgramChoice, Run};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::remote::{self, Bar};
use crate::{models, text};

/// Elements shown of each value.
const SHOWN: usize = 6;

/// Runs a program and summarises what it saves.
pub(crate) fn run(run: &Run, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(path) = &run.output {
        can_be_written(path)?;
    }
    let results = match remote::given(&run.program.remote) {
        Some(address) if run.detach => return detach(address, run, out),
        Some(address) => there(address, run)?,
        None => here(run)?,
    };
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

/// That results will find their place is asked before anything is computed.
fn can_be_written(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let why = if path.is_dir() {
        "is a folder; results are written to a file".to_owned()
    } else if !folder.is_dir() {
        format!("there is no folder {} to write it into", folder.display())
    } else {
        return Ok(());
    };
    Err(Failure::Message(format!("{}: {why}; nothing was run", path.display())))
}

fn here(run: &Run) -> Result<Results, Failure> {
    if run.detach || run.label.is_some() {
        return Err(Failure::Message(
            "--detach and --label are for a run at a service: see --remote".to_owned(),
        ));
    }
    let interrupt = Interrupt::listen()?;
    let (model, program) = open(&run.program)?;
    let checked = model.check(program)?;
    let options = options(run, &interrupt, None);
    let outcome = match run.plan {
        Plan::Planned => model.run(&checked, &options),
        Plan::Naive => model.run_naive(&checked),
    };
    let results = keep(outcome, run.output.as_deref())?;
    if let Some(path) = &run.output {
        results.save(path)?;
    }
    Ok(results)
}

/// Runs the program at a service. What it saves is written as it comes.
fn there(address: &str, run: &Run) -> Result<Results, Failure> {
    let (model, program) = read_remote(&run.program)?;
    if run.plan == Plan::Naive {
        return Err(Failure::Message("--plan naive is for a run here: a service plans by itself".to_owned()));
    }
    let interrupt = Interrupt::listen()?;
    let bar = Bar::new();
    let service = remote::service(address, run.label.as_deref(), &bar)?;
    let options = options(run, &interrupt, Some(bar.clone()));
    let outcome = match &run.output {
        Some(path) => service.run_to(model.as_deref(), &program, &options, path),
        None => service.run(model.as_deref(), &program, &options),
    };
    bar.clear();
    keep(outcome, run.output.as_deref())
}

/// Submits the program to a service, and leaves it there.
fn detach(address: &str, run: &Run, out: &mut dyn Write) -> Result<(), Failure> {
    let (model, program) = read_remote(&run.program)?;
    let submission = Submission { model, priority: None, deadline_s: run.seconds, label: run.label.clone() };
    let bytes = program.to_bytes().map_err(pellucid::Error::from)?;
    let job = Service::at(address)?.client().submit(&bytes, &submission)?;
    if run.json {
        return super::write_json(&job, out);
    }
    writeln!(out, "{}", job.id)?;
    Ok(())
}

/// How it runs: bounded, cancelled by Ctrl-C, with its logs on standard error, beside the bar if there is one.
fn options(run: &Run, interrupt: &Interrupt, bar: Option<Bar>) -> RunOptions {
    let quiet = run.json;
    RunOptions {
        cancel: Some(interrupt.run()),
        seconds: run.seconds,
        on_log: Some(std::sync::Arc::new(move |entry| {
            if quiet {
                return;
            }
            let step = entry.step.map_or(String::new(), |step| format!(" (step {step})"));
            let print = || eprintln!("{}{step}: {}", entry.name, first_elements(&entry.value));
            match &bar {
                Some(bar) => bar.beside(print),
                None => print(),
            }
        })),
        ..RunOptions::default()
    }
}

/// A program's file.
fn read(choice: &ProgramChoice) -> Result<Program, Failure> {
    let bytes = super::read_input(&choice.program)?;
    let name = if choice.program == "-" { "standard input" } else { &choice.program };
    Program::from_bytes(&bytes).map_err(|faults| Failure::Program { name: name.to_owned(), faults })
}

/// The program of a file, and the name of the model at a service that it is for, where one was given.
pub(crate) fn read_remote(choice: &ProgramChoice) -> Result<(Option<String>, Program), Failure> {
    let mut model = None;
    for given in &choice.model {
        if let Some((name, _)) = named(given) {
            let message = format!(
                "`{name}` cannot stand beside the model at a service\n  hint: models beside one another are for runs here"
            );
            return Err(Failure::Message(message));
        }
        model = Some(given.clone());
    }
    Ok((model, read(choice)?))
}

/// The program of a file, and the model that it is for.
pub(crate) fn open(choice: &ProgramChoice) -> Result<(Model, Program), Failure> {
    let program = read(choice)?;
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
    text::write_table(&titles, &rows, out)?;
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
