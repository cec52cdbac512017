//! Invokes that could begin in a pass, and those that are aboard a trunk: which rows matter to each, and where it leaves others'.

use super::cache::Cached;
use super::cost::{Costs, Rows, Work};
use super::outlook::{Outlook, Parting};

/// An invoke that could begin in a pass.
pub(crate) struct Candidate<'a> {
    /// Its program's place.
    pub member: usize,
    /// Whose it is: only what is one owner's is shared.
    pub owner: usize,
    pub invoke: usize,
    pub prompts: Vec<&'a [u32]>,
    pub outlook: &'a Outlook,
    /// The stage after the last that matters to it.
    pub end: usize,
    /// Columns that are read from the narrowing stage on, if not all.
    pub columns: Option<&'a [usize]>,
    /// Columns of the vocabulary that are not read.
    pub unread: u64,
    /// Of each prompt: the beginning that is in its program's cache; empty: of none.
    pub cached: &'a [Option<Cached>],
}

impl Candidate<'_> {
    fn width(&self) -> usize {
        self.prompts.iter().map(|tokens| tokens.len()).max().unwrap_or(0)
    }

    /// The positions of its prompts that stand at a column.
    pub(super) fn positions(&self, column: usize) -> Vec<usize> {
        let width = self.width();
        self.prompts.iter().map(|tokens| position(column, width, tokens.len())).collect()
    }

    /// Its rows from those positions on.
    pub(super) fn rows(&self, from: &[usize]) -> Rows {
        self.extent().rows(self.prompts.iter().map(|tokens| tokens.len()), from)
    }

    pub(super) fn extent(&self) -> Extent {
        Extent {
            width: self.width(),
            late: self.outlook.late,
            late_is_read: self.outlook.late_is_read,
            columns: self.columns.map(<[usize]>::to_vec),
            unread: self.unread,
        }
    }
}

/// The position of a prompt of so many tokens that stands at a column of a rectangle of that width.
fn position(column: usize, width: usize, length: usize) -> usize {
    column.saturating_sub(width - length)
}

/// How much of its rectangle matters to an invoke, or to several that have it in common.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    /// The columns of its rectangle.
    width: usize,
    /// The first column that matters after the last attention, and whether of these only those matter that are read.
    late: usize,
    late_is_read: bool,
    /// The columns that are read from the narrowing stage on, in order, if not all.
    columns: Option<Vec<usize>>,
    /// Columns of the vocabulary that are not read.
    unread: u64,
}

impl Extent {
    /// The rows from those positions on of prompts of so many tokens.
    pub(super) fn rows(&self, lengths: impl ExactSizeIterator<Item = usize> + Clone, from: &[usize]) -> Rows {
        let rows = Rows::after(lengths.clone().zip(from.iter().copied()));
        let read =
            self.columns.as_ref().map_or(rows.tokens, |columns| (columns.len() * lengths.len()) as u64);
        let late = lengths.zip(from).map(|(length, &from)| {
            let first = from.max(position(self.late, self.width, length));
            length.saturating_sub(first) as u64
        });
        let (late, read) = (late.sum(), read.min(rows.tokens));
        let late = if self.late_is_read { read.min(late) } else { late };
        Rows { late, read, unread: self.unread, ..rows }
    }

    /// Its rows from a column on of prompts of so many tokens, and the position of each with which they begin.
    pub fn rows_from(&self, column: usize, lengths: &[usize]) -> (Rows, Vec<usize>) {
        let from: Vec<usize> = lengths.iter().map(|&length| position(column, self.width, length)).collect();
        (self.rows(lengths.iter().copied(), &from), from)
    }

    /// What matters to either of two. Of columns of the vocabulary it is not known which are read: at least as many as by the one that
    /// reads more.
    pub fn with(self, other: &Extent) -> Extent {
        let columns = self.columns.zip(other.columns.as_ref()).map(|(mut columns, more)| {
            if columns != *more {
                columns.extend(more);
                columns.sort_unstable();
                columns.dedup();
            }
            columns
        });
        Extent {
            width: self.width,
            late: self.late.min(other.late),
            late_is_read: self.late_is_read && other.late_is_read,
            columns,
            unread: self.unread.min(other.unread),
        }
    }
}

/// An invoke aboard a trunk.
#[derive(Debug)]
pub(crate) struct Aboard {
    pub member: usize,
    pub invoke: usize,
    /// Where it leaves it, and then those that are edited alike there, and so on; none: nowhere before its end.
    pub partings: Vec<Parting>,
    pub(super) end: usize,
    pub(super) extent: Extent,
    /// Its rows from the first of these on, and the position of each prompt with which they begin.
    pub rows: Rows,
    pub(super) positions: Vec<usize>,
}

impl Aboard {
    pub(super) fn of(candidate: &Candidate<'_>) -> Aboard {
        let partings = candidate.outlook.edits.iter().copied();
        let partings: Vec<Parting> = partings.take_while(|parting| parting.stage < candidate.end).collect();
        let positions = candidate.positions(partings.first().map_or(0, |parting| parting.column));
        Aboard {
            member: candidate.member,
            invoke: candidate.invoke,
            partings,
            end: candidate.end,
            extent: candidate.extent(),
            rows: candidate.rows(&positions),
            positions,
        }
    }

    /// Its rows from its parting of that number on.
    pub fn rows_at(&self, number: usize, lengths: &[usize]) -> Rows {
        self.partings
            .get(number)
            .map_or(Rows::default(), |parting| self.extent.rows_from(parting.column, lengths).0)
    }

    /// The stage at which it leaves the trunk.
    pub fn differs(&self) -> Option<usize> {
        self.partings.first().map(|parting| parting.stage)
    }

    /// The stage up to which it is aboard.
    pub(super) fn aboard_until(&self) -> usize {
        self.differs().unwrap_or(self.end)
    }

    /// Whether it is still aboard before a stage.
    pub fn is_aboard(&self, stage: usize) -> bool {
        self.differs().map_or(self.end > stage, |differs| differs >= stage)
    }

    /// The stage up to which it attends to the trunk after it has left.
    pub(super) fn attends_until(&self, costs: &Costs) -> usize {
        let leaves_rows = self.differs().is_some() && self.positions.iter().any(|&position| position > 0);
        if leaves_rows { costs.last_attention(self.end) } else { 0 }
    }

    pub(super) fn forked_tokens(&self) -> u64 {
        self.differs().map_or(0, |_| self.rows.tokens)
    }

    /// What it comes to from where it leaves the trunk, by itself.
    pub(super) fn fork(&self, costs: &Costs) -> Work {
        self.differs().map_or(Work::default(), |stage| costs.of(self.rows, stage, self.end))
    }
}
