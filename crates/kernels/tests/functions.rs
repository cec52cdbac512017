//! Element-wise functions: within their stated bounds of the exact values, the same bits wherever an element stands.

mod common;

use common::{assert_same_bits, normal, on_every_isa};
use pellucid_kernels::{Activation, activation, elementwise, pool, reference};

/// Arguments of every magnitude from the smallest to the greatest, the densest where the functions bend, and the specials.
fn arguments() -> Vec<f32> {
    let mut numbers: Vec<f32> =
        (0..=u32::MAX >> 14).map(|i| f32::from_bits(i << 14 | (i & 0x3fff))).collect();
    numbers.extend((-100_000..100_000).map(|i| i as f32 * 1e-3 + i as f32 * 1e-9));
    numbers.extend([
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        f32::NAN,
    ]);
    numbers
}

/// The distance from `exact` in units of the last place of the nearest float.
fn ulps(got: f32, exact: f64) -> f64 {
    let size = exact.abs().max(f64::from(f32::MIN_POSITIVE));
    (f64::from(got) - exact).abs() / 2.0_f64.powi(size.log2().floor() as i32 - 23)
}

/// Asserts on every instruction set that the error is at most `bound(x)` ulp or `slack`, whichever is more.
fn check(
    name: &str,
    function: impl Fn(&mut [f32]),
    exact: impl Fn(f64) -> f64,
    bound: impl Fn(f64) -> f64,
    slack: f64,
) {
    let arguments = arguments();
    let wanted: Vec<f64> = arguments.iter().map(|x| exact(f64::from(*x))).collect();
    on_every_isa(|isa| {
        let mut results = arguments.clone();
        function(&mut results);
        for ((x, want), got) in arguments.iter().zip(&wanted).zip(&results) {
            let rounded = *want as f32;
            let fits = if want.is_nan() || rounded.is_infinite() {
                got.is_nan() && want.is_nan() || *got == rounded
            } else {
                (f64::from(*got) - want).abs() <= slack || ulps(*got, *want) <= bound(f64::from(*x))
            };
            assert!(fits, "{} {name}({x:e}): {got:e} for {want:e}, {} ulp", isa.name(), ulps(*got, *want));
        }
    });
}

#[test]
fn functions_are_within_their_bounds_everywhere() {
    check("exp", elementwise::exp, f64::exp, |_| 1.5, 0.0);
    check("log", elementwise::log, f64::ln, |_| 1.5, 0.0);
    check("tanh", elementwise::tanh, f64::tanh, |_| 1.5, 0.0);
    check("erf", elementwise::erf, reference::erf, |_| 2.5, 0.0);
}

#[test]
fn activations_are_within_their_bounds_everywhere() {
    for activation in Activation::ALL {
        let exact = |x: f64| {
            let y = reference::activation(activation, x);
            // ∞ · 0 in the exact formulas.
            if y.is_nan() && !x.is_nan() { 0.0 } else { y }
        };
        let bound = |x: f64| match activation {
            // Below zero this is an exponential whose argument is itself rounded.
            Activation::GeluTanh if x < 0.0 => 6.0 + 3.0 * 1.6 * (x.abs() + 0.0448 * x.abs().powi(3)),
            Activation::Gelu | Activation::GeluTanh => 6.0,
            _ => 4.0,
        };
        check(
            &format!("{activation:?}"),
            |values| activation::apply(activation, values),
            exact,
            bound,
            3e-37,
        );
    }
}

#[test]
fn an_element_has_the_same_bits_wherever_it_stands() {
    on_every_isa(|isa| {
        let numbers: Vec<f32> = normal(1, 40_000).iter().map(|x| x * 4.0).collect();
        for activation in Activation::ALL {
            let mut whole = numbers.clone();
            pool::with_threads(3, || activation::apply(activation, &mut whole));
            for (start, length) in [(0, 1), (5, 1), (16, 15), (39_990, 10), (1001, 17), (77, 1234)] {
                let mut part = numbers[start..start + length].to_vec();
                activation::apply(activation, &mut part);
                assert_same_bits(
                    &format!("{} {activation:?}", isa.name()),
                    &part,
                    &whole[start..start + length],
                );
            }
        }
    });
}

#[test]
fn gated_activations_are_the_activation_times_the_linear_branch() {
    on_every_isa(|_| {
        let (rows, width) = (37, 501);
        let x = normal(2, rows * 2 * width);
        let gate: Vec<f32> = x.chunks(2 * width).flat_map(|row| row[..width].to_vec()).collect();
        let up: Vec<f32> = x.chunks(2 * width).flat_map(|row| row[width..].to_vec()).collect();
        for activation in Activation::ALL {
            let mut want = gate.clone();
            activation::apply(activation, &mut want);
            want.iter_mut().zip(&up).for_each(|(y, up)| *y *= up);
            let mut got = vec![f32::NAN; rows * width];
            activation::gate_up(&gate, &up, activation, &mut got);
            assert_same_bits("gate_up", &got, &want);
            got.fill(f32::NAN);
            activation::gate_up_rows(&x, 2 * width, rows, width, activation, &mut got);
            assert_same_bits("gate_up_rows", &got, &want);
        }
    });
}

#[test]
fn arithmetic_on_slices_is_that_of_each_element() {
    on_every_isa(|isa| {
        for length in [0, 1, 15, 16, 33, 50_001] {
            let (a, b) = (normal(3, length), normal(4, length));
            let run = |function: &dyn Fn(&mut [f32], &[f32])| {
                let mut values = a.clone();
                function(&mut values, &b);
                values
            };
            let each = |function: fn(f32, f32) -> f32| -> Vec<f32> {
                a.iter().zip(&b).map(|(a, b)| function(*a, *b)).collect()
            };
            assert_same_bits("add", &run(&elementwise::add), &each(|a, b| a + b));
            assert_same_bits("mul", &run(&elementwise::mul), &each(|a, b| a * b));
            let scaled = if isa.name() == "portable" {
                each(|a, b| 0.3 * b + a)
            } else {
                each(|a, b| 0.3_f32.mul_add(b, a))
            };
            assert_same_bits("add_scaled", &run(&|a, b| elementwise::add_scaled(a, b, 0.3)), &scaled);
        }
    });
}

#[test]
fn softcap_bends_towards_the_cap() {
    on_every_isa(|_| {
        let numbers: Vec<f32> = normal(5, 1000).iter().map(|x| x * 60.0).collect();
        let mut got = numbers.clone();
        elementwise::softcap(&mut got, 30.0);
        for (x, got) in numbers.iter().zip(&got) {
            let want = 30.0 * (f64::from(*x) / 30.0).tanh();
            assert!(
                (f64::from(*got) - want).abs() <= 4.0 * 2.0_f64.powi(-24) * want.abs(),
                "{x}: {got} for {want}"
            );
        }
    });
}

#[test]
fn a_transposing_copy_moves_every_element_and_no_other() {
    for (rows, columns, from_gap, to_gap) in [(1, 1, 0, 0), (17, 40, 0, 0), (100, 3, 2, 5), (513, 1030, 1, 0)]
    {
        let (from_stride, to_stride) = (columns + from_gap, rows + to_gap);
        let from = normal(6, rows * from_stride);
        let mut to = vec![7.5; columns * to_stride];
        pool::with_threads(2, || {
            elementwise::transpose(&from, from_stride, rows, columns, &mut to, to_stride)
        });
        for column in 0..columns {
            for row in 0..to_stride {
                let want = if row < rows { from[row * from_stride + column] } else { 7.5 };
                assert_eq!(to[column * to_stride + row], want);
            }
        }
    }
}
