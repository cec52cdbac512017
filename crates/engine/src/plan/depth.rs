//! Depth sharing: invokes with equal tokens are one row until the first stage at which each is edited.
//!
//! **Needs:** the invokes are of one program, with the same prompts and the same weights; they take one step (no generation),
//! and no gradient goes back through them. Conditions do no harm: an edit that may be lost is taken for one.
//!
//! **Keeps:** a row depends on its tokens, on the weights, and on the edits at the stages before. Up to the first edit it is
//! bit for bit that of any other invoke of these tokens; what reads it there reads the same.

use pellucid_graph::NodeKind;
use pellucid_graph::check::CheckedProgram;

use crate::job::Instance;

/// The first stage at which an invoke's rows may differ from those of its tokens alone; none: nowhere.
pub(super) fn first_edit(program: &CheckedProgram, touches: &[(usize, Instance)]) -> Option<usize> {
    touches.iter().find(|(_, (_, id))| edits(&program.program.node(*id).kind)).map(|touch| touch.0)
}

/// Whether a touch changes what it touches.
pub(crate) fn edits(kind: &NodeKind) -> bool {
    matches!(kind, NodeKind::Set { .. } | NodeKind::Skip { .. })
}
