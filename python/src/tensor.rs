//! Tensors as Python holds them, and operations evaluated at once.

use pellucid::{DType, Program};
use pellucid_graph::program::Constant;
use pellucid_graph::{NodeKind, Operation};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyTuple};

use crate::error;

/// A tensor of results, or one that goes into a program. It never changes.
#[pyclass(frozen, module = "pellucid._core")]
#[derive(Clone, Debug)]
pub(crate) struct Tensor(pub(crate) pellucid::Tensor);

#[pymethods]
impl Tensor {
    /// A tensor of little-endian elements in row-major order.
    #[staticmethod]
    fn from_data(py: Python<'_>, data: &[u8], shape: Vec<usize>, dtype: &str) -> PyResult<Tensor> {
        let dtype = number_type(py, dtype)?;
        pellucid::Tensor::from_bytes(data, &shape, dtype)
            .map(Tensor)
            .map_err(|error| error::in_operation(py, &error.to_string()))
    }

    /// Its shape, of numbers.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.shape())
    }

    /// Its number type's name.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.0.dtype().name()
    }

    /// Its elements, little-endian and in row-major order, in a buffer of Python's own.
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        let length = self.0.elements() * self.0.dtype().size() as usize;
        PyByteArray::new_with(py, length, |place| {
            let written = py.detach(|| self.0.write_bytes(place));
            written.map_err(|error| error::in_operation(py, &error.to_string()))
        })
    }

    /// Whether shape, number type and every bit are the same.
    fn is_same(&self, other: &Tensor) -> bool {
        self.0.is_same_bits(&other.0)
    }
}

impl Tensor {
    /// The tensor as it travels with a program.
    pub(crate) fn constant(&self, py: Python<'_>) -> PyResult<Constant> {
        let bytes = self.0.to_bytes().map_err(|error| error::in_operation(py, &error.to_string()))?;
        let shape = self.0.shape().iter().map(|&size| size as u64).collect();
        Ok(Constant { dtype: self.0.dtype(), shape, bytes })
    }
}

fn number_type(py: Python<'_>, name: &str) -> PyResult<DType> {
    DType::from_name(name)
        .ok_or_else(|| error::in_operation(py, &format!("there is no number type `{name}`")))
}

/// The keys of what is random in operations that are evaluated at once: the seed, and how many came before.
#[pyfunction]
pub(crate) fn evaluate(
    py: Python<'_>,
    program: &str,
    inputs: Vec<Py<Tensor>>,
    seed: u64,
    number: u64,
) -> PyResult<Vec<Tensor>> {
    let program = Program::from_json(program.as_bytes()).map_err(|faults| error::refused(py, &faults))?;
    let Some(NodeKind::Operation(operation)) = program.nodes.last().map(|node| &node.kind) else {
        return Err(error::in_operation(py, "only an operation can be evaluated at once"));
    };
    let inputs: Vec<pellucid::Tensor> = inputs.iter().map(|input| input.get().0.clone()).collect();
    let outputs = py.detach(|| computed(operation, &inputs, seed, number));
    let outputs = outputs.map_err(|message| error::in_operation(py, &message))?;
    Ok(outputs.into_iter().map(Tensor).collect())
}

/// The operation's outputs. Its values are the inputs, in the order of the program's first nodes.
fn computed(
    operation: &Operation,
    inputs: &[pellucid::Tensor],
    seed: u64,
    number: u64,
) -> Result<Vec<pellucid::Tensor>, String> {
    pellucid::evaluate(operation, inputs, seed, number).map_err(|error| error.to_string())
}
