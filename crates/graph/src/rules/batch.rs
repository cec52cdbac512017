//! Matrices of a batch: what each takes beside its elements, in time and in bytes.

use super::RuleContext;
use super::contraction::SHORT;
use super::room::{Room, product, together};
use super::weight::turned;
use crate::operation::OperationKind;
use crate::shape::TensorType;

/// A matrix that is decomposed: what a decomposition takes however small it is.
const DECOMPOSED: u64 = 10_000;
/// A matrix that is multiplied.
const MULTIPLIED: u64 = 300;
/// A row of a product that is so short that it takes longer than its elements.
const SHORT_ROW: u64 = 60;
/// A pair of rows whose angle is found.
const COMPARED: u64 = 300;
/// Of rows shorter than this the number counts too.
const SHORT_COMPARED: u64 = 16;

/// Bytes that describe a matrix, and what its elements begin at: lines of the cache.
const MATRIX_BYTES: u64 = 128;
/// Bytes that describe a vector, and the least that is given out for one.
const VECTOR_BYTES: u64 = 48;

/// The number of matrices in the last two dimensions, their rows and columns.
fn matrices(sizes: &[u64]) -> (u64, u64, u64) {
    match sizes {
        [batch @ .., rows, columns] => (product(batch), *rows, *columns),
        _ => (1, product(sizes), 1),
    }
}

/// Operations that an operation on many small matrices takes beside what their elements do.
pub(crate) fn calls(context: &RuleContext<'_>, outputs: &[TensorType]) -> u64 {
    use OperationKind::*;
    let room = Room::new(context.operation, context.type_of, outputs, super::ASSUMED_LENGTH);
    let kind = context.operation.kind;
    match kind {
        Matmul | Outer => {
            let (Some(left), Some(right)) = (room.tensor(0), room.tensor(1)) else { return 0 };
            let (left, mut right) = (room.sizes(&left), room.sizes(&right));
            if right.len() < 2 {
                right.insert(if kind == Outer { 0 } else { right.len() }, 1);
            }
            let (of_right, inner, columns) = matrices(&right);
            let made = outputs.first().map_or(0, |output| output.elements(super::ASSUMED_LENGTH));
            let rows = match kind {
                Outer => product(&left),
                _ => made / columns.max(1),
            };
            let count = match left.as_slice() {
                // One matrix on the right for all: one product.
                _ if of_right == 1 => 1,
                [_] => rows,
                [.., own, _] => rows / (*own).max(1),
                [] => 1,
            };
            let short = if inner.saturating_mul(columns) < SHORT { rows } else { 0 };
            // One product alone has nothing to be added up.
            let many = if count > 1 { count } else { 0 };
            many.saturating_mul(MULTIPLIED).saturating_add(short.saturating_mul(SHORT_ROW))
        }
        Einsum => {
            let Some(found) = room.contraction() else { return 0 };
            let dtype = room.listed(1).first().map_or(crate::DType::F32, |first| first.dtype);
            let many = if found.products > 1 { found.products } else { 0 };
            many.saturating_mul(MULTIPLIED)
                .saturating_add(found.short_rows.saturating_mul(SHORT_ROW))
                .saturating_add(found.ordered.saturating_mul(turned(dtype)))
        }
        CosineSimilarity => {
            let (Some(a), Some(b)) = (room.tensor(0), room.tensor(1)) else { return 0 };
            let pairs = outputs.first().map_or(0, |output| output.elements(super::ASSUMED_LENGTH));
            let all = product(&together(&[room.sizes(&a), room.sizes(&b)]));
            let is_short = all < pairs.saturating_mul(SHORT_COMPARED);
            if is_short { pairs.saturating_mul(COMPARED) } else { 0 }
        }
        Qr | Svd | Eigh | Cholesky | Inv | Det | SlogDet | Pinv | MatrixExp | Orthogonal | Solve | Lstsq => {
            let Some(input) = room.tensor(0) else { return 0 };
            let (count, rows, columns) = matrices(&room.sizes(&input));
            let times = match kind {
                Pinv | Lstsq => 2,
                MatrixExp | Orthogonal => 8,
                _ => 1,
            };
            // Right sides are solved for one by one.
            let solved = match kind {
                Solve | Lstsq => outputs.first().map_or(0, |output| {
                    output.elements(super::ASSUMED_LENGTH) / columns.max(1) / room.right_sides().max(1)
                }),
                _ => 0,
            };
            // Of one matrix the elements say all there is to say, unless it has none.
            let alone = count <= 1 && solved <= 1 && rows.saturating_mul(columns) > 0;
            if alone {
                return 0;
            }
            count.saturating_mul(times).saturating_add(solved).saturating_mul(DECOMPOSED)
        }
        _ => 0,
    }
}

/// Bytes of a matrix of doubles: its columns begin at lines of the cache.
fn matrix_bytes(rows: u64, columns: u64) -> u64 {
    rows.div_ceil(8).saturating_mul(64).saturating_mul(columns).saturating_add(MATRIX_BYTES)
}

fn vector_bytes(elements: u64) -> u64 {
    elements.saturating_mul(8).saturating_add(VECTOR_BYTES)
}

/// Bytes that a decomposition holds beside its operands and results.
pub(crate) fn decomposed(room: &Room<'_>) -> u64 {
    use OperationKind::*;
    let Some(input) = room.tensor(0) else { return 0 };
    let (count, rows, columns) = matrices(&room.sizes(&input));
    // One matrix at a time is copied, and worked on in a few more.
    let own = matrix_bytes(rows, columns).max(matrix_bytes(columns, rows));
    let one = match room.operation.kind {
        MatrixExp | Orthogonal => matrix_bytes(rows.max(columns), rows.max(columns)).saturating_mul(15),
        _ => own.saturating_mul(6),
    };
    let all = room.elements(&input).saturating_mul(8);
    let kept = match room.operation.kind {
        Det | SlogDet => count.saturating_mul(64),
        Solve | Lstsq => {
            let right = room.tensor(1).map_or(0, |right| room.elements(&right)).saturating_mul(8);
            let made = room.outputs.first().map_or(0, |output| room.elements(output));
            let each = columns.saturating_mul(room.right_sides()).max(1);
            // Both triangles and the order of rows of each; each right side's place, and its solution.
            let factored = own.saturating_mul(2).saturating_add(rows.saturating_mul(16));
            let solutions = (made / each).saturating_mul(vector_bytes(each).saturating_add(3 * 24 + 3 * 8));
            count
                .saturating_mul(factored.saturating_add(8))
                .saturating_add(right)
                .saturating_add(solutions)
                .saturating_add(made.saturating_mul(8))
        }
        _ => {
            let made = |output: &TensorType| {
                // Of a vector for each matrix the elements are handed on.
                let (_, rows, columns) = matrices(&room.sizes(output));
                let is_vector = output.shape.len() < input.shape.len();
                match is_vector {
                    true => vector_bytes(room.sizes(output).last().copied().unwrap_or(1)),
                    false => {
                        matrix_bytes(rows, columns).saturating_add(vector_bytes(rows.saturating_mul(columns)))
                    }
                }
            };
            let each = room.outputs.iter().map(made).fold(0, u64::saturating_add);
            // One result after the other is put together.
            let widest = room.outputs.iter().map(|output| room.elements(output)).max().unwrap_or(0);
            count.saturating_mul(each).saturating_add(widest.saturating_mul(8))
        }
    };
    one.saturating_add(all).saturating_add(kept)
}

impl Room<'_> {
    /// Columns of a system's right side; 1 where it is a vector for each matrix.
    pub(crate) fn right_sides(&self) -> u64 {
        let (Some(left), Some(right), Some(made)) = (self.tensor(0), self.tensor(1), self.outputs.first())
        else {
            return 1;
        };
        let batch = left.shape.len().max(right.shape.len());
        // A solution for vectors has a dimension less than its matrices.
        let is_vector = made.shape.len() < batch.max(2) || right.shape.len() == 1;
        if is_vector { 1 } else { made.shape.last().map_or(1, |last| last.assume(self.assumed)) }
    }
}
