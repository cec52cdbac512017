//! How large a program becomes, before anything is made.

use crate::fault::{Fault, Faults};
use crate::limits;
use crate::program::{NodeId, NodeKind, Program};
use crate::surface::{Parameter, Region};

/// Refuses a program that would become too large. What this counts is a lower bound (rows of values count once, helpers
/// do not count; of what is the same in all cells of a sweep one is counted); the expander counts again as it goes.
pub(super) fn within_limits(program: &Program) -> Result<(), Faults> {
    let mut faults = Faults::default();
    let mut sum = 0_u64;
    // Of each node: how many different values it has in the cells of the sweeps around it, at least.
    let mut apart = vec![1_u64; program.nodes.len()];
    for &id in &program.body {
        let nodes = nodes(program, id, &mut apart);
        sum = sum.saturating_add(nodes);
        if sum > limits::EXPANDED_NODES as u64 {
            let node = program.node(id);
            let message = format!(
                "written out, the program has at least {sum} nodes; at most {} are taken",
                limits::EXPANDED_NODES
            );
            faults.push(
                Fault::new(message)
                    .at_node(&node.name, node.source.clone())
                    .with_hint("sweep over fewer cells, or in several programs"),
            );
            break;
        }
    }
    faults.or(())
}

/// A node to be counted: for how many cells it is there, and how often its body is walked, once for all cells of sweeps.
#[derive(Clone, Copy)]
struct Times {
    cells: u64,
    walks: u64,
}

/// How many nodes a node becomes in one cell of what is around it. Bodies do not stand deep in one another on the wire;
/// a deeper program built in Rust is counted as one that is too large.
fn nodes(program: &Program, id: NodeId, apart: &mut [u64]) -> u64 {
    let mut sum = 0_u64;
    // In program order: what a node reads is known before it.
    let mut open = vec![(id, Times { cells: 1, walks: 1 })];
    while let Some((id, times)) = open.pop() {
        let kind = &program.node(id).kind;
        let (body, inside) = match kind {
            NodeKind::Trace(trace) => (&trace.body, times),
            NodeKind::Steps { body, .. } => (body, times),
            NodeKind::Sweep(sweep) => {
                let all = cells_of(program, &sweep.region);
                // A grid that is too large by itself is refused as that.
                for axis in sweep.region.over.iter().filter(|_| all <= limits::CELLS as u64) {
                    let length = length_of(program, axis);
                    axis.iter().for_each(|id| note(apart, *id, different(program, *id, length)));
                }
                let cells = times.cells.saturating_mul(all);
                (&sweep.region.body, Times { cells, ..times })
            }
            NodeKind::Loop(repeated) => {
                let run = cells_of(program, &repeated.region).saturating_sub(repeated.from);
                let (cells, walks) = (times.cells.saturating_mul(run), times.walks.saturating_mul(run));
                (&repeated.region.body, Times { cells, walks })
            }
            NodeKind::Cond(cond) => {
                let branches = cond.otherwise.into_iter().chain([cond.then]);
                open.extend(branches.map(|branch| (branch, times)));
                continue;
            }
            NodeKind::Branch(branch) => (&branch.body, times),
            // One for all cells is enough where nothing in them differs.
            NodeKind::Set { .. } | NodeKind::SetAll(_) | NodeKind::Log(_) => {
                sum = sum.saturating_add(times.cells);
                continue;
            }
            NodeKind::Operation(operation) if operation.kind.is_random() => {
                sum = sum.saturating_add(times.cells);
                continue;
            }
            NodeKind::Operation(_) => {
                // It is there for each of the values that it reads.
                let values = kind.values();
                let read = values.iter().filter_map(|value| apart.get(value.node.index()));
                let different = read.copied().max().unwrap_or(1).max(1);
                note(apart, id, different);
                sum = sum.saturating_add(times.walks.saturating_mul(different));
                continue;
            }
            NodeKind::Get(_) | NodeKind::Literal { .. } => {
                sum = sum.saturating_add(times.walks);
                continue;
            }
            _ => {
                sum = sum.saturating_add(1);
                continue;
            }
        };
        sum = sum.saturating_add(1);
        open.extend(body.iter().rev().map(|&child| (child, inside)));
        if sum > limits::EXPANDED_NODES as u64 {
            break;
        }
    }
    sum
}

fn note(apart: &mut [u64], id: NodeId, different: u64) {
    if let Some(known) = apart.get_mut(id.index()) {
        *known = different;
    }
}

/// How many different values a parameter has along an axis of that length, at least: whole numbers may stand in an index, and
/// what is the same in neighbouring cells is there once.
fn different(program: &Program, id: NodeId, length: u64) -> u64 {
    match &program.node(id).kind {
        NodeKind::Parameter(Parameter::Numbers(numbers)) => {
            1 + numbers.windows(2).filter(|two| two[0] != two[1]).count() as u64
        }
        NodeKind::Parameter(Parameter::Range { .. } | Parameter::Rows(_)) => length,
        _ => 1,
    }
}

fn cells_of(program: &Program, region: &Region) -> u64 {
    region.over.iter().fold(1_u64, |product, axis| product.saturating_mul(length_of(program, axis)))
}

fn length_of(program: &Program, axis: &[NodeId]) -> u64 {
    let length = axis.iter().filter_map(|id| match &program.node(*id).kind {
        NodeKind::Parameter(parameter @ Parameter::Rows(_)) => Some(parameter.count().unwrap_or(1)),
        NodeKind::Parameter(parameter) => parameter.count(),
        _ => None,
    });
    length.max().unwrap_or(1)
}
