//! How a trace generates.

use super::Checker;
use crate::limits;
use crate::program::{Generation, NodeId};

impl Checker<'_> {
    /// What a generation is given must make sense, and the model must be able to generate.
    pub(super) fn generation(&mut self, id: NodeId, generation: &Generation) {
        let sampling = &generation.sampling;
        let positive = |number: f64| number.is_finite() && number > 0.0;
        let mut hold = |holds: bool, message: String, hint: &str| {
            if !holds {
                self.fault(id, message, Some(hint.into()));
            }
        };
        let tokens = generation.max_new_tokens;
        hold(
            (1..=limits::STEPS).contains(&tokens),
            format!("`max_new_tokens` is {tokens}; it must be 1 to {}", limits::STEPS),
            "it is how many tokens are made at most: without a generation leave `generate` out",
        );
        hold(
            sampling.temperature == 0.0 || positive(sampling.temperature),
            "`temperature` must be 0 (greedy) or a positive number".into(),
            "0.7 to 1 is usual; left out: 0, always the most probable token",
        );
        hold(
            sampling.top_p.is_none_or(|p| p > 0.0 && p <= 1.0),
            "`top_p` must be above 0 and at most 1".into(),
            "0.9 is usual; left out: all tokens",
        );
        hold(
            sampling.top_k != Some(0),
            "`top_k` must be at least 1".into(),
            "50 is usual; left out: all tokens",
        );
        hold(
            positive(sampling.repetition_penalty),
            "`repetition_penalty` must be a positive number".into(),
            "1.1 is usual; left out: 1, no penalty",
        );
        let spec = self.spec(id);
        if !spec.can("generate") {
            let hint = "leave `generate` out: a trace without it is one forward pass";
            self.fault(id, format!("`{}` cannot generate", spec.name), Some(hint.into()));
        }
    }
}
