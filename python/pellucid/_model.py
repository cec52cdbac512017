"""Models: opened, asked about themselves, traced."""

from __future__ import annotations

import json
import os
import re
import warnings
from typing import Any, Callable, Iterator, Mapping

from . import _core
from ._config import Config
from ._dtype import DType, float32
from ._edits import Edit
from ._errors import NotComputedError
from ._lens import LensForms
from ._module import Module, hook_value
from ._options import check_remote, known, run_options
from ._points import meant
from ._progress import Loading
from ._recorder import Recorder, recording
from ._tensor import Tensor
from ._tokenizer import Tokenizer
from ._invokes import generated_ids
from ._trace import Session, Trace
from ._tree import Tree


class Model(LensForms, Module):
    """A model: `pl.Model("bundled")`, a Hugging Face folder, a GGUF file, or a hub id such as `openai-community/gpt2`.

    Its modules are its attributes, under transformers' names (`model.transformer.h[5].attn`) and under standard ones that work on every
    family (`model.layers[5].attention`, `model.logits`).
    """

    __slots__ = ("_core", "_tree", "_spec", "_edits", "_remote", "_tokenizer", "_beside", "_modules", "source")

    def __init__(
        self,
        source: Any = "bundled",
        *,
        revision: str | None = None,
        dtype: Any = "float32",
        remote: str | bool | None = None,
        prefix_cache: int = 0,
        **accepted: Any,
    ):
        """Opens a model. `dtype` is how weights are held: `float32`; `bfloat16`, half the size; or `"quantised"`, as a GGUF file has
        them in blocks, with the results of `float32`. With `remote`, a service's address, nothing is loaded here. With `prefix_cache`, bytes, what prompts that ran have in common with later ones is kept and not
        computed again: the same results in less time. A service does so by itself."""
        if not isinstance(source, (str, os.PathLike)):
            hint = "a Hugging Face folder, a GGUF file, a hub id such as `openai-community/gpt2`, or `bundled`"
            raise TypeError(f"a model is opened by its name, a text, not by {type(source).__name__}\n  hint: {hint}")
        if not str(source).strip():
            raise ValueError("a model's name is empty\n  hint: `pl.Model()` is the bundled one")
        if not hasattr(prefix_cache, "__index__") or not 0 <= prefix_cache < 1 << 63:
            raise ValueError(f"`prefix_cache` is so many bytes, a whole number from 0, and not {prefix_cache!r}")
        check_remote(remote)
        known("Model", accepted, ("device_map", "dispatch", "torch_dtype", "attn_implementation", "low_cpu_mem_usage"))
        set_ = object.__setattr__
        set_(self, "source", str(source))
        set_(self, "_modules", {})
        set_(self, "_edits", [])
        set_(self, "_remote", remote)
        set_(self, "_beside", {})
        set_(self, "_tokenizer", None)
        if remote:
            from ._remote import model_at

            if revision is not None or dtype != "float32":
                raise ValueError("`revision` and `dtype` are the service's own: leave them away, or `remote`")
            set_(self, "_core", model_at(remote, str(source)))
        else:
            from ._dtype import dtype as number_type

            if dtype == "quantised":
                precision = "quantised"
            else:
                precision = "bf16" if number_type(dtype).short in ("bf16", "f16") else "f32"
            core = _core.Model.open(str(source), revision, precision, Loading())
            set_(self, "_core", core.with_prefix_cache(prefix_cache) if prefix_cache else core)
            unused = self._core.unused_tensors()
            if unused:
                shown = ", ".join(unused[:3]) + (", …" if len(unused) > 3 else "")
                warnings.warn(f"{source}: its configuration has no place for {len(unused)} of its tensors: {shown}", stacklevel=2)
        set_(self, "_spec", json.loads(self._core.spec()))
        set_(self, "_tree", Tree(self._spec))
        super().__init__(self, "", "")

    def _copy(self) -> Model:
        new = Model.__new__(Model)
        for name in ("_core", "_tree", "_spec", "_remote", "_tokenizer", "_beside", "source"):
            object.__setattr__(new, name, getattr(self, name))
        object.__setattr__(new, "_edits", list(self._edits))
        object.__setattr__(new, "_modules", {})
        Module.__init__(new, new, "", "")
        return new

    def __copy__(self) -> Model:
        return self._copy()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    # About itself

    @property
    def spec(self) -> dict[str, Any]:
        """What it publishes of itself: modules, hook points in the order in which they are reached, sizes, parameters."""
        return self._spec

    @property
    def sizes(self) -> dict[str, Any]:
        """Layers, widths, heads, vocabulary."""
        return self._spec["sizes"]

    @property
    def name(self) -> str:
        """The hub id, or the folder's or file's name."""
        return self._spec["name"]

    @property
    def config(self) -> Config:
        """Its sizes under transformers' names: `model.config.num_hidden_layers`."""
        return Config(self._spec)

    @property
    def device(self) -> str:
        """Where its values are, to Python: the engine has its own way."""
        return "cpu"

    @property
    def dtype(self) -> DType:
        """The number type of its values."""
        return float32

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        known: Any = self._tokenizer
        if known is None:
            about = self._core.tokenizer()
            if about is None and self._remote:
                ends = self._spec.get("end_tokens") or [None]
                about = (Ellipsis, ends[0], self.sizes["vocabulary"])
            if about is None:
                raise AttributeError(f"`{self.name}` came without a tokenizer\n  hint: give token ids")
            known = Tokenizer(self._core, about)
            object.__setattr__(self, "_tokenizer", known)
        return known

    def token(self, text: str) -> int:
        """The one token that a text is: `model.token(" Paris")`, with its leading space."""
        return self.tokenizer.token(text)

    def encode_chat(self, text: str) -> list[int]:
        """Token ids of a user's turn in the model's chat template, up to where its answer begins."""
        return self._core.encode_chat(text)

    def module(self, path: str) -> Module:
        """A module by its path: `model.module("transformer.h.5.attn")`."""
        module: Any = self
        for part in path.split("."):
            found = module._child(part)
            if found is None:
                raise AttributeError(module._unknown(part))
            module = found
        return module

    def __getitem__(self, path: Any) -> Any:
        if not isinstance(path, str):
            raise TypeError("a model's modules are chosen by path: model['layers.5']")
        module, _, name = path.rpartition(".")
        tree = self._tree
        if name in tree.hooks.get(tree.target(module), {}) or path in tree.hook_aliases:
            return hook_value(self, "" if path in tree.hook_aliases else module, path if path in tree.hook_aliases else name)
        return self.module(path)

    get = __getitem__

    def __iter__(self) -> Iterator[Any]:
        recorder = recording.get()
        if recorder is not None and recorder.inside("edit"):
            raise TypeError("an edit gives the edited model alone\n  hint: `with model.edit() as edited:`; nnsight's `as (tracer, edited)` has a tracer, too")
        raise TypeError("a model is no list of modules\n  hint: `for layer in model.layers:`")

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """All modules with their paths under transformers' names, as `torch.nn.Module` lists its own: `("", model)` first."""
        return ((path, self.module(path) if path else self) for path in self._tree.modules)

    def _ipython_key_completions_(self) -> list[str]:
        tree = self._tree
        points = [f"{module}.{name}" for module, names in tree.hooks.items() if module for name in names]
        return [*(path for path in tree.modules if path), *tree.aliases, *tree.hook_aliases, *points]

    # Programs

    def trace(
        self,
        *prompts: Any,
        seed: int | None = None,
        run: bool = True,
        special_tokens: bool | None = None,
        remote: Any = None,
        blocking: bool = True,
        memory_bytes: int | None = None,
        seconds: float | None = None,
        naive: bool = False,
        **accepted: Any,
    ) -> Trace:
        """Opens a trace: `with model.trace(prompt) as tracer:`. A prompt is a text, several texts, or token ids; without one,
        `tracer.invoke(prompt)` adds inputs. `seconds` and `memory_bytes` bound the run; with `run=False` it is only written. `remote`, a service's
        address, or `True` for the one that is set up, runs it there; with `blocking=False` as a job that goes on by itself,
        `tracer.job`."""
        known("trace", accepted, ("scan", "validate", "use_cache"))
        options = run_options(remote, memory_bytes, seconds, naive, blocking)
        return Trace(self, prompts, None, special_tokens, seed, run, **options)

    def generate(
        self,
        *prompts: Any,
        max_new_tokens: int = 20,
        temperature: float | None = None,
        do_sample: bool | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float | None = None,
        stop_tokens: Any = None,
        stop_texts: Any = None,
        eos_token_id: Any = None,
        seed: int | None = None,
        run: bool = True,
        special_tokens: bool | None = None,
        remote: Any = None,
        blocking: bool = True,
        memory_bytes: int | None = None,
        seconds: float | None = None,
        on_token: Callable[[dict[str, Any]], None] | None = None,
        **accepted: Any,
    ) -> Trace:
        """Opens a generation. Greedy, unless `temperature` or `do_sample` says otherwise. Step 0 is the prompt's; N new tokens take
        steps 0 to N−1."""
        known("generate", accepted, ("scan", "validate", "use_cache", "pad_token_id", "return_dict_in_generate"))
        from ._options import generation

        stop_tokens = eos_token_id if stop_tokens is None else stop_tokens
        made = generation(max_new_tokens, temperature, do_sample, top_k, top_p, repetition_penalty, stop_tokens, stop_texts)
        options = run_options(remote, memory_bytes, seconds, False, blocking)
        if on_token is not None:
            options["on_token"] = on_token
        return Trace(self, prompts, made, special_tokens, seed, run, **options)

    def session(
        self,
        seed: int | None = None,
        run: bool = True,
        remote: Any = None,
        blocking: bool = True,
        memory_bytes: int | None = None,
        seconds: float | None = None,
        naive: bool = False,
        on_token: Callable[[dict[str, Any]], None] | None = None,
    ) -> Session:
        """Opens a session: traces in sequence, whose values flow from one to the next inside the engine. `on_token` is told of the
        tokens that its traces generate."""
        options = run_options(remote, memory_bytes, seconds, naive, blocking)
        if on_token is not None:
            options["on_token"] = on_token
        return Session(self, seed, run, **options)

    def scan(self, *prompts: Any, **options: Any) -> Trace:
        """A trace that is only checked: inside and after it `.shape` and `.dtype` of its values are known, and nothing runs."""
        return self.trace(*prompts, **{**options, "run": False})

    def run(self, program: Any, **options: Any) -> Any:
        """Runs a program that was loaded from a file, or given as JSON."""
        from ._program import Program

        if isinstance(program, (str, dict)):
            program = Program.parse(program)
        return program.run(self, **options)

    # Edits

    def edit(self, inplace: bool = False) -> Edit:
        """A model with edits: `with model.edit() as edited:` writes them once, and `edited.trace(...)` has them at every step of
        every invoke. With `inplace`, this model has them from then on."""
        return Edit(self, inplace)

    def clear_edits(self) -> None:
        """Takes away what `edit(inplace=True)` wrote."""
        self._edits.clear()

    def _write_edits(self, recorder: Recorder) -> list[str]:
        names = []
        for edit in self._edits:
            if id(edit) not in recorder.edits:
                recorder.root.body[recorder.lead : recorder.lead] = edit.nodes
                recorder.lead += len(edit.nodes)
                recorder.constants.update(edit.constants)
                recorder.edits[id(edit)] = edit.name
                if edit.waiting:
                    recorder.core_names.update(edit.core_names)
                    recorder.given.joined(edit.waiting)
            names.append(edit.name)
        return names

    # Several models

    def _name_of(self, other: Model, recorder: Recorder) -> str | None:
        """The name by which a program of this model calls another; none: it is this one."""
        if other._core is self._core and other._core is not None or other is self:
            return None
        name = re.sub(r"\W", "_", other.name, flags=re.ASCII) or "other"
        while name in recorder.models and recorder.models[name]._core is not other._core:
            name += "_"
        recorder.models[name] = other
        return name

    def _core_with(self, models: Mapping[str, Model]) -> Any:
        core = self._core
        for name, other in models.items():
            core = core.with_model(name, other._core)
        return core

    @property
    def _name_there(self) -> str:
        """What a service may call it: as it was asked for, or the name of its folder or file."""
        return self.name if not self._remote and self.source != "bundled" and os.path.exists(self.source) else self.source

    def _core_at(self, remote: Any, models: Mapping[str, Model]) -> Any:
        """The model at a service: itself, or the one of the same name there."""
        if self._remote and (remote is True or remote == self._remote):
            return self._core_with(models)
        from ._remote import address_of, model_at

        address = address_of(remote)
        if address not in self._beside:
            self._beside[address] = model_at(address, self._name_there)
        core = self._beside[address]
        for name, other in models.items():
            core = core.with_model(name, other._core)
        return core

    def _repr_html_(self) -> str:
        from . import _html

        return _html.tree(self)


class Generator:
    """`model.generator`: nnsight's name for what a generation gives."""

    def __init__(self, model: Model):
        self._model = model

    @property
    def output(self) -> Tensor:
        recorder = recording.get()
        if recorder is None:
            raise NotComputedError("`model.generator.output` is used outside of a generation")
        meant(recorder, self._model, "`model.generator`")
        return generated_ids(recorder)


Model.generator = property(Generator)  # type: ignore[attr-defined]
