"""The same programs at a service, with the same results bit for bit."""

import inspect
import os
import signal
import socket
import threading
import time

import numpy as np
import pellucid as pl
import pytest
from conftest import PROMPT
from test_documents import DOCS, blocks
from ticking import ticks_during

pytestmark = pytest.mark.usefixtures("nothing_set_up")


def same(a, b):
    return a.shape == b.shape and a._core.is_same(b._core)


def experiment(model, **options):
    with model.trace(PROMPT, **options) as tracer:
        hidden = model.transformer.h[1].output.save()
        model.transformer.h[2].output[:, -1] *= 2
        logits = model.logits.save()
    return hidden, logits, tracer


def long(model, prompts=128, **options):
    """A run that takes long: with 128 prompts about a second."""
    with model.generate([PROMPT] * prompts, max_new_tokens=100, stop_tokens=[], **options) as tracer:
        tracer.generated.save("made")
    return tracer


def test_the_same_numbers_as_here(model, remote, service):
    here = experiment(model)
    for there in (experiment(remote), experiment(model, remote=service.address), experiment(remote, remote=True)):
        assert same(here[0], there[0]) and same(here[1], there[1])
        assert there[2].results.provenance["model"] == here[2].results.provenance["model"]


def test_the_tokenizer_is_asked_for(model, remote):
    assert remote.tokenizer.encode(PROMPT) == model.tokenizer.encode(PROMPT)
    assert remote.tokenizer.tokens(PROMPT) == model.tokenizer.tokens(PROMPT)
    assert remote.token(" Paris") == model.token(" Paris")
    assert remote.tokenizer.eos_token_id == model.tokenizer.eos_token_id
    assert len(remote.tokenizer) == len(model.tokenizer)


def tensors(names):
    return {name: value for name, value in names.items() if isinstance(value, pl.Tensor) and value._core is not None}


@pytest.mark.parametrize("path", ["README.md", "python/README.md", "docs/python.md"])
def test_what_the_documents_show_runs_there_with_the_same_numbers(path, service, monkeypatch, capsys):
    open_model = pl.Model
    outcomes = []
    for where in (None, service.address):
        monkeypatch.setattr(pl, "Model", lambda source, where=where: open_model(source, remote=where))
        names = {"__name__": "document"}
        for line, code in blocks(path, "python"):
            exec(compile("\n" * line + code, str(DOCS / path), "exec"), names)
        outcomes.append((tensors(names), capsys.readouterr().out))
    here, there = outcomes
    assert here[0] and set(here[0]) == set(there[0])
    for name, value in here[0].items():
        assert same(value, there[0][name]), name
    if path == "README.md":
        assert here[1] == there[1]


def test_constants_sessions_and_sampling_go_there(model, remote):
    vector = pl.randn(128)

    def run(model):
        with model.session(seed=3):
            with model.trace(PROMPT):
                h = model.layers[1].output[:, -1]
            with model.generate("The capital of Japan is", max_new_tokens=3, temperature=1.0, stop_tokens=[]) as tracer:
                model.layers[1].output[:, -1] = h + vector * 0.1
                tokens = tracer.generated.save()
        return tokens

    assert same(run(model), run(remote))


def test_programs_from_files_go_there(model, remote, service, tmp_path):
    with model.trace(PROMPT, run=False) as tracer:
        (model.logits[0, -1] + pl.ones(model.sizes["vocabulary"])).save("x")
    tracer.program.save(tmp_path / "program.safetensors")
    program = pl.Program.load(tmp_path / "program.safetensors")
    here = program.run(model)["x"]
    assert same(program.run(remote)["x"], here) and same(program.run(model, remote=service.address)["x"], here)
    assert same(program.submit(remote).result()["x"], here)
    assert "pass" in pl.explain(program, remote)


def test_faults_have_the_same_lines_as_here(model, remote):
    told = []
    for each in (model, remote):
        with pytest.raises(pl.ProgramError) as caught:
            with each.trace(PROMPT) as tracer:
                line = inspect.currentframe().f_lineno + 1
                tracer.get("layers.1.attention.patern").save()
                each.layers[0].output[:, 99].save()
        assert (caught.value.faults[0].file, caught.value.faults[0].line) == (__file__, line)
        told.append(caught.value)
    assert told[0].faults == told[1].faults and str(told[0]) == str(told[1])


def test_failures_have_the_same_lines_as_here(model, remote):
    told = []
    for each in (model, remote):
        with pytest.raises(pl.RunError) as caught:
            with each.session():
                with each.trace(PROMPT):
                    before = each.logits[0, -1].amax().save("before")
                with each.trace(PROMPT):
                    place = each.logits[0, -1].argmax()
                    line = inspect.currentframe().f_lineno + 1
                    each.layers[0].output[:, place].save()
        assert (caught.value.fault.file, caught.value.fault.line) == (__file__, line)
        assert before.item() == caught.value.kept["before"].item()
        told.append(caught.value)
    assert str(told[0]) == str(told[1]) and told[0].fault == told[1].fault
    assert told[0].kept["before"]._core.is_same(told[1].kept["before"]._core)


def test_shapes_are_known_before_it_runs(model, remote):
    for each in (model, remote):
        with each.trace([PROMPT, "The capital of France is"], run=False):
            assert tuple(each.layers[1].output.shape) == (2, 10, 128)


def test_logs_and_tokens_are_told(remote, capsys):
    told = []
    with remote.generate(PROMPT, max_new_tokens=3, stop_tokens=[], on_token=told.append) as tracer:
        tracer.log("largest", remote.logits.amax())
        tokens = tracer.generated.save()
    assert [each["token"] for each in told] == tokens[0].tolist()
    assert "largest: tensor(" in capsys.readouterr().out


def test_threads(model, remote):
    answers, failures = {}, []

    def work(number):
        try:
            for _ in range(3):
                with remote.trace(PROMPT):
                    remote.layers[1].output *= 1 + number
                    logits = remote.logits[0, -1].save()
                answers.setdefault(number, []).append(logits)
        except Exception as error:  # told below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures
    for number in range(6):
        with model.trace(PROMPT):
            model.layers[1].output *= 1 + number
            logits = model.logits[0, -1].save()
        assert len(answers[number]) == 3 and all(same(each, logits) for each in answers[number])


def test_python_goes_on_while_it_waits(remote):
    def work():
        with remote.generate([PROMPT] * 16, max_new_tokens=40, stop_tokens=[]) as tracer:
            tracer.generated.save()

    assert ticks_during(work) > 1000 / 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_processes_that_are_forked_off_ask_for_themselves(remote):
    expected = experiment(remote)[1]  # there is an open connection now
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if all(same(experiment(remote)[1], expected) for _ in range(5)) else 2
            finally:
                os._exit(code)
        children.append(child)
    for _ in range(5):
        assert same(experiment(remote)[1], expected)
    deadline = time.time() + 60
    while children and time.time() < deadline:
        done, status = os.waitpid(children[0], os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            children.pop(0)
        time.sleep(0.02)
    for child in children:
        os.kill(child, signal.SIGKILL)
    assert not children, "a forked process hangs"


def test_interruption_cancels_there_too(remote, service):
    def interrupt():
        service.until("running")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        # Long enough that it still runs when it has been seen to, however busy the machine is.
        long(remote, prompts=1024)
    service.until("cancelled", 15)


def test_interruption_ends_the_wait_for_who_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        started = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            pl.Model("bundled", remote=f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.perf_counter() - started < 3


def test_who_is_not_there():
    with pytest.raises(pl.RemoteError, match="cannot be reached"):
        pl.Model("bundled", remote="http://127.0.0.1:9")
    with pytest.raises(pl.RemoteError, match="there is no service to speak to"):
        pl.Model("bundled", remote=True)


def test_what_a_service_does_not_do_is_said(model, remote, service):
    with pytest.raises(pl.RemoteError, match="bundled") as caught:
        pl.Model("bundeld", remote=service.address)
    assert caught.value.kind == "unknown-model"
    with pytest.raises(ValueError, match="memory_bytes"):
        experiment(remote, memory_bytes=1 << 30)
    with pytest.raises(ValueError, match="`naive`.*not at a service"):
        experiment(remote, naive=True)
    with pytest.raises(ValueError, match="give `remote`"):
        experiment(model, blocking=False)
    with pytest.raises(ValueError, match="the service's own"):
        pl.Model("bundled", remote=service.address, dtype="bfloat16")
    with pytest.raises(pl.NotComputedError, match="model.session"):
        with model.session():
            with model.trace(PROMPT, remote=service.address):
                pass


@pytest.mark.parametrize("source", sorted((DOCS / "examples/python").glob("*.py")), ids=lambda path: path.stem)
def test_every_experiment_runs_there_with_the_same_numbers(source, service, monkeypatch, capsys):
    open_model = pl.Model
    monkeypatch.chdir(source.parent)
    code = compile(source.read_text(encoding="utf-8"), str(source), "exec")
    told = []
    for where in (None, service.address):
        monkeypatch.setattr(pl, "Model", lambda name, where=where: open_model(name, remote=where))
        exec(code, {"__name__": "experiment"})
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
