//! The models of an engine.

use std::sync::Arc;

use pellucid_models::Model;

use crate::pass::Schedule;
use crate::plan::Costs;

/// A loaded model under the name by which traces call it; the first of an engine has none.
pub(crate) struct Loaded {
    pub name: String,
    pub model: Arc<Model>,
    /// What follows from its list of stages.
    pub schedule: Schedule,
    /// What its stages cost.
    pub costs: Costs,
}

impl Loaded {
    pub fn new(name: &str, model: Arc<Model>) -> Loaded {
        let schedule = Schedule::new(model.stages());
        let costs = Costs::new(&model);
        Loaded { name: name.to_owned(), model, schedule, costs }
    }
}
