//! Connections that are kept open, of which a process that was forked off has its own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ureq::Agent;
use ureq::config::Config;

/// How often this process's line was forked.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// To be called in a process that was forked off, before it asks anything: its parent's connections are not its own, and what
/// both wrote to one would be read by neither.
pub fn forked() {
    FORKS.fetch_add(1, Ordering::SeqCst);
}

/// Connections to a service.
pub(crate) struct Connections {
    agent: Agent,
    forks: u64,
    /// Those of the first process that was forked off.
    anew: OnceLock<(u64, Agent)>,
}

impl Connections {
    pub fn new(config: Config) -> Connections {
        Connections { agent: config.new_agent(), forks: FORKS.load(Ordering::SeqCst), anew: OnceLock::new() }
    }

    /// What this process's requests go through.
    pub fn agent(&self) -> Agent {
        let forks = FORKS.load(Ordering::SeqCst);
        if forks == self.forks {
            return self.agent.clone();
        }
        let fresh = || self.agent.config().clone().new_agent();
        match self.anew.get_or_init(|| (forks, fresh())) {
            (own, agent) if *own == forks => agent.clone(),
            // A fork of a fork: a connection for each request is enough.
            _ => fresh(),
        }
    }
}
