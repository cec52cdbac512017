//! Handing jobs over: from whoever takes them to whoever runs them.
//!
//! [`Handover`] is the seam between the two. Here both are one process, and [`LocalHandover`] is a call; where they are several, messages
//! carry it (NATS: a queue of work for each model, and cancelling told to all). A message may be lost: that a job waits, or is to end,
//! stands in the store before it is told here.

use std::sync::{Arc, Mutex, PoisonError};

use pellucid_graph::check::CheckedProgram;

use super::board::Board;
use super::queue::Waiting;
use crate::models::Registry;
use crate::prefixes::Prefixes;

/// A job that waits for its model.
pub struct Work {
    /// The model.
    pub model: String,
    /// The job.
    pub waiting: Waiting,
    /// A process died while it ran: it is to run alone.
    pub suspect: bool,
    /// Its program, where it is at hand; otherwise it is read from the store again when its turn comes.
    pub program: Option<KeptProgram>,
    /// A place in the queue was kept for it, which it takes now.
    pub has_place: bool,
}

/// A program that waits in memory, if there is room.
pub struct KeptProgram {
    /// The program.
    pub program: Arc<CheckedProgram>,
    /// What it takes.
    pub bytes: u64,
    /// What all that wait may take.
    pub bound: u64,
}

/// From whoever takes jobs to whoever runs them.
pub trait Handover: Send + Sync {
    /// A job that the store has waits for its model from here on.
    fn wait(&self, work: Work);
    /// A job is to end: one that waits does so no longer, one that runs is told.
    fn cancel(&self, job: &str);
    /// What engines keep of an account's prompts is to be forgotten.
    fn forget(&self, account: &str);
}

/// Within one process.
pub struct LocalHandover {
    /// Who waits and who runs.
    pub board: Arc<Mutex<Board>>,
    /// Whose bells are rung.
    pub registry: Arc<Registry>,
    /// Accounts' caches of prefixes.
    pub prefixes: Arc<Prefixes>,
}

impl LocalHandover {
    fn ring(&self, model: &str) {
        if let Some(entry) = self.registry.get(model) {
            entry.bell.notify_one();
        }
    }
}

impl Handover for LocalHandover {
    fn wait(&self, work: Work) {
        {
            let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(KeptProgram { program, bytes, bound }) = work.program {
                board.keep_program(&work.waiting.job, program, bytes, bound);
            }
            if work.has_place {
                board.let_go(&work.waiting.account);
            }
            board.push(&work.model, work.waiting, work.suspect);
        }
        self.ring(&work.model);
    }

    fn cancel(&self, job: &str) {
        let waited = {
            let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            board.cancel(job);
            board.remove(job)
        };
        if let Some(model) = waited {
            self.ring(&model);
        }
    }

    fn forget(&self, account: &str) {
        self.prefixes.forget(account);
    }
}
