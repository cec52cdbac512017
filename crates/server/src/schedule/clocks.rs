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

#[derive(Clone, Copy)]
struct Clock {
    /// What the account was given, by its share.
    at: f64,
    /// Programs of the account that are in.
    programs: usize,
}

/// The clocks of the accounts that have programs in an engine.
///
/// This is start-time fair queueing (Goyal, Vin, Cheng 1996) at the granularity of a pass: who comes new begins where the account
/// furthest behind stood when the pass that runs was chosen, so it goes before all that ride in that one and have more waiting;
/// and who leaves and comes back has had what it was given. Accounts that are less than half a pass apart count as equals: of
/// those the ones with a single program go first, and each when it came.
#[derive(Default)]
pub struct Clocks {
    guests: HashMap<Ticket, Guest>,
    accounts: HashMap<String, Clock>,
    /// Where the account furthest behind stood when the last pass was chosen.
    now: f64,
}

impl Clocks {
    /// A program has come.
    pub fn come(&mut self, ticket: Ticket, owner: Owner) {
        let now = self.now;
        let clock = self.accounts.entry(owner.account.clone()).or_insert(Clock { at: now, programs: 0 });
        if clock.programs == 0 {
            clock.at = clock.at.max(now);
        }
        clock.programs += 1;
        self.guests.insert(ticket, Guest { owner, counted: 0 });
    }

    /// A program has been given so many operations in all.
    fn given(&mut self, ticket: Ticket, operations: u64) {
        let Some(guest) = self.guests.get_mut(&ticket) else { return };
        let more = operations.saturating_sub(guest.counted);
        guest.counted = operations;
        if let Some(clock) = self.accounts.get_mut(&guest.owner.account) {
            clock.at += more as f64 / guest.owner.weight;
        }
    }

    /// A program has left, that has been given so many operations in all: one that rode once is never seen to wait again.
    pub fn leave(&mut self, ticket: Ticket, operations: u64) {
        self.given(ticket, operations);
        let Some(guest) = self.guests.remove(&ticket) else { return };
        if let Some(clock) = self.accounts.get_mut(&guest.owner.account) {
            clock.programs -= 1;
        }
        if self.guests.is_empty() {
            // Nobody is behind anybody.
            (self.accounts, self.now) = (HashMap::new(), 0.0);
        }
    }

    /// Everyone who is in.
    pub fn all(&self) -> Vec<Ticket> {
        self.guests.keys().copied().collect()
    }

    /// Sorts: first whose account is furthest behind; of one account, who was given least; then who came first.
    pub fn order(&mut self, waiting: &mut [Waiting]) {
        waiting.iter().for_each(|one| self.given(one.ticket, one.served_flops));
        self.go_on();
        let half = waiting.first().map_or(0.0, |one| one.pass_flops as f64 / 2.0);
        let key = |one: &Waiting| (self.turn(one.ticket, half), (one.served_flops, one.ticket));
        waiting.sort_by(|one, other| {
            let (one, other) = (key(one), key(other));
            one.0.0.total_cmp(&other.0.0).then(one.0.1.cmp(&other.0.1)).then(one.1.cmp(&other.1))
        });
    }

    /// A pass is chosen.
    fn go_on(&mut self) {
        let present = self.accounts.values().filter(|clock| clock.programs > 0);
        let least = present.map(|clock| clock.at).fold(f64::INFINITY, f64::min);
        if least.is_finite() {
            self.now = self.now.max(least);
        }
        // Who has none in, and is not ahead either, is as one that comes new.
        self.accounts.retain(|_, clock| clock.programs > 0 || clock.at > self.now);
    }

    /// When it is the turn of a program's account, and whether it has more than the one, where so many operations make no difference.
    fn turn(&self, ticket: Ticket, alike: f64) -> (f64, bool) {
        let clock = self.clock(ticket);
        ((clock.at - alike).max(self.now), clock.programs > 1)
    }

    fn clock(&self, ticket: Ticket) -> Clock {
        let account = self.guests.get(&ticket).map(|guest| guest.owner.account.as_str());
        let clock = account.and_then(|account| self.accounts.get(account)).copied();
        clock.unwrap_or(Clock { at: self.now, programs: 0 })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pellucid_engine::{
        Admission, Admitted, Engine, Failure, Host, Load, PassReport, Results, RunOptions, ServeOptions,
        Usage,
    };
    use pellucid_graph::Program;
    use pellucid_models::{Model, ModelOptions};

    use super::*;

    fn owner(account: &str, weight: f64) -> Owner {
        Owner { account: account.into(), weight }
    }

    fn at(clocks: &Clocks, ticket: u64) -> f64 {
        clocks.clock(Ticket(ticket)).at
    }

    #[test]
    fn many_programs_of_one_account_share_one_clock() {
        let mut clocks = Clocks::default();
        (1..=3).for_each(|number| clocks.come(Ticket(number), owner("flood", 1.0)));
        clocks.come(Ticket(9), owner("one", 1.0));
        clocks.given(Ticket(1), 100);
        clocks.given(Ticket(2), 50);
        clocks.given(Ticket(9), 120);
        assert_eq!((at(&clocks, 3), at(&clocks, 9)), (150.0, 120.0));
        // What was told twice is counted once.
        clocks.given(Ticket(1), 100);
        assert_eq!(at(&clocks, 1), 150.0);
    }

    #[test]
    fn who_comes_new_goes_before_who_was_given_and_shares_count() {
        let mut clocks = Clocks::default();
        clocks.come(Ticket(1), owner("a", 1.0));
        clocks.given(Ticket(1), 100);
        clocks.go_on();
        // While a pass runs that gives it as much again.
        clocks.come(Ticket(2), owner("b", 2.0));
        clocks.given(Ticket(1), 200);
        assert_eq!((at(&clocks, 1), at(&clocks, 2)), (200.0, 100.0));
        clocks.given(Ticket(2), 100);
        assert_eq!(at(&clocks, 2), 150.0);
        clocks.leave(Ticket(1), 200);
        clocks.leave(Ticket(2), 100);
        assert!(clocks.all().is_empty() && clocks.accounts.is_empty());
    }

    #[test]
    fn programs_that_ride_once_count_and_who_comes_back_has_had_what_it_was_given() {
        let mut clocks = Clocks::default();
        (1..=2).for_each(|number| clocks.come(Ticket(number), owner("flood", 1.0)));
        clocks.come(Ticket(3), owner("one", 1.0));
        clocks.go_on();
        clocks.leave(Ticket(1), 100);
        assert_eq!(at(&clocks, 2), 100.0);
        // It is back before the flood has had as much.
        clocks.leave(Ticket(3), 150);
        clocks.come(Ticket(4), owner("one", 1.0));
        assert_eq!(at(&clocks, 4), 150.0);
        // And when the flood has had more, it is as one that comes new.
        clocks.leave(Ticket(4), 0);
        clocks.given(Ticket(2), 200);
        clocks.go_on();
        clocks.come(Ticket(5), owner("one", 1.0));
        assert_eq!(at(&clocks, 5), 300.0);
    }

    #[test]
    fn who_is_less_than_half_a_pass_ahead_is_an_equal_and_single_programs_go_first() {
        let mut clocks = Clocks::default();
        (1..=2).for_each(|number| clocks.come(Ticket(number), owner("flood", 1.0)));
        (3..=4).for_each(|number| clocks.come(Ticket(number), owner(&number.to_string(), 1.0)));
        clocks.given(Ticket(3), 40);
        clocks.go_on();
        let turn = |clocks: &Clocks, ticket: u64| clocks.turn(Ticket(ticket), 50.0);
        assert_eq!((turn(&clocks, 3), turn(&clocks, 4)), ((0.0, false), (0.0, false)));
        assert_eq!(turn(&clocks, 1), (0.0, true));
        clocks.given(Ticket(3), 90);
        assert_eq!(turn(&clocks, 3), (40.0, false));
    }

    /// A flood that is in the engine, and people who come at certain pass boundaries.
    struct Script {
        clocks: Clocks,
        engine: Arc<Engine>,
        boundary: usize,
        /// Of each pass, who rode.
        passes: Vec<Vec<Ticket>>,
        /// Who comes, and before which pass was known that they do.
        comes: Vec<(usize, Ticket)>,
        finished: Vec<Ticket>,
        /// The program of the flood, and how many of it.
        flood: (&'static str, u64),
    }

    /// Numbers of those who come into the flood: they are greater than the flood's, of which many came before.
    const PEOPLE: u64 = 10_000;
    const GENERATION: &str = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompts": ["a b c d", "e f g"] }],
        "generate": { "max_new_tokens": 20, "stop_tokens": [] }, "body": [
        { "op": "generated", "name": "g" }, { "op": "save", "name": "made", "value": "g" } ] }] }"#;
    const ONE: &str = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
        { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "logits", "value": "l" } ] }] }"#;

    impl Script {
        fn admitted(&mut self, ticket: Ticket, account: &str, program: &str) -> Admitted {
            let program = Program::from_bytes(program.as_bytes()).unwrap();
            let program = Arc::new(self.engine.check(program).unwrap());
            self.clocks.come(ticket, owner(account, 1.0));
            Admitted::new(ticket, program, RunOptions::default())
        }
    }

    impl Host for Script {
        fn admit(&mut self, load: &Load) -> Admission {
            self.boundary += 1;
            match self.boundary {
                1 => {
                    let (program, count) = self.flood;
                    let flood = (0..count).map(|number| self.admitted(Ticket(number), "flood", program));
                    Admission::Programs(flood.collect())
                }
                // In the midst of the flood, one after the other, and two at once.
                4 | 9 | 10 | 30 => {
                    let number = PEOPLE + self.boundary as u64;
                    let come = [Ticket(number), Ticket(number + 1000)];
                    let programs =
                        come.map(|ticket| self.admitted(ticket, &format!("person {}", ticket.0), ONE));
                    self.comes.extend(come.map(|ticket| (self.passes.len(), ticket)));
                    Admission::Programs(programs.into())
                }
                _ if load.is_idle() => Admission::Close,
                _ => Admission::Programs(Vec::new()),
            }
        }

        fn order(&mut self, waiting: &mut [Waiting]) {
            self.clocks.order(waiting);
        }

        fn finished(&mut self, ticket: Ticket, outcome: Result<Results, Box<Failure>>, usage: Usage) {
            assert!(outcome.is_ok());
            self.clocks.leave(ticket, usage.flops);
            self.finished.push(ticket);
        }

        fn passed(&mut self, report: &PassReport) {
            self.passes.push(report.tickets.clone());
        }
    }

    #[test]
    fn whoever_comes_into_a_flood_rides_in_the_very_next_pass() {
        let folder = pellucid::bundled_folder().unwrap();
        let model = Model::open(folder.to_str().unwrap(), &ModelOptions::default()).unwrap();
        let engine = Arc::new(Engine::new(Arc::new(model)));
        // Passes that hold a part of the flood only, so that it matters whose turn it is.
        let options = ServeOptions { pass_tokens: 64, ..ServeOptions::default() };
        // Programs that ride in many passes, and programs that ride once.
        for flood in [(GENERATION, 60), (ONE, 1_500)] {
            let mut script = Script {
                clocks: Clocks::default(),
                engine: engine.clone(),
                boundary: 0,
                passes: Vec::new(),
                comes: Vec::new(),
                finished: Vec::new(),
                flood,
            };
            engine.serve(&mut script, &options);
            assert_eq!(script.comes.len(), 8);
            for &(before, ticket) in &script.comes {
                assert!(
                    script.passes[before].contains(&ticket),
                    "{ticket:?} had to wait for more than the pass that ran"
                );
                assert!(script.passes[before].len() > 2, "they rode alone: there was no flood");
            }
            // The flood was not over yet.
            let last = script.finished.iter().rposition(|ticket| ticket.0 >= PEOPLE).unwrap();
            assert!(last + 20 < script.finished.len(), "{:?}", script.finished);
            assert_eq!(script.finished.len(), 8 + flood.1 as usize);
        }
    }
}
