//! A model's weights in the forms that kernels take.

use std::sync::OnceLock;

use pellucid_kernels::{PackedMatrix, Precision, WeightLayout};

use crate::model::{ModelOptions, Progress};
use crate::parameter::{Numbers, Parameter};
use crate::stage::{Kernel, LinearLayout, StageList, WeightSpec};
use crate::weights::RawTensor;

/// One weight in the forms that kernels take: a model's own, or one that a program puts in its place.
#[derive(Debug)]
pub struct ModelWeight {
    pub(crate) shape: Vec<usize>,
    pub(crate) numbers: Numbers,
    precision: Precision,
    /// How linear layers read it, if any does.
    pub(crate) layout: Option<WeightLayout>,
    packed: Option<PackedMatrix>,
    /// Made when a gradient first flows through it.
    transposed: OnceLock<PackedMatrix>,
    /// A norm's weight, a bias.
    vector: Option<Vec<f32>>,
}

impl ModelWeight {
    pub(crate) fn new(
        shape: &[usize],
        numbers: Numbers,
        layout: Option<WeightLayout>,
        precision: Precision,
    ) -> Self {
        let parameter = Parameter { shape, numbers: &numbers };
        let packed = layout.map(|layout| parameter.pack(layout, precision));
        let vector = (shape.len() == 1).then(|| parameter.to_f32());
        let transposed = OnceLock::new();
        Self { shape: shape.to_vec(), numbers, precision, layout, packed, transposed, vector }
    }

    /// The weight as it is stored, or as it was given.
    #[must_use]
    pub fn parameter(&self) -> Parameter<'_> {
        Parameter { shape: &self.shape, numbers: &self.numbers }
    }

    /// Packed for linear layers; `None` for a weight that no linear layer has.
    #[must_use]
    pub fn packed(&self) -> Option<&PackedMatrix> {
        self.packed.as_ref()
    }

    /// Packed for the way back, from outputs to inputs, when it is first asked for.
    #[must_use]
    pub fn packed_transposed(&self) -> Option<&PackedMatrix> {
        let layout = self.layout?;
        Some(self.transposed.get_or_init(|| self.parameter().pack_transposed(layout, self.precision)))
    }

    /// The numbers of a weight of one dimension.
    #[must_use]
    pub fn vector(&self) -> Option<&[f32]> {
        self.vector.as_deref()
    }

    /// Rows and width, of a weight of two dimensions.
    #[must_use]
    pub fn table_shape(&self) -> Option<(usize, usize)> {
        match self.shape.as_slice() {
            [rows, width] => Some((*rows, *width)),
            _ => None,
        }
    }

    /// Copies a row out.
    ///
    /// # Panics
    /// Where there is no such row, or `values` is not as long as a row.
    pub fn table_row(&self, row: usize, values: &mut [f32]) {
        values.copy_from_slice(&self.parameter().rows_to_f32(row..row + 1));
    }

    /// The bytes that its packed forms and its numbers take in memory; what is mapped from a file takes none.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let packed = self.packed.as_ref().map_or(0, PackedMatrix::size_in_bytes);
        let transposed = self.transposed.get().map_or(0, PackedMatrix::size_in_bytes);
        let given = if let Numbers::Given(values) = &self.numbers { 4 * values.len() } else { 0 };
        packed + transposed + given + self.vector.as_ref().map_or(0, |vector| 4 * vector.len())
    }
}

/// How linear layers read each weight; `None` for one that none has.
fn layouts(stages: &StageList) -> Vec<Option<WeightLayout>> {
    let mut layouts = vec![None; stages.weights.len()];
    for stage in &stages.stages {
        if let Kernel::Linear { weight, layout, .. } = &stage.kernel {
            layouts[weight.0 as usize] = Some(match layout {
                LinearLayout::OutputInput => WeightLayout::OutputMajor,
                LinearLayout::InputOutput => WeightLayout::InputMajor,
            });
        }
    }
    layouts
}

/// What is to be known of weights before they are loaded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Forecast {
    /// The bytes that they will take in memory: of each number four or two, or what its block takes. A table that is only
    /// read by the row takes none, and is counted all the same.
    pub(crate) bytes: u64,
    /// Whether a linear layer's weight is stored in blocks.
    pub(crate) quantised: bool,
}

impl Forecast {
    /// Of weights as they are stored: `stored` gives the tensor of each, where there is one.
    pub(crate) fn new(
        stages: &StageList,
        precision: Precision,
        stored: impl Fn(&WeightSpec) -> Option<RawTensor>,
    ) -> Self {
        let mut forecast = Self::default();
        for (weight, layout) in stages.weights.iter().zip(layouts(stages)) {
            let numbers = weight.shape.iter().product::<usize>();
            let block_bytes = || {
                let tensor = stored(weight).filter(|tensor| tensor.shape == weight.shape)?;
                Some(tensor.output_blocks(layout?)?.form.block_bytes())
            };
            forecast.bytes +=
                match (precision, (precision == Precision::Quantised).then(block_bytes).flatten()) {
                    (Precision::Quantised, Some(block_bytes)) => {
                        forecast.quantised = true;
                        numbers / 32 * block_bytes
                    }
                    (Precision::Bf16, _) => 2 * numbers,
                    (Precision::F32 | Precision::Quantised, _) => 4 * numbers,
                } as u64;
        }
        forecast
    }
}

/// Packs what linear layers read, and reads what is small.
pub(crate) fn load(stages: &StageList, numbers: Vec<Numbers>, options: &ModelOptions) -> Vec<ModelWeight> {
    let layouts = layouts(stages);
    let bytes = |weight: &WeightSpec| 4 * weight.shape.iter().product::<usize>() as u64;
    let total = stages.weights.iter().map(bytes).sum();
    let mut done = 0;
    let mut report = |bytes: u64| {
        done += bytes;
        if let Some(progress) = &options.progress {
            progress(Progress { what: "loading weights", done, total: Some(total) });
        }
    };
    report(0);
    let weights = stages.weights.iter().zip(numbers).zip(layouts).map(|((spec, numbers), layout)| {
        let weight = ModelWeight::new(&spec.shape, numbers, layout, options.precision);
        report(bytes(spec));
        weight
    });
    let weights: Vec<ModelWeight> = weights.collect();
    for weight in &weights {
        if let Numbers::Stored(tensor) = &weight.numbers {
            tensor.release_file();
        }
    }
    weights
}
