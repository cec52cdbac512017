//! What a pass over an invoke's prompts takes, from sums that are made once: thousands of ways back ask for them.

use crate::program::Prompts;
use crate::rules::ASSUMED_LENGTH;
use crate::spec::ModelSpec;

/// What the prompts of an invoke come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Rows {
    /// Whether they are tokens already.
    pub known: bool,
    /// How many there are.
    pub prompts: u64,
    /// Tokens of all.
    pub tokens: u64,
    /// Tokens of the longest.
    pub longest: u64,
    /// Pairs of a token and one that it attends to.
    pub pairs: u64,
}

impl Rows {
    pub fn of(prompts: &Prompts) -> Rows {
        let mut rows = Rows { known: matches!(prompts, Prompts::Tokens(_)), ..Rows::default() };
        for length in lengths(prompts) {
            rows.prompts = rows.prompts.saturating_add(1);
            rows.tokens = rows.tokens.saturating_add(length);
            rows.longest = rows.longest.max(length);
            rows.pairs = rows.pairs.saturating_add(pairs(length));
        }
        rows
    }
}

/// The length of each prompt.
pub(super) fn lengths(prompts: &Prompts) -> impl Iterator<Item = u64> {
    let (tokens, texts) = match prompts {
        Prompts::Tokens(prompts) => (prompts.as_slice(), 0),
        Prompts::Text { texts, .. } => (&[][..], texts.len()),
        Prompts::Axis(_) => (&[][..], 0),
    };
    tokens.iter().map(|tokens| tokens.len() as u64).chain(std::iter::repeat_n(ASSUMED_LENGTH, texts))
}

/// Pairs of a token and one that it attends to, of one prompt.
pub(super) fn pairs(length: u64) -> u64 {
    length.saturating_mul(length.saturating_add(1)) / 2
}

/// What a model's pass takes for each token and each pair of tokens.
pub(super) struct Pass {
    /// Numbers of all matrices.
    weights: u64,
    /// Operations of attention, in all layers.
    attention: u64,
}

impl Pass {
    pub fn of(spec: &ModelSpec) -> Pass {
        let sizes = &spec.sizes;
        let embedding = sizes.vocabulary.saturating_mul(sizes.hidden);
        let matrices = spec.parameters.iter().filter(|parameter| parameter.shape.len() == 2);
        let weights = matrices.fold(0u64, |sum, parameter| {
            let size = parameter.shape.iter().fold(1u64, |product, &size| product.saturating_mul(size));
            sum.saturating_add(size)
        });
        let attention =
            sizes.layers.saturating_mul(sizes.heads).saturating_mul(sizes.head_size).saturating_mul(4);
        Pass { weights: weights.max(embedding), attention }
    }

    /// Two operations for each weight of a matrix and each token, and attention's own products.
    pub fn flops(&self, tokens: u64, pairs: u64) -> u64 {
        let products = self.weights.saturating_mul(2).saturating_mul(tokens);
        products.saturating_add(self.attention.saturating_mul(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_together_take_what_each_takes_alone() {
        let pass = Pass { weights: 1_000, attention: 7 };
        let prompts = Prompts::Tokens([1, 5, 5, 3].map(|length| vec![0; length]).to_vec());
        let alone: u64 = lengths(&prompts).map(|length| pass.flops(length, pairs(length))).sum();
        let rows = Rows::of(&prompts);
        assert_eq!(pass.flops(rows.tokens, rows.pairs), alone);
        assert_eq!(rows, Rows { known: true, prompts: 4, tokens: 14, longest: 5, pairs: 1 + 15 + 15 + 6 });
    }
}
