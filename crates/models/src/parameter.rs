//! A model's weights for those who read them: as they are stored, or made at a seed.

use std::ops::Range;

use pellucid_kernels::philox::Stream;
use pellucid_kernels::{NumberFormat, PackedMatrix, Precision, WeightLayout, WeightSource};

use crate::weights::{OutputBlocks, RawTensor, Restoration, TensorType};

/// Where a weight's numbers come from.
#[derive(Clone, Debug)]
pub(crate) enum Numbers {
    /// A mapped file.
    Stored(RawTensor),
    /// Given by a program, row-major.
    Given(Vec<f32>),
    /// `mean + deviation · u` with u uniform over ±√3 (so that the deviation is that), element by element from a
    /// counter: nothing is held.
    Random {
        /// The numbers u.
        stream: Stream,
        /// Their middle.
        mean: f32,
        /// Their standard deviation.
        deviation: f32,
    },
}

/// One weight of a model, under transformers' name and in its shape.
#[derive(Clone, Copy, Debug)]
pub struct Parameter<'a> {
    pub(crate) shape: &'a [usize],
    pub(crate) numbers: &'a Numbers,
}

impl Parameter<'_> {
    /// The shape, as in transformers.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.shape
    }

    /// All numbers as f32, row-major.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match self.numbers {
            Numbers::Stored(tensor) => tensor.to_f32(),
            Numbers::Given(values) => values.clone(),
            Numbers::Random { .. } => self.random(0, self.shape.iter().product()),
        }
    }

    /// The rows `range` of the first dimension as f32, row-major.
    ///
    /// # Panics
    /// When the range reaches beyond the first dimension.
    #[must_use]
    pub fn rows_to_f32(&self, range: Range<usize>) -> Vec<f32> {
        match self.numbers {
            Numbers::Stored(tensor) => tensor.rows_to_f32(range),
            Numbers::Given(values) => {
                let width: usize = self.shape.iter().skip(1).product();
                values[range.start * width..range.end * width].to_vec()
            }
            Numbers::Random { .. } => {
                let rows = self.shape.first().copied().unwrap_or(1);
                assert!(range.end <= rows, "rows {range:?} of {rows}");
                let width: usize = self.shape.iter().skip(1).product();
                self.random(range.start * width, range.len() * width)
            }
        }
    }

    fn random(&self, start: usize, count: usize) -> Vec<f32> {
        let mut values = vec![0.0; count];
        if let Numbers::Random { stream, mean, deviation } = self.numbers {
            stream.fill_uniform(start as u64, &mut values);
            let width = 12.0_f32.sqrt() * deviation;
            values.iter_mut().for_each(|value| *value = mean + (*value - 0.5) * width);
        }
        values
    }

    /// Packs it as the weight of a linear layer that reads it in this layout. Where it is to be quantised, and stored in
    /// blocks, it stays in them.
    pub(crate) fn pack(&self, layout: WeightLayout, precision: Precision) -> PackedMatrix {
        self.released(match self.blocks(layout, precision) {
            Some(blocks) => {
                let (k, n) = self.inputs_and_outputs(layout);
                PackedMatrix::pack_blocks(k, n, blocks.form, |output, index| blocks.block(output, index))
            }
            None => self.pack_numbers(layout, precision),
        })
    }

    /// Packs the same weight from outputs to inputs.
    pub(crate) fn pack_transposed(&self, layout: WeightLayout, precision: Precision) -> PackedMatrix {
        self.released(match self.blocks(layout, precision) {
            Some(blocks) => {
                let (k, n) = self.inputs_and_outputs(layout);
                let block = |output, index| blocks.block(output, index);
                PackedMatrix::pack_blocks_transposed(k, n, blocks.form, block)
            }
            None => {
                let other = match layout {
                    WeightLayout::OutputMajor => WeightLayout::InputMajor,
                    WeightLayout::InputMajor => WeightLayout::OutputMajor,
                };
                self.pack_numbers(other, precision)
            }
        })
    }

    fn inputs_and_outputs(&self, layout: WeightLayout) -> (usize, usize) {
        let (rows, columns) = (self.shape[0], self.shape[1]);
        match layout {
            WeightLayout::OutputMajor => (columns, rows),
            WeightLayout::InputMajor => (rows, columns),
        }
    }

    fn blocks(&self, layout: WeightLayout, precision: Precision) -> Option<OutputBlocks<'_>> {
        match self.numbers {
            Numbers::Stored(tensor) if precision == Precision::Quantised => tensor.output_blocks(layout),
            _ => None,
        }
    }

    fn pack_numbers(&self, layout: WeightLayout, precision: Precision) -> PackedMatrix {
        let (k, n) = self.inputs_and_outputs(layout);
        let stored = match self.numbers {
            Numbers::Stored(tensor) if tensor.restoration() == Restoration::None => {
                let format = match tensor.dtype {
                    TensorType::F32 => Some(NumberFormat::F32),
                    TensorType::F16 => Some(NumberFormat::F16),
                    TensorType::BF16 => Some(NumberFormat::Bf16),
                    _ => None,
                };
                format.map(|format| WeightSource { bytes: tensor.bytes(), format, layout })
            }
            _ => None,
        };
        match (stored, self.numbers) {
            (Some(source), _) => PackedMatrix::pack(k, n, &source, precision),
            (None, Numbers::Given(values)) => {
                PackedMatrix::pack(k, n, &WeightSource::from_f32(values, layout), precision)
            }
            (None, _) => PackedMatrix::pack(k, n, &WeightSource::from_f32(&self.to_f32(), layout), precision),
        }
    }

    /// The packed copy is what runs; the file's pages come back when someone reads them.
    fn released(&self, packed: PackedMatrix) -> PackedMatrix {
        if let Numbers::Stored(tensor) = self.numbers {
            tensor.release_pages();
        }
        packed
    }
}
