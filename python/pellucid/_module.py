"""Modules of a model: by attribute, by index, by path; their hook points and parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Iterator

from ._points import WeightOrigin, first_of, hook_value, meant, read_before, set_hook, set_parameter
from ._recorder import Recorder, recording
from ._steps import StepsOf, module_steps, moved_to
from ._tensor import Tensor

if TYPE_CHECKING:
    from ._model import Model


class Module:
    """A module of a model. Its hook points are attributes, read and set inside of traces; its children too, by name or index."""

    __slots__ = ("_model", "_path", "_target", "_step")

    def __init__(self, model: Model, path: str, target: str | None = None, step: int | None = None):
        set_ = object.__setattr__
        set_(self, "_model", model)
        set_(self, "_path", path)
        #: Its path under transformers' name, a parameter of a sweep standing for the number 0.
        set_(self, "_target", target if target is not None else model._tree.target(path))
        set_(self, "_step", step)

    # Children

    def _child(self, name: str, shown: str | None = None) -> Module | None:
        if shown is not None or self._step is not None:
            return self._find_child(name, shown)
        known = self._model._modules
        key = (self._path, name)
        if key not in known:
            known[key] = self._find_child(name)
        return known[key]

    def _find_child(self, name: str, shown: str | None = None) -> Module | None:
        tree = self._model._tree
        # A parameter of a sweep stands for the number 0 here too, so that standard names are found beneath it.
        for base in (re.sub(r"\{\w+\}", "0", self._path), self._target):
            path = f"{base}.{name}" if base else name
            if path in tree.modules or path in tree.aliases or path in tree.children:
                own = f"{self._path}.{shown or name}" if self._path else shown or name
                if base == self._target and base != self._path and "{" not in self._path and shown is None:
                    own = path
                return Module(self._model, own, tree.target(path), self._step)
        return None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        child = self._child(name)
        if child is not None:
            return child
        tree = self._model._tree
        if name in tree.hooks.get(self._target, {}):
            with self._at_step():
                return hook_value(self._model, self._path, name)
        own = f"{self._path}.{name}" if self._path else name
        if own in tree.hook_aliases:
            with self._at_step():
                return hook_value(self._model, "", own)
        if name in tree.weights.get(self._target, {}):
            return self._weight(name)
        raise AttributeError(self._unknown(name))

    def _unknown(self, name: str) -> str:
        from difflib import get_close_matches

        here = f"`{self._path}`" if self._path else "the model"
        kind = self._model._tree.modules.get(self._target, "")
        message = f"{here}{f' ({kind})' if kind else ''} has no `{name}`"
        if name == "source":
            return message + "\n  hint: inner values are hook points: `attention.pattern`, `.scores`, `.mixed`, `mlp.post`; `dir()` lists them"
        near = get_close_matches(name, [each for each in dir(self) if not each.startswith("_")], 3, 0.5)
        if near:
            return message + "\n  hint: did you mean " + " or ".join(f"`{each}`" for each in near) + "?"
        return message + "\n  hint: it has " + ", ".join(self._names()[:12])

    def _names(self) -> list[str]:
        tree = self._model._tree
        names: dict[str, None] = {}
        for base in (self._path, self._target):
            names.update(tree.children.get(base, {}))
        names.update(dict.fromkeys(tree.hooks.get(self._target, {})))
        names.update(tree.weights.get(self._target, {}))
        prefix = f"{self._path}." if self._path else ""
        names.update(
            dict.fromkeys(a[len(prefix) :] for a in tree.hook_aliases if a.startswith(prefix) and "." not in a[len(prefix) :])
        )
        return list(names)

    def __dir__(self) -> list[str]:
        return [*object.__dir__(self), *(name for name in self._names() if name.isidentifier())]

    def __setattr__(self, name: str, value: Any) -> None:
        tree = self._model._tree
        if name in tree.hooks.get(self._target, {}) or name in ("input", "output"):
            with self._at_step():
                set_hook(self._model, self._path, name, value)
            return
        own = f"{self._path}.{name}" if self._path else name
        if own in tree.hook_aliases:
            with self._at_step():
                set_hook(self._model, "", own, value)
            return
        if name in tree.weights.get(self._target, {}):
            self._set_weight(name, value)
            return
        if name == "inputs":
            self.input = value[0][0]
            return
        raise AttributeError(self._unknown(name))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self._model.module(f"{self._path}.{index}" if self._path else index)
        if isinstance(index, Tensor):
            # A parameter of a sweep or loop stands for its number.
            if index._recorder is None or index._ref not in index._recorder.parameters:
                if index._core is not None:
                    return self[index.__index__()]
                raise TypeError(
                    "a module is chosen by a number, or by a parameter of a sweep as it is\n  hint: what is computed of a "
                    "parameter cannot choose: make it an axis that goes along, `sweep(at={'layer': range(3), 'next': range(1, 4)})`"
                )
            shown = f"{{{index._ref}}}"
            child = self._child("0", shown)
            if child is None:
                raise IndexError(f"`{self._path}` has no modules by number")
            return Module(self._model, f"{self._path}.{shown}", child._target, self._step)
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        number = index.__index__()
        count = len(self)
        if not -count <= number < count:
            raise IndexError(f"`{self._path}` has {count} modules, and none by the number {number}")
        child = self._child(str(number % count))
        assert child is not None
        return child

    def __len__(self) -> int:
        tree = self._model._tree
        for base in (self._path, self._target):
            count = sum(name.isdigit() for name in tree.children.get(base, {}))
            if count:
                return count
        raise TypeError(f"`{self._path}` is no list of modules")

    def __iter__(self) -> Iterator[Any]:
        return (self[k] for k in range(len(self)))

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Module) and self._model is other._model and self._target == other._target

    def __hash__(self) -> int:
        return hash((id(self._model), self._target))

    def __copy__(self) -> Module:
        return self

    def __deepcopy__(self, memo: Any) -> Module:
        return self.__copy__()

    def __reduce__(self) -> Any:
        raise TypeError("a model and its modules stay in their process\n  hint: open the model in each, `pl.Model(…)`; results can be pickled")

    @property
    def path(self) -> str:
        """Its path."""
        return self._path

    # Hook points that every module has

    if TYPE_CHECKING:
        #: Its first argument, one tensor.
        input: Any
        #: Its result, one tensor: the first where transformers gives several.
        output: Any

    @property
    def inputs(self) -> tuple[tuple[Tensor], dict[str, Any]]:
        """Its arguments as nnsight gives them: the first one, and no others."""
        return (self.input,), {}

    def _at_step(self) -> _AtStep:
        return _AtStep(moved_to(recording.get(), self._target) if self._step is None else self._step)

    def next(self, step: int = 1) -> Module:
        """The module at its next step of a generation: what follows of it, and of the modules in it, is of that step."""
        from ._invokes import current

        recorder = current("`.next()` is used")
        meant(recorder, self._model, f"`{self._path}`")
        number = 0
        for _ in range(step):
            number = module_steps(recorder, self)
        return Module(self._model, self._path, self._target, number)

    def all(self) -> Any:
        """The module at every step: `with module.all():`, or `for step in module.all():`."""
        from ._invokes import current

        recorder = current("`.all()` is used")
        return StepsOf(recorder, recorder.scope.trace or {}, slice(None))

    def skip(self, value: Any) -> None:
        """Gives its output without running it."""
        from ._invokes import _address, current

        recorder = current("`.skip()` is used")
        meant(recorder, self._model, f"`{self._path}`")
        with self._at_step():
            fields = _address(recorder, self._path)
        fields["module"] = fields.pop("hook")
        value = first_of(value)
        ref = recorder.literal(value) if isinstance(value, (int, float)) else recorder.tensor(value)
        recorder.plain("skip", {**fields, "value": ref})

    def __call__(self, value: Any, *_: Any) -> Any:
        """The module applied to a value, out of the model's own order; it fires no hook point."""
        from ._invokes import current

        if not self._path:
            raise TypeError(
                "a whole model is not applied to a value\n  hint: `with model.trace(prompt):` runs it, and `model.run_with_hooks(prompt)` gives its logits"
            )
        recorder = current(f"`{self._path}` is applied")
        self._of_what_runs(recorder, f"`{self._path}`")
        return recorder.one("apply", {"module": self._path, "input": recorder.tensor(value)})

    # Parameters

    def _of_what_runs(self, recorder: Recorder, what: str) -> None:
        """Refuses a parameter, or a module to be applied, of another model. What is edited is not meant by these: they are the model's own."""
        if self._model._core is not recorder.scope.model._core:
            meant(recorder, self._model, what)

    def _weight(self, name: str) -> Tensor:
        path = f"{self._path}.{name}"
        recorder = recording.get()
        if recorder is None:
            # Outside of traces: a program of its own that only reads it.
            with self._model.session():
                tensor = self._weight(name).save()
            tensor._write_to = WeightOrigin(path).write
            return tensor
        self._of_what_runs(recorder, f"`{path}`")
        key = self._weight_key(recorder, name)
        origin = WeightOrigin(path, key)
        known = read_before(recorder, key)
        if known is not None:
            return known
        tensor = recorder.one("weight", {"parameter": path})
        tensor._of_hook, tensor._write_to = origin, origin.write
        recorder.scope.hooks[key] = tensor
        return tensor

    def _weight_key(self, recorder: Recorder, name: str) -> Any:
        """By which a parameter is known that was read or set, for the invoke that is open."""
        tree = self._model._tree
        path = f"{self._path}.{name}" if "{" in self._path else f"{self._target}.{name}"
        return ("weight", recorder.invoke, path if path in tree.parameters or "{" in path else tree.tied)

    def _set_weight(self, name: str, value: Any) -> None:
        from ._invokes import current

        recorder = current(f"`{self._path}.{name}` is set")
        meant(recorder, self._model, f"`{self._path}.{name}`")
        key = self._weight_key(recorder, name)
        known = read_before(recorder, key)
        if known is value and known is not None:
            return  # `module.weight *= 2`: it has been set already
        ref = recorder.literal(value) if isinstance(value, (int, float)) else recorder.tensor(value)
        set_parameter(recorder, f"{self._path}.{name}", ref, key)
        # What is read from now on for this invoke is what was set.
        origin = WeightOrigin(f"{self._path}.{name}", key)
        tensor = Tensor._recorded(recorder, ref)
        tensor._of_hook, tensor._write_to = origin, origin.write
        if known is not None:
            known._write_to = None
        recorder.scope.hooks[key] = tensor

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its parameters, those of its modules included."""
        prefix = f"{self._target}." if self._target else ""
        return {name: tuple(shape) for name, shape in self._model._tree.parameters.items() if name.startswith(prefix)}

    def __repr__(self) -> str:
        from . import _html

        return _html.tree_text(self)

    def _repr_html_(self) -> str:
        from . import _html

        return _html.tree(self)


class _AtStep:
    """For the time of one access, the step that a module is at."""

    __slots__ = ("_step", "_before")

    def __init__(self, step: int | None):
        self._step = step

    def __enter__(self) -> None:
        recorder = recording.get()
        if self._step is not None and recorder is not None:
            self._before = recorder.step
            recorder.step = self._step

    def __exit__(self, *_: Any) -> None:
        recorder = recording.get()
        if self._step is not None and recorder is not None:
            recorder.step = self._before
