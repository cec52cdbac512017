//! Decompositions can be stopped on the way, and the numbers that make it so have the bits of `f64`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use faer::{Mat, MatRef, Side};
use pellucid_kernels::Stoppable;
use pellucid_kernels::pool::{Stopped, stoppable};
use pellucid_linalg::decomposition::{cholesky, eigh, qr, svd};
use pellucid_linalg::exponential::exponential;
use pellucid_linalg::solution::Factored;
use pellucid_linalg::{LinearError, Matrix};

/// Numbers between −1 and 1 by a linear congruence.
fn numbers(count: usize) -> Vec<f64> {
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((*state >> 33) as f64 / f64::from(1u32 << 30) - 1.0)
    };
    std::iter::repeat_n((), count).scan(1u64, |state, ()| next(state)).collect()
}

fn assert_same(what: &str, ours: MatRef<'_, Stoppable>, plain: MatRef<'_, f64>) {
    assert_eq!(ours.shape(), plain.shape(), "{what}");
    for column in 0..plain.ncols() {
        for row in 0..plain.nrows() {
            let (ours, plain) = (ours[(row, column)].0, plain[(row, column)]);
            assert_eq!(ours.to_bits(), plain.to_bits(), "{what} at {row}, {column}: {ours} and {plain}");
        }
    }
}

#[test]
fn numbers_that_can_be_stopped_have_the_bits_of_those_that_cannot() {
    for (rows, columns) in [(1, 1), (3, 2), (7, 7), (30, 45), (64, 64), (150, 131), (200, 200)] {
        let elements = numbers(rows * columns);
        let plain = Mat::from_fn(rows, columns, |row, column| elements[row * columns + column]);
        let ours = Mat::from_fn(rows, columns, |row, column| Stoppable(plain[(row, column)]));

        let (a, b) = (ours.svd().unwrap(), plain.svd().unwrap());
        assert_same("U", a.U(), b.U());
        assert_same("V", a.V(), b.V());
        assert_same("S", a.S().column_vector().as_mat(), b.S().column_vector().as_mat());
        let (a, b) = (ours.qr(), plain.qr());
        assert_same("Q", a.compute_Q().as_ref(), b.compute_Q().as_ref());
        assert_same("R", a.thin_R(), b.thin_R());

        let (ours, plain) = (&ours * ours.transpose(), &plain * plain.transpose());
        assert_same("product", ours.as_ref(), plain.as_ref());
        let shifted =
            (&ours + Mat::<Stoppable>::identity(rows, rows), &plain + Mat::<f64>::identity(rows, rows));
        let (a, b) =
            (ours.self_adjoint_eigen(Side::Lower).unwrap(), plain.self_adjoint_eigen(Side::Lower).unwrap());
        assert_same("eigenvectors", a.U(), b.U());
        assert_same("eigenvalues", a.S().column_vector().as_mat(), b.S().column_vector().as_mat());
        let (a, b) = (shifted.0.llt(Side::Lower).unwrap(), shifted.1.llt(Side::Lower).unwrap());
        assert_same("L of Cholesky", a.L(), b.L());
        let (a, b) = (shifted.0.partial_piv_lu(), shifted.1.partial_piv_lu());
        assert_same("U of elimination", a.U(), b.U());
    }
}

#[test]
fn each_can_be_stopped_on_the_way() {
    let size = 1400;
    let elements = numbers(size * size);
    let a = Matrix::from_rows(&elements, size, size);
    let symmetric = a.plus(&a.transposed());
    let positive = a.times(&a.transposed()).plus(&Matrix::identity(size));
    type Work<'a> = Box<dyn Fn() -> Result<(), LinearError> + 'a>;
    let long: [(&str, Work<'_>); 4] = [
        ("singular values", Box::new(|| svd(&a, true).map(|_| ()))),
        ("eigenvalues", Box::new(|| eigh(&symmetric).map(|_| ()))),
        ("QR", Box::new(|| qr(&a, true).map(|_| ()))),
        ("exponential", Box::new(|| exponential(&a).map(|_| ()))),
    ];
    for (what, work) in long {
        let stop = Arc::new(AtomicBool::new(false));
        let later = Arc::clone(&stop);
        let stopper = thread::spawn(move || {
            thread::sleep(Duration::from_millis(40));
            later.store(true, Ordering::Relaxed);
        });
        assert_eq!(stoppable(&stop, || work().unwrap()), Err(Stopped), "{what}");
        stopper.join().unwrap();
    }
    // These take no longer than a moment: they stop where they begin.
    let stop = Arc::new(AtomicBool::new(true));
    assert_eq!(stoppable(&stop, || cholesky(&positive).unwrap().rows()), Err(Stopped));
    assert_eq!(stoppable(&stop, || Factored::new(&a).unwrap().inverse().rows()), Err(Stopped));
    assert_eq!(stoppable(&stop, || a.times(&a).rows()), Err(Stopped));
}
