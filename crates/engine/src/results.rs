//! What a run gives back.

use std::collections::BTreeMap;

use pellucid_graph::DType;
use serde::{Deserialize, Serialize};

use crate::operations::OperationError;
use crate::tensor::Tensor;

/// What a run gives back: saved values by name, and what made them.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Saved values. Inside `steps`, `name/0`, `name/1`, …: one for each step.
    pub tensors: BTreeMap<String, Tensor>,
    /// Saved values that were lost because generation had stopped before their step.
    pub absent: Vec<String>,
    /// Logged values, in the order in which they arose.
    pub logs: Vec<LogEntry>,
    /// What made them: results are exact for the same build, instruction set, number type and seed.
    pub provenance: Provenance,
    /// What the run did.
    pub report: Report,
}

/// One logged value.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// The log node's name.
    pub name: String,
    /// The cell of the sweeps and the iteration of the loops that it stands in, from the outermost axis to the innermost.
    pub coordinates: Vec<u64>,
    /// The step of a generation, inside `steps`.
    pub step: Option<u64>,
    /// The value.
    pub value: Tensor,
}

/// What made a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The model.
    pub model: String,
    /// The revision of its weights, if their publisher has one.
    pub revision: Option<String>,
    /// The engine's version.
    pub engine: String,
    /// The instruction-set path of the kernels.
    pub instruction_set: String,
    /// The number type in which weights are held.
    pub weights: String,
    /// The program's seed.
    pub seed: u64,
    /// Models beside it, which traces can call by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherModel>,
}

/// A model beside a program's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherModel {
    /// The name by which traces call it.
    pub name: String,
    /// The model.
    pub model: String,
    /// The revision of its weights, if their publisher has one.
    pub revision: Option<String>,
    /// The number type in which weights are held.
    pub weights: String,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Passes through (a part of) the model.
    pub passes: usize,
    /// Tokens that passed, summed over passes.
    pub tokens: u64,
    /// Most bytes that the program's own values held at once.
    pub peak_value_bytes: u64,
    /// Wall time, in seconds.
    pub seconds: f64,
}

/// The metadata key under which a result's own data stands in its safetensors file.
pub const METADATA_KEY: &str = "pellucid.result";

#[derive(Serialize)]
struct Metadata<'a> {
    absent: &'a [String],
    provenance: &'a Provenance,
    report: &'a Report,
}

impl Results {
    /// The saved values as a safetensors file, with absent values and provenance in its metadata.
    ///
    /// # Errors
    /// When a value cannot be written, which only a lack of memory causes.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, OperationError> {
        let mut parts: Vec<(String, safetensors::Dtype, Vec<usize>, Vec<u8>)> =
            Vec::with_capacity(self.tensors.len());
        for (name, tensor) in &self.tensors {
            parts.push((
                name.clone(),
                file_type(tensor.dtype()),
                tensor.shape().to_vec(),
                tensor.to_bytes()?,
            ));
        }
        let mut views = Vec::with_capacity(parts.len());
        for (name, dtype, shape, bytes) in &parts {
            let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes);
            views.push((name.clone(), view.map_err(|error| OperationError::new(error.to_string()))?));
        }
        let metadata = Metadata { absent: &self.absent, provenance: &self.provenance, report: &self.report };
        let text =
            serde_json::to_string(&metadata).map_err(|error| OperationError::new(error.to_string()))?;
        let metadata = std::collections::HashMap::from([(METADATA_KEY.to_owned(), text)]);
        safetensors::serialize(views, Some(metadata)).map_err(|error| OperationError::new(error.to_string()))
    }
}

fn file_type(dtype: DType) -> safetensors::Dtype {
    match dtype {
        DType::F64 => safetensors::Dtype::F64,
        DType::F32 => safetensors::Dtype::F32,
        DType::Bf16 => safetensors::Dtype::BF16,
        DType::F16 => safetensors::Dtype::F16,
        DType::I64 => safetensors::Dtype::I64,
        DType::I32 => safetensors::Dtype::I32,
        DType::U8 => safetensors::Dtype::U8,
        DType::Bool => safetensors::Dtype::BOOL,
    }
}
