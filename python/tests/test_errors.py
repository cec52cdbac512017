"""Errors: at the author's own line, with what to do, all at once."""

import inspect
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pellucid as pl
import pytest
from conftest import PROMPT


def line():
    return inspect.currentframe().f_back.f_lineno


def test_all_faults_at_once_each_with_its_line(model):
    with pytest.raises(pl.ProgramError) as caught:
        with model.trace(PROMPT) as tracer:
            first = line() + 1
            tracer.get("layers.1.attention.patern").save()
            model.layers[0].output.reshape(3, 7).save()
            model.layers[1].output = model.layers[3].output
            model.logits.save()
    faults = caught.value.faults
    assert len(faults) >= 2
    by_line = {fault.line: fault for fault in faults}
    assert by_line[first].file == __file__ and "patern" in by_line[first].text
    assert by_line[first].hint == "did you mean `layers.1.attention.pattern`?"
    assert first + 1 in by_line and "reshape(3, 7)" in str(caught.value)


def test_what_is_computed_later_cannot_be_set_earlier(model):
    with pytest.raises(pl.ProgramError, match="computed later") as caught:
        with model.trace(PROMPT):
            at = line() + 1
            model.layers[1].output = model.layers[3].output
            model.logits.save()
    assert caught.value.faults[0].line == at


def test_a_write_that_nobody_sees(model):
    with pytest.raises(pl.ProgramError):
        with model.trace(PROMPT):
            h = model.layers[1].output.clone().save()
            model.layers[3].output[:] = 0


def test_python_s_if_and_for_say_what_to_use(model):
    for use in (bool, iter, float, int, lambda x: [0, 1][x], lambda x: x and 1):
        with pytest.raises(pl.ControlFlowError, match="where"):
            with model.trace(PROMPT):
                use(model.logits[0, 0, 0] > 0)


def test_used_before_it_is_there(model):
    with model.trace(PROMPT):
        h = model.layers[0].output
        with pytest.raises(pl.NotComputedError, match="has not run yet"):
            h.numpy()
        with pytest.raises(pl.NotComputedError, match="after the `with` block"):
            print(h.tolist())
        assert "computed when" in repr(h)
        h.save()


def test_never_saved(model):
    with model.trace(PROMPT):
        h = model.layers[0].output
        model.logits.save()
    for use in (lambda: h.numpy(), lambda: h + 1, lambda: h[0], lambda: h.shape, lambda: float(h)):
        with pytest.raises(pl.NotComputedError, match=r"add `.save\(\)`"):
            use()
    assert "was not saved" in repr(h)


def test_of_a_trace_that_failed(model):
    with pytest.raises(ZeroDivisionError):
        with model.trace(PROMPT):
            h = model.layers[0].output.save()
            1 / 0
    with pytest.raises(pl.NotComputedError, match="left by an exception"):
        h.numpy()
    with model.trace(PROMPT):  # and the next one is not touched by it
        fine = model.logits.save()
    assert fine.shape[-1] == 2048


def test_outside_of_traces(model):
    with pytest.raises(pl.NotComputedError, match="outside of a trace"):
        model.layers[0].output
    with pytest.raises(pl.NotComputedError, match="outside of a trace"):
        model.layers[0].output = 0
    with model.trace() as tracer:
        with pytest.raises(pl.NotComputedError, match="no invoke is open"):
            model.layers[0].output
        with tracer.invoke(PROMPT):
            model.logits.save()


def test_an_edit_gives_the_model_alone(model):
    with pytest.raises(TypeError, match="`with model.edit\\(\\) as edited:`"):
        with model.edit() as (tracer, edited):
            pass


def test_another_place_that_is_told_of_is_as_short_as_the_own(model):
    with pytest.raises(pl.ProgramError) as caught:
        with model.trace(PROMPT):
            model.layers[0].output = model.layers[3].output
            model.logits.save()
    assert "read at" in str(caught.value) and "(read at /" not in str(caught.value)


def test_a_trace_in_a_trace(model):
    with pytest.raises(pl.NotComputedError, match="tracer.invoke"):
        with model.trace(PROMPT):
            with model.trace(PROMPT):
                pass


def test_a_failure_of_values_names_its_line(model):
    with pytest.raises(pl.RunError) as caught:
        with model.trace(PROMPT):
            index = model.logits[0, -1].argmax()
            at = line() + 1
            model.layers[0].output[:, index].save()
    assert caught.value.fault.line == at and caught.value.kind == "node"


def test_bounds(model):
    with pytest.raises(pl.RunError) as caught:
        with model.trace(PROMPT, memory_bytes=10):
            model.logits.save()
    assert caught.value.kind == "memory"


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for what there is")
def test_a_value_larger_than_memory_is_refused_and_the_process_goes_on():
    code = """
import resource
import pellucid as pl
model = pl.Model("bundled")
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (2 << 30), resource.RLIM_INFINITY))
try:
    with model.trace("Mary"):
        pl.zeros(40000, 40000).sum().save()
except pl.RunError as error:
    print(error.kind)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (ran.stdout, ran.returncode) == ("memory\n", 0), ran.stderr


def test_tensors_without_a_place_are_warned_of(tmp_path):
    folder = tmp_path / "fewer"
    shutil.copytree(Path(__file__).parents[2] / "models" / "tiny-gpt2" / "model", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    with pytest.warns(UserWarning, match="no place for 12 of its tensors: "):
        pl.Model(folder)


def test_output_0_of_what_was_a_tuple_warns_and_compat_takes_it_as_the_tensor(model):
    with pytest.warns(UserWarning, match="prompt 0") as warned:
        with model.trace([PROMPT, "The capital of France is"]):
            first = model.layers[1].output[0].save()
    assert warned[0].filename == __file__ and first.ndim == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pl.compat("nnsight<0.6"):
            with model.trace([PROMPT, "The capital of France is"]):
                whole = model.layers[1].output[0].save()
                model.layers[2].output[0][:] = 0
                model.layers[3].attention.output = (model.layers[3].attention.output[0] * 0,)
                logits = model.logits.save()
        assert whole.shape == (2, 10, 128) and logits.shape[0] == 2
        with model.trace(PROMPT):  # of a module that never gave one, `[0]` is an index like any
            row = model.transformer.h[1].mlp.output[0].save()
        assert row.shape == (10, 128)


def test_a_boolean_mask_when_reading(model):
    with pytest.raises(pl.ProgramError, match="where"):
        with model.trace(PROMPT):
            h = model.layers[0].output
            h[h > 0].save()


def test_a_function_that_is_no_operation(model):
    with pytest.raises(pl.NotComputedError, match="closed set"):
        with model.trace(PROMPT):
            np.fft.fft(model.logits)


def test_models_that_are_not_there():
    with pytest.raises(pl.ModelError):
        pl.Model("/no/such/folder")


def test_operations_on_results_say_what_is_wrong():
    with pytest.raises(pl.OperationError):
        pl.zeros(2, 3) @ pl.zeros(2, 3)


def test_slips_in_options_are_told(model):
    with pytest.raises(TypeError, match="sead"):
        model.trace(PROMPT, sead=1)
    with pytest.raises(TypeError, match="max_tokens"):
        model.generate(PROMPT, max_tokens=3)


def test_the_model_s_output_has_logits(model):
    with model.trace(PROMPT):
        a = model.output.logits[:, -1].save()
        b = model.logits[:, -1].save()
    assert np.array_equal(a, b)
    with pytest.raises(AttributeError, match="model.logits"):
        a.logits


def test_what_is_changed_in_a_branch_stays_there(model):
    with pytest.raises(pl.NotComputedError, match="choose"):
        with model.trace(PROMPT) as tracer:
            x = model.logits[0, -1].amax()
            total = pl.zeros(())
            with tracer.cond(x > 0):
                total += 1


def test_errors_travel_between_processes(model):
    import copy
    import pickle

    errors = []
    try:
        with model.trace(PROMPT) as tracer:
            tracer.get("layers.1.attention.patern").save()
    except pl.ProgramError as error:
        errors.append(error)
    try:
        with model.session():
            with model.trace(PROMPT):
                model.layers[0].output.save("before")
            with model.trace(PROMPT):
                index = model.logits[0, -1].argmax()
                model.layers[0].output[:, index].save()
    except pl.RunError as error:
        errors.append(error)
    errors.append(pl.RemoteError(("it is away", "unknown-model")))
    errors.append(pl.ModelError("it is not there"))
    assert len(errors) == 4
    for error in errors:
        for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(other) is type(error) and str(other) == str(error)
    again = pickle.loads(pickle.dumps(errors[1]))
    assert again.kind == "node" and again.fault.line == errors[1].fault.line
    assert again.kept["before"].shape == (1, 10, 128) and np.array_equal(again.kept["before"], errors[1].kept["before"])
    assert pickle.loads(pickle.dumps(errors[0])).faults == errors[0].faults and errors[2].kind == copy.copy(errors[2]).kind


def test_the_tuples_of_older_scripts(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with model.trace([PROMPT, "The capital of France is"]):
            saved = model.layers[1].output.save()
        assert [each.shape for each in saved] == [(10, 128), (10, 128)]  # a loop goes over the prompts
        with pl.compat("nnsight<0.6"):
            assert [each.shape for each in saved] == [(10, 128), (10, 128)]
            with model.trace(PROMPT):
                block = model.transformer.h[1]
                block.output = (block.output[0] * 0, *block.output[1:])
                model.transformer.h[2].attn.skip((pl.zeros(1, 10, 128), None))
                assert block.output[1:] == () and len(block.output[0:1]) == 1
                now = model.layers[1].output.save()
                skipped = model.layers[2].attention.output.save()
                model.logits[0, 0, 0].save()
    assert np.all(now.numpy() == 0) and np.all(skipped.numpy() == 0)


def test_small_things_that_python_asks(model):
    x = pl.tensor([1.0, 2.0])
    assert (x == None) is False and (x != None) is True and (x == pl.tensor([1.0, 3.0])).tolist() == [True, False]  # noqa: E711
    with pytest.raises(TypeError, match="one number"):
        f"{x:.2f}"
    with pytest.raises(pl.ControlFlowError, match="written out as a number"):
        with model.trace(PROMPT):
            assert (model.logits == None) is False  # noqa: E711
            f"{model.logits[0, 0, 0]:.2f}"


def test_the_member_of_an_old_tuple_is_a_tensor_like_any(model):
    prompts = [PROMPT, "The capital of France is"]

    def run(write, of=lambda block: block.output):
        with model.trace(prompts):
            block = model.transformer.h[1]
            write(of(block))
            out, logits = model.layers[1].output.save(), model.logits.save()
        return out.numpy(), logits.numpy()

    def member(block):
        return block.output[0]

    def first(h):
        h[0] = 0

    def last(h):
        h[:, -1] *= 2
        h[:, -1] += h[:, -2]

    def slices(h):
        h[:] *= 1.5
        h[:1] = h[1:]

    def twice(h):
        h += 1.0
        again = model.transformer.h[1].output[0] if old else model.transformer.h[1].output
        again[:, 0] = 3.0
        h.mul_(2.0)

    for write in (first, last, slices, twice):
        old = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = run(write)
        with pl.compat("nnsight<0.6"), warnings.catch_warnings():
            warnings.simplefilter("error")
            old = True
            found = run(write, member)
        assert np.array_equal(found[0], wanted[0]) and np.array_equal(found[1], wanted[1])
    with model.trace(prompts):
        h = model.transformer.h[1].output
        h[:, 0] *= 2.0
        with model.logits[0, -1, 3].backward():
            wanted = h.grad.save()
    with pl.compat("nnsight<0.6"), warnings.catch_warnings():
        warnings.simplefilter("error")
        with model.trace(prompts):
            h, *rest = model.transformer.h[1].output
            h[:, 0] *= 2.0
            row, whole = h[0].save(), model.transformer.h[1].output[0].save()
            with model.logits[0, -1, 3].backward():
                found = h.grad.save()
        assert rest == [] and row.shape == whole[0].shape == (10, 128)
    assert np.array_equal(found, wanted)
    zeros = []
    with model.generate(PROMPT, max_new_tokens=2, stop_tokens=[]) as tracer, pl.compat("nnsight<0.6"):
        for step in tracer.iter[:]:
            model.transformer.h[1].output[0][:] *= 0.0
            zeros.append(model.transformer.h[1].output[0][:, -1].save())
    assert len(zeros) == 2 and not any(each.numpy().any() for each in zeros)


def test_options_of_other_libraries_say_what_to_write_instead(model):
    with pytest.raises(TypeError, match=r"hint: token ids are a prompt"):
        model.trace(input_ids=[1, 2])
    with pytest.raises(TypeError, match=r"`generate` has no option `num_return_sequences`\n  hint: give the prompt so many times"):
        model.generate(PROMPT, num_return_sequences=3)
    with pytest.raises(TypeError, match="has no option `nonsense`$"):
        model.trace(PROMPT, nonsense=1)


def test_what_opens_no_model_is_refused(model):
    for source in (None, 5, model):
        with pytest.raises(TypeError, match=f"not by {type(source).__name__}\n  hint: a Hugging Face folder"):
            pl.Model(source)
    with pytest.raises(ValueError, match="name is empty"):
        pl.Model("")
    for size in (-1, 1 << 64, 1.5, None):
        with pytest.raises(ValueError, match=f"`prefix_cache` is so many bytes, a whole number from 0, and not {size}"):
            pl.Model("bundled", prefix_cache=size)


def test_what_is_no_service_does_not_run_here(model):
    with model.trace(PROMPT, run=False) as tracer:
        model.logits.save()
    program = tracer.program
    for remote, error in (("", ValueError), (" ", ValueError), (5, TypeError)):
        for use in (
            lambda: pl.Model("bundled", remote=remote), lambda: model.trace(PROMPT, remote=remote), lambda: model.generate(PROMPT, remote=remote),
            lambda: model.session(remote=remote), lambda: program.run(model, remote=remote), lambda: program.submit(model, remote=remote),
        ):
            with pytest.raises(error, match="`remote` is .*\n  hint: `remote="):
                use()
    assert pl.Model("bundled", remote=False).name == model.name


def test_in_a_notebook_the_cell_is_named(model, monkeypatch):
    class Shell:
        class compile:
            format_code_name = staticmethod(lambda file: ("Cell", "In[7]") if file == __file__ else None)

    class IPython:
        get_ipython = staticmethod(Shell)

    monkeypatch.setitem(sys.modules, "IPython", IPython)
    with pytest.raises(pl.ProgramError) as caught:
        with model.trace(PROMPT):
            model.layers[0].output = model.layers[3].output
            model.logits.save()
    line = caught.value.faults[0].line
    assert f"--> Cell In[7]:{line}" in str(caught.value) and f"(read at Cell In[7]:{line})" in str(caught.value)
