//! Evaluating the nodes that touch no hook point: operations, literals, applied modules.

use std::sync::Arc;

use pellucid_graph::check::CheckedProgram;
use pellucid_graph::spec::{Application, HookPointSpec};
use pellucid_graph::{NodeId, NodeKind, Operation, Prompts, Value};
use pellucid_models::Model;
use pellucid_models::stage::Slot;

use crate::error::Interruption;
use crate::loaded::Loaded;
use crate::operations::{self, Noise, OperationError};
use crate::pass::{NoVisitor, PassState, Schedule, Sequence, walk};
use crate::slots::{BufferPool, Rows, SlotValue};
use crate::tensor::Tensor;
use crate::weights;

/// What nodes are evaluated with.
pub(crate) struct Evaluator<'a> {
    /// The engine's models, in the order in which the program was checked with them.
    pub models: &'a [Loaded],
    pub program: &'a CheckedProgram,
}

impl Evaluator<'_> {
    /// The model that a node is about.
    fn loaded(&self, id: NodeId) -> Result<&Loaded, OperationError> {
        let loaded = self.models.get(self.program.nodes[id.index()].model);
        loaded.ok_or_else(|| OperationError::new("its model is not loaded"))
    }

    /// The outputs of a node from the values that it reads. `operation` stands for the node's own, if given.
    pub fn evaluate(
        &self,
        id: NodeId,
        operation: Option<&Operation>,
        step: Option<u64>,
        lookup: &dyn Fn(Value) -> Tensor,
        pool: &mut BufferPool,
    ) -> Result<Vec<Tensor>, OperationError> {
        let node = self.program.program.node(id);
        match &node.kind {
            NodeKind::Operation(own) => {
                let noise = Noise {
                    seed: self.program.program.seed,
                    label: node.label().to_owned(),
                    coordinates: node.coordinates().iter().copied().chain(step).collect(),
                };
                operations::evaluate(operation.unwrap_or(own), lookup, &noise)
            }
            NodeKind::Apply { input, .. } => {
                let module = self.program.nodes[id.index()].module;
                let module = module.ok_or_else(|| OperationError::new("its module was not found"))?;
                let loaded = self.loaded(id)?;
                Ok(vec![apply(&loaded.model, &loaded.schedule, module, &lookup(*input), pool)?])
            }
            NodeKind::Literal { dtype, shape, elements } => {
                let shape: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
                Ok(vec![Tensor::from_scalars(elements, &shape, *dtype)?])
            }
            NodeKind::Constant(key) => {
                let constant = self.program.program.constants.get(key);
                let constant = constant.ok_or_else(|| OperationError::new("its constant is not there"))?;
                Ok(vec![Tensor::from_constant(constant)?])
            }
            NodeKind::Weight { index, .. } => {
                let parameter = self.program.nodes[id.index()].parameter;
                let parameter =
                    parameter.ok_or_else(|| OperationError::new("its parameter was not found"))?;
                Ok(vec![weights::read(&self.loaded(id)?.model, parameter, index.as_deref(), lookup)?])
            }
            NodeKind::Tokens(invoke) => self.rectangle(id, *invoke, |tokens, padding, out| {
                for (cell, &token) in out[padding..].iter_mut().zip(tokens) {
                    *cell = i64::from(token);
                }
            }),
            NodeKind::Mask(invoke) => {
                let filled = self.rectangle(id, *invoke, |_, padding, out| out[padding..].fill(1))?;
                filled.into_iter().map(|tensor| tensor.cast(pellucid_graph::DType::Bool)).collect()
            }
            NodeKind::Lengths(invoke) => {
                let prompts = prompts_of(self.program, id, *invoke);
                let lengths: Vec<i64> = prompts.iter().map(|tokens| tokens.len() as i64).collect();
                let count = lengths.len();
                Ok(vec![Tensor::from_i64(lengths, &[count])?])
            }
            _ => Err(OperationError::new("the node has no value of its own")),
        }
    }

    fn rectangle(
        &self,
        id: NodeId,
        invoke: usize,
        fill: impl Fn(&[u32], usize, &mut [i64]),
    ) -> Result<Vec<Tensor>, OperationError> {
        let prompts = prompts_of(self.program, id, invoke);
        let length = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let mut out = vec![0i64; prompts.len() * length];
        for (tokens, out) in prompts.iter().zip(out.chunks_exact_mut(length.max(1))) {
            fill(tokens, length - tokens.len(), out);
        }
        Ok(vec![Tensor::from_i64(out, &[prompts.len(), length])?])
    }
}

/// The token ids of an invoke of the trace in which a node stands.
pub(crate) fn prompts_of(program: &CheckedProgram, id: NodeId, invoke: usize) -> &[Vec<u32>] {
    let trace = program.nodes[id.index()].trace.map(|trace| &program.program.node(trace).kind);
    match trace {
        Some(NodeKind::Trace(trace)) => match trace.invokes.get(invoke).map(|invoke| &invoke.prompts) {
            Some(Prompts::Tokens(prompts)) => prompts,
            _ => &[],
        },
        _ => &[],
    }
}

/// A module's input in a pass of its own, and where its result will be.
pub(crate) struct Applied {
    pub state: PassState,
    /// The slot of the input.
    pub from: Slot,
    /// The slot of the result.
    pub to: Slot,
    /// The dimensions before the module's own.
    leading: Vec<usize>,
}

/// Applies a module to a value by walking just its stages. It fires no hook point.
pub(crate) fn apply(
    model: &Model,
    schedule: &Schedule,
    module: usize,
    input: &Tensor,
    pool: &mut BufferPool,
) -> Result<Tensor, OperationError> {
    let Applied { mut state, to, leading: mut result, .. } = applied_state(model, schedule, module, input)?;
    let tokens = state.tokens();
    if tokens == 0 {
        result.extend(hook_of(model, module, "output").map_or(Vec::new(), own_sizes));
        return Tensor::from_f32(Vec::new(), &result);
    }
    let range = model.stages().modules[module].range.clone();
    walk(model, schedule, range, &mut state, pool, &mut NoVisitor).map_err(
        |interruption| match interruption {
            Interruption::Internal(message) => OperationError::new(message),
            Interruption::AllFailed => OperationError::new("interrupted"),
        },
    )?;
    match state.slot(to) {
        Some(SlotValue::Rows(rows)) => {
            result.extend(rows.inner.iter().map(|dimension| dimension.0));
            Tensor::from_f32(rows.packed(tokens), &result)
        }
        _ => Err(OperationError::new(format!("`{}` gave no value", model.spec().modules[module].path))),
    }
}

fn hook_of<'m>(model: &'m Model, module: usize, name: &str) -> Option<&'m HookPointSpec> {
    let path = &model.spec().modules[module].path;
    model.spec().hook_points.iter().find(|hook| hook.module == *path && hook.name == name)
}

fn own_sizes(hook: &HookPointSpec) -> Vec<usize> {
    hook.own_sizes().into_iter().map(|size| size as usize).collect()
}

/// A module's input, ready to be walked.
pub(crate) fn applied_state(
    model: &Model,
    schedule: &Schedule,
    module: usize,
    input: &Tensor,
) -> Result<Applied, OperationError> {
    let spec = &model.spec().modules[module];
    let list = model.stages();
    let stages = &list.modules[module];
    let (Some(from), Some(to)) = (stages.input, stages.output) else {
        return Err(OperationError::new(format!("`{}` cannot be applied by itself", spec.path)));
    };
    let hook = hook_of(model, module, "input");
    let takes = hook.map_or(Vec::new(), own_sizes);
    let shape = input.shape().to_vec();
    let leading = shape.len().checked_sub(takes.len()).filter(|&leading| shape[leading..] == takes[..]);
    let leading = leading.ok_or_else(|| {
        OperationError::new(format!("`{}` takes […, {takes:?}], but it is applied to {shape:?}", spec.path))
    })?;
    let (prompts, length) = match spec.applied {
        Application::Sequence if leading == 2 => (shape[0], shape[1]),
        Application::TokenWise => (1, shape[..leading].iter().product()),
        _ => return Err(OperationError::new(format!("`{}` cannot be applied to {shape:?}", spec.path))),
    };
    let sequence = || Sequence::new(vec![0; length]);
    let mut state = PassState::begin(list, (0..prompts).map(|_| sequence()).collect());
    if hook.is_some_and(|hook| !hook.dtype.is_float()) {
        let limit = schedule.id_limit(from);
        let values = input.to_vec_i64()?;
        if let Some(id) = values.iter().find(|&&id| id < 0 || id as u64 >= limit) {
            return Err(OperationError::new(format!(
                "`{}` is applied to {id}, but ids go from 0 to {}",
                spec.path,
                limit.saturating_sub(1)
            )));
        }
        state.put(from, SlotValue::Ids(Arc::new(values)));
    } else {
        state.put(from, SlotValue::Rows(Rows::contiguous(input.to_vec_f32()?, &takes)));
    }
    // Applied modules treat all their tokens: nothing is narrowed.
    state.narrowed = true;
    Ok(Applied { state, from, to, leading: shape[..leading].to_vec() })
}
