"""Jobs that go on by themselves, tasks, keys, and what one sees of a run at a service."""

import asyncio
import inspect
import os
import re
import stat
import subprocess
import sys
import time

import numpy as np
import pellucid as pl
import pytest
from conftest import PROMPT
from service import Service
from test_remote import experiment, long, same

pytestmark = pytest.mark.usefixtures("nothing_set_up")


def test_a_job_that_goes_on_by_itself(model, remote, service):
    hidden, logits, tracer = experiment(remote, blocking=False)
    with pytest.raises(pl.NotComputedError, match="tracer.job.result"):
        hidden.numpy()
    job = tracer.job
    assert job.id.startswith("job_")
    results = job.result(timeout=60)
    assert job.state == "succeeded" and job.done and results is tracer.results
    assert same(hidden, experiment(model)[0])
    again = pl.Job(job.id, remote=service.address).result()
    assert set(again) == {"hidden", "logits"} and same(again["logits"], logits)


def test_jobs_are_cancelled_and_waited_for_in_bounds(remote):
    tracer = long(remote, blocking=False)
    started = time.perf_counter()
    with pytest.raises(TimeoutError, match="has not ended yet"):
        tracer.job.result(timeout=0.2)
    assert time.perf_counter() - started < 3
    assert tracer.job.state in ("queued", "running")
    tracer.job.cancel()
    with pytest.raises(pl.RunError, match="cancelled") as caught:
        tracer.job.result(timeout=30)
    assert caught.value.kind == "cancelled" and tracer.job.state == "cancelled"


def test_what_a_job_failed_of_has_its_line(remote, service):
    with remote.trace(PROMPT, blocking=False) as tracer:
        place = remote.logits[0, -1].argmax()
        line = inspect.currentframe().f_lineno + 1
        remote.layers[0].output[:, place].save()
    with pytest.raises(pl.RunError) as caught:
        tracer.job.result()
    assert (caught.value.fault.file, caught.value.fault.line) == (__file__, line)
    # Folders do not travel: who has only the job knows the file's name.
    with pytest.raises(pl.RunError) as caught:
        pl.Job(tracer.job.id, remote=service.address).result()
    assert (caught.value.fault.file, caught.value.fault.line) == (os.path.basename(__file__), line)
    assert os.path.dirname(__file__) not in str(service.jobs())


def test_what_a_failed_job_had_saved_before_is_there(remote):
    with remote.session(blocking=False) as session:
        with remote.trace(PROMPT):
            before = remote.logits[0, -1].amax().save()
        with remote.trace(PROMPT):
            after = remote.layers[0].output[:, remote.logits[0, -1].argmax()].save()
    with pytest.raises(pl.NotComputedError, match="its job goes on"):
        before.item()
    with pytest.raises(pl.RunError) as caught:
        session.job.result()
    assert before.item() == caught.value.kept["before"].item()
    with pytest.raises(pl.NotComputedError, match="failed"):
        after.numpy()


def test_tasks(model, remote):
    async def one(factor):
        async with remote.trace(PROMPT):
            remote.layers[1].output *= factor
            logits = remote.logits[0, -1].save()
        return logits

    async def job():
        hidden, _, tracer = experiment(remote, blocking=False)
        results = await tracer.job
        return hidden, results

    async def several():
        return await asyncio.gather(one(1), one(2), job())

    first, second, (hidden, results) = asyncio.run(several())
    assert not np.array_equal(first, second)
    assert same(hidden, experiment(model)[0]) and set(results) == {"hidden", "logits"}


def test_a_cancelled_task_cancels_there_too(remote, service):
    async def run():
        async with remote.generate([PROMPT] * 1024, max_new_tokens=100, stop_tokens=[]) as tracer:
            tracer.generated.save()

    async def cancelled():
        task = asyncio.create_task(run())
        await asyncio.to_thread(service.until, "running")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    service.until("cancelled", 15)


def test_keys(tmp_path, monkeypatch, capsys):
    service = Service(tmp_path, open_=False)
    try:
        file = tmp_path / "config" / "config.toml"
        monkeypatch.setenv("PELLUCID_CONFIG", str(file))
        with pytest.raises(pl.RemoteError, match="pellucid login") as caught:
            pl.Model("bundled", remote=service.address)
        assert caught.value.kind == "unauthorized"
        key = service.key("ada")

        # From the environment.
        monkeypatch.setenv("PELLUCID_API_KEY", key)
        first = experiment(pl.Model("bundled", remote=service.address))[1]
        monkeypatch.delenv("PELLUCID_API_KEY")

        # A key that is not known is not kept.
        with pytest.raises(pl.RemoteError):
            pl.login(service.address, "pellucid_" + "x" * 40)
        assert not file.exists()

        # From the configuration file, where `login` keeps it.
        pl.login(service.address, key)
        assert "logged in as ada" in capsys.readouterr().out
        assert key in file.read_text() and stat.S_IMODE(file.stat().st_mode) == 0o600
        assert same(experiment(pl.Model("bundled", remote=True))[1], first)
        assert service.log.name and key not in (tmp_path / "log").read_text()
    finally:
        service.end()


SCRIPT = """
import os, sys
import pellucid as pl

model = pl.Model("bundled", remote=sys.argv[1])
with model.generate(["The capital of France is"] * 192, max_new_tokens=100, stop_tokens=[]) as tracer:
    tracer.log("first", tracer.tokens[0, 0])
    made = tracer.generated.save()
print(list(made.shape))
"""


def seen(service, terminal):
    """What a run prints on standard error, on a terminal or into a pipe, while others are ahead of it."""
    arguments = [sys.executable, "-c", SCRIPT, service.address]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(pl.__file__))}
    if not terminal:
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stderr, done.stdout
    import pty

    ours, theirs = pty.openpty()
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment)
    os.close(theirs)
    told = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # so Linux says that the other end is closed
            break
        if not part:
            break
        told += part
    os.close(ours)
    out = child.stdout.read()
    assert child.wait(120) == 0, told
    return told.decode(), out


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals here")
def test_one_sees_the_place_in_the_queue_on_a_terminal_and_nothing_elsewhere(remote, service):
    ahead = [long(remote, blocking=False).job for _ in range(4)]
    told, out = seen(service, terminal=True)
    for job in ahead:
        job.cancel()
    assert re.search(r"queued: (next|\d+ jobs? ahead)|running: pass \d+", told), told
    assert "token" not in told and "value" not in told
    assert told.endswith("\r") and not told.rsplit("\r", 2)[-2].strip(), "the line is taken away in the end"
    ahead = [long(remote, blocking=False).job for _ in range(2)]
    quiet, again = seen(service, terminal=False)
    for job in ahead:
        job.cancel()
    assert quiet == "" and again == out and "[192, 100]" in out
