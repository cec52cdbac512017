"""What Python gives a program: numbers that are there before it runs, and what is computed of them at once.

A tensor that was made before a trace stays numbers in it, at which Python may look; where it is used in the program it becomes a constant, and
its gradient is that constant's. What is computed of it alone is computed at once, and is another constant. No gradient goes back through that: so
it is refused where it would be missing.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Iterable

from ._core import Tensor as Core
from ._errors import NotComputedError
from ._writer import core_of

if TYPE_CHECKING:
    from ._recorder import Recorder
    from ._tensor import Tensor

_FLOATS = frozenset(("f64", "f32", "bf16", "f16"))
_HINT = (
    "begin with `v = pl.tensor(w)` inside the trace: what is computed of `v` is recorded, and `v.grad` is its gradient; where no gradient is meant to "
    "go through, compute with `w.detach()`"
)


class Given:
    """What a program was given, and where it came from."""

    __slots__ = ("arrays", "made", "values", "filled", "_through", "_asked", "_torch")

    def __init__(self) -> None:
        #: Arrays of other libraries, by identity, and the tensor that was last made of each.
        self.arrays: dict[int, tuple[Any, Core]] = {}
        #: Of what was computed at once while the program is written, by identity: itself, and what it was computed of.
        self.made: dict[int, tuple[Core, list[Core]]] = {}
        #: Tensors that were made in the program of given numbers, with these and the name that they bear there.
        self.values: list[tuple[Tensor, Core, str]] = []
        #: Of what numbers are in the program that were computed at once, or may be; held, so that no other takes its place in memory.
        self._through: dict[int, Core] = {}
        #: Of what a gradient was asked for.
        self._asked: dict[int, Core] = {}
        #: Tensors of torch's own that ask for gradients, the lines at which they were used first, and what they are in the program.
        self._torch: dict[int, tuple[Any, dict[str, Any], list[Core]]] = {}
        #: Of these, where the gradients come from: the tensor, the body, the way back, the gradient and the result.
        self.filled: list[tuple[Any, Any, str, str, str]] = []

    def core(self, value: Any) -> Core:
        """The numbers of what is given: of an array the same tensor as long as it has the same numbers."""
        core = core_of(value)
        if hasattr(value, "_core") or isinstance(value, (bool, int, float, list, tuple)):
            return core
        known = self.arrays.get(id(value))
        if known is not None and known[0]() is value and known[1].is_same(core):
            return known[1]
        try:
            self.arrays[id(value)] = weakref.ref(value), core
        except TypeError:
            return core  # what cannot be known again
        if wants_gradients(value):
            from ._recorder import source

            _watch_optimisers()
            self._torch.setdefault(id(value), (value, source(), []))[2].append(core)
        return core

    def waits_for(self, value: Any) -> bool:
        """Whether it is a tensor of torch's own whose gradient this program may give."""
        return id(value) in self._torch

    def waiting(self) -> list[tuple[Any, dict[str, Any], list[Core]]]:
        """Tensors of torch's own whose gradients go to torch."""
        return list(self._torch.values())

    def joined(self, other: list[tuple[Any, dict[str, Any], list[Core]]]) -> None:
        """Takes over those of an edit."""
        for value, line, cores in other:
            self._torch.setdefault(id(value), (value, line, []))[2].extend(cores)

    def name_of(self, value: Any, names: dict[int, str]) -> str:
        """The constant that a gradient is asked of."""
        core = getattr(value, "_core", None)
        if core is None:
            known = self.arrays.get(id(value))
            core = known[1] if known is not None and known[0]() is value else None
            self._torch.pop(id(value), None)
        if core is not None and id(core) in self._through:
            raise _missing()
        if core is None or id(core) not in names:
            raise NotComputedError(
                "nothing in this trace is computed with it, so it has no gradient here\n  hint: it has one where it is used itself, before "
                f"`backward`. Of what was computed of it at once: {_HINT}"
            )
        self._asked[id(core)] = core
        return names[id(core)]

    def computed(self, op: str, inputs: Iterable[Core], outputs: Iterable[Core]) -> None:
        """Takes note of what was computed at once."""
        floats = [each for each in inputs if each.dtype in _FLOATS]
        if op != "detach" and floats:
            for each in outputs:
                if each.dtype in _FLOATS:
                    self.made[id(each)] = each, floats

    def left(self, tensors: Iterable[Tensor]) -> None:
        """Takes note of what another library has computed with: its results may come into the program."""
        for each in tensors:
            if each._core is not None and each._core.dtype in _FLOATS:
                self._mark(each._core)

    def used(self, core: Core) -> None:
        """Takes note of numbers that become a constant of the program."""
        for each in self.made.get(id(core), (core, []))[1]:
            self._mark(each)

    def _mark(self, core: Core) -> None:
        waiting = [core]
        while waiting:
            each = waiting.pop()
            if id(each) in self._asked:
                raise _missing()
            if id(each) not in self._through:
                self._through[id(each)] = each
                waiting += self.made.get(id(each), (each, []))[1]

    def end(self) -> None:
        """The program is written: what was held for the time of its writing is let go."""
        for each in (self.arrays, self.made, self._through, self._asked, self._torch):
            each.clear()

    # Other libraries' gradients

    def explain(self, error: BaseException | None) -> None:
        """Where a script fails for that arrays of other libraries have no gradients of a trace: says what to do."""
        if not isinstance(error, AttributeError):
            return
        of, name = getattr(error, "obj", error), getattr(error, "name", "")
        known = self.arrays.get(id(of))
        array = name == "grad" and known is not None and known[0]() is of
        if array or of is None and self._torch:
            what = "a numpy array has no `.grad`" if array else "`.grad` of a tensor of torch's own is filled when the trace has run, and is not there yet"
            raise NotComputedError(f"{what}\n  hint: {_ANOTHERS}") from error


#: How to get the gradient of an array of another library.
_ANOTHERS = "`with loss.backward() as back: g = back.grad(w).save()`, or begin with `v = pl.tensor(w)` inside the trace and read `v.grad`"


_watched = False


def _watch_optimisers() -> None:
    """Has torch's optimisers refuse a step inside of a trace: gradients come when it has run, and a step before that would do nothing."""
    global _watched
    if _watched:
        return
    _watched = True
    try:
        from torch.optim.optimizer import register_optimizer_step_pre_hook  # type: ignore[import-not-found]
    except ImportError:
        return

    def before_a_step(optimiser: Any, *_: Any) -> None:
        from ._recorder import recording

        recorder = recording.get()
        if recorder is not None and any(recorder.given.waits_for(each) for group in optimiser.param_groups for each in group["params"]):
            raise NotComputedError(
                "an optimiser takes its step inside of the trace or session, and the gradients are there when that has run\n  hint: put "
                "`optimiser.step()` after the `with` block; to train inside of one session, `session.train(pl.Optimiser.adam(0.01), …)`"
            )

    register_optimizer_step_pre_hook(before_a_step)


def wants_gradients(value: Any) -> bool:
    """Whether it is a tensor of torch that asks for its gradient."""
    return bool(getattr(value, "requires_grad", False)) and hasattr(value, "grad_fn")


def _missing() -> NotComputedError:
    return NotComputedError(
        "it was made before the trace, and something was computed of it at once that may be in the program: its gradient would leave out what comes "
        f"through that\n  hint: {_HINT}"
    )


def as_value(recorder: Recorder, given: Tensor, again: bool) -> Tensor:
    """Given numbers as a value of the program: what is computed of it is recorded. `again`: they may be there as another value."""
    core = given._core
    assert core is not None
    name = recorder.constant(core)
    if again:
        name = recorder.node("getitem", {"input": name, "index": ["..."]})
    made = type(given)._recorded(recorder, name)
    recorder.given.values.append((made, core, name))
    return made


__all__ = ["Given", "as_value", "wants_gradients"]
