//! What training needs to go on where it stopped.

use pellucid_engine::Tensor;

use crate::error::Result;
use crate::results::Results;

/// What [`Training::save`](crate::Training::save) returned: parameters, what the optimiser keeps of them, and the number of steps. It is
/// a part of the results, and so is written with [`Results::save`] and read with [`Results::load`].
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub(super) steps: Tensor,
    /// Each parameter, followed by its states.
    pub(super) tensors: Vec<Tensor>,
}

impl Checkpoint {
    /// The checkpoint that was saved under a name.
    ///
    /// ```no_run
    /// use pellucid::{Checkpoint, Results};
    ///
    /// # fn main() -> pellucid::Result<()> {
    /// let checkpoint = Checkpoint::of(&Results::load("training.safetensors")?, "run")?;
    /// println!("{} steps", checkpoint.steps()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotSaved`](crate::Error::NotSaved) where there is none of that name.
    pub fn of(results: &Results, name: &str) -> Result<Checkpoint> {
        let steps = results.get(&steps_name(name))?.clone();
        let mut tensors = vec![results.get(&tensor_name(name, 0))?.clone()];
        while let Ok(tensor) = results.get(&tensor_name(name, tensors.len())) {
            tensors.push(tensor.clone());
        }
        Ok(Checkpoint { steps, tensors })
    }

    /// How many steps were taken.
    ///
    /// # Errors
    /// [`Error::Run`](crate::Error::Run) where the file holds something else in its place.
    pub fn steps(&self) -> Result<u64> {
        Ok(self.steps.to_vec_i64()?.first().map_or(0, |&steps| steps.unsigned_abs()))
    }
}

pub(super) fn steps_name(name: &str) -> String {
    format!("{name}_steps")
}

pub(super) fn tensor_name(name: &str, number: usize) -> String {
    format!("{name}_{number}")
}
