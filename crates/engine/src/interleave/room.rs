//! How much a program's getters may bring in one pass.
//!
//! Where a program has neighbours its small nodes run in slices of time, and long ones between passes: what getters gave is
//! held until their readers have run. Invokes that share rows could all be aboard one pass, whose getters would bring at once
//! what one after the other never fills a program's memory. So they ride in waves, and a program that holds much runs what it
//! has left before it rides again.
//!
//! **Needs:** what a getter gives is known before it is there: its type, and which columns of it are read.
//!
//! **Keeps:** only when an invoke rides, never what it computes. The first of those that wait always rides.

use pellucid_graph::NodeKind;
use pellucid_graph::limits::TOGETHER_BYTES;

use super::group::Group;
use super::member::Member;
use crate::job::{Instance, Job};

impl Group {
    /// The getters that somebody reads and that it has ahead at its step, each with the bytes that it gives.
    pub(super) fn getters<'a>(&'a self, job: &'a Job<'_>) -> impl Iterator<Item = (Instance, u64)> + 'a {
        let ahead = self.touches.get(self.next_touch..).unwrap_or_default();
        let getters = ahead.iter().map(|touch| touch.1).filter(|&instance| {
            matches!(job.program.program.node(instance.1).kind, NodeKind::Get(_)) && job.is_read(instance)
        });
        getters.map(|instance| (instance, job.bytes_given(instance, self.width)))
    }

    /// Bytes that these bring.
    pub(super) fn brings(&self, job: &Job<'_>) -> u64 {
        self.getters(job).fold(0, |sum: u64, (_, bytes)| sum.saturating_add(bytes))
    }
}

impl Member<'_> {
    /// Bytes that it may hold while its nodes wait: what it was priced at, or a little; at most half of what it is allowed.
    fn ceiling(&self) -> u64 {
        let half = self.job.options.memory_bytes.map_or(u64::MAX, |allowed| allowed / 2);
        let price = &self.job.program.price;
        price.peak_bytes.saturating_add(price.kept_bytes).max(TOGETHER_BYTES).min(half)
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
