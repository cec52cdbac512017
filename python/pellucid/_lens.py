"""TransformerLens' forms: runs with a cache, and with hooks."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Callable, Iterable

from . import _operations as ops
from ._errors import NotComputedError
from ._lens_names import chosen, lens_names, standard
from ._tensor import Tensor

if TYPE_CHECKING:
    from ._model import Model


class HookName(str):
    """A hook point's name, as functions of hooks are given it: itself a text, the standard path, with what TransformerLens' has."""

    #: TransformerLens' name, where it has one.
    name: str
    #: What hooks of one run may leave for one another.
    ctx: dict[str, Any]

    def __new__(cls, path: str, name: str, ctx: dict[str, Any]) -> HookName:
        self = super().__new__(cls, path)
        self.name, self.ctx = name, ctx
        return self

    def layer(self) -> int:
        """The number of its layer."""
        found = re.search(r"\.(\d+)\.", self)
        if found is None:
            raise ValueError(f"`{self}` is in no layer")
        return int(found[1])


class LensForms:
    """What a model has of TransformerLens."""

    __slots__ = ()

    def run_with_cache(
        self: Any,
        *prompts: Any,
        names: Any = None,
        names_filter: Any = None,
        return_type: str | None = "logits",
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        return_cache_object: bool = True,
        **options: Any,
    ) -> tuple[Any, Any]:
        """The logits, and a cache of hook points by name: all of them, or those that match `names` (or `names_filter`): a pattern or several
        (`layers.*.output`; TransformerLens' names are understood), or a function of a name. `return_type`: `logits`, `loss` (of the next tokens, a mean),
        `both` or None."""
        if names is not None and names_filter is not None:
            raise TypeError("`names` and `names_filter` are the same: give one")
        wanted = names_filter if names is None else names
        if not return_cache_object:
            raise TypeError("the cache is always an object here\n  hint: `dict(cache)` is a dictionary")
        with self.trace(*prompts, **options) as tracer:
            if wanted is None:
                caches = [tracer.cache(pattern="**")]
            elif callable(wanted):
                caches = [tracer.cache(pattern=path) for path in chosen(wanted, self._tree)]
            else:
                listed = [wanted] if isinstance(wanted, str) else list(wanted)
                caches = [tracer.cache(pattern=standard(each, self._tree)) for each in listed]
            result = _returned(self, tracer, return_type)
        first = caches[0]
        for other in caches[1:]:
            first._values.update(other._values)
        return result, first

    def run_with_hooks(
        self: Any,
        *prompts: Any,
        fwd_hooks: Iterable[tuple[Any, Callable[..., Any]]] = (),
        bwd_hooks: Iterable[Any] = (),
        return_type: str | None = "logits",
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **options: Any,
    ) -> Any:
        """The logits of a run with edits: pairs of a hook point's name and a function. The function is called once for each hook point, now, with what
        the value will have been, to write down what becomes of it: it returns a new value, or changes the one it is given. A name
        may be a pattern (`layers.*.mlp.output`), or a function that says of a name whether it is meant. If the function has a second argument, or one
        called `hook`, it is given the hook point's name, which has `.name` and `.layer()`. `return_type`: as in `run_with_cache`."""
        if list(bwd_hooks):
            raise NotComputedError("`bwd_hooks` are not there\n  hint: in a trace, `with loss.backward(): x.grad[...] = …` (docs/python.md)")
        if not reset_hooks_end:
            raise TypeError("hooks belong to their run\n  hint: what is to stay is written in `with model.edit() as edited:`")
        of_lens, contexts = lens_names(self._tree), {}
        with self.trace(*prompts, **options) as tracer:
            for name, function in fwd_hooks:
                for path in chosen(name if callable(name) or isinstance(name, str) else [name], self._tree):
                    key = self._tree.hook(path)
                    hook = HookName(path, of_lens.get(key, path), contexts.setdefault(key, {}))
                    result = _called(function, self[path], hook)
                    if result is not None:
                        _assign(self, path, result)
            return_value = _returned(self, tracer, return_type)
        return return_value


def _returned(model: Model, tracer: Any, return_type: str | None) -> Any:
    """What a run gives: saved, so that it is there after it."""
    if return_type is None:
        if not tracer._recorder.caches:
            model.logits[:, -1:].save("last_logits")  # a run gives something
        return None
    if return_type == "logits":
        return model.logits.save("logits")
    if return_type not in ("loss", "both"):
        raise ValueError(f"`return_type` is `logits`, `loss`, `both` or None, not {return_type!r}")
    chances = ops.log_softmax(model.logits, -1)[:, :-1]
    taken = ops.gather(chances, -1, ops.unsqueeze(tracer.tokens[:, 1:], -1))
    real = ops.unsqueeze(ops.logical_and(tracer.mask[:, 1:], tracer.mask[:, :-1]), -1)
    loss = ops.neg(ops.div(ops.sum(ops.where(real, taken, 0.0)), ops.sum(real))).save("loss")
    return loss if return_type == "loss" else (model.logits.save("logits"), loss)


def _called(function: Callable[..., Any], value: Tensor, hook: HookName) -> Any:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return function(value)
    if "hook" in parameters:
        return function(value, hook=hook)
    needed = [
        each for each in parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) and each.default is each.empty
    ]
    return function(value, hook) if len(needed) > 1 else function(value)


def _assign(model: Any, path: str, value: Any) -> None:
    from ._module import set_hook

    if path in model._tree.hook_aliases:
        set_hook(model, "", path, value)
    else:
        module, _, name = path.rpartition(".")
        set_hook(model, module, name, value)
