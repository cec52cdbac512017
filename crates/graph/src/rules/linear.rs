//! Linear algebra on matrices in the last two dimensions; those before are a batch.

use crate::dtype::DType;
use crate::limits;
use crate::operation::OperationKind;
use crate::rules::{ASSUMED_LENGTH, RuleContext, RuleError, RuleResult, shape_text};
use crate::shape::{Dimension, TensorType};

/// The matrices of a tensor.
struct Matrices {
    tensor: TensorType,
    batch: Vec<Dimension>,
    rows: Dimension,
    columns: Dimension,
}

impl Matrices {
    fn read(context: &RuleContext<'_>, name: &str) -> Result<Matrices, RuleError> {
        let tensor = context.tensor(name)?;
        if !matches!(tensor.dtype, DType::F32 | DType::F64) {
            return Err(context
                .error(format!("takes matrices of f32 or f64, not {tensor}"))
                .hint("cast it first: `to(…, f32)`"));
        }
        let [batch @ .., rows, columns] = &tensor.shape[..] else {
            return Err(context.error(format!("takes matrices, of two dimensions or more, not {tensor}")));
        };
        let (batch, rows, columns) = (batch.to_vec(), rows.clone(), columns.clone());
        Ok(Matrices { tensor, batch, rows, columns })
    }

    fn square(context: &RuleContext<'_>, name: &str) -> Result<Matrices, RuleError> {
        let found = Matrices::read(context, name)?;
        if !found.rows.could_equal(&found.columns) {
            return Err(context.error(format!("takes square matrices, not {}", found.tensor)));
        }
        Ok(found)
    }

    /// The shorter side.
    fn shorter(&self, context: &mut RuleContext<'_>) -> Dimension {
        if self.rows == self.columns || self.columns.exceeds(&self.rows) {
            return self.rows.clone();
        }
        match (self.rows.value(), self.columns.value()) {
            (Some(rows), Some(columns)) => Dimension::known(rows.min(columns)),
            _ if self.rows.exceeds(&self.columns) => self.columns.clone(),
            _ => context.fresh_dimension(),
        }
    }

    fn of(&self, dimensions: &[&Dimension]) -> TensorType {
        let shape = self.batch.iter().chain(dimensions.iter().copied()).cloned().collect();
        TensorType { dtype: self.tensor.dtype, shape }
    }

    /// So many operations for the cube of the sides, for the whole batch. An error where one matrix alone takes more than
    /// is allowed, because nothing can interrupt it.
    fn cost(&self, context: &RuleContext<'_>, factor: u64) -> Result<u64, RuleError> {
        let one = |size: &dyn Fn(&Dimension) -> u64| {
            let (rows, columns) = (size(&self.rows), size(&self.columns));
            factor.saturating_mul(rows).saturating_mul(columns).saturating_mul(rows.min(columns))
        };
        let least = one(&Dimension::minimum);
        if least > limits::MATRIX_FLOPS {
            return Err(context
                .error(format!(
                    "of a matrix {} takes {least} operations, and {} is the most",
                    shape_text(&[self.rows.clone(), self.columns.clone()]),
                    limits::MATRIX_FLOPS
                ))
                .hint("take a smaller part, or project it to fewer dimensions first"));
        }
        let count =
            self.batch.iter().fold(1u64, |count, size| count.saturating_mul(size.assume(ASSUMED_LENGTH)));
        Ok(count.saturating_mul(one(&|size: &Dimension| size.assume(ASSUMED_LENGTH))))
    }
}

/// Orthonormal columns and an upper triangle.
pub(crate) fn qr(context: &mut RuleContext<'_>) -> RuleResult {
    let input = Matrices::read(context, "input")?;
    let flops = input.cost(context, 4)?;
    let kept = match context.text("mode")? {
        "reduced" => input.shorter(context),
        "complete" => input.rows.clone(),
        other => return Err(context.error(format!("takes as `mode` reduced or complete, not {other:?}"))),
    };
    context.all(vec![input.of(&[&input.rows, &kept]), input.of(&[&kept, &input.columns])], flops)
}

/// Left vectors, singular values, right vectors as rows.
pub(crate) fn svd(context: &mut RuleContext<'_>) -> RuleResult {
    let input = Matrices::read(context, "input")?;
    let flops = input.cost(context, 20)?;
    let count = input.shorter(context);
    let (left, right) = if context.boolean("full_matrices")? {
        (input.rows.clone(), input.columns.clone())
    } else {
        (count.clone(), count.clone())
    };
    let outputs =
        vec![input.of(&[&input.rows, &left]), input.of(&[&count]), input.of(&[&right, &input.columns])];
    context.all(outputs, flops)
}

/// Eigenvalues and eigenvectors.
pub(crate) fn eigh(context: &mut RuleContext<'_>) -> RuleResult {
    let input = Matrices::square(context, "input")?;
    let flops = input.cost(context, 12)?;
    context.all(vec![input.of(&[&input.rows]), input.tensor.clone()], flops)
}

/// Square matrices in, as many of the same size out.
pub(crate) fn square_matrix(context: &mut RuleContext<'_>) -> RuleResult {
    let input = Matrices::square(context, "input")?;
    let factor = match context.operation.kind {
        OperationKind::Cholesky => 1,
        OperationKind::Inv => 3,
        _ => 40,
    };
    let flops = input.cost(context, factor)?;
    context.one(input.tensor.dtype, input.tensor.shape, flops)
}

/// A number for each matrix; two: the sign and the logarithm.
pub(crate) fn determinant(context: &mut RuleContext<'_>) -> RuleResult {
    let input = Matrices::square(context, "input")?;
    let flops = input.cost(context, 1)?;
    let one = input.of(&[]);
    let outputs =
        if context.operation.kind == OperationKind::SlogDet { vec![one.clone(), one] } else { vec![one] };
    context.all(outputs, flops)
}

/// A tolerance is not negative.
fn tolerance(context: &RuleContext<'_>, name: &str) -> Result<(), RuleError> {
    match context.optional_number(name)? {
        Some(number) if number.as_f64().is_nan() || number.as_f64() < 0.0 => {
            Err(context.error(format!("takes as `{name}` a number from 0 on, not {number}")))
        }
        _ => Ok(()),
    }
}

/// The sides swapped.
pub(crate) fn pinv(context: &mut RuleContext<'_>) -> RuleResult {
    let input = Matrices::read(context, "input")?;
    tolerance(context, "rtol")?;
    let flops = input.cost(context, 22)?;
    context.all(vec![input.of(&[&input.columns, &input.rows])], flops)
}

/// A solution for each column of the right side, or for the vector that it is.
pub(crate) fn solve(context: &mut RuleContext<'_>) -> RuleResult {
    let least_squares = context.operation.kind == OperationKind::Lstsq;
    let a = if least_squares { Matrices::read(context, "A")? } else { Matrices::square(context, "A")? };
    let b = context.tensor("B")?;
    if least_squares {
        tolerance(context, "rcond")?;
    }
    let flops = a.cost(context, if least_squares { 22 } else { 1 })?;
    let vector = b.shape.len() == 1
        || (b.shape.len() + 1 == a.tensor.shape.len() && b.shape[..] == a.tensor.shape[..b.shape.len()]);
    let (batch, rows, columns) = match &b.shape[..] {
        [batch @ .., rows] if vector => (batch, rows, None),
        [batch @ .., rows, columns] => (batch, rows, Some(columns)),
        _ => return Err(context.error(format!("takes as `B` a vector or matrices, not {b}"))),
    };
    if b.dtype != a.tensor.dtype {
        return Err(context
            .error(format!("takes `A` and `B` of one number type, not {} and {b}", a.tensor))
            .hint(format!("cast one of them first: `to(…, {})`", a.tensor.dtype)));
    }
    if !rows.could_equal(&a.rows) {
        return Err(
            context.error(format!("takes as many rows in `B` as in `A`: {b} does not go with {}", a.tensor))
        );
    }
    let mut shape = context.broadcast_shapes(&a.batch, batch)?;
    let count = shape.iter().fold(1u64, |count, size| count.saturating_mul(size.assume(ASSUMED_LENGTH)));
    let side = |size: &Dimension| size.assume(ASSUMED_LENGTH);
    let one = side(&a.rows)
        .saturating_mul(side(&a.columns))
        .saturating_mul(columns.map_or(1, side))
        .saturating_mul(2);
    shape.push(a.columns.clone());
    shape.extend(columns.cloned());
    context.one(b.dtype, shape, flops.saturating_add(count.saturating_mul(one)))
}

/// Free parameters in, orthonormal columns (rows, of a wide one) out.
pub(crate) fn orthogonal(context: &mut RuleContext<'_>) -> RuleResult {
    let input = Matrices::read(context, "input")?;
    let map = context.text("orthogonal_map")?;
    if !matches!(map, "matrix_exp" | "cayley" | "householder") {
        return Err(context
            .error(format!("takes as `orthogonal_map` matrix_exp, cayley or householder, not {map:?}")));
    }
    // The exponential is of a square matrix of the longer side.
    let longer = Matrices { columns: input.rows.clone(), ..Matrices::read(context, "input")? };
    let wider = Matrices { rows: input.columns.clone(), ..Matrices::read(context, "input")? };
    let factor = if map == "matrix_exp" { 40 } else { 4 };
    let flops = longer.cost(context, factor)?.max(wider.cost(context, factor)?);
    context.one(input.tensor.dtype, input.tensor.shape, flops)
}
