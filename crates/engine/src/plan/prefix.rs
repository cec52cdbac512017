//! Common prefixes: of prompts that begin alike, the positions before their first difference are computed once.
//!
//! **Needs:** attention is causal; the invokes are one owner's, with the same weights, and no gradient goes back through the
//! one that takes. Nothing reads or writes it at the columns that it takes from another, at any depth: these rows are not there
//! (see `length` for how that is known). Of a generation that is the prompt's step; what a later step needs of the keys and
//! values is copied to its own.
//!
//! **Keeps:** the positions of a common prefix have the same tokens and positions, and the rows that they are taken from are
//! never edited: an invoke that edits them forks. So their keys and values are bit for bit those that the prompt would make.

use std::collections::HashMap;

/// Prompts that are looked at, of those that begin with the same token: those that came last.
const LOOKED_AT: usize = 64;

/// How many tokens two prompts have in common at their beginning.
pub(super) fn common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// The rows of a pass by how their prompts begin.
#[derive(Default)]
pub(super) struct Beginnings {
    /// By owner and first token.
    known: HashMap<(usize, u32), Vec<Known>>,
}

/// A prompt, and where its rows are.
struct Known {
    trunk: usize,
    prompt: usize,
    tokens: Vec<u32>,
}

impl Beginnings {
    /// The rows with which a prompt has most in common, and how many positions; not more than `most`.
    pub fn longest(&self, owner: usize, tokens: &[u32], most: usize) -> Option<(usize, usize, usize)> {
        let most = most.min(tokens.len().saturating_sub(1));
        if most == 0 {
            return None;
        }
        let known = self.known.get(&(owner, *tokens.first()?))?;
        let shared = known.iter().rev().take(LOOKED_AT).map(|other| {
            (common(&tokens[..most], &other.tokens), std::cmp::Reverse((other.trunk, other.prompt)))
        });
        let (positions, std::cmp::Reverse((trunk, prompt))) = shared.max()?;
        Some((trunk, prompt, positions))
    }

    /// Rows that others may begin with.
    pub fn add(&mut self, owner: usize, trunk: usize, prompts: &[Vec<u32>]) {
        for (prompt, tokens) in prompts.iter().enumerate() {
            if let Some(&first) = tokens.first() {
                self.known.entry((owner, first)).or_default().push(Known {
                    trunk,
                    prompt,
                    tokens: tokens.clone(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Beginnings;

    #[test]
    fn the_longest_common_prefix_is_found_but_never_the_whole_prompt_nor_another_owners() {
        let mut known = Beginnings::default();
        known.add(0, 0, &[vec![1, 2, 3, 4]]);
        known.add(0, 1, &[vec![1, 2, 9, 9], vec![1, 2, 3, 9]]);
        assert_eq!(known.longest(0, &[1, 2, 3, 9, 9], 9), Some((1, 1, 4)));
        assert_eq!(known.longest(0, &[1, 2, 3, 4], 9), Some((0, 0, 3)));
        assert_eq!(known.longest(0, &[1, 2, 3, 4], 2).map(|found| found.2), Some(2));
        assert_eq!(known.longest(0, &[7, 2], 9), None);
        assert_eq!(known.longest(0, &[1], 9), None);
        assert_eq!(known.longest(1, &[1, 2, 3, 4], 9), None);
    }
}
