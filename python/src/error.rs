//! The façade's errors as Python's exceptions, which stand in `pellucid/_errors.py`.

use pellucid::{EngineError, Error, Fault, Faults};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// An exception of the package, by its name there.
fn exception(py: Python<'_>, name: &str, arguments: impl FnOnce() -> PyResult<Py<PyAny>>) -> PyErr {
    let made = || {
        let class = py.import("pellucid._errors")?.getattr(name)?;
        class.call1((arguments()?,))
    };
    match made() {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}

/// What is wrong with a program, all of it.
pub(crate) fn refused(py: Python<'_>, faults: &Faults) -> PyErr {
    exception(py, "ProgramError", || Ok(list(py, &faults.0)?.into_any().unbind()))
}

/// An error of the façade.
pub(crate) fn raised(py: Python<'_>, error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Faults(faults) => refused(py, &faults),
        Error::Run(failure) => {
            let made = || {
                let fields = PyDict::new(py);
                fields.set_item("message", &message)?;
                fields.set_item("trace", &failure.trace)?;
                if let EngineError::Node(fault) = &failure.error {
                    fields.set_item("fault", dictionary(py, fault)?)?;
                }
                let kept = PyDict::new(py);
                for (name, tensor) in failure.kept.iter() {
                    kept.set_item(name, crate::tensor::Tensor(tensor.clone()))?;
                }
                fields.set_item("kept", kept)?;
                let kind = match &failure.error {
                    EngineError::Cancelled => "cancelled",
                    EngineError::DeadlineExceeded { .. } => "deadline",
                    EngineError::MemoryExceeded { .. } => "memory",
                    EngineError::Internal(_) => "internal",
                    _ => "node",
                };
                fields.set_item("kind", kind)?;
                Ok(fields.into_any().unbind())
            };
            exception(py, "RunError", made)
        }
        Error::Remote(ref remote) => {
            let kind = remote.problem().map(|problem| problem.kind.name().to_owned());
            exception(py, "RemoteError", || {
                Ok((message.as_str(), kind).into_pyobject(py)?.into_any().unbind())
            })
        }
        Error::Model(_) => exception(py, "ModelError", || text(py, &message)),
        Error::Tensor(_) => exception(py, "OperationError", || text(py, &message)),
        Error::File { ref error, .. } if error.kind() == std::io::ErrorKind::NotFound => {
            pyo3::exceptions::PyFileNotFoundError::new_err(message)
        }
        Error::File { .. } => pyo3::exceptions::PyOSError::new_err(message),
        _ => exception(py, "PellucidError", || text(py, &message)),
    }
}

/// What went wrong in an operation that was evaluated at once.
pub(crate) fn in_operation(py: Python<'_>, message: &str) -> PyErr {
    exception(py, "OperationError", || text(py, message))
}

fn text(py: Python<'_>, message: &str) -> PyResult<Py<PyAny>> {
    Ok(message.into_pyobject(py)?.into_any().unbind())
}

fn list<'py>(py: Python<'py>, faults: &[Fault]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for fault in faults {
        list.append(dictionary(py, fault)?)?;
    }
    Ok(list)
}

fn dictionary<'py>(py: Python<'py>, fault: &Fault) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("node", &fault.node)?;
    fields.set_item("place", &fault.place)?;
    fields.set_item("message", &fault.message)?;
    fields.set_item("hint", &fault.hint)?;
    fields.set_item("file", fault.source.as_ref().map(|source| &source.file))?;
    fields.set_item("line", fault.source.as_ref().map(|source| source.line))?;
    fields.set_item("text", fault.source.as_ref().and_then(|source| source.text.as_ref()))?;
    Ok(fields)
}
