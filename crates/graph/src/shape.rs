//! Dimensions and tensor types. A dimension may depend on lengths that are known only when prompts are tokenised.

use crate::dtype::DType;

/// A length that is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(pub u32);

/// A dimension: a whole number, plus multiples of lengths that are not known yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dimension {
    constant: i64,
    /// Sorted by symbol, without zero factors.
    terms: Vec<(Symbol, i64)>,
}

impl Dimension {
    /// A dimension that is known.
    pub fn known(size: u64) -> Self {
        Dimension { constant: i64::try_from(size).unwrap_or(i64::MAX), terms: Vec::new() }
    }

    /// A length that is not known yet.
    pub fn symbol(symbol: Symbol) -> Self {
        Dimension { constant: 0, terms: vec![(symbol, 1)] }
    }

    /// The size, if it is known.
    pub fn value(&self) -> Option<u64> {
        if self.terms.is_empty() { u64::try_from(self.constant).ok() } else { None }
    }

    /// Whether it is known to be 1.
    pub fn is_one(&self) -> bool {
        self.value() == Some(1)
    }

    /// The sum of two dimensions.
    pub fn plus(&self, other: &Dimension) -> Dimension {
        let mut terms = self.terms.clone();
        for &(symbol, factor) in &other.terms {
            match terms.binary_search_by_key(&symbol, |term| term.0) {
                Ok(at) => terms[at].1 = terms[at].1.saturating_add(factor),
                Err(at) => terms.insert(at, (symbol, factor)),
            }
        }
        terms.retain(|term| term.1 != 0);
        Dimension { constant: self.constant.saturating_add(other.constant), terms }
    }

    /// The dimension times a whole number.
    pub fn times(&self, factor: i64) -> Dimension {
        let mut terms: Vec<_> = self.terms.iter().map(|&(s, f)| (s, f.saturating_mul(factor))).collect();
        terms.retain(|term| term.1 != 0);
        Dimension { constant: self.constant.saturating_mul(factor), terms }
    }

    /// The dimension plus a whole number.
    pub fn offset(&self, by: i64) -> Dimension {
        Dimension { constant: self.constant.saturating_add(by), terms: self.terms.clone() }
    }

    /// The terms that are not known yet.
    pub fn terms(&self) -> &[(Symbol, i64)] {
        &self.terms
    }

    /// The known part.
    pub fn constant(&self) -> i64 {
        self.constant
    }

    /// The size when every length that is not known yet is taken to be `assumed`: for prices.
    pub fn assume(&self, assumed: u64) -> u64 {
        let assumed = i64::try_from(assumed).unwrap_or(i64::MAX);
        let sum = self
            .terms
            .iter()
            .fold(self.constant, |sum, &(_, factor)| sum.saturating_add(factor.saturating_mul(assumed)));
        u64::try_from(sum).unwrap_or(0)
    }
}

impl From<u64> for Dimension {
    fn from(size: u64) -> Self {
        Dimension::known(size)
    }
}

impl std::fmt::Display for Dimension {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut first = true;
        for &(Symbol(number), factor) in &self.terms {
            if !first {
                formatter.write_str(" + ")?;
            }
            first = false;
            if factor == 1 {
                write!(formatter, "L{number}")?;
            } else {
                write!(formatter, "{factor}·L{number}")?;
            }
        }
        match self.constant {
            0 if !first => Ok(()),
            constant if first => write!(formatter, "{constant}"),
            constant if constant < 0 => write!(formatter, " − {}", constant.unsigned_abs()),
            constant => write!(formatter, " + {constant}"),
        }
    }
}

/// A tensor's number type and shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// The number type.
    pub dtype: DType,
    /// The shape.
    pub shape: Vec<Dimension>,
}

impl TensorType {
    /// A tensor type of known sizes.
    pub fn known(dtype: DType, shape: &[u64]) -> Self {
        TensorType { dtype, shape: shape.iter().map(|&size| Dimension::known(size)).collect() }
    }

    /// The shape, if all of it is known.
    pub fn sizes(&self) -> Option<Vec<u64>> {
        self.shape.iter().map(Dimension::value).collect()
    }

    /// The number of elements, unknown lengths taken to be `assumed`; saturates.
    pub fn elements(&self, assumed: u64) -> u64 {
        self.shape.iter().fold(1u64, |product, dimension| product.saturating_mul(dimension.assume(assumed)))
    }

    /// Bytes, unknown lengths taken to be `assumed`; saturates.
    pub fn bytes(&self, assumed: u64) -> u64 {
        self.elements(assumed).saturating_mul(self.dtype.size())
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}[", self.dtype)?;
        for (place, dimension) in self.shape.iter().enumerate() {
            if place > 0 {
                formatter.write_str(", ")?;
            }
            write!(formatter, "{dimension}")?;
        }
        formatter.write_str("]")
    }
}
