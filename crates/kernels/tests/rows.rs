//! Norms, softmax, reductions and rotary embedding: against the reference, whole and in steps, alone and among others.

mod common;

use common::{assert_same_bits, normal, on_every_isa};
use pellucid_kernels::rotary::{RotaryStyle, RotaryTable, rotary};
use pellucid_kernels::{HeadsViewMut, norm, pool, reduce, reference};

const WIDTHS: [usize; 8] = [1, 3, 16, 64, 65, 128, 768, 2049];

/// Asserts |got − want| ≤ bound · max|want| over each row.
#[track_caller]
fn assert_close(what: &str, got: &[f32], want: &[f64], bound: f64) {
    let size = want.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= bound * size, "{what}: element {index}: {got} for {want}");
    }
}

/// Rows with a mean far from zero, so that a careless variance shows.
fn rows_of(width: usize, rows: usize) -> Vec<f32> {
    normal(width as u64, rows * width)
        .iter()
        .enumerate()
        .map(|(i, x)| x * 2.0 + 3.0 + (i % 5) as f32)
        .collect()
}

#[test]
fn norms_agree_with_the_reference_and_the_whole_has_the_bits_of_the_steps() {
    on_every_isa(|isa| {
        for width in WIDTHS {
            let rows = 9;
            let x = rows_of(width, rows);
            let (weight, bias) = (normal(100, width), normal(101, width));
            for bias in [Some(&bias[..]), None] {
                let (mut scale, mut steps) = (vec![0.0; rows], vec![0.0; x.len()]);
                norm::layer_norm_scale(&x, width, 1e-5, &mut scale);
                norm::layer_norm_apply(&x, &scale, &weight, bias, &mut steps);
                let (mut whole_scale, mut whole) = (vec![0.0; rows], vec![0.0; x.len()]);
                norm::layer_norm(&x, 1e-5, &weight, bias, Some(&mut whole_scale), &mut whole);
                assert_same_bits("layer norm's scale", &whole_scale, &scale);
                assert_same_bits("layer norm", &whole, &steps);
                for (row, x) in x.chunks(width).enumerate() {
                    let what = format!("{} layer norm of {width}", isa.name());
                    let want = reference::layer_norm_scale(x, 1e-5);
                    assert_close(&what, &scale[row..=row], &[want], 2e-6);
                    let want = reference::layer_norm(x, 1e-5, &weight, bias);
                    // Rows of a few equal numbers cancel: there the weight alone sets the size.
                    let bound = if width < 4 { 1e-3 } else { 4e-6 };
                    assert_close(&what, &whole[row * width..][..width], &want, bound);
                }
            }
            for offset in [0.0, 1.0] {
                let (mut scale, mut steps) = (vec![0.0; rows], vec![0.0; x.len()]);
                norm::rms_norm_scale(&x, width, 1e-6, &mut scale);
                norm::rms_norm_apply(&x, &scale, &weight, offset, &mut steps);
                let (mut whole_scale, mut whole) = (vec![0.0; rows], vec![0.0; x.len()]);
                norm::rms_norm(&x, 1e-6, &weight, offset, Some(&mut whole_scale), &mut whole);
                assert_same_bits("rms norm's scale", &whole_scale, &scale);
                assert_same_bits("rms norm", &whole, &steps);
                for (row, x) in x.chunks(width).enumerate() {
                    let what = format!("{} rms norm of {width}", isa.name());
                    assert_close(&what, &scale[row..=row], &[reference::rms_norm_scale(x, 1e-6)], 1e-6);
                    let want = reference::rms_norm(x, 1e-6, &weight, f64::from(offset));
                    assert_close(&what, &whole[row * width..][..width], &want, 2e-6);
                }
            }
        }
    });
}

#[test]
fn a_changed_scale_divides() {
    on_every_isa(|_| {
        let x = [1.0, 2.0, 6.0, 2.0, 4.0, 12.0];
        let mut out = [0.0; 6];
        norm::layer_norm_apply(&x, &[2.0, 0.5], &[1.0, 1.0, 2.0], None, &mut out);
        assert_eq!(out, [-1.0, -0.5, 3.0, -8.0, -4.0, 24.0]);
        norm::rms_norm_apply(&x, &[2.0, 0.5], &[0.0, 0.0, 1.0], 1.0, &mut out);
        assert_eq!(out, [0.5, 1.0, 6.0, 4.0, 8.0, 48.0]);
    });
}

#[test]
fn softmax_and_its_kin_agree_with_the_reference() {
    on_every_isa(|isa| {
        for width in WIDTHS {
            let rows = 7;
            let x: Vec<f32> = rows_of(width, rows).iter().map(|x| x * 5.0).collect();
            let (mut soft, mut log_soft) = (x.clone(), x.clone());
            reduce::softmax(&mut soft, width);
            reduce::log_softmax(&mut log_soft, width);
            let (mut log_sums, mut sums, mut means) = (vec![0.0; rows], vec![0.0; rows], vec![0.0; rows]);
            reduce::log_sum_exp(&x, width, &mut log_sums);
            reduce::sum(&x, width, &mut sums);
            reduce::mean(&x, width, &mut means);
            for (row, x) in x.chunks(width).enumerate() {
                let what = format!("{} width {width}", isa.name());
                let range = row * width..(row + 1) * width;
                let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
                let want = reference::softmax(&x);
                assert_close(&format!("softmax, {what}"), &soft[range.clone()], &want, 2e-6);
                let greatest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let log_sum = greatest + x.iter().map(|x| (x - greatest).exp()).sum::<f64>().ln();
                assert_close(&format!("log_sum_exp, {what}"), &log_sums[row..=row], &[log_sum], 1e-6);
                let want: Vec<f64> = x.iter().map(|x| x - log_sum).collect();
                let size = want.iter().fold(greatest.abs(), |size, x| size.max(x.abs()));
                for (got, want) in log_soft[range].iter().zip(&want) {
                    assert!(
                        (f64::from(*got) - want).abs() <= 1e-6 * size,
                        "log_softmax, {what}: {got} for {want}"
                    );
                }
                let sum = x.iter().sum::<f64>();
                assert_close(&format!("sum, {what}"), &sums[row..=row], &[sum], 2e-6);
                assert_close(&format!("mean, {what}"), &means[row..=row], &[sum / width as f64], 2e-6);
            }
        }
    });
}

#[test]
fn a_softmax_row_of_special_numbers_is_as_in_pytorch() {
    on_every_isa(|isa| {
        let softmax = |row: &[f32]| {
            let mut result = row.to_vec();
            reduce::softmax(&mut result, row.len());
            result
        };
        let none = f32::NEG_INFINITY;
        assert!(softmax(&[none; 20]).iter().all(|x| x.is_nan()), "{}", isa.name());
        assert_eq!(softmax(&[none, 1.0, none, 1.0]), [0.0, 0.5, 0.0, 0.5]);
        assert!(softmax(&[0.0, f32::INFINITY, 1.0])[1].is_nan());
        let mut row = vec![1.0; 90];
        row[70] = f32::NAN;
        assert!(softmax(&row).iter().all(|x| x.is_nan()));
        let mut sums = [0.0; 3];
        reduce::log_sum_exp(&[none, none, none, f32::INFINITY, f32::NAN, 1.0], 2, &mut sums);
        assert_eq!(sums[..2], [none, f32::INFINITY]);
        assert!(sums[2].is_nan());
    });
}

#[test]
fn masked_numbers_at_the_end_of_a_softmax_row_change_no_bit_of_the_others() {
    on_every_isa(|isa| {
        for width in [1, 5, 16, 63, 64, 65, 200] {
            let row = normal(7, width);
            let mut alone = row.clone();
            reduce::softmax(&mut alone, width);
            for extra in [1, 15, 16, 64, 100] {
                let mut longer = row.clone();
                longer.resize(width + extra, f32::NEG_INFINITY);
                reduce::softmax(&mut longer, width + extra);
                assert_same_bits(&format!("{} {width} + {extra}", isa.name()), &longer[..width], &alone);
                assert!(longer[width..].iter().all(|x| *x == 0.0));
            }
        }
    });
}

#[test]
fn a_row_has_the_same_bits_alone_and_among_others() {
    on_every_isa(|isa| {
        for width in [64, 100, 768] {
            let rows = 300;
            let x = rows_of(width, rows);
            let (weight, bias) = (normal(200, width), normal(201, width));
            let run = |x: &[f32]| {
                let rows = x.len() / width;
                let (mut norm, mut rms, mut soft) = (vec![0.0; x.len()], vec![0.0; x.len()], x.to_vec());
                let mut sums = vec![0.0; rows];
                norm::layer_norm(x, 1e-5, &weight, Some(&bias), None, &mut norm);
                norm::rms_norm(x, 1e-5, &weight, 0.0, None, &mut rms);
                reduce::softmax(&mut soft, width);
                reduce::sum(x, width, &mut sums);
                [norm, rms, soft, sums]
            };
            let together = pool::with_threads(3, || run(&x));
            for (row, x) in x.chunks(width).enumerate() {
                for (index, (alone, together)) in run(x).iter().zip(&together).enumerate() {
                    let width = alone.len();
                    let what = format!("{} result {index} row {row}", isa.name());
                    assert_same_bits(&what, alone, &together[row * width..][..width]);
                }
            }
        }
    });
}

#[test]
fn rotary_turns_each_pair_by_its_angle() {
    let (tokens, heads, size, pairs) = (5, 3, 16, 6);
    let positions = [0, 1, 7, 1000, 40_000];
    let frequencies: Vec<f32> = (0..pairs).map(|i| 10_000_f32.powf(-(i as f32) / pairs as f32)).collect();
    let table = RotaryTable::new(&positions, &frequencies, 1.0);
    let stride = heads * size + 4;
    let x = normal(9, tokens * stride);
    for style in [RotaryStyle::Half, RotaryStyle::Interleaved] {
        let mut got = x.clone();
        rotary(HeadsViewMut::new(&mut got, tokens, heads, size, stride), &table, style);
        let mut changed = vec![false; x.len()];
        for (token, position) in positions.iter().enumerate() {
            for head in 0..heads {
                for (pair, frequency) in frequencies.iter().enumerate() {
                    let row = token * stride + head * size;
                    let (first, second) = match style {
                        RotaryStyle::Half => (row + pair, row + pair + pairs),
                        RotaryStyle::Interleaved => (row + 2 * pair, row + 2 * pair + 1),
                    };
                    (changed[first], changed[second]) = (true, true);
                    let angle = f64::from(*position as f32 * frequency);
                    let (a, b) = (f64::from(x[first]), f64::from(x[second]));
                    let want = [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()];
                    assert_close("rotary", &[got[first], got[second]], &want, 3e-7);
                }
            }
        }
        for (index, changed) in changed.iter().enumerate() {
            assert!(*changed || got[index] == x[index], "component {index} is not rotary and was changed");
        }
    }
}
