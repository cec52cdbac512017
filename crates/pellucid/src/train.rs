//! Training in the engine: parameters carried through a loop, a trace and its gradients in every step.

use crate::region::{Cell, Values};
use crate::session::Session;
use crate::trace::Trace;
use crate::value::{Adam, Sgd, Value};

/// How parameters follow their gradients, as in `torch.optim`.
#[derive(Clone, Copy, Debug)]
pub struct Optimiser {
    rate: f64,
    rule: Rule,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Sgd { momentum: f64, weight_decay: f64, nesterov: bool },
    Adam(Adam),
}

impl Optimiser {
    /// Gradient descent at that rate.
    pub fn sgd(rate: f64) -> Optimiser {
        Optimiser { rate, rule: Rule::Sgd { momentum: 0.0, weight_decay: 0.0, nesterov: false } }
    }

    /// Adam at that rate, with torch's defaults for all else.
    pub fn adam(rate: f64) -> Optimiser {
        Optimiser::adam_with(rate, Adam::default())
    }

    /// Adam with options, such as a decoupled weight decay (AdamW).
    pub fn adam_with(rate: f64, options: Adam) -> Optimiser {
        Optimiser { rate, rule: Rule::Adam(options) }
    }

    /// Of gradient descent: how much of the last step's direction is kept.
    #[must_use]
    pub fn momentum(mut self, kept: f64) -> Optimiser {
        if let Rule::Sgd { momentum, .. } = &mut self.rule {
            *momentum = kept;
        }
        self
    }

    /// Of gradient descent: whether the step looks ahead along the momentum.
    #[must_use]
    pub fn nesterov(mut self) -> Optimiser {
        if let Rule::Sgd { nesterov, .. } = &mut self.rule {
            *nesterov = true;
        }
        self
    }

    /// How fast the parameters decay, by way of the gradient (of AdamW: by itself).
    #[must_use]
    pub fn weight_decay(mut self, decay: f64) -> Optimiser {
        match &mut self.rule {
            Rule::Sgd { weight_decay, .. } => *weight_decay = decay,
            Rule::Adam(options) => options.weight_decay = decay,
        }
        self
    }

    /// How many tensors it keeps for each parameter from step to step, all zeros at first.
    fn states(&self) -> usize {
        match self.rule {
            Rule::Sgd { .. } => 1,
            Rule::Adam(_) => 2,
        }
    }

    /// A parameter after a step, followed by its states.
    #[track_caller]
    fn step(&self, number: &Value, parameter: &Value, gradient: &Value, states: &[Value]) -> Vec<Value> {
        match (self.rule, states) {
            (Rule::Sgd { momentum, weight_decay, nesterov }, [buffer]) => {
                let options =
                    Sgd { momentum_buffer: Some(buffer), momentum, weight_decay, nesterov, ..Sgd::default() };
                let (parameter, buffer) = parameter.sgd_step(gradient, self.rate, options);
                vec![parameter, buffer]
            }
            (Rule::Adam(options), [mean, square]) => {
                let (parameter, mean, square) =
                    parameter.adam_step(gradient, (mean, square), number, self.rate, options);
                vec![parameter, mean, square]
            }
            // As many states as the optimiser said it has.
            _ => vec![parameter.clone()],
        }
    }
}

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
    #[track_caller]
    pub fn train<P: Values>(
        &self,
        steps: u64,
        optimiser: Optimiser,
        parameters: P,
        loss: impl FnOnce(&Cell, &Trace, &P) -> Value,
    ) -> P {
        let form = parameters.replaced(parameters.values());
        let mut carried = Vec::new();
        for parameter in parameters.values() {
            let zeros = &parameter * 0.0;
            carried.push(parameter);
            carried.extend(std::iter::repeat_n(zeros, optimiser.states()));
        }
        let each = 1 + optimiser.states();
        let trained = self.repeat(steps, carried, |cell, carried| {
            let now: Vec<Value> = carried.iter().step_by(each).cloned().collect();
            let trace = self.trace();
            let loss = loss(cell, &trace, &form.replaced(now.clone()));
            let back = trace.backward(&loss);
            let number = cell.index() + 1i64;
            let stepped = now.iter().zip(carried.chunks(each)).flat_map(|(parameter, carried)| {
                optimiser.step(&number, parameter, &back.grad(parameter), &carried[1..])
            });
            stepped.collect::<Vec<Value>>()
        });
        form.replaced(trained.into_iter().step_by(each).collect())
    }
}
