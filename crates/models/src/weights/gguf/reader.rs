//! The GGUF format, versions 2 and 3, little-endian: metadata, and where each tensor lies. Nothing is copied: strings
//! and arrays stay in the mapped file, so that a header takes no more memory than it has entries.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use pellucid_kernels::mapped_file::MappedFile;

use super::super::tensor::{TensorType, WeightsFile};
use crate::{Error, Result};

/// The most tensors of a file.
const MAXIMUM_TENSORS: u64 = 1 << 16;
/// The most metadata entries of a file.
const MAXIMUM_ENTRIES: u64 = 1 << 16;
/// The longest name of an entry or a tensor, in bytes.
const MAXIMUM_NAME_BYTES: usize = 1 << 16;
/// The most dimensions of a tensor.
const MAXIMUM_DIMENSIONS: u32 = 4;
/// How deep arrays may be nested.
const MAXIMUM_NESTING: u32 = 4;
/// The largest alignment of tensors, in bytes.
const MAXIMUM_ALIGNMENT: u64 = 1 << 20;
/// The alignment where the file names none, in bytes.
const DEFAULT_ALIGNMENT: u64 = 32;

const FORMAT: &str = "GGUF";

/// A value of the metadata. Strings and arrays are ranges of the file.
#[derive(Debug, Clone)]
enum Value {
    Unsigned(u64),
    Signed(i64),
    Float32(f32),
    Float64(f64),
    Bool(bool),
    String(Range<usize>),
    Array { element: u32, count: usize, range: Range<usize> },
}

/// How a tensor is stored: readable, or by what name it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored {
    Known(TensorType),
    Unknown(String),
}

/// A tensor as the header gives it, its dimensions in the order of Hugging Face: rows first.
#[derive(Debug, Clone)]
pub(super) struct TensorInfo {
    pub(super) shape: Vec<usize>,
    pub(super) stored: Stored,
    /// In the file; empty where the type is unknown, for then so is the length.
    pub(super) range: Range<usize>,
}

/// A GGUF file whose header has been read and checked.
#[derive(Debug)]
pub(super) struct GgufFile {
    pub(super) file: Arc<WeightsFile>,
    metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

impl GgufFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let map = MappedFile::open(path).map_err(Error::io("open", path))?;
        let (metadata, tensors) = read_header(path, &map)?;
        Ok(Self { file: Arc::new(WeightsFile { path: path.to_owned(), map }), metadata, tensors })
    }

    /// A number of the metadata that is a count: any integer type, not negative.
    pub(super) fn count(&self, key: &str) -> Option<usize> {
        match *self.metadata.get(key)? {
            Value::Unsigned(value) => usize::try_from(value).ok(),
            Value::Signed(value) => usize::try_from(value).ok(),
            _ => None,
        }
    }

    /// A number of the metadata. What was written as f32 is read as the decimal number it was meant to be (1e-5, not
    /// 9.999999747378752e-6), as a `config.json` has it.
    pub(super) fn number(&self, key: &str) -> Option<f64> {
        match *self.metadata.get(key)? {
            Value::Float32(value) => value.to_string().parse().ok(),
            Value::Float64(value) => Some(value),
            Value::Unsigned(value) => Some(value as f64),
            Value::Signed(value) => Some(value as f64),
            _ => None,
        }
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match *self.metadata.get(key)? {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Value::String(range) => std::str::from_utf8(self.file.map.get(range.clone())?).ok(),
            _ => None,
        }
    }

    /// The strings of an array; `None` where there is no such array of strings.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(Value::Array { element: STRING, count, range }) = self.metadata.get(key) else {
            return Ok(None);
        };
        let mut cursor = self.cursor(range);
        let mut texts = Vec::with_capacity((*count).min(range.len() / 8));
        for index in 0..*count {
            let bytes = cursor.string()?;
            let text = std::str::from_utf8(&self.file.map[bytes]).map_err(|_| {
                Error::malformed(&self.file.path, FORMAT, format!("`{key}`: entry {index} is not UTF-8"))
            })?;
            texts.push(text);
        }
        Ok(Some(texts))
    }

    /// The numbers of an array as f32; `None` where there is no such array of numbers.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f32>>> {
        let Some(Value::Array { element, count, range }) = self.metadata.get(key) else { return Ok(None) };
        if matches!(*element, STRING | ARRAY) {
            return Ok(None);
        }
        let mut cursor = self.cursor(range);
        let numbers = (0..*count).map(|_| {
            Ok(match cursor.value(*element, 0)? {
                Value::Unsigned(value) => value as f32,
                Value::Signed(value) => value as f32,
                Value::Float32(value) => value,
                Value::Float64(value) => value as f32,
                _ => 0.0,
            })
        });
        numbers.collect::<Result<_>>().map(Some)
    }

    fn cursor(&self, range: &Range<usize>) -> Cursor<'_> {
        Cursor { path: &self.file.path, bytes: &self.file.map[..range.end], at: range.start }
    }

    /// Whether the metadata has an entry of this name.
    pub(super) fn has(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
    }
}

// The format's numbers for the types of metadata.
const UINT8: u32 = 0;
const INT8: u32 = 1;
const UINT16: u32 = 2;
const INT16: u32 = 3;
const UINT32: u32 = 4;
const INT32: u32 = 5;
const FLOAT32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const UINT64: u32 = 10;
const INT64: u32 = 11;
const FLOAT64: u32 = 12;

/// The bytes that a value of a metadata type takes, at least.
fn least_bytes(kind: u32) -> Option<usize> {
    match kind {
        UINT8 | INT8 | BOOL => Some(1),
        UINT16 | INT16 => Some(2),
        UINT32 | INT32 | FLOAT32 => Some(4),
        UINT64 | INT64 | FLOAT64 | STRING => Some(8),
        ARRAY => Some(12),
        _ => None,
    }
}

/// The format's numbers for the types of tensors.
fn tensor_type(number: u32) -> Stored {
    Stored::Known(match number {
        0 => TensorType::F32,
        1 => TensorType::F16,
        2 => TensorType::Q4_0,
        3 => TensorType::Q4_1,
        6 => TensorType::Q5_0,
        7 => TensorType::Q5_1,
        8 => TensorType::Q8_0,
        12 => TensorType::Q4_K,
        13 => TensorType::Q5_K,
        14 => TensorType::Q6_K,
        28 => TensorType::F64,
        30 => TensorType::BF16,
        other => return Stored::Unknown(unknown_type(other)),
    })
}

fn unknown_type(number: u32) -> String {
    let name = match number {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        other => return format!("GGUF type number {other}"),
    };
    name.to_owned()
}

/// A place in a file, from which values are read one after the other.
struct Cursor<'f> {
    path: &'f Path,
    bytes: &'f [u8],
    at: usize,
}

impl Cursor<'_> {
    fn malformed(&self, reason: impl std::fmt::Display) -> Error {
        Error::malformed(self.path, FORMAT, reason)
    }

    fn take(&mut self, count: usize) -> Result<Range<usize>> {
        match self.at.checked_add(count).filter(|end| *end <= self.bytes.len()) {
            Some(end) => Ok(std::mem::replace(&mut self.at, end)..end),
            None => Err(self.malformed("it ends within its header; download it again")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let range = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[range]);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<Range<usize>> {
        let length = self.u64()?;
        // A length beyond the address space is beyond the file as well.
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn name(&mut self) -> Result<String> {
        let range = self.string()?;
        if range.len() > MAXIMUM_NAME_BYTES {
            return Err(self.malformed(format!("a name is longer than {MAXIMUM_NAME_BYTES} bytes")));
        }
        match std::str::from_utf8(&self.bytes[range]) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err(self.malformed("a name is not UTF-8")),
        }
    }

    fn value(&mut self, kind: u32, nesting: u32) -> Result<Value> {
        Ok(match kind {
            UINT8 => Value::Unsigned(u8::from_le_bytes(self.array()?).into()),
            INT8 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            UINT16 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            INT16 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            UINT32 => Value::Unsigned(self.u32()?.into()),
            INT32 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            FLOAT32 => Value::Float32(f32::from_le_bytes(self.array()?)),
            BOOL => Value::Bool(self.array::<1>()?[0] != 0),
            STRING => Value::String(self.string()?),
            UINT64 => Value::Unsigned(self.u64()?),
            INT64 => Value::Signed(i64::from_le_bytes(self.array()?)),
            FLOAT64 => Value::Float64(f64::from_le_bytes(self.array()?)),
            ARRAY => {
                let element = self.u32()?;
                let count = self.u64()?;
                let Some(least) = least_bytes(element) else {
                    return Err(self.malformed(format!("an array of unknown type {element}")));
                };
                let left = self.bytes.len() - self.at;
                let Some(count) = usize::try_from(count).ok().filter(|count| *count <= left / least) else {
                    return Err(
                        self.malformed(format!("an array of {count} elements does not fit in the file"))
                    );
                };
                let start = self.at;
                match element {
                    ARRAY if nesting == MAXIMUM_NESTING => {
                        return Err(self.malformed(format!("arrays nested deeper than {MAXIMUM_NESTING}")));
                    }
                    ARRAY => {
                        for _ in 0..count {
                            self.value(ARRAY, nesting + 1)?;
                        }
                    }
                    STRING => {
                        for _ in 0..count {
                            self.string()?;
                        }
                    }
                    // All others take exactly their least.
                    _ => self.at += count * least,
                }
                Value::Array { element, count, range: start..self.at }
            }
            other => return Err(self.malformed(format!("a metadata value of unknown type {other}"))),
        })
    }
}

type Header = (BTreeMap<String, Value>, BTreeMap<String, TensorInfo>);

fn read_header(path: &Path, bytes: &[u8]) -> Result<Header> {
    let mut cursor = Cursor { path, bytes, at: 0 };
    if !bytes.starts_with(b"GGUF") {
        let reason = if bytes.starts_with(b"version https://git-lfs") {
            "it is a Git LFS pointer; run `git lfs pull` in its folder"
        } else {
            "it does not begin with `GGUF`"
        };
        return Err(cursor.malformed(reason));
    }
    cursor.at = 4;
    match cursor.u32()? {
        2 | 3 => {}
        1 => {
            return Err(cursor.malformed("version 1 of the format is not supported; convert the model again"));
        }
        version if version & 0xffff == 0 => {
            return Err(cursor.malformed("it is big-endian, which is not supported; convert the model again"));
        }
        version => return Err(cursor.malformed(format!("version {version} of the format is not known"))),
    }
    let (tensor_count, entry_count) = (cursor.u64()?, cursor.u64()?);
    if tensor_count > MAXIMUM_TENSORS {
        return Err(cursor.malformed(format!("{tensor_count} tensors; at most {MAXIMUM_TENSORS} are read")));
    }
    if entry_count > MAXIMUM_ENTRIES {
        return Err(
            cursor.malformed(format!("{entry_count} metadata entries; at most {MAXIMUM_ENTRIES} are read"))
        );
    }

    let mut metadata = BTreeMap::new();
    for _ in 0..entry_count {
        let key = cursor.name()?;
        let kind = cursor.u32()?;
        let value = cursor.value(kind, 0)?;
        if metadata.contains_key(&key) {
            return Err(cursor.malformed(format!("metadata entry `{key}` is there twice")));
        }
        metadata.insert(key, value);
    }

    let mut infos = Vec::new();
    for _ in 0..tensor_count {
        infos.push(read_tensor_info(&mut cursor)?);
    }

    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(Value::Unsigned(value)) if value.is_power_of_two() && *value <= MAXIMUM_ALIGNMENT => *value,
        Some(_) => return Err(cursor.malformed("its `general.alignment` is not a small power of two")),
    };
    let data_start = (cursor.at as u64).next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    // In the file's order, so that the first tensor beyond its end is the one that is named.
    infos.sort_by_key(|info| info.offset);
    for info in infos {
        let name = info.name.clone();
        let tensor = place(path, info, data_start, alignment, bytes.len() as u64)?;
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(cursor.malformed(format!("tensor `{name}` is there twice")));
        }
    }
    Ok((metadata, tensors))
}

struct UnplacedTensor {
    name: String,
    shape: Vec<u64>,
    number: u32,
    offset: u64,
}

fn read_tensor_info(cursor: &mut Cursor<'_>) -> Result<UnplacedTensor> {
    let name = cursor.name()?;
    let dimensions = cursor.u32()?;
    if dimensions > MAXIMUM_DIMENSIONS {
        let reason =
            format!("tensor `{name}` has {dimensions} dimensions; the format has {MAXIMUM_DIMENSIONS}");
        return Err(cursor.malformed(reason));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        shape.push(cursor.u64()?);
    }
    shape.reverse();
    Ok(UnplacedTensor { name, shape, number: cursor.u32()?, offset: cursor.u64()? })
}

/// Where a tensor lies in the file, checked against the file's length.
fn place(
    path: &Path,
    info: UnplacedTensor,
    data_start: u64,
    alignment: u64,
    available: u64,
) -> Result<TensorInfo> {
    let UnplacedTensor { name, shape, number, offset } = info;
    let malformed = |reason: &str| Error::malformed(path, FORMAT, format!("tensor `{name}` {reason}"));
    let shape: Option<Vec<usize>> = shape.iter().map(|size| usize::try_from(*size).ok()).collect();
    let shape = shape.ok_or_else(|| malformed("is larger than this machine's memory can be"))?;
    let elements = shape
        .iter()
        .try_fold(1usize, |product, size| product.checked_mul(*size))
        .ok_or_else(|| malformed("is larger than any file"))?;
    if !offset.is_multiple_of(alignment) {
        return Err(malformed("is not aligned"));
    }
    let stored = tensor_type(number);
    let Stored::Known(dtype) = &stored else { return Ok(TensorInfo { shape, stored, range: 0..0 }) };
    let block = dtype.block().0;
    if !shape.last().copied().unwrap_or(1).is_multiple_of(block) {
        return Err(malformed(&format!("{shape:?} has rows that are not whole blocks of {block}")));
    }
    let length = dtype.bytes_for(elements).ok_or_else(|| malformed("is larger than any file"))? as u64;
    let start = data_start.saturating_add(offset);
    let needed = start.saturating_add(length);
    if needed > available {
        return Err(Error::TruncatedTensor { path: path.to_owned(), name, shape, needed, available });
    }
    // Both fit, being within the mapped file.
    Ok(TensorInfo { shape, stored, range: start as usize..needed as usize })
}
