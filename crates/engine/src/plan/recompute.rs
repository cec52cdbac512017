//! Recomputation: what a way back reads of a layer is kept where there is room for it; where there is none it is given up, and
//! computed again on the way back from the residual stream that the layer began with.
//!
//! **Needs:** a part of the list of stages before which one value of each token alone is alive, and which is not narrowed: a
//! layer. That value has been kept, and so has every edit of the invoke within the layer. What ways back keep of a program is
//! more than its memory has room for, beside all that its price says it needs.
//!
//! **Keeps:** a row's activations depend on the residual stream of its prompt before the layer, on the weights that the invoke
//! runs with, and on its edits. All of these are the same ones, and kernels give a row the same bits whatever other rows there
//! are, so what is computed again is bit for bit what was given up.

use std::ops::Range;

use pellucid_graph::check::Price;
use pellucid_models::stage::{Kernel, POSITIONS, Slot, StageList, TOKENS};

use crate::job::RunOptions;

/// A part of a list of stages that can be computed again by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub stages: Range<usize>,
    /// The only value of each token that is alive before it.
    pub root: Slot,
}

/// A list's segments, in order: from a stage before each attention to that before the next.
pub(crate) fn segments(list: &StageList, last_use: &[usize]) -> Vec<Segment> {
    let mut written = vec![usize::MAX; list.slots as usize];
    for (number, stage) in list.stages.iter().enumerate() {
        stage.outputs.iter().for_each(|slot| written[slot.0 as usize] = number);
    }
    let alone = |stage: usize| {
        let mut alive = (0..list.slots as usize)
            .filter(|&slot| slot != TOKENS.0 as usize && slot != POSITIONS.0 as usize)
            .filter(|&slot| written[slot] < stage && last_use[slot] >= stage);
        let first = alive.next()?;
        alive.next().is_none().then_some(Slot(first as u32))
    };
    let (mut roots, mut latest) = (Vec::new(), None);
    for (number, stage) in list.stages.iter().enumerate().take(list.token_wise_from) {
        match stage.kernel {
            Kernel::AttentionScores(_) => roots.extend(latest.take()),
            _ => latest = alone(number).map(|root| (number, root)).or(latest),
        }
    }
    roots.windows(2).map(|pair| Segment { stages: pair[0].0..pair[1].0, root: pair[0].1 }).collect()
}

/// Bytes that may be kept for a program's ways back: what is left of its memory beside all that it needs, and no more than it is
/// told. None: as many as there are.
pub(crate) fn room(price: &Price, options: &RunOptions) -> Option<u64> {
    let left = options.memory_bytes.map(|memory| memory.saturating_sub(price.peak_bytes));
    let left = left.filter(|&left| left < price.kept_bytes);
    left.into_iter().chain(options.kept_bytes).min()
}
