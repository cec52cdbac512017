//! Sums of products by the Einstein convention, two operands at a time from the left, each label summed as soon as
//! nothing later needs it.

use pellucid_graph::rules::equation::{Bound, Equation};
use pellucid_graph::shape::Symbol;
use pellucid_graph::{DType, Dimension};

use super::arguments::{Call, Operand};
use super::number::{Computation, Number, result_type, store};
use super::product::Layout;
use super::walk::{contiguous_strides, gather};
use super::{OperationError, Result};
use crate::tensor::{Elements, Tensor, element_count};

/// An operand, or a product so far, in row-major order; a label for each dimension.
struct Factor<'a, N: Number> {
    labels: Vec<usize>,
    shape: Vec<usize>,
    elements: Elements<'a, N>,
}

impl<'a, N: Number> Factor<'a, N> {
    /// An operand: its diagonal where labels are repeated, and without the dimensions of size 1 that are broadcast.
    fn new(tensor: &'a Tensor, own: &[usize], sizes: &[usize]) -> Result<Factor<'a, N>> {
        let (mut labels, mut shape, mut strides) = (Vec::new(), Vec::new(), Vec::new());
        for ((&label, &size), stride) in
            own.iter().zip(tensor.shape()).zip(contiguous_strides(tensor.shape()))
        {
            match labels.iter().position(|other| *other == label) {
                Some(place) if shape[place] == size => strides[place] += stride,
                Some(_) => {
                    return Err(OperationError::new("einsum: a label stands for two sizes in one operand"));
                }
                None => {
                    labels.push(label);
                    shape.push(size);
                    strides.push(stride);
                }
            }
        }
        let kept: Vec<usize> =
            (0..labels.len()).filter(|&place| shape[place] == sizes[labels[place]]).collect();
        let strides: Vec<isize> = kept.iter().map(|&place| strides[place]).collect();
        let shape: Vec<usize> = kept.iter().map(|&place| shape[place]).collect();
        let elements = N::elements(tensor)?;
        let plain = strides == contiguous_strides(&shape);
        let elements = if plain { elements } else { Elements::Owned(gather(&elements, 0, &shape, &strides)) };
        Ok(Factor { labels: kept.iter().map(|&place| labels[place]).collect(), shape, elements })
    }

    /// The same with the dimensions in the order of these labels, which must be its own.
    fn ordered(self, order: &[usize]) -> Factor<'a, N> {
        if self.labels == order {
            return self;
        }
        let own = contiguous_strides(&self.shape);
        let places: Vec<usize> =
            order.iter().filter_map(|label| self.labels.iter().position(|other| other == label)).collect();
        let shape: Vec<usize> = places.iter().map(|&place| self.shape[place]).collect();
        let strides: Vec<isize> = places.iter().map(|&place| own[place]).collect();
        let elements = Elements::Owned(gather(&self.elements, 0, &shape, &strides));
        Factor { labels: order.to_vec(), elements, shape }
    }

    /// The sum over the dimensions that are not to be kept.
    fn summed(self, keep: impl Fn(usize) -> bool) -> Factor<'a, N> {
        let (kept, gone): (Vec<usize>, Vec<usize>) = self.labels.iter().partition(|label| keep(**label));
        if gone.is_empty() {
            return self;
        }
        let ordered = self.ordered(&[kept.as_slice(), gone.as_slice()].concat());
        let (shape, rest) = ordered.shape.split_at(kept.len());
        let length: usize = rest.iter().product();
        let elements = if length == 0 {
            vec![N::default(); shape.iter().product()]
        } else {
            ordered.elements.chunks_exact(length).map(N::total).collect()
        };
        Factor { labels: kept, shape: shape.to_vec(), elements: Elements::Owned(elements) }
    }

    fn size(&self, labels: &[usize]) -> usize {
        let sizes = self.labels.iter().zip(&self.shape);
        sizes.filter(|(label, _)| labels.contains(label)).map(|(_, size)| size).product()
    }
}

/// The product of two, summed over what is not needed any more.
fn contracted<'a, N: Number>(
    left: Factor<'_, N>,
    right: Factor<'_, N>,
    kept: &[usize],
) -> Result<Factor<'a, N>> {
    let (left_labels, right_labels) = (left.labels.clone(), right.labels.clone());
    let left = left.summed(|label| kept.contains(&label) || right_labels.contains(&label));
    let right = right.summed(|label| kept.contains(&label) || left_labels.contains(&label));
    let (shared, only_left): (Vec<usize>, Vec<usize>) =
        left.labels.iter().partition(|label| right.labels.contains(label));
    let (batch, inner): (Vec<usize>, Vec<usize>) = shared.iter().partition(|label| kept.contains(label));
    let only_right: Vec<usize> =
        right.labels.iter().copied().filter(|label| !shared.contains(label)).collect();
    let left = left.ordered(&[&batch[..], &only_left, &inner].concat());
    // The right operand stays as it lies where its columns already stand before what is summed.
    let transposed = [&batch[..], &only_right, &inner].concat();
    let layout = if right.labels == transposed { Layout::ColumnsFirst } else { Layout::InnerFirst };
    let right = if right.labels == transposed {
        right
    } else {
        right.ordered(&[&batch[..], &inner, &only_right].concat())
    };
    let size_of = |label: &usize| {
        let places = left.labels.iter().zip(&left.shape).chain(right.labels.iter().zip(&right.shape));
        places.into_iter().find(|(other, _)| *other == label).map_or(1, |(_, size)| *size)
    };
    let labels = [batch.as_slice(), &only_left, &only_right].concat();
    let shape: Vec<usize> = labels.iter().map(size_of).collect();
    let mut elements = vec![N::default(); element_count(&shape)?];
    let (left_elements, right_elements): (&[N], &[N]) = (&left.elements, &right.elements);
    let (rows, depth, columns) = (left.size(&only_left), left.size(&inner), right.size(&only_right));
    for matrix in 0..left.size(&batch) {
        N::multiply(
            &left_elements[matrix * rows * depth..(matrix + 1) * rows * depth],
            &right_elements[matrix * depth * columns..(matrix + 1) * depth * columns],
            layout,
            &mut elements[matrix * rows * columns..(matrix + 1) * rows * columns],
            [rows, depth, columns],
        );
    }
    Ok(Factor { labels, shape, elements: Elements::Owned(elements) })
}

pub(super) fn einsum(call: &Call<'_>) -> Result<Tensor> {
    let (text, tensors) = (call.text(0)?, call.tensors(1)?);
    let shapes: Vec<Vec<Dimension>> = tensors
        .iter()
        .map(|tensor| tensor.shape().iter().map(|&size| Dimension::known(size as u64)).collect())
        .collect();
    let shapes: Vec<&[Dimension]> = shapes.iter().map(Vec::as_slice).collect();
    let bound = Equation::parse(text)?.bind(&shapes, &mut || Symbol::derived(0))?;
    let operands: Vec<Operand> = tensors.iter().cloned().map(Operand::Tensor).collect();
    let dtype = result_type(&operands.iter().collect::<Vec<_>>());
    let tensors: Vec<Tensor> = tensors.iter().map(|tensor| tensor.cast(dtype)).collect::<Result<_>>()?;
    contraction(&bound, &tensors)
}

/// The sum of products of tensors of one number type, whose dimensions have labels.
pub(super) fn contraction(bound: &Bound, tensors: &[Tensor]) -> Result<Tensor> {
    let dtype = tensors.first().map_or(DType::F32, Tensor::dtype);
    match Computation::of(dtype) {
        Computation::Double => sum_of_products::<f64>(bound, tensors, dtype),
        Computation::Single => sum_of_products::<f32>(bound, tensors, dtype),
        Computation::Integer => sum_of_products::<i64>(bound, tensors, dtype),
    }
}

fn sum_of_products<N: Number>(bound: &Bound, tensors: &[Tensor], dtype: DType) -> Result<Tensor> {
    let sizes: Vec<usize> = bound
        .sizes
        .iter()
        .map(|size| size.value().and_then(|size| usize::try_from(size).ok()).unwrap_or(0))
        .collect();
    let mut product: Option<Factor<'_, N>> = None;
    for ((labels, tensor), step) in bound.operands.iter().zip(tensors).zip(bound.steps()) {
        let factor = Factor::new(tensor, labels, &sizes)?;
        product = Some(match product {
            None => factor,
            Some(product) => contracted(product, factor, &step.kept)?,
        });
    }
    let product = product.ok_or_else(|| OperationError::new("einsum: there are no operands"))?;
    let result = product.summed(|label| bound.output.contains(&label)).ordered(&bound.output);
    // A lone operand is summed as `sum` does it, which widens integers.
    let sums = bound.sizes.len() > bound.output.len();
    let dtype = if tensors.len() == 1 && sums && dtype.is_integer() { DType::I64 } else { dtype };
    store(result.elements.into_vec(), &result.shape, dtype)
}
