"""Traces, generations and sessions: the `with` blocks in which programs are written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ._errors import NotComputedError
from ._einops import known_to_einops
from ._invokes import EarlyStop, Invoke, _address, _except, _invoke_field, _of_invoke, add_invoke, generated_ids
from ._prompts import prompts_of
from ._points import PatternOrigin, hook_value, meant, set_hook
from ._recorder import Recorder, Scope, recording, source
from ._run import execute
from ._steps import Steps, StepsOf
from ._tensor import Tensor
from ._writer import seed_of
from ._writing import Writing

if TYPE_CHECKING:
    from ._model import Model
    from ._optimiser import Optimiser
    from ._training import Checkpoint, Training

#: What makes a pattern of a path; `{layer}` is a parameter of a sweep.
_PATTERN = re.compile(r"[*\[]")


class Session(Writing):
    """Traces in sequence, whose values flow from one to the next inside the engine: `with model.session():`. All of it runs
    when the block ends."""

    def __init__(self, model: Model, seed: int | None = None, run: bool = True, **options: Any):
        self._model, self._options, self._run = model, options, run
        self._recorder = Recorder(model, seed_of(seed))
        self._token: Any = None

    def __enter__(self) -> Session:
        if recording.get() is not None:
            raise NotComputedError("a session cannot be opened inside of another session or trace")
        self._token = recording.set(self._recorder)
        known_to_einops()
        return self

    def __exit__(self, kind: Any, error: Any, _: Any) -> bool | None:
        __tracebackhide__ = True
        if not self._close(kind):
            self._recorder.given.explain(error)
            return False
        finish(self._recorder, self._options, self._run)
        return kind is not None

    async def __aenter__(self) -> Session:
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: Any, _: Any) -> bool | None:
        __tracebackhide__ = True
        if not self._close(kind):
            self._recorder.given.explain(error)
            return False
        await finish_beside(self._recorder, self._options, self._run)
        return kind is not None

    def _close(self, kind: Any) -> bool:
        """Ends the writing; whether there is something to run."""
        recording.reset(self._token)
        if kind is not None and not issubclass(kind, EarlyStop):
            self._recorder.state = "abandoned"
            return False
        return True

    def train(
        self,
        optimiser: Optimiser,
        parameters: Any,
        steps: int | None = None,
        resume: Checkpoint | None = None,
        **axes: Any,
    ) -> Training:
        """Trains parameters (a dictionary of tensors, a list, or one): `with session.train(pl.Optimiser.adam(0.01), start, steps=30) as training:`. The
        block is written once and is every step: a trace in which a loss, without dimensions, is computed of `training.parameters`, and
        `training.backward(loss)`. What is saved in it is stacked over the steps. In place of `steps`, axes as those of a sweep are data to go over,
        the last one fastest: `epoch=range(3), batch=batches`, and then `training.batch`. `resume` goes on from a checkpoint to the same numbers as
        without a stop: so many steps more, or the same data as before, of which what is behind it is left out. `parameters` then only say what is
        trained. Noise is keyed by the names of nodes, so what is random stands in the same order in both."""
        from ._training import Training

        return Training(self._recorder, optimiser, parameters, steps, resume, axes)

    def stop(self) -> None:
        """Ends the session here: the rest of the block is passed over."""
        raise EarlyStop


def finish(recorder: Recorder, options: dict[str, Any], run: bool) -> None:
    """Ends a program's writing, and runs it."""
    __tracebackhide__ = True  # in notebooks and pytest an error stands at the author's own lines
    recorder.flush(recorder.root)
    if recorder.ways:
        from ._gradients import settle

        settle(recorder, run)
    recorder.given.end()
    if not run:
        recorder.state = "scanned"
        return
    if len(recorder.root.body) == recorder.lead:
        recorder.state = "done"
        return
    execute(recorder, options)


async def finish_beside(recorder: Recorder, options: dict[str, Any], run: bool) -> None:
    """The same on a thread of its own, while other tasks go on. Cancelling the task cancels the run."""
    import asyncio

    from ._core import Cancellation

    cancellation = Cancellation()
    running = asyncio.ensure_future(asyncio.to_thread(finish, recorder, {**options, "cancellation": cancellation}, run))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        cancellation.cancel()
        await asyncio.wait([running])
        running.exception()  # that it was cancelled is told by the task itself
        raise


class Trace(Writing):
    """One or more inputs and what is read and changed while the model runs on them: `with model.trace(prompt) as tracer:`."""

    def __init__(
        self,
        model: Model,
        given: tuple[Any, ...],
        generate: dict[str, Any] | None = None,
        special_tokens: bool | None = None,
        seed: int | None = None,
        run: bool = True,
        **options: Any,
    ):
        self._model, self._given, self._generate = model, given, generate
        self._special_tokens, self._seed, self._run, self._options = special_tokens, seed, run, options
        self._token: Any = None
        self._own = False
        self._scope: Scope | None = None
        self._node: dict[str, Any] = {}

    def __enter__(self) -> Trace:
        recorder = recording.get()
        known_to_einops()
        if recorder is None:
            self._own = True
            recorder = Recorder(self._model, seed_of(self._seed))
            self._token = recording.set(recorder)
        elif recorder.scope.trace is not None or recorder.inside("edit"):
            raise NotComputedError(
                "a trace cannot be opened inside of another\n  hint: a second input of the same trace is "
                "`with tracer.invoke(prompt):`; traces in sequence stand in `with model.session():`"
            )
        if not self._own and "remote" in self._options:
            raise NotComputedError("a session runs as a whole in one place\n  hint: give `remote` to `model.session`")
        if not self._own and self._seed is not None:
            raise NotComputedError("a session has one seed\n  hint: give `seed` to `model.session`")
        if not self._own and (given := self._given_of_the_whole()):
            raise NotComputedError(f"`{given}` is of a session as a whole\n  hint: give it to `model.session`")
        self._recorder = recorder
        try:
            self._begin(recorder)
        except BaseException:
            if self._own:
                recording.reset(self._token)
            elif self._scope is not None:
                recorder.drop(self._scope)
                recorder.invoke = None
            raise
        return self

    def _begin(self, recorder: Recorder) -> None:
        node: dict[str, Any] = {"op": "trace", "name": recorder.name("trace")}
        name = recorder.model._name_of(self._model, recorder)
        if name is not None:
            node["model"] = name
        if self._model._edits:
            node["edits"] = self._model._write_edits(recorder)
        if self._generate is not None:
            node["generate"] = self._generate
        node.update(invokes=[], body=[], source=source())
        self._node = node
        self._scope = recorder.open("trace", node)
        self._scope.model = self._model
        recorder.invoke, recorder.step, recorder.backward = None, None, None
        recorder.steps_of = {}
        if self._given:
            recorder.invoke = add_invoke(recorder, prompts_of(self._given, self._special_tokens))

    def _given_of_the_whole(self) -> str | None:
        """An option of how a program runs that was given to this trace."""
        given = (name for name, value in self._options.items() if value is not None)
        return next(given, None if self._run else "run")

    def __exit__(self, kind: Any, error: Any, _: Any) -> bool | None:
        __tracebackhide__ = True
        if not self._close(kind):
            self._recorder.given.explain(error)
            return False
        if self._own:
            finish(self._recorder, self._options, self._run)
        return kind is not None

    async def __aenter__(self) -> Trace:
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: Any, _: Any) -> bool | None:
        __tracebackhide__ = True
        if not self._close(kind):
            self._recorder.given.explain(error)
            return False
        if self._own:
            await finish_beside(self._recorder, self._options, self._run)
        return kind is not None

    def _close(self, kind: Any) -> bool:
        """Ends the writing; whether it goes on to run."""
        recorder = self._recorder
        if self._own:
            recording.reset(self._token)
        if kind is not None and not issubclass(kind, EarlyStop):
            if self._own:
                recorder.state = "abandoned"
            elif self._scope is not None:
                # Whoever catches it goes on in the session, without this trace.
                recorder.drop(self._scope)
                recorder.invoke = recorder.step = recorder.backward = None
            return False
        while recorder.scope is not self._scope and recorder.scope.parent is not None:
            recorder.close(recorder.scope)
        assert self._scope is not None
        recorder.close(self._scope)
        recorder.invoke = recorder.step = recorder.backward = None
        if not self._node["invokes"] and not self._node["body"]:
            recorder.scope.body.remove(self._node)
        if self._own:
            if not self._node["body"] and self._node in recorder.root.body:
                recorder.root.body.remove(self._node)
        return True

    # Inputs

    def invoke(self, *prompts: Any, special_tokens: bool | None = None) -> Invoke:
        """An input of the trace: a prompt, or several, with the part of the trace that belongs to it."""
        if not prompts:
            raise TypeError(
                "an invoke needs a prompt\n  hint: nnsight's invoke without one, over the rows of all others, cannot be "
                "expressed: each invoke reads and writes its own rows"
            )
        return Invoke(self._recorder, prompts_of(prompts, special_tokens))

    # Generation

    @property
    def iter(self) -> Steps:
        """Steps of a generation. `for step in tracer.iter[:]:` writes its body once for each step, with `step` a number;
        `with tracer.iter[1:]:` writes it once for all of them."""
        return Steps(self)

    def all(self) -> StepsOf:
        """All steps of a generation: `tracer.iter[:]`."""
        return self.iter[:]

    def next(self, step: int = 1) -> Trace:
        """What follows is of the next step."""
        recorder = self._recorder
        recorder.step = (recorder.step or 0) + step
        return self

    @property
    def result(self) -> Tensor:
        """What the model gives: the logits; of a generation all token ids, the prompt's and the new ones."""
        if self._generate is None:
            return hook_value(self._model, "", "logits")
        return generated_ids(self._recorder)

    def stop(self, when: Any = None) -> None:
        """Ends the trace here: the rest of the block is passed over, and of the model only what is needed runs. In a generation,
        `when` (a bool, or one for each prompt) ends that of the prompts for which it holds, after this step's token."""
        recorder = self._recorder
        if when is None:
            if self._generate is not None and recorder.step is not None:
                most = self._node["generate"]["max_new_tokens"]
                self._node["generate"] = {**self._node["generate"], "max_new_tokens": min(most, recorder.step + 1)}
            raise EarlyStop
        fields = {"when": recorder.tensor(when), **_invoke_field(recorder)}
        if recorder.inside("steps"):
            recorder.plain("stop", fields)
            return
        step = recorder.step or 0
        node = {"op": "steps", "name": recorder.name("steps"), "from": step, "to": step + 1, "body": [], "source": source()}
        scope = recorder.open("steps", node)
        recorder.plain("stop", fields)
        recorder.close(scope)

    # Many hook points at once

    def get(self, hook: str, except_: Any = ()) -> Tensor:
        """A hook point by its path, `layers.5.attention.pattern`; or all that match a pattern, stacked along a new first
        dimension: `layers.*.output`, `layers[0:12:2].mlp.output`, `**.pattern`. One is the hook point itself, a stack is changed by `set`."""
        recorder = self._recorder
        if not _PATTERN.search(hook) and not except_:
            return hook_value(self._model, "", hook)
        meant(recorder, self._model, f"`{hook}`")
        stack = recorder.one("get", {**_address(recorder, hook), **_except(except_)})
        origin = PatternOrigin(hook)
        stack._of_hook, stack._write_to = origin, origin.write
        return stack

    def set(self, hook: str, value: Any, each: bool = False, except_: Any = ()) -> None:
        """Writes one value to all hook points that match a pattern; with `each` row k of it to the k-th."""
        recorder = self._recorder
        if not _PATTERN.search(hook) and not except_ and not each:
            set_hook(self._model, "", hook, value)
            return
        meant(recorder, self._model, f"`{hook}`")
        ref = recorder.tensor(value) if not isinstance(value, (int, float)) else recorder.literal(value)
        fields: dict[str, Any] = {**_address(recorder, hook), **_except(except_), "value": ref}
        if each:
            fields["each"] = True
        recorder.plain("set", fields)
        recorder.scope.hooks.clear()

    def cache(
        self,
        modules: Any = None,
        include_inputs: bool = False,
        include_output: bool = True,
        pattern: str | None = None,
    ) -> Any:
        """Keeps the values of many modules, or of hook points, by their paths or patterns: after the trace `cache["layers.0"].output`, or
        `cache["layers.0.attention.pattern"]`. What is kept is what flows on, with all changes of the trace. In a generation that is a tensor for each
        step; in `for step in tracer.iter[…]` of the step that is being written."""
        from ._cache import Cache
        from ._module import Module

        for each in modules if isinstance(modules, (list, tuple)) else [modules]:
            if isinstance(each, Module):
                meant(self._recorder, each._model, f"`{each.path}`")
        return Cache.record(self._recorder, self._model, modules, include_inputs, include_output, pattern)

    # What an invoke is made of

    @property
    def tokens(self) -> Tensor:
        """The invoke's token ids, `[prompts, length]`, padded with 0 on the left."""
        return _of_invoke(self._recorder, "tokens")

    @property
    def lengths(self) -> Tensor:
        """How many tokens each prompt has, `[prompts]`."""
        return _of_invoke(self._recorder, "lengths")

    @property
    def mask(self) -> Tensor:
        """Which cells of the invoke's rectangle are real, `[prompts, length]`."""
        return _of_invoke(self._recorder, "mask")

    @property
    def generated(self) -> Tensor:
        """The tokens that the generation makes, `[prompts, new tokens]`; −1 after a prompt has stopped."""
        return _of_invoke(self._recorder, "generated")
