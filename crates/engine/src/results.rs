//! What a run gives back.

use std::collections::BTreeMap;
use std::io::{self, Read};

use pellucid_graph::DType;
use serde::{Deserialize, Serialize};

use crate::operations::OperationError;
use crate::tensor::Tensor;

/// What a run gives back: saved values by name, and what made them.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Saved values. Inside `steps`, `name/0`, `name/1`, …: one for each step.
    pub tensors: BTreeMap<String, Tensor>,
    /// Saved values that were lost: generation had stopped before their step, or their branch of a condition did not
    /// run.
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
    /// Tokens that were not computed, because their keys and values were in the program's cache.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Most bytes that the program's own values held at once.
    pub peak_value_bytes: u64,
    /// How many times a layer was computed again on a way back, of one invoke, because there was no room to keep what it reads of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recomputed_layers: u64,
    /// Wall time, in seconds.
    pub seconds: f64,
    /// Milliseconds of each of its passes, of the first [`PASSES_TIMED`]; of one that others rode in too, its share by
    /// operations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass_ms: Vec<f64>,
}

/// Whether a number is 0: what a record leaves out then.
pub(crate) fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// Passes whose time a report tells.
pub const PASSES_TIMED: usize = 256;

impl Report {
    /// A pass took so many milliseconds; told to the microsecond.
    pub(crate) fn note_pass(&mut self, ms: f64) {
        if self.pass_ms.len() < PASSES_TIMED {
            self.pass_ms.push((ms * 1000.0).round() / 1000.0);
        }
    }
}

/// The metadata key under which a result's own data stands in its safetensors file.
pub const METADATA_KEY: &str = "pellucid.result";
/// What the names begin with under which logged values stand in the file, numbered from 0. No saved value has such a name.
pub const LOG_PREFIX: &str = "pellucid.log/";
/// Bytes of a file's header, at most: what the format's own reader takes.
const HEADER_BYTES: u64 = 100_000_000;

#[derive(Serialize, Deserialize)]
struct Metadata {
    absent: Vec<String>,
    provenance: Provenance,
    report: Report,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    logs: Vec<Logged>,
}

/// A logged value without the value.
#[derive(Serialize, Deserialize)]
struct Logged {
    name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    coordinates: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<u64>,
}

impl Results {
    /// All of it as a safetensors file: saved values by their names, logged ones under [`LOG_PREFIX`], the rest in its
    /// metadata.
    ///
    /// # Errors
    /// When a value cannot be written, which only a lack of memory causes.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, OperationError> {
        let saved = self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
        let logged = self.logs.iter().enumerate();
        let logged = logged.map(|(number, entry)| (format!("{LOG_PREFIX}{number}"), &entry.value));
        let mut parts: Vec<(String, safetensors::Dtype, Vec<usize>, Vec<u8>)> =
            Vec::with_capacity(self.tensors.len() + self.logs.len());
        for (name, tensor) in saved.chain(logged) {
            parts.push((name, file_type(tensor.dtype()), tensor.shape().to_vec(), tensor.to_bytes()?));
        }
        let mut views = Vec::with_capacity(parts.len());
        for (name, dtype, shape, bytes) in &parts {
            let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes);
            views.push((name.clone(), view.map_err(|error| OperationError::new(error.to_string()))?));
        }
        let logs = self.logs.iter().map(|LogEntry { name, coordinates, step, .. }| Logged {
            name: name.clone(),
            coordinates: coordinates.clone(),
            step: *step,
        });
        let metadata = Metadata {
            absent: self.absent.clone(),
            provenance: self.provenance.clone(),
            report: self.report.clone(),
            logs: logs.collect(),
        };
        let text =
            serde_json::to_string(&metadata).map_err(|error| OperationError::new(error.to_string()))?;
        let metadata = std::collections::HashMap::from([(METADATA_KEY.to_owned(), text)]);
        safetensors::serialize(views, Some(metadata)).map_err(|error| OperationError::new(error.to_string()))
    }

    /// Reads what [`Results::to_safetensors`] wrote, bit for bit, tensor by tensor: the file is never held as a whole.
    ///
    /// # Errors
    /// Those of reading; [`io::ErrorKind::InvalidData`] where it is no such file, [`io::ErrorKind::UnexpectedEof`] where it ends
    /// early.
    pub fn from_safetensors(mut file: impl Read) -> io::Result<Results> {
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > HEADER_BYTES {
            return Err(invalid(format!("a header of {length} bytes")));
        }
        let header: safetensors::tensor::Metadata =
            serde_json::from_slice(&read_bytes(&mut file, length)?).map_err(invalid)?;
        let own = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
        let own = own.ok_or_else(|| invalid(format!("its metadata has no `{METADATA_KEY}`")))?;
        let Metadata { absent, provenance, report, logs } = serde_json::from_str(own).map_err(invalid)?;
        let (mut tensors, mut logged) = (BTreeMap::new(), BTreeMap::new());
        // They stand end to end, which the header was checked for.
        for name in header.offset_keys() {
            let Some(info) = header.info(&name) else { continue };
            let dtype = DType::ALL.into_iter().find(|dtype| file_type(*dtype) == info.dtype);
            let dtype = dtype.ok_or_else(|| invalid(format!("`{name}` is {:?}", info.dtype)))?;
            let bytes = read_bytes(&mut file, (info.data_offsets.1 - info.data_offsets.0) as u64)?;
            let tensor = Tensor::from_bytes(&bytes, &info.shape, dtype).map_err(invalid)?;
            match name.strip_prefix(LOG_PREFIX) {
                Some(number) => {
                    logged.insert(number.parse::<usize>().map_err(invalid)?, tensor);
                }
                None => {
                    tensors.insert(name, tensor);
                }
            }
        }
        if file.read(&mut [0])? != 0 {
            return Err(invalid("it goes on after its last tensor"));
        }
        if logged.len() != logs.len() || logged.keys().copied().ne(0..logs.len()) {
            return Err(invalid(format!("{} logged values where {} belong", logged.len(), logs.len())));
        }
        let entries = logs.into_iter().zip(logged.into_values());
        let logs = entries.map(|(Logged { name, coordinates, step }, value)| LogEntry {
            name,
            coordinates,
            step,
            value,
        });
        Ok(Results { tensors, absent, logs: logs.collect(), provenance, report })
    }
}

/// So many bytes: memory is taken only for those that come.
fn read_bytes(file: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("this is no file of results: {}", why.to_string()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let scalars = |dtype| {
            let special = [0.0, -0.0, 1.5, -2.25, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
            let scalars = special.map(pellucid_graph::Scalar::Float);
            Tensor::from_scalars(&scalars, &[7], dtype).unwrap()
        };
        let whole = Tensor::from_i64(vec![i64::MIN, 0, i64::MAX], &[3, 1]).unwrap();
        let mut tensors: BTreeMap<String, Tensor> = [DType::F64, DType::F32, DType::Bf16, DType::F16]
            .into_iter()
            .map(|dtype| (format!("x/{dtype}"), scalars(dtype)))
            .collect();
        tensors.insert("whole".into(), whole.clone());
        tensors.insert("truths".into(), Tensor::from_bool(&[true, false], &[2]).unwrap());
        tensors.insert("one".into(), Tensor::from_f32(vec![1.0], &[]).unwrap());
        tensors.insert("empty".into(), Tensor::from_f32(vec![], &[0, 3]).unwrap());
        let entry = |number: u64| LogEntry {
            name: format!("log{}", number % 3),
            coordinates: vec![number; (number % 2) as usize],
            step: (number > 5).then_some(number),
            value: Tensor::from_f64(vec![number as f64; number as usize], &[number as usize]).unwrap(),
        };
        Results {
            tensors,
            absent: vec!["late/3".into()],
            logs: (0..12).map(entry).collect(),
            provenance: Provenance { model: "m".into(), seed: 7, ..Provenance::default() },
            report: Report {
                passes: 2,
                tokens: 9,
                cached_tokens: 3,
                peak_value_bytes: 1,
                recomputed_layers: 7,
                seconds: 0.1,
                pass_ms: vec![12.125, 0.5],
            },
        }
    }

    fn is_same(one: &Results, other: &Results) -> bool {
        let tensors = one.tensors.iter().zip(&other.tensors);
        let logs = one.logs.iter().zip(&other.logs);
        one.tensors.len() == other.tensors.len()
            && one.logs.len() == other.logs.len()
            && tensors
                .into_iter()
                .all(|(a, b)| a.0 == b.0 && a.1.is_same_bits(b.1) && a.1.dtype() == b.1.dtype())
            && logs.into_iter().all(|(a, b)| {
                let same = (&a.name, &a.coordinates, a.step) == (&b.name, &b.coordinates, b.step);
                same && a.value.is_same_bits(&b.value)
            })
            && (&one.absent, &one.provenance, &one.report)
                == (&other.absent, &other.provenance, &other.report)
    }

    #[test]
    fn what_is_written_is_read_bit_for_bit() {
        for results in [results(), Results::default()] {
            let bytes = results.to_safetensors().unwrap();
            let again = Results::from_safetensors(&bytes[..]).unwrap();
            assert!(is_same(&results, &again), "{again:?}");
        }
    }

    #[test]
    fn a_file_that_is_cut_or_goes_on_is_refused() {
        let mut bytes = results().to_safetensors().unwrap();
        for length in 0..bytes.len() {
            assert!(Results::from_safetensors(&bytes[..length]).is_err(), "{length} bytes");
        }
        bytes.push(0);
        assert!(Results::from_safetensors(&bytes[..]).is_err());
    }

    #[test]
    fn what_is_no_file_of_results_is_refused_without_taking_memory() {
        let file = |header: &str| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        let tensors =
            r#"{"x":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,18446744073709551615]}}"#;
        let huge = r#"{"__metadata__":{"pellucid.result":"{\"absent\":[],\"provenance\":{\"model\":\"\",\"revision\":null,\"engine\":\"\",\"instruction_set\":\"\",\"weights\":\"\",\"seed\":0},\"report\":{\"passes\":0,\"tokens\":0,\"peak_value_bytes\":0,\"seconds\":0}}"},"x":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}"#;
        for bytes in [vec![0xff; 64], file("{}"), file("[]"), file(tensors), file(huge)] {
            assert!(Results::from_safetensors(&bytes[..]).is_err());
        }
        let error = Results::from_safetensors(&file(huge)[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "the header is good, the tensor is not there");
    }
}
