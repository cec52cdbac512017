//! What a module that attends is applied to, where prompts have unequal lengths.
//!
//! A batch of unequal prompts is a rectangle, in which some cells are no tokens. A module that attends must not attend to
//! those, and has to count positions from each prompt's first token. So it is found out whose rectangle its input is: all
//! values get their types once more, with a symbol for each invoke's length, so that a dimension still says in the end where
//! it came from. What could hold such cells in other places than the invoke's own is refused.

use std::collections::{BTreeMap, HashSet};

use std::collections::HashMap;

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
#[derive(Clone, Default)]
struct Origins {
    /// Lists of lengths that are not all equal, by their symbols' numbers; sorted, and [`ORIGINS`] at most.
    unequal: Vec<u32>,
    /// There are more.
    many: bool,
    /// An operation that may put rows in other places.
    moved: Option<NodeId>,
}

/// Different rectangles that are told apart in what a value is computed from: a bound on the work.
const ORIGINS: usize = 8;

impl Origins {
    fn join(&mut self, other: &Origins) {
        self.moved = self.moved.max(other.moved);
        self.many |= other.many;
        other.unequal.iter().for_each(|&list| self.add(list));
    }

    fn add(&mut self, list: u32) {
        if let Err(place) = self.unequal.binary_search(&list) {
            match self.unequal.len() < ORIGINS {
                true => self.unequal.insert(place, list),
                false => self.many = true,
            }
        }
    }
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
        let mut lists: Vec<Vec<usize>> = invokes.filter_map(lengths).collect();
        if applied.is_empty() || !self.faults.is_empty() || !lists.iter().any(|lengths| is_unequal(lengths)) {
            return;
        }
        lists.sort_unstable();
        lists.dedup();
        let symbols = (0..).map(Symbol);
        let mut symbolic = Checker {
            program: self.program,
            models: self.models,
            nodes: self.nodes.clone(),
            gradients: Vec::new(),
            faults: Vec::new(),
            reported: HashSet::new(),
            later_bytes: HashMap::new(),
            next_symbol: lists.len() as u32,
            rectangles: Some(lists.iter().cloned().zip(symbols).collect()),
        };
        symbolic.nodes.iter_mut().for_each(|node| node.outputs.clear());
        symbolic.types();
        let origins = self.origins(&symbolic.nodes, &lists);
        for (id, input) in applied {
            let origins = &origins[input.node.index()];
            if origins.unequal.is_empty() {
                continue;
            }
            let found = symbolic.nodes[input.node.index()].outputs.get(input.output as usize);
            match rows_of(found.map(|found| found.shape.as_slice()), origins, &lists) {
                Some(lengths) if is_unequal(lengths) => {
                    self.nodes[id.index()].lengths = Some(lengths.to_vec())
                }
                Some(_) => {}
                None => self.fault_without_rectangle(id, input, origins),
            }
        }
    }

    /// What each value is computed from, as far back as values go. A getter's rectangle is its invoke's.
    fn origins(&self, symbolic: &[CheckedNode], lists: &[Vec<usize>]) -> Vec<Origins> {
        let mut all: Vec<Origins> = Vec::with_capacity(self.program.nodes.len());
        for (position, node) in self.program.nodes.iter().enumerate() {
            let id = NodeId(position as u32);
            let mut own = Origins::default();
            let mut join = |value: Value| {
                if let Some(origins) = all.get(value.node.index()) {
                    own.join(origins);
                }
            };
            node.kind.values().into_iter().for_each(&mut join);
            let invoke = match &node.kind {
                NodeKind::Get(address) => Some(address.invoke),
                NodeKind::Tokens(invoke) | NodeKind::Mask(invoke) => Some(*invoke),
                NodeKind::Grad { of: GradientOf::Hook(address), .. } => Some(address.invoke),
                NodeKind::Grad { of: GradientOf::Value(value), .. } => {
                    join(*value);
                    None
                }
                NodeKind::Operation(operation) => {
                    let outputs = &symbolic[position].outputs;
                    let of_known_size = outputs.iter().all(|output| output.sizes().is_some());
                    if moves_rows(operation) && !of_known_size {
                        own.moved = Some(id);
                    }
                    None
                }
                _ => None,
            };
            let invoke = invoke.and_then(|invoke| self.trace_of(id)?.invokes.get(invoke));
            if let Some(lengths) = invoke.and_then(lengths).filter(|lengths| is_unequal(lengths))
                && let Ok(list) = lists.binary_search(&lengths)
            {
                own.add(list as u32);
            }
            all.push(own);
        }
        all
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

/// The lengths of the rows of a value of that shape, or equal ones where no cell is empty; none where that cannot be known.
fn rows_of<'l>(
    shape: Option<&[Dimension]>,
    origins: &Origins,
    lists: &'l [Vec<usize>],
) -> Option<&'l [usize]> {
    let [prompts, columns, ..] = shape? else { return None };
    let unequal = origins.unequal.iter().filter_map(|&list| lists.get(list as usize));
    if let Some(columns) = columns.value() {
        // Of no rectangle: what was chosen by number, or is no longer of single tokens. Unless it became one again.
        let whole = |lengths: &Vec<usize>| lengths.iter().max().is_some_and(|&all| all as u64 == columns);
        let again = columns > 1 && (origins.many || unequal.into_iter().any(whole));
        return (!again).then_some(&[][..]);
    }
    let own = match columns.terms() {
        &[(symbol, 1)] if columns.constant() == 0 => lists.get(symbol.0 as usize)?,
        _ => return None,
    };
    let same = prompts.value() == Some(own.len() as u64) && origins.moved.is_none();
    (same || !is_unequal(own)).then_some(own)
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
