//! The gradients of weights that a program has set for an invoke: what each stage that reads one brings, added in the order
//! in which the stages are gone back through. A row whose cotangent is 0 brings nothing, as elsewhere on the way back.

use std::collections::{BTreeMap, BTreeSet};

use pellucid_kernels::{WeightLayout, elementwise, matmul_weight_backward, norm};
use pellucid_models::stage::{Kernel, LinearLayout, Norm, NormKind, Stage, WeightId};

use super::stages::{Back, gather, rows_that_matter};
use crate::error::Interruption;
use crate::operations::OperationError;
use crate::pass::PassState;
use crate::slots::{BufferPool, SlotValue};
use crate::tensor::Tensor;

/// Gradients of weights, as far as they are known; those that are wanted are there from the beginning.
#[derive(Debug, Default)]
pub(crate) struct OfWeights(BTreeMap<WeightId, Option<Vec<f32>>>);

impl OfWeights {
    pub fn of(wanted: &BTreeSet<WeightId>) -> OfWeights {
        OfWeights(wanted.iter().map(|&weight| (weight, None)).collect())
    }

    fn wants(&self, weight: Option<WeightId>) -> Option<WeightId> {
        weight.filter(|weight| self.0.contains_key(weight))
    }

    fn add(&mut self, weight: WeightId, part: Vec<f32>, pool: &mut BufferPool) {
        match self.0.get_mut(&weight) {
            Some(Some(sum)) => {
                elementwise::add(sum, &part);
                pool.give(SlotValue::Rows(crate::slots::Rows::contiguous(part, &[])));
            }
            Some(empty) => *empty = Some(part),
            None => {}
        }
    }

    /// The bytes that they take.
    pub fn bytes(&self) -> u64 {
        self.0.values().flatten().map(|sum| 4 * sum.len() as u64).sum()
    }

    /// A weight's gradient in its shape; none: nothing came to it.
    pub fn take(&mut self, weight: WeightId, shape: &[usize]) -> Result<Option<Tensor>, OperationError> {
        let sum = self.0.get_mut(&weight).and_then(Option::take);
        sum.map(|sum| Tensor::from_f32(sum, shape)).transpose()
    }
}

impl Back<'_> {
    /// Adds what a stage brings to the gradients of its weights; before it is itself gone back through.
    pub fn of_weights(
        &self,
        stage: &Stage,
        state: &PassState,
        sums: &mut OfWeights,
        pool: &mut BufferPool,
    ) -> Result<(), Interruption> {
        if sums.0.is_empty() {
            return Ok(());
        }
        let Some(SlotValue::Rows(cotangent)) = state.slot(stage.outputs[0]) else { return Ok(()) };
        let (width, cotangent) = (cotangent.width(), &cotangent.buffer);
        match &stage.kernel {
            Kernel::Linear { weight, bias, layout } => {
                let (weight, bias) = (sums.wants(Some(*weight)), sums.wants(*bias));
                let rows = rows_that_matter(cotangent, width);
                if rows.is_empty() || (weight.is_none() && bias.is_none()) {
                    return Ok(());
                }
                let own = gather(cotangent, width, &rows, pool);
                if let Some(weight) = weight {
                    let x = self.kept(state, stage.inputs[0])?;
                    let k = x.len() / state.tokens().max(1);
                    let x = gather(&x, k, &rows, pool);
                    let layout = match layout {
                        LinearLayout::OutputInput => WeightLayout::OutputMajor,
                        LinearLayout::InputOutput => WeightLayout::InputMajor,
                    };
                    let mut out = vec![0.0; k * width];
                    matmul_weight_backward(&x, &own, rows.len(), k, width, layout, &mut out);
                    sums.add(weight, out, pool);
                }
                if let Some(bias) = bias {
                    let mut out = vec![0.0; width];
                    own.chunks_exact(width.max(1)).for_each(|row| elementwise::add(&mut out, row));
                    sums.add(bias, out, pool);
                }
            }
            Kernel::NormApply(norm) => self.of_norm(stage, norm, cotangent, state, sums, pool)?,
            Kernel::Embed { table, offset, scale } => {
                let Some(table) = sums.wants(Some(*table)) else { return Ok(()) };
                let missing = || Interruption::missing("an embedding's ids");
                let ids = self.tape.ids(stage.inputs[0]).ok_or_else(missing)?;
                let own = self.weights.get(table).and_then(|weight| weight.table_shape());
                let (count, _) = own.ok_or_else(|| Interruption::missing("an embedding"))?;
                let mut out = vec![0.0; count * width];
                for row in rows_that_matter(cotangent, width) {
                    let place = ids.get(row).and_then(|id| usize::try_from(id + offset).ok());
                    let place = place.filter(|&place| place < count).ok_or_else(missing)?;
                    let from = cotangent[row * width..(row + 1) * width].iter();
                    let to = &mut out[place * width..(place + 1) * width];
                    to.iter_mut().zip(from).for_each(|(sum, value)| *sum += value * scale);
                }
                sums.add(table, out, pool);
            }
            _ => {}
        }
        Ok(())
    }

    fn of_norm(
        &self,
        stage: &Stage,
        norm: &Norm,
        cotangent: &[f32],
        state: &PassState,
        sums: &mut OfWeights,
        pool: &mut BufferPool,
    ) -> Result<(), Interruption> {
        let (weight, bias) = (sums.wants(norm.weight), sums.wants(norm.bias));
        if weight.is_none() && bias.is_none() {
            return Ok(());
        }
        let (x, scale) = (self.kept(state, stage.inputs[0])?, self.kept(state, stage.inputs[1])?);
        let width = x.len() / scale.len().max(1);
        let rows = rows_that_matter(cotangent, width);
        if rows.is_empty() {
            return Ok(());
        }
        let own = gather(cotangent, width, &rows, pool);
        let (x, scales) = (gather(&x, width, &rows, pool), gather(&scale, 1, &rows, pool));
        let (mut of_weight, mut of_bias) = (vec![0.0; width], vec![0.0; width]);
        match norm.kind {
            NormKind::Layer => {
                norm::layer_norm_weight_backward(&x, &scales, &own, &mut of_weight, Some(&mut of_bias));
            }
            NormKind::Rms => norm::rms_norm_weight_backward(&x, &scales, &own, &mut of_weight),
        }
        if let Some(weight) = weight {
            sums.add(weight, of_weight, pool);
        }
        if let Some(bias) = bias {
            sums.add(bias, of_bias, pool);
        }
        Ok(())
    }
}
