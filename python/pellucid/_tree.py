"""What can be named in a model: modules, hook points, parameters, standard names."""

from __future__ import annotations

from typing import Any


class Tree:
    """What can be named in a model, found by name."""

    def __init__(self, spec: dict[str, Any]):
        self.modules: dict[str, str] = {module["path"]: module["class"] for module in spec["modules"]}
        self.hooks: dict[str, dict[str, Any]] = {}
        self.shapes: dict[str, list[Any]] = {}
        for point in spec["hook_points"]:
            self.hooks.setdefault(point["module"], {})[point["name"]] = point
        self.parameters: dict[str, list[int]] = {each["name"]: each["shape"] for each in spec["parameters"]}
        self.aliases: dict[str, str] = {each["alias"]: each["target"] for each in spec["aliases"] if not each["hook"]}
        self.hook_aliases: dict[str, str] = {each["alias"]: each["target"] for each in spec["aliases"] if each["hook"]}
        #: Of each path, the names of what stands right under it; standard names beside transformers'.
        self.children: dict[str, dict[str, None]] = {}
        for path in [*self.modules, *self.aliases]:
            while path:
                parent, _, name = path.rpartition(".")
                self.children.setdefault(parent, {})[name] = None
                path = parent
        self.weights: dict[str, dict[str, None]] = {}
        for path in self.parameters:
            parent, _, name = path.rpartition(".")
            self.weights.setdefault(parent, {})[name] = None
        # Tied to the embedding it is no parameter of its own, and can be read and set all the same.
        unembed = self.aliases.get("unembed")
        #: The embedding's, which the unembedding is tied to where it has none of its own.
        self.tied = f"{self.aliases.get('embed', '')}.weight"
        if unembed is not None:
            self.weights.setdefault(unembed, {})["weight"] = None

    def target(self, path: str) -> str:
        """A path under transformers' name, whichever name it is given by."""
        if path in self.aliases:
            return self.aliases[path]
        head, _, rest = path.rpartition(".")
        while head:
            if head in self.aliases:
                joined = f"{self.aliases[head]}.{rest}"
                return joined
            head, _, part = head.rpartition(".")
            rest = f"{part}.{rest}"
        return path

    def hook(self, path: str) -> str:
        """A hook point's path under transformers' names."""
        if path in self.hook_aliases:
            return self.hook_aliases[path]
        module, _, name = path.rpartition(".")
        module = self.target(module)
        return f"{module}.{name}" if module else name
