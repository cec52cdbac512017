"""Values of many modules at once."""

from __future__ import annotations

from typing import Any, Iterator, Mapping

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


class Entry:
    """A module's values in a cache: `.output`, `.input`, and whatever else was kept of it. Of a generation each is a tensor for each step, and
    `entry[k]` has those of step k."""

    def __init__(self, cache: Cache, path: str, step: int | None = None):
        self._cache, self._path, self._step = cache, path, step

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __getitem__(self, name: Any) -> Any:
        if type(name) is int and not any(each.isdigit() for each in self._cache._model._tree.children.get(self._path, {})):
            return Entry(self._cache, self._path, range(len(self))[name])
        found = self._cache._find(f"{self._path}.{name}" if self._path else str(name))
        if self._step is None:
            return found
        if isinstance(found, Entry):
            return Entry(self._cache, found._path, self._step)
        return found if found._steps is None else found[self._step]

    def __len__(self) -> int:
        """How many steps were kept."""
        prefix = f"{self._path}." if self._path else ""
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
            raise KeyError(f"`{path}` is not in the cache")
        return found

    def _here(self, path: str) -> Any:
        tree = self._model._tree
        path = standard(path, tree)
        for name in (path, tree.hook(path)):
            if name in self._values:
                return self._values[name]
        module = tree.target(path)
        prefix = f"{module}." if module else ""
        if any(key.startswith(prefix) for key in self._values):
            return Entry(self, module)
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
            raise AttributeError(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Cache({', '.join(self._values)})" if self._ready else "<a cache, filled when its trace has run>"
