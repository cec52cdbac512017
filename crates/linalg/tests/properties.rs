//! What each decomposition promises, on random matrices, whole and of lower rank, and on those that have none.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pellucid_linalg::decomposition::{cholesky, eigh, qr, svd};
use pellucid_linalg::exponential::{OrthogonalMap, exponential, orthogonal};
use pellucid_linalg::solution::{Factored, cofactors, determinant, pseudo_inverse};
use pellucid_linalg::{LinearError, Matrix};
use proptest::prelude::*;

fn distance(a: &Matrix, b: &Matrix) -> f64 {
    assert_eq!((a.rows(), a.columns()), (b.rows(), b.columns()));
    a.minus(b).to_rows().into_iter().fold(0.0, |most, element| most.max(element.abs()))
}

fn orthonormal_columns(q: &Matrix) -> f64 {
    distance(&q.transposed().times(q), &Matrix::identity(q.columns()))
}

/// Up to 7 rows and columns, often of lower rank than they could be, now and then empty.
fn matrix() -> impl Strategy<Value = Matrix> {
    (0usize..8, 0usize..8, 0usize..8).prop_flat_map(|(rows, columns, rank)| {
        let rank = rank.min(rows).min(columns);
        let factor = |rows: usize, columns: usize| prop::collection::vec(-2.0f64..2.0, rows * columns);
        (factor(rows, rank), factor(rank, columns), factor(rows, columns), any::<bool>()).prop_map(
            move |(left, right, whole, product)| match product {
                true => Matrix::from_rows(&left, rows, rank).times(&Matrix::from_rows(&right, rank, columns)),
                false => Matrix::from_rows(&whole, rows, columns),
            },
        )
    })
}

fn square() -> impl Strategy<Value = Matrix> {
    (0usize..7).prop_flat_map(|size| {
        prop::collection::vec(-2.0f64..2.0, size * size)
            .prop_map(move |elements| Matrix::from_rows(&elements, size, size))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decompositions_make_the_matrix_again(a in matrix(), full: bool) {
        let found = qr(&a, full).unwrap();
        prop_assert!(distance(&found.q.times(&found.r), &a) < 1e-12);
        prop_assert!(orthonormal_columns(&found.q) < 1e-12);
        prop_assert_eq!(found.q.columns(), if full { a.rows() } else { a.rows().min(a.columns()) });
        for row in 0..found.r.rows() {
            for column in 0..found.r.columns() {
                let element = found.r.at(row, column);
                prop_assert!(column > row || (column == row && element >= 0.0) || element == 0.0);
            }
        }

        let found = svd(&a, full).unwrap();
        let count = found.s.len();
        let product = found.u.some_columns(0, count).with_columns_scaled(&found.s);
        prop_assert!(distance(&product.times(&found.vt.part(0, 0, count, a.columns())), &a) < 1e-12);
        prop_assert!(orthonormal_columns(&found.u) < 1e-12);
        prop_assert!(orthonormal_columns(&found.vt.transposed()) < 1e-12);
        prop_assert!(found.s.windows(2).all(|pair| pair[0] >= pair[1]) && found.s.iter().all(|&s| s >= 0.0));
        for column in 0..count {
            let elements: Vec<f64> = (0..a.rows()).map(|row| found.u.at(row, column)).collect();
            let largest = elements.iter().fold(0.0f64, |most, element| most.max(element.abs()));
            prop_assert!(elements.iter().any(|&element| element > 0.0 && element >= largest * (1.0 - 1e-8)));
        }

        let inverse = pseudo_inverse(&a, 1e-10).unwrap();
        prop_assert!(distance(&a.times(&inverse).times(&a), &a) < 1e-7);
        prop_assert!(distance(&a.times(&inverse), &a.times(&inverse).transposed()) < 1e-7);
    }

    #[test]
    fn square_matrices_are_solved_and_taken_apart(a in square()) {
        let size = a.rows();
        let symmetric = a.plus(&a.transposed());
        let found = eigh(&symmetric).unwrap();
        let product = found.vectors.with_columns_scaled(&found.values).times(&found.vectors.transposed());
        prop_assert!(distance(&product, &symmetric) < 1e-12);
        prop_assert!(orthonormal_columns(&found.vectors) < 1e-12);
        prop_assert!(found.values.windows(2).all(|pair| pair[0] <= pair[1]));

        let definite = a.times(&a.transposed()).plus(&Matrix::identity(size));
        let lower = cholesky(&definite).unwrap();
        prop_assert!(distance(&lower.times(&lower.transposed()), &definite) < 1e-12);
        prop_assert_eq!(&lower.lower(), &lower);

        // A cofactor row times the matrix's row is the determinant.
        let (whole, cofactors) = (determinant(&a).unwrap(), cofactors(&a).unwrap());
        prop_assert!(distance(&cofactors.times(&a.transposed()), &Matrix::identity(size).scaled(whole)) < 1e-9);
        if whole.abs() > 1e-3 {
            let factored = Factored::new(&a).unwrap();
            prop_assert!(distance(&a.times(&factored.inverse()), &Matrix::identity(size)) < 1e-9);
            prop_assert!(distance(&a.transposed().times(&factored.solve_transposed(&a)), &a) < 1e-9);
            let (sign, logarithm) = factored.log_determinant();
            prop_assert!((sign * logarithm.exp() - whole).abs() < 1e-9 * (1.0 + whole.abs()));
        }

        // exp(A) exp(−A) = 1, and exp(A + A) = exp(A)².
        let (forth, back) = (exponential(&a).unwrap(), exponential(&a.scaled(-1.0)).unwrap());
        prop_assert!(distance(&forth.times(&back), &Matrix::identity(size)) < 1e-8);
        let twice = exponential(&a.scaled(2.0)).unwrap();
        let scale = twice.to_rows().into_iter().fold(1.0f64, |most, element| most.max(element.abs()));
        prop_assert!(distance(&twice, &forth.times(&forth)) < 1e-11 * scale);
    }

    #[test]
    fn orthogonal_maps_give_orthonormal_columns_or_rows(a in matrix()) {
        for map in [OrthogonalMap::MatrixExponential, OrthogonalMap::Cayley, OrthogonalMap::Householder] {
            let q = orthogonal(&a, map).unwrap();
            prop_assert_eq!((q.rows(), q.columns()), (a.rows(), a.columns()));
            let tall = if q.rows() < q.columns() { q.transposed() } else { q };
            prop_assert!(orthonormal_columns(&tall) < 1e-12);
        }
    }
}

#[test]
fn what_has_no_answer_is_an_error() {
    let singular = Matrix::from_rows(&[1.0, 2.0, 2.0, 4.0], 2, 2);
    assert_eq!(Factored::new(&singular).err(), Some(LinearError::Singular { column: 1 }));
    assert_eq!(determinant(&singular), Ok(0.0));
    let indefinite = Matrix::from_rows(&[1.0, 0.0, 0.0, -1.0], 2, 2);
    assert_eq!(cholesky(&indefinite).err(), Some(LinearError::NotPositiveDefinite { order: 2 }));
    for wrong in [f64::NAN, f64::INFINITY] {
        let matrix = Matrix::from_rows(&[1.0, wrong, wrong, 1.0], 2, 2);
        assert_eq!(svd(&matrix, true).err(), Some(LinearError::NotFinite));
        assert_eq!(qr(&matrix, true).err(), Some(LinearError::NotFinite));
        assert_eq!(eigh(&matrix).err(), Some(LinearError::NotFinite));
        assert_eq!(cholesky(&matrix).err(), Some(LinearError::NotFinite));
        assert_eq!(exponential(&matrix).err(), Some(LinearError::NotFinite));
        assert_eq!(Factored::new(&matrix).err(), Some(LinearError::NotFinite));
    }
    // Numbers near the ends of the range neither panic nor hang.
    for scale in [1e-300, 1e300, f64::MAX, f64::MIN_POSITIVE] {
        let matrix = Matrix::from_rows(&[1.0, -0.5, 0.25, 1.0], 2, 2).scaled(scale);
        let _ =
            (svd(&matrix, true), qr(&matrix, true), eigh(&matrix), cholesky(&matrix), exponential(&matrix));
        let _ = (determinant(&matrix), cofactors(&matrix), pseudo_inverse(&matrix, 0.0));
    }
}
