//! The last layer: after its attention only the positions are computed that are read. Where anything is touched before the final norm,
//! these are all from the first on that is read or written.
//!
//! **Needs:** every stage after the last attention treats each token alone. It is the prompt's step, and no gradient goes back through the
//! invoke. Every touch there names its columns statically, from some column on (see `length` for how that is known); an invoke that
//! draws a token reads its last position. Of invokes that share rows the first such column of all of them counts.
//!
//! **Keeps:** a row there depends on itself alone, and keys and values of all positions are in their places by then, also for a next step.
//! What a getter shows at columns that are not computed reads 0, but nothing looks at them.
//!
//! From the final norm on fewer still are computed, where single positions are read (`positions`).

use pellucid_models::stage::{Kernel, StageList};

/// The first stage that computes after the last attention.
pub(crate) fn late_from(list: &StageList) -> usize {
    let attention = list.stages.iter().rposition(|stage| matches!(stage.kernel, Kernel::AttentionMixed(_)));
    let after = attention.map_or(list.token_wise_from, |attention| attention + 1);
    let computes = |at: &usize| !matches!(list.stages[*at].kernel, Kernel::Hook { .. });
    (after..list.token_wise_from).find(computes).unwrap_or(list.token_wise_from)
}
