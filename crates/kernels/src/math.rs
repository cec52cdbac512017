//! Elementary functions on sixteen lanes.
//!
//! Coefficients are our own fits (weighted least squares iterated towards the minimax, on 400 Chebyshev points in 40
//! digits), each with its relative error beside it. No function branches on its data, so a lane's bits depend on that
//! lane's argument alone.
// The fits' digits are printed one beyond what a float holds, so that they read back exactly.
#![allow(clippy::excessive_precision)]

use crate::simd::Simd;

/// Adding and subtracting this rounds a float below 2^22 to an integer, which then stands in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has few enough bits that a multiple of it by an exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `coefficients[0] + x coefficients[1] + …`, by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::Float, coefficients: [f32; N]) -> S::Float {
    let mut sum = s.splat(coefficients[N - 1]);
    let mut index = N - 1;
    while index > 0 {
        index -= 1;
        sum = s.mul_add(sum, x, s.splat(coefficients[index]));
    }
    sum
}

/// n and r with x = n ln 2 + r, |r| below 0.347. Arguments beyond the clamps give 0 or infinity whatever the rest says;
/// the clamps' order keeps a NaN.
#[inline(always)]
fn reduce_exponent<S: Simd>(s: S, x: S::Float) -> (S::Float, S::Float) {
    let x = s.min(s.splat(89.0), s.max(s.splat(-105.0), x));
    let shifted = s.mul_add(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUNDER));
    let n = s.sub(shifted, s.splat(ROUNDER));
    let r = s.mul_add(n, s.splat(-LN_2_HIGH), x);
    (n, s.mul_add(n, s.splat(-LN_2_LOW), r))
}

/// 2^n e^r, rounded once where it is subnormal.
#[inline(always)]
fn raise<S: Simd>(s: S, n: S::Float, r: S::Float) -> S::Float {
    // e^r = 1 + r + r² P(r): relative error 2^-28.3.
    let p =
        polynomial(s, r, [4.999999404e-1, 1.666651964e-1, 4.166839644e-2, 8.368796669e-3, 1.381443231e-3]);
    s.scale_by_power(s.add(s.splat(1.0), s.mul_add(s.mul(r, r), p, r)), n)
}

/// e^x.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::Float) -> S::Float {
    let (n, r) = reduce_exponent(s, x);
    raise(s, n, r)
}

/// e^(x + tail) for a tail much smaller than one.
#[inline(always)]
fn exp_with_tail<S: Simd>(s: S, x: S::Float, tail: S::Float) -> S::Float {
    let (n, r) = reduce_exponent(s, x);
    raise(s, n, s.add(r, tail))
}

/// e^(-x²/2) with full relative accuracy: the square's own rounding error would be multiplied by its size.
#[inline(always)]
fn gaussian<S: Simd>(s: S, x: S::Float) -> S::Float {
    // The first 12 bits of x have an exact square; the rest is small.
    let head = s.bits_to_float(s.and(s.float_to_bits(x), s.splat_int(0xffff_f000_u32 as i32)));
    let rest = s.mul(s.sub(x, head), s.add(x, head));
    exp_with_tail(s, s.mul(s.mul(head, head), s.splat(-0.5)), s.mul(rest, s.splat(-0.5)))
}

/// The normal distribution's upper tail at x ≥ 0 (x up to 14.5 at least), divided by e^(-x²/2).
#[inline(always)]
fn scaled_tail<S: Simd>(s: S, x: S::Float) -> S::Float {
    let t = s.div(s.splat(1.0), s.mul_add(x, s.splat(0.3), s.splat(1.0)));
    // Relative error 2^-28.3.
    polynomial(
        s,
        t,
        [
            6.631165661e-7,
            1.196713075e-1,
            1.197259948e-1,
            1.093555167e-1,
            8.156047016e-2,
            8.860483021e-2,
            -6.735998392e-2,
            1.789954752e-1,
            -2.195833474e-1,
            1.090810522e-1,
            -2.005197480e-2,
        ],
    )
}

/// x Φ(x), the exact gelu: relative accuracy in both tails.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::Float) -> S::Float {
    // Beyond 14.5 the tail is zero in f32; the clamp keeps x² and the fit within their ranges.
    let distance = s.min(s.splat(14.5), s.abs(x));
    let tail = s.mul(scaled_tail(s, distance), gaussian(s, distance));
    let negative = s.less(x, s.splat(0.0));
    // −∞ times a zero tail would be NaN; gelu(−∞) is −0.
    let bounded = s.max(s.splat(-1e30), x);
    let product = s.mul(bounded, tail);
    s.select(negative, product, s.sub(x, s.mul(s.min(s.splat(1e30), x), tail)))
}

/// x / (1 + e^(-2u)), u = √(2/π) (x + 0.044715 x³): the tanh form of gelu, exactly.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::Float) -> S::Float {
    // −2 √(2/π), and the same times 0.044715.
    let square = s.mul(x, x);
    let slope = s.mul_add(square, s.splat(-0.071_354_814), s.splat(-1.595_769_1));
    divide_by_one_plus_exp(s, x, s.mul(x, slope))
}

/// x / (1 + e^y) that gives ±0 and not NaN where both are infinite.
#[inline(always)]
fn divide_by_one_plus_exp<S: Simd>(s: S, x: S::Float, y: S::Float) -> S::Float {
    let bounded = s.max(s.splat(f32::MIN), x);
    s.div(bounded, s.add(s.splat(1.0), exp(s, y)))
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::Float) -> S::Float {
    s.div(s.splat(1.0), s.add(s.splat(1.0), exp(s, s.sub(s.splat(0.0), x))))
}

/// x / (1 + e^-x).
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::Float) -> S::Float {
    divide_by_one_plus_exp(s, x, s.sub(s.splat(0.0), x))
}

/// Φ(x) + x φ(x): the derivative of the exact gelu.
#[inline(always)]
pub(crate) fn gelu_derivative<S: Simd>(s: S, x: S::Float) -> S::Float {
    let distance = s.min(s.splat(14.5), s.abs(x));
    let power = gaussian(s, distance);
    // 1/√(2π). With the distance d, the derivative at −d is the upper tail less d φ(d); the one at d is one less that.
    let density = s.mul(power, s.splat(0.398_942_28));
    let below = s.sub(s.mul(scaled_tail(s, distance), power), s.mul(distance, density));
    s.select(s.less(x, s.splat(0.0)), below, s.sub(s.splat(1.0), below))
}

/// σ + x σ (1 − σ) 2u', with σ = 1 / (1 + e^(-2u)) as in [`gelu_tanh`] and u' = √(2/π) (1 + 3 · 0.044715 x²).
#[inline(always)]
pub(crate) fn gelu_tanh_derivative<S: Simd>(s: S, x: S::Float) -> S::Float {
    // Beyond 14 both factors of σ (1 − σ) are 0 or 1 in f32; the clamps' order keeps a NaN.
    let x = s.min(s.splat(14.0), s.max(s.splat(-14.0), x));
    let square = s.mul(x, x);
    let slope = s.mul_add(square, s.splat(-0.071_354_814), s.splat(-1.595_769_1));
    let sigmoid = s.div(s.splat(1.0), s.add(s.splat(1.0), exp(s, s.mul(x, slope))));
    // 2 √(2/π), and the same times 3 · 0.044715.
    let rise = s.mul_add(square, s.splat(0.214_064_44), s.splat(1.595_769_1));
    let bell = s.mul(sigmoid, s.sub(s.splat(1.0), sigmoid));
    s.mul_add(s.mul(x, rise), bell, sigmoid)
}

/// σ (1 + x (1 − σ)), with σ = 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn silu_derivative<S: Simd>(s: S, x: S::Float) -> S::Float {
    let sigmoid = sigmoid(s, x);
    // Bounded, so that an infinite x times a factor of zero is zero; the clamps' order keeps a NaN.
    let x = s.min(s.splat(1e30), s.max(s.splat(-1e30), x));
    s.mul(sigmoid, s.mul_add(x, s.sub(s.splat(1.0), sigmoid), s.splat(1.0)))
}

/// 1 − tanh²(x / c): the derivative of c tanh(x / c).
#[inline(always)]
pub(crate) fn softcap_derivative<S: Simd>(s: S, x: S::Float, cap: S::Float) -> S::Float {
    let y = tanh(s, s.div(x, cap));
    s.sub(s.splat(1.0), s.mul(y, y))
}

/// max(x, 0), NaN kept.
#[inline(always)]
pub(crate) fn relu<S: Simd>(s: S, x: S::Float) -> S::Float {
    s.max(s.splat(0.0), x)
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::Float) -> S::Float {
    let size = s.abs(x);
    let z = s.mul(x, x);
    // tanh x = x + x³ P(x²) below 0.625: relative error 2^-32.6.
    let p = polynomial(
        s,
        z,
        [-3.333333135e-1, 1.333320588e-1, -5.394676328e-2, 2.170070261e-2, -8.177397773e-3, 2.142961603e-3],
    );
    let near = s.mul_add(s.mul(p, z), x, x);
    let e = exp(s, s.add(size, size));
    let far = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))));
    s.select(s.less(size, s.splat(0.625)), near, s.copy_sign(far, x))
}

/// c tanh(x / c).
#[inline(always)]
pub(crate) fn softcap<S: Simd>(s: S, x: S::Float, cap: S::Float) -> S::Float {
    s.mul(cap, tanh(s, s.div(x, cap)))
}

/// The error function.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::Float) -> S::Float {
    let size = s.abs(x);
    let z = s.mul(x, x);
    // erf x = x P(x²) below 1: relative error 2^-34.8.
    let p = polynomial(
        s,
        z,
        [
            1.128379226e0,
            -3.761263788e-1,
            1.128378212e-1,
            -2.686540037e-2,
            5.220945459e-3,
            -8.482828853e-4,
            1.125694980e-4,
            -9.641521501e-6,
        ],
    );
    let near = s.mul(x, p);
    // From 4 on erf is 1 in f32. The argument of the normal tail is √2 x.
    let distance = s.mul(s.min(s.splat(6.0), size), s.splat(std::f32::consts::SQRT_2));
    let tail = s.mul(scaled_tail(s, distance), gaussian(s, distance));
    let far = s.sub(s.splat(1.0), s.add(tail, tail));
    s.select(s.less(size, s.splat(1.0)), near, s.copy_sign(far, x))
}

/// Natural logarithm: −∞ at ±0, NaN below.
#[inline(always)]
pub(crate) fn log<S: Simd>(s: S, x: S::Float) -> S::Float {
    // Subnormals are lifted by 2^25 first.
    let small = s.less(x, s.splat(f32::MIN_POSITIVE));
    let lifted = s.select(small, s.mul(x, s.splat(33_554_432.0)), x);
    let lift = s.select(small, s.splat(-25.0), s.splat(0.0));
    // x = m 2^e with m in [√½, √2): subtracting √½'s bits makes the exponent field step there.
    let offset = s.sub_int(s.float_to_bits(lifted), s.splat_int(0x3f35_04f3));
    let exponent = s.shift_right::<23>(offset);
    let mantissa = s.bits_to_float(s.sub_int(s.float_to_bits(lifted), s.shift_left::<23>(exponent)));
    let e = s.add(s.int_to_float(exponent), lift);
    // log(1 + f) = f − q (f − z P(z)) with q = f / (2 + f), z = q²: absolute error of P below 2^-29.7.
    let f = s.sub(mantissa, s.splat(1.0));
    let q = s.div(f, s.add(f, s.splat(2.0)));
    let z = s.mul(q, q);
    let p = s.mul(z, polynomial(s, z, [6.666666865e-1, 4.000012279e-1, 2.855072320e-1, 2.333276570e-1]));
    let correction = s.mul_add(e, s.splat(LN_2_LOW), s.mul(q, s.sub(p, f)));
    let result = s.mul_add(e, s.splat(LN_2_HIGH), s.add(f, correction));
    // Special arguments: +∞ and NaN are their own logarithms, zero gives −∞, what is below gives NaN.
    let result = s.select(s.less(x, s.splat(f32::INFINITY)), result, x);
    let result = s.select(s.less(s.splat(0.0), x), result, s.splat(f32::NEG_INFINITY));
    let negative = s.less(x, s.splat(0.0));
    let unordered = s.sub(x, x);
    let result = s.select(negative, s.splat(f32::NAN), result);
    // x − x is NaN for NaN (and for +∞, whose result stands already).
    s.select(s.less(s.abs(unordered), s.splat(1.0)), result, s.add(x, s.abs(x)))
}
