//! Whose turn it is inside an engine: each account has a clock that goes by what its programs were given, the slower the
//! greater its share. Who is furthest behind rides first.

use std::collections::HashMap;

use pellucid_engine::{Ticket, Waiting};

/// Whose a program is.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Its account.
    pub account: String,
    /// The account's share, relative to others'.
    pub weight: f64,
}

struct Guest {
    owner: Owner,
    /// Operations that its account's clock knows of.
    counted: u64,
}

/// The clocks of the accounts that have programs in an engine.
#[derive(Default)]
pub struct Clocks {
    guests: HashMap<Ticket, Guest>,
    accounts: HashMap<String, (f64, usize)>,
}

impl Clocks {
    /// A program has come. An account that comes new begins where the one furthest behind is.
    pub fn come(&mut self, ticket: Ticket, owner: Owner) {
        let least = self.accounts.values().map(|(clock, _)| *clock).fold(f64::INFINITY, f64::min);
        let start = if least.is_finite() { least } else { 0.0 };
        self.accounts.entry(owner.account.clone()).or_insert((start, 0)).1 += 1;
        self.guests.insert(ticket, Guest { owner, counted: 0 });
    }

    /// A program has been given so many operations in all.
    fn given(&mut self, ticket: Ticket, operations: u64) {
        let Some(guest) = self.guests.get_mut(&ticket) else { return };
        let more = operations.saturating_sub(guest.counted);
        guest.counted = operations;
        if let Some((clock, _)) = self.accounts.get_mut(&guest.owner.account) {
            *clock += more as f64 / guest.owner.weight;
        }
    }

    /// A program has left.
    pub fn leave(&mut self, ticket: Ticket) {
        let Some(guest) = self.guests.remove(&ticket) else { return };
        if let Some((_, programs)) = self.accounts.get_mut(&guest.owner.account) {
            *programs -= 1;
            if *programs == 0 {
                self.accounts.remove(&guest.owner.account);
            }
        }
    }

    /// Everyone who is in.
    pub fn all(&self) -> Vec<Ticket> {
        self.guests.keys().copied().collect()
    }

    /// Sorts: first whose account is furthest behind; of one account, who was given least; then who came first.
    pub fn order(&mut self, waiting: &mut [Waiting]) {
        waiting.iter().for_each(|one| self.given(one.ticket, one.served_flops));
        let key = |one: &Waiting| (self.clock(one.ticket), one.served_flops, one.ticket);
        waiting.sort_by(|one, other| {
            let (one, other) = (key(one), key(other));
            one.0.total_cmp(&other.0).then((one.1, one.2).cmp(&(other.1, other.2)))
        });
    }

    fn clock(&self, ticket: Ticket) -> f64 {
        let account = self.guests.get(&ticket).map(|guest| guest.owner.account.as_str());
        account.and_then(|account| self.accounts.get(account)).map_or(0.0, |(clock, _)| *clock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(account: &str, weight: f64) -> Owner {
        Owner { account: account.into(), weight }
    }

    #[test]
    fn many_programs_of_one_account_share_one_clock() {
        let mut clocks = Clocks::default();
        (1..=3).for_each(|number| clocks.come(Ticket(number), owner("flood", 1.0)));
        clocks.come(Ticket(9), owner("one", 1.0));
        clocks.given(Ticket(1), 100);
        clocks.given(Ticket(2), 50);
        clocks.given(Ticket(9), 120);
        assert_eq!((clocks.clock(Ticket(3)), clocks.clock(Ticket(9))), (150.0, 120.0));
        // What was told twice is counted once.
        clocks.given(Ticket(1), 100);
        assert_eq!(clocks.clock(Ticket(1)), 150.0);
    }

    #[test]
    fn who_comes_new_begins_where_the_last_is_and_shares_count() {
        let mut clocks = Clocks::default();
        clocks.come(Ticket(1), owner("a", 1.0));
        clocks.given(Ticket(1), 100);
        clocks.come(Ticket(2), owner("b", 2.0));
        assert_eq!(clocks.clock(Ticket(2)), 100.0);
        clocks.given(Ticket(2), 100);
        assert_eq!(clocks.clock(Ticket(2)), 150.0);
        clocks.leave(Ticket(1));
        clocks.leave(Ticket(2));
        assert!(clocks.all().is_empty() && clocks.accounts.is_empty());
    }
}
