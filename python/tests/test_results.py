"""Results: as arrays, by DLPack, in arithmetic; programs and results in files."""

import copy
import pickle

import numpy as np
import pellucid as pl
import pytest
from conftest import PROMPT


def test_a_result_is_an_array(model):
    with model.trace(PROMPT):
        h = model.layers[0].output.save()
    array = h.numpy()
    assert array.shape == (1, 10, 128) and array.dtype == np.float32
    assert np.array_equal(np.asarray(h), array) and np.array_equal(np.from_dlpack(h), array)
    assert np.allclose((h * 2 + 1).numpy(), array * 2 + 1)
    assert np.allclose(h[0, 2:4].softmax(-1).numpy().sum(-1), 1)
    assert np.allclose(np.mean(h), array.mean()) and isinstance(np.exp(h), np.ndarray)
    assert h[0, 0, 0].item() == pytest.approx(float(array[0, 0, 0])) and float(h.max()) == array.max()
    assert [row.shape for row in h[0]] == [(128,)] * 10
    array[:] = 0  # its own elements
    assert np.any(h.numpy() != 0)


def test_number_types():
    for kind in (pl.float64, pl.float32, pl.float16, pl.int64, pl.int32, pl.uint8, pl.bool_):
        x = pl.tensor([[0, 1], [1, 0]], dtype=kind)
        assert x.dtype == kind and x.dtype == kind.name and x.numpy().dtype.name == kind.name
        assert np.array_equal(np.from_dlpack(x), x.numpy())
    x = pl.tensor([1.0, 2.5, -3.25], dtype=pl.bfloat16)
    assert x.dtype == "bfloat16" and x.numpy().tolist() == [1.0, 2.5, -3.25]
    assert (x + x).dtype == pl.bfloat16
    assert pl.tensor([1, 2]).dtype == pl.int64 and pl.tensor([1.0]).dtype == pl.float32 and pl.tensor(True).dtype == pl.bool_


def test_in_place_on_results():
    x = pl.zeros(3, 4)
    x[1] += 2
    x[:, 0] = 7
    row = x[2]
    row.add_(1)
    assert x.tolist() == [[7, 0, 0, 0], [7, 2, 2, 2], [8, 1, 1, 1]]


def test_a_result_goes_into_later_traces(model):
    with model.trace(PROMPT):
        h = model.layers[1].output[:, -1].save()
    with model.trace("The capital of Japan is"):
        model.layers[1].output[:, -1] = h
        logits = model.logits[0, -1].save()
    with model.trace(PROMPT):
        expected = model.logits[0, -1].save()
    # The last token's stream decides what comes next, but for what it attends to in later blocks.
    assert model.tokenizer.decode(logits.argmax()) == model.tokenizer.decode(expected.argmax())


def test_it_is_copied_and_pickled():
    x = pl.tensor([[1.5, 2.0]], dtype="bfloat16")
    for other in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x), x.clone()):
        assert other.dtype == x.dtype and other.tolist() == x.tolist()


def test_repr_is_readable(model):
    x = pl.tensor([[1.0, 2.0]])
    assert repr(x) == "tensor([[1., 2.]])" and f"{x[0, 1]:.2f}" == "2.00"
    assert "bfloat16" in repr(x.bfloat16())
    with model.trace(PROMPT):
        h = model.layers[0].output.save()
    assert "shape=[1, 10, 128]" in repr(h) and "GPT2" in repr(model)


def test_programs_and_results_in_files(model, tmp_path):
    big = pl.randn(128)
    with model.trace(PROMPT, seed=7) as tracer:
        model.layers[1].output += big * 0.1
        model.layers[2].output += pl.randn(128) * 0.1
        logits = model.logits[:, -1].save()
    tracer.program.save(tmp_path / "program.safetensors")
    tracer.results.save(tmp_path / "results.safetensors")
    again = pl.Program.load(tmp_path / "program.safetensors").run(model)
    assert again["logits"]._core.is_same(logits._core)
    assert again.provenance["seed"] == 7
    with model.trace(PROMPT) as tracer:
        model.logits[0, -1].save("last")
    tracer.program.save(tmp_path / "program.json")
    assert (tmp_path / "program.json").read_text().startswith("{\n")
    assert list(pl.Program.load(tmp_path / "program.json").run(model)) == ["last"]


def test_names_of_results_are_the_variables(model):
    with model.trace(PROMPT) as tracer:
        hidden = model.layers[0].output.save()
        listed = [model.layers[k].output.save() for k in (1, 2)]
        add_0 = (hidden + 1).save()
        model.logits.save(name="out")
    assert {"hidden", "out"} <= set(tracer.results) and len(tracer.results) == 5
    assert listed[1].shape == hidden.shape == add_0.shape


def test_older_names_of_number_types(model):
    x = pl.tensor([1.5, 2.0])
    assert x.type() == "torch.FloatTensor" and x.type("torch.LongTensor").dtype == pl.int64 and x.type(pl.float64).dtype == pl.float64
    with model.trace(PROMPT):
        h = model.layers[1].output
        assert f"{h}" == "<get_0: computed when its trace runs>" and h.type() == "torch.FloatTensor"
        h[:, -1] = 0
        assert repr(h) == f"{h}" == "<layers.1.output: computed when its trace runs>"
        whole = h.type(pl.int32).save()
    assert whole.dtype == pl.int32
    with pytest.raises(TypeError, match="run_with_hooks"):
        model(PROMPT)


def test_explain_and_scan(model):
    with model.trace(PROMPT, run=False) as tracer:
        model.layers[0].output.save()
    assert "layers" in pl.explain(tracer) or "transformer.h" in pl.explain(tracer)
    assert "nothing was run" in pl.show.plan(tracer).html() and "measured:" not in pl.explain(tracer)
    told = pl.explain(tracer, analyze=True)
    assert "measured: " in told and " GFLOP/s" in told
    picture = pl.show.plan(tracer, analyze=True)
    assert "<svg" in picture.html() and " GFLOP/s" in picture.html() and "measured: " in str(picture)
    with pytest.raises(ValueError, match="plan.html"):
        picture.matplotlib()
    rows = pl.scan(tracer)
    assert rows[0]["shape"] == [1, 10, 128] and rows[0]["file"] == __file__
    assert tracer.program.price()["flops"] > 0


def test_a_prompt_is_paid_for_once_with_a_cache(model):
    cached = pl.Model("bundled", prefix_cache=64 << 20)
    reports = []
    for scale in (0.5, 0.5, 2.0):
        outcomes = []
        for which in (cached, model):
            with which.trace(PROMPT) as tracer:
                which.layers[2].output[:, -1] *= scale
                logits = which.logits[:, -1].save()
            outcomes.append(logits.numpy())
        assert np.array_equal(*outcomes)
        reports.append(tracer.results.report["cached_tokens"])
        with cached.trace(PROMPT, run=False) as planned:
            cached.logits[:, -1].save()
        assert "the first 9 from the cache" in pl.explain(planned)
    assert reports == [0, 0, 0], "a model without a cache keeps nothing"
    with cached.trace(PROMPT) as tracer:
        cached.logits[:, -1].save()
    assert tracer.results.report["cached_tokens"] == 9 and tracer.results.report["tokens"] == 1


def test_steering_vectors_in_files(model, tmp_path):
    with model.trace(["I love this", "I hate this"]):
        h = model.layers[2].output[:, -1].save()
    vector = h[0] - h[1]
    steering = pl.Steering("layers.2.output", vector, scale=2.0, positions=slice(-1, None))
    steering.save(tmp_path / "v.safetensors")
    read = pl.Steering.load(tmp_path / "v.safetensors")
    assert read.vector.tolist() == steering.vector.tolist() and read.scale == 2.0 and read.positions == slice(-1, None)
    with model.generate(PROMPT, max_new_tokens=3) as tracer:
        read.apply(tracer)
        steered = tracer.result.save()
    assert steered.shape == (1, 13)
    (tmp_path / "no.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(pl.PellucidError, match="not a steering vector"):
        pl.Steering.load(tmp_path / "no.safetensors")


def test_casts_and_moves():
    x = pl.tensor([1.5, -2.5])
    assert x.to(pl.int64).tolist() == [1, -2] and x.to("float64").dtype == pl.float64 and x.to(x.long()).dtype == pl.int64
    assert x.to("cuda", dtype="float16").dtype == pl.float16 and x.cpu() is x and x.type_as(x.int()).dtype == pl.int32
    with pytest.raises(TypeError, match="number type"):
        x.to("nonsense")


def test_bf16_says_in_dlpack_that_it_is_bf16():
    import ctypes

    capsule = pl.tensor([1.0, 2.0, 3.0], dtype="bfloat16").__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # data, device type and number, dimensions, then code, bits and lanes of the number type
    kind = ctypes.string_at(pointer(capsule, b"dltensor") + 20, 4)
    assert kind == bytes([4, 16, 1, 0])


def test_a_mask_chooses_of_results():
    x = pl.tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert x[x > 2].tolist() == [3, 4, 5] and x[np.array([True, False])].tolist() == [[0, 1, 2]]
    assert x[:, [True, False, True]].tolist() == [[0, 2], [3, 5]] and x[x > 9].shape == (0,)
    half = x.bfloat16()[x > 2]
    assert half.dtype == pl.bfloat16 and half.tolist() == [3, 4, 5]
    x[x > 2] = 0
    assert x.tolist() == [[0, 1, 2], [0, 0, 0]]


def test_numbers_go_to_other_libraries_in_one_buffer():
    x = pl.tensor(np.arange(4, dtype=np.float32))
    first, second = np.from_dlpack(x), np.from_dlpack(x)
    assert np.shares_memory(first, second) and not np.shares_memory(x.numpy(), first)
    x += 1
    third = np.from_dlpack(x)
    assert third.tolist() == [1, 2, 3, 4] and first.tolist() == [0, 1, 2, 3]


def test_results_are_read_back(model, tmp_path):
    with model.trace(PROMPT, seed=3) as tracer:
        hidden = model.layers[0].output.bfloat16().save()
        best = model.logits[0, -1].argmax().save()
    tracer.results.save(tmp_path / "r.safetensors")
    again = pl.Results.load(tmp_path / "r.safetensors")
    assert set(again) == {"hidden", "best"} and again["hidden"]._core.is_same(hidden._core) and int(again["best"]) == int(best)
    assert again.provenance == tracer.results.provenance and again.report["passes"] == 1 and again.absent == []
    data = (tmp_path / "r.safetensors").read_bytes()
    for number, damaged in enumerate((b"", data[:5], data[:40], data[:-1], b"\xff" * 64)):
        (tmp_path / f"{number}.safetensors").write_bytes(damaged)
        with pytest.raises(pl.PellucidError, match=f"{number}.safetensors"):
            pl.Results.load(tmp_path / f"{number}.safetensors")


def test_results_and_programs_are_pickled(model, tmp_path):
    vector = pl.tensor(np.arange(128, dtype=np.float32))  # large enough to stand beside the program's text
    with model.trace(PROMPT) as tracer:
        tracer.log("size", model.layers[1].output.norm())
        h = (model.layers[1].output + vector).save()
        narrow = model.logits.to(pl.bfloat16).save()
    results = tracer.results
    results.save(tmp_path / "r.safetensors")
    for again in (pickle.loads(pickle.dumps(results)), copy.deepcopy(results), pl.Results.load(tmp_path / "r.safetensors")):
        assert set(again) == {"h", "narrow"} and np.array_equal(again["h"], h) and again["narrow"].dtype == narrow.dtype == pl.bfloat16
        assert again.provenance == results.provenance and again.report == results.report and again.absent == results.absent
        assert [(each["name"], float(each["value"])) for each in again.logs] == [(each["name"], float(each["value"])) for each in results.logs]
        assert len(again.logs) == 1
        again.save(tmp_path / "again.safetensors")
        assert np.array_equal(pl.Results.load(tmp_path / "again.safetensors")["narrow"].float(), narrow.float())
    program = pickle.loads(pickle.dumps(tracer.program))
    assert program.json() == tracer.program.json() and np.array_equal(program.run(model)["h"], h)
    with pytest.raises(TypeError, match="for which model"):
        program.run()
    assert np.array_equal(copy.deepcopy(tracer.program).run()["h"], h)


def test_models_are_copied_and_not_pickled(model):
    other = copy.copy(model)
    assert other is not model and other.layers[1].path == "layers.1" and copy.deepcopy(model).config.n_layer == 4
    with other.trace(PROMPT):
        logits = other.logits.save()
    with model.trace(PROMPT):
        expected = model.logits.save()
    assert np.array_equal(logits, expected) and copy.copy(model.layers[0]) == model.layers[0]
    with pytest.raises(TypeError, match="open the model in each"):
        pickle.dumps(model)
    with pytest.raises(AttributeError):
        model._nothing
    assert model.config.hidden_size == 128 and model.config.model_type == "gpt2" and str(model.device) == "cpu"
    with pytest.raises(AttributeError, match="hidden_size"):
        model.config.rotary_dim


def test_what_a_tokenizer_gives(model):
    tokenizer = model.tokenizer
    flat = tokenizer(PROMPT)
    assert flat["input_ids"] == flat.input_ids == tokenizer.encode(PROMPT) and flat.attention_mask == [1] * len(flat.input_ids)
    one = tokenizer(PROMPT, return_tensors="np")
    assert one.input_ids.shape == (1, 10) and tokenizer(PROMPT, return_tensors="pl").input_ids.shape == (1, 10)
    texts = ["The capital of France is", "Hello"]
    padded = tokenizer(texts, padding=True, return_tensors="np")
    assert padded.input_ids.shape == padded.attention_mask.shape and padded.attention_mask[1, 0] == 0
    with model.trace(padded):
        logits = model.logits[:, -1].save()
    with model.trace(texts):
        expected = model.logits[:, -1].save()
    assert np.array_equal(logits, expected)
    assert len(tokenizer(PROMPT, truncation=True, max_length=4).input_ids) == 4
    with pytest.raises(TypeError, match="paddding"):
        tokenizer(PROMPT, paddding=True)
    with pytest.raises(ValueError, match="padding=True"):
        tokenizer(texts, return_tensors="np")
