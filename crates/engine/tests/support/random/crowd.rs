//! Programs that run beside others.

use pellucid_engine::{Engine, EngineError, Results, RunOptions};
use pellucid_graph::check::CheckedProgram;

use super::outcomes::difference_from_naive;

/// How many run beside one another.
const MANY: usize = 4;

/// Programs that wait until there are enough of them, each with what the simple run made of it.
#[derive(Default)]
pub struct Crowd {
    waiting: Vec<(CheckedProgram, Result<Results, EngineError>)>,
}

impl Crowd {
    /// One more. Once there are enough, all run beside one another, with the options in turn; what comes out otherwise than it
    /// did the simple way is told, each with its program.
    pub fn join(
        &mut self,
        engine: &Engine,
        one: (CheckedProgram, Result<Results, EngineError>),
        options: &[&RunOptions],
    ) -> impl Iterator<Item = String> + use<> {
        self.waiting.push(one);
        let crowd = if self.waiting.len() == MANY { std::mem::take(&mut self.waiting) } else { Vec::new() };
        let programs =
            crowd.iter().zip(options.iter().cycle()).map(|((checked, _), options)| (checked, *options));
        let outcomes = engine.run_together(&programs.collect::<Vec<_>>());
        let told = crowd.iter().zip(outcomes).filter_map(|((checked, naive), outcome)| {
            let difference = difference_from_naive(engine, checked, &outcome, naive)?;
            Some(format!("{difference}\n{}", checked.program.to_json()))
        });
        told.collect::<Vec<_>>().into_iter()
    }
}
