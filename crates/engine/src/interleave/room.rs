//! How much a program's getters may bring in one pass.
//!
//! Where a program has neighbours its small nodes run in slices of time, and long ones between passes: what getters gave is
//! held until their readers have run. Invokes that share rows could all be aboard one pass, whose getters would bring at once
//! what one after the other never fills a program's memory. So they ride in waves, and a program that holds much runs what it
//! has left before it rides again.

use pellucid_graph::NodeKind;
use pellucid_graph::limits::TOGETHER_BYTES;

use super::group::Group;
use super::member::Member;
use crate::job::Job;

impl Group {
    /// Bytes that the getters bring which it has ahead at its step.
    pub(super) fn brings(&self, job: &Job<'_>) -> u64 {
        let ahead = self.touches.get(self.next_touch..).unwrap_or_default();
        let getters = ahead.iter().filter(|(_, instance)| {
            matches!(job.program.program.node(instance.1).kind, NodeKind::Get(_)) && job.is_read(*instance)
        });
        getters.fold(0, |sum: u64, &(_, instance)| sum.saturating_add(job.bytes_given(instance, self.width)))
    }
}

impl Member<'_> {
    /// Bytes that it may hold while its nodes wait: what it was priced at, or a little; at most half of what it is allowed.
    fn ceiling(&self) -> u64 {
        let half = self.job.options.memory_bytes.map_or(u64::MAX, |allowed| allowed / 2);
        self.job.program.price.peak_bytes.max(TOGETHER_BYTES).min(half)
    }

    /// Bytes that its getters may bring in its next pass; none: any number, as they are read at once.
    pub(super) fn room(&self) -> Option<u64> {
        self.job.defers.then(|| self.ceiling().saturating_sub(self.job.held_bytes()))
    }

    /// Whether it first runs what it has left: it holds much, and its nodes may free that.
    pub(super) fn is_full(&self) -> bool {
        let has_left = self.job.has_deferred() || !self.away.is_empty();
        self.job.defers && has_left && self.job.held_bytes() > self.ceiling() / 2
    }
}
