//! Methods for reductions, normalisations and products.

use pellucid_graph::OperationKind;

use super::arguments::{absent, boolean, dimensions, integer, integers, number};
use super::{Dimension, Dimensions, Given, Value};

macro_rules! reductions {
    ($($(#[$doc:meta])* $method:ident $keepdim:ident $kind:ident ($given:ident: $type:ident) [$($before:expr),*] [$($after:expr),*];)*) => {
        impl Value {
            $(
                $(#[$doc])*
                #[track_caller]
                pub fn $method(&self, $given: impl Into<$type>) -> Value {
                    let over = Given::Plain($given.into().argument());
                    self.writer().operation(OperationKind::$kind, [Given::Value(self), $($before,)* over, boolean(false), $($after),*])
                }

                #[doc = concat!("[`Value::", stringify!($method), "`], with the dimensions that it goes over kept as ones of size 1.")]
                #[track_caller]
                pub fn $keepdim(&self, $given: impl Into<$type>) -> Value {
                    let over = Given::Plain($given.into().argument());
                    self.writer().operation(OperationKind::$kind, [Given::Value(self), $($before,)* over, boolean(true), $($after),*])
                }
            )*
        }
    };
}

reductions! {
    /// The sum over dimensions; `..`: over all.
    sum sum_keepdim Sum(over: Dimensions) [] [absent()];
    /// The mean over dimensions; `..`: over all.
    mean mean_keepdim Mean(over: Dimensions) [] [];
    /// The product along a dimension; `..`: over all.
    prod prod_keepdim Prod(over: Dimension) [] [];
    /// The largest over dimensions; `..`: over all.
    amax amax_keepdim Amax(over: Dimensions) [] [];
    /// The smallest over dimensions; `..`: over all.
    amin amin_keepdim Amin(over: Dimensions) [] [];
    /// The place of the largest along a dimension, the lowest of equals; `..`: in the flattened value.
    argmax argmax_keepdim Argmax(over: Dimension) [] [];
    /// The place of the smallest along a dimension, the lowest of equals; `..`: in the flattened value.
    argmin argmin_keepdim Argmin(over: Dimension) [] [];
    /// The Euclidean norm over dimensions; `..`: over all.
    norm norm_keepdim Norm(over: Dimensions) [number(2.0)] [];
    /// Whether one is not 0, over dimensions; `..`: over all.
    any any_keepdim Any(over: Dimensions) [] [];
    /// Whether none is 0, over dimensions; `..`: over all.
    all all_keepdim All(over: Dimensions) [] [];
    /// `ln(sum(exp(x)))` over dimensions.
    logsumexp logsumexp_keepdim LogSumExp(over: Dimensions) [] [];
}

/// Reductions with more to say.
impl Value {
    /// The variance over dimensions (`..`: over all). `correction`: 1 for a sample's, 0 for a population's.
    #[track_caller]
    pub fn var(&self, over: impl Into<Dimensions>, correction: f64) -> Value {
        self.spread(OperationKind::Var, over.into(), correction, false)
    }

    /// [`Value::var`], with the dimensions that it goes over kept as ones of size 1.
    #[track_caller]
    pub fn var_keepdim(&self, over: impl Into<Dimensions>, correction: f64) -> Value {
        self.spread(OperationKind::Var, over.into(), correction, true)
    }

    /// The standard deviation over dimensions (`..`: over all). `correction`: 1 for a sample's, 0 for a population's.
    #[track_caller]
    pub fn std(&self, over: impl Into<Dimensions>, correction: f64) -> Value {
        self.spread(OperationKind::Std, over.into(), correction, false)
    }

    /// [`Value::std`], with the dimensions that it goes over kept as ones of size 1.
    #[track_caller]
    pub fn std_keepdim(&self, over: impl Into<Dimensions>, correction: f64) -> Value {
        self.spread(OperationKind::Std, over.into(), correction, true)
    }

    #[track_caller]
    fn spread(&self, kind: OperationKind, over: Dimensions, correction: f64, keepdim: bool) -> Value {
        let over = Given::Plain(over.argument());
        self.writer().operation(kind, [Given::Value(self), over, number(correction), boolean(keepdim)])
    }

    /// The p-norm of the elements over dimensions (`..`: over all).
    #[track_caller]
    pub fn p_norm(&self, p: f64, over: impl Into<Dimensions>) -> Value {
        let arguments = [Given::Value(self), number(p), dimensions(over), boolean(false)];
        self.writer().operation(OperationKind::Norm, arguments)
    }

    /// The running sum along a dimension.
    #[track_caller]
    pub fn cumsum(&self, along: i64) -> Value {
        self.writer().operation(OperationKind::CumSum, [Given::Value(self), integer(along)])
    }

    /// The running product along a dimension.
    #[track_caller]
    pub fn cumprod(&self, along: i64) -> Value {
        self.writer().operation(OperationKind::CumProd, [Given::Value(self), integer(along)])
    }
}

/// Normalisations and products.
impl Value {
    /// Exponentials that sum to 1 along a dimension.
    #[track_caller]
    pub fn softmax(&self, along: i64) -> Value {
        self.writer().operation(OperationKind::Softmax, [Given::Value(self), integer(along)])
    }

    /// The logarithm of softmax.
    #[track_caller]
    pub fn log_softmax(&self, along: i64) -> Value {
        self.writer().operation(OperationKind::LogSoftmax, [Given::Value(self), integer(along)])
    }

    /// Mean 0 and variance 1 over the last dimensions, whose sizes are `shape`; then scaled and shifted.
    #[track_caller]
    pub fn layer_norm(
        &self,
        shape: &[i64],
        weight: Option<&Value>,
        bias: Option<&Value>,
        epsilon: f64,
    ) -> Value {
        let (weight, bias) = (Given::Optional(weight), Given::Optional(bias));
        let arguments = [Given::Value(self), integers(shape), weight, bias, number(epsilon)];
        self.writer().operation(OperationKind::LayerNorm, arguments)
    }

    /// Mean square 1 over the last dimensions, whose sizes are `shape`; then scaled.
    #[track_caller]
    pub fn rms_norm(&self, shape: &[i64], weight: Option<&Value>, epsilon: f64) -> Value {
        let arguments = [Given::Value(self), integers(shape), Given::Optional(weight), number(epsilon)];
        self.writer().operation(OperationKind::RmsNorm, arguments)
    }

    /// The matrix product, batched and broadcast.
    #[track_caller]
    pub fn matmul(&self, other: &Value) -> Value {
        self.writer().operation(OperationKind::Matmul, [Given::Value(self), Given::Value(other)])
    }

    /// The outer product of two vectors.
    #[track_caller]
    pub fn outer(&self, other: &Value) -> Value {
        self.writer().operation(OperationKind::Outer, [Given::Value(self), Given::Value(other)])
    }
}
