//! What is known of an invoke before it walks.

use pellucid_graph::NodeId;
use pellucid_graph::check::CheckedProgram;
use pellucid_models::stage::StageList;

use super::alike::{Alike, Edited};
use super::{Rewrites, depth, late_from, length};
use crate::job::Instance;
use crate::pass::is_within_attention;

/// What is known of an invoke's rows before it walks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlook {
    /// Whether its rows can be shared at all.
    pub shares: bool,
    /// Where its rows are edited, in order, as far as others may be edited alike: the first that nobody's are alike is the last.
    pub edits: Vec<Parting>,
    /// The first column that anything of it reads or writes.
    pub first_column: usize,
    /// The same of what is read or written after the last attention.
    pub late: usize,
    /// Whether nothing is touched between the last attention and where rows are narrowed: then only those rows are computed there.
    pub late_is_read: bool,
}

/// An edit: there an invoke leaves the rows of those that are not edited alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Parting {
    pub stage: usize,
    /// The first column of its rectangle that differs from there on, or that is read from there on.
    pub column: usize,
    /// What it has in common with those that are edited alike; none: nobody's edit is alike.
    pub alike: Option<u32>,
}

/// Edits of an invoke that are compared with those of others.
const EDITS: usize = 64;

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
    /// The outlook of an invoke with those touches, in the order of their stages; where edits are alike, if it is asked.
    pub fn of(
        asker: &Asker<'_>,
        touches: &[(usize, Instance)],
        rewrites: Rewrites,
        mut alike: Option<(&mut Alike, Option<NodeId>)>,
    ) -> Outlook {
        let Asker { program, list, invoke, .. } = *asker;
        // The first column that each touch or one after it reads or writes.
        let mut columns = vec![usize::MAX; touches.len() + 1];
        for (number, &touch) in touches.iter().enumerate().rev() {
            columns[number] = columns[number + 1].min(length::touched_from(asker, touch));
        }
        let from = |stage: usize| {
            let first = touches.partition_point(|touch| touch.0 < stage);
            columns[first].min(asker.width.saturating_sub(1))
        };
        let late_from = late_from(list);
        if let Some((alike, _)) = &mut alike {
            alike.begin(program, touches);
        }
        let mut edits = Vec::new();
        for here in touches.chunk_by(|one, other| one.0 == other.0) {
            let (Some(&(stage, _)), true) = (here.first(), depth::edits_any(program, here)) else { continue };
            let column = if rewrites.length && rewrites.depth { from(stage) } else { 0 };
            // Within attention keys and values of those that would leave these rows again have no place yet.
            let may = edits.len() < EDITS && stage < late_from && !is_within_attention(list, stage);
            let alike = alike.as_mut().filter(|_| may);
            let alike = alike
                .and_then(|(alike, trace)| alike.edits_of(Edited { program, trace: *trace, invoke }, here));
            edits.push(Parting { stage, column, alike });
            if alike.is_none() {
                break;
            }
        }
        let first_column = if rewrites.prefixes || rewrites.cache { from(0) } else { 0 };
        let late = if rewrites.last_layer { from(late_from) } else { 0 };
        let between = touches.partition_point(|touch| touch.0 < late_from)
            ..touches.partition_point(|touch| touch.0 < list.token_wise_from);
        let late_is_read = rewrites.last_layer && between.is_empty();
        Outlook { shares: true, edits, first_column, late, late_is_read }
    }

    /// The same, of an invoke that takes all its rows where it leaves those of others, and none of another prompt.
    pub fn whole(mut self) -> Outlook {
        self.edits.iter_mut().for_each(|edit| edit.column = 0);
        Outlook { first_column: 0, late: 0, late_is_read: false, ..self }
    }
}
