//! Weights in safetensors files: one, or several with an index.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use pellucid_kernels::mapped_file::MappedFile;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::checkpoint::Entry;
use super::tensor::{RawTensor, Restoration, TensorType, WeightsFile};
use crate::{Error, Result};

/// The one file of a small model.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";
/// What says which file of several holds which tensor.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";

/// The longest header that is read, as in the reference implementation.
const MAXIMUM_HEADER_BYTES: u64 = 100_000_000;
/// The longest index that is read.
const MAXIMUM_INDEX_BYTES: u64 = 64 << 20;
/// The most files that an index may name.
const MAXIMUM_SHARDS: usize = 4096;
/// The most dimensions of a tensor.
const MAXIMUM_DIMENSIONS: usize = 8;

const FORMAT: &str = "safetensors";

pub(super) fn open_folder(folder: &Path) -> Result<BTreeMap<String, Entry>> {
    let single = folder.join(SINGLE_FILE);
    if single.is_file() {
        return open_file(&single);
    }
    let index = folder.join(INDEX_FILE);
    if index.is_file() {
        return open_index(folder, &index);
    }
    Err(Error::NoWeights { folder: folder.to_owned(), hint: what_is_there_instead(folder) })
}

/// What a folder holds that explains why it has no weights for us.
fn what_is_there_instead(folder: &Path) -> String {
    if !folder.is_dir() {
        return ": there is no such folder".to_owned();
    }
    let names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    if names.iter().any(|name| name.ends_with(".bin") || name.ends_with(".pt")) {
        return ": its weights are pickled (`.bin`), which is never read; convert them with transformers' \
                `save_pretrained`, which writes safetensors"
            .to_owned();
    }
    match names.iter().find(|name| name.ends_with(".gguf")) {
        Some(name) => {
            format!("; to use its GGUF file, name the file itself: {}", folder.join(name).display())
        }
        None => String::new(),
    }
}

/// The file names that an index mentions, and the tensors of each.
pub(crate) fn read_index(index: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let malformed = |reason: String| Error::malformed(index, "safetensors index", reason);
    let length = std::fs::metadata(index).map_err(Error::io("read", index))?.len();
    if length > MAXIMUM_INDEX_BYTES {
        return Err(malformed(format!("it is longer than {MAXIMUM_INDEX_BYTES} bytes")));
    }
    let text = std::fs::read(index).map_err(Error::io("read", index))?;
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(|e| malformed(e.to_string()))?;
    let map = json
        .get("weight_map")
        .and_then(serde_json::Value::as_object)
        .ok_or_else(|| malformed("it has no `weight_map`".to_owned()))?;
    let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (tensor, file) in map {
        let file = file.as_str().filter(|file| is_plain_file_name(file)).ok_or_else(|| {
            malformed(format!("tensor `{tensor}` is said to be in {file}, which is not a file name"))
        })?;
        shards.entry(file.to_owned()).or_default().insert(tensor.clone());
        if shards.len() > MAXIMUM_SHARDS {
            return Err(malformed(format!("it names more than {MAXIMUM_SHARDS} files")));
        }
    }
    Ok(shards)
}

/// Whether `name` names a file of its folder and nothing else, on any system.
fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', ':', '\0'])
}

fn open_index(folder: &Path, index: &Path) -> Result<BTreeMap<String, Entry>> {
    let shards = read_index(index)?;
    let missing: Vec<&str> =
        shards.keys().map(String::as_str).filter(|file| !folder.join(file).is_file()).collect();
    if let Some(first) = missing.first() {
        return Err(Error::malformed(
            index,
            "safetensors index",
            format!(
                "{} of the {} files it names are not in the folder, `{first}` first; download them",
                missing.len(),
                shards.len()
            ),
        ));
    }
    let mut entries = BTreeMap::new();
    for (file, tensors) in shards {
        let path = folder.join(&file);
        let mut of_file = open_file(&path)?;
        for tensor in tensors {
            let Some(entry) = of_file.remove(&tensor) else {
                let reason = format!("the index says it holds tensor `{tensor}`, and it does not");
                return Err(Error::malformed(path, FORMAT, reason));
            };
            entries.insert(tensor, entry);
        }
    }
    Ok(entries)
}

pub(super) fn open_file(path: &Path) -> Result<BTreeMap<String, Entry>> {
    let map = MappedFile::open(path).map_err(Error::io("open", path))?;
    let (data_start, metadata) = read_header(path, &map)?;
    let file = Arc::new(WeightsFile { path: path.to_owned(), map });
    let mut infos: Vec<_> = metadata.tensors().into_iter().collect();
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let mut entries = BTreeMap::new();
    for (name, info) in infos {
        // `Metadata` has checked that offsets follow each other and fit shape and type; they may still lie beyond the
        // file's end.
        let (start, end) = (data_start + info.data_offsets.0, data_start.saturating_add(info.data_offsets.1));
        if end > file.map.len() {
            return Err(Error::TruncatedTensor {
                path: path.to_owned(),
                name,
                shape: info.shape.clone(),
                needed: end as u64,
                available: file.map.len() as u64,
            });
        }
        if info.shape.len() > MAXIMUM_DIMENSIONS {
            let reason = format!("tensor `{name}` has more than {MAXIMUM_DIMENSIONS} dimensions");
            return Err(Error::malformed(path, FORMAT, reason));
        }
        let shape = info.shape.clone();
        let dtype = match info.dtype {
            Dtype::F64 => Some(TensorType::F64),
            Dtype::F32 => Some(TensorType::F32),
            Dtype::F16 => Some(TensorType::F16),
            Dtype::BF16 => Some(TensorType::BF16),
            _ => None,
        };
        let entry = match dtype {
            Some(dtype) => Entry::Tensor(RawTensor {
                name: name.clone(),
                dtype,
                shape,
                file: Arc::clone(&file),
                range: start..end,
                restoration: Restoration::None,
            }),
            None => Entry::Unsupported { stored: info.dtype.to_string(), shape },
        };
        entries.insert(name, entry);
    }
    Ok(entries)
}

/// The header, and where the data begins.
fn read_header(path: &Path, bytes: &[u8]) -> Result<(usize, Metadata)> {
    let malformed = |reason: String| Error::malformed(path, FORMAT, reason);
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        let reason = match bytes.len() {
            0 => "it is empty".to_owned(),
            length => format!("it is only {length} bytes long; download it again"),
        };
        return Err(malformed(reason));
    };
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(malformed("it is a Git LFS pointer; run `git lfs pull` in its folder".to_owned()));
    }
    let length = u64::from_le_bytes(*length);
    if length > MAXIMUM_HEADER_BYTES {
        return Err(malformed(format!("its header is said to be {length} bytes long")));
    }
    let header = usize::try_from(length).ok().and_then(|length| rest.get(..length)).ok_or_else(|| {
        malformed(format!("it ends within its header of {length} bytes; download it again"))
    })?;
    let metadata =
        serde_json::from_slice(header).map_err(|error| malformed(format!("its header: {error}")))?;
    Ok((8 + header.len(), metadata))
}
