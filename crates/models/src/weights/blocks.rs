//! A linear layer's weight as the blocks in which its file has it.

use pellucid_kernels::{Block, BlockForm, WeightLayout};

use super::dequantize;
use super::tensor::{RawTensor, Restoration, TensorType};

/// The blocks of a linear layer's weight: each of one output, for 32 of its inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutputBlocks<'a> {
    dtype: TensorType,
    pub(crate) form: BlockForm,
    bytes: &'a [u8],
    outputs: usize,
    restoration: Restoration,
}

impl OutputBlocks<'_> {
    /// The weights of an output (in the tensor's own order, whatever the file's) for inputs `32 * index` and on.
    pub(crate) fn block(&self, output: usize, index: usize) -> Block {
        let row_bytes = self.bytes.len() / self.outputs;
        let stored = self.restoration.stored_row(output, self.outputs);
        dequantize::block(self.dtype, &self.bytes[stored * row_bytes..][..row_bytes], index)
    }
}

impl RawTensor {
    /// The tensor as blocks, if it is stored in blocks that lie along the inputs of a linear layer that reads it so.
    pub(crate) fn output_blocks(&self, layout: WeightLayout) -> Option<OutputBlocks<'_>> {
        let form = dequantize::form(self.dtype)?;
        let [rows, columns] = *self.shape.as_slice() else { return None };
        let (outputs, inputs) = match (layout, self.restoration) {
            (WeightLayout::OutputMajor, Restoration::None)
            | (WeightLayout::OutputMajor, Restoration::RotaryHalves { .. })
            | (WeightLayout::OutputMajor, Restoration::FusedByHead { .. }) => (rows, columns),
            // The file's rows are the tensor's columns, which are the outputs.
            (WeightLayout::InputMajor, Restoration::Transpose) => (columns, rows),
            (WeightLayout::OutputMajor, Restoration::SubtractOne | Restoration::Transpose)
            | (WeightLayout::InputMajor, _) => return None,
        };
        let whole = outputs > 0 && inputs.is_multiple_of(self.dtype.block().0);
        let (dtype, restoration) = (self.dtype, self.restoration);
        whole.then(|| OutputBlocks { dtype, form, bytes: self.bytes(), outputs, restoration })
    }
}
