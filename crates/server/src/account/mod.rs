//! What accounts may use: [`policy`] says it of one program, [`Meters`] over time.

mod meter;
pub mod policy;
mod turns;
mod watchers;

pub use meter::Meters;
pub use turns::{Turn, Turns};
pub use watchers::{Watcher, Watchers};

use pellucid_client::api::{ExceededLimit, Problem, ProblemKind};

/// The problem of a limit that was exceeded.
pub(crate) fn exceeded(kind: ProblemKind, name: &str, allowed: f64, used: f64, unit: &str) -> Problem {
    let detail = match kind {
        ProblemKind::TooManyRequests => "The account has used what it may use for now.",
        _ => "It is more than the account may use.",
    };
    let mut problem = Problem::new(kind, detail);
    problem.limit = Some(ExceededLimit { name: name.into(), allowed, used, unit: unit.into() });
    problem
}
