//! Which columns of the vocabulary an invoke reads of its logits.

use std::sync::Arc;

use pellucid_graph::{NodeId, NodeKind};
use pellucid_kernels::columns_computed;

use super::group::Group;
use super::member::Member;
use crate::job::OUTSIDE;
use crate::loaded::Loaded;
use crate::plan::{ColumnsRead, Rewrites, worthwhile};

impl Member<'_> {
    /// Finds the columns of the vocabulary that are read of an invoke's logits at its step, and which values have only these.
    pub(super) fn set_vocabulary(&mut self, invoke: usize, loaded: &Loaded, rewrites: Rewrites) {
        let read = self.vocabulary(&self.groups[invoke], loaded).filter(|_| rewrites.unembedding);
        let group = &mut self.groups[invoke];
        let Some(read) = read else {
            (group.vocabulary, group.unread) = (None, 0);
            return;
        };
        let size = loaded.model.spec().sizes.vocabulary;
        let columns: Arc<[usize]> = read.columns.into();
        group.unread = size.saturating_sub(columns_computed(&columns) as u64);
        group.vocabulary = Some(columns.clone());
        let unembedding = loaded.schedule.unembedding.unwrap_or(usize::MAX);
        let getters = group.touches.iter().filter(|touch| touch.0 > unembedding).map(|&(_, (_, id))| id);
        for id in getters.chain(read.through) {
            self.job.vocabulary.insert((OUTSIDE, id), columns.clone());
        }
    }

    /// The columns of the vocabulary that are read of an invoke's logits; none: all of them, or so many that it does not pay.
    fn vocabulary(&self, group: &Group, loaded: &Loaded) -> Option<ColumnsRead> {
        let unembedding = loaded.schedule.unembedding?;
        let one_step = group.step == 0 && group.last_step == 0 && !group.wants_token;
        let gradients = group.tracked.is_some() || !group.asked.gradients.is_empty();
        if !one_step || gradients || group.end <= unembedding {
            return None;
        }
        let job = &self.job;
        let users = |id: NodeId| job.readers(id);
        let size = usize::try_from(loaded.model.spec().sizes.vocabulary).ok()?;
        let mut read = ColumnsRead::default();
        for &(_, (step, id)) in group.touches.iter().filter(|touch| touch.0 > unembedding) {
            match job.program.program.node(id).kind {
                NodeKind::Get(_) if step == OUTSIDE => read.read(&job.program, &users, id)?,
                _ => return None,
            }
        }
        worthwhile(&read.columns, size).then_some(read)
    }
}
