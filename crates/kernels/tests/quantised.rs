//! Products of weights in blocks: bit for bit those of the same weights packed as `f32`.

mod common;

use common::{assert_same_bits, normal, on_every_isa};
use half::f16;
use pellucid_kernels::philox::Stream;
use pellucid_kernels::{
    Activation, Block, BlockForm, Epilogue, PackedMatrix, Precision, Residual, WeightLayout, matmul,
    matmul_columns, pool, reference,
};

const BLOCK: usize = 32;

fn forms() -> impl Iterator<Item = BlockForm> {
    (0..8).map(|bits| BlockForm {
        four_bits: bits & 1 != 0,
        offsets: bits & 2 != 0,
        two_scales: bits & 4 != 0,
    })
}

/// The blocks of an `[n, k]` weight, a function of the seed alone. Scales and offsets are those that GGUF's types can have:
/// a number of half precision times a whole one of six bits.
struct Blocks {
    form: BlockForm,
    stream: Stream,
    per_output: usize,
    /// A scale that now and then stands in the place of a common one.
    rare: f32,
}

impl Blocks {
    fn new(form: BlockForm, seed: u64, k: usize) -> Self {
        Self { form, stream: Stream { key: 77, stream: seed }, per_output: k / BLOCK, rare: -0.0 }
    }

    fn block(&self, output: usize, index: usize) -> Block {
        let first = (output * self.per_output + index) as u64 * 64;
        let word = |at: u64| self.stream.word(first + at);
        let numbers = std::array::from_fn(|at| {
            let byte = (word(at as u64) >> 24) as u8;
            match (self.form.four_bits, self.form.offsets) {
                (true, true) => (byte & 15) as i8,
                (true, false) => (byte & 15) as i8 - 8,
                (false, _) => byte as i8,
            }
        });
        let scale = |at: u64| {
            if word(at).is_multiple_of(11) {
                return self.rare;
            }
            let half = f16::from_f32(self.stream.normal(first + at + 1) / 64.0).to_f32();
            half * (word(at + 2) % 64) as f32
        };
        let first_scale = scale(40);
        let second = if self.form.two_scales { scale(44) } else { first_scale };
        let offset = self.form.offsets.then(|| -scale(48));
        Block { numbers, scales: [first_scale, second], offset }
    }

    /// The weights, `[n, k]`.
    fn weights(&self, n: usize) -> Vec<f32> {
        (0..n)
            .flat_map(|output| (0..self.per_output).map(move |index| (output, index)))
            .flat_map(|(output, index)| self.block(output, index).weights())
            .collect()
    }

    fn pack(&self, n: usize) -> PackedMatrix {
        let k = self.per_output * BLOCK;
        PackedMatrix::pack_blocks(k, n, self.form, |output, index| self.block(output, index))
    }

    fn pack_transposed(&self, n: usize) -> PackedMatrix {
        let k = self.per_output * BLOCK;
        PackedMatrix::pack_blocks_transposed(k, n, self.form, |output, index| self.block(output, index))
    }
}

fn product(x: &[f32], rows: usize, weights: &PackedMatrix) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows * weights.n()];
    matmul(x, weights.k(), rows, weights, &Epilogue::default(), &mut out, weights.n());
    out
}

#[test]
fn every_weight_is_what_its_block_says() {
    for form in forms() {
        let (k, n) = (96, 70);
        let blocks = Blocks::new(form, 1, k);
        let weights = blocks.weights(n);
        let (packed, back) = (blocks.pack(n), blocks.pack_transposed(n));
        assert_eq!((packed.k(), packed.n(), packed.precision()), (k, n, Precision::Quantised));
        assert_eq!((back.k(), back.n(), back.precision()), (n, k, Precision::Quantised));
        for output in 0..n {
            for input in 0..k {
                let weight = weights[output * k + input].to_bits();
                assert_eq!(packed.weight(input, output).to_bits(), weight, "{form:?} ({output}, {input})");
                assert_eq!(back.weight(output, input).to_bits(), weight, "{form:?} ({output}, {input})");
            }
        }
    }
}

#[test]
fn products_have_the_bits_of_the_same_weights_as_f32() {
    on_every_isa(|isa| {
        for form in forms() {
            for (seed, (k, n)) in
                (1..).zip([(32, 1), (64, 33), (96, 200), (416, 15), (800, 65), (800, 120), (32, 300)])
            {
                let blocks = Blocks::new(form, seed, k);
                let weights = blocks.weights(n);
                let pairs = [
                    (blocks.pack(n), PackedMatrix::pack_f32(k, n, &weights, WeightLayout::OutputMajor)),
                    (
                        blocks.pack_transposed(n),
                        PackedMatrix::pack_f32(n, k, &weights, WeightLayout::InputMajor),
                    ),
                ];
                for (quantised, plain) in &pairs {
                    let k = plain.k();
                    for rows in [1, 2, 3, 5, 8, 13, 14, 30, 120] {
                        if rows * plain.k() * plain.n() > 1_500_000 {
                            continue;
                        }
                        let x = normal(seed + 40, rows * k);
                        let what = format!("{} {form:?} {rows}x{k}x{}", isa.name(), plain.n());
                        assert_same_bits(&what, &product(&x, rows, quantised), &product(&x, rows, plain));
                    }
                }
            }
        }
    });
}

/// The plain loops in `f64` know nothing of panels, squares or tiles.
#[test]
fn products_are_within_the_bound_of_the_reference() {
    on_every_isa(|isa| {
        for form in forms() {
            let (rows, k, n) = (3, 160, 40);
            let blocks = Blocks::new(form, 9, k);
            let (packed, weights) = (blocks.pack(n), blocks.weights(n));
            let x = normal(10, rows * k);
            let want = reference::matmul(&x, rows, &packed);
            for (index, (got, want)) in product(&x, rows, &packed).iter().zip(&want).enumerate() {
                let (row, column) = (index / n, index % n);
                let (x, weights) = (&x[row * k..][..k], &weights[column * k..][..k]);
                let size: f64 = x.iter().zip(weights).map(|(x, w)| f64::from((x * w).abs()) * 1.01).sum();
                let bound = 2.0 * (k as f64 + 2.0) * 2.0_f64.powi(-24) * size;
                let error = (f64::from(*got) - want).abs();
                assert!(error <= bound, "{} {form:?} ({row}, {column}): {got} for {want}", isa.name());
            }
        }
    });
}

#[test]
fn a_row_has_the_same_bits_alone_and_among_others_on_any_number_of_threads() {
    on_every_isa(|isa| {
        for form in forms() {
            let (k, n) = (128, 139);
            let packed = Blocks::new(form, 3, k).pack(n);
            let x = normal(4, 120 * k);
            let alone: Vec<f32> =
                pool::with_threads(1, || x.chunks(k).flat_map(|row| product(row, 1, &packed)).collect());
            for rows in [2, 4, 7, 13, 27, 104, 117] {
                for threads in [1, 2, 3] {
                    let first = (rows * 7) % (121 - rows);
                    let got =
                        pool::with_threads(threads, || product(&x[first * k..][..rows * k], rows, &packed));
                    let what = format!("{} {form:?} {rows} rows, {threads} threads", isa.name());
                    assert_same_bits(&what, &got, &alone[first * n..][..rows * n]);
                }
            }
        }
    });
}

#[test]
fn strides_the_epilogue_and_single_columns_are_as_with_f32() {
    on_every_isa(|_| {
        for form in forms() {
            let (rows, k, n) = (9, 288, 77);
            let blocks = Blocks::new(form, 5, k);
            let quantised = blocks.pack(n);
            let plain = PackedMatrix::pack_f32(k, n, &blocks.weights(n), WeightLayout::OutputMajor);
            let x = normal(6, rows * (k + 5));
            let (bias, residual) = (normal(7, n), normal(8, rows * (n + 3)));
            let epilogue = Epilogue {
                bias: Some(&bias),
                activation: Some(Activation::Silu),
                residual: Some(Residual { values: &residual, row_stride: n + 3 }),
            };
            let columns = [76, 0, 31, 32, 76, 50];
            let of = |weights: &PackedMatrix| {
                let mut whole = vec![0.0; rows * (n + 5)];
                matmul(&x, k + 5, rows, weights, &epilogue, &mut whole, n + 5);
                let mut some = vec![f32::NAN; rows * columns.len()];
                matmul_columns(&x, k + 5, rows, weights, Some(&bias), &columns, &mut some);
                (whole, some)
            };
            let ((whole, some), (want_whole, want_some)) = (of(&quantised), of(&plain));
            assert_same_bits(&format!("{form:?} whole"), &whole, &want_whole);
            assert_same_bits(&format!("{form:?} columns"), &some, &want_some);
            assert!(whole.chunks(n + 5).all(|row| row[n..].iter().all(|gap| *gap == 0.0)));
        }
    });
}

#[test]
fn scales_of_every_kind_give_the_same_numbers_as_f32() {
    // Half precision's least number and greatest, zeros, and what a damaged file may hold. A NaN is a NaN, of whatever bits.
    let bits = |numbers: Vec<f32>| -> Vec<Option<u32>> {
        numbers.into_iter().map(|x| (!x.is_nan()).then(|| x.to_bits())).collect()
    };
    on_every_isa(|isa| {
        for form in forms() {
            for rare in [0.0, -0.0, 5.960_464_5e-8, -5.960_464_5e-8, 65_504.0 * 63.0, f32::INFINITY, f32::NAN]
            {
                let (rows, k, n) = (2, 64, 40);
                let blocks = Blocks { rare, ..Blocks::new(form, 6, k) };
                let weights = blocks.weights(n);
                let mut x = vec![0.0; rows * k];
                // A row that picks one weight out, so that zeros show their sign; and one of all of them.
                x[7] = 1.0;
                x[k..].copy_from_slice(&normal(7, k));
                let plain = PackedMatrix::pack_f32(k, n, &weights, WeightLayout::OutputMajor);
                let got = bits(product(&x, rows, &blocks.pack(n)));
                assert_eq!(got, bits(product(&x, rows, &plain)), "{} {form:?} {rare}", isa.name());
            }
        }
    });
}

#[test]
fn blocks_take_the_memory_that_their_form_says() {
    let (k, n) = (1024, 2048);
    for form in forms() {
        let bits = if form.four_bits { 4 } else { 8 };
        let header = 4 * (1 + usize::from(form.offsets) + usize::from(form.two_scales));
        assert_eq!(form.block_bytes(), 4 * bits + header);
        let expected = k / BLOCK * n * form.block_bytes();
        for packed in [Blocks::new(form, 1, k).pack(n), Blocks::new(form, 1, k).pack_transposed(n)] {
            let held = packed.size_in_bytes();
            // But for what alignment takes.
            assert!((expected..expected + (2 << 20) + 64).contains(&held), "{form:?}: {held} for {expected}");
        }
    }
}

#[test]
fn no_inputs_and_no_rows_are_products_too() {
    for form in forms() {
        let blocks = Blocks::new(form, 1, 0);
        assert_eq!(product(&[], 3, &blocks.pack(5)), [0.0; 15]);
        assert_eq!(product(&[], 0, &Blocks::new(form, 1, 32).pack(5)), []);
        assert_eq!(Blocks::new(form, 1, 32).pack(0).n(), 0);
    }
}

#[test]
fn a_block_of_another_form_is_refused() {
    let block = Block { numbers: [1; BLOCK], scales: [0.5; 2], offset: None };
    let form = BlockForm { four_bits: true, offsets: false, two_scales: false };
    let refused = |block: Block, form: BlockForm| {
        let packed = std::panic::catch_unwind(|| PackedMatrix::pack_blocks(BLOCK, 1, form, |_, _| block));
        packed.is_err()
    };
    assert!(!refused(block, form));
    assert!(refused(Block { numbers: [8; BLOCK], ..block }, form));
    assert!(refused(Block { scales: [0.5, 0.25], ..block }, form));
    assert!(refused(Block { offset: Some(0.0), ..block }, form));
    assert!(refused(
        Block { numbers: [-1; BLOCK], offset: Some(0.0), ..block },
        BlockForm { offsets: true, ..form }
    ));
}
