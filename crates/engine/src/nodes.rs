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
                let (loaded, lengths) = (self.loaded(id)?, self.program.nodes[id.index()].lengths.as_deref());
                Ok(vec![apply(&loaded.model, &loaded.schedule, module, &lookup(*input), lengths, pool)?])
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
    pub leading: Vec<usize>,
    /// Of each row of the pass, its cell among those of the input; none: all of them, in order.
    cells: Option<Vec<usize>>,
}

impl Applied {
    /// Values of the pass's rows in their cells; the others read 0.
    pub fn in_cells(&self, rows: Vec<f32>, width: usize) -> Vec<f32> {
        let Some(cells) = &self.cells else { return rows };
        let mut out = vec![0.0; self.leading.iter().product::<usize>() * width];
        for (&cell, row) in cells.iter().zip(rows.chunks_exact(width.max(1))) {
            out[cell * width..(cell + 1) * width].copy_from_slice(row);
        }
        out
    }

    /// The values of those cells that are rows of the pass.
    pub fn in_rows<T: Copy>(&self, values: Vec<T>, width: usize) -> Vec<T> {
        let Some(cells) = &self.cells else { return values };
        cells.iter().flat_map(|&cell| &values[cell * width..(cell + 1) * width]).copied().collect()
    }
}

/// The cells of a rectangle that are tokens, prompt by prompt, where the rows of each end together.
fn cells(lengths: &[usize], width: usize) -> Vec<usize> {
    let rows = lengths.iter().enumerate();
    rows.flat_map(|(prompt, &length)| prompt * width + width - length..(prompt + 1) * width).collect()
}

/// Applies a module to a value by walking just its stages. It fires no hook point.
pub(crate) fn apply(
    model: &Model,
    schedule: &Schedule,
    module: usize,
    input: &Tensor,
    lengths: Option<&[usize]>,
    pool: &mut BufferPool,
) -> Result<Tensor, OperationError> {
    let mut applied = applied_state(model, schedule, module, input, lengths)?;
    let state = &mut applied.state;
    let tokens = state.tokens();
    if tokens == 0 {
        let mut result = applied.leading;
        result.extend(hook_of(model, module, "output").map_or(Vec::new(), own_sizes));
        return Tensor::from_f32(Vec::new(), &result);
    }
    let range = model.stages().modules[module].range.clone();
    walk(model, schedule, range, state, pool, &mut NoVisitor).map_err(|interruption| match interruption {
        Interruption::Internal(message) => OperationError::new(message),
        Interruption::AllFailed => OperationError::new("interrupted"),
    })?;
    match applied.state.slot(applied.to) {
        Some(SlotValue::Rows(rows)) => {
            let mut result = applied.leading.clone();
            result.extend(rows.inner.iter().map(|dimension| dimension.0));
            Tensor::from_f32(applied.in_cells(rows.packed(tokens), rows.width()), &result)
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

/// A module's input, ready to be walked. `lengths` are those of the prompts whose rectangle it is, where they are unequal:
/// only their own cells are rows then. Inside `steps` later inputs have one cell for each prompt, and all are rows.
pub(crate) fn applied_state(
    model: &Model,
    schedule: &Schedule,
    module: usize,
    input: &Tensor,
    lengths: Option<&[usize]>,
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
    let lengths = lengths.filter(|lengths| {
        spec.applied == Application::Sequence
            && lengths.len() == prompts
            && lengths.iter().max() == Some(&length)
    });
    let all = vec![length; if lengths.is_some() { 0 } else { prompts }];
    let sequences = lengths.unwrap_or(&all).iter().map(|&length| Sequence::new(vec![0; length]));
    let state = PassState::begin(list, sequences.collect());
    let cells = lengths.map(|lengths| cells(lengths, length));
    let mut applied = Applied { state, from, to, leading: shape[..leading].to_vec(), cells };
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
        let values = applied.in_rows(values, 1);
        applied.state.put(from, SlotValue::Ids(Arc::new(values)));
    } else {
        let values = applied.in_rows(input.to_vec_f32()?, takes.iter().product());
        applied.state.put(from, SlotValue::Rows(Rows::contiguous(values, &takes)));
    }
    // Applied modules treat all their tokens: nothing is narrowed.
    applied.state.narrowed = true;
    Ok(applied)
}
