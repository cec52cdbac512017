"""Optimisers, schedules of their rates, and clipping."""

from __future__ import annotations

import math
from typing import Any, Sequence

from . import _operations as ops
from ._dtype import float64
from ._tensor import Tensor


class Schedule:
    """How the learning rate goes over the steps, with the numbers of transformers' `get_…_schedule_with_warmup`: `Schedule.linear(…)`,
    `Schedule.cosine(…)`. Without one it is the same at every step."""

    def __init__(self, kind: str, warmup: int, total: int):
        if kind not in ("linear", "cosine"):
            raise ValueError(f"there is no schedule `{kind}`; there are `linear` and `cosine`")
        if warmup < 0 or total < warmup:
            raise ValueError(f"a schedule has 0 or more steps of warm-up and as many steps in all or more, not {warmup} of {total}")
        self.kind: str = kind
        self.warmup: int = int(warmup)
        self.total: int = int(total)

    @staticmethod
    def linear(warmup: int, total: int) -> Schedule:
        """From 0 up to the rate in `warmup` steps, then down to 0 in a line until step `total`."""
        return Schedule("linear", warmup, total)

    @staticmethod
    def cosine(warmup: int, total: int) -> Schedule:
        """From 0 up to the rate in `warmup` steps, then down to 0 along half a cosine until step `total`."""
        return Schedule("cosine", warmup, total)

    def _factor(self, number: Tensor) -> Tensor:
        """What the rate is multiplied by at a step, which counts from 1."""
        step = number.to(float64) - 1.0  # the schedule's first step is 0
        part = ((step - float(self.warmup)) / float(max(self.total - self.warmup, 1))).clamp(0.0, 1.0)
        fall = 1.0 - part if self.kind == "linear" else ((part * math.pi).cos() + 1.0) * 0.5
        return (step / float(self.warmup)).clamp(0.0, 1.0) * fall if self.warmup else fall

    def __repr__(self) -> str:
        return f"Schedule.{self.kind}({self.warmup}, {self.total})"


class Optimiser:
    """How parameters follow their gradients, with `torch.optim`'s names and numbers: `Optimiser.sgd(…)`, `.adam(…)`, `.adamw(…)`."""

    def __init__(self, kind: str, lr: float, options: dict[str, Any], schedule: Schedule | None, clip_grad_norm: float | None):
        if not lr >= 0:
            raise ValueError(f"a learning rate is 0 or more, not {lr}")
        if clip_grad_norm is not None and not clip_grad_norm > 0:
            raise ValueError(f"gradients are clipped to a norm above 0, not {clip_grad_norm}")
        if schedule is not None and not isinstance(schedule, Schedule):
            raise TypeError("a schedule is `pl.Schedule.linear(warmup, total)` or `pl.Schedule.cosine(warmup, total)`")
        self.kind: str = kind
        self.lr: float = float(lr)
        self.schedule: Schedule | None = schedule
        self.clip_grad_norm: float | None = clip_grad_norm
        self._options: dict[str, Any] = options

    @staticmethod
    def sgd(
        lr: float = 0.001,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        schedule: Schedule | None = None,
        clip_grad_norm: float | None = None,
    ) -> Optimiser:
        """Gradient descent. `clip_grad_norm` scales all gradients down together where their norm is above it."""
        if nesterov and not momentum:
            raise ValueError("`nesterov` looks ahead along the momentum, and there is none: give `momentum`")
        options = {"momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        return Optimiser("sgd", lr, options, schedule, clip_grad_norm)

    @staticmethod
    def adam(
        lr: float = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        schedule: Schedule | None = None,
        clip_grad_norm: float | None = None,
    ) -> Optimiser:
        """Adam. `weight_decay` goes by way of the gradient; see `adamw`."""
        beta1, beta2 = betas
        options = {"beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
        return Optimiser("adam", lr, options, schedule, clip_grad_norm)

    @staticmethod
    def adamw(
        lr: float = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        schedule: Schedule | None = None,
        clip_grad_norm: float | None = None,
    ) -> Optimiser:
        """Adam whose parameters decay by themselves."""
        beta1, beta2 = betas
        options = {"beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay, "decoupled": True}
        return Optimiser("adamw", lr, options, schedule, clip_grad_norm)

    @property
    def _states(self) -> int:
        """How many tensors it keeps for each parameter from step to step, all zeros at first."""
        return 1 if self.kind == "sgd" else 2

    def _clipped(self, gradients: list[Tensor]) -> list[Tensor]:
        if self.clip_grad_norm is None:
            return gradients
        return ops.clip_grad_norm(gradients, self.clip_grad_norm)[:-1]

    def _step(self, number: Tensor, parameter: Tensor, gradient: Tensor, states: list[Tensor], rate: Any) -> list[Tensor]:
        """A parameter after a step, followed by its states."""
        if self.kind == "sgd":
            return ops.sgd_step(parameter, gradient, rate, states[0], **self._options)
        mean, square = states
        return ops.adam_step(parameter, gradient, mean, square, number, rate, **self._options)

    def _rate(self, number: Tensor) -> Any:
        return self.lr if self.schedule is None else self.schedule._factor(number) * self.lr

    def __repr__(self) -> str:
        options = {"lr": self.lr, **self._options, "schedule": self.schedule, "clip_grad_norm": self.clip_grad_norm}
        options.pop("decoupled", None)
        return f"Optimiser.{self.kind}({', '.join(f'{name}={value}' for name, value in options.items() if value)})"
