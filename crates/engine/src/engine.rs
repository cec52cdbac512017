//! The engine: one model, and programs that run on it.

use std::sync::{Arc, Mutex, PoisonError};

use pellucid_graph::check::{self, CheckedProgram, SpecIndex};
use pellucid_graph::fault::{Fault, Faults};
use pellucid_graph::{NodeId, NodeKind, Program, Prompts};
use pellucid_models::Model;
use pellucid_models::stage::Kernel;

use crate::error::EngineError;
use crate::explain::{ExplainedPass, ExplainedPassenger, Explanation, PassRecord};
use crate::interleave::Interleaver;
use crate::job::{Job, RunOptions};
use crate::naive::Naive;
use crate::pass::Schedule;
use crate::results::{Provenance, Results};
use crate::slots::BufferPool;

/// One model, and programs that run on it. Shared by reference between threads: runs take turns.
pub struct Engine {
    model: Arc<Model>,
    schedule: Schedule,
    pool: Mutex<BufferPool>,
}

impl Engine {
    /// An engine for a loaded model.
    pub fn new(model: Arc<Model>) -> Engine {
        let schedule = Schedule::new(model.stages());
        Engine { model, schedule, pool: Mutex::new(BufferPool::default()) }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokenises a program's prompts and checks it against the model.
    ///
    /// # Errors
    /// Every fault of the program.
    pub fn check(&self, program: Program) -> Result<CheckedProgram, Faults> {
        let program = self.tokenise(program)?;
        check::check(program, &SpecIndex::new(self.model.spec()))
    }

    /// Replaces texts by token ids.
    fn tokenise(&self, mut program: Program) -> Result<Program, Faults> {
        let mut faults = Faults::default();
        for node in &mut program.nodes {
            let NodeKind::Trace(trace) = &mut node.kind else { continue };
            for invoke in &mut trace.invokes {
                let Prompts::Text { texts, special_tokens } = &invoke.prompts else { continue };
                let Some(tokenizer) = self.model.tokenizer() else {
                    faults.push(
                        Fault::new(format!(
                            "invoke `{}` is text, but `{}` came without a tokenizer",
                            invoke.name,
                            self.model.spec().name
                        ))
                        .at_node(node.name.clone(), node.source.clone())
                        .with_hint("give token ids, or put tokenizer.json beside the weights"),
                    );
                    continue;
                };
                let encoded: Result<Vec<Vec<u32>>, _> =
                    texts.iter().map(|text| tokenizer.encode(text, *special_tokens)).collect();
                match encoded {
                    Ok(tokens) => invoke.prompts = Prompts::Tokens(tokens),
                    Err(error) => faults.push(
                        Fault::new(format!("invoke `{}` cannot be tokenised: {error}", invoke.name))
                            .at_node(node.name.clone(), node.source.clone()),
                    ),
                }
            }
        }
        faults.or(program)
    }

    /// Runs a program.
    ///
    /// # Errors
    /// Where an operation fails on its values, or a budget of `options` is spent.
    pub fn run(&self, program: &CheckedProgram, options: &RunOptions) -> Result<Results, EngineError> {
        let mut outcomes = self.run_together(&[(program, options)]);
        outcomes.pop().unwrap_or_else(|| Err(EngineError::Internal("no outcome".into())))
    }

    /// Runs programs in the same passes. Each result is bit for bit what it would be alone, and each failure its own.
    pub fn run_together(
        &self,
        programs: &[(&CheckedProgram, &RunOptions)],
    ) -> Vec<Result<Results, EngineError>> {
        let mut jobs: Vec<Job<'_>> =
            programs.iter().map(|(program, options)| Job::new(program, options, false)).collect();
        let outcome = self.interleave(&mut jobs, false).map(|_| ());
        let provenance = self.provenance();
        jobs.into_iter()
            .map(|job| {
                if let Some(error) = job.failed {
                    return Err(error);
                }
                outcome.clone()?;
                let seconds = job.elapsed();
                let mut results = job.results;
                results.report.seconds = seconds;
                results.provenance = Provenance { seed: job.program.program.seed, ..provenance.clone() };
                Ok(results)
            })
            .collect()
    }

    /// Traces in sequence, the first of every program together, then the second of each that has one, ….
    fn interleave(&self, jobs: &mut [Job<'_>], dry: bool) -> Result<Vec<PassRecord>, EngineError> {
        let traces: Vec<Vec<NodeId>> =
            jobs.iter().map(|job| job.program.program.traces().map(|(id, _)| id).collect()).collect();
        let rounds = traces.iter().map(Vec::len).max().unwrap_or(0);
        let mut passes = Vec::new();
        // A panic in an earlier run leaves buffers whose contents do not matter.
        let mut shared = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        for round in 0..rounds {
            let mut interleaver = Interleaver::new(&self.model, &self.schedule, jobs, &mut shared, dry);
            for (job, traces) in traces.iter().enumerate() {
                if let Some(&trace) = traces.get(round)
                    && interleaver.jobs[job].failed.is_none()
                {
                    interleaver.add(job, trace);
                }
            }
            interleaver.run()?;
            passes.append(&mut interleaver.passes);
            for (job, traces) in jobs.iter_mut().zip(&traces) {
                let program = job.program;
                if let Some(NodeKind::Trace(trace)) =
                    traces.get(round).map(|&trace| &program.program.node(trace).kind)
                {
                    let total = trace.generation.as_ref().map_or(1, |generation| generation.max_new_tokens);
                    job.note_absent(&trace.body, total);
                }
            }
        }
        Ok(passes)
    }

    /// Runs a program the simple way: one invoke at a time, nothing planned, nothing fused. Results are bit for bit those of
    /// [`Engine::run`]; it is there to judge it.
    ///
    /// # Errors
    /// As [`Engine::run`], but for budgets, which it does not honour.
    pub fn run_naive(&self, program: &CheckedProgram) -> Result<Results, EngineError> {
        let mut results = Naive::new(&self.model, &self.schedule, program).run()?;
        results.provenance = Provenance { seed: program.program.seed, ..self.provenance() };
        Ok(results)
    }

    /// The plan of a program, without running it.
    ///
    /// # Errors
    /// Only where the engine itself is at fault.
    pub fn explain(&self, program: &CheckedProgram) -> Result<Explanation, EngineError> {
        let options = RunOptions::default();
        let mut jobs = [Job::new(program, &options, true)];
        let records = self.interleave(&mut jobs, true)?;
        let computed = program.nodes.iter().filter(|node| node.needed).count();
        Ok(Explanation {
            model: self.model.spec().name.clone(),
            price: program.price,
            passes: records.iter().map(|record| self.explained(program, record)).collect(),
            nodes: (computed, program.nodes.len()),
        })
    }

    fn explained(&self, program: &CheckedProgram, record: &PassRecord) -> ExplainedPass {
        let invokes: Vec<String> = program
            .program
            .traces()
            .flat_map(|(_, trace)| trace.invokes.iter().map(|invoke| invoke.name.clone()))
            .collect();
        let name = |invoke: usize| invokes.get(invoke).cloned().unwrap_or_default();
        let passengers = record.passengers.iter().map(|passenger| ExplainedPassenger {
            invoke: name(passenger.invoke),
            step: passenger.step,
            prompts: passenger.prompts,
            tokens: passenger.tokens,
            columns: passenger.columns.clone(),
            until: self.stage_name(passenger.until, false),
        });
        ExplainedPass {
            from: self.stage_name(record.from, true),
            to: self.stage_name(record.to, false),
            passengers: passengers.collect(),
            parked: record
                .parked
                .iter()
                .map(|&(stage, invoke)| (self.stage_name(stage, true), name(invoke)))
                .collect(),
        }
    }

    /// The hook point at a stage, or the last before its end.
    fn stage_name(&self, stage: usize, from: bool) -> String {
        let stages = &self.model.stages().stages;
        if from && stage == 0 {
            return "the beginning".into();
        }
        if !from && stage >= stages.len() {
            return "the end".into();
        }
        let at = if from { stage } else { stage.saturating_sub(1) };
        match stages.get(at).map(|stage| &stage.kernel) {
            Some(Kernel::Hook { point, .. }) => self.model.spec().hook_points[*point].path(),
            _ => format!("stage {at}"),
        }
    }

    fn provenance(&self) -> Provenance {
        Provenance {
            model: self.model.spec().name.clone(),
            revision: self.model.spec().revision.clone(),
            engine: env!("CARGO_PKG_VERSION").into(),
            instruction_set: pellucid_kernels::Isa::current().name().into(),
            weights: self.model.precision().to_string(),
            seed: 0,
        }
    }
}
