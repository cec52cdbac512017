"""Sweeps, loops and conditions: bodies that are written once."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from . import _operations, _types, _writer
from ._arrays import is_array
from ._errors import NotComputedError
from ._options import whole_texts
from ._recorder import Recorder, Scope, source
from ._tensor import Tensor


class Parameter:
    """A parameter of a sweep or loop that is a prompt: what an invoke is given."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Texts:
    """Prompts along an axis: a text, or several, for each cell."""

    def __init__(self, cells: Sequence[Any]):
        self.cells: list[Any] = list(cells)


def texts(cells: Sequence[Any]) -> Texts:
    """Prompts along an axis of a sweep: for each cell a text, or a list of texts."""
    return Texts(cells)


def _axis(recorder: Recorder, name: str, values: Any) -> tuple[Any, bool]:
    """An axis as programs hold it, and whether it is one of prompts."""
    if isinstance(values, range):
        return {"range": [values.start, values.stop, values.step]}, False
    if isinstance(values, int) and not isinstance(values, bool):
        return {"range": [0, values]}, False
    if isinstance(values, Texts):
        return {"texts": whole_texts("a prompt of the sweep", values.cells)}, True
    if isinstance(values, Tensor):
        return {"rows_of": recorder.tensor(values)}, False
    if isinstance(values, (list, tuple)) and values:
        if all(isinstance(value, str) for value in values):
            return {"texts": whole_texts("a prompt of the sweep", values)}, True
        if all(isinstance(value, (list, tuple)) for value in values):
            flat = values[0][0] if values[0] else None
            if isinstance(flat, str):
                return {"texts": [whole_texts("a prompt of the sweep", value) for value in values]}, True
            if isinstance(flat, int):
                return {"token_lists": [list(value) for value in values]}, True
        return [_writer.number(value) for value in values], False
    if is_array(values):
        if len(getattr(values, "shape", ())) == 1:
            listed: Any = values
            return [_writer.number(value) for value in listed.tolist()], False
        return {"rows_of": recorder.tensor(values)}, False
    raise TypeError(f"the axis `{name}` is a range, numbers, texts, or a tensor, not {values!r}")


class Region:
    """What sweeps and loops do alike."""

    def __init__(self, recorder: Recorder, axes: Mapping[str, Any]):
        self._recorder, self._axes = recorder, axes
        self._values: dict[str, Any] = {}
        #: What its parameters are called in the program, where another name was taken.
        self._wire: dict[str, str] = {}
        self._scope: Scope | None = None
        self._node: dict[str, Any] = {}

    def _over(self) -> list[dict[str, Any]]:
        over = []
        for name, values in self._axes.items():
            axis = {}
            # A dictionary is parameters that go along one axis together.
            for parameter, given in (values.items() if isinstance(values, Mapping) else [(name, values)]):
                field, is_prompts = _axis(self._recorder, parameter, given)
                wire = self._named(parameter)
                axis[wire] = field
                self._recorder.parameters.add(wire)
                self._values[parameter] = Parameter(wire) if is_prompts else None
            over.append(axis)
        return over

    def _named(self, parameter: str) -> str:
        self._wire[parameter] = self._recorder.parameter(parameter)
        return self._wire[parameter]

    def _parameter(self, name: str) -> Any:
        value = self._values[name]
        if value is None:
            value = Tensor._recorded(self._recorder, self._wire[name])
            self._values[name] = value
        return value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            known = ", ".join(f"`{known}`" for known in self._values)
            raise AttributeError(f"there is no parameter `{name}`; there are {known}")
        return self._parameter(name)

    def __getitem__(self, name: str) -> Any:
        return self.__getattr__(name)

    def invoke(self, *prompts: Any, special_tokens: bool | None = None) -> Any:
        """An input that every cell has for itself."""
        from ._invokes import Invoke
        from ._prompts import prompts_of

        return Invoke(self._recorder, prompts_of(prompts, special_tokens))

    def _begin(self, op: str, fields: dict[str, Any]) -> None:
        recorder = self._recorder
        node = {"op": op, "name": recorder.name(op), **fields, "body": [], "source": source()}
        self._node = recorder.nodes[node["name"]] = node
        self._scope = recorder.open(op, node)
        self._scope.parameters.update(self._wire.values())
        self._before = recorder.invoke


class Sweep(Region):
    """One body for every cell of a grid."""

    def __enter__(self) -> Sweep:
        over = self._over()
        self._begin("sweep", {"over": over})
        self._node["yields"] = []
        self._collected: list[Tensor] = []
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        recorder, scope = self._recorder, self._scope
        if scope is not None and recorder.leave(scope, kind):
            for tensor in self._collected:
                tensor._scope = recorder.scope
        recorder.invoke = self._before

    def collect(self, value: Any) -> Tensor:
        """The value of all cells, stacked in the grid's shape, for use after the sweep."""
        recorder = self._recorder
        place = len(self._node["yields"])
        self._node["yields"].append(recorder.tensor(value))
        name = self._node["name"]
        stacked = Tensor._recorded(recorder, name if place == 0 else f"{name}.{place}")
        self._collected.append(stacked)
        return stacked

    def reduce(
        self,
        reduction: str,
        value: Any,
        dim: Any = None,
        correction: float | None = None,
        k: int | None = None,
        largest: bool = True,
    ) -> Any:
        """One value made of all cells, for use after the sweep: `sum`, `mean`, `var`, `amin`, `amax`, `covariance`, or `topk` with
        `k`, which gives values and places. `dim` names dimensions that count as samples too."""
        recorder = self._recorder
        fields: dict[str, Any] = {"reduction": reduction, "value": recorder.tensor(value)}
        if dim is not None:
            fields["dim"] = _writer.integers(dim)
        if correction is not None:
            fields["correction"] = _writer.number(correction)
        if k is not None:
            fields["k"] = k
        if not largest:
            fields["largest"] = False
        name = recorder.node("reduce", fields)
        made = [Tensor._recorded(recorder, name)]
        if reduction == "topk":
            made.append(Tensor._recorded(recorder, f"{name}.1"))
        self._collected += made
        return made[0] if len(made) == 1 else tuple(made)

    def mean(self, value: Any, dim: Any = None) -> Tensor:
        """The mean over all cells."""
        return self.reduce("mean", value, dim)

    def sum(self, value: Any, dim: Any = None) -> Tensor:
        """The sum over all cells."""
        return self.reduce("sum", value, dim)


class Loop(Region):
    """One body again and again, with carried values."""

    def __init__(
        self, recorder: Recorder, count: int | None, carry: dict[str, Any], start: int, axes: Mapping[str, Any]
    ):
        super().__init__(recorder, axes)
        self._count, self._carry, self._first = count, carry, start
        self._final: dict[str, Tensor] = {}

    def __enter__(self) -> Loop:
        recorder = self._recorder
        start = {
            self._named(name): recorder.literal(value) if isinstance(value, (int, float)) else recorder.tensor(value)
            for name, value in self._carry.items()
        }
        fields: dict[str, Any] = {}
        if self._count is not None:
            wire = self._named("i")
            fields.update({"count": self._count} if wire == "i" else {"over": [{wire: {"range": [0, self._count]}}]})
            self._values["i"] = None
            recorder.parameters.add(wire)
        else:
            fields["over"] = self._over()
        if self._first:
            fields["from"] = self._first
        if start:
            fields["carry"] = start
        self._begin("loop", fields)
        if start:
            self._node["next"] = {name: name for name in start}
        for name in self._carry:
            self._values[name] = None
        return self

    def next(self, **values: Any) -> None:
        """What carried values are in the next iteration."""
        for name, value in values.items():
            if name not in self._carry:
                raise AttributeError(f"`{name}` is not carried; say so at the beginning: `carry={{\"{name}\": start}}`")
            self._node["next"][self._wire[name]] = self._recorder.tensor(value)

    def __exit__(self, kind: Any, *_: Any) -> None:
        recorder, scope = self._recorder, self._scope
        if scope is not None and recorder.leave(scope, kind):
            name = self._node["name"]
            for place, carried in enumerate(self._carry):
                last = Tensor._recorded(recorder, name if place == 0 else f"{name}.{place}")
                self._values[carried] = last
        recorder.invoke = self._before


class Cond:
    """Two branches, of which one runs."""

    def __init__(self, recorder: Recorder, condition: Any):
        self._recorder = recorder
        self._condition = condition
        self._scope: Scope | None = None
        self._node: dict[str, Any] = {}
        self._chosen = 0

    def __enter__(self) -> Cond:
        recorder = self._recorder
        ref = recorder.tensor(self._condition)
        self._node = {
            "op": "cond", "name": recorder.name("cond"), "condition": ref, "then": {"body": []}, "source": source(),
        }
        recorder.scope.body.append(self._node)
        recorder.nodes[self._node["name"]] = self._node
        self._scope = recorder.open("branch", self._node, self._node["then"]["body"])
        self._scope.trace = self._scope.parent.trace if self._scope.parent else None
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._scope is not None:
            self._recorder.leave(self._scope, kind)

    def otherwise(self) -> Otherwise:
        """The branch where the condition does not hold."""
        return Otherwise(self)

    else_ = otherwise

    def choose(self, then: Any, otherwise: Any) -> Tensor:
        """Of two values, the one of the branch that ran; they have the same shape and number type."""
        recorder = self._recorder
        body = recorder.scope.body
        if not any(node is self._node for node in body):
            raise NotComputedError("`choose` stands after both branches, beside them")
        branches = [("then", then), ("else", otherwise)]
        self._node.setdefault("else", {"body": []})
        for branch, value in branches:
            ref = value._reference(recorder) if isinstance(value, Tensor) and value._core is None else (
                recorder.literal(value) if isinstance(value, (int, float)) else recorder.tensor(value)
            )
            self._node[branch].setdefault("yields", []).append(ref)
        self._move(self._node["then"]["yields"][-1], self._node["else"]["yields"][-1])
        number, self._chosen = self._chosen, self._chosen + 1
        name = self._node["name"]
        return Tensor._recorded(recorder, name if number == 0 else f"{name}.{number}")


    def _move(self, *chosen: str) -> None:
        """What was made for the choice since must come before the condition."""
        recorder = self._recorder
        body = recorder.scope.body
        place = next(number for number, node in enumerate(body) if node is self._node)
        after = {node["name"]: node for node in body[place + 1 :] if "name" in node}
        late: list[dict[str, Any]] = []
        waiting = [name.partition(".")[0] for name in chosen]
        while waiting:
            node = after.pop(waiting.pop(), None)
            if node is None:
                continue
            inputs = list(_types.inputs(recorder, node))
            if self._node["name"] in inputs or node["op"] not in ("literal", "constant", "weight") and not hasattr(_operations, node["op"]):
                raise NotComputedError(
                    "`choose` is given a value that is only read after the condition\n  hint: read it before the condition, or inside of a branch"
                )
            late.append(node)
            waiting += inputs
        moved = [node for node in body[place + 1 :] if any(node is each for each in late)]
        body[place:] = [*moved, *(node for node in body[place:] if not any(node is each for each in moved))]


class Otherwise:
    """The second branch of a condition."""

    def __init__(self, cond: Cond):
        self._cond = cond
        self._scope: Scope | None = None

    def __enter__(self) -> Cond:
        node, recorder = self._cond._node, self._cond._recorder
        if not any(each is node for each in recorder.scope.body):
            raise NotComputedError("`otherwise` stands right after its condition, beside it\n  hint: `with tracer.cond(…) as branch:`, then `with "
                                   "branch.otherwise():`; a branch that an exception left is no part of the program")
        node["else"] = {"body": []}
        self._scope = recorder.open("branch", node, node["else"]["body"])
        if self._cond._scope is not None:
            # What the first branch changed is after the second what either of them makes it.
            self._scope.touched += self._cond._scope.touched
            near = list(self._scope.branches())
            for key, tensor in self._cond._scope.replaced.items():
                if any(tensor._scope is scope for scope in near):
                    self._scope.hooks[key] = tensor
                else:
                    self._scope.perhaps.setdefault(key, []).append(tensor)
        self._scope.trace = self._scope.parent.trace if self._scope.parent else None
        return self._cond

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._scope is not None:
            self._cond._recorder.leave(self._scope, kind)


def cond(condition: Any, then: Any, otherwise: Any, *arguments: Any) -> Any:
    """As `torch.cond`: calls both functions to write them down; of what they return, the values of the one that runs."""
    from ._invokes import current

    recorder = current("`pl.cond` is used")
    branch = Cond(recorder, condition)
    with branch:
        first = then(*arguments)
    with branch.otherwise():
        second = otherwise(*arguments)
    if isinstance(first, (tuple, list)):
        return type(first)(branch.choose(a, b) for a, b in zip(first, second))
    return branch.choose(first, second)
