//! Running reductions over a sweep's cells.

use pellucid_graph::{NodeId, Reduce as Reduced, Reduction, Scalar};

/// How values of a sweep's cells become one: see [`Cell::reduce`](crate::Cell::reduce).
#[derive(Clone, Debug)]
pub struct Reduce(pub(crate) Reduced);

impl Reduce {
    fn new(reduction: Reduction) -> Reduce {
        let value = NodeId(0).into();
        Reduce(Reduced { reduction, value, dim: Vec::new(), correction: Scalar::Int(1), k: 0, largest: true })
    }

    /// The sum.
    pub fn sum() -> Reduce {
        Reduce::new(Reduction::Sum)
    }

    /// The mean.
    pub fn mean() -> Reduce {
        Reduce::new(Reduction::Mean)
    }

    /// The variance, with a divisor of the number of samples minus 1.
    pub fn var() -> Reduce {
        Reduce::new(Reduction::Var)
    }

    /// The smallest.
    pub fn amin() -> Reduce {
        Reduce::new(Reduction::Amin)
    }

    /// The largest.
    pub fn amax() -> Reduce {
        Reduce::new(Reduction::Amax)
    }

    /// The covariance of the last dimension, `[width, width]`; all others are samples.
    pub fn covariance() -> Reduce {
        Reduce::new(Reduction::Covariance)
    }

    /// The `k` largest, along a new last dimension.
    pub fn topk(k: u64) -> Reduce {
        let Reduce(how) = Reduce::new(Reduction::TopK);
        Reduce(Reduced { k, ..how })
    }

    /// Dimensions of the value that count as samples too, beside the cells.
    #[must_use]
    pub fn over(mut self, dim: impl IntoIterator<Item = i64>) -> Reduce {
        self.0.dim = dim.into_iter().collect();
        self
    }

    /// Of variance and covariance: what is taken off the number of samples in the divisor.
    #[must_use]
    pub fn correction(mut self, correction: f64) -> Reduce {
        self.0.correction = Scalar::Float(correction);
        self
    }

    /// Of [`Reduce::topk`]: the smallest in place of the largest.
    #[must_use]
    pub fn smallest(mut self) -> Reduce {
        self.0.largest = false;
        self
    }
}
