//! Training in the engine: parameters carried through a loop, a trace and its gradients in every step.

mod checkpoint;
mod optimiser;

use std::panic::Location;

use pellucid_graph::OperationKind;
use pellucid_graph::fault::Fault;

use crate::axis::{Axis, IntoAxes};
use crate::backward::Backward;
use crate::builder::source;
use crate::region::{Cell, Values};
use crate::session::Session;
use crate::trace::Trace;
use crate::value::{Given, Value, number};

pub use checkpoint::Checkpoint;
pub use optimiser::{Optimiser, Schedule};

impl Session {
    /// Trains parameters: in every step a trace of its own, in which the closure computes a loss (0-dimensional) from them,
    /// and a step along its gradient. What comes back is what they are in the end. What the closure saves comes back
    /// stacked over the steps.
    ///
    /// ```
    /// use pellucid::{Model, Optimiser, s};
    ///
    /// # fn main() -> pellucid::Result<()> {
    /// let model = Model::bundled()?;
    /// let session = model.session();
    /// // A vector that makes the model say Rome, where it would say Paris.
    /// let (rome, start) = (session.literal([model.token(" Rome")?], &[1]), session.zeros([model.hidden()]));
    /// let vector = session.train(8, Optimiser::adam(0.1), start, |_step, trace, vector| {
    ///     let prompt = trace.invoke("The Eiffel Tower is in the city of");
    ///     prompt.layer(2).edit_output(|output| output.index_add(s![.., -1], vector));
    ///     let loss = prompt.logits().index(s![.., -1]).cross_entropy(&rome);
    ///     loss.save("losses"); // [steps]
    ///     loss
    /// });
    /// vector.save("vector");
    /// let losses = session.run()?["losses"].to_vec_f32()?;
    /// assert!(losses[7] < 0.5 * losses[0], "{losses:?}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A loss of values that earlier traces have read is computed without the model, and its step needs no prompt.
    ///
    /// [`Session::training`] has more: batches, accumulated gradients, checkpoints.
    #[track_caller]
    pub fn train<P: Values>(
        &self,
        steps: u64,
        optimiser: Optimiser,
        parameters: P,
        loss: impl FnOnce(&Cell, &Trace, &P) -> Value,
    ) -> P {
        self.training(optimiser, parameters).steps(steps, loss).parameters()
    }

    /// Begins to train parameters: what the optimiser keeps is zeros, and no step was taken.
    ///
    /// Epochs over a data set in batches, with a checkpoint at the end:
    ///
    /// ```
    /// use pellucid::{Axis, AxisValues, Checkpoint, Model, Optimiser, Schedule, s};
    ///
    /// # fn main() -> pellucid::Result<()> {
    /// let model = Model::bundled()?;
    /// let session = model.session();
    /// let prompts = [["The Eiffel Tower is in the city of"], ["The Louvre is in the city of"]];
    /// let batches = AxisValues::prompts(prompts.map(Vec::from));
    /// let (rome, start) = (session.literal([model.token(" Rome")?], &[1]), session.zeros([model.hidden()]));
    /// let optimiser = Optimiser::adam(0.1).schedule(Schedule::Linear { warmup: 2, total: 10 }).clip_grad_norm(1.0);
    ///
    /// let data = [Axis::new("epoch", 0..3), Axis::new("batch", batches)];
    /// let training = session.training(optimiser, start).over(data, |cell, trace, vector| {
    ///     let batch = trace.invoke(cell.prompts("batch"));
    ///     batch.layer(2).edit_output(|output| output.index_add(s![.., -1], vector));
    ///     let loss = batch.logits().index(s![.., -1]).cross_entropy(&rome);
    ///     loss.save("losses"); // [epochs, batches]
    ///     loss
    /// });
    /// training.save("run");
    /// let results = session.run()?;
    /// assert_eq!(results["losses"].shape(), [3, 2]);
    /// assert_eq!(Checkpoint::of(&results, "run")?.steps()?, 6);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn training<P: Values>(&self, optimiser: Optimiser, parameters: P) -> Training<P> {
        let mut carried = vec![self.literal([0i64], &[])];
        for parameter in parameters.values() {
            let zeros = &parameter * 0.0;
            carried.push(parameter);
            carried.extend(std::iter::repeat_n(zeros, optimiser.states()));
        }
        let form = parameters.replaced(parameters.values());
        Training { session: self.clone(), optimiser, form, carried, done: 0, left_out: 0 }
    }

    /// Goes on with a training where a checkpoint was made, to the same numbers as if it had not stopped, its noise
    /// included. `like`: what was trained, of which only the form counts here.
    ///
    /// Then [`Training::steps`] takes so many steps more, numbered from those that were taken; [`Training::over`] and
    /// [`Training::accumulated`], given the same data as before, leave out the cells that the checkpoint has behind it.
    /// More epochs are a longer axis of epochs. Noise is keyed by the names of nodes: those that have none are called
    /// after their place in the loop, and so have the same name in both runs.
    #[track_caller]
    pub fn resume<P: Values>(&self, optimiser: Optimiser, like: P, checkpoint: &Checkpoint) -> Training<P> {
        let mut carried = vec![self.constant(&checkpoint.steps)];
        carried.extend(checkpoint.tensors.iter().map(|tensor| self.constant(tensor)));
        let expected = like.values().len() * (1 + optimiser.states());
        if checkpoint.tensors.len() != expected {
            let message = format!(
                "the checkpoint holds {} tensors, where these parameters and this optimiser have {expected}",
                checkpoint.tensors.len()
            );
            let hint = "resume with the kind of optimiser, and as many parameters, as it was made with";
            let fault = Fault::new(message).with_hint(hint);
            self.builder.fault(Fault { source: Some(source(Location::caller())), ..fault });
            carried = self.training(optimiser, like.replaced(like.values())).carried;
        }
        let done = checkpoint.steps().unwrap_or_else(|error| {
            let fault = Fault::new(format!("the checkpoint does not say how many steps were taken: {error}"));
            self.builder.fault(Fault { source: Some(source(Location::caller())), ..fault });
            0
        });
        Training { session: self.clone(), optimiser, form: like, carried, done, left_out: done }
    }
}

/// Goes back from a step's loss. A trace has a prompt; where the loss reads none, it is one that nobody reads, so that it does
/// not run.
#[track_caller]
fn back(trace: &Trace, loss: &Value) -> Backward {
    if !trace.has_invokes() {
        trace.invoke_tokens([[0]]);
    }
    trace.backward(loss)
}

/// Parameters in training, and what their optimiser keeps of them: see [`Session::training`].
#[derive(Clone, Debug)]
pub struct Training<P> {
    session: Session,
    optimiser: Optimiser,
    form: P,
    /// The number of steps taken; then each parameter, followed by its states.
    carried: Vec<Value>,
    /// How many steps are behind it, as far as that is known before the run.
    done: u64,
    /// Of these, how many were taken before a checkpoint and are left out of the data that is gone over next.
    left_out: u64,
}

impl<P: Values> Training<P> {
    /// So many steps, each with a trace of its own in which the closure computes a loss.
    #[track_caller]
    #[must_use]
    pub fn steps(self, count: u64, loss: impl FnOnce(&Cell, &Trace, &P) -> Value) -> Training<P> {
        let session = self.session.clone();
        let all = self.done.saturating_add(count);
        let carried =
            session.repeat_from(self.done, session.iterations(all), self.carried.clone(), self.body(loss));
        Training { carried, done: all, left_out: 0, ..self }
    }

    /// A step for each cell of a grid, such as `[epochs, batches]`: the last axis goes fastest. After
    /// [`Session::resume`] only for those cells that the checkpoint does not have behind it; there may be none.
    #[track_caller]
    #[must_use]
    pub fn over(self, axes: impl IntoAxes, loss: impl FnOnce(&Cell, &Trace, &P) -> Value) -> Training<P> {
        let session = self.session.clone();
        let axes = axes.into_axes();
        let (from, done, left_out) = self.behind(&axes);
        let carried = session.repeat_from(from, axes, self.carried.clone(), self.body(loss));
        Training { carried, done, left_out, ..self }
    }

    /// A step for each cell of `axes`, along the sum of the gradients of all cells of `parts`: what does not fit into one
    /// trace is divided so. As with torch, a loss that is a mean is to be divided by the number of parts. The closure is given the
    /// cell of `axes`, then that of `parts`.
    #[track_caller]
    #[must_use]
    pub fn accumulated(
        self,
        axes: impl IntoAxes,
        parts: impl IntoAxes,
        loss: impl FnOnce(&Cell, &Cell, &Trace, &P) -> Value,
    ) -> Training<P> {
        let session = self.session.clone();
        let axes = axes.into_axes();
        let (from, done, left_out) = self.behind(&axes);
        let carried = session.repeat_from(from, axes, self.carried.clone(), |cell, carried| {
            let (number, now) = self.now(&carried);
            let zeros: Vec<Value> = now.iter().map(|parameter| parameter * 0.0).collect();
            let gradients = session.repeat_over(parts, zeros, |part, sums| {
                let trace = session.trace();
                let loss = loss(cell, part, &trace, &self.form.replaced(now.clone()));
                let back = back(&trace, &loss);
                sums.iter().zip(&now).map(|(sum, parameter)| sum + back.grad(parameter)).collect()
            });
            self.step(number, &now, gradients, &carried)
        });
        Training { carried, done, left_out, ..self }
    }

    /// Of a grid that is gone over next: how many of its cells are left out, and after it, how many steps are done, and
    /// how many of them are still to be left out.
    fn behind(&self, axes: &[Axis]) -> (u64, u64, u64) {
        let cells = axes.iter().try_fold(1_u64, |cells, axis| Some(cells.saturating_mul(axis.count()?)));
        let from = self.left_out.min(cells.unwrap_or(u64::MAX));
        let steps = cells.map_or(0, |cells| cells - from);
        (from, self.done.saturating_add(steps), self.left_out - from)
    }

    /// What the parameters are.
    pub fn parameters(&self) -> P {
        self.form.replaced(self.now(&self.carried).1)
    }

    /// Marks everything as returned that training needs to go on: see [`Checkpoint`].
    #[track_caller]
    pub fn save(&self, name: &str) {
        let (steps, tensors) = self.carried.split_at(1);
        steps.iter().for_each(|steps| steps.save(&checkpoint::steps_name(name)));
        for (number, tensor) in tensors.iter().enumerate() {
            tensor.save(&checkpoint::tensor_name(name, number));
        }
    }

    /// The number of the last step, and the parameters.
    fn now(&self, carried: &[Value]) -> (Value, Vec<Value>) {
        let each = 1 + self.optimiser.states();
        let parameters = carried.iter().skip(1).step_by(each).cloned().collect();
        (carried[0].clone(), parameters)
    }

    /// What happens in one step of a loop.
    fn body(
        &self,
        loss: impl FnOnce(&Cell, &Trace, &P) -> Value,
    ) -> impl FnOnce(&Cell, Vec<Value>) -> Vec<Value> {
        |cell, carried| {
            let (number, now) = self.now(&carried);
            let trace = self.session.trace();
            let loss = loss(cell, &trace, &self.form.replaced(now.clone()));
            let back = back(&trace, &loss);
            let gradients = now.iter().map(|parameter| back.grad(parameter)).collect();
            self.step(number, &now, gradients, &carried)
        }
    }

    /// What is carried after a step.
    #[track_caller]
    fn step(&self, number: Value, now: &[Value], gradients: Vec<Value>, carried: &[Value]) -> Vec<Value> {
        let number = number + 1i64;
        let gradients = match (self.optimiser.most, gradients.first()) {
            (Some(most), Some(first)) => {
                let arguments =
                    [Given::Values(gradients.iter().collect()), self::number(most), self::number(2.0)];
                let clipped = first.writer().operation(OperationKind::ClipGradNorm, arguments);
                (0..gradients.len() as u32).map(|place| clipped.output(place)).collect()
            }
            _ => gradients,
        };
        let each = 1 + self.optimiser.states();
        let mut next = vec![number.clone()];
        for ((parameter, states), gradient) in now.iter().zip(carried[1..].chunks(each)).zip(&gradients) {
            next.extend(self.optimiser.step(&number, parameter, gradient, &states[1..]));
        }
        next
    }
}
