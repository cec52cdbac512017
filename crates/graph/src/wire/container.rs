//! A program inside a safetensors file: its JSON in the metadata, its constants as the tensors.
//!
//! The `safetensors` crate reads the file. Before it does, the header is looked over here: the crate keeps the last of
//! two tensors of one name, counts neither tensors nor dimensions, and adds up offsets that may wrap. Its own refusals
//! also name whichever tensor a hash map gives first; these are the same every time.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::json::{self, Item, Json};
use super::{PROGRAM_KEY, read_program};
use crate::dtype::DType;
use crate::fault::{Fault, Faults, quote};
use crate::limits;
use crate::program::{Constant, Program};

/// The header's entry that is no tensor.
const METADATA: &str = "__metadata__";
/// Bytes of the header's length.
const LENGTH_BYTES: usize = 8;

pub(super) fn read(bytes: &[u8]) -> Result<Program, Faults> {
    let header = header(bytes)?;
    let data = bytes.len() - LENGTH_BYTES - header.len();
    if data > limits::CONSTANT_BYTES {
        let message =
            format!("{data} bytes of constants, where a program has at most {}", limits::CONSTANT_BYTES);
        return Err(Fault::new(message).into());
    }
    let json = json::parse(header, limits::JSON_DEPTH).map_err(in_header)?;
    let program = look_over(Item::from(&json), data as u64)?;
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| Fault::new(format!("a safetensors file with {error}")))?;
    let mut constants = BTreeMap::new();
    let mut faults = Faults::default();
    // In the order of their names, so that faults have one order.
    let mut tensors: Vec<_> = file.iter().collect();
    tensors.sort_by_key(|(name, _)| *name);
    for (name, tensor) in tensors {
        let Some(dtype) = dtype(tensor.dtype()) else { continue };
        if dtype == DType::Bool && tensor.data().iter().any(|byte| *byte > 1) {
            faults.push(Fault::new(format!(
                "the constant {} has truth values that are neither 0 nor 1",
                quote(name)
            )));
        }
        let shape = tensor.shape().iter().map(|size| *size as u64).collect();
        constants.insert(name.to_owned(), Constant { dtype, shape, bytes: tensor.data().to_vec() });
    }
    faults.or(())?;
    read_program::read(program.as_bytes(), constants)
}

/// The header's bytes.
fn header(bytes: &[u8]) -> Result<&[u8], Faults> {
    let (length, rest) = match bytes.split_first_chunk::<LENGTH_BYTES>() {
        Some((length, rest)) => (u64::from_le_bytes(*length), rest),
        None => return Err(Fault::new(format!("a safetensors file of {} bytes", bytes.len())).into()),
    };
    match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
        Some(header) => Ok(header),
        None => {
            let message = format!(
                "a safetensors file whose header is {length} bytes long, of which {} are there",
                rest.len()
            );
            Err(Fault::new(message).with_hint("it may have been cut off on its way").into())
        }
    }
}

/// Checks the header, for a file with so many bytes of tensors, and gives the program's text.
fn look_over<'t>(header: Item<'t>, data: u64) -> Result<Cow<'t, str>, Faults> {
    let Some(entries) = header.entries() else {
        return Err(in_header(Fault::new(format!("expected an object, found {}", header.kind())).into()));
    };
    if entries.len() > limits::CONSTANTS + 1 {
        let message =
            format!("{} constants, where a program has at most {}", entries.len(), limits::CONSTANTS);
        return Err(Fault::new(message).into());
    }
    let mut faults = Faults::default();
    let mut program = None;
    let mut names = HashSet::new();
    let mut places = Vec::new();
    for (name, json) in entries {
        if !names.insert(name) {
            faults.push(Fault::new(format!("the safetensors file holds {} twice", quote(name))));
        } else if name == METADATA {
            program = metadata(json.into(), &mut faults);
        } else {
            match tensor(name, json.into(), data) {
                Ok(place) => places.push((place, name.as_ref())),
                Err(why) => faults.push(Fault::new(format!("the constant {}: {why}", quote(name)))),
            }
        }
    }
    if faults.is_empty() {
        stand_end_to_end(places, data, &mut faults);
    }
    if program.is_none() && faults.is_empty() {
        faults.push(
            Fault::new(format!("a safetensors file without a program: its metadata has no `{PROGRAM_KEY}`"))
                .with_hint(
                    "a file of tensors alone is not a program; the program's JSON goes into the metadata",
                ),
        );
    }
    faults.or(program.unwrap_or_default())
}

fn metadata<'t>(metadata: Item<'t>, faults: &mut Faults) -> Option<Cow<'t, str>> {
    let Some(entries) = metadata.entries() else {
        faults.push(Fault::new(format!("expected metadata, an object, found {}", metadata.kind())));
        return None;
    };
    let mut program = None;
    for (key, json) in entries {
        match (key.as_ref(), json) {
            (PROGRAM_KEY, Json::Text(text)) if program.is_none() => program = Some(text.clone()),
            // Other writers of the format put their own name there.
            ("format", Json::Text(_)) => {}
            (PROGRAM_KEY, Json::Text(_)) => {
                faults.push(Fault::new(format!("the metadata holds `{PROGRAM_KEY}` twice")))
            }
            _ => faults.push(
                Fault::new(format!("the metadata holds {}, {}", quote(key), Item::from(json).kind()))
                    .with_hint(format!(
                        "it holds the program, a text under `{PROGRAM_KEY}`, and nothing else"
                    )),
            ),
        }
    }
    program
}

/// Checks that the constants cover the file's data, each byte once.
fn stand_end_to_end(mut places: Vec<((u64, u64), &str)>, data: u64, faults: &mut Faults) {
    places.sort_unstable();
    let mut covered = 0;
    let mut last = "";
    for ((begin, end), name) in places {
        if begin < covered {
            let message = format!("the constants {} and {} lie on the same bytes", quote(last), quote(name));
            return faults.push(Fault::new(message));
        }
        if begin > covered {
            return faults.push(Fault::new(format!("bytes {covered} to {begin} belong to no constant")));
        }
        (covered, last) = (end, name);
    }
    if covered < data {
        faults.push(Fault::new(format!("bytes {covered} to {data} belong to no constant")));
    }
}

/// Where the tensor lies, if it is one that a program can hold and inside the file; else why not.
fn tensor(name: &str, item: Item<'_>, data: u64) -> Result<(u64, u64), String> {
    if name.len() > limits::TEXT_BYTES {
        return Err(format!("a name of {} bytes where at most {} may stand", name.len(), limits::TEXT_BYTES));
    }
    let entries = item.entries().ok_or_else(|| format!("expected a tensor, found {}", item.kind()))?;
    let [mut dtype, mut shape, mut offsets] = [None; 3];
    for (key, json) in entries {
        let field = match key.as_ref() {
            "dtype" => &mut dtype,
            "shape" => &mut shape,
            "data_offsets" => &mut offsets,
            _ => return Err(format!("a tensor has no field {}", quote(key))),
        };
        if field.replace(Item::from(json)).is_some() {
            return Err(format!("the field {} stands there twice", quote(key)));
        }
    }
    let missing = |field: &'static str| move || format!("a tensor needs the field `{field}`");
    let shape = naturals(shape.ok_or_else(missing("shape"))?).ok_or("its shape is not a list of sizes")?;
    let offsets =
        naturals(offsets.ok_or_else(missing("data_offsets"))?).ok_or("its offsets are not two places")?;
    let dtype = dtype.ok_or_else(missing("dtype"))?.text().ok_or("its number type is not a text")?;
    let Some(size) = DType::ALL.into_iter().find(|own| tensor_name(*own) == dtype).map(DType::size) else {
        return Err(format!("there is no number type {}", quote(dtype)));
    };
    if shape.len() > limits::DIMENSIONS {
        return Err(format!("{} dimensions where at most {} may stand", shape.len(), limits::DIMENSIONS));
    }
    let needed = shape.iter().try_fold(size, |bytes, size| bytes.checked_mul(*size));
    let [begin, end] = offsets[..] else { return Err("its offsets are not two places".into()) };
    if begin > end || end > data {
        return Err(format!("it lies from byte {begin} to {end} of {data}"));
    }
    if needed != Some(end - begin) {
        return Err(format!("{} bytes do not fill {dtype} {shape:?}", end - begin));
    }
    Ok((begin, end))
}

fn naturals(item: Item<'_>) -> Option<Vec<u64>> {
    let items = item.items().filter(|items| items.len() <= 64)?;
    let natural = |item| match item {
        Item::Integer(integer) => u64::try_from(integer).ok(),
        Item::Json(_) => None,
    };
    items.iter().map(natural).collect()
}

/// Says of faults that they are the header's.
fn in_header(faults: Faults) -> Faults {
    let in_header =
        |fault: Fault| Fault { message: format!("the safetensors header: {}", fault.message), ..fault };
    Faults(faults.0.into_iter().map(in_header).collect())
}

/// The number type as the format writes it.
fn tensor_name(dtype: DType) -> String {
    dtype.name().to_ascii_uppercase()
}

fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::BF16 => DType::Bf16,
        Dtype::F16 => DType::F16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool,
        _ => return None,
    })
}

fn file_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::Bf16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}

pub(super) fn write(program: &Program) -> Result<Vec<u8>, Faults> {
    let mut faults = Faults::default();
    let mut tensors = Vec::with_capacity(program.constants.len());
    for (name, constant) in &program.constants {
        if name == METADATA {
            faults.push(Fault::new(format!(
                "a constant cannot be named `{METADATA}`: the file format keeps that name"
            )));
            continue;
        }
        let shape = constant.shape.iter().map(|size| *size as usize).collect();
        match TensorView::new(file_dtype(constant.dtype), shape, &constant.bytes) {
            Ok(view) => tensors.push((name, view)),
            Err(error) => faults.push(Fault::new(format!("the constant {}: {error}", quote(name)))),
        }
    }
    faults.or(())?;
    let metadata = HashMap::from([(PROGRAM_KEY.to_owned(), program.to_json())]);
    safetensors::serialize(tensors, Some(metadata)).map_err(|error| {
        Fault::new(format!("the program does not fit into a safetensors file: {error}")).into()
    })
}
