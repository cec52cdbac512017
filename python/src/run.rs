//! Running a program while Python's own threads and Ctrl-C go on.
//!
//! The engine runs on a thread of its own. The caller's waits for it without holding Python's lock, and looks for signals
//! in between: an exception that a signal's handler raises cancels the run, and is raised when the run has ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pellucid::client::api::Event;
use pellucid::{GeneratedToken, LogEntry, OnUpdate, Progress, RunOptions, Update};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::error;
use crate::program::written;
use crate::tensor::Tensor;

/// How long a wait lasts before signals are looked for.
const WAIT: Duration = Duration::from_millis(25);

/// Functions of Python that are told what happens in a run.
#[derive(Default)]
pub(crate) struct Listeners {
    pub(crate) log: Option<Py<PyAny>>,
    pub(crate) token: Option<Py<PyAny>>,
    pub(crate) progress: Option<Py<PyAny>>,
    /// What happens to a run at a service, in words.
    pub(crate) update: Option<Py<PyAny>>,
}

/// Does something that may take long without holding Python's lock. An exception that a signal's handler raises ends the wait;
/// the work ends by itself, unheard.
pub(crate) fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let (sender, receiver) = mpsc::channel();
    let receiver = Mutex::new(receiver);
    spawned(py, move || drop(sender.send(work())))?;
    loop {
        match py.detach(|| receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(WAIT)) {
            Ok(done) => return Ok(done),
            Err(RecvTimeoutError::Disconnected) => return Err(failed(py)),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
        }
    }
}

fn spawned(py: Python<'_>, work: impl FnOnce() + Send + 'static) -> PyResult<()> {
    let spawned = std::thread::Builder::new().name("pellucid-run".to_owned()).spawn(work);
    let told = |error| error::in_operation(py, &format!("no thread could be had to run on: {error}"));
    spawned.map(drop).map_err(told)
}

fn failed(py: Python<'_>) -> PyErr {
    error::in_operation(py, "the engine failed: please report it")
}

/// What cancels a run from another thread.
#[pyclass(frozen, module = "pellucid._core")]
#[derive(Debug, Default)]
pub(crate) struct Cancellation(pub(crate) Arc<AtomicBool>);

#[pymethods]
impl Cancellation {
    #[new]
    fn new() -> Cancellation {
        Cancellation::default()
    }

    /// Cancels the run that it was given to.
    fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a run tells while it goes on, and its outcome.
enum Message {
    Log(Box<LogEntry>),
    Token(GeneratedToken),
    Progress(Progress),
    Update(String),
    Done(Box<pellucid::Result<pellucid::Results>>),
}

/// Runs a program to its end.
pub(crate) fn run(
    py: Python<'_>,
    work: impl FnOnce(&RunOptions, Option<OnUpdate>) -> pellucid::Result<pellucid::Results> + Send + 'static,
    memory_bytes: Option<u64>,
    seconds: Option<f64>,
    listeners: &Listeners,
    cancellation: Option<&Arc<AtomicBool>>,
) -> PyResult<Results> {
    let (sender, receiver) = mpsc::channel();
    let receiver = Mutex::new(receiver);
    let cancel = cancellation.cloned().unwrap_or_default();
    let options = options(memory_bytes, seconds, listeners, &cancel, &sender);
    let updates = listeners.update.as_ref().map(|_| -> OnUpdate {
        let sender = sender.clone();
        Arc::new(move |update| {
            if says_where(update) {
                let _ = sender.send(Message::Update(update.to_string()));
            }
        })
    });
    let work = move || {
        let outcome = work(&options, updates);
        // Nobody listens any more only where the caller's thread has died.
        let _ = sender.send(Message::Done(Box::new(outcome)));
    };
    spawned(py, work)?;
    let mut interruption = None;
    loop {
        let next = py.detach(|| receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(WAIT));
        let told = match next {
            Ok(Message::Done(outcome)) => {
                return match (interruption, *outcome) {
                    (Some(interruption), _) => Err(interruption),
                    (None, outcome) => outcome.map(Results).map_err(|error| error::raised(py, error)),
                };
            }
            Err(RecvTimeoutError::Disconnected) => return Err(failed(py)),
            Ok(message) => tell(py, listeners, message),
            Err(RecvTimeoutError::Timeout) => Ok(()),
        };
        if interruption.is_none()
            && let Err(error) = told.and_then(|()| py.check_signals())
        {
            cancel.store(true, Ordering::Relaxed);
            interruption = Some(error);
        }
    }
}

/// Whether an update says where a run stands: what it computes is told to others.
fn says_where(update: &Update) -> bool {
    match update {
        Update::Happened(event) => {
            matches!(event, Event::Queued(_) | Event::Running(_) | Event::Progress(_))
        }
        _ => true,
    }
}

fn options(
    memory_bytes: Option<u64>,
    seconds: Option<f64>,
    listeners: &Listeners,
    cancel: &Arc<AtomicBool>,
    sender: &mpsc::Sender<Message>,
) -> RunOptions {
    let mut options =
        RunOptions { memory_bytes, seconds, cancel: Some(cancel.clone()), ..RunOptions::default() };
    // Whatever is not sent is what nobody waits for any more.
    if listeners.log.is_some() {
        let sender = sender.clone();
        options.on_log = Some(Arc::new(move |entry| {
            let _ = sender.send(Message::Log(Box::new(entry.clone())));
        }));
    }
    if listeners.token.is_some() {
        let sender = sender.clone();
        options.on_token = Some(Arc::new(move |token| {
            let _ = sender.send(Message::Token(*token));
        }));
    }
    if listeners.progress.is_some() {
        let sender = sender.clone();
        options.on_progress = Some(Arc::new(move |progress| {
            let _ = sender.send(Message::Progress(*progress));
        }));
    }
    options
}

fn tell(py: Python<'_>, listeners: &Listeners, message: Message) -> PyResult<()> {
    let call = |listener: &Option<Py<PyAny>>, fields: Bound<'_, PyDict>| match listener {
        Some(listener) => listener.call1(py, (fields,)).map(drop),
        None => Ok(()),
    };
    let fields = PyDict::new(py);
    match message {
        Message::Log(entry) => {
            log_fields(&fields, &entry)?;
            call(&listeners.log, fields)
        }
        Message::Token(token) => {
            fields.set_item("invoke", token.invoke)?;
            fields.set_item("prompt", token.prompt)?;
            fields.set_item("step", token.step)?;
            fields.set_item("token", token.token)?;
            call(&listeners.token, fields)
        }
        Message::Progress(progress) => {
            fields.set_item("passes", progress.passes)?;
            fields.set_item("part", progress.part)?;
            call(&listeners.progress, fields)
        }
        Message::Update(update) => match &listeners.update {
            Some(listener) => listener.call1(py, (update,)).map(drop),
            None => Ok(()),
        },
        Message::Done(_) => Ok(()),
    }
}

fn log_fields(fields: &Bound<'_, PyDict>, entry: &LogEntry) -> PyResult<()> {
    fields.set_item("name", &entry.name)?;
    fields.set_item("coordinates", &entry.coordinates)?;
    fields.set_item("step", entry.step)?;
    fields.set_item("value", Tensor(entry.value.clone()))
}

/// What a run gives back.
#[pyclass(frozen, module = "pellucid._core")]
#[derive(Debug)]
pub(crate) struct Results(pellucid::Results);

#[pymethods]
impl Results {
    /// The saved values by name.
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let tensors = PyDict::new(py);
        for (name, tensor) in self.0.iter() {
            tensors.set_item(name, Tensor(tensor.clone()))?;
        }
        Ok(tensors)
    }

    /// Names of saved values that are absent.
    fn absent(&self) -> Vec<String> {
        self.0.absent().to_vec()
    }

    /// Logged values, in the order in which they arose.
    fn logs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for entry in self.0.logs() {
            let fields = PyDict::new(py);
            log_fields(&fields, entry)?;
            list.append(fields)?;
        }
        Ok(list)
    }

    /// What made the results, as JSON.
    fn provenance(&self, py: Python<'_>) -> PyResult<String> {
        written(py, self.0.provenance())
    }

    /// What the run did, as JSON.
    fn report(&self, py: Python<'_>) -> PyResult<String> {
        written(py, self.0.report())
    }

    /// The saved values as a safetensors file.
    fn to_safetensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| self.0.to_safetensors()).map_err(|error| error::raised(py, error))?;
        Ok(PyBytes::new(py, &bytes))
    }
}

/// Called in a process that was forked off: the threads of its parent are not there.
#[pyfunction]
pub(crate) fn forked() {
    pellucid::forked();
}
