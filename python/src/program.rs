//! Programs as Python holds them.

use std::collections::{BTreeMap, HashMap};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::error;
use crate::tensor::Tensor;

/// An experiment as data.
#[pyclass(frozen, module = "pellucid._core")]
#[derive(Clone, Debug)]
pub(crate) struct Program(pub(crate) pellucid::Program);

#[pymethods]
impl Program {
    /// A program from its JSON, and the tensors that it names as constants.
    #[new]
    #[pyo3(signature = (json, constants = HashMap::new()))]
    fn new(py: Python<'_>, json: &str, constants: HashMap<String, Py<Tensor>>) -> PyResult<Program> {
        let mut tensors = BTreeMap::new();
        for (key, tensor) in constants {
            tensors.insert(key, tensor.get().constant(py)?);
        }
        let read = py.detach(|| pellucid::Program::from_json_with(json.as_bytes(), tensors));
        read.map(Program).map_err(|faults| error::refused(py, &faults))
    }

    /// Reads a program from a file's bytes: JSON or safetensors.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Program> {
        let read = py.detach(|| pellucid::Program::from_bytes(bytes));
        read.map(Program).map_err(|faults| error::refused(py, &faults))
    }

    /// The program in the form that holds all of it: safetensors if it has constants, else JSON.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.0.to_bytes().map_err(|faults| error::refused(py, &faults))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// The program as JSON, laid out for people; constants are named.
    fn to_json(&self) -> String {
        self.0.to_json_pretty()
    }
}

/// A program that was checked against a model.
#[pyclass(frozen, module = "pellucid._core")]
#[derive(Debug)]
pub(crate) struct CheckedProgram(pub(crate) pellucid::CheckedProgram);

#[pymethods]
impl CheckedProgram {
    /// What it costs at most: floating-point operations, bytes held at once, bytes returned.
    #[getter]
    fn price(&self, py: Python<'_>) -> PyResult<String> {
        written(py, &self.0.price)
    }

    /// Of each node with a value: its name, and of each of its values number type and shape; a size that is not known
    /// is absent. Then its author's file and line.
    fn types<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for (node, known) in self.0.program.nodes.iter().zip(&self.0.nodes) {
            let outputs: Vec<_> = known.outputs.iter().map(described).collect();
            if !outputs.is_empty() {
                let line = node.source.as_ref().map(|source| (source.file.as_str(), source.line));
                list.append((node.label(), outputs, line))?;
            }
        }
        Ok(list)
    }
}

/// A type as Python reads it: its number type's name, and its sizes where they are known.
pub(crate) type Described = (&'static str, Vec<Option<u64>>);

pub(crate) fn described(kind: &pellucid_graph::TensorType) -> Described {
    (kind.dtype.name(), kind.shape.iter().map(pellucid_graph::Dimension::value).collect())
}

/// As JSON.
pub(crate) fn written(py: Python<'_>, value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| error::in_operation(py, &error.to_string()))
}
