//! A number with which a library's long computation can be stopped.
//!
//! `faer` has decompositions of any type of number, and no way to stop one. So it is given `f64` under another name:
//! the same bits by the same instructions, except that before a square root, a reciprocal and a vectorised loop there is
//! a [`checkpoint`]. Of a singular value decomposition at most a tenth is computed between two of them, in one product.
// For the two functions that read and write through pointers, as those of `f64` do.
#![allow(unsafe_code)]

use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Rem, RemAssign, Sub, SubAssign};

use faer_traits::{ComplexField, RealField, SimdCapabilities};
use num_traits::{Num, One, Zero};
use pulp::Simd;

use crate::pool::checkpoint;

/// An `f64`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct Stoppable(pub f64);

macro_rules! arithmetic {
    ($($operator:ident $method:ident $assign:ident $assign_method:ident;)*) => {$(
        impl $operator for Stoppable {
            type Output = Stoppable;
            #[inline(always)]
            fn $method(self, other: Stoppable) -> Stoppable {
                Stoppable(self.0.$method(other.0))
            }
        }
        impl $operator<&Stoppable> for Stoppable {
            type Output = Stoppable;
            #[inline(always)]
            fn $method(self, other: &Stoppable) -> Stoppable {
                Stoppable(self.0.$method(other.0))
            }
        }
        impl $operator<Stoppable> for &Stoppable {
            type Output = Stoppable;
            #[inline(always)]
            fn $method(self, other: Stoppable) -> Stoppable {
                Stoppable(self.0.$method(other.0))
            }
        }
        impl $operator for &Stoppable {
            type Output = Stoppable;
            #[inline(always)]
            fn $method(self, other: &Stoppable) -> Stoppable {
                Stoppable(self.0.$method(other.0))
            }
        }
        impl $assign for Stoppable {
            #[inline(always)]
            fn $assign_method(&mut self, other: Stoppable) {
                self.0.$assign_method(other.0);
            }
        }
        impl $assign<&Stoppable> for Stoppable {
            #[inline(always)]
            fn $assign_method(&mut self, other: &Stoppable) {
                self.0.$assign_method(other.0);
            }
        }
    )*};
}

arithmetic! {
    Add add AddAssign add_assign;
    Sub sub SubAssign sub_assign;
    Mul mul MulAssign mul_assign;
    Div div DivAssign div_assign;
    Rem rem RemAssign rem_assign;
}

impl Neg for Stoppable {
    type Output = Stoppable;
    #[inline(always)]
    fn neg(self) -> Stoppable {
        Stoppable(-self.0)
    }
}

impl Neg for &Stoppable {
    type Output = Stoppable;
    #[inline(always)]
    fn neg(self) -> Stoppable {
        Stoppable(-self.0)
    }
}

impl Zero for Stoppable {
    fn zero() -> Stoppable {
        Stoppable(0.0)
    }
    fn is_zero(&self) -> bool {
        self.0 == 0.0
    }
}

impl One for Stoppable {
    fn one() -> Stoppable {
        Stoppable(1.0)
    }
}

impl Num for Stoppable {
    type FromStrRadixErr = <f64 as Num>::FromStrRadixErr;
    fn from_str_radix(text: &str, radix: u32) -> Result<Stoppable, Self::FromStrRadixErr> {
        f64::from_str_radix(text, radix).map(Stoppable)
    }
}

/// What takes numbers and gives one.
macro_rules! of_numbers {
    ($($name:ident($($argument:ident),*);)*) => {$(
        #[inline(always)]
        fn $name($($argument: &Stoppable),*) -> Stoppable {
            Stoppable(f64::$name($(&$argument.0),*))
        }
    )*};
}

/// Numbers that there are.
macro_rules! constants {
    ($($name:ident)*) => {$(
        #[inline(always)]
        fn $name() -> Stoppable {
            Stoppable(f64::$name())
        }
    )*};
}

type Vector<S> = <f64 as ComplexField>::SimdVec<S>;
type Indices<S> = <f64 as ComplexField>::SimdIndex<S>;
type Mask<S> = <f64 as ComplexField>::SimdMask<S>;
type MemoryMask<S> = <f64 as ComplexField>::SimdMemMask<S>;

/// What takes vectors and gives one.
macro_rules! of_vectors {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        #[inline(always)]
        fn $name<S: Simd>(context: &S, $($argument: $type),*) -> $result {
            f64::$name::<S>(context, $($argument),*)
        }
    )*};
}

impl ComplexField for Stoppable {
    type Arch = <f64 as ComplexField>::Arch;
    type Index = <f64 as ComplexField>::Index;
    type Real = Stoppable;
    type SimdCtx<S: Simd> = S;
    type SimdIndex<S: Simd> = Indices<S>;
    type SimdMask<S: Simd> = Mask<S>;
    type SimdMemMask<S: Simd> = MemoryMask<S>;
    type SimdVec<S: Simd> = Vector<S>;
    type Unit = f64;

    // The library's products take the bytes of such a number for those of an `f64`, which they are.
    const IS_NATIVE_F64: bool = true;
    const IS_REAL: bool = true;
    const SIMD_CAPABILITIES: SimdCapabilities = f64::SIMD_CAPABILITIES;

    constants! { zero_impl one_impl nan_impl infinity_impl }

    of_numbers! {
        from_real_impl(value);
        real_part_impl(value);
        imag_part_impl(value);
        copy_impl(value);
        conj_impl(value);
        abs_impl(value);
        abs1_impl(value);
        abs2_impl(value);
        mul_real_impl(left, right);
        mul_pow2_impl(left, right);
    }

    fn from_f64_impl(value: f64) -> Stoppable {
        Stoppable(value)
    }

    #[inline(always)]
    fn recip_impl(value: &Stoppable) -> Stoppable {
        checkpoint();
        Stoppable(f64::recip_impl(&value.0))
    }

    #[inline(always)]
    fn sqrt_impl(value: &Stoppable) -> Stoppable {
        checkpoint();
        Stoppable(f64::sqrt_impl(&value.0))
    }

    #[inline(always)]
    fn is_finite_impl(value: &Stoppable) -> bool {
        value.0.is_finite()
    }

    #[inline(always)]
    fn simd_ctx<S: Simd>(simd: S) -> S {
        checkpoint();
        simd
    }

    #[inline(always)]
    fn ctx_from_simd<S: Simd>(context: &S) -> S {
        *context
    }

    #[inline(always)]
    fn simd_splat<S: Simd>(context: &S, value: &Stoppable) -> Vector<S> {
        f64::simd_splat(context, &value.0)
    }

    #[inline(always)]
    fn simd_splat_real<S: Simd>(context: &S, value: &Stoppable) -> Vector<S> {
        f64::simd_splat_real(context, &value.0)
    }

    #[inline(always)]
    fn simd_reduce_sum<S: Simd>(context: &S, value: Vector<S>) -> Stoppable {
        Stoppable(f64::simd_reduce_sum(context, value))
    }

    #[inline(always)]
    fn simd_reduce_max<S: Simd>(context: &S, value: Vector<S>) -> Stoppable {
        Stoppable(f64::simd_reduce_max(context, value))
    }

    #[inline(always)]
    unsafe fn simd_mask_load_raw<S: Simd>(
        context: &S,
        mask: MemoryMask<S>,
        from: *const Vector<S>,
    ) -> Vector<S> {
        // SAFETY: what this promises and asks for is what the same function of `f64` does, whose vectors and masks these
        // are: that what the mask names can be read from there.
        unsafe { f64::simd_mask_load_raw(context, mask, from) }
    }

    #[inline(always)]
    unsafe fn simd_mask_store_raw<S: Simd>(
        context: &S,
        mask: MemoryMask<S>,
        to: *mut Vector<S>,
        values: Vector<S>,
    ) {
        // SAFETY: as above, of what can be written.
        unsafe { f64::simd_mask_store_raw(context, mask, to, values) }
    }

    of_vectors! {
        simd_mask_between(start: Self::Index, end: Self::Index) -> Mask<S>;
        simd_mem_mask_between(start: Self::Index, end: Self::Index) -> MemoryMask<S>;
        simd_add(left: Vector<S>, right: Vector<S>) -> Vector<S>;
        simd_sub(left: Vector<S>, right: Vector<S>) -> Vector<S>;
        simd_neg(value: Vector<S>) -> Vector<S>;
        simd_conj(value: Vector<S>) -> Vector<S>;
        simd_abs1(value: Vector<S>) -> Vector<S>;
        simd_abs_max(value: Vector<S>) -> Vector<S>;
        simd_mul_real(left: Vector<S>, right: Vector<S>) -> Vector<S>;
        simd_mul_pow2(left: Vector<S>, right: Vector<S>) -> Vector<S>;
        simd_mul(left: Vector<S>, right: Vector<S>) -> Vector<S>;
        simd_conj_mul(left: Vector<S>, right: Vector<S>) -> Vector<S>;
        simd_mul_add(left: Vector<S>, right: Vector<S>, sum: Vector<S>) -> Vector<S>;
        simd_conj_mul_add(left: Vector<S>, right: Vector<S>, sum: Vector<S>) -> Vector<S>;
        simd_abs2(value: Vector<S>) -> Vector<S>;
        simd_abs2_add(value: Vector<S>, sum: Vector<S>) -> Vector<S>;
        simd_equal(left: Vector<S>, right: Vector<S>) -> Mask<S>;
        simd_less_than(left: Vector<S>, right: Vector<S>) -> Mask<S>;
        simd_less_than_or_equal(left: Vector<S>, right: Vector<S>) -> Mask<S>;
        simd_greater_than(left: Vector<S>, right: Vector<S>) -> Mask<S>;
        simd_greater_than_or_equal(left: Vector<S>, right: Vector<S>) -> Mask<S>;
        simd_select(mask: Mask<S>, yes: Vector<S>, no: Vector<S>) -> Vector<S>;
        simd_index_select(mask: Mask<S>, yes: Indices<S>, no: Indices<S>) -> Indices<S>;
        simd_index_splat(value: Self::Index) -> Indices<S>;
        simd_index_add(left: Indices<S>, right: Indices<S>) -> Indices<S>;
        simd_index_less_than(left: Indices<S>, right: Indices<S>) -> Mask<S>;
        simd_and_mask(left: Mask<S>, right: Mask<S>) -> Mask<S>;
        simd_or_mask(left: Mask<S>, right: Mask<S>) -> Mask<S>;
        simd_not_mask(mask: Mask<S>) -> Mask<S>;
        simd_first_true_mask(mask: Mask<S>) -> usize;
    }
}

impl RealField for Stoppable {
    constants! { epsilon_impl min_positive_impl max_positive_impl sqrt_min_positive_impl sqrt_max_positive_impl }

    fn nbits_impl() -> usize {
        f64::nbits_impl()
    }
}
