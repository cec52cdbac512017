//! What `einsum` makes on its way: the engine's steps with labels and sizes alone, without elements.

use super::equation::Bound;
use crate::shape::TensorType;

/// What the steps of a sum of products take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contraction {
    /// The most elements that are held at once beside the operands, the result included.
    pub peak: u64,
    /// Elements of the result where it is held by itself.
    pub result: u64,
    /// Elements that are copied into another order.
    pub ordered: u64,
    /// Matrices that are multiplied, and rows of them that are so short that each takes longer than its elements.
    pub products: u64,
    pub short_rows: u64,
    held: u64,
}

/// Elements of a matrix on the right below which a row of the product takes as long as with so many.
pub(crate) const SHORT: u64 = 64;

/// Elements of a right matrix of several columns from which on it is packed for a product, in panels of so many columns.
const PACKED_FROM: u64 = 4_096;
const PANEL: u64 = 32;
/// Elements from which on it begins at a huge page, which has so many itself.
const LARGE: u64 = 1 << 19;
const HUGE_PAGE: u64 = 1 << 19;

/// Elements of what a right matrix is packed into.
pub(crate) fn packed(inner: u64, columns: u64) -> u64 {
    match inner.saturating_mul(columns) {
        elements if columns > 1 && elements >= PACKED_FROM => {
            let panels = inner.saturating_mul(columns.div_ceil(PANEL).saturating_mul(PANEL));
            panels.saturating_add(if panels < LARGE { 0 } else { HUGE_PAGE })
        }
        _ => 0,
    }
}

/// An operand, or a product so far.
#[derive(Clone)]
struct Factor {
    labels: Vec<usize>,
    /// Elements that are held for it; 0: it is read where it lies.
    held: u64,
}

struct Steps<'a> {
    sizes: &'a [u64],
    found: Contraction,
}

impl Steps<'_> {
    fn elements(&self, labels: &[usize]) -> u64 {
        labels.iter().fold(1, |product: u64, &label| {
            product.saturating_mul(self.sizes.get(label).copied().unwrap_or(1))
        })
    }

    fn take(&mut self, elements: u64) {
        self.found.held = self.found.held.saturating_add(elements);
        self.found.peak = self.found.peak.max(self.found.held);
    }

    fn free(&mut self, elements: u64) {
        self.found.held = self.found.held.saturating_sub(elements);
    }

    /// The same with its dimensions in that order.
    fn ordered(&mut self, factor: Factor, order: &[usize]) -> Factor {
        if factor.labels == order {
            return factor;
        }
        let copy = self.elements(order);
        self.found.ordered = self.found.ordered.saturating_add(copy);
        self.take(copy);
        self.free(factor.held);
        Factor { labels: order.to_vec(), held: copy }
    }

    /// The sum over what is not kept.
    fn summed(&mut self, factor: Factor, keep: impl Fn(usize) -> bool) -> Factor {
        let (kept, gone): (Vec<usize>, Vec<usize>) = factor.labels.iter().partition(|label| keep(**label));
        if gone.is_empty() {
            return factor;
        }
        let ordered = self.ordered(factor, &[kept.as_slice(), gone.as_slice()].concat());
        let sums = self.elements(&kept);
        self.take(sums);
        self.free(ordered.held);
        Factor { labels: kept, held: sums }
    }

    fn contracted(&mut self, left: Factor, right: Factor, kept: &[usize]) -> Factor {
        let (left_labels, right_labels) = (left.labels.clone(), right.labels.clone());
        let left = self.summed(left, |label| kept.contains(&label) || right_labels.contains(&label));
        let right = self.summed(right, |label| kept.contains(&label) || left_labels.contains(&label));
        let (shared, only_left): (Vec<usize>, Vec<usize>) =
            left.labels.iter().partition(|label| right.labels.contains(label));
        let (batch, inner): (Vec<usize>, Vec<usize>) = shared.iter().partition(|label| kept.contains(label));
        let only_right: Vec<usize> =
            right.labels.iter().copied().filter(|label| !shared.contains(label)).collect();
        let left = self.ordered(left, &[&batch[..], &only_left, &inner].concat());
        let right = if right.labels == [&batch[..], &only_right, &inner].concat() {
            right
        } else {
            self.ordered(right, &[&batch[..], &inner, &only_right].concat())
        };
        let labels = [batch.as_slice(), &only_left, &only_right].concat();
        let (matrices, product) = (self.elements(&batch), self.elements(&labels));
        self.found.products = self.found.products.saturating_add(matrices);
        if self.elements(&inner).saturating_mul(self.elements(&only_right)) < SHORT {
            let rows = matrices.saturating_mul(self.elements(&only_left));
            self.found.short_rows = self.found.short_rows.saturating_add(rows);
        }
        self.take(product);
        let packed = packed(self.elements(&inner), self.elements(&only_right));
        self.take(packed);
        self.free(packed);
        self.free(left.held.saturating_add(right.held));
        Factor { labels, held: product }
    }
}

/// The steps over these operands; `converted`: their elements are brought into the type that is computed in first.
pub(crate) fn contraction(
    bound: &Bound,
    operands: &[TensorType],
    converted: bool,
    assumed: u64,
) -> Contraction {
    let sizes: Vec<u64> = bound.sizes.iter().map(|size| size.assume(assumed)).collect();
    let mut steps = Steps { sizes: &sizes, found: Contraction::default() };
    let mut product: Option<Factor> = None;
    for ((own, tensor), step) in bound.operands.iter().zip(operands).zip(bound.steps()) {
        let mut labels: Vec<usize> = Vec::new();
        for (&label, size) in own.iter().zip(&tensor.shape) {
            // What is broadcast along a dimension has none there.
            if !labels.contains(&label) && size.assume(assumed) == sizes[label] {
                labels.push(label);
            }
        }
        let all = tensor.elements(assumed);
        let is_diagonal = (1..own.len()).any(|place| own[..place].contains(&own[place]));
        let read = if converted { all } else { 0 };
        steps.take(read);
        let held = if is_diagonal { steps.elements(&labels) } else { read };
        if is_diagonal {
            steps.take(held);
            steps.free(read);
        }
        let factor = Factor { labels, held };
        product = Some(match product {
            None => factor,
            Some(product) => steps.contracted(product, factor, &step.kept),
        });
    }
    if let Some(product) = product {
        let sum = steps.summed(product, |label| bound.output.contains(&label));
        let result = steps.ordered(sum, &bound.output);
        steps.found.result = steps.elements(&result.labels);
        // What is still read where it lies is copied.
        if result.held == 0 {
            steps.take(steps.found.result);
        }
    }
    steps.found
}
