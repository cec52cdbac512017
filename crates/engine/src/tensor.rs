//! A value of an experiment: a tensor with one of the language's number types.

use std::ops::{Deref, Range};

use candle_core::{Device, Storage, WithDType};
use half::{bf16, f16};
use pellucid_graph::program::Constant;
use pellucid_graph::{DType, Scalar};

use crate::operations::OperationError;
use crate::operations::walk::{contiguous_strides, gather};

/// A tensor and its number type. Cloning shares the storage; nothing ever writes to it.
///
/// Bool is stored as one byte, 0 or 1, under our own tag, because the storage knows no truth values.
#[derive(Clone, Debug)]
pub struct Tensor {
    data: candle_core::Tensor,
    dtype: DType,
}

/// A Rust type that a tensor's elements are stored in.
pub(crate) trait Stored: WithDType {
    /// As `f32`, rounded to the nearest.
    fn single(self) -> f32;
    /// As `f64`, rounded to the nearest.
    fn double(self) -> f64;
    /// As `i64`: a float is cut toward 0, NaN is 0.
    fn integer(self) -> i64;
    /// From `f32`: rounded, or cut toward 0 and wrapped.
    fn from_single(value: f32) -> Self;
    /// From `f64`; to 16 bits by way of `f32`, as PyTorch does.
    fn from_double(value: f64) -> Self;
    /// From `i64`: rounded, or wrapped.
    fn from_integer(value: i64) -> Self;
    /// Writes its little-endian bytes into a place of as many.
    fn write_bytes(self, place: &mut [u8]);
    /// From as many little-endian bytes as it has.
    fn from_bytes(bytes: &[u8]) -> Self;
}

macro_rules! stored {
    ($type:ty, $single:expr, $double:expr, $integer:expr, $from_single:expr, $from_double:expr, $from_integer:expr) => {
        impl Stored for $type {
            fn single(self) -> f32 {
                $single(self)
            }
            fn double(self) -> f64 {
                $double(self)
            }
            fn integer(self) -> i64 {
                $integer(self)
            }
            fn from_single(value: f32) -> Self {
                $from_single(value)
            }
            fn from_double(value: f64) -> Self {
                $from_double(value)
            }
            fn from_integer(value: i64) -> Self {
                $from_integer(value)
            }
            fn write_bytes(self, place: &mut [u8]) {
                place.iter_mut().zip(self.to_le_bytes()).for_each(|(to, from)| *to = from);
            }
            fn from_bytes(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$type>()];
                array.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                <$type>::from_le_bytes(array)
            }
        }
    };
}

stored!(f64, |x| x as f32, |x| x, |x| x as i64, |v| v as f64, |v| v, |v| v as f64);
stored!(f32, |x| x, |x| x as f64, |x| x as i64, |v| v, |v| v as f32, |v| v as f32);
stored!(
    bf16,
    |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16),
    bf16::to_f64,
    |x: bf16| x.to_f32() as i64,
    round_to_bf16,
    |v| round_to_bf16(v as f32),
    |v| round_to_bf16(v as f32)
);
stored!(
    f16,
    f16::to_f32,
    f16::to_f64,
    |x: f16| x.to_f32() as i64,
    f16::from_f32,
    |v| f16::from_f32(v as f32),
    |v| f16::from_f32(v as f32)
);
stored!(i64, |x| x as f32, |x| x as f64, |x| x, |v| v as i64, |v| v as i64, |v| v);
stored!(i32, |x| x as f32, |x| x as f64, |x| x as i64, |v| v as i64 as i32, |v| v as i64 as i32, |v| v
    as i32);
stored!(u8, |x| x as f32, |x| x as f64, |x| x as i64, |v| v as i64 as u8, |v| v as i64 as u8, |v| v as u8);

/// To the nearest, ties to even; without a branch, so that loops over it are vectorised.
fn round_to_bf16(value: f32) -> bf16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16) as u16;
    let quiet = (bits >> 16) as u16 | 0x40;
    bf16::from_bits(if value.is_nan() { quiet } else { rounded })
}

/// Runs `$body` with `$type` as the Rust type in which elements of `$dtype` are stored.
macro_rules! with_stored {
    ($dtype:expr, $type:ident => $body:expr) => {
        match $dtype {
            pellucid_graph::DType::F64 => {
                type $type = f64;
                $body
            }
            pellucid_graph::DType::F32 => {
                type $type = f32;
                $body
            }
            pellucid_graph::DType::Bf16 => {
                type $type = half::bf16;
                $body
            }
            pellucid_graph::DType::F16 => {
                type $type = half::f16;
                $body
            }
            pellucid_graph::DType::I64 => {
                type $type = i64;
                $body
            }
            pellucid_graph::DType::I32 => {
                type $type = i32;
                $body
            }
            pellucid_graph::DType::U8 | pellucid_graph::DType::Bool => {
                type $type = u8;
                $body
            }
        }
    };
}
pub(crate) use with_stored;

/// Elements in row-major order: borrowed from the tensor where they lie so, else copied.
pub(crate) enum Elements<'a, T: WithDType> {
    /// Part of the tensor's storage.
    Borrowed(candle_core::StorageRef<'a>, Range<usize>),
    /// A copy.
    Owned(Vec<T>),
}

impl<T: WithDType> Deref for Elements<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Elements::Borrowed(storage, range) => cpu_slice(storage, range.clone()).unwrap_or(&[]),
            Elements::Owned(elements) => elements,
        }
    }
}

impl<T: WithDType> Elements<'_, T> {
    /// The elements as a vector; copies only what is borrowed.
    pub(crate) fn into_vec(self) -> Vec<T> {
        match self {
            Elements::Owned(elements) => elements,
            borrowed => borrowed.to_vec(),
        }
    }
}

fn cpu_slice<T: WithDType>(storage: &Storage, range: Range<usize>) -> Option<&[T]> {
    match storage {
        Storage::Cpu(storage) => T::cpu_storage_as_slice(storage).ok()?.get(range),
        _ => None,
    }
}

/// The number of elements of a shape; an error where it is more than an operation may make.
pub(crate) fn element_count(shape: &[usize]) -> Result<usize, OperationError> {
    // Sizes of 0 count as 1, so that the strides of an empty tensor cannot overflow either.
    let count = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size.max(1)));
    match count {
        Some(count) if count as u64 <= pellucid_graph::limits::TENSOR_ELEMENTS => {
            Ok(if shape.contains(&0) { 0 } else { count })
        }
        _ => Err(OperationError::new(format!("a tensor of shape {shape:?} is too large"))),
    }
}

impl Tensor {
    /// A tensor of storage and tag. The storage must have the type in which `dtype` is stored; bools are 0 or 1.
    pub fn new(data: candle_core::Tensor, dtype: DType) -> Result<Tensor, OperationError> {
        let stored = stored_type(dtype);
        if data.dtype() != stored {
            let message = format!("elements of {dtype} are stored as {stored:?}, not as {:?}", data.dtype());
            return Err(OperationError::new(message));
        }
        Ok(Tensor { data, dtype })
    }

    /// A tensor with the storage's own number type; the language has no `u32`, `i16` or 8-bit floats.
    pub fn from_candle(data: candle_core::Tensor) -> Result<Tensor, OperationError> {
        let dtype = DType::ALL.into_iter().find(|dtype| stored_type(*dtype) == data.dtype());
        match dtype {
            Some(dtype) => Ok(Tensor { data, dtype }),
            None => Err(OperationError::new(format!("the language has no number type {:?}", data.dtype()))),
        }
    }

    /// A tensor of elements in the Rust type in which `dtype` is stored.
    pub(crate) fn from_stored<T: WithDType>(
        elements: Vec<T>,
        shape: &[usize],
        dtype: DType,
    ) -> Result<Tensor, OperationError> {
        if element_count(shape)? != elements.len() {
            let message = format!("{} elements do not fill the shape {shape:?}", elements.len());
            return Err(OperationError::new(message));
        }
        Tensor::new(candle_core::Tensor::from_vec(elements, shape, &Device::Cpu)?, dtype)
    }

    /// An `f32` tensor of elements in row-major order. An error if the shape has not as many.
    pub fn from_f32(elements: Vec<f32>, shape: &[usize]) -> Result<Tensor, OperationError> {
        Tensor::from_stored(elements, shape, DType::F32)
    }

    /// An `f64` tensor of elements in row-major order. An error if the shape has not as many.
    pub fn from_f64(elements: Vec<f64>, shape: &[usize]) -> Result<Tensor, OperationError> {
        Tensor::from_stored(elements, shape, DType::F64)
    }

    /// An `i64` tensor of elements in row-major order. An error if the shape has not as many.
    pub fn from_i64(elements: Vec<i64>, shape: &[usize]) -> Result<Tensor, OperationError> {
        Tensor::from_stored(elements, shape, DType::I64)
    }

    /// A bool tensor of elements in row-major order. An error if the shape has not as many.
    pub fn from_bool(elements: &[bool], shape: &[usize]) -> Result<Tensor, OperationError> {
        Tensor::from_stored(elements.iter().map(|&element| u8::from(element)).collect(), shape, DType::Bool)
    }

    /// A tensor without dimensions: a literal, converted to the number type.
    pub fn from_scalar(scalar: Scalar, dtype: DType) -> Result<Tensor, OperationError> {
        Tensor::from_scalars(&[scalar], &[], dtype)
    }

    /// A tensor of literals in row-major order, each converted to the number type.
    pub fn from_scalars(scalars: &[Scalar], shape: &[usize], dtype: DType) -> Result<Tensor, OperationError> {
        with_stored!(dtype, T => {
            let elements: Vec<T> = scalars.iter().map(|&scalar| stored_scalar::<T>(scalar, dtype)).collect();
            Tensor::from_stored(elements, shape, dtype)
        })
    }

    /// A constant of a program.
    pub fn from_constant(constant: &Constant) -> Result<Tensor, OperationError> {
        let sizes: Option<Vec<usize>> =
            constant.shape.iter().map(|&size| usize::try_from(size).ok()).collect();
        let shape = sizes.ok_or_else(|| OperationError::new("a constant's shape is too large"))?;
        Tensor::from_bytes(&constant.bytes, &shape, constant.dtype)
    }

    /// A tensor of little-endian elements in row-major order. An error if the shape has not as many.
    pub fn from_bytes(bytes: &[u8], shape: &[usize], dtype: DType) -> Result<Tensor, OperationError> {
        let count = element_count(shape)?;
        if Some(bytes.len()) != count.checked_mul(dtype.size() as usize) {
            let message = format!("{} bytes do not fill a {dtype} tensor of shape {shape:?}", bytes.len());
            return Err(OperationError::new(message));
        }
        if dtype == DType::Bool {
            let elements: Vec<u8> = bytes.iter().map(|&byte| u8::from(byte != 0)).collect();
            return Tensor::from_stored(elements, shape, dtype);
        }
        with_stored!(dtype, T => {
            let elements: Vec<T> = bytes.chunks_exact(size_of::<T>()).map(T::from_bytes).collect();
            Tensor::from_stored(elements, shape, dtype)
        })
    }

    /// The storage.
    pub fn data(&self) -> &candle_core::Tensor {
        &self.data
    }

    /// The number type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        self.data.dims()
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.data.dims().len()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.data.elem_count()
    }

    /// Bytes of its elements, however they are stored: a view of a large tensor keeps all of that one.
    pub fn bytes_len(&self) -> u64 {
        self.elements() as u64 * self.dtype.size()
    }

    /// Bytes of what it is stored in, of which it may be a view.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let (storage, _) = self.data.storage_and_layout();
        let Storage::Cpu(cpu) = &*storage else { return self.bytes_len() };
        let elements = with_stored!(self.dtype, T => T::cpu_storage_as_slice(cpu).map_or(0, <[T]>::len));
        elements as u64 * self.dtype.size()
    }

    /// Whether it is a view of a part of its storage.
    pub(crate) fn is_part(&self) -> bool {
        self.stored_bytes() > self.bytes_len()
    }

    /// Whether both are views of the same storage.
    pub(crate) fn shares_storage(&self, other: &Tensor) -> bool {
        let (one, _) = self.data.storage_and_layout();
        let (other, _) = other.data.storage_and_layout();
        std::ptr::eq(&*one, &*other)
    }

    /// The same storage seen in another way.
    pub(crate) fn view(&self, data: candle_core::Tensor) -> Tensor {
        Tensor { data, dtype: self.dtype }
    }

    /// The elements in row-major order, in the Rust type in which they are stored.
    pub(crate) fn read<T: WithDType>(&self) -> Result<Elements<'_, T>, OperationError> {
        let (storage, layout) = self.data.storage_and_layout();
        let Storage::Cpu(cpu) = &*storage else {
            drop(storage);
            let elements = self.data.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<T>()?;
            return Ok(Elements::Owned(elements));
        };
        let all = T::cpu_storage_as_slice(cpu)?;
        let start = layout.start_offset();
        if self.elements() == 0 {
            return Ok(Elements::Owned(Vec::new()));
        }
        if layout.is_contiguous() {
            let range = start..start + self.elements();
            return match all.get(range.clone()) {
                Some(_) => Ok(Elements::Borrowed(storage, range)),
                None => Err(OperationError::new("a view reaches outside its storage")),
            };
        }
        let strides: Vec<isize> = layout.stride().iter().map(|&stride| stride as isize).collect();
        Ok(Elements::Owned(gather(all, start, self.shape(), &strides)))
    }

    /// Runs `work` on the whole storage, with the place of the first element and the strides.
    pub(crate) fn with_strided<T: WithDType, R>(
        &self,
        work: impl FnOnce(&[T], usize, &[isize]) -> R,
    ) -> Result<R, OperationError> {
        let (storage, layout) = self.data.storage_and_layout();
        if let Storage::Cpu(cpu) = &*storage {
            let strides: Vec<isize> = layout.stride().iter().map(|&stride| stride as isize).collect();
            return Ok(work(T::cpu_storage_as_slice(cpu)?, layout.start_offset(), &strides));
        }
        drop(storage);
        Ok(work(&self.read::<T>()?, 0, &contiguous_strides(self.shape())))
    }

    /// The elements in row-major order as `f32`; without a copy where they lie so already.
    pub(crate) fn singles(&self) -> Result<Elements<'_, f32>, OperationError> {
        if self.dtype == DType::F32 {
            return self.read();
        }
        with_stored!(self.dtype, T => {
            Ok(Elements::Owned(self.read::<T>()?.iter().map(|element| element.single()).collect()))
        })
    }

    /// The elements in row-major order as `f64`; without a copy where they lie so already.
    pub(crate) fn doubles(&self) -> Result<Elements<'_, f64>, OperationError> {
        if self.dtype == DType::F64 {
            return self.read();
        }
        with_stored!(self.dtype, T => {
            Ok(Elements::Owned(self.read::<T>()?.iter().map(|element| element.double()).collect()))
        })
    }

    /// The elements in row-major order as `i64`; without a copy where they lie so already.
    pub(crate) fn integers(&self) -> Result<Elements<'_, i64>, OperationError> {
        if self.dtype == DType::I64 {
            return self.read();
        }
        with_stored!(self.dtype, T => {
            Ok(Elements::Owned(self.read::<T>()?.iter().map(|element| element.integer()).collect()))
        })
    }

    /// The elements in row-major order as truth values: whether each is not 0.
    pub(crate) fn truths(&self) -> Result<Vec<bool>, OperationError> {
        with_stored!(self.dtype, T => {
            Ok(self.read::<T>()?.iter().map(|&element| element != T::from_integer(0)).collect())
        })
    }

    /// The elements in row-major order, converted to `f32`.
    pub fn to_vec_f32(&self) -> Result<Vec<f32>, OperationError> {
        Ok(self.singles()?.into_vec())
    }

    /// The elements in row-major order, converted to `f64`.
    pub fn to_vec_f64(&self) -> Result<Vec<f64>, OperationError> {
        Ok(self.doubles()?.into_vec())
    }

    /// The elements in row-major order, converted to `i64`: floats are cut toward 0.
    pub fn to_vec_i64(&self) -> Result<Vec<i64>, OperationError> {
        Ok(self.integers()?.into_vec())
    }

    /// Runs `work` on the elements as `f32` in row-major order, without a copy where they lie so already.
    pub fn with_f32<R>(&self, work: impl FnOnce(&[f32]) -> R) -> Result<R, OperationError> {
        Ok(work(&self.singles()?))
    }

    /// The same elements as an `f32` tensor in row-major order; itself if it is one.
    pub fn as_f32_contiguous(&self) -> Result<Tensor, OperationError> {
        self.cast(DType::F32)?.contiguous()
    }

    /// The same elements in row-major order; itself if they lie so.
    pub fn contiguous(&self) -> Result<Tensor, OperationError> {
        if self.data.is_contiguous() {
            return Ok(self.clone());
        }
        with_stored!(self.dtype, T => {
            Tensor::from_stored(self.read::<T>()?.into_vec(), self.shape(), self.dtype)
        })
    }

    /// The same elements in row-major order, in storage of their own size; itself if it lies so.
    pub(crate) fn compact(&self) -> Result<Tensor, OperationError> {
        if !self.is_part() {
            return self.contiguous();
        }
        with_stored!(self.dtype, T => {
            Tensor::from_stored(self.read::<T>()?.into_vec(), self.shape(), self.dtype)
        })
    }

    /// The first elements in row-major order, at most so many: a vector. The others are not looked at.
    pub fn first(&self, most: usize) -> Result<Tensor, OperationError> {
        let count = self.elements().min(most);
        with_stored!(self.dtype, T => {
            let elements = self.with_strided::<T, _>(|source, start, strides| {
                let place = |mut at: usize| {
                    let sizes = self.shape().iter().zip(strides).rev();
                    sizes.fold(start as isize, |place, (&size, &stride)| {
                        let along = at % size.max(1);
                        at /= size.max(1);
                        place + along as isize * stride
                    })
                };
                (0..count).map(|at| source.get(place(at) as usize).copied()).collect::<Option<Vec<T>>>()
            })?;
            let elements = elements.ok_or_else(|| OperationError::new("a view reaches outside its storage"))?;
            Tensor::from_stored(elements, &[count], self.dtype)
        })
    }

    /// The elements as little-endian bytes in row-major order.
    pub fn to_bytes(&self) -> Result<Vec<u8>, OperationError> {
        let mut bytes = vec![0; self.elements() * self.dtype.size() as usize];
        self.write_bytes(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the elements as [`Tensor::to_bytes`] has them into a place of just as many bytes. An error if it has another size.
    pub fn write_bytes(&self, place: &mut [u8]) -> Result<(), OperationError> {
        with_stored!(self.dtype, T => {
            let elements = self.read::<T>()?;
            if place.len() != elements.len() * size_of::<T>() {
                let message = format!("{} bytes are no place for {} of {}", place.len(), elements.len(), self.dtype);
                return Err(OperationError::new(message));
            }
            let places = place.chunks_exact_mut(size_of::<T>());
            places.zip(elements.iter()).for_each(|(place, element)| element.write_bytes(place));
        });
        Ok(())
    }

    /// The same elements in another number type, converted as PyTorch's `to` does: floats to integers cut toward 0,
    /// integers wrap, anything that is not 0 (NaN too) is true.
    pub fn cast(&self, dtype: DType) -> Result<Tensor, OperationError> {
        if dtype == self.dtype {
            return Ok(self.clone());
        }
        if dtype == DType::Bool {
            return Tensor::from_bool(&self.truths()?, self.shape());
        }
        with_stored!(dtype, T => {
            let elements: Vec<T> = match self.dtype {
                DType::F64 => self.read::<f64>()?.iter().map(|&element| T::from_double(element)).collect(),
                DType::F32 | DType::Bf16 | DType::F16 => {
                    self.singles()?.iter().map(|&element| T::from_single(element)).collect()
                }
                _ => self.integers()?.iter().map(|&element| T::from_integer(element)).collect(),
            };
            Tensor::from_stored(elements, self.shape(), dtype)
        })
    }

    /// Whether both have the same number type, shape and elements, bit for bit.
    pub fn is_same_bits(&self, other: &Tensor) -> bool {
        self.dtype == other.dtype
            && self.shape() == other.shape()
            && matches!((self.to_bytes(), other.to_bytes()), (Ok(mine), Ok(theirs)) if mine == theirs)
    }
}

/// A literal in the Rust type in which `dtype` is stored.
pub(crate) fn stored_scalar<T: Stored>(scalar: Scalar, dtype: DType) -> T {
    match scalar {
        _ if dtype == DType::Bool => T::from_integer(i64::from(scalar.as_f64() != 0.0)),
        Scalar::Bool(value) => T::from_integer(i64::from(value)),
        Scalar::Int(value) => T::from_integer(value),
        Scalar::Float(value) => T::from_double(value),
    }
}

/// The storage's name of the type in which a number type is stored.
pub(crate) fn stored_type(dtype: DType) -> candle_core::DType {
    match dtype {
        DType::F64 => candle_core::DType::F64,
        DType::F32 => candle_core::DType::F32,
        DType::Bf16 => candle_core::DType::BF16,
        DType::F16 => candle_core::DType::F16,
        DType::I64 => candle_core::DType::I64,
        DType::I32 => candle_core::DType::I32,
        DType::U8 | DType::Bool => candle_core::DType::U8,
    }
}
