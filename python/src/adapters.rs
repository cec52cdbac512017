//! LoRA adapters and sparse autoencoders: opened, and written. What they compute is recorded in Python, as any other trace.

use pellucid::InputNormalisation;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error;
use crate::model::Model;
use crate::run;
use crate::tensor::Tensor;

/// A LoRA adapter.
#[pyclass(frozen, module = "pellucid._core")]
#[derive(Clone, Debug)]
pub(crate) struct Lora(pellucid::Lora);

#[pymethods]
impl Lora {
    /// Opens a folder in `peft`'s layout, or such a repository of a hub.
    #[staticmethod]
    fn open(py: Python<'_>, source: String) -> PyResult<Lora> {
        let opened = run::interruptible(py, move || pellucid::Lora::open(&source))?;
        opened.map(Lora).map_err(|error| error::raised(py, error))
    }

    /// A new adapter, which changes nothing before it is trained.
    #[staticmethod]
    fn begun(
        py: Python<'_>,
        model: &Model,
        rank: usize,
        alpha: f64,
        targets: Vec<String>,
        seed: u64,
    ) -> PyResult<Lora> {
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        let begun = py.detach(|| pellucid::Lora::new(&model.0, rank, alpha, &targets, seed));
        begun.map(Lora).map_err(|error| error::raised(py, error))
    }

    /// Raises what makes it no adapter of that model.
    fn check(&self, py: Python<'_>, model: &Model) -> PyResult<()> {
        self.0.check(&model.0).map_err(|error| error::raised(py, error))
    }

    /// Of each linear layer: its path, the scale, A `[rank, in]` and B `[out, rank]`.
    fn matrices(&self, py: Python<'_>) -> PyResult<Vec<(String, f64, Tensor, Tensor)>> {
        let matrices = py.detach(|| self.0.matrices()).map_err(|error| error::raised(py, error))?;
        Ok(matrices.into_iter().map(|each| (each.path, each.scale, Tensor(each.a), Tensor(each.b))).collect())
    }

    /// The same adapter with other matrices: A and B of each linear layer.
    fn with_matrices(&self, py: Python<'_>, matrices: Vec<(Py<Tensor>, Py<Tensor>)>) -> PyResult<Lora> {
        let matrices: Vec<_> = matrices.iter().map(|(a, b)| (a.get().0.clone(), b.get().0.clone())).collect();
        self.0.with_matrices(&matrices).map(Lora).map_err(|error| error::raised(py, error))
    }

    /// Writes it to a folder, in `peft`'s layout.
    fn save(&self, py: Python<'_>, folder: &str) -> PyResult<()> {
        py.detach(|| self.0.save(folder)).map_err(|error| error::raised(py, error))
    }
}

/// A sparse autoencoder.
#[pyclass(frozen, module = "pellucid._core")]
#[derive(Clone, Debug)]
pub(crate) struct SparseAutoencoder(pellucid::SparseAutoencoder);

#[pymethods]
impl SparseAutoencoder {
    /// Opens a folder in SAELens' layout, or such a repository of a hub; with `inside` one of many in it.
    #[staticmethod]
    #[pyo3(signature = (source, inside = None))]
    fn open(py: Python<'_>, source: String, inside: Option<String>) -> PyResult<SparseAutoencoder> {
        let opened = run::interruptible(py, move || match &inside {
            Some(inside) => pellucid::SparseAutoencoder::open_in(&source, inside),
            None => pellucid::SparseAutoencoder::open(&source),
        })?;
        opened.map(SparseAutoencoder).map_err(|error| error::raised(py, error))
    }

    /// The hook point that it was trained on, under this model's names.
    fn hook_point(&self, py: Python<'_>, model: &Model) -> PyResult<String> {
        self.0.hook_point(&model.0).map_err(|error| error::raised(py, error))
    }

    /// Its weights by name, and what it does beside them.
    fn parts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let parts = py.detach(|| self.0.parts()).map_err(|error| error::raised(py, error))?;
        let fields = PyDict::new(py);
        fields.set_item("encoder", Tensor(parts.encoder))?;
        fields.set_item("encoder_bias", Tensor(parts.encoder_bias))?;
        fields.set_item("decoder", Tensor(parts.decoder))?;
        fields.set_item("decoder_bias", Tensor(parts.decoder_bias))?;
        fields.set_item("threshold", parts.threshold.map(Tensor))?;
        fields.set_item("top_k", parts.top_k)?;
        let normalisation = match parts.normalisation {
            InputNormalisation::None => "none",
            InputNormalisation::LayerNorm => "layer_norm",
            InputNormalisation::ConstantNorm => "constant_norm",
        };
        fields.set_item("normalisation", normalisation)?;
        fields.set_item("subtracts_decoder_bias", parts.subtracts_decoder_bias)?;
        fields.set_item("centred", parts.centred)?;
        fields.set_item("by_heads", parts.by_heads)?;
        Ok(fields)
    }
}
