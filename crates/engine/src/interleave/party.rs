//! Rows of a pass, and the invokes whose they are.

use std::collections::BTreeMap;
use std::ops::Range;

use super::packing::Seat;

/// Sequences that stand together in a pass, and the invokes whose they are.
#[derive(Debug)]
pub(super) struct Party {
    /// Whose they are: the place of the first of its programs.
    pub owner: usize,
    /// The invokes that read these rows, in order. Nobody: only their keys and values are needed.
    pub seats: Vec<Seat>,
    /// How many sequences.
    pub count: usize,
    /// Whether they are one invoke's for good, which may edit them. From those of several an invoke forks first, unless all are edited
    /// alike.
    pub own: bool,
    /// The stage up to which others attend to them; 0: nobody does.
    pub until: usize,
    /// Of each sequence: how many positions others attend to.
    pub needed: Vec<usize>,
    /// Whether they are down to these positions.
    pub cropped: bool,
}

impl Party {
    /// An invoke's own rows.
    pub fn own(owner: usize, seat: Seat, count: usize) -> Party {
        Party { own: true, ..Party::of(owner, vec![seat], count) }
    }

    /// Rows that invokes of one owner have in common.
    pub fn of(owner: usize, seats: Vec<Seat>, count: usize) -> Party {
        Party { owner, seats, count, own: false, until: 0, needed: Vec::new(), cropped: false }
    }
}

/// Each party with where its sequences stand.
pub(super) fn placed<'p>(
    parties: impl Iterator<Item = &'p Party> + 'p,
) -> impl Iterator<Item = (&'p Party, Range<usize>)> + 'p {
    let mut end = 0;
    parties.map(move |party| {
        end += party.count;
        (party, end - party.count..end)
    })
}

/// Where each invoke's sequences stand.
pub(super) fn spans(parties: &[Party]) -> BTreeMap<Seat, Range<usize>> {
    let placed = placed(parties.iter());
    placed.flat_map(|(party, span)| party.seats.iter().map(move |&seat| (seat, span.clone()))).collect()
}

/// Whose each sequence is: the party's place.
pub(super) fn owners(parties: &[Party]) -> Vec<usize> {
    parties.iter().enumerate().flat_map(|(place, party)| std::iter::repeat_n(place, party.count)).collect()
}
