//! How large a program becomes, before anything is made.

use crate::fault::{Fault, Faults};
use crate::limits;
use crate::program::{NodeId, NodeKind, Program};
use crate::surface::{Parameter, Region};

/// Refuses a program that would become too large. What this counts is a lower bound (rows of values count once, helpers
/// do not count); the expander counts again as it goes.
pub(super) fn within_limits(program: &Program) -> Result<(), Faults> {
    let mut faults = Faults::default();
    let mut sum = 0_u64;
    for &id in &program.body {
        let nodes = nodes(program, id);
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

/// How many nodes a node becomes in one cell of what is around it. Bodies do not stand deep in one another on the wire;
/// a deeper program built in Rust is counted as one that is too large.
fn nodes(program: &Program, id: NodeId) -> u64 {
    let mut sum = 0_u64;
    let mut open = vec![(id, 1_u64)];
    while let Some((id, cells)) = open.pop() {
        let kind = &program.node(id).kind;
        let (body, times) = match kind {
            NodeKind::Trace(trace) => (&trace.body, cells),
            NodeKind::Steps { body, .. } => (body, cells),
            NodeKind::Sweep(sweep) => {
                (&sweep.region.body, cells.saturating_mul(cells_of(program, &sweep.region)))
            }
            NodeKind::Loop(repeated) => {
                let run = cells_of(program, &repeated.region).saturating_sub(repeated.from);
                (&repeated.region.body, cells.saturating_mul(run))
            }
            NodeKind::Cond(cond) => {
                open.extend(std::iter::once(cond.then).chain(cond.otherwise).map(|branch| (branch, cells)));
                continue;
            }
            NodeKind::Branch(branch) => (&branch.body, cells),
            // One for all cells is enough where nothing in them differs.
            NodeKind::Set { .. } | NodeKind::SetAll(_) | NodeKind::Log(_) => {
                sum = sum.saturating_add(cells);
                continue;
            }
            _ => {
                sum = sum.saturating_add(1);
                continue;
            }
        };
        sum = sum.saturating_add(1);
        open.extend(body.iter().map(|&child| (child, times)));
        if sum > limits::EXPANDED_NODES as u64 {
            break;
        }
    }
    sum
}

fn cells_of(program: &Program, region: &Region) -> u64 {
    region.over.iter().fold(1_u64, |product, axis| {
        let length = axis.iter().filter_map(|id| match &program.node(*id).kind {
            NodeKind::Parameter(parameter @ Parameter::Rows(_)) => Some(parameter.count().unwrap_or(1)),
            NodeKind::Parameter(parameter) => parameter.count(),
            _ => None,
        });
        product.saturating_mul(length.max().unwrap_or(1))
    })
}
