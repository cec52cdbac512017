"""Values of many modules at once."""

from __future__ import annotations

from typing import Any, Iterator, Mapping

from . import _operations
from ._errors import NotComputedError
from ._lens_names import short, standard
from ._recorder import Recorder, source
from ._tensor import Tensor


def _steps(recorder: Recorder) -> int:
    """How many steps the trace has that is being written."""
    generate = (recorder.scope.trace or {}).get("generate", {})
    return generate.get("max_new_tokens", 1)


def _path_of(name: str, tree: Any) -> str:
    """The path, or pattern of paths, that somebody means who names it as here, as TransformerLens or as nnsight, whose paths begin with the model."""
    path = standard(name, tree)
    short = path.removeprefix("model.")
    return path if tree.target(path) in tree.modules or tree.target(short) not in tree.modules else short


def _of_a_hook_point(model: Any, path: str) -> bool:
    """Whether a path, or a pattern of paths, is one of hook points rather than of modules."""
    name = path.rpartition(".")[2]
    return path in model._tree.hook_aliases or any(name in points for points in model._tree.hooks.values())


#: What caches of TransformerLens have and this one has not.
_INSTEAD = {
    "logit_lens": '`model.unembed(model.final_norm(tracer.get("layers.*.output")))` in a trace; `pl.show.lens` draws it',
    "logit_attrs": "`(stack - stack.mean(-1, keepdim=True)) @ direction / cache[\"final_norm.scale\"]`, `direction` a difference of rows of `model.unembed.weight` times "
    "`model.final_norm.weight` (docs/coming-from-transformerlens.md)",
    "apply_ln_to_stack": "`(stack - stack.mean(-1, keepdim=True)) / cache[\"final_norm.scale\"]` where the norm centres; its weight is not folded away "
    "(docs/coming-from-transformerlens.md)",
    "get_full_resid_decomposition": "`cache.decompose_resid()`; each head's part is written in a trace (docs/coming-from-transformerlens.md)",
    "stack_head_results": "in a trace, `mixed` through each head's rows of the output projection (docs/coming-from-transformerlens.md)",
    "stack_neuron_results": "`cache[\"post\", layer].unsqueeze(-1) * weight`, `weight` the MLP's output projection",
    "stack_activation": "`pl.stack([cache[name, layer] for layer in range(layers)])`, or `tracer.get(\"layers.*.…\")` in a trace",
    "get_neuron_results": "`cache[\"post\", layer].unsqueeze(-1) * weight`, `weight` the MLP's output projection",
    "compute_head_results": "in a trace, `mixed` through each head's rows of the output projection (docs/coming-from-transformerlens.md)",
    "to": "devices are the engine's affair: its values are results, `cache[name].torch().to(…)`",
    "cuda": "devices are the engine's affair: its values are results, `cache[name].torch().to(…)`",
    "cpu": "its values are results: `cache[name].numpy()`, `cache[name].torch()`",
    "cache_dict": "it is a mapping itself: `dict(cache)`",
    "remove_batch_dim": "`cache[name][0]` is prompt 0",
    "has_batch_dim": "values always begin with the dimension of prompts",
}


class Entry:
    """A module's values in a cache: `.output`, `.input`, and whatever else was kept of it. Of a generation each is a tensor for each step, and
    `entry[k]` has those of step k."""

    def __init__(self, cache: Cache, path: str, step: int | None = None):
        self._cache, self._path, self._step = cache, path, step
        self._target = cache._model._tree.target(path)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __getitem__(self, name: Any) -> Any:
        children = self._cache._model._tree.children
        if type(name) is int and not any(each.isdigit() for path in (self._path, self._target) for each in children.get(path, {})):
            return Entry(self._cache, self._path, range(len(self))[name])
        found = self._cache._find(f"{self._path}.{name}" if self._path else str(name))
        if self._step is None:
            return found
        if isinstance(found, Entry):
            return Entry(self._cache, found._path, self._step)
        return found if found._steps is None else found[self._step]

    def __len__(self) -> int:
        """How many steps were kept."""
        prefix = f"{self._target}." if self._target else ""
        kept = [value for path, value in self._cache._values.items() if path.startswith(prefix)]
        return max((1 if value._steps is None else len(value._steps) for value in kept), default=0)

    @property
    def inputs(self) -> Any:
        """Its arguments as nnsight gives them: the first one, and no others; of a generation a list of these, for each step."""
        first = self["input"]
        return ((first,), {}) if first._steps is None else [((each,), {}) for each in first]

    def __repr__(self) -> str:
        return f"<cache of {self._path or 'the model'}>"


class Cache(Mapping[str, Any]):
    """What `tracer.cache()` kept: by the paths of modules and hook points, transformers' or standard. In a generation each value is a tensor for
    each step: `cache["layers.0"].output[k]`."""

    def __init__(self, model: Any):
        self._model = model
        self._values: dict[str, Tensor] = {}
        self._ready = False
        #: Why it will not be filled.
        self._note: str | None = None

    @staticmethod
    def record(recorder: Recorder, model: Any, modules: Any, inputs: bool, output: bool, pattern: str | None) -> Cache:
        from ._invokes import _address

        cache = Cache(model)
        names = [name for name, wanted in (("input", inputs), ("output", output)) if wanted]
        if pattern is not None:
            patterns = [pattern]
        elif modules is None:
            patterns = [f"**.{name}" for name in names]
        else:
            listed = modules if isinstance(modules, (list, tuple)) else [modules]
            patterns = []
            for each in listed:
                path = _path_of(each, model._tree) if isinstance(each, str) else each._path
                patterns += [path] if _of_a_hook_point(model, path) else [f"{path}.{name}" if path else name for name in names]
        scope = recorder.scope
        # In a generation at every step, unless the step is said.
        each_step = _steps(recorder) > 1 and recorder.step is None and not recorder.inside("steps")
        for each in patterns:
            fields = _address(recorder, each)
            fields["pattern"] = fields.pop("hook")
            name = recorder.name("cache")
            node = {"op": "cache", "name": name, **fields, "source": source()}
            recorder.nodes[name] = node
            if each_step:
                node = {"op": "steps", "name": recorder.name("steps"), "body": [node], "source": node["source"]}
            # Written at the end of the body: kept is what flows on, whatever changes it there.
            scope.caches.append(node)
            recorder.caches.append((cache, name))
        return cache

    def _deliver(self, name: str, results: Any) -> None:
        prefix = f"{name}/"
        steps: dict[str, dict[int, Tensor]] = {}
        for key in results:
            if key.startswith(prefix):
                path, _, step = key[len(prefix) :].rpartition("/")
                if path:
                    steps.setdefault(path, {})[int(step)] = results[key]
                else:
                    self._values[step] = results[key]
        for path, values in steps.items():
            self._values[path] = Tensor._of_steps([values[step] for step in sorted(values)])
        self._ready = True

    def _find(self, path: Any) -> Any:
        path = path if isinstance(path, str) else path._path
        if self._note is not None:
            raise NotComputedError(self._note)
        if not self._ready:
            raise NotComputedError("the cache is filled when the trace has run\n  hint: use it after the `with` block")
        found = self._here(path)
        if found is None and path.startswith("model."):
            found = self._here(path.removeprefix("model."))  # nnsight's paths begin with the model
        if found is None:
            raise KeyError(self._lacks(path))
        return found

    def _lacks(self, path: str) -> str:
        """What is told of a path that is not there: what there is instead."""
        from difflib import get_close_matches

        if path in _INSTEAD:
            return f"a cache has no `{path}`\n  hint: {_INSTEAD[path]}"
        tree = self._model._tree
        module, _, name = path.rpartition(".")
        prefix = f"{tree.target(module)}." if module else ""
        own = [each.removeprefix(prefix) for each in self._values if module and each.startswith(prefix)]
        direct = [each for each in own if "." not in each] or own
        whole = tree.hook(standard(path, tree))
        kept = whole.rpartition(".")[2] in tree.hooks.get(whole.rpartition(".")[0], {}) or tree.target(path) in tree.modules
        if kept:
            hint = "the model has it, and it was not asked for: `tracer.cache(modules=[…])`, or `run_with_cache(prompt, names_filter=…)`, says what is kept"
        elif own and hasattr(Tensor, name):
            hint = f"`{module}` is a module, whose values are tensors: `cache[\"{module}\"].{'output' if 'output' in direct else direct[0]}.{name}`"
        elif hasattr(Tensor, name) and not module:
            hint = f"its values are tensors: `cache[name].{name}`"
        else:
            near = [f"{module}.{each}" for each in get_close_matches(name, own, 1, 0.7)]
            near = near or get_close_matches(path, [] if own else [*self._values, *tree.aliases, *tree.hook_aliases], 1, 0.75)
            listed = direct or list(self._values)
            known = ", ".join(f"`{each}`" for each in listed[:12]) + (", …" if len(listed) > 12 else "")
            hint = f"did you mean `{near[0]}`?" if near else f"of `{module}` it has {known}" if own else f"it has {known or 'nothing'}"
        return f"`{path}` is not in the cache\n  hint: {hint}"

    def _here(self, path: str) -> Any:
        tree = self._model._tree
        path = standard(path, tree)
        for name in (path, tree.hook(path)):
            if name in self._values:
                return self._values[name]
        module = tree.target(path)
        prefix = f"{module}." if module else ""
        if any(key.startswith(prefix) for key in self._values):
            return Entry(self, path)
        if path in tree.children:
            return Entry(self, path)  # what only stands above modules: `layers`
        return Entry(self, "") if path == "model" else None

    def __getitem__(self, path: Any) -> Any:
        """By the path of a module or hook point; by TransformerLens' name, whole or short: `cache["pattern", 1]`."""
        if isinstance(path, tuple):
            return self._find(short(*path, layers=self._model.sizes["layers"]))
        return self._find(path)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._find(name)
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    # TransformerLens' sums of the residual stream

    def accumulated_resid(self, layer: int | None = None, incl_mid: bool = False, return_labels: bool = False) -> Any:
        """The residual stream before each layer up to `layer`, and at its end, as TransformerLens stacks it: `[streams, prompts, length, hidden]`. With
        `incl_mid` also between attention and MLP; with `return_labels` the names too. No norm is applied."""
        layers = self._model.sizes["layers"]
        last = layers if layer is None or layer == -1 else layer
        names = []
        for each in range(last):
            names += [(f"{each}_pre", f"blocks.{each}.hook_resid_pre")] + ([(f"{each}_mid", f"blocks.{each}.hook_resid_mid")] if incl_mid else [])
        end = (f"{last}_pre", f"blocks.{last}.hook_resid_pre") if last < layers else ("final_post", f"blocks.{last - 1}.hook_resid_post")
        return self._stacked([*names, end], return_labels)

    def decompose_resid(self, layer: int | None = None, mode: str = "all", incl_embeds: bool = True, return_labels: bool = False) -> Any:
        """What the embeddings and the branches of the layers before `layer` (all, without one) write into the residual stream, which is their sum:
        `[components, prompts, length, hidden]`. `mode`: `all`, `attn` or `mlp`; with `return_labels` the names too. No norm is applied."""
        if mode not in ("all", "attn", "mlp"):
            raise ValueError(f"`mode` is `all`, `attn` or `mlp`, not {mode!r}")
        names = []
        if incl_embeds:
            names = [("embed", "hook_embed")]
            try:
                standard("hook_pos_embed", self._model._tree)
                names.append(("pos_embed", "hook_pos_embed"))
            except KeyError:
                pass  # rotated: nothing is added to the stream
        layers = self._model.sizes["layers"]
        for each in range(layers if layer is None or layer == -1 else layer):
            names += [(f"{each}_{part}_out", f"blocks.{each}.hook_{part}_out") for part in ("attn", "mlp") if mode in ("all", part)]
        return self._stacked(names, return_labels)

    def _stacked(self, names: list[tuple[str, str]], labels: bool) -> Any:
        values = [self._find(name) for _, name in names]
        if any(isinstance(value, Tensor) and value._steps is not None for value in values):
            raise NotComputedError("the cache is of a generation, and has a tensor for each step\n  hint: `pl.stack([cache[name][k] for name in …])` of step k")
        stack = _operations.stack(values)
        return (stack, [label for label, _ in names]) if labels else stack

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Cache({', '.join(self._values)})" if self._ready else "<a cache, filled when its trace has run>"
