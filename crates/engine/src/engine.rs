//! The engine: a model, or several, and programs that run on them.

use std::sync::{Arc, Mutex, PoisonError};

use pellucid_graph::check::{self, CheckedProgram, Price, SpecIndex};
use pellucid_graph::fault::{Fault, Faults};
use pellucid_graph::{Program, TensorType, expand};
use pellucid_models::Model;

use crate::error::{EngineError, Failure};
use crate::explain::{self, Explanation, Measured, PassRecord};
use crate::interleave::{Budget, Interleaver};
use crate::job::{Held, RunOptions};
use crate::loaded::Loaded;
use crate::naive::Naive;
use crate::plan::{Clock, Rewrites, Work, room};
use crate::results::{OtherModel, Provenance, Results};
use crate::serve::{ServeOptions, Ticket};
use crate::slots::BufferPool;
use crate::tokenise;

/// A model, or several, and programs that run on them. Shared by reference between threads: runs take turns.
pub struct Engine {
    /// The first is there in any case: that of traces which name none.
    models: Vec<Loaded>,
    pool: Mutex<BufferPool>,
    rewrites: Rewrites,
    /// What serving has taught of how long passes take here: engines that share models share it.
    learnt: Arc<Mutex<Clock>>,
    pass_bytes: u64,
}

/// Bytes of what a model's stages hand on to one another in a pass, unless somebody says otherwise: with more rows nothing goes
/// faster, as weights have long been read for many.
pub const PASS_BYTES: u64 = 512 << 20;

impl Engine {
    /// An engine for a loaded model.
    pub fn new(model: Arc<Model>) -> Engine {
        Engine::of(vec![Loaded::new("", model)], Rewrites::ALL)
    }

    /// An engine of the same models, which runs beside this one.
    #[must_use]
    pub fn share(&self) -> Engine {
        let again = |loaded: &Loaded| Loaded::new(&loaded.name, loaded.model.clone());
        let models = self.models.iter().map(again).collect();
        let engine = Engine { learnt: self.learnt.clone(), ..Engine::of(models, self.rewrites) };
        engine.with_pass_bytes(self.pass_bytes)
    }

    fn of(models: Vec<Loaded>, rewrites: Rewrites) -> Engine {
        let pool = Mutex::new(BufferPool::default());
        Engine { models, pool, rewrites, learnt: Arc::default(), pass_bytes: PASS_BYTES }
    }

    /// How long passes take here, by what serving has taught.
    fn learnt(&self) -> Clock {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serving has taught how long passes take here.
    pub(crate) fn learns(&self, clock: &Clock) {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner).clone_from(clock);
    }

    /// The engine with only those rewrites. All are made unless somebody says otherwise; results are bit for bit the same.
    #[must_use]
    pub fn with_rewrites(self, rewrites: Rewrites) -> Engine {
        Engine { rewrites, ..self }
    }

    /// The engine whose passes hold at most so many bytes of what a model's stages hand on to one another; one invoke alone may have
    /// more. Else [`PASS_BYTES`].
    #[must_use]
    pub fn with_pass_bytes(self, pass_bytes: u64) -> Engine {
        Engine { pass_bytes, ..self }
    }

    /// The rewrites that it makes.
    pub fn rewrites(&self) -> Rewrites {
        self.rewrites
    }

    /// The engine with a model more, which traces call by that name; one of that name is replaced.
    #[must_use]
    pub fn with_model(mut self, name: &str, model: Arc<Model>) -> Engine {
        let loaded = Loaded::new(name, model);
        match self.models.iter_mut().skip(1).find(|known| known.name == name) {
            Some(known) => *known = loaded,
            None => self.models.push(loaded),
        }
        self
    }

    /// The model of traces that name none.
    pub fn model(&self) -> &Arc<Model> {
        &self.models[0].model
    }

    /// Whether all its models have their weights, so that it can run programs.
    pub fn models_are_loaded(&self) -> bool {
        self.models.iter().all(|loaded| !loaded.model.is_outline())
    }

    /// The model that traces call by a name.
    pub fn model_named(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.iter().skip(1).find(|known| known.name == name).map(|known| &known.model)
    }

    /// Tokenises a program's prompts, expands it, and checks it against the model.
    ///
    /// # Errors
    /// Every fault of the program.
    pub fn check(&self, program: Program) -> Result<CheckedProgram, Faults> {
        self.expanded(program, check::check_models)
    }

    /// The types of the values of a node, of a program that may be written only in part.
    ///
    /// # Errors
    /// What is wrong with the program, where that leaves the node without types.
    pub fn types_of(&self, program: Program, node: &str) -> Result<Vec<TensorType>, Faults> {
        self.expanded(program, |program, specs| check::types_of(&program, specs, node))
    }

    /// Tokenises and expands a program, and does something with it and the models' specifications.
    fn expanded<R>(
        &self,
        program: Program,
        work: impl FnOnce(Program, &[(&str, &SpecIndex<'_>)]) -> Result<R, Faults>,
    ) -> Result<R, Faults> {
        let models = |name: Option<&str>| {
            let named = name.and_then(|name| self.model_named(name));
            // A model that is not there is the checker's to report.
            named.unwrap_or_else(|| self.model()).as_ref()
        };
        let indices: Vec<SpecIndex<'_>> =
            self.models.iter().map(|loaded| SpecIndex::new(loaded.model.spec())).collect();
        let names = self.models.iter().map(|loaded| loaded.name.as_str());
        let specs: Vec<(&str, &SpecIndex<'_>)> = names.zip(&indices).collect();
        // Texts of a sweep are tokenised once for all cells, where it is known for which model.
        let one = self.models.len() == 1;
        let program = if one { tokenise::tokenise(&models, program)? } else { program };
        let program = tokenise::tokenise(&models, expand::expand_models(program, &specs)?)?;
        work(program, &specs)
    }

    /// Runs a program.
    ///
    /// # Errors
    /// Where an operation fails on its values, or a budget of `options` is spent.
    pub fn run(&self, program: &CheckedProgram, options: &RunOptions) -> Result<Results, EngineError> {
        self.run_keeping(program, options).map_err(|failure| failure.error)
    }

    /// Runs a program; a failure names its trace, and keeps what the traces before it saved.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run_keeping(
        &self,
        program: &CheckedProgram,
        options: &RunOptions,
    ) -> Result<Results, Box<Failure>> {
        let mut outcomes = self.run_together_keeping(&[(program, options)]);
        outcomes.pop().unwrap_or_else(|| Err(no_outcome(program)))
    }

    /// Runs programs in the same passes. Each result is bit for bit what it would be alone, and each failure its own.
    pub fn run_together(
        &self,
        programs: &[(&CheckedProgram, &RunOptions)],
    ) -> Vec<Result<Results, EngineError>> {
        let outcomes = self.run_together_keeping(programs).into_iter();
        outcomes.map(|outcome| outcome.map_err(|failure| failure.error)).collect()
    }

    /// Runs programs in the same passes; failures keep what earlier traces saved, as those of [`Engine::run_keeping`].
    pub fn run_together_keeping(
        &self,
        programs: &[(&CheckedProgram, &RunOptions)],
    ) -> Vec<Result<Results, Box<Failure>>> {
        // A panic in an earlier run leaves buffers whose contents do not matter.
        let mut shared = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let mut interleaver = self.interleaver(std::mem::take(&mut *shared), false);
        for (place, (program, options)) in programs.iter().enumerate() {
            let ticket = Ticket(place as u64);
            interleaver.add(ticket, Held::Lent(*program), (*options).clone(), false);
        }
        let mut left = interleaver.run();
        *shared = interleaver.pool;
        left.sort_by_key(|left| left.ticket);
        left.into_iter().map(|left| self.stamped(left.outcome)).collect()
    }

    /// Programs that run to their ends, in as few passes as possible.
    fn interleaver(&self, pool: BufferPool, dry: bool) -> Interleaver<'_> {
        let budget = Budget { tokens: u64::MAX, bytes: self.pass_bytes, milliseconds: None };
        Interleaver::new(&self.models, pool, budget, self.rewrites, dry)
    }

    /// Bytes that its passes may hold.
    pub(crate) fn pass_bytes(&self) -> u64 {
        self.pass_bytes
    }

    /// The engine's models, in the order in which the checker numbers them.
    pub(crate) fn models(&self) -> &[Loaded] {
        &self.models
    }

    /// An outcome that says what made it.
    pub(crate) fn stamped(&self, outcome: Result<Results, Box<Failure>>) -> Result<Results, Box<Failure>> {
        let stamp = |results: &mut Results| {
            let seed = results.provenance.seed;
            results.provenance = Provenance { seed, ..self.provenance() };
        };
        match outcome {
            Ok(mut results) => {
                stamp(&mut results);
                Ok(results)
            }
            Err(mut failure) => {
                stamp(&mut failure.kept);
                Err(failure)
            }
        }
    }

    /// Runs a program the simple way: one invoke at a time, nothing planned, nothing fused. Results are bit for bit those of
    /// [`Engine::run`]; it is there to judge it.
    ///
    /// # Errors
    /// As [`Engine::run`], without bounds.
    pub fn run_naive(&self, program: &CheckedProgram) -> Result<Results, EngineError> {
        self.run_naive_keeping(program, &RunOptions::default()).map_err(|failure| failure.error)
    }

    /// The same, bounded: it can be cancelled, has its seconds, and tells what it logs; its memory is not watched, and nothing else
    /// is told. A failure keeps what earlier traces saved, as that of [`Engine::run_keeping`].
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run_naive_keeping(
        &self,
        program: &CheckedProgram,
        options: &RunOptions,
    ) -> Result<Results, Box<Failure>> {
        let provenance = Provenance { seed: program.program.seed, ..self.provenance() };
        match Naive::new(&self.models, &self.models[0], program).watched(options).run() {
            Ok(results) => Ok(Results { provenance, ..results }),
            Err(mut failure) => {
                failure.kept.provenance = provenance;
                Err(failure)
            }
        }
    }

    /// Every node of a program that fails by itself when it is run the simple way, in the order in which it is met there. A
    /// run reports one of them; which one is a matter of its plan.
    ///
    /// # Errors
    /// Only where the engine itself is at fault.
    pub fn naive_faults(&self, program: &CheckedProgram) -> Result<Vec<Fault>, EngineError> {
        Naive::new(&self.models, &self.models[0], program).faults()
    }

    /// The plan of a program, without running it.
    ///
    /// # Errors
    /// Only where the engine itself is at fault.
    pub fn explain(&self, program: &CheckedProgram) -> Result<Explanation, EngineError> {
        self.explain_with(program, &RunOptions::default())
    }

    /// [`Engine::explain`], as the program would run with the cache and the memory of those options.
    ///
    /// # Errors
    /// Where it does not fit into the memory that the options give it; else only where the engine itself is at fault.
    pub fn explain_with(
        &self,
        program: &CheckedProgram,
        options: &RunOptions,
    ) -> Result<Explanation, EngineError> {
        let mut interleaver = self.interleaver(BufferPool::default(), true).recording();
        self.planned(&[(program, options)], &mut interleaver)
    }

    /// The plan of programs that a service runs together, as if all came at once, by what [`Engine::serve`] has learnt so far of
    /// how long passes take here. Invokes are told with their program's number, counted from 1.
    ///
    /// # Errors
    /// Where a program does not fit into the memory that its options give it; else only where the engine itself is at fault.
    pub fn explain_together(
        &self,
        programs: &[(&CheckedProgram, &RunOptions)],
        options: &ServeOptions,
    ) -> Result<Explanation, EngineError> {
        let pool = BufferPool::default();
        let mut interleaver =
            Interleaver::new(&self.models, pool, Budget::of(options, self.pass_bytes), self.rewrites, true)
                .recording();
        interleaver.clock = self.learnt();
        self.planned(programs, &mut interleaver)
    }

    /// The plan of programs in a dry run: nobody hears of it, and of their options only what changes plans matters.
    fn planned<'e>(
        &'e self,
        programs: &[(&'e CheckedProgram, &RunOptions)],
        interleaver: &mut Interleaver<'e>,
    ) -> Result<Explanation, EngineError> {
        for (place, (program, options)) in programs.iter().enumerate() {
            let RunOptions { prefixes, memory_bytes, kept_bytes, .. } = *options;
            let options = RunOptions {
                prefixes: prefixes.clone(),
                memory_bytes: *memory_bytes,
                kept_bytes: *kept_bytes,
                ..RunOptions::default()
            };
            interleaver.add(Ticket(place as u64), Held::Lent(*program), options, false);
        }
        let mut cached_tokens = 0;
        for left in interleaver.run() {
            cached_tokens += left.outcome.map_err(|failure| failure.error)?.report.cached_tokens;
        }
        Ok(Explanation { cached_tokens, ..self.explanation(programs, &interleaver.records) })
    }

    /// Runs a program and says what each of its passes took, beside what it gives back.
    ///
    /// # Errors
    /// As [`Engine::run_keeping`].
    pub fn analyze(
        &self,
        program: &CheckedProgram,
        options: &RunOptions,
    ) -> Result<(Explanation, Results), Box<Failure>> {
        let mut shared = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let mut interleaver = self.interleaver(std::mem::take(&mut *shared), false).recording();
        interleaver.add(Ticket::default(), Held::Lent(program), options.clone(), false);
        let mut left = interleaver.run();
        *shared = std::mem::take(&mut interleaver.pool);
        let outcome = left.pop().map_or_else(|| Err(no_outcome(program)), |left| left.outcome);
        let results = self.stamped(outcome)?;
        let records = &interleaver.records;
        let naive = records.iter().fold(Work::default(), |sum, record| sum.and_then(record.naive));
        let measured = Measured {
            ms: results.report.seconds * 1000.0,
            passes_ms: records.iter().filter_map(|record| record.measured_ms).sum(),
            naive_ms: interleaver.estimate(naive),
            recomputed_layers: results.report.recomputed_layers,
            instruction_set: results.provenance.instruction_set.clone(),
            weights: results.provenance.weights.clone(),
        };
        let cached_tokens = results.report.cached_tokens;
        let plan = self.explanation(&[(program, options)], records);
        Ok((Explanation { measured: Some(measured), cached_tokens, ..plan }, results))
    }

    fn explanation(
        &self,
        programs: &[(&CheckedProgram, &RunOptions)],
        records: &[PassRecord],
    ) -> Explanation {
        let (mut nodes, mut dropped, mut price) = ((0, 0), Vec::new(), Price::default());
        let mut kept_at_most = None;
        for (program, options) in programs {
            if let Some(room) = room(&program.price, options).filter(|&room| room < program.price.kept_bytes)
            {
                kept_at_most = Some(kept_at_most.unwrap_or(0_u64).saturating_add(room));
            }
            let (own, names) = explain::dropped(program);
            nodes = (nodes.0 + own.0, nodes.1 + own.1);
            dropped.extend(names);
            price = together(price, program.price);
        }
        Explanation {
            model: self.model().spec().name.clone(),
            price,
            kept_at_most,
            cached_tokens: 0,
            passes: records.iter().filter_map(|record| explain::explained(&self.models, record)).collect(),
            nodes,
            dropped,
            models: self.models.iter().map(explain::described).collect(),
            measured: None,
        }
    }

    fn provenance(&self) -> Provenance {
        let spec = self.model().spec();
        let others = self.models.iter().skip(1).map(|loaded| OtherModel {
            name: loaded.name.clone(),
            model: loaded.model.spec().name.clone(),
            revision: loaded.model.spec().revision.clone(),
            weights: loaded.model.precision().to_owned(),
        });
        Provenance {
            model: spec.name.clone(),
            revision: spec.revision.clone(),
            engine: env!("CARGO_PKG_VERSION").into(),
            instruction_set: pellucid_kernels::Isa::current().name().into(),
            weights: self.model().precision().to_string(),
            seed: 0,
            others: others.collect(),
        }
    }
}

/// What two programs cost that are there at the same time.
fn together(one: Price, other: Price) -> Price {
    Price {
        flops: one.flops.saturating_add(other.flops),
        own_flops: one.own_flops.saturating_add(other.own_flops),
        peak_bytes: one.peak_bytes.saturating_add(other.peak_bytes),
        kept_bytes: one.kept_bytes.saturating_add(other.kept_bytes),
        recomputed_flops: one.recomputed_flops.saturating_add(other.recomputed_flops),
        result_bytes: one.result_bytes.saturating_add(other.result_bytes),
        tokens: one.tokens.saturating_add(other.tokens),
        nodes: one.nodes.saturating_add(other.nodes),
    }
}

fn no_outcome(program: &CheckedProgram) -> Box<Failure> {
    let error = EngineError::Internal("no outcome".into());
    Failure::new(error, program, None, Results::default(), &[])
}
