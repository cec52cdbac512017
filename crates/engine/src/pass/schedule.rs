//! What is known of a model's stages beside their list.

use pellucid_models::stage::{Kernel, ModuleStages, Slot, StageList};

use crate::plan::{Segment, segments, unembedding};

/// What is known of a stage list beside the list itself: computed once for each model.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// The stage of each hook point, by its place.
    pub hook_stage: Vec<usize>,
    /// For each slot, the last stage that reads it.
    pub(super) last_use: Vec<usize>,
    /// For each slot, how many stages read it.
    pub(super) uses: Vec<usize>,
    /// For each module, the stage of its input hook point and that of its output, where all stages between can be left
    /// out when its output is given: nobody outside reads what they make.
    pub skippable: Vec<Option<(usize, usize)>>,
    /// The stage that computes the logits, if some of the vocabulary's columns can be computed alone.
    pub unembedding: Option<usize>,
    /// The parts of the list that can be computed again by themselves, in order.
    pub segments: Vec<Segment>,
    /// For each slot of ids, how many rows the smallest table has that they are looked up in.
    id_limit: Vec<u64>,
}

impl Schedule {
    /// What follows from a list of stages.
    pub fn new(list: &StageList) -> Schedule {
        let slots = list.slots as usize;
        let (mut last_use, mut uses) = (vec![0; slots], vec![0; slots]);
        let mut hook_stage = Vec::new();
        for (number, stage) in list.stages.iter().enumerate() {
            for slot in &stage.inputs {
                last_use[slot.0 as usize] = number;
                uses[slot.0 as usize] += 1;
            }
            if let Kernel::Hook { point, .. } = stage.kernel {
                if hook_stage.len() <= point {
                    hook_stage.resize(point + 1, 0);
                }
                hook_stage[point] = number;
            }
        }
        if let Some(logits) = list.logits {
            last_use[logits.0 as usize] = list.stages.len();
        }
        let skippable = list.modules.iter().map(|module| skippable(list, module, &last_use)).collect();
        let (unembedding, segments) = (unembedding(list), segments(list, &last_use));
        Schedule { hook_stage, last_use, uses, skippable, unembedding, segments, id_limit: id_limits(list) }
    }

    /// Ids in that slot are below this.
    pub fn id_limit(&self, slot: Slot) -> u64 {
        self.id_limit[slot.0 as usize]
    }
}

/// The first stage of a module and that of its output hook point, if nothing outside depends on the stages between.
fn skippable(list: &StageList, module: &ModuleStages, last_use: &[usize]) -> Option<(usize, usize)> {
    let (from, output) = (module.range.start, module.range.end.checked_sub(1)?);
    let stage = list.stages.get(output)?;
    let given =
        matches!(stage.kernel, Kernel::Hook { .. }) && stage.outputs.first() == module.output.as_ref();
    // Where the pass narrows inside, its rows change there.
    let narrows = (from + 1..=output).contains(&list.token_wise_from);
    let closed = list.stages.get(from..output)?.iter().all(|stage| {
        stage.outputs.iter().all(|slot| last_use[slot.0 as usize] <= output && Some(*slot) != list.logits)
    });
    (given && closed && !narrows).then_some((from, output))
}

/// Ids reach their tables through hook points alone, so one walk backwards carries each table's bound to where its ids
/// come from.
fn id_limits(list: &StageList) -> Vec<u64> {
    let mut limits = vec![u64::MAX; list.slots as usize];
    for stage in list.stages.iter().rev() {
        let limit = match &stage.kernel {
            Kernel::Embed { table, offset, .. } => {
                let rows = list.weights[table.0 as usize].shape.first().copied().unwrap_or(0) as i64;
                u64::try_from(rows - offset).unwrap_or(0)
            }
            Kernel::Hook { .. } => limits[stage.outputs[0].0 as usize],
            _ => continue,
        };
        let own = &mut limits[stage.inputs[0].0 as usize];
        *own = (*own).min(limit);
    }
    limits
}
