//! Sixteen lanes of `f32` on every instruction set, and the macro that compiles a loop once for each of them.
//!
//! The lane count is the same everywhere (one AVX-512 register, two AVX2 registers, a plain array), so that data layouts
//! and reduction trees are too. A token (`Portable`, `Avx2`, `Avx512`) stands for the right to use an instruction set;
//! only [`kernel!`] makes one, from an `Isa`, inside a function compiled with those features.
#![allow(unsafe_code)]

/// Lanes in a vector.
pub(crate) const LANES: usize = 16;

/// A token of an instruction set, and its operations on sixteen lanes.
///
/// `mul_add` is fused where the instruction set has it, and a product followed by a sum in the portable path.
pub(crate) trait Simd: Copy {
    /// Sixteen `f32`.
    type Float: Copy;
    /// Sixteen 32-bit integers.
    type Int: Copy;
    /// Sixteen truth values.
    type Mask: Copy;

    /// The most rows of a register tile.
    const TILE_ROWS: usize;
    /// The most vectors of a register tile with `rows` rows: 1, 2, 4 or 8.
    fn tile_vectors(rows: usize) -> usize;

    fn splat(self, value: f32) -> Self::Float;
    fn load(self, from: &[f32; LANES]) -> Self::Float;
    fn store(self, value: Self::Float, to: &mut [f32; LANES]);
    fn add(self, a: Self::Float, b: Self::Float) -> Self::Float;
    fn sub(self, a: Self::Float, b: Self::Float) -> Self::Float;
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float;
    fn div(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b + c`.
    fn mul_add(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    /// The greater; `b` where either is NaN.
    fn max(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a < b`; false where either is NaN.
    fn less(self, a: Self::Float, b: Self::Float) -> Self::Mask;
    /// `yes` where the mask is true, else `no`.
    fn select(self, mask: Self::Mask, yes: Self::Float, no: Self::Float) -> Self::Float;

    fn splat_int(self, value: i32) -> Self::Int;
    fn float_to_bits(self, value: Self::Float) -> Self::Int;
    fn bits_to_float(self, value: Self::Int) -> Self::Float;
    /// Wrapping sum.
    fn add_int(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Wrapping difference.
    fn sub_int(self, a: Self::Int, b: Self::Int) -> Self::Int;
    fn and(self, a: Self::Int, b: Self::Int) -> Self::Int;
    fn or(self, a: Self::Int, b: Self::Int) -> Self::Int;
    fn shift_left<const N: u32>(self, a: Self::Int) -> Self::Int;
    /// Arithmetic: the sign is kept.
    fn shift_right<const N: u32>(self, a: Self::Int) -> Self::Int;
    /// `a * 2^n` for an integer `n` from −252 to 254 held as a float, rounded once.
    #[inline(always)]
    fn scale_by_power(self, a: Self::Float, n: Self::Float) -> Self::Float {
        // In two factors, so that neither overflows; the first product is exact for an `a` near one.
        let rounder = 12_582_912.0_f32;
        let bits = self.float_to_bits(self.add(n, self.splat(rounder)));
        let n = self.sub_int(bits, self.splat_int(rounder.to_bits() as i32));
        let half = self.shift_right::<1>(n);
        let scaled = self.mul(a, self.power_of_two(half));
        self.mul(scaled, self.power_of_two(self.sub_int(n, half)))
    }

    /// 2^n for n from −126 to 127.
    #[inline(always)]
    fn power_of_two(self, n: Self::Int) -> Self::Float {
        self.bits_to_float(self.shift_left::<23>(self.add_int(n, self.splat_int(127))))
    }

    /// The integers as floats, to nearest.
    fn int_to_float(self, a: Self::Int) -> Self::Float;
    /// Sixteen bytes as integers, their signs kept.
    fn widen(self, from: &[i8; LANES]) -> Self::Int;

    /// `accumulator + a0 b0 + a1 b1` for lanes that hold pairs of bf16 (the even element in the low half).
    #[inline(always)]
    fn dot_bf16(self, accumulator: Self::Float, a: Self::Int, b: Self::Int) -> Self::Float {
        let high = self.splat_int(0xffff_0000_u32 as i32);
        let first = self.mul_add(
            self.bits_to_float(self.shift_left::<16>(a)),
            self.bits_to_float(self.shift_left::<16>(b)),
            accumulator,
        );
        self.mul_add(self.bits_to_float(self.and(a, high)), self.bits_to_float(self.and(b, high)), first)
    }

    /// Loads sixteen floats.
    ///
    /// # Safety
    /// `from` must be readable for sixteen floats.
    #[inline(always)]
    unsafe fn load_pointer(self, from: *const f32) -> Self::Float {
        // SAFETY: an array of floats has the alignment of a float, and the caller vouches for its length.
        self.load(unsafe { &*from.cast() })
    }

    /// Stores sixteen floats.
    ///
    /// # Safety
    /// `to` must be writable for sixteen floats.
    #[inline(always)]
    unsafe fn store_pointer(self, value: Self::Float, to: *mut f32) {
        // SAFETY: as in `load_pointer`.
        self.store(value, unsafe { &mut *to.cast() });
    }

    /// The first `from.len()` (below sixteen) floats; `fill` in the other lanes.
    #[inline(always)]
    fn load_part(self, from: &[f32], fill: f32) -> Self::Float {
        let mut lanes = [fill; LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    /// Stores the first `to.len()` (below sixteen) lanes.
    #[inline(always)]
    fn store_part(self, value: Self::Float, to: &mut [f32]) {
        let lanes = self.to_array(value);
        to.copy_from_slice(&lanes[..to.len()]);
    }

    #[inline(always)]
    fn to_array(self, value: Self::Float) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        self.store(value, &mut lanes);
        lanes
    }

    #[inline(always)]
    fn abs(self, a: Self::Float) -> Self::Float {
        self.bits_to_float(self.and(self.float_to_bits(a), self.splat_int(i32::MAX)))
    }

    /// The magnitude of `a` with the sign of `sign`.
    #[inline(always)]
    fn copy_sign(self, a: Self::Float, sign: Self::Float) -> Self::Float {
        let magnitude = self.and(self.float_to_bits(a), self.splat_int(i32::MAX));
        self.bits_to_float(self.or(magnitude, self.and(self.float_to_bits(sign), self.splat_int(i32::MIN))))
    }

    /// The sum of all lanes, by halves: lane `i` with lane `i + 8`, then 4, 2, 1.
    #[inline(always)]
    fn sum_lanes(self, value: Self::Float) -> f32 {
        let mut lanes = self.to_array(value);
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
        }
        lanes[0]
    }

    /// The greatest lane; NaN lanes may be passed over.
    #[inline(always)]
    fn max_lanes(self, value: Self::Float) -> f32 {
        let mut lanes = self.to_array(value);
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                lanes[lane] = if lanes[lane] > lanes[lane + half] { lanes[lane] } else { lanes[lane + half] };
            }
        }
        lanes[0]
    }
}

/// Plain arrays: the compiler makes of them what the target's baseline allows.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn lanes<T: Copy, U: Copy + Default>(f: impl Fn(usize) -> U, _like: [T; 0]) -> [U; LANES] {
    let mut out = [U::default(); LANES];
    for (lane, slot) in out.iter_mut().enumerate() {
        *slot = f(lane);
    }
    out
}

macro_rules! each_lane {
    ($lane:ident => $value:expr) => {
        lanes(|$lane| $value, [(); 0])
    };
}

impl Simd for Portable {
    type Float = [f32; LANES];
    type Int = [i32; LANES];
    type Mask = [bool; LANES];

    const TILE_ROWS: usize = 3;
    #[inline(always)]
    fn tile_vectors(rows: usize) -> usize {
        if rows == 1 { 2 } else { 1 }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Float {
        [value; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::Float {
        *from
    }
    #[inline(always)]
    fn store(self, value: Self::Float, to: &mut [f32; LANES]) {
        *to = value;
    }
    #[inline(always)]
    fn add(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each_lane!(i => a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each_lane!(i => a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each_lane!(i => a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each_lane!(i => a[i] / b[i])
    }
    #[inline(always)]
    fn mul_add(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
        each_lane!(i => a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each_lane!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each_lane!(i => if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn less(self, a: Self::Float, b: Self::Float) -> Self::Mask {
        each_lane!(i => a[i] < b[i])
    }
    #[inline(always)]
    fn select(self, mask: Self::Mask, yes: Self::Float, no: Self::Float) -> Self::Float {
        each_lane!(i => if mask[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn splat_int(self, value: i32) -> Self::Int {
        [value; LANES]
    }
    #[inline(always)]
    fn float_to_bits(self, value: Self::Float) -> Self::Int {
        each_lane!(i => value[i].to_bits() as i32)
    }
    #[inline(always)]
    fn bits_to_float(self, value: Self::Int) -> Self::Float {
        each_lane!(i => f32::from_bits(value[i] as u32))
    }
    #[inline(always)]
    fn add_int(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each_lane!(i => a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub_int(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each_lane!(i => a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn and(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each_lane!(i => a[i] & b[i])
    }
    #[inline(always)]
    fn or(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each_lane!(i => a[i] | b[i])
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, a: Self::Int) -> Self::Int {
        each_lane!(i => ((a[i] as u32) << N) as i32)
    }
    #[inline(always)]
    fn shift_right<const N: u32>(self, a: Self::Int) -> Self::Int {
        each_lane!(i => a[i] >> N)
    }
    #[inline(always)]
    fn int_to_float(self, a: Self::Int) -> Self::Float {
        each_lane!(i => a[i] as f32)
    }
    #[inline(always)]
    fn widen(self, from: &[i8; LANES]) -> Self::Int {
        each_lane!(i => i32::from(from[i]))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Simd};
    use std::arch::x86_64::*;

    /// The right to use AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(());

    /// The right to use AVX-512 F, BW, VL and DQ, and with `BF16` the bf16 dot product too.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512<const BF16: bool>(());

    impl Avx2 {
        /// # Safety
        /// The CPU must have AVX2 and FMA.
        #[inline(always)]
        pub(crate) unsafe fn new() -> Self {
            Self(())
        }
    }

    impl<const BF16: bool> Avx512<BF16> {
        /// # Safety
        /// The CPU must have AVX-512 F, BW, VL, DQ, and AVX512-BF16 where `BF16`.
        #[inline(always)]
        pub(crate) unsafe fn new() -> Self {
            Self(())
        }
    }

    /// The sum of eight lanes, by halves.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn sum_eight(lanes: __m256) -> f32 {
        let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }

    /// The greatest of eight lanes; NaN lanes may be passed over.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn max_eight(lanes: __m256) -> f32 {
        let four = _mm_max_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }

    /// One AVX2 operation on both halves.
    macro_rules! halves {
        ($operation:ident($($argument:ident),*)) => {
            // SAFETY: the token was made where AVX2 and FMA are present; the operation touches no memory.
            unsafe { [$operation($($argument[0]),*), $operation($($argument[1]),*)] }
        };
    }

    impl Simd for Avx2 {
        type Float = [__m256; 2];
        type Int = [__m256i; 2];
        type Mask = [__m256; 2];

        const TILE_ROWS: usize = 6;
        #[inline(always)]
        fn tile_vectors(rows: usize) -> usize {
            match rows {
                1 => 4,
                2 | 3 => 2,
                _ => 1,
            }
        }

        #[inline(always)]
        fn splat(self, value: f32) -> Self::Float {
            // SAFETY: the token was made where AVX2 is present.
            unsafe { [_mm256_set1_ps(value); 2] }
        }
        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Self::Float {
            // SAFETY: AVX2 by the token; sixteen floats by the type.
            unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))] }
        }
        #[inline(always)]
        fn store(self, value: Self::Float, to: &mut [f32; LANES]) {
            // SAFETY: AVX2 by the token; sixteen floats by the type.
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), value[0]);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), value[1]);
            }
        }
        #[inline(always)]
        fn add(self, a: Self::Float, b: Self::Float) -> Self::Float {
            halves!(_mm256_add_ps(a, b))
        }
        #[inline(always)]
        fn sub(self, a: Self::Float, b: Self::Float) -> Self::Float {
            halves!(_mm256_sub_ps(a, b))
        }
        #[inline(always)]
        fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float {
            halves!(_mm256_mul_ps(a, b))
        }
        #[inline(always)]
        fn div(self, a: Self::Float, b: Self::Float) -> Self::Float {
            halves!(_mm256_div_ps(a, b))
        }
        #[inline(always)]
        fn mul_add(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
            halves!(_mm256_fmadd_ps(a, b, c))
        }
        #[inline(always)]
        fn max(self, a: Self::Float, b: Self::Float) -> Self::Float {
            halves!(_mm256_max_ps(a, b))
        }
        #[inline(always)]
        fn min(self, a: Self::Float, b: Self::Float) -> Self::Float {
            halves!(_mm256_min_ps(a, b))
        }
        #[inline(always)]
        fn less(self, a: Self::Float, b: Self::Float) -> Self::Mask {
            // SAFETY: the token was made where AVX2 is present.
            unsafe { [_mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0]), _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])] }
        }
        #[inline(always)]
        fn select(self, mask: Self::Mask, yes: Self::Float, no: Self::Float) -> Self::Float {
            halves!(_mm256_blendv_ps(no, yes, mask))
        }
        #[inline(always)]
        fn splat_int(self, value: i32) -> Self::Int {
            // SAFETY: the token was made where AVX2 is present.
            unsafe { [_mm256_set1_epi32(value); 2] }
        }
        #[inline(always)]
        fn float_to_bits(self, value: Self::Float) -> Self::Int {
            halves!(_mm256_castps_si256(value))
        }
        #[inline(always)]
        fn bits_to_float(self, value: Self::Int) -> Self::Float {
            halves!(_mm256_castsi256_ps(value))
        }
        #[inline(always)]
        fn add_int(self, a: Self::Int, b: Self::Int) -> Self::Int {
            halves!(_mm256_add_epi32(a, b))
        }
        #[inline(always)]
        fn sub_int(self, a: Self::Int, b: Self::Int) -> Self::Int {
            halves!(_mm256_sub_epi32(a, b))
        }
        #[inline(always)]
        fn and(self, a: Self::Int, b: Self::Int) -> Self::Int {
            halves!(_mm256_and_si256(a, b))
        }
        #[inline(always)]
        fn or(self, a: Self::Int, b: Self::Int) -> Self::Int {
            halves!(_mm256_or_si256(a, b))
        }
        #[inline(always)]
        fn shift_left<const N: u32>(self, a: Self::Int) -> Self::Int {
            // SAFETY: the token was made where AVX2 is present.
            unsafe {
                let count = _mm_cvtsi32_si128(N as i32);
                [_mm256_sll_epi32(a[0], count), _mm256_sll_epi32(a[1], count)]
            }
        }
        #[inline(always)]
        fn shift_right<const N: u32>(self, a: Self::Int) -> Self::Int {
            // SAFETY: the token was made where AVX2 is present.
            unsafe {
                let count = _mm_cvtsi32_si128(N as i32);
                [_mm256_sra_epi32(a[0], count), _mm256_sra_epi32(a[1], count)]
            }
        }
        #[inline(always)]
        fn int_to_float(self, a: Self::Int) -> Self::Float {
            halves!(_mm256_cvtepi32_ps(a))
        }
        #[inline(always)]
        fn widen(self, from: &[i8; LANES]) -> Self::Int {
            // SAFETY: AVX2 by the token; sixteen bytes by the type.
            unsafe {
                let bytes = _mm_loadu_si128(from.as_ptr().cast());
                [_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes))]
            }
        }
        #[inline(always)]
        fn sum_lanes(self, value: Self::Float) -> f32 {
            // SAFETY: the token was made where AVX2 is present.
            unsafe { sum_eight(_mm256_add_ps(value[0], value[1])) }
        }
        #[inline(always)]
        fn max_lanes(self, value: Self::Float) -> f32 {
            // SAFETY: the token was made where AVX2 is present.
            unsafe { max_eight(_mm256_max_ps(value[0], value[1])) }
        }
    }

    /// One AVX-512 operation.
    macro_rules! whole {
        ($operation:ident $(::<$constant:tt>)? ($($argument:expr),*)) => {
            // SAFETY: the token was made where AVX-512 is present; the operation touches no memory.
            unsafe { $operation $(::<$constant>)? ($($argument),*) }
        };
    }

    impl<const BF16: bool> Simd for Avx512<BF16> {
        type Float = __m512;
        type Int = __m512i;
        type Mask = __mmask16;

        // 13 rows of 2 vectors fill 26 of the 32 registers; 2 hold the right side, 1 the broadcast left element.
        const TILE_ROWS: usize = 13;
        #[inline(always)]
        fn tile_vectors(rows: usize) -> usize {
            match rows {
                1..=3 => 8,
                4..=6 => 4,
                _ => 2,
            }
        }

        #[inline(always)]
        fn splat(self, value: f32) -> Self::Float {
            whole!(_mm512_set1_ps(value))
        }
        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Self::Float {
            // SAFETY: AVX-512 by the token; sixteen floats by the type.
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, value: Self::Float, to: &mut [f32; LANES]) {
            // SAFETY: AVX-512 by the token; sixteen floats by the type.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) }
        }
        #[inline(always)]
        fn add(self, a: Self::Float, b: Self::Float) -> Self::Float {
            whole!(_mm512_add_ps(a, b))
        }
        #[inline(always)]
        fn sub(self, a: Self::Float, b: Self::Float) -> Self::Float {
            whole!(_mm512_sub_ps(a, b))
        }
        #[inline(always)]
        fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float {
            whole!(_mm512_mul_ps(a, b))
        }
        #[inline(always)]
        fn div(self, a: Self::Float, b: Self::Float) -> Self::Float {
            whole!(_mm512_div_ps(a, b))
        }
        #[inline(always)]
        fn mul_add(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
            whole!(_mm512_fmadd_ps(a, b, c))
        }
        #[inline(always)]
        fn max(self, a: Self::Float, b: Self::Float) -> Self::Float {
            whole!(_mm512_max_ps(a, b))
        }
        #[inline(always)]
        fn min(self, a: Self::Float, b: Self::Float) -> Self::Float {
            whole!(_mm512_min_ps(a, b))
        }
        #[inline(always)]
        fn less(self, a: Self::Float, b: Self::Float) -> Self::Mask {
            whole!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b))
        }
        #[inline(always)]
        fn select(self, mask: Self::Mask, yes: Self::Float, no: Self::Float) -> Self::Float {
            whole!(_mm512_mask_blend_ps(mask, no, yes))
        }
        #[inline(always)]
        fn splat_int(self, value: i32) -> Self::Int {
            whole!(_mm512_set1_epi32(value))
        }
        #[inline(always)]
        fn float_to_bits(self, value: Self::Float) -> Self::Int {
            whole!(_mm512_castps_si512(value))
        }
        #[inline(always)]
        fn bits_to_float(self, value: Self::Int) -> Self::Float {
            whole!(_mm512_castsi512_ps(value))
        }
        #[inline(always)]
        fn add_int(self, a: Self::Int, b: Self::Int) -> Self::Int {
            whole!(_mm512_add_epi32(a, b))
        }
        #[inline(always)]
        fn sub_int(self, a: Self::Int, b: Self::Int) -> Self::Int {
            whole!(_mm512_sub_epi32(a, b))
        }
        #[inline(always)]
        fn and(self, a: Self::Int, b: Self::Int) -> Self::Int {
            whole!(_mm512_and_si512(a, b))
        }
        #[inline(always)]
        fn or(self, a: Self::Int, b: Self::Int) -> Self::Int {
            whole!(_mm512_or_si512(a, b))
        }
        #[inline(always)]
        fn shift_left<const N: u32>(self, a: Self::Int) -> Self::Int {
            whole!(_mm512_slli_epi32::<N>(a))
        }
        #[inline(always)]
        fn shift_right<const N: u32>(self, a: Self::Int) -> Self::Int {
            whole!(_mm512_srai_epi32::<N>(a))
        }
        #[inline(always)]
        fn int_to_float(self, a: Self::Int) -> Self::Float {
            whole!(_mm512_cvtepi32_ps(a))
        }
        #[inline(always)]
        fn widen(self, from: &[i8; LANES]) -> Self::Int {
            // SAFETY: AVX-512 by the token; sixteen bytes by the type.
            unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())) }
        }

        #[inline(always)]
        fn load_part(self, from: &[f32], fill: f32) -> Self::Float {
            assert!(from.len() < LANES);
            // SAFETY: AVX-512 by the token; the mask lets only the slice's own floats be read.
            unsafe {
                let mask = (1 << from.len()) - 1;
                _mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, from.as_ptr())
            }
        }
        #[inline(always)]
        fn store_part(self, value: Self::Float, to: &mut [f32]) {
            assert!(to.len() < LANES);
            // SAFETY: AVX-512 by the token; the mask lets only the slice's own floats be written.
            unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), (1 << to.len()) - 1, value) }
        }
        #[inline(always)]
        fn sum_lanes(self, value: Self::Float) -> f32 {
            // SAFETY: the token was made where AVX-512 is present, and AVX2 with it.
            unsafe {
                let high = _mm512_extractf32x8_ps::<1>(value);
                sum_eight(_mm256_add_ps(_mm512_castps512_ps256(value), high))
            }
        }
        #[inline(always)]
        fn max_lanes(self, value: Self::Float) -> f32 {
            // SAFETY: the token was made where AVX-512 is present, and AVX2 with it.
            unsafe {
                let high = _mm512_extractf32x8_ps::<1>(value);
                max_eight(_mm256_max_ps(_mm512_castps512_ps256(value), high))
            }
        }

        #[inline(always)]
        fn scale_by_power(self, a: Self::Float, n: Self::Float) -> Self::Float {
            whole!(_mm512_scalef_ps(a, n))
        }

        #[inline(always)]
        fn dot_bf16(self, accumulator: Self::Float, a: Self::Int, b: Self::Int) -> Self::Float {
            if BF16 {
                // SAFETY: such a token is made only where AVX512-BF16 is present; __m512bh and __m512i are the same
                // 64 bytes.
                unsafe {
                    let (a, b) = (
                        std::mem::transmute::<__m512i, __m512bh>(a),
                        std::mem::transmute::<__m512i, __m512bh>(b),
                    );
                    _mm512_dpbf16_ps(accumulator, a, b)
                }
            } else {
                let high = self.splat_int(0xffff_0000_u32 as i32);
                let first = self.mul_add(
                    self.bits_to_float(self.shift_left::<16>(a)),
                    self.bits_to_float(self.shift_left::<16>(b)),
                    accumulator,
                );
                self.mul_add(
                    self.bits_to_float(self.and(a, high)),
                    self.bits_to_float(self.and(b, high)),
                    first,
                )
            }
        }
    }
}

/// Defines a function `name(isa, arguments…)` whose body is compiled once for each instruction set.
///
/// The body is written for a token (its name and type are given first), and everything it calls with that token must
/// be `#[inline(always)]`, or it loses the instruction set's features.
macro_rules! kernel {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident[$token:ident: $simd:ident]
        ($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        $visibility fn $name(isa: $crate::isa::Isa, $($argument: $type),*) $(-> $result)? {
            #[allow(clippy::too_many_arguments)]
            #[inline(always)]
            #[allow(unused_variables)]
            fn generic<$simd: $crate::simd::Simd>($token: $simd, $($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $result)? {
                // SAFETY: this function is called only for an `Isa` that was detected.
                generic(unsafe { $crate::simd::Avx2::new() }, $($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
            fn avx512($($argument: $type),*) $(-> $result)? {
                // SAFETY: this function is called only for an `Isa` that was detected.
                generic(unsafe { $crate::simd::Avx512::<false>::new() }, $($argument),*)
            }

            match isa.kind() {
                $crate::isa::Kind::Portable => generic($crate::simd::Portable, $($argument),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` of this kind exists only where the CPU has these features.
                $crate::isa::Kind::Avx2 => unsafe { avx2($($argument),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above; AVX512-BF16 is on top of the same features.
                $crate::isa::Kind::Avx512 | $crate::isa::Kind::Avx512Bf16 => unsafe { avx512($($argument),*) },
            }
        }
    };
}
pub(crate) use kernel;

/// Replaces every number `$x` of a slice by an expression. A macro and not a function of a closure: a closure has no
/// instruction set of its own, and is not sure to be inlined where there is one.
macro_rules! map_lanes {
    ($s:ident, $values:expr, |$x:ident| $result:expr) => {{
        let (chunks, tail) = $values.as_chunks_mut::<{ $crate::simd::LANES }>();
        for chunk in chunks {
            let $x = $s.load(chunk);
            $s.store($result, chunk);
        }
        if !tail.is_empty() {
            let $x = $s.load_part(tail, 0.0);
            let result = $result;
            $s.store_part(result, tail);
        }
    }};
}
pub(crate) use map_lanes;

/// Folds a slice's numbers `$x` into four accumulators `$sum` of sixteen lanes, by position modulo 64; lanes beyond the
/// slice's end hold `$fill`. A macro for the same reason as [`map_lanes!`].
macro_rules! fold_lanes {
    ($s:ident, $values:expr, fill: $fill:expr, start: $start:expr, |$sum:ident, $x:ident| $result:expr) => {{
        let mut sums = [$s.splat($start); 4];
        let (rounds, rest) = $values.as_chunks::<{ $crate::reduce::ROUND }>();
        for round in rounds {
            let (vectors, _) = round.as_chunks::<{ $crate::simd::LANES }>();
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                let ($sum, $x) = (*sum, $s.load(vector));
                *sum = $result;
            }
        }
        let (vectors, tail) = rest.as_chunks::<{ $crate::simd::LANES }>();
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            let ($sum, $x) = (*sum, $s.load(vector));
            *sum = $result;
        }
        if !tail.is_empty() {
            let ($sum, $x) = (sums[vectors.len()], $s.load_part(tail, $fill));
            sums[vectors.len()] = $result;
        }
        sums
    }};
}
pub(crate) use fold_lanes;
