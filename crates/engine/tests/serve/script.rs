//! A host that plays a script: who comes at which pass boundary, who is cancelled at which.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pellucid_engine::{
    Admission, Admitted, Engine, EngineError, Failure, Host, Load, PassReport, Results, RunOptions,
    ServeOptions, Ticket, Usage, Waiting,
};
use pellucid_graph::Program;
use pellucid_graph::check::CheckedProgram;

use crate::random::dice::Dice;

/// What came of a program.
pub struct Ended {
    pub outcome: Result<Results, EngineError>,
    pub usage: Usage,
    /// Passes that had been made when it left.
    pub passes: usize,
}

/// A host that plays a script.
#[derive(Default)]
pub struct Script {
    /// By boundary.
    arrivals: BTreeMap<usize, Vec<Admitted>>,
    cancels: BTreeMap<usize, Vec<Arc<AtomicBool>>>,
    /// Shuffles whose turn it is.
    pub shuffle: Option<Dice>,
    boundary: usize,
    /// A program that comes again and again until that one has left.
    pub company: Option<(Arc<CheckedProgram>, Ticket)>,
    /// What happens, in order: who comes, and each pass, are put here.
    pub heard: Arc<Mutex<Vec<String>>>,
    pub ended: BTreeMap<Ticket, Ended>,
    pub passes: Vec<PassReport>,
    pub loads: Vec<Load>,
    /// Passes that had been made when each program joined.
    pub joined: BTreeMap<Ticket, usize>,
}

impl Script {
    /// A program joins at a boundary, or at the first after it at which the engine asks.
    pub fn arrive(&mut self, boundary: usize, admitted: Admitted) {
        self.arrivals.entry(boundary).or_default().push(admitted);
    }

    /// The same, by its parts.
    pub fn join(&mut self, boundary: usize, ticket: u64, program: &Arc<CheckedProgram>, options: RunOptions) {
        self.arrive(boundary, Admitted::new(Ticket(ticket), program.clone(), options));
    }

    /// At a boundary this is set.
    pub fn cancel(&mut self, boundary: usize, cancel: Arc<AtomicBool>) {
        self.cancels.entry(boundary).or_default().push(cancel);
    }

    /// Plays it to its end.
    pub fn play(mut self, engine: &Engine, options: &ServeOptions) -> Script {
        engine.serve(&mut self, options);
        assert!(self.arrivals.is_empty(), "the engine returned before all had come");
        assert_eq!(self.joined.len(), self.ended.len(), "somebody came and never left");
        self
    }

    pub fn result(&self, ticket: u64) -> &Results {
        match &self.ended[&Ticket(ticket)].outcome {
            Ok(results) => results,
            Err(error) => panic!("{ticket}: {error}"),
        }
    }

    pub fn error(&self, ticket: u64) -> &EngineError {
        match &self.ended[&Ticket(ticket)].outcome {
            Ok(_) => panic!("{ticket} succeeds"),
            Err(error) => error,
        }
    }
}

impl Host for Script {
    fn admit(&mut self, load: &Load) -> Admission {
        self.loads.push(*load);
        self.boundary += 1;
        // While nobody is there nothing happens before the next arrival.
        if load.is_idle()
            && let Some((&next, _)) = self.arrivals.first_key_value()
        {
            self.boundary = self.boundary.max(next);
        }
        while let Some(entry) = self.cancels.first_entry().filter(|entry| *entry.key() <= self.boundary) {
            entry.remove().iter().for_each(|cancel| cancel.store(true, Ordering::Relaxed));
        }
        let mut programs = Vec::new();
        while let Some(entry) = self.arrivals.first_entry().filter(|entry| *entry.key() <= self.boundary) {
            programs.extend(entry.remove());
        }
        if let Some((program, of)) = self.company.clone().filter(|(_, of)| !self.ended.contains_key(of)) {
            if load.programs <= usize::from(self.joined.contains_key(&of)) {
                let ticket = Ticket(1000 + self.joined.len() as u64);
                programs.push(Admitted::new(ticket, program, RunOptions::default()));
            }
        } else if programs.is_empty() && self.arrivals.is_empty() {
            return Admission::Close;
        }
        for admitted in &programs {
            self.joined.insert(admitted.ticket, self.passes.len());
            self.heard.lock().unwrap().push(format!("{} comes", admitted.ticket.0));
        }
        Admission::Programs(programs)
    }

    fn order(&mut self, waiting: &mut [Waiting]) {
        match &mut self.shuffle {
            None => Waiting::fairly(waiting),
            Some(dice) => waiting.sort_by_cached_key(|_| dice.next()),
        }
    }

    fn finished(&mut self, ticket: Ticket, outcome: Result<Results, Box<Failure>>, usage: Usage) {
        let outcome = outcome.map_err(|failure| failure.error);
        let passes = self.passes.len();
        let before = self.ended.insert(ticket, Ended { outcome, usage, passes });
        assert!(before.is_none(), "{ticket:?} left twice");
    }

    fn passed(&mut self, report: &PassReport) {
        self.heard.lock().unwrap().push("pass".into());
        self.passes.push(report.clone());
    }
}

/// A program from its JSON.
pub fn checked(engine: &Engine, body: &str) -> Arc<CheckedProgram> {
    let text = format!(r#"{{"pellucid":1,"body":[{body}]}}"#);
    let program = Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    Arc::new(engine.check(program).unwrap_or_else(|faults| panic!("{faults}\n{text}")))
}

/// A trace of prompts of such lengths, one invoke each, with these nodes.
pub fn trace(engine: &Engine, lengths: &[usize], more: &str, nodes: &str) -> Arc<CheckedProgram> {
    let vocabulary = engine.model().spec().sizes.vocabulary as usize;
    let invokes: Vec<String> = lengths
        .iter()
        .enumerate()
        .map(|(place, &length)| {
            let tokens: Vec<usize> = (0..length).map(|at| (place * 31 + at * 17 + 5) % vocabulary).collect();
            format!(r#"{{"name":"i{place}","tokens":[{tokens:?}]}}"#)
        })
        .collect();
    checked(engine, &format!(r#"{{"op":"trace","invokes":[{}]{more},"body":[{nodes}]}}"#, invokes.join(",")))
}

/// Nodes that save the logits of an invoke.
pub fn logits(invoke: usize) -> String {
    format!(
        r#"{{"op":"get","name":"l{invoke}","invoke":"i{invoke}","hook":"logits"}},{{"op":"save","name":"s{invoke}","value":"l{invoke}"}}"#
    )
}

/// The place of an event among those that were heard.
pub fn when(heard: &[String], event: &str) -> usize {
    heard.iter().position(|heard| heard == event).unwrap_or_else(|| panic!("no `{event}` in {heard:?}"))
}
