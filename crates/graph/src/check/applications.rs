//! What a module that attends is applied to, where prompts have unequal lengths.
//!
//! A batch of unequal prompts is a rectangle, in which some cells are no tokens. A module that attends must not attend to
//! those, and has to count positions from each prompt's first token. So it is found out whose rectangle its input is: all
//! values get their types once more, with a symbol for each invoke's length, so that a dimension still says in the end where
//! it came from. What could hold such cells in other places than the invoke's own is refused.

use std::collections::{BTreeMap, HashSet};

use super::{CheckedNode, Checker};
use crate::operation::{Argument, IndexItem, Operation, OperationKind};
use crate::program::{GradientOf, Invoke, NodeId, NodeKind, Program, Prompts, Value};
use crate::shape::{Dimension, Symbol};
use crate::spec::Application;

/// The symbol of each list of prompts' lengths: invokes with the same one have the same rectangle.
pub(super) type Rectangles = BTreeMap<Vec<usize>, Symbol>;

/// The lengths of an invoke's prompts, where they are tokenised.
pub(super) fn lengths(invoke: &Invoke) -> Option<Vec<usize>> {
    match &invoke.prompts {
        Prompts::Tokens(prompts) => Some(prompts.iter().map(Vec::len).collect()),
        Prompts::Text { .. } | Prompts::Axis(_) => None,
    }
}

fn is_unequal(lengths: &[usize]) -> bool {
    lengths.windows(2).any(|pair| pair[0] != pair[1])
}

/// What a value is computed from.
#[derive(Default)]
struct Origins {
    /// The lengths of prompts that are not all equal.
    unequal: HashSet<Vec<usize>>,
    /// An operation that may put rows in other places.
    moved: Option<NodeId>,
}

impl Checker<'_> {
    /// Finds the lengths that modules which attend are applied with.
    pub(super) fn applications(&mut self) {
        let attends = |checked: &CheckedNode, id: NodeId| {
            let module = checked.module.and_then(|module| self.spec(id).modules.get(module));
            module.is_some_and(|module| module.applied == Application::Sequence)
        };
        let applied: Vec<(NodeId, Value)> = self
            .program
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(position, node)| match node.kind {
                NodeKind::Apply { input, .. } => Some((NodeId(position as u32), input)),
                _ => None,
            })
            .filter(|(id, _)| attends(&self.nodes[id.index()], *id))
            .collect();
        let invokes = self.program.traces().flat_map(|(_, trace)| &trace.invokes);
        let all: Vec<Vec<usize>> = invokes.filter_map(lengths).collect();
        if applied.is_empty() || !self.faults.is_empty() || !all.iter().any(|lengths| is_unequal(lengths)) {
            return;
        }
        let mut rectangles = Rectangles::new();
        for lengths in all {
            let next = Symbol(rectangles.len() as u32);
            rectangles.entry(lengths).or_insert(next);
        }
        let mut symbolic = Checker {
            program: self.program,
            models: self.models,
            nodes: self.nodes.clone(),
            gradients: Vec::new(),
            faults: Vec::new(),
            reported: HashSet::new(),
            next_symbol: rectangles.len() as u32,
            rectangles: Some(rectangles),
        };
        symbolic.nodes.iter_mut().for_each(|node| node.outputs.clear());
        symbolic.types();
        for (id, input) in applied {
            let origins = self.origins(input, &symbolic.nodes);
            if origins.unequal.is_empty() {
                continue;
            }
            let found = symbolic.nodes[input.node.index()].outputs.get(input.output as usize);
            let shape = found.map(|found| found.shape.as_slice());
            match self.rows_of(shape, &origins, symbolic.rectangles.as_ref()) {
                Some(lengths) if is_unequal(&lengths) => self.nodes[id.index()].lengths = Some(lengths),
                Some(_) => {}
                None => self.fault_without_rectangle(id, input, &origins),
            }
        }
    }

    /// The lengths of the rows of a value of that shape, or an equal one for each where no cell is empty; none where that
    /// cannot be known.
    fn rows_of(
        &self,
        shape: Option<&[Dimension]>,
        origins: &Origins,
        rectangles: Option<&Rectangles>,
    ) -> Option<Vec<usize>> {
        let [prompts, columns, ..] = shape? else { return None };
        if let Some(columns) = columns.value() {
            // Of no rectangle: what was chosen by number, or is no longer of single tokens. Unless it became one again.
            let whole = |lengths: &Vec<usize>| lengths.iter().max().is_some_and(|&all| all as u64 == columns);
            let again = columns > 1 && origins.unequal.iter().any(whole);
            return (!again).then(Vec::new);
        }
        let own = rectangles?.iter().find(|(_, symbol)| Dimension::symbol(**symbol) == *columns);
        let lengths = own?.0;
        let same = prompts.value() == Some(lengths.len() as u64) && origins.moved.is_none();
        (same || !is_unequal(lengths)).then(|| lengths.clone())
    }

    /// What a value is computed from, as far back as values go. A getter's rectangle is its invoke's.
    fn origins(&self, value: Value, symbolic: &[CheckedNode]) -> Origins {
        let mut origins = Origins::default();
        let (mut seen, mut open) = (HashSet::new(), vec![value.node]);
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            let node = self.program.node(id);
            let invoke = match &node.kind {
                NodeKind::Get(address) => Some(address.invoke),
                NodeKind::Tokens(invoke) | NodeKind::Mask(invoke) => Some(*invoke),
                NodeKind::Grad { of: GradientOf::Hook(address), .. } => Some(address.invoke),
                NodeKind::Grad { of: GradientOf::Value(value), .. } => {
                    open.push(value.node);
                    None
                }
                NodeKind::Operation(operation) => {
                    let outputs = &symbolic[id.index()].outputs;
                    let of_known_size = outputs.iter().all(|output| output.sizes().is_some());
                    if moves_rows(operation) && !of_known_size {
                        origins.moved = origins.moved.max(Some(id));
                    }
                    None
                }
                _ => None,
            };
            let invoke = invoke.and_then(|invoke| self.trace_of(id)?.invokes.get(invoke));
            origins.unequal.extend(invoke.and_then(lengths).filter(|lengths| is_unequal(lengths)));
            open.extend(node.kind.values().iter().map(|value| value.node));
        }
        origins
    }

    fn fault_without_rectangle(&mut self, id: NodeId, input: Value, origins: &Origins) {
        let program: &Program = self.program;
        let label = |id: NodeId| program.node(id).label();
        let module = match &program.node(id).kind {
            NodeKind::Apply { module, .. } => module.as_str(),
            _ => "",
        };
        let message = format!(
            "`{module}` attends, and `{}` comes from prompts of unequal length: which of its cells are tokens cannot be known",
            label(input.node)
        );
        let hint = match origins.moved {
            Some(moved) => format!(
                "`{}` may put rows in other places; give each prompt an invoke of its own, or prompts of one length",
                label(moved)
            ),
            None => "apply it to a value of the invoke's whole rectangle, [prompts, length, …], or give each prompt an invoke of its own"
                .to_owned(),
        };
        self.fault(id, message, Some(hint));
    }
}

/// Whether an operation may put a row where another was, at the same sizes.
fn moves_rows(operation: &Operation) -> bool {
    match operation.kind {
        OperationKind::Flip
        | OperationKind::Roll
        | OperationKind::Sort
        | OperationKind::TopK
        | OperationKind::Gather
        | OperationKind::TakeAlongDim
        | OperationKind::IndexSelect
        | OperationKind::Pad => true,
        OperationKind::GetItem => {
            let tensor = |item: &IndexItem| matches!(item, IndexItem::Tensor(_));
            let by_tensor =
                |argument: &Argument| matches!(argument, Argument::Index(items) if items.iter().any(tensor));
            operation.arguments.iter().any(by_tensor)
        }
        _ => false,
    }
}
