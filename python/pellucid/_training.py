"""Training in the engine: parameters that a loop carries, a way back and a step of an optimiser in every iteration."""

from __future__ import annotations

import os
from typing import Any, Mapping

from . import _operations as ops
from ._errors import NotComputedError, PellucidError
from ._gradients import Backward
from ._optimiser import Optimiser
from ._recorder import Recorder
from ._regions import Loop, _axis
from ._run import Results
from ._safetensors import read
from ._tensor import Tensor
from ._writer import as_tensor


class Checkpoint:
    """What a training needs to go on where it stopped: parameters, what the optimiser keeps of them, and the number of steps. `training.save("run")`
    makes it a part of the results; `Checkpoint.of(session.results, "run")` takes it from there, `Checkpoint.load(path, "run")` from a file that
    `session.results.save(path)` wrote, here or with the Rust library."""

    def __init__(self, steps: int, tensors: list[Tensor]):
        #: How many steps were taken.
        self.steps: int = steps
        #: Each parameter, followed by what the optimiser keeps of it.
        self.tensors: list[Tensor] = tensors

    @staticmethod
    def of(results: Mapping[str, Tensor], name: str) -> Checkpoint:
        """The checkpoint that was saved under a name."""
        if f"{name}_steps" not in results or f"{name}_0" not in results:
            there = [each.removesuffix("_steps") for each in results if each.endswith("_steps")]
            known = f"there is {', '.join(f'`{each}`' for each in there)}" if there else "there is none: `training.save(name)` makes one"
            raise KeyError(f"no checkpoint is saved as `{name}`; {known}")
        tensors: list[Tensor] = []
        while f"{name}_{len(tensors)}" in results:
            tensors.append(results[f"{name}_{len(tensors)}"])
        return Checkpoint(int(results[f"{name}_steps"]), tensors)

    @staticmethod
    def load(path: str | os.PathLike[str], name: str) -> Checkpoint:
        """The checkpoint of a name in a file of results."""
        _, tensors, _ = read(path)
        return Checkpoint.of({key: Tensor._computed(core) for key, core in tensors.items()}, name)

    def __repr__(self) -> str:
        return f"Checkpoint({self.steps} steps, {len(self.tensors)} tensors)"


class Training(Loop):
    """Parameters in training, and what their optimiser keeps of them: see `session.train`."""

    def __init__(
        self,
        recorder: Recorder,
        optimiser: Optimiser,
        parameters: Any,
        steps: int | None,
        resume: Checkpoint | None,
        axes: Mapping[str, Any],
    ):
        if not isinstance(optimiser, Optimiser):
            raise TypeError("`train` begins with an optimiser, such as `pl.Optimiser.adam(0.001)`, and the parameters follow")
        if (steps is None) == (not axes):
            raise TypeError(
                "how many steps? `session.train(optimiser, parameters, steps=100)`, or data to go over: `session.train(optimiser, parameters, "
                "epoch=range(3), batch=batches)`"
            )
        self._optimiser = optimiser
        self._form, given = _listed(parameters)
        each = 1 + optimiser._states
        done = 0 if resume is None else resume.steps
        if resume is None:
            carried: list[Any] = [tensor for value in given for tensor in (value, *(_zeros(value) for _ in range(each - 1)))]
        else:
            carried = list(resume.tensors)
            _fits(carried, given, each, optimiser)
        #: The number of steps; then each parameter, followed by its states.
        self._carried = ["steps_done", *(f"trained_{place}" for place in range(len(carried)))]
        carry = dict(zip(self._carried, [done, *carried]))
        first = done if steps is not None else min(done, _cells(recorder, axes))
        super().__init__(recorder, None if steps is None else done + int(steps), carry, first, axes)
        self._gradients: list[Tensor] | None = None
        self._part: Accumulation | None = None
        self._open = False

    def __enter__(self) -> Training:
        super().__enter__()
        self._open = True
        self._now = self._parameters()
        return self

    def _parameters(self) -> list[Tensor]:
        return [self._parameter(name) for name in self._carried[1 :: 1 + self._optimiser._states]]

    @property
    def parameters(self) -> Any:
        """The parameters, in the form in which they were given (a dictionary, a list, a tensor): inside the block what they are at a step,
        after it what they are in the end."""
        now = self._parameters()
        if self._form is None:
            return now[0]
        return now if isinstance(self._form, int) else dict(zip(self._form, now))

    def backward(self, loss: Tensor, gradient: Any = None) -> Backward:
        """Goes back from a step's loss to the parameters; at the end of the block the optimiser takes a step along what was found. Called more
        than once, gradients add up, as in torch. It gives what `loss.backward()` gives: `with training.backward(loss):`, and `.grad` of other values
        can be read there. A loss that is computed without the model needs no trace."""
        if not self._open:
            raise NotComputedError("the training is over\n  hint: `training.backward(loss)` stands inside `with session.train(…) as training:`")
        recorder = self._recorder
        if recorder.scope.trace is None:
            # A way back is of a trace: of one with a token that nobody reads, so that it does not run.
            with recorder.model.trace([0]):
                back, found = self._back(loss, gradient)
        else:
            back, found = self._back(loss, gradient)
        part = self._part
        if part is not None:
            part._sums, part._found = [sum_ + each for sum_, each in zip(part._sums, found)], True
        elif self._gradients is None:
            self._gradients = found
        else:
            self._gradients = [sum_ + each for sum_, each in zip(self._gradients, found)]
        return back

    def _back(self, loss: Tensor, gradient: Any) -> tuple[Backward, list[Tensor]]:
        back = Backward(loss, gradient)
        return back, [back.grad(parameter) for parameter in self._now]

    def accumulate(self, **axes: Any) -> Accumulation:
        """A step along the sum of the gradients of several passes: `with training.accumulate(part=parts) as part:`, with axes as those of a
        sweep, a trace in it and `training.backward(loss)`. What does not fit into one trace is divided so; as with torch, a loss that is a mean is
        to be divided by the number of parts."""
        if self._part is not None or not self._open:
            raise NotComputedError("`accumulate` stands inside `with session.train(…) as training:`, once around the traces of a step")
        return Accumulation(self, axes)

    def save(self, name: str) -> None:
        """Saves all that training needs to go on: see `Checkpoint`. It stands after the block."""
        if self._open:
            raise NotComputedError("the training goes on\n  hint: `training.save(name)` stands after its block, in the session")
        for place, carried in enumerate(self._carried):
            self._parameter(carried).save(f"{name}_steps" if place == 0 else f"{name}_{place - 1}")

    def __exit__(self, kind: Any, *rest: Any) -> None:
        self._open = False
        if kind is None:
            if self._gradients is None:
                assert self._scope is not None
                self._recorder.drop(self._scope)
                raise NotComputedError(
                    "nothing is trained: no gradient was asked for\n  hint: `training.backward(loss)` in the block, after the loss is computed"
                )
            optimiser, each = self._optimiser, 1 + self._optimiser._states
            number = self._parameter(self._carried[0]) + 1
            new: list[Tensor] = [number]
            gradients, rate = optimiser._clipped(self._gradients), optimiser._rate(number)
            for place, (parameter, gradient) in enumerate(zip(self._now, gradients)):
                begin = 2 + place * each
                states = [self._parameter(state) for state in self._carried[begin : begin + each - 1]]
                new += optimiser._step(number, parameter, gradient, states, rate)
            self.next(**dict(zip(self._carried, new)))
        super().__exit__(kind, *rest)


class Accumulation(Loop):
    """The parts of a step: see `Training.accumulate`."""

    def __init__(self, training: Training, axes: Mapping[str, Any]):
        recorder = training._recorder
        self._training = training
        self._names = [f"sum_{place}" for place in range(len(training._now))]
        super().__init__(recorder, None, {}, 0, axes)

    def __enter__(self) -> Accumulation:
        training = self._training
        self._carry = dict(zip(self._names, (_zeros(parameter) for parameter in training._now)))
        super().__enter__()
        training._part = self
        self._sums, self._found = [self._parameter(name) for name in self._names], False
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        training = self._training
        training._part = None
        if kind is None:
            self.next(**dict(zip(self._names, self._sums)))
        super().__exit__(kind, *rest)
        if kind is None and self._found:
            found = [self._parameter(name) for name in self._names]
            before = training._gradients
            training._gradients = found if before is None else [one + other for one, other in zip(before, found)]


def _listed(parameters: Any) -> tuple[Any, list[Tensor]]:
    """The form of what is trained (a dictionary's names, a list's length, or none: one tensor), and its tensors."""
    if isinstance(parameters, Mapping):
        form, values = list(parameters), list(parameters.values())
    elif isinstance(parameters, (list, tuple)):
        form, values = len(parameters), list(parameters)
    else:
        form, values = None, [parameters]
    if not values:
        raise ValueError("there is nothing to train: no parameters are given")
    return form, [value if isinstance(value, Tensor) else as_tensor(value) for value in values]


def _zeros(like: Tensor) -> Tensor:
    return ops.zeros(like.shape, like.dtype)


def _cells(recorder: Recorder, axes: Mapping[str, Any]) -> int:
    """How many steps it takes to go over data once."""
    count = 1
    for name, values in axes.items():
        # Parameters that go along one axis together are as many.
        values = next(iter(values.values())) if isinstance(values, Mapping) else values
        field, _ = _axis(recorder, name, values)
        if isinstance(field, dict) and "range" in field:
            count *= len(range(*field["range"]))
        elif isinstance(field, dict) and "rows_of" in field:
            count *= int(values.shape[0])
        else:
            count *= len(next(iter(field.values())) if isinstance(field, dict) else field)
    return count


def _fits(carried: list[Tensor], given: list[Tensor], each: int, optimiser: Optimiser) -> None:
    expected = len(given) * each
    if len(carried) != expected:
        raise PellucidError(
            f"the checkpoint holds {len(carried)} tensors, where these parameters and `{optimiser.kind}` have {expected}\n  hint: resume with the kind "
            "of optimiser, and as many parameters, as it was made with"
        )
    for place, value in enumerate(given):
        found, wanted = list(carried[place * each].shape), list(value.shape)
        if found != wanted and all(isinstance(size, int) for size in wanted):
            raise PellucidError(
                f"the checkpoint's parameter {place} has shape {found}, where {wanted} is to be trained\n  hint: resume with the parameters that it was "
                "made with, in their order"
            )


__all__ = ["Accumulation", "Checkpoint", "Optimiser", "Training"]
