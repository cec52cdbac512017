//! Matrix products: against the reference, and bit for bit whatever the rows, threads and layout.

mod common;

use common::{assert_same_bits, normal, on_every_isa};
use half::{bf16, f16};
use pellucid_kernels::{
    Activation, Epilogue, NumberFormat, PackedMatrix, Precision, Residual, WeightLayout, WeightSource,
    activation, columns_computed, matmul, matmul_columns, matmul_f32, pool, reference,
};

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

fn product(x: &[f32], rows: usize, weights: &PackedMatrix) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows * weights.n()];
    matmul(x, weights.k(), rows, weights, &Epilogue::default(), &mut out, weights.n());
    out
}

/// Sums of k products each wrong by half an ulp, and k sums: |error| ≤ (k + 2) 2^-24 Σ|x w|, twice that without fused
/// multiply-adds.
#[test]
fn products_are_within_the_bound_of_the_reference() {
    on_every_isa(|isa| {
        for precision in PRECISIONS {
            for (rows, k, n) in [
                (1, 1, 1),
                (1, 64, 33),
                (3, 17, 100),
                (5, 769, 31),
                (13, 96, 64),
                (14, 1540, 65),
                (27, 5, 129),
                (110, 33, 40),
            ] {
                let weights = normal(1, k * n);
                let source = WeightSource::from_f32(&weights, WeightLayout::OutputMajor);
                let packed = PackedMatrix::pack(k, n, &source, precision);
                let x = normal(2, rows * k);
                let got = product(&x, rows, &packed);
                let want = reference::matmul(&x, rows, &packed);
                for (index, (got, want)) in got.iter().zip(&want).enumerate() {
                    let (row, column) = (index / n, index % n);
                    let size: f64 = (0..k)
                        .map(|i| f64::from((x[row * k + i] * packed.weight(i, column)).abs()) * 1.01)
                        .sum();
                    let bound = 2.0 * (k as f64 + 2.0) * 2.0_f64.powi(-24) * size;
                    assert!(
                        (f64::from(*got) - want).abs() <= bound,
                        "{} {precision:?} {rows}x{k}x{n} ({row}, {column}): {got} for {want}, bound {bound}",
                        isa.name()
                    );
                }
            }
        }
    });
}

#[test]
fn a_row_has_the_same_bits_alone_and_among_others_on_any_number_of_threads() {
    on_every_isa(|isa| {
        for precision in PRECISIONS {
            // Two blocks of k, a last panel that is not full.
            let (k, n) = (if precision == Precision::F32 { 790 } else { 1561 }, 139);
            let weights = normal(3, k * n);
            let source = WeightSource::from_f32(&weights, WeightLayout::InputMajor);
            let packed = PackedMatrix::pack(k, n, &source, precision);
            let x = normal(4, 230 * k);
            let alone: Vec<f32> =
                pool::with_threads(1, || x.chunks(k).flat_map(|row| product(row, 1, &packed)).collect());
            for rows in (1..=70).chain([103, 104, 105, 117, 230]) {
                for threads in if rows % 9 == 0 { vec![1, 2, 3, 5] } else { vec![2] } {
                    let first = (rows * 7) % (231 - rows);
                    let got =
                        pool::with_threads(threads, || product(&x[first * k..][..rows * k], rows, &packed));
                    let what = format!("{} {precision:?} {rows} rows, {threads} threads", isa.name());
                    assert_same_bits(&what, &got, &alone[first * n..][..rows * n]);
                }
            }
        }
    });
}

#[test]
fn the_epilogue_is_bias_then_activation_then_residual() {
    on_every_isa(|_| {
        let (rows, k, n) = (9, 40, 77);
        let packed = PackedMatrix::pack_f32(k, n, &normal(5, k * n), WeightLayout::InputMajor);
        let x = normal(6, rows * k);
        let (bias, residual) = (normal(7, n), normal(8, rows * (n + 3)));
        let plain = product(&x, rows, &packed);
        for activation in Activation::ALL.map(Some).into_iter().chain([None]) {
            let mut want: Vec<f32> = plain.iter().zip(bias.iter().cycle()).map(|(y, b)| y + b).collect();
            if let Some(activation) = activation {
                activation::apply(activation, &mut want);
            }
            for (row, want) in want.chunks_mut(n).enumerate() {
                want.iter_mut().zip(&residual[row * (n + 3)..]).for_each(|(y, r)| *y += r);
            }
            let epilogue = Epilogue {
                bias: Some(&bias),
                activation,
                residual: Some(Residual { values: &residual, row_stride: n + 3 }),
            };
            let mut got = vec![0.0; rows * (n + 5)];
            matmul(&x, k, rows, &packed, &epilogue, &mut got, n + 5);
            for (got, want) in got.chunks(n + 5).zip(want.chunks(n)) {
                assert_same_bits(&format!("{activation:?}"), &got[..n], want);
                assert!(got[n..].iter().all(|gap| *gap == 0.0), "the gap between rows was written to");
            }
        }
    });
}

#[test]
fn strided_rows_equal_contiguous_ones() {
    on_every_isa(|_| {
        let (rows, k, n, stride) = (21, 50, 40, 64);
        let packed = PackedMatrix::pack_f32(k, n, &normal(9, k * n), WeightLayout::InputMajor);
        let x = normal(10, (rows - 1) * stride + k);
        let contiguous: Vec<f32> = (0..rows).flat_map(|row| x[row * stride..][..k].to_vec()).collect();
        let mut got = vec![0.0; rows * n];
        matmul(&x, stride, rows, &packed, &Epilogue::default(), &mut got, n);
        assert_same_bits("strided", &got, &product(&contiguous, rows, &packed));
    });
}

#[test]
fn every_source_format_and_layout_packs_to_the_same_weights() {
    let (k, n) = (70, 45);
    // Numbers that all formats hold exactly.
    let weights: Vec<f32> = (0..k * n).map(|i| ((i * 37) % 201) as f32 / 8.0 - 12.0).collect();
    let transposed: Vec<f32> = (0..k * n).map(|i| weights[(i % k) * n + i / k]).collect();
    for (layout, numbers) in [(WeightLayout::InputMajor, &weights), (WeightLayout::OutputMajor, &transposed)]
    {
        let f32_bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let f16_bytes: Vec<u8> = numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
        let bf16_bytes: Vec<u8> = numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
        for (format, bytes) in
            [(NumberFormat::F32, f32_bytes), (NumberFormat::F16, f16_bytes), (NumberFormat::Bf16, bf16_bytes)]
        {
            // One byte in front: the source need not be aligned.
            let shifted: Vec<u8> = std::iter::once(0).chain(bytes).collect();
            for precision in PRECISIONS {
                let source = WeightSource { bytes: &shifted[1..], format, layout };
                let packed = PackedMatrix::pack(k, n, &source, precision);
                for (i, weight) in weights.iter().enumerate() {
                    assert_eq!(
                        packed.weight(i / n, i % n),
                        *weight,
                        "{format:?} {layout:?} {precision:?} {i}"
                    );
                }
            }
        }
    }
}

#[test]
fn weights_side_by_side_give_each_ones_products() {
    let (k, widths) = (33, [40, 7, 64]);
    let weights: Vec<Vec<f32>> = widths.iter().zip(20..).map(|(n, seed)| normal(seed, k * n)).collect();
    let layouts = [WeightLayout::OutputMajor, WeightLayout::InputMajor, WeightLayout::OutputMajor];
    let sources: Vec<_> =
        (0..3).map(|i| (widths[i], WeightSource::from_f32(&weights[i], layouts[i]))).collect();
    let x = normal(23, 4 * k);
    for precision in PRECISIONS {
        let whole = PackedMatrix::pack_side_by_side(k, &sources, precision);
        let got = product(&x, 4, &whole);
        let mut column = 0;
        for (n, source) in &sources {
            let want = product(&x, 4, &PackedMatrix::pack(k, *n, source, precision));
            for row in 0..4 {
                assert_same_bits(
                    "side by side",
                    &got[row * whole.n() + column..][..*n],
                    &want[row * n..][..*n],
                );
            }
            column += n;
        }
    }
}

#[test]
fn some_columns_have_the_bits_of_the_whole_product() {
    on_every_isa(|_| {
        for precision in PRECISIONS {
            let (k, n) = (45, 150);
            let weights = normal(30, k * n);
            let source = WeightSource::from_f32(&weights, WeightLayout::OutputMajor);
            let packed = PackedMatrix::pack(k, n, &source, precision);
            for rows in [1, 2, 15, 107, 300] {
                let (x, bias) = (normal(31, rows * k), normal(32, n));
                for bias in [Some(bias.as_slice()), None] {
                    let mut whole = vec![0.0; rows * n];
                    let epilogue = Epilogue { bias, ..Epilogue::default() };
                    matmul(&x, k, rows, &packed, &epilogue, &mut whole, n);
                    let columns = [149, 0, 31, 32, 33, 149, 100, 64];
                    let mut got = vec![f32::NAN; rows * columns.len()];
                    matmul_columns(&x, k, rows, &packed, bias, &columns, &mut got);
                    for (index, got) in got.iter().enumerate() {
                        let want = whole[index / columns.len() * n + columns[index % columns.len()]];
                        assert_eq!(got.to_bits(), want.to_bits(), "{precision:?}, {rows} rows: {index}");
                    }
                }
            }
        }
    });
    assert_eq!(columns_computed(&[]), 0);
    assert_eq!(columns_computed(&[149, 0, 31, 149]), 64);
}

#[test]
fn a_product_of_user_tensors_has_the_bits_of_a_packed_one() {
    on_every_isa(|_| {
        for (m, k, n) in [(1, 20, 50), (7, 1, 16), (40, 30, 31), (3, 0, 4), (2, 800, 33)] {
            let (a, b) = (normal(40, m * k), normal(41, k * n));
            for layout in [WeightLayout::InputMajor, WeightLayout::OutputMajor] {
                let mut got = vec![f32::NAN; m * n];
                matmul_f32(&a, &b, layout, m, k, n, &mut got);
                assert_same_bits("user", &got, &product(&a, m, &PackedMatrix::pack_f32(k, n, &b, layout)));
            }
        }
    });
}

#[test]
fn nan_and_infinity_reach_only_their_own_row_and_column() {
    on_every_isa(|_| {
        for precision in PRECISIONS {
            let (rows, k, n) = (15, 64, 70);
            let mut weights = normal(50, k * n);
            let mut x = normal(51, rows * k);
            let clean_weights = weights.clone();
            weights[5 * n + 37] = f32::NAN;
            let pack = |weights: &[f32]| {
                PackedMatrix::pack(
                    k,
                    n,
                    &WeightSource::from_f32(weights, WeightLayout::InputMajor),
                    precision,
                )
            };
            let clean = product(&x, rows, &pack(&clean_weights));
            x[3 * k + 9] = f32::INFINITY;
            let got = product(&x, rows, &pack(&weights));
            for (index, (got, clean)) in got.iter().zip(&clean).enumerate() {
                if index / n == 3 || index % n == 37 {
                    assert!(!got.is_finite(), "{precision:?} ({}, {})", index / n, index % n);
                } else {
                    assert_eq!(got.to_bits(), clean.to_bits());
                }
            }
        }
    });
}
