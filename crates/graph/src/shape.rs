//! Dimensions and tensor types. A dimension may depend on lengths that are known only when prompts are tokenised.

use crate::dtype::DType;

/// A length that is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(pub u32);

impl Symbol {
    /// Set in the number of a size that follows from lengths in a way that is not linear.
    const DERIVED: u32 = 1 << 31;

    /// A size that follows from lengths, but not linearly: the number of places that `x[:5]` leaves of an unknown length.
    pub fn derived(number: u32) -> Self {
        Symbol(number | Self::DERIVED)
    }

    /// Whether it is a derived size rather than a length.
    pub fn is_derived(self) -> bool {
        self.0 & Self::DERIVED != 0
    }

    /// The least that it can be: a prompt has at least one token, a derived size may be 0.
    pub fn minimum(self) -> i64 {
        i64::from(!self.is_derived())
    }
}

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

    /// The difference of two dimensions; it may be negative, and then it is no size.
    pub fn minus(&self, other: &Dimension) -> Dimension {
        self.plus(&other.times(-1))
    }

    /// The least that the form can be; none: it is not bounded below.
    pub fn lower(&self) -> Option<i64> {
        self.bound(|factor| factor > 0)
    }

    /// The most that the form can be; none: it is not bounded above.
    pub fn upper(&self) -> Option<i64> {
        self.bound(|factor| factor < 0)
    }

    fn bound(&self, bounded: impl Fn(i64) -> bool) -> Option<i64> {
        self.terms.iter().try_fold(self.constant, |sum, &(symbol, factor)| {
            bounded(factor).then(|| sum.saturating_add(factor.saturating_mul(symbol.minimum())))
        })
    }

    /// The least that the dimension can be as a size: never below 0.
    pub fn minimum(&self) -> u64 {
        self.lower().map_or(0, |lower| u64::try_from(lower).unwrap_or(0))
    }

    /// Whether some lengths make the two equal.
    pub fn could_equal(&self, other: &Dimension) -> bool {
        let difference = self.minus(other);
        if difference.terms.is_empty() {
            return difference.constant == 0;
        }
        let divisor = difference.terms.iter().fold(0, |divisor, term| gcd(divisor, term.1.unsigned_abs()));
        difference.lower().is_none_or(|lower| lower <= 0)
            && difference.upper().is_none_or(|upper| upper >= 0)
            && (divisor == 0 || difference.constant.unsigned_abs().is_multiple_of(divisor))
    }

    /// Whether some lengths make it that number.
    pub fn could_be(&self, size: u64) -> bool {
        self.could_equal(&Dimension::known(size))
    }

    /// Whether it is larger than the other, whatever the lengths.
    pub fn exceeds(&self, other: &Dimension) -> bool {
        self.minus(other).lower().is_some_and(|lower| lower > 0)
    }

    /// The largest number that divides every part of it; 0 for 0.
    pub fn content(&self) -> u64 {
        self.terms
            .iter()
            .fold(self.constant.unsigned_abs(), |divisor, term| gcd(divisor, term.1.unsigned_abs()))
    }

    /// The dimension divided by a number, if every part of it can be.
    pub fn divided(&self, by: u64) -> Option<Dimension> {
        let divide = |number: i64| {
            let by = i64::try_from(by).ok().filter(|&by| by > 0)?;
            (number % by == 0).then(|| number / by)
        };
        let terms = self.terms.iter().map(|&(symbol, factor)| Some((symbol, divide(factor)?)));
        Some(Dimension { constant: divide(self.constant)?, terms: terms.collect::<Option<_>>()? })
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

fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
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
            if factor != 1 {
                write!(formatter, "{factor}·")?;
            }
            match Symbol(number).is_derived() {
                false => write!(formatter, "L{number}")?,
                true => write!(formatter, "?{}", number & !Symbol::DERIVED)?,
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
