//! Depth sharing: invokes with equal tokens are one row until the first stage at which their edits differ.
//!
//! **Needs:** the invokes are one owner's, with the same prompts and the same weights. Conditions do no harm: an edit that may
//! be lost is taken for one.
//!
//! **Keeps:** a row depends on its tokens, on the weights, and on the edits at the stages before. Up to the first edit it is
//! bit for bit that of any other invoke of these tokens; what reads it there reads the same. Those that are edited alike there (`alike`)
//! leave it together, and go on as one row until their edits differ.
//!
//! Of a generation it is the prompt's step that is shared. Who is never edited in it stays aboard to its end; there each draws its
//! own token from the same logits, and at the next step has a row of its own. Keys and values of the prompt are the same ones until
//! a row adds its own to them: then they are copied, so that each attends to one store, as fast as by itself.
//!
//! What a way back needs is kept of the rows in common, once for all that need it (`reverse::tape`): so who goes back forks
//! no earlier than others do. A way back itself is each invoke's own.

use pellucid_graph::NodeKind;
use pellucid_graph::check::CheckedProgram;

use crate::job::Instance;

/// Whether one of those touches changes what it touches.
pub(super) fn edits_any(program: &CheckedProgram, touches: &[(usize, Instance)]) -> bool {
    touches.iter().any(|(_, (_, id))| edits(&program.program.node(*id).kind))
}

/// Whether a touch changes what it touches.
pub(crate) fn edits(kind: &NodeKind) -> bool {
    matches!(kind, NodeKind::Set { .. } | NodeKind::Skip { .. })
}
