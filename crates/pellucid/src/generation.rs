//! How a trace generates.

use pellucid_graph::Generation as Definition;

/// How a trace generates: how many tokens, and how each is chosen. A number alone is greedy:
///
/// ```
/// use pellucid::Generation;
///
/// let greedy: Generation = 20.into();
/// let sampled = Generation::new(20).temperature(0.8).top_p(0.95).stop_text("\n");
/// ```
#[derive(Clone, Debug)]
pub struct Generation(pub(crate) Definition);

impl Generation {
    /// At most so many new tokens, each the most probable one, until the model's own end.
    pub fn new(max_new_tokens: u64) -> Generation {
        Generation(Definition {
            max_new_tokens,
            sampling: Default::default(),
            stop_tokens: None,
            stop_texts: Vec::new(),
        })
    }

    /// Above 0, tokens are drawn: logits are divided by it. 0 is greedy.
    #[must_use]
    pub fn temperature(mut self, temperature: f64) -> Generation {
        self.0.sampling.temperature = temperature;
        self
    }

    /// Draws only from so many of the most probable tokens.
    #[must_use]
    pub fn top_k(mut self, tokens: u64) -> Generation {
        self.0.sampling.top_k = Some(tokens);
        self
    }

    /// Draws only from the most probable tokens that together reach this probability.
    #[must_use]
    pub fn top_p(mut self, probability: f64) -> Generation {
        self.0.sampling.top_p = Some(probability);
        self
    }

    /// Divides the positive logits of tokens already present by it, and multiplies the negative ones. 1: no penalty.
    #[must_use]
    pub fn repetition_penalty(mut self, penalty: f64) -> Generation {
        self.0.sampling.repetition_penalty = penalty;
        self
    }

    /// Ends a prompt's generation at these tokens instead of the model's own; with none, it never ends early.
    #[must_use]
    pub fn stop_tokens(mut self, tokens: impl IntoIterator<Item = u32>) -> Generation {
        self.0.stop_tokens = Some(tokens.into_iter().collect());
        self
    }

    /// Ends a prompt's generation at this text too.
    #[must_use]
    pub fn stop_text(mut self, text: impl Into<String>) -> Generation {
        self.0.stop_texts.push(text.into());
        self
    }
}

impl From<u64> for Generation {
    fn from(max_new_tokens: u64) -> Self {
        Generation::new(max_new_tokens)
    }
}

impl From<i32> for Generation {
    fn from(max_new_tokens: i32) -> Self {
        Generation::new(u64::try_from(max_new_tokens).unwrap_or(0))
    }
}
