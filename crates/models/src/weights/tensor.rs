//! One stored tensor: its bytes in the mapped file, and the way from there to numbers.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::bf16;
use pellucid_kernels::mapped_file::MappedFile;

use super::dequantize;

/// The forms of storage that can be read. A block type holds its numbers in blocks of 32 or 256 along the last
/// dimension, with shared scales: see [`TensorType::block`].
#[allow(missing_docs)] // the names are the formats' own
#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorType {
    F64,
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl TensorType {
    /// Elements in a block, and bytes that a block takes.
    #[must_use]
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F64 => (1, 8),
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q4_K => (256, 144),
            Self::Q5_K => (256, 176),
            Self::Q6_K => (256, 210),
        }
    }

    /// Bytes that `elements` numbers take, which must be whole blocks; `None` where they are not, or the product
    /// overflows.
    #[must_use]
    pub fn bytes_for(self, elements: usize) -> Option<usize> {
        let (block, bytes) = self.block();
        if !elements.is_multiple_of(block) {
            return None;
        }
        (elements / block).checked_mul(bytes)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// What undoes a change that a GGUF converter made to a tensor, so that values and layout are Hugging Face's again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restoration {
    /// The stored rows are the tensor's rows.
    None,
    /// Each head's rows are stored with the two halves of the rotation interleaved (`(half, 2)` for Hugging Face's
    /// `(2, half)`), as llama.cpp stores queries and keys of Llama-like models.
    RotaryHalves {
        /// Heads, of which each has the same number of rows.
        heads: usize,
    },
    /// A fused query-key-value projection stored as `(3, heads, head size)` for Hugging Face's
    /// `(heads, 3, head size)`, as llama.cpp stores GPT-NeoX.
    FusedByHead {
        /// Query heads.
        heads: usize,
    },
    /// One was added to each value, as llama.cpp does to Gemma's norms.
    SubtractOne,
    /// The matrix is stored transposed, as llama.cpp stores GPT-2's `Conv1D` weights.
    Transpose,
}

impl Restoration {
    /// The stored row that holds row `row` of the tensor, of `rows` rows.
    pub(super) fn stored_row(self, row: usize, rows: usize) -> usize {
        match self {
            Self::None | Self::SubtractOne | Self::Transpose => row,
            Self::RotaryHalves { heads } => {
                let size = rows / heads;
                let (head, within) = (row / size, row % size);
                let (half, index) = (within / (size / 2), within % (size / 2));
                head * size + index * 2 + half
            }
            Self::FusedByHead { heads } => {
                let size = rows / (3 * heads);
                let (head, which, index) = (row / (3 * size), row / size % 3, row % size);
                (which * heads + head) * size + index
            }
        }
    }
}

/// A mapped file of weights, and its path for messages.
#[derive(Debug)]
pub(crate) struct WeightsFile {
    pub(crate) path: PathBuf,
    pub(crate) map: MappedFile,
}

/// A tensor as it lies in its file. Cheap to clone: it shares the map and copies no numbers.
///
/// Its name and shape are Hugging Face's, rows first; a linear layer's weight is `[out, in]` (GPT-2's `Conv1D`:
/// `[in, out]`), whatever the file's format.
#[derive(Debug, Clone)]
pub struct RawTensor {
    /// The name, as in a Hugging Face checkpoint.
    pub name: String,
    /// How the numbers are stored.
    pub dtype: TensorType,
    /// The shape; empty for a single number.
    pub shape: Vec<usize>,
    pub(crate) file: Arc<WeightsFile>,
    /// Checked against the file's length and the shape's bytes when the checkpoint was opened.
    pub(crate) range: Range<usize>,
    pub(crate) restoration: Restoration,
}

impl RawTensor {
    /// The number of elements.
    #[must_use]
    pub fn element_count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The file that holds it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The stored bytes, little-endian, row-major. These are the tensor's own numbers in order only where
    /// [`RawTensor::restoration`] is [`Restoration::None`].
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.file.map.get(self.range.clone()).unwrap_or_default()
    }

    /// What has to be undone on the way from [`RawTensor::bytes`] to numbers; [`RawTensor::to_f32`] does it.
    #[must_use]
    pub fn restoration(&self) -> Restoration {
        self.restoration
    }

    /// All numbers as f32, row-major. F64 is rounded to the nearest; every other type is exact.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.element_count()];
        self.copy_to_f32(&mut values);
        values
    }

    /// [`RawTensor::to_f32`] into memory that is already there.
    ///
    /// # Panics
    /// When `values` is not as long as the tensor.
    pub fn copy_to_f32(&self, values: &mut [f32]) {
        assert_eq!(values.len(), self.element_count(), "room for `{}`", self.name);
        if self.restoration == Restoration::Transpose {
            let stored = self.stored_to_f32();
            let (rows, columns) = self.matrix();
            // The file holds [columns, rows].
            for (row, values) in values.chunks_exact_mut(columns.max(1)).enumerate() {
                for (column, value) in values.iter_mut().enumerate() {
                    *value = stored[column * rows + row];
                }
            }
            return;
        }
        let (rows, _) = self.matrix();
        self.copy_rows(0..rows, values);
    }

    /// The rows `range` of the first dimension as f32, `[range, …]`, row-major. A single number is one row.
    ///
    /// # Panics
    /// When the range reaches beyond the first dimension.
    #[must_use]
    pub fn rows_to_f32(&self, range: Range<usize>) -> Vec<f32> {
        let (rows, columns) = self.matrix();
        assert!(
            range.start <= range.end && range.end <= rows,
            "rows {range:?} of `{}`, which has {rows}",
            self.name
        );
        if self.restoration == Restoration::Transpose {
            let stored = self.stored_to_f32();
            return range
                .flat_map(|row| (0..columns).map(move |c| (row, c)))
                .map(|(r, c)| stored[c * rows + r])
                .collect();
        }
        let mut values = vec![0.0; range.len() * columns];
        self.copy_rows(range, &mut values);
        values
    }

    /// All numbers as bf16, rounded to nearest even; exact where they are stored so.
    #[must_use]
    pub fn to_bf16(&self) -> Vec<bf16> {
        if self.dtype == TensorType::BF16 && self.restoration == Restoration::None {
            let pairs = self.bytes().chunks_exact(2);
            return pairs.map(|pair| bf16::from_le_bytes([pair[0], pair[1]])).collect();
        }
        self.to_f32().into_iter().map(bf16::from_f32).collect()
    }

    /// Lets the system take back the memory of the file's pages that hold this tensor. It may still be read; it then
    /// comes from the file again.
    pub fn release_pages(&self) {
        self.file.map.advise_dont_need_range(self.range.clone());
    }

    /// [`RawTensor::release_pages`] for the whole file: reading a small tensor brings its neighbours' pages along.
    pub fn release_file(&self) {
        self.file.map.advise_dont_need();
    }

    /// The tensor seen as a matrix: the first dimension, and all others as one.
    fn matrix(&self) -> (usize, usize) {
        let rows = self.shape.first().copied().unwrap_or(1);
        (rows, self.shape.iter().skip(1).product())
    }

    fn stored_to_f32(&self) -> Vec<f32> {
        let mut stored = vec![0.0; self.element_count()];
        dequantize::to_f32(self.dtype, self.bytes(), &mut stored);
        stored
    }

    /// Rows, for every restoration but `Transpose`.
    fn copy_rows(&self, range: Range<usize>, values: &mut [f32]) {
        let (rows, columns) = self.matrix();
        if rows == 0 || columns == 0 {
            return;
        }
        if !columns.is_multiple_of(self.dtype.block().0) {
            // Blocks of a vector: a row is less than a block.
            let stored = self.stored_to_f32();
            for (row, values) in range.zip(values.chunks_exact_mut(columns)) {
                let start = self.restoration.stored_row(row, rows) * columns;
                values.copy_from_slice(&stored[start..start + columns]);
            }
        } else if matches!(self.restoration, Restoration::None | Restoration::SubtractOne) {
            dequantize::to_f32(self.dtype, self.row_bytes(range, rows), values);
        } else {
            for (row, values) in range.zip(values.chunks_exact_mut(columns)) {
                let stored = self.restoration.stored_row(row, rows);
                dequantize::to_f32(self.dtype, self.row_bytes(stored..stored + 1, rows), values);
            }
        }
        if self.restoration == Restoration::SubtractOne {
            values.iter_mut().for_each(|value| *value -= 1.0);
        }
    }

    /// The bytes of stored rows, where a row is whole blocks.
    fn row_bytes(&self, range: Range<usize>, rows: usize) -> &[u8] {
        let bytes = self.bytes();
        let each = bytes.len() / rows;
        &bytes[range.start * each..range.end * each]
    }
}

#[cfg(test)]
mod tests {
    use super::Restoration;

    #[test]
    fn restorations_of_rows_are_permutations_that_undo_the_converters() {
        // llama.cpp: reshape(heads, 2, half).swapaxes(1, 2)
        let (heads, half) = (3, 4);
        let hugging_face: Vec<usize> = (0..heads * 2 * half).collect();
        let mut stored = vec![0; hugging_face.len()];
        for head in 0..heads {
            for part in 0..2 {
                for index in 0..half {
                    stored[(head * half + index) * 2 + part] = hugging_face[(head * 2 + part) * half + index];
                }
            }
        }
        let restored = Restoration::RotaryHalves { heads };
        let rows = stored.len();
        assert!((0..rows).all(|row| stored[restored.stored_row(row, rows)] == row));

        // llama.cpp: reshape(heads, 3, size), then q, k and v one after the other
        let (heads, size) = (3, 5);
        let mut stored = vec![0; heads * 3 * size];
        for head in 0..heads {
            for which in 0..3 {
                for index in 0..size {
                    stored[(which * heads + head) * size + index] = (head * 3 + which) * size + index;
                }
            }
        }
        let restored = Restoration::FusedByHead { heads };
        let rows = stored.len();
        assert!((0..rows).all(|row| stored[restored.stored_row(row, rows)] == row));
    }
}
