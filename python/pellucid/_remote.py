"""Models that a service holds: the same programs, run there. Jobs that go on by themselves."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any, Generator

from . import _core
from ._errors import ProgramError, RemoteError, RunError
from ._progress import Waiting
from ._run import Results, deliver, failed

if TYPE_CHECKING:
    from ._recorder import Recorder

#: Seconds for which a service is asked to hold its answer back, where nobody looks at how far a job is.
_HELD = 10
_ENDED = ("succeeded", "failed", "cancelled")


def address_of(remote: Any) -> str:
    """A service's address: as given, or the one that is set up."""
    if isinstance(remote, str):
        return remote
    found = _core.Service.configured()
    if found is None:
        raise RemoteError((
            "there is no service to speak to\n  hint: `remote=\"https://…\"`, the variable PELLUCID_REMOTE, or "
            "`pl.login(\"https://…\")` once", None,
        ))
    return found


def model_at(remote: Any, name: str) -> _core.Model:
    """A model at a service, by its name there."""
    return _core.Service(address_of(remote)).model(name)


def login(address: str, key: str | None = None) -> None:
    """Tries the key for a service and keeps it, for this user alone; that service is then the one that `remote=True` means. Asked for
    where it is not given."""
    if key is None:
        import getpass

        key = getpass.getpass(f"Key for {address}: ")
    account, path = _core.Service.log_in(address, key.strip())
    print(f"{address}: logged in as {account}; the key is kept in {path}")


def run_at(recorder: Recorder, program: _core.Program, remote: Any, blocking: bool, options: dict[str, Any]) -> None:
    """Runs a program at a service, and gives its results to the tensors that stand for them; or submits it as a job."""
    __tracebackhide__ = True
    if options.pop("memory_bytes", None) is not None:
        raise ValueError("`memory_bytes` bounds runs here: a service has a bound of its own\n  hint: `pl.explain` tells what it needs")
    if options.pop("naive", False):
        raise ValueError("`naive`, the simple interpreter, is for runs here, not at a service\n  hint: leave it away, or `remote`")
    model = recorder.model
    if not blocking:
        recorder.job = submit(program, model, remote, options)
        recorder.job._recorder = recorder
        recorder.state = "submitted"
        return
    core = model._core_at(remote, recorder.models)
    with Waiting() as progress:
        options["on_log"] = progress.aside(options["on_log"])
        if progress.shown:
            options["on_update"] = progress
        results = core.run(program, **options)
    deliver(recorder, Results(results))


def submit(program: _core.Program, model: Any, remote: Any, options: dict[str, Any]) -> Job:
    """Submits a program, and does not wait for it."""
    for name_of_option in ("on_token", "naive"):
        if options.get(name_of_option):
            raise ValueError(f"`{name_of_option}` is for runs that are waited for: leave `blocking=False` away")
    address = address_of(model._remote if remote is True and model._remote else remote)
    about = json.loads(_core.Service(address).submit(program, model._name_there, options.get("seconds")))
    job = Job(about["id"], address)
    job._about, job._program = about, program
    return job


class Job:
    """A job at a service: `pl.Job(id, remote=address)` finds it again, from any process that has the key.

    `job.result()` waits for what it saved; in a task `await job` does.
    """

    def __init__(self, id: str, remote: Any = True):
        #: Its id.
        self.id = id
        self._address = address_of(remote)
        self._service = _core.Service(self._address)
        self._lock = threading.Lock()
        self._recorder: Recorder | None = None
        self._program: _core.Program | None = None
        self._results: Results | None = None
        self._about: dict[str, Any] = {}

    def about(self, wait: float = 0) -> dict[str, Any]:
        """All that the service says of it, now; or when it has ended, or so many seconds are over."""
        if self._about.get("state") not in _ENDED:
            self._about = json.loads(self._service.job(self.id, int(wait)))
        return self._about

    @property
    def state(self) -> str:
        """`queued`, `running`, `succeeded`, `failed` or `cancelled`."""
        return self.about()["state"]

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in _ENDED

    def cancel(self) -> None:
        """Ends it: at once if it is queued, else at its next pass."""
        self._about = json.loads(self._service.cancel(self.id))

    def result(self, timeout: float | None = None) -> Results:
        """Its results, once it has ended: the tensors that were saved in its trace, in this process, are them from then on. What it
        failed of is raised. Ctrl-C ends the wait, not the job."""
        return self._result(timeout, threading.Event())

    def _result(self, timeout: float | None, stop: threading.Event) -> Results:
        until = None if timeout is None else time.monotonic() + timeout
        with Waiting() as progress:
            while self.about(self._held(until, progress))["state"] not in _ENDED:
                if stop.is_set():
                    break
                if until is not None and time.monotonic() >= until:
                    raise TimeoutError(f"{self.id} has not ended yet: it is {self._about['state']}\n  hint: `job.cancel()` ends it")
                progress(_place(self._about))
        with self._lock:
            if self._results is None:
                try:
                    self._results = Results(self._service.results(self.id, self._program))
                except RunError as error:
                    if self._recorder is not None:
                        failed(self._recorder, error)
                    raise
                except ProgramError:
                    if self._recorder is not None:
                        self._recorder.state = "failed"
                    raise
                if self._recorder is not None:
                    deliver(self._recorder, self._results)
        return self._results

    def _held(self, until: float | None, progress: Waiting) -> float:
        if until is None:
            return 1 if progress.shown else _HELD
        return max(0, min(1 if progress.shown else _HELD, until - time.monotonic()))

    def __await__(self) -> Generator[Any, None, Results]:
        import asyncio

        async def waiting() -> Results:
            stop = threading.Event()
            try:
                return await asyncio.to_thread(self._result, None, stop)
            finally:
                stop.set()

        return waiting().__await__()

    def __repr__(self) -> str:
        return f"Job({self.id!r}, {self._about.get('state', 'not asked yet')})"


def _place(about: dict[str, Any]) -> str:
    """Where a job stands, in words."""
    ahead = about.get("queue", {}).get("position")
    if about["state"] == "queued" and ahead is not None:
        return "queued: next" if ahead == 0 else f"queued: {ahead} job{'s' if ahead > 1 else ''} ahead"
    passes = about.get("progress", {}).get("passes")
    return f"{about['state']}: pass {passes}" if passes else about["state"]
