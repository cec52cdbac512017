//! Milliseconds of one thread for products of 1 and of 32 rows with GPT-2 small's matrices: the least of many, in
//! which what else runs on the machine shows least. `docs/language.md` sets it beside PyTorch's, whose order of sums depends on the rows.

#![allow(clippy::print_stdout, reason = "a measurement")]

use std::time::{Duration, Instant};

use pellucid_kernels::{Epilogue, PackedMatrix, Precision, WeightLayout, WeightSource, matmul};

fn main() {
    for (k, n) in [(768, 2304), (768, 3072), (3072, 768), (768, 50257)] {
        let weight: Vec<f32> = (0..k * n).map(|at| ((at * 7919) % 1009) as f32 / 1009.0 - 0.5).collect();
        let source = WeightSource::from_f32(&weight, WeightLayout::OutputMajor);
        let packed = PackedMatrix::pack(k, n, &source, Precision::F32);
        for rows in [1, 32] {
            let x: Vec<f32> = (0..rows * k).map(|at| ((at * 31) % 97) as f32 / 97.0 - 0.5).collect();
            let mut y = vec![0.0; rows * n];
            let (begun, mut least) = (Instant::now(), Duration::MAX);
            while begun.elapsed() < Duration::from_secs(2) {
                let before = Instant::now();
                matmul(&x, k, rows, &packed, &Epilogue::default(), &mut y, n);
                least = least.min(before.elapsed());
            }
            println!("{rows} × {k} by {n}: {:.3} ms", least.as_secs_f64() * 1000.0);
        }
    }
}
