//! What was noted of passes, by names.

use std::collections::HashMap;

use pellucid_graph::NodeKind;
use pellucid_graph::check::CheckedProgram;
use pellucid_models::stage::Kernel;

use super::{
    ExplainedBack, ExplainedModel, ExplainedParked, ExplainedPass, ExplainedPassenger, ExplainedSharing,
    PassRecord, Passenger,
};
use crate::loaded::Loaded;
use crate::plan::unembedding;

/// A model as the stages that passes walk.
pub(crate) fn described(loaded: &Loaded) -> ExplainedModel {
    let (spec, list) = (loaded.model.spec(), loaded.model.stages());
    let layers = (0..spec.sizes.layers).map_while(|layer| {
        let name = format!("layers.{layer}");
        let alias = spec.aliases.iter().find(|alias| alias.alias == name)?;
        let module = spec.modules.iter().position(|module| module.path == alias.target)?;
        let range = &list.modules.get(module)?.range;
        Some((range.start, range.end))
    });
    ExplainedModel {
        name: loaded.name.clone(),
        stages: list.stages.len(),
        layers: layers.collect(),
        late_at: loaded.costs.late_from(),
        narrows_at: list.token_wise_from,
        unembeds_at: unembedding(list),
    }
}

/// How many of a program's nodes are computed, how many there are, and which are not.
pub(crate) fn dropped(program: &CheckedProgram) -> ((usize, usize), Vec<(String, usize)>) {
    let (mut computed, mut all) = (0, 0);
    let mut dropped: Vec<(String, usize)> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (node, checked) in program.program.nodes.iter().zip(&program.nodes) {
        // They hold others, and are nothing to be computed.
        if matches!(node.kind, NodeKind::Trace(_) | NodeKind::Steps { .. }) {
            continue;
        }
        all += 1;
        if checked.needed {
            computed += 1;
            continue;
        }
        let place = *known.entry(node.label()).or_insert(dropped.len());
        match dropped.get_mut(place) {
            Some(one) => one.1 += 1,
            None => dropped.push((node.label().to_owned(), 1)),
        }
    }
    ((computed, all), dropped)
}

/// A pass that was noted.
pub(crate) fn explained(models: &[Loaded], record: &PassRecord) -> Option<ExplainedPass> {
    let loaded = models.get(record.model)?;
    let passengers = record.passengers.iter().map(|(passenger, cells)| rides(loaded, passenger, *cells));
    let parked = record.parked.iter().map(|((stage, invoke), &cells)| {
        let place = name(loaded, *stage, true);
        ExplainedParked { place, stage: *stage, invoke: invoke.to_string(), cells }
    });
    let flops = record.work.flops;
    Some(ExplainedPass {
        model: loaded.name.clone(),
        traces: record.traces,
        from: name(loaded, record.from, true),
        to: name(loaded, record.to, false),
        cut: record.cut,
        stages: (record.from, record.to),
        tokens: record.tokens,
        flops,
        bytes: loaded.costs.bytes(record.work),
        naive_flops: record.naive.flops,
        naive_bytes: loaded.costs.bytes(record.naive),
        back_flops: record.back_flops,
        naive_back_flops: record.naive_back_flops,
        read_bytes: record.read_bytes,
        freed_bytes: record.freed_bytes,
        estimated_ms: record.estimated_ms,
        measured_ms: record.measured_ms,
        gigaflops: record.measured_ms.filter(|&ms| ms > 0.0).map(|ms| flops as f64 / ms / 1e6),
        passengers: passengers.collect(),
        more_passengers: record.more_passengers,
        parked: parked.collect(),
        more_passes: record.more_passes,
    })
}

fn rides(loaded: &Loaded, passenger: &Passenger, cells: usize) -> ExplainedPassenger {
    let shares = passenger.shares.as_ref().map(|shares| ExplainedSharing {
        with: shares.with.to_string(),
        until: shares.until.map(|stage| name(loaded, stage, true)),
        then: shares
            .then
            .iter()
            .map(|(with, until)| (with.to_string(), until.map(|stage| name(loaded, stage, true))))
            .collect(),
        leaves: shares.then.last().map_or(shares.until, |last| last.1),
        column: shares.column,
        tokens: shares.tokens,
    });
    let after = passenger.after.iter();
    ExplainedPassenger {
        invoke: passenger.invoke.to_string(),
        cells,
        step: passenger.step,
        prompts: passenger.prompts,
        tokens: passenger.tokens,
        width: passenger.width,
        rows_from: passenger.rows_from,
        late_from: passenger.late_from,
        late_is_read: passenger.late_is_read,
        columns: passenger.columns.clone(),
        vocabulary: passenger.vocabulary,
        until: name(loaded, passenger.until, false),
        end: passenger.until,
        shares,
        lends: passenger.lends,
        cached: passenger.cached,
        resumed: passenger.resumed,
        back: passenger.back.map(|(first, end, stages)| ExplainedBack {
            from: name(loaded, end, false),
            to: name(loaded, first, true),
            stages,
            of: loaded.model.stages().stages.len(),
        }),
        after: after.map(|(invoke, positions)| (invoke.to_string(), *positions)).collect(),
    }
}

/// The hook point at a stage, or the last before its end.
fn name(loaded: &Loaded, stage: usize, from: bool) -> String {
    let stages = &loaded.model.stages().stages;
    if from && stage == 0 {
        return "the beginning".into();
    }
    if !from && stage >= stages.len() {
        return "the end".into();
    }
    let at = if from { stage } else { stage.saturating_sub(1) };
    match stages.get(at).map(|stage| &stage.kernel) {
        Some(Kernel::Hook { point, .. }) => loaded.model.spec().hook_points[*point].path(),
        _ => format!("stage {at}"),
    }
}
