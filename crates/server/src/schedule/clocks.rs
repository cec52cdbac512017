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
    }

    const FLOOD: u64 = 60;

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
            let flood = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompts": ["a b c d", "e f g"] }],
                "generate": { "max_new_tokens": 20, "stop_tokens": [] }, "body": [
                { "op": "generated", "name": "g" }, { "op": "save", "name": "made", "value": "g" } ] }] }"#;
            let one = r#"{ "pellucid": 1, "body": [{ "op": "trace", "invokes": [{ "prompt": "Mary has" }], "body": [
                { "op": "get", "name": "l", "hook": "logits" }, { "op": "save", "name": "logits", "value": "l" } ] }] }"#;
            match self.boundary {
                1 => Admission::Programs(
                    (0..FLOOD).map(|number| self.admitted(Ticket(number), "flood", flood)).collect(),
                ),
                // In the midst of the flood, one after the other, and two at once.
                4 | 9 | 10 | 30 => {
                    let number = 1000 + self.boundary as u64;
                    let come = [Ticket(number), Ticket(number + 1000)];
                    let programs =
                        come.map(|ticket| self.admitted(ticket, &format!("person {}", ticket.0), one));
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

        fn finished(&mut self, ticket: Ticket, outcome: Result<Results, Box<Failure>>, _: Usage) {
            assert!(outcome.is_ok());
            self.clocks.leave(ticket);
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
        let mut script = Script {
            clocks: Clocks::default(),
            engine: engine.clone(),
            boundary: 0,
            passes: Vec::new(),
            comes: Vec::new(),
            finished: Vec::new(),
        };
        engine.serve(&mut script, &options);
        assert_eq!(script.comes.len(), 8);
        for &(before, ticket) in &script.comes {
            assert!(
                script.passes[before].contains(&ticket),
                "{ticket:?} had to wait for more than the pass that ran"
            );
            assert!(script.passes[before].len() > 1, "it rode alone: there was no flood");
        }
        // They were through while most of the flood still waited.
        let last = script.finished.iter().rposition(|ticket| ticket.0 >= 1000).unwrap();
        assert!(last < 8 + FLOOD as usize / 2, "{:?}", script.finished);
        assert_eq!(script.finished.len(), 8 + FLOOD as usize);
    }
}
