//! The Python package's core: what a program that Python has written down needs of the façade. The package itself, its
//! verbs and its tensors, is written in Python, beside this folder in `pellucid/`.
//!
//! | module | holds |
//! | --- | --- |
//! | `model` | models: opened, asked about themselves, checking programs |
//! | `program` | programs from their JSON and their constants, and back |
//! | `remote` | services: models elsewhere, jobs that run there, keys |
//! | `adapters` | LoRA adapters and sparse autoencoders |
//! | `run` | running while Python's own threads and Ctrl-C go on |
//! | `tensor` | tensors, and operations evaluated at once |
//! | `picture` | heat maps and curves as web pages |
//! | `error` | the façade's errors as Python's exceptions |
//!
//! **Invariant:** this crate decides nothing: what a program means, and every message about it, comes from the façade.

mod adapters;
mod error;
mod model;
mod picture;
mod program;
mod remote;
mod run;
mod tensor;

use pyo3::prelude::*;

#[pymodule]
#[pyo3(name = "_core")]
mod extension {
    #[pymodule_export]
    use crate::adapters::{Lora, SparseAutoencoder};
    #[pymodule_export]
    use crate::model::{Model, specification};
    #[pymodule_export]
    use crate::picture::{curves, heat_map, page};
    #[pymodule_export]
    use crate::program::{CheckedProgram, Program};
    #[pymodule_export]
    use crate::remote::Service;
    #[pymodule_export]
    use crate::run::{Cancellation, Results, forked};
    #[pymodule_export]
    use crate::tensor::{Tensor, evaluate};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
