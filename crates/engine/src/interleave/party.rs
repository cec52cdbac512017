//! Rows of a pass, and the invokes whose they are.

use std::collections::BTreeMap;
use std::ops::Range;

use super::packing::Seat;

/// Sequences that stand together in a pass, and the invokes whose they are.
#[derive(Debug)]
pub(super) struct Party {
    /// The program's place.
    pub member: usize,
    /// The invokes that read these rows, in order. Nobody: only their keys and values are needed.
    pub invokes: Vec<usize>,
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
    pub fn own(seat: Seat, count: usize) -> Party {
        Party {
            member: seat.member,
            invokes: vec![seat.invoke],
            count,
            own: true,
            until: 0,
            needed: Vec::new(),
            cropped: false,
        }
    }

    /// Rows that invokes of one program have in common.
    pub fn of(seats: &[Seat], count: usize) -> Party {
        Party {
            member: seats.first().map_or(0, |seat| seat.member),
            invokes: seats.iter().map(|seat| seat.invoke).collect(),
            count,
            own: false,
            until: 0,
            needed: Vec::new(),
            cropped: false,
        }
    }

    pub fn seats(&self) -> impl Iterator<Item = Seat> + '_ {
        self.invokes.iter().map(|&invoke| Seat { member: self.member, invoke })
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
    placed.flat_map(|(party, span)| party.seats().map(move |seat| (seat, span.clone()))).collect()
}

/// Whose each sequence is: the party's place.
pub(super) fn owners(parties: &[Party]) -> Vec<usize> {
    parties.iter().enumerate().flat_map(|(place, party)| std::iter::repeat_n(place, party.count)).collect()
}
