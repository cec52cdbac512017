//! Sums of products by the Einstein convention, two operands at a time from the left.

use super::Result;
use super::arguments::{Call, Operand};
use super::number::{Computation, Number, result_type, store};
use super::product::multiply;
use super::walk::{contiguous_strides, gather};
use crate::tensor::{Tensor, element_count};

/// A dimension's name: a letter, or a place counted from the end of the ellipsis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(std::cmp::Reverse<usize>),
    Letter(char),
}

/// An equation, read.
struct Equation {
    inputs: Vec<Vec<Label>>,
    output: Vec<Label>,
}

/// The labels of one operand of so many dimensions.
fn labels(call: &Call<'_>, text: &str, rank: usize) -> Result<Vec<Label>> {
    let fault = || call.error(format!("{text:?} does not name the dimensions of a tensor of {rank}"));
    let (before, after) = match text.split_once("...") {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    };
    let letters = before.chars().chain(after.unwrap_or("").chars());
    if letters.clone().any(|letter| !letter.is_ascii_alphabetic()) {
        return Err(call.error(format!("{text:?} has something else than letters and one ellipsis")));
    }
    let hidden = rank.checked_sub(letters.count()).ok_or_else(fault)?;
    if hidden > 0 && after.is_none() {
        return Err(fault());
    }
    let hidden = (0..hidden).rev().map(|place| Label::Ellipsis(std::cmp::Reverse(place)));
    let letters = |text: &str| text.chars().map(Label::Letter).collect::<Vec<_>>();
    Ok(letters(before).into_iter().chain(hidden).chain(letters(after.unwrap_or(""))).collect())
}

fn parse(call: &Call<'_>, text: &str, ranks: &[usize]) -> Result<Equation> {
    let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (text.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != ranks.len() {
        return Err(call.error(format!(
            "{left:?} names {} operands, but there are {}",
            terms.len(),
            ranks.len()
        )));
    }
    let inputs: Vec<Vec<Label>> =
        terms.iter().zip(ranks).map(|(term, &rank)| labels(call, term, rank)).collect::<Result<_>>()?;
    let mut all: Vec<Label> = inputs.iter().flatten().copied().collect();
    all.sort_unstable();
    let hidden = all.iter().filter_map(|label| match label {
        Label::Ellipsis(place) => Some(place.0 + 1),
        Label::Letter(_) => None,
    });
    let hidden = hidden.max().unwrap_or(0);
    let output = match right {
        Some(right) => {
            let letters = right.replacen("...", "", 1).chars().count();
            labels(call, right, if right.contains("...") { letters + hidden } else { letters })?
        }
        // The ellipsis, then the letters that occur once, in alphabetical order.
        None => {
            let mut output = all.clone();
            output.dedup();
            output.retain(|label| {
                matches!(label, Label::Ellipsis(_)) || all.iter().filter(|other| *other == label).count() == 1
            });
            output
        }
    };
    for (place, label) in output.iter().enumerate() {
        if output[..place].contains(label) || !all.contains(label) {
            return Err(
                call.error(format!("the result's dimensions in {text:?} are not each one of the operands'"))
            );
        }
    }
    Ok(Equation { inputs, output })
}

/// An operand, or a product so far, in row-major order.
struct Factor<N> {
    labels: Vec<Label>,
    shape: Vec<usize>,
    elements: Vec<N>,
}

impl<N: Number> Factor<N> {
    /// An operand's diagonal where labels are repeated, and without the dimensions of size 1 that are broadcast.
    fn new(
        call: &Call<'_>,
        tensor: &Tensor,
        own: &[Label],
        size_of: &dyn Fn(Label) -> usize,
    ) -> Result<Factor<N>> {
        let (mut labels, mut shape, mut strides) = (Vec::new(), Vec::new(), Vec::new());
        for ((&label, &size), stride) in
            own.iter().zip(tensor.shape()).zip(contiguous_strides(tensor.shape()))
        {
            let place = labels.iter().position(|other| *other == label);
            match place {
                Some(place) if shape[place] == size => strides[place] += stride,
                Some(_) => return Err(call.error("a label stands for two sizes in one operand")),
                None => {
                    labels.push(label);
                    shape.push(size);
                    strides.push(stride);
                }
            }
        }
        let kept = |place: &usize| shape[*place] == size_of(labels[*place]);
        let places: Vec<usize> = (0..labels.len()).filter(kept).collect();
        let strides: Vec<isize> = places.iter().map(|&place| strides[place]).collect();
        let shape: Vec<usize> = places.iter().map(|&place| shape[place]).collect();
        let elements = N::elements(tensor)?;
        let plain = strides == contiguous_strides(&shape);
        let elements = if plain { elements.into_vec() } else { gather(&elements, 0, &shape, &strides) };
        Ok(Factor { labels: places.iter().map(|&place| labels[place]).collect(), shape, elements })
    }

    /// The same with the dimensions in the order of these labels, which must be its own.
    fn ordered(self, order: &[Label]) -> Factor<N> {
        if self.labels == order {
            return self;
        }
        let own = contiguous_strides(&self.shape);
        let places: Vec<usize> =
            order.iter().filter_map(|label| self.labels.iter().position(|other| other == label)).collect();
        let shape: Vec<usize> = places.iter().map(|&place| self.shape[place]).collect();
        let strides: Vec<isize> = places.iter().map(|&place| own[place]).collect();
        Factor { labels: order.to_vec(), elements: gather(&self.elements, 0, &shape, &strides), shape }
    }

    /// The sum over the dimensions that are not to be kept.
    fn summed(self, keep: impl Fn(Label) -> bool) -> Factor<N> {
        let (kept, gone): (Vec<Label>, Vec<Label>) = self.labels.iter().partition(|label| keep(**label));
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
        Factor { labels: kept, shape: shape.to_vec(), elements }
    }

    fn size(&self, labels: &[Label]) -> usize {
        let sizes = self.labels.iter().zip(&self.shape);
        sizes.filter(|(label, _)| labels.contains(label)).map(|(_, size)| size).product()
    }
}

/// The product of two, summed over what is not needed any more.
fn contracted<N: Number>(
    left: Factor<N>,
    right: Factor<N>,
    needed: impl Fn(Label) -> bool,
) -> Result<Factor<N>> {
    let (left_labels, right_labels) = (left.labels.clone(), right.labels.clone());
    let left = left.summed(|label| needed(label) || right_labels.contains(&label));
    let right = right.summed(|label| needed(label) || left_labels.contains(&label));
    let (shared, only_left): (Vec<Label>, Vec<Label>) =
        left.labels.iter().partition(|label| right.labels.contains(label));
    let (batch, inner): (Vec<Label>, Vec<Label>) = shared.iter().partition(|label| needed(**label));
    let only_right: Vec<Label> =
        right.labels.iter().copied().filter(|label| !shared.contains(label)).collect();
    let left = left.ordered(&[&batch[..], &only_left, &inner].concat());
    let right = right.ordered(&[&batch[..], &inner, &only_right].concat());
    let shape: Vec<usize> = left.shape[..batch.len() + only_left.len()]
        .iter()
        .chain(&right.shape[batch.len() + inner.len()..])
        .copied()
        .collect();
    let mut elements = vec![N::default(); element_count(&shape)?];
    let (rows, depth, columns) = (left.size(&only_left), left.size(&inner), right.size(&only_right));
    let matrices = left.size(&batch);
    for matrix in 0..matrices {
        multiply(
            &left.elements[matrix * rows * depth..(matrix + 1) * rows * depth],
            &right.elements[matrix * depth * columns..(matrix + 1) * depth * columns],
            &mut elements[matrix * rows * columns..(matrix + 1) * rows * columns],
            depth,
            columns,
        );
    }
    Ok(Factor { labels: [batch, only_left, only_right].concat(), shape, elements })
}

pub(super) fn einsum(call: &Call<'_>) -> Result<Tensor> {
    let (text, tensors) = (call.text(0)?, call.tensors(1)?);
    let ranks: Vec<usize> = tensors.iter().map(Tensor::rank).collect();
    let equation = parse(call, text, &ranks)?;
    let operands: Vec<Operand> = tensors.iter().cloned().map(Operand::Tensor).collect();
    let dtype = result_type(&operands.iter().collect::<Vec<_>>());
    let tensors: Vec<Tensor> = tensors.iter().map(|tensor| tensor.cast(dtype)).collect::<Result<_>>()?;
    match Computation::of(dtype) {
        Computation::Double => sum_of_products::<f64>(call, &equation, &tensors),
        Computation::Single => sum_of_products::<f32>(call, &equation, &tensors),
        Computation::Integer => sum_of_products::<i64>(call, &equation, &tensors),
    }
}

fn sum_of_products<N: Number>(call: &Call<'_>, equation: &Equation, tensors: &[Tensor]) -> Result<Tensor> {
    let mut sizes: Vec<(Label, usize)> = Vec::new();
    for (labels, tensor) in equation.inputs.iter().zip(tensors) {
        for (&label, &size) in labels.iter().zip(tensor.shape()) {
            match sizes.iter_mut().find(|(other, _)| *other == label) {
                Some((_, so_far)) if *so_far == size || size == 1 => {}
                Some((_, so_far)) if *so_far == 1 => *so_far = size,
                Some((_, so_far)) => {
                    let message = format!("a label stands for the sizes {so_far} and {size}");
                    return Err(call.error(message));
                }
                None => sizes.push((label, size)),
            }
        }
    }
    let size_of = |label: Label| sizes.iter().find(|(other, _)| *other == label).map_or(1, |(_, size)| *size);
    let mut product: Option<Factor<N>> = None;
    for (place, (labels, tensor)) in equation.inputs.iter().zip(tensors).enumerate() {
        let factor = Factor::new(call, tensor, labels, &size_of)?;
        let later = &equation.inputs[place + 1..];
        let needed = |label: Label| {
            equation.output.contains(&label) || later.iter().any(|labels| labels.contains(&label))
        };
        product = Some(match product {
            None => factor,
            Some(product) => contracted(product, factor, needed)?,
        });
    }
    let product = product.ok_or_else(|| call.error("there are no operands"))?;
    let result = product.summed(|label| equation.output.contains(&label)).ordered(&equation.output);
    let dtype = tensors.first().map_or(pellucid_graph::DType::F32, Tensor::dtype);
    store(result.elements, &result.shape, dtype)
}
