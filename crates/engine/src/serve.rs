//! Running programs that come and go: whoever has them is the host, and decides who runs; the engine packs them into passes.
//!
//! The engine knows of no users. It promises that a program's result is bit for bit what it would be alone, that a pass is
//! not longer than [`ServeOptions::pass_ms`] by its estimate, and that no program fails by another's fault but where a pass
//! itself panics ([`EngineError::PassFailed`](crate::EngineError::PassFailed)).

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use pellucid_graph::check::CheckedProgram;

use crate::engine::Engine;
use crate::error::Failure;
use crate::interleave::{Budget, Helpers, Interleaver, Member};
use crate::job::{Held, RunOptions};
use crate::results::Results;
use crate::slots::BufferPool;

/// A program's number, its host's choice: unique among those that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Who decides what runs. Its methods are called on the engine's thread between passes: they should be quick, for all
/// programs wait for them.
pub trait Host {
    /// Which programs join now? Asked at every pass boundary, of a generation at every step. It may block only if
    /// [`Load::is_idle`]. What is admitted is there: the engine refuses nothing, and packs within the budget of a pass.
    fn admit(&mut self, load: &Load) -> Admission;

    /// Whose turn is it? Asked before every pass, of all that could ride: those that come first in `waiting` ride first, others as
    /// there is room, and if they stand at the same stage. Asked too where several have long work of their own between
    /// passes: it is done in that order, as far as time allows.
    fn order(&mut self, waiting: &mut [Waiting]) {
        Waiting::fairly(waiting);
    }

    /// A program has left: called once for each, as soon as it is at its end.
    fn finished(&mut self, ticket: Ticket, outcome: Result<Results, Box<Failure>>, usage: Usage);

    /// A pass has ended.
    fn passed(&mut self, _report: &PassReport) {}
}

/// What a host answers.
pub enum Admission {
    /// These join; there may be none.
    Programs(Vec<Admitted>),
    /// No more will come: those that are there run to their ends, then [`Engine::serve`] returns.
    Close,
}

/// A program that joins.
pub struct Admitted {
    /// Its number.
    pub ticket: Ticket,
    /// The program, checked by this engine.
    pub program: Arc<CheckedProgram>,
    /// Its budgets, its cancellation, its listeners. Its seconds count from when it joins.
    pub options: RunOptions,
    /// Whether it shares no pass with others: for one that is suspected of bringing passes down.
    pub alone: bool,
}

impl Admitted {
    /// A program that may share passes.
    pub fn new(ticket: Ticket, program: Arc<CheckedProgram>, options: RunOptions) -> Admitted {
        Admitted { ticket, program, options, alone: false }
    }
}

/// What is there at a pass boundary.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Programs that have not left.
    pub programs: usize,
    /// Tokens that could go into a pass now.
    pub tokens: u64,
    /// Estimated milliseconds of all passes that these would take.
    pub estimated_ms: f64,
    /// Tokens of a pass, at most.
    pub pass_tokens: u64,
    /// Estimated milliseconds of a pass, at most.
    pub pass_ms: f64,
    /// Bytes that programs' values hold.
    pub held_bytes: u64,
    /// Bytes that the programs were priced at: the sum of each one's peak.
    pub reserved_bytes: u64,
}

impl Load {
    /// Whether nobody is there.
    pub fn is_idle(&self) -> bool {
        self.programs == 0
    }

    /// Whether the next pass is full: more can join, but would wait.
    pub fn fills_a_pass(&self) -> bool {
        self.tokens >= self.pass_tokens || self.estimated_ms >= self.pass_ms
    }
}

/// A program that could go on now.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Its number.
    pub ticket: Ticket,
    /// Tokens that it would bring into a pass.
    pub tokens: u64,
    /// Floating-point operations that these would take.
    pub flops: u64,
    /// Operations that it has been given, or what these would have taken as long as.
    pub served_flops: u64,
    /// What a program that was always there, and always had its fair share, had been given by the time that this one came.
    pub came_at_flops: u64,
    /// Operations of a pass, at most.
    pub pass_flops: u64,
    /// Its place among those that are there.
    pub(crate) member: usize,
}

impl Waiting {
    /// Sorts by when each would be through with what it has ready (or with one pass of it), if all that are there always got
    /// the same share of the engine; then by number. This is fair queueing: nobody waits for ever, a small program that comes
    /// while a large one runs rides in the next pass, and one that has been served in part does not lose its turn to others
    /// that have just come.
    pub fn fairly(waiting: &mut [Waiting]) {
        waiting.sort_by_key(|waiting| (waiting.through_at_flops(), waiting.ticket));
    }

    /// When it would be through, on the scale of [`Waiting::came_at_flops`].
    pub fn through_at_flops(&self) -> u64 {
        let begun = self.came_at_flops.saturating_add(self.served_flops);
        begun.saturating_add(self.flops.min(self.pass_flops))
    }
}

/// How an engine serves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServeOptions {
    /// Estimated milliseconds of a pass, at most: for so long at a time work of others may stand before a program's own.
    /// One invoke that takes longer is walked in several passes, others ride between.
    pub pass_ms: f64,
    /// Tokens of a pass, at most, unless one invoke alone has more.
    pub pass_tokens: u64,
    /// Threads for programs' own operations that take longer than a pass may: these run beside the passes, each on one
    /// thread, as many at a time as there are threads; which is next, the host says each time. Where the system gives fewer threads there
    /// are fewer. 0: they run between passes.
    pub helper_threads: usize,
}

impl Default for ServeOptions {
    /// 200 ms, 2048 tokens, one thread.
    fn default() -> ServeOptions {
        ServeOptions { pass_ms: 200.0, pass_tokens: 2048, helper_threads: 1 }
    }
}

/// What a program took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Passes in which it rode.
    pub passes: u64,
    /// Its prompts, summed over passes.
    pub rows: u64,
    /// Its tokens, summed over passes.
    pub tokens: u64,
    /// Floating-point operations, by what stages and long operations were priced at.
    pub flops: u64,
    /// Milliseconds that these were estimated to take.
    pub estimated_ms: f64,
    /// Milliseconds that it took: its share of each pass by operations, and what it did between passes.
    pub measured_ms: f64,
    /// Of the operations those of passes: what has run, not what could have.
    pub pass_flops: u64,
    /// Of the milliseconds its share of passes, without what programs computed of their own.
    pub pass_ms: f64,
    /// Nodes of it that have run, once for each step.
    pub nodes: u64,
    /// Milliseconds that these took, long operations apart.
    pub nodes_ms: f64,
    /// Seconds that it was there.
    pub seconds: f64,
}

/// A pass that has been made.
#[derive(Clone, Debug, PartialEq)]
pub struct PassReport {
    /// Programs that rode.
    pub programs: usize,
    /// Their prompts.
    pub rows: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Floating-point operations of its stages, estimated.
    pub flops: u64,
    /// Milliseconds, estimated.
    pub estimated_ms: f64,
    /// Milliseconds that it took.
    pub measured_ms: f64,
    /// The first stage.
    pub from: usize,
    /// The stage after the last.
    pub to: usize,
    /// Whose the rows were.
    pub tickets: Vec<Ticket>,
}

/// How long programs wait for other threads before newcomers are asked for again.
const PATIENCE: Duration = Duration::from_millis(2);

impl Engine {
    /// Runs the programs that a host admits, together, until it closes and all have left. It blocks: it wants a thread of its
    /// own. At every pass boundary programs join and leave. Runs of the same engine beside it do not wait for it, nor it for
    /// them; they share the processors.
    ///
    /// # Panics
    /// Where a method of the host panics; what programs' own work does to panic fails these programs alone.
    pub fn serve(&self, host: &mut dyn Host, options: &ServeOptions) {
        let models = self.models();
        std::thread::scope(|scope| {
            let budget = Budget::of(options, self.pass_bytes());
            let helpers = Helpers::start(scope, models, options.helper_threads);
            let mut interleaver =
                Interleaver::new(models, BufferPool::default(), budget, self.rewrites(), false)
                    .with_helpers(helpers);
            // What is left of programs is freed beside the passes.
            let (graves, dead) = channel();
            let bury = move || dead.into_iter().for_each(drop::<Member<'_>>);
            // Where the system gives no thread for it, `let_go` frees them.
            let _ = std::thread::Builder::new().spawn_scoped(scope, bury);
            let mut open = true;
            loop {
                interleaver.settle(0, &mut |waiting| host.order(waiting));
                self.let_go(&mut interleaver, host, &graves);
                if open {
                    match host.admit(&interleaver.load()) {
                        Admission::Close => open = false,
                        Admission::Programs(programs) if programs.is_empty() => {}
                        Admission::Programs(programs) => {
                            let here = interleaver.programs();
                            for Admitted { ticket, program, options, alone } in programs {
                                interleaver.add(ticket, Held::Shared(program), options, alone);
                            }
                            // The others have had their time between these two passes.
                            interleaver.settle(here, &mut |waiting| host.order(waiting));
                            self.let_go(&mut interleaver, host, &graves);
                        }
                    }
                }
                if let Some(report) = interleaver.pass(&mut |waiting| host.order(waiting)) {
                    self.learns(&interleaver.clock);
                    host.passed(&report);
                } else if interleaver.is_empty() && !open {
                    return;
                } else if interleaver.is_empty() {
                    // A host that has nobody and does not block.
                    std::thread::sleep(PATIENCE);
                } else if !interleaver.has_own_work() && !interleaver.wait_for_helpers(PATIENCE) {
                    interleaver.abandon();
                }
            }
        });
    }

    fn let_go<'e>(
        &self,
        interleaver: &mut Interleaver<'e>,
        host: &mut dyn Host,
        graves: &Sender<Member<'e>>,
    ) {
        for mut left in interleaver.leave() {
            let (ticket, usage) = (left.ticket, left.usage);
            // Whoever listens to it is not kept.
            left.rest.job.options = RunOptions::default();
            host.finished(ticket, self.stamped(left.outcome), usage);
            // Where nobody takes it, it is freed here.
            let _ = graves.send(left.rest);
        }
    }
}
