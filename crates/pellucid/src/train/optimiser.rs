//! Optimisers, schedules of their rates, and clipping.

use pellucid_graph::DType;

use crate::value::{Adam, Operand, Sgd, Value};

/// How parameters follow their gradients, as in `torch.optim`.
#[derive(Clone, Copy, Debug)]
pub struct Optimiser {
    rate: f64,
    rule: Rule,
    schedule: Schedule,
    pub(super) most: Option<f64>,
}

/// How the learning rate goes over the steps; the numbers are those of transformers' `get_…_schedule_with_warmup`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// The same rate at every step.
    #[default]
    Constant,
    /// From 0 up to the rate in `warmup` steps, then down to 0 in a line until step `total`.
    Linear {
        /// Steps on the way up.
        warmup: u64,
        /// Steps in all.
        total: u64,
    },
    /// From 0 up to the rate in `warmup` steps, then down to 0 along half a cosine until step `total`.
    Cosine {
        /// Steps on the way up.
        warmup: u64,
        /// Steps in all.
        total: u64,
    },
}

impl Schedule {
    /// What the rate is multiplied by at a step, which counts from 1; none: by 1.
    #[track_caller]
    fn factor(self, number: &Value) -> Option<Value> {
        let (warmup, total) = match self {
            Schedule::Constant => return None,
            Schedule::Linear { warmup, total } | Schedule::Cosine { warmup, total } => (warmup, total),
        };
        // f64 as in Python; step 1 is the schedule's step 0.
        let step = number.to(DType::F64) - 1.0;
        let rise = (&step / (warmup.max(1) as f64)).clamp(0.0, 1.0);
        let rise = if warmup == 0 { None } else { Some(rise) };
        let part = (step - warmup as f64) / (total.saturating_sub(warmup).max(1) as f64);
        let part = part.clamp(0.0, 1.0);
        let fall = match self {
            Schedule::Cosine { .. } => ((part * std::f64::consts::PI).cos() + 1.0) * 0.5,
            _ => 1.0 - part,
        };
        Some(match rise {
            Some(rise) => rise * fall,
            None => fall,
        })
    }
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Sgd { momentum: f64, weight_decay: f64, nesterov: bool },
    Adam(Adam),
}

impl Optimiser {
    fn new(rate: f64, rule: Rule) -> Optimiser {
        Optimiser { rate, rule, schedule: Schedule::Constant, most: None }
    }

    /// Gradient descent at that rate.
    pub fn sgd(rate: f64) -> Optimiser {
        Optimiser::new(rate, Rule::Sgd { momentum: 0.0, weight_decay: 0.0, nesterov: false })
    }

    /// Adam at that rate, with torch's defaults for all else.
    pub fn adam(rate: f64) -> Optimiser {
        Optimiser::adam_with(rate, Adam::default())
    }

    /// Adam with options, such as a decoupled weight decay (AdamW).
    pub fn adam_with(rate: f64, options: Adam) -> Optimiser {
        Optimiser::new(rate, Rule::Adam(options))
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

    /// How the rate goes over the steps.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Optimiser {
        self.schedule = schedule;
        self
    }

    /// Scales all gradients down together where their norm is above `most`.
    #[must_use]
    pub fn clip_grad_norm(mut self, most: f64) -> Optimiser {
        self.most = Some(most);
        self
    }

    /// How many tensors it keeps for each parameter from step to step, all zeros at first.
    pub(super) fn states(&self) -> usize {
        match self.rule {
            Rule::Sgd { .. } => 1,
            Rule::Adam(_) => 2,
        }
    }

    /// A parameter after a step, followed by its states.
    #[track_caller]
    pub(super) fn step(
        &self,
        number: &Value,
        parameter: &Value,
        gradient: &Value,
        states: &[Value],
    ) -> Vec<Value> {
        let rate: Operand = match self.schedule.factor(number) {
            Some(factor) => (factor * self.rate).into(),
            None => self.rate.into(),
        };
        match (self.rule, states) {
            (Rule::Sgd { momentum, weight_decay, nesterov }, [buffer]) => {
                let options =
                    Sgd { momentum_buffer: Some(buffer), momentum, weight_decay, nesterov, ..Sgd::default() };
                let (parameter, buffer) = parameter.sgd_step(gradient, rate, options);
                vec![parameter, buffer]
            }
            (Rule::Adam(options), [mean, square]) => {
                let (parameter, mean, square) =
                    parameter.adam_step(gradient, (mean, square), number, rate, options);
                vec![parameter, mean, square]
            }
            // As many states as the optimiser said it has.
            _ => vec![parameter.clone()],
        }
    }
}
