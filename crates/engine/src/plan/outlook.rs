//! What is known of an invoke before it walks.

use pellucid_graph::NodeId;
use pellucid_graph::check::CheckedProgram;
use pellucid_models::stage::StageList;

use super::{Rewrites, depth, late_from, length};
use crate::job::Instance;

/// What is known of an invoke's rows before it walks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlook {
    /// Whether its rows can be shared at all.
    pub shares: bool,
    /// The first stage at which they may differ from those of its tokens alone; none: nowhere.
    pub differs: Option<usize>,
    /// The first column of its rectangle that differs from there on, or that is read from there on.
    pub column: usize,
    /// The first column that anything of it reads or writes.
    pub first_column: usize,
    /// The same of what is read or written after the last attention.
    pub late: usize,
}

/// What an outlook is asked of.
pub(crate) struct Asker<'a> {
    pub program: &'a CheckedProgram,
    pub list: &'a StageList,
    /// The needed nodes that read a node's values; none: something else reads them too.
    pub users: &'a dyn Fn(NodeId) -> Option<&'a [NodeId]>,
    pub invoke: usize,
    /// The columns of its rectangle.
    pub width: usize,
}

impl Outlook {
    /// The outlook of an invoke with those touches, in the order of their stages.
    pub fn of(asker: &Asker<'_>, touches: &[(usize, Instance)], rewrites: Rewrites) -> Outlook {
        let differs = depth::first_edit(asker.program, touches);
        let from = |stage: usize| {
            let later = touches.iter().filter(|touch| touch.0 >= stage);
            length::first_column(asker, later.copied())
        };
        let column = differs.filter(|_| rewrites.length && rewrites.depth).map_or(0, from);
        let first_column = if rewrites.prefixes || rewrites.cache { from(0) } else { 0 };
        let late = if rewrites.last_layer { from(late_from(asker.list)) } else { 0 };
        Outlook { shares: true, differs, column, first_column, late }
    }

    /// The same, of an invoke that takes all its rows where it leaves those of others, and none of another prompt.
    pub fn whole(self) -> Outlook {
        Outlook { column: 0, first_column: 0, late: 0, ..self }
    }
}
