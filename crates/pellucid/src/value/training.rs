//! Methods for training: losses, one step of an optimiser, and what stops a gradient.

use pellucid_graph::OperationKind;

use super::arguments::{boolean, integer, number, text};
use super::{Given, Operand, Value};
use crate::steps::Steps;
use crate::trace::Trace;

/// How the terms of a loss become its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean; of classes weighed by the rows' weights.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// Each by itself.
    None,
    /// Their sum, divided by the size of the first dimension; for [`Value::kl_div`].
    BatchMean,
}

impl Reduction {
    fn argument(self) -> Given<'static> {
        text(match self {
            Reduction::Mean => "mean",
            Reduction::Sum => "sum",
            Reduction::None => "none",
            Reduction::BatchMean => "batchmean",
        })
    }
}

/// Options of [`Value::cross_entropy_with`].
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a> {
    /// How much each class counts, `[classes]`.
    pub weight: Option<&'a Value>,
    /// The target of rows that do not count.
    pub ignore_index: i64,
    /// Rows to result.
    pub reduction: Reduction,
    /// How much of each target is spread over all classes, from 0 to 1.
    pub label_smoothing: f64,
}

impl Default for CrossEntropy<'_> {
    fn default() -> Self {
        CrossEntropy { weight: None, ignore_index: -100, reduction: Reduction::Mean, label_smoothing: 0.0 }
    }
}

/// Options of [`Value::sgd_step`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Sgd<'a> {
    /// What the step before gave as its second result; none: the first step.
    pub momentum_buffer: Option<&'a Value>,
    /// How much of the buffer is kept.
    pub momentum: f64,
    /// How much of the gradient is kept from the buffer.
    pub dampening: f64,
    /// How much of the parameter is added to the gradient.
    pub weight_decay: f64,
    /// Whether the step looks ahead along the buffer.
    pub nesterov: bool,
}

/// Options of [`Value::adam_step`].
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    /// How much of the gradient's mean is kept.
    pub beta1: f64,
    /// How much of the mean of its square is kept.
    pub beta2: f64,
    /// What the divisor never falls below.
    pub epsilon: f64,
    /// How fast the parameter decays.
    pub weight_decay: f64,
    /// Whether it decays by itself (AdamW), or by way of the gradient.
    pub decoupled: bool,
}

impl Default for Adam {
    fn default() -> Self {
        Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, decoupled: false }
    }
}

/// Losses.
impl Value {
    /// The mean cross-entropy of logits (classes are dimension 1) against class numbers.
    #[track_caller]
    pub fn cross_entropy(&self, target: &Value) -> Value {
        self.cross_entropy_with(target, CrossEntropy::default())
    }

    /// The cross-entropy of logits (classes are dimension 1) against class numbers.
    #[track_caller]
    pub fn cross_entropy_with(&self, target: &Value, options: CrossEntropy<'_>) -> Value {
        let arguments = [
            Given::Value(self),
            Given::Value(target),
            Given::Optional(options.weight),
            integer(options.ignore_index),
            options.reduction.argument(),
            number(options.label_smoothing),
        ];
        self.writer().operation(OperationKind::CrossEntropy, arguments)
    }

    /// The negative log-likelihood of log-probabilities (classes are dimension 1) against class numbers; rows with the
    /// target −100 do not count.
    #[track_caller]
    pub fn nll_loss(&self, target: &Value, reduction: Reduction) -> Value {
        let (input, target) = (Given::Value(self), Given::Value(target));
        let arguments = [input, target, Given::Optional(None), integer(-100), reduction.argument()];
        self.writer().operation(OperationKind::NllLoss, arguments)
    }

    /// The divergence of a target distribution from these log-probabilities; `log_target`: the target's are logarithms too.
    #[track_caller]
    pub fn kl_div(&self, target: &Value, reduction: Reduction, log_target: bool) -> Value {
        let arguments = [Given::Value(self), Given::Value(target), reduction.argument(), boolean(log_target)];
        self.writer().operation(OperationKind::KlDiv, arguments)
    }

    /// The squared difference.
    #[track_caller]
    pub fn mse_loss(&self, target: &Value, reduction: Reduction) -> Value {
        let arguments = [Given::Value(self), Given::Value(target), reduction.argument()];
        self.writer().operation(OperationKind::MseLoss, arguments)
    }

    /// The cross-entropy of logits against probabilities.
    #[track_caller]
    pub fn binary_cross_entropy_with_logits(&self, target: &Value, reduction: Reduction) -> Value {
        let arguments = [
            Given::Value(self),
            Given::Value(target),
            Given::Optional(None),
            reduction.argument(),
            Given::Optional(None),
        ];
        self.writer().operation(OperationKind::BinaryCrossEntropyWithLogits, arguments)
    }

    /// The cosine of the angle between two along a dimension.
    #[track_caller]
    pub fn cosine_similarity(&self, other: &Value, along: i64) -> Value {
        let arguments = [Given::Value(self), Given::Value(other), integer(along), number(1e-8)];
        self.writer().operation(OperationKind::CosineSimilarity, arguments)
    }

    /// The same numbers; no gradient flows back through it.
    #[track_caller]
    pub fn detach(&self) -> Value {
        self.writer().operation(OperationKind::Detach, [Given::Value(self)])
    }
}

/// One step of an optimiser, as `torch.optim` takes it.
impl Value {
    /// This parameter after a step of gradient descent, and the momentum buffer for the next.
    #[track_caller]
    pub fn sgd_step(&self, gradient: &Value, rate: impl Into<Operand>, options: Sgd<'_>) -> (Value, Value) {
        let arguments = [
            Given::Value(self),
            Given::Value(gradient),
            Given::Operand(rate.into()),
            Given::Optional(options.momentum_buffer),
            number(options.momentum),
            number(options.dampening),
            number(options.weight_decay),
            boolean(options.nesterov),
        ];
        let results = self.writer().operation(OperationKind::SgdStep, arguments);
        (results.output(0), results.output(1))
    }

    /// This parameter after a step of Adam, and its state for the next: the means of the gradient and of its square, both
    /// zeros at first. `step` counts from 1.
    #[track_caller]
    pub fn adam_step(
        &self,
        gradient: &Value,
        state: (&Value, &Value),
        step: impl Into<Operand>,
        rate: impl Into<Operand>,
        options: Adam,
    ) -> (Value, Value, Value) {
        let arguments = [
            Given::Value(self),
            Given::Value(gradient),
            Given::Value(state.0),
            Given::Value(state.1),
            Given::Operand(step.into()),
            Given::Operand(rate.into()),
            number(options.beta1),
            number(options.beta2),
            number(options.epsilon),
            number(options.weight_decay),
            boolean(options.decoupled),
        ];
        let results = self.writer().operation(OperationKind::AdamStep, arguments);
        (results.output(0), results.output(1), results.output(2))
    }
}

macro_rules! clipping {
    ($($owner:ident),*) => {
        $(
            impl $owner {
                /// Gradients scaled down where their norm together is above `most`; and that norm.
                #[track_caller]
                pub fn clip_grad_norm<const N: usize>(&self, gradients: [&Value; N], most: f64) -> ([Value; N], Value) {
                    let arguments = [Given::Values(gradients.to_vec()), number(most), number(2.0)];
                    let results = self.writer().operation(OperationKind::ClipGradNorm, arguments);
                    let clipped = std::array::from_fn(|place| results.output(u32::try_from(place).unwrap_or(u32::MAX)));
                    (clipped, results.output(u32::try_from(N).unwrap_or(u32::MAX)))
                }
            }
        )*
    };
}

clipping!(Trace, Steps);
