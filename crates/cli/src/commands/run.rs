//! `pellucid run`.

use std::io::Write;
use std::path::Path;

use pellucid::client::api::Priority;
use pellucid::{Model, OnLog, Program, RemoteOptions, Results, RunOptions, Service};

use crate::arguments::{ModelChoices, Order, Plan, ProgramChoice, Run};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::models;
use crate::remote::{self, Bar};
use crate::summary::{Summary, first_elements};

/// Runs a program and summarises what it saves.
pub(crate) fn run(run: &Run, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(path) = &run.output {
        can_be_written(path, &run.program.program)?;
    }
    let results = match remote::given(&run.program.remote) {
        Some(address) if run.detach => return detach(address, run, out),
        Some(address) => there(address, run)?,
        None => here(run)?,
    };
    // Those of a service are written as they come.
    let is_here = remote::given(&run.program.remote).is_none();
    let written = match &run.output {
        Some(path) if is_here => results.save(path),
        _ => Ok(()),
    };
    // What was computed is shown even where it finds no place.
    let summary = Summary::of(&results)?;
    if run.json {
        super::write_json(&summary, out)?;
        return Ok(written?);
    }
    summary.draw(out)?;
    out.flush()?;
    written?;
    if let Some(path) = &run.output {
        writeln!(out, "\nwritten to {}", path.display())?;
    }
    Ok(())
}

/// That results will find their place is asked before anything is computed.
pub(super) fn can_be_written(path: &Path, program: &str) -> Result<(), Failure> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let why = if path.is_dir() {
        "is a folder; results are written to a file".to_owned()
    } else if !folder.is_dir() {
        format!("there is no folder {} to write it into", folder.display())
    } else if is_same(path, Path::new(program)) {
        "is the program itself; results are written to a file of their own".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure::Message(format!("{}: {why}; nothing was run", path.display())))
}

/// Whether two paths lead to one file, which is there.
fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    real(one).is_some_and(|one| Some(one) == real(other))
}

fn here(run: &Run) -> Result<Results, Failure> {
    if run.detach || run.label.is_some() || run.priority.is_some() {
        return Err(Failure::Message(
            "--detach, --label and --priority are for a run at a service: see --remote".to_owned(),
        ));
    }
    let interrupt = Interrupt::listen()?;
    let (model, program) = open(&run.program, models::open)?;
    let checked = model.check(program)?;
    let mut options = options(run, &interrupt, None);
    options.memory_bytes = run.memory.or_else(pellucid::available_memory);
    if let Some(memory) = options.memory_bytes {
        model.fits(&checked, memory)?;
    }
    let outcome = match run.plan {
        Plan::Planned => model.run(&checked, &options),
        Plan::Naive => model.run_naive_with(&checked, &options),
    };
    keep(outcome, run.output.as_deref())
}

/// Runs the program at a service. What it saves is written as it comes.
fn there(address: &str, run: &Run) -> Result<Results, Failure> {
    let (model, program) = read_remote(&run.program)?;
    if run.plan == Plan::Naive {
        return Err(Failure::Message("--plan naive is for a run here: a service plans by itself".to_owned()));
    }
    no_memory_of_ours(run)?;
    let interrupt = Interrupt::listen()?;
    let bar = Bar::new();
    let service = remote::service(address, &chosen(run), &bar)?;
    let options = options(run, &interrupt, Some(bar.clone()));
    let outcome = match &run.output {
        Some(path) => service.run_to(model.as_deref(), &program, &options, path),
        None => service.run(model.as_deref(), &program, &options),
    };
    bar.clear();
    keep(outcome, run.output.as_deref())
}

/// Memory is not ours to give at a service.
fn no_memory_of_ours(run: &Run) -> Result<(), Failure> {
    match run.memory {
        Some(_) => {
            Err(Failure::Message("--memory is for a run here: a service has bounds of its own".to_owned()))
        }
        None => Ok(()),
    }
}

/// What the command line says of the job.
fn chosen(run: &Run) -> RemoteOptions {
    RemoteOptions {
        label: run.label.clone(),
        priority: run.priority.map(priority),
        ..RemoteOptions::default()
    }
}

fn priority(order: Order) -> Priority {
    match order {
        Order::Low => Priority::Low,
        Order::Normal => Priority::Normal,
        Order::High => Priority::High,
    }
}

/// Submits the program to a service, and leaves it there.
fn detach(address: &str, run: &Run, out: &mut dyn Write) -> Result<(), Failure> {
    no_memory_of_ours(run)?;
    let (model, program) = read_remote(&run.program)?;
    let service = Service::with(address, &chosen(run))?;
    let job = service.submit(model.as_deref(), &program, run.seconds)?;
    if run.json {
        return super::write_json(&job, out);
    }
    writeln!(out, "{}", job.id)?;
    Ok(())
}

/// How it runs: bounded, cancelled by Ctrl-C, with its logs on standard error, beside the bar if there is one.
fn options(run: &Run, interrupt: &Interrupt, bar: Option<Bar>) -> RunOptions {
    RunOptions {
        cancel: Some(interrupt.run()),
        seconds: run.seconds,
        on_log: Some(log_to_stderr(run.json, bar)),
        ..RunOptions::default()
    }
}

/// Writes logged values to standard error, beside the bar if there is one, unless all is to be quiet.
pub(super) fn log_to_stderr(quiet: bool, bar: Option<Bar>) -> OnLog {
    std::sync::Arc::new(move |entry| {
        if quiet {
            return;
        }
        let step = entry.step.map_or(String::new(), |step| format!(" (step {step})"));
        let print = || eprintln!("{}{step}: {}", entry.name, first_elements(&entry.value));
        match &bar {
            Some(bar) => bar.beside(print),
            None => print(),
        }
    })
}

/// A program's file.
fn read(choice: &ProgramChoice) -> Result<Program, Failure> {
    let bytes = super::read_input(&choice.program, pellucid::limits::FILE_BYTES)?;
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

/// How a model is opened: with its weights or without.
type Open = fn(&str, &ModelChoices) -> Result<Model, Failure>;

/// The program of a file, and the model that it is for: opened by [`models::open`] or [`models::outline`].
pub(crate) fn open(choice: &ProgramChoice, open: Open) -> Result<(Model, Program), Failure> {
    let program = read(choice)?;
    let (mut own, mut replaced, mut others) = (program.model.clone(), false, Vec::new());
    for given in &choice.model {
        match named(given) {
            Some((name, _)) if others.iter().any(|(known, _)| *known == name) => {
                return Err(twice(&format!("two models are called `{name}`")));
            }
            Some(other) => others.push(other),
            None if replaced => return Err(twice("two models are given without a name")),
            None => (own, replaced) = (Some(given.clone()), true),
        }
    }
    let mut model = open(own.as_deref().unwrap_or(models::BUNDLED), &choice.choices)?;
    for (name, source) in others {
        model = model.with_model(name, &open(source, &choice.choices)?);
    }
    Ok((model, program))
}

fn twice(what: &str) -> Failure {
    Failure::Message(format!("{what}\n  hint: a model beside another is given as NAME=MODEL, each name once"))
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
        match failure.kept.save(path) {
            Ok(()) => eprintln!("what was saved before the failure is written to {}", path.display()),
            Err(error) => eprintln!("what was saved before the failure could not be written: {error}"),
        }
    }
    Ok(outcome?)
}
