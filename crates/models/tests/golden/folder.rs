//! The golden folders under `golden/models`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pellucid_models::{Blueprint, blueprint, family};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// One folder.
pub(crate) struct Folder {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) golden: Value,
}

/// All of supported families.
pub(crate) fn folders() -> Vec<Folder> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/models");
    let mut names: Vec<_> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let folders = names.into_iter().map(|name| {
        let path = root.join(&name);
        let golden = read_json(&path.join("golden.json"));
        Folder { name, path, golden }
    });
    folders.filter(|folder| family::family(folder.golden["model_type"].as_str().unwrap()).is_some()).collect()
}

pub(crate) fn read_json(path: &std::path::Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Values of a golden tensor.
pub(crate) enum Tensor {
    Float { shape: Vec<usize>, values: Vec<f32> },
    Ids { shape: Vec<usize>, values: Vec<i64> },
}

impl Tensor {
    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Self::Float { shape, .. } | Self::Ids { shape, .. } => shape,
        }
    }
}

impl Folder {
    /// Whether it holds more than logits, which is all of one whose weights are another folder's in other files.
    pub(crate) fn has_values(&self) -> bool {
        self.golden["interventions"].is_object()
    }

    pub(crate) fn blueprint(&self, config: &str) -> Blueprint {
        blueprint(&self.name, &read_json(&self.path.join(config)), None)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub(crate) fn prompt(&self, index: usize) -> Vec<i64> {
        let prompt = self.golden["prompts"][index].as_array().unwrap();
        prompt.iter().map(|id| id.as_i64().unwrap()).collect()
    }

    /// All golden tensors by key, aliases resolved.
    pub(crate) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let bytes = std::fs::read(self.path.join("golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let read = |key: &str| {
            let view = file.tensor(key).unwrap();
            let (shape, data) = (view.shape().to_vec(), view.data());
            match view.dtype() {
                Dtype::F32 => Tensor::Float {
                    shape,
                    values: data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
                },
                Dtype::I64 => Tensor::Ids {
                    shape,
                    values: data.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
                },
                other => panic!("{key}: {other:?}"),
            }
        };
        let mut tensors: BTreeMap<_, _> =
            file.names().into_iter().map(|key| (key.to_owned(), read(key))).collect();
        if let Some(aliases) = self.golden["aliases"].as_object() {
            for (key, stored) in aliases {
                tensors.insert(key.clone(), read(stored.as_str().unwrap()));
            }
        }
        tensors
    }
}
