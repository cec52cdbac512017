"""Reading and writing: traces, invokes, in-place forms, views."""

import sys

import numpy as np
import pellucid as pl
import pytest
from conftest import CLEAN, CORRUPTED, PROMPT


def run(model, body, prompt=PROMPT):
    """The same program by hand: what the package writes down is held to it bit for bit."""
    return model.run({"pellucid": 1, "body": [{"op": "trace", "invokes": [{"prompt": prompt}], "body": body}]})


def same(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a._core.is_same(b._core)


def test_the_readme_s_lines(model):
    with model.trace(PROMPT) as tracer:
        hidden = model.transformer.h[1].output.save()
        model.transformer.h[2].output[:, -1] *= 2
        logits = model.logits.save()
    assert hidden.shape == (1, 10, 128) and hidden.dtype == pl.float32 and hidden.dtype == "float32"
    by_hand = run(model, [
        {"op": "get", "name": "h", "hook": "transformer.h.1.output"}, {"op": "save", "name": "hidden", "value": "h"},
        {"op": "get", "name": "later", "hook": "layers.2.output"},
        {"op": "getitem", "name": "last", "input": "later", "index": [":", -1]},
        {"op": "mul", "name": "double", "input": "last", "other": 2},
        {"op": "index_put", "name": "new", "input": "later", "index": [":", -1], "values": "double"},
        {"op": "set", "hook": "layers.2.output", "value": "new"},
        {"op": "get", "name": "l", "hook": "logits"}, {"op": "save", "name": "logits", "value": "l"},
    ])
    assert same(hidden, by_hand["hidden"]) and same(logits, by_hand["logits"])
    assert model.tokenizer.decode(logits[0, -1].argmax()).startswith(" ")
    assert tracer.results["hidden"] is not None and tracer.results.provenance["model"]


def test_module_access_by_attribute_index_and_path(model):
    assert model.transformer.h[-1].path == "transformer.h.3"
    assert model.layers[2] == model.transformer.h[2] == model["layers.2"] == model.module("transformer.h.2")
    assert model.layers[1].attention == model.transformer.h[1].attn
    assert len(model.layers) == 4 and [each.path for each in model.transformer.h][:2] == ["transformer.h.0", "transformer.h.1"]
    assert {"attn", "mlp", "output", "input"} <= set(dir(model.transformer.h[0]))
    assert {"pattern", "query", "mixed"} <= set(dir(model.layers[0].attention))
    assert {"layers", "embed", "unembed", "logits", "transformer"} <= set(dir(model))
    with pytest.raises(AttributeError, match="did you mean `attn`"):
        model.transformer.h[0].atn
    with pytest.raises(IndexError, match="4 modules"):
        model.transformer.h[4]
    listed = dict(model.named_modules())
    assert listed[""] is model and listed["transformer.h.1.attn"] == model.layers[1].attention and len(listed) == len(model.spec["modules"])
    with pytest.raises(TypeError, match="for layer in model.layers"):
        list(model)


def test_a_result_has_the_name_that_it_is_assigned_to(model):
    with model.trace(PROMPT) as tracer: one = model.logits[0, 0, 0].save()  # noqa: E701
    assert list(tracer.results) == ["one"] and one.shape == ()
    with model.trace(PROMPT) as tracer:
        for layer in range(2): other = model.layers[layer].output.save()  # noqa: E701
    assert list(tracer.results) == ["2_other", "other"] and other.shape == (1, 10, 128)


def test_no_result_has_the_name_of_another_variable(model):
    with model.trace(PROMPT) as tracer:
        h = model.layers[0].output.save()
        h = model.layers[1].output.save()
        h_1 = model.layers[2].output.save()
        model.layers[3].output.save("h_2")
    assert sorted(tracer.results) == ["2_h", "h", "h_1", "h_2"]
    assert np.array_equal(tracer.results["h_1"], h_1) and np.array_equal(tracer.results["2_h"], h)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="this Python does not tell which part of a line is running")
def test_of_several_variables_on_a_line_the_one_that_a_result_goes_into(model):
    with model.trace(PROMPT) as tracer:
        a = model.layers[0].output.save(); b = model.layers[1].output.save()  # noqa: E702
        c, (d, e) = model.layers[2].output.save(), (model.layers[3].output.save(), model.embed.output.save())
        u, s, vh = (each.save() for each in pl.svd(model.layers[0].mlp.output[0, :4]))
        f, g = pl.save((model.layers[0].input, model.layers[1].input))
        last = (
            model.logits[:, -1]
            .save()
        )
        print([w := model.layers[2].mlp.output.save()])
        late = {}
        late["x"] = model.layers[3].mlp.output.save()
    names = {"a": a, "b": b, "c": c, "d": d, "e": e, "u": u, "s": s, "vh": vh, "f": f, "g": g, "last": last, "w": w, "saved": late["x"]}
    assert set(tracer.results) == set(names)
    assert all(np.array_equal(tracer.results[name], value) for name, value in names.items())


def test_where_python_does_not_tell_places_a_line_has_one_variable(model, monkeypatch):
    from pellucid import _lines

    monkeypatch.setattr(_lines, "_place", lambda frame: None)
    with model.trace(PROMPT) as tracer:
        one = model.logits.save()
        two: pl.Tensor = model.layers[0].output.save()
        if one is not None: three = model.layers[1].output.save()  # noqa: E701
    assert set(tracer.results) == {"one", "two", "three"} and two.shape == three.shape


def test_every_form_of_writing_writes(model):
    def logits(edit):
        with model.trace(PROMPT):
            edit()
            out = model.logits[:, -1].save()
        return out.numpy()

    def plain():
        pass

    def item():
        model.layers[1].output[:, 2:4] = 0

    def zero_slice():
        model.layers[1].output[:, 2:4] *= 0

    def through_a_view():
        view = model.layers[1].output[0]
        view[2:4] = 0

    def through_two_views():
        model.layers[1].output.transpose(0, 1)[2:4].mul_(0)

    def through_a_reshape():
        model.layers[1].output.reshape(-1, 128)[2:4] = 0

    def through_a_permutation():
        model.layers[1].output.permute(2, 0, 1)[:, :, 2:4].fill_(0)

    def whole():
        h = model.layers[1].output
        mask = pl.ones(1, 10, 1)
        mask[:, 2:4] = 0
        model.layers[1].output = h * mask

    def in_place_whole():
        mask = pl.ones(1, 10, 1)
        mask[:, 2:4] = 0
        model.layers[1].output *= mask

    expected = logits(item)
    assert not np.array_equal(logits(plain), expected)
    for edit in (zero_slice, through_a_view, through_two_views, through_a_reshape, through_a_permutation, whole, in_place_whole):
        assert np.array_equal(logits(edit), expected), edit.__name__


def test_views_and_their_base_are_one(model):
    with model.trace(PROMPT):
        x = pl.zeros(3, 4)
        row = x[1]
        column = x[:, 2]
        row += 1
        column *= 10
        x[0, 0] = 5
        rows = row.clone().save()
        all_of_it = x.save()
        first = x[0].save()
    expected = np.zeros((3, 4), np.float32)
    expected[1] += 1
    expected[:, 2] *= 10
    rows_expected = expected[1].copy()
    expected[0, 0] = 5
    assert np.array_equal(all_of_it, expected) and np.array_equal(rows, rows_expected) and np.array_equal(first, expected[0])


def test_a_saved_tensor_is_what_it_is_in_the_end_and_a_clone_what_it_was(model):
    with model.trace(PROMPT):
        h = model.layers[0].output.save()
        before = h.clone().save()
        h[:] = 0
        logits = model.logits.save()
    assert np.all(h.numpy() == 0) and np.any(before.numpy() != 0) and logits.shape[-1] == 2048


def test_a_second_reader_of_a_hook_point_sees_what_the_first_wrote(model):
    with model.trace(PROMPT):
        a = model.layers[0].output
        b = model.transformer.h[0].output
        a[:, 0] = 1
        seen = b[:, 0].save()
        model.layers[0].output = pl.zeros(1, 10, 128)
        after = model.layers[0].output.save()
        old = a.save()
        model.logits[0, 0, 0].save()
    assert np.all(seen.numpy() == 1) and np.all(after.numpy() == 0) and np.any(old.numpy() != 0)


def test_invokes_and_values_between_them(model):
    with model.trace() as tracer:
        with tracer.invoke(CLEAN):
            source = model.layers[0].output[:, 9]
            clean = model.logits[0, -1].save()
        with tracer.invoke(CORRUPTED):
            before = model.logits[0, -1].save()
        with tracer.invoke(CORRUPTED):
            model.layers[0].output[:, 9] = source
            patched = model.logits[0, -1].save()
    mary, john = model.token(" Mary"), model.token(" John")
    difference = lambda x: float(x[mary] - x[john])
    assert difference(clean) > 3 and difference(before) < -3 and difference(patched) > 3


def test_several_prompts_are_one_by_one_bit_for_bit(model):
    prompts = [PROMPT, "The capital of France is", CLEAN]
    with model.trace(prompts):
        together = model.logits[:, -1].save()
    for number, prompt in enumerate(prompts):
        with model.trace(prompt):
            alone = model.logits[0, -1].save()
        assert same(together[number], alone)


def test_token_ids_and_what_a_tokenizer_gives_are_prompts(model):
    ids = model.tokenizer.encode(PROMPT)
    values = []
    for given in (PROMPT, ids, [ids], np.array([ids]), model.tokenizer([PROMPT])):
        with model.trace(given) as tracer:
            values.append(model.logits[0, -1].save())
            assert tracer.tokens.shape == (1, 10)
    assert all(same(values[0], other) for other in values)


def test_modules_can_be_applied_and_skipped(model):
    with model.trace(PROMPT):
        lens = model.lm_head(model.transformer.ln_f(model.transformer.h[3].output)).save()
        logits = model.lm_head.output.save()
    assert np.allclose(lens, logits, atol=1e-5)
    with model.trace(PROMPT):
        model.layers[2].mlp.skip(0.0)
        skipped = model.logits.save()
    with model.trace(PROMPT):
        model.layers[2].mlp.output = 0.0
        zeroed = model.logits.save()
    assert same(skipped, zeroed) and not np.array_equal(skipped, logits)


def test_weights_are_read_and_set(model):
    weight = model.transformer.h[1].mlp.c_proj.weight
    assert weight.shape == (512, 128) and np.any(weight.numpy() != 0)
    with model.trace() as tracer:
        with tracer.invoke(PROMPT):
            plain = model.logits.save()
        with tracer.invoke(PROMPT):
            model.transformer.h[1].mlp.c_proj.weight = weight * 0.5
            half = model.logits.save()
    assert not np.array_equal(plain, half)


def test_input_is_a_hook_point_too(model):
    with model.trace(PROMPT):
        model.layers[2].input[:] = 0
        a = model.layers[2].inputs[0][0].save()
        b = model.layers[1].output.save()
        model.logits[0, 0, 0].save()
    assert np.all(a.numpy() == 0) and np.any(b.numpy() != 0)


def test_patterns(model):
    with model.trace(PROMPT) as tracer:
        every = tracer.get("layers.*.output").save()
        one = model.layers[2].output.save()
    assert every.shape == (4, 1, 10, 128) and same(every[2], one)
    with model.trace(PROMPT) as tracer:
        tracer.set("layers.*.attention.output", 0.0)
        last = model.layers[3].attention.output.save()
        model.logits[0, 0, 0].save()
    assert np.all(last.numpy() == 0)


def test_a_cache_of_a_generation(model):
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        with tracer.all():
            everything = tracer.cache(modules=[model.layers[0]], pattern=None)
            outputs = model.layers[0].output.save()
        with tracer.iter[2]:
            last = tracer.cache(pattern="layers.*.output")
    assert [value.shape for value in everything["layers.0"].output] == [(1, 10, 128), (1, 1, 128), (1, 1, 128)]
    assert all(same(a, b) for a, b in zip(everything["layers.0.output"], outputs))
    assert same(last["layers.0"].output, outputs[2]) and last["layers.3.output"].shape == (1, 1, 128)


def test_a_cache_keeps_every_step(model):
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        cache = tracer.cache(modules=[model.layers[0]], include_inputs=True)
        named = tracer.cache("layers.*.attention.pattern")
        outputs = []
        for step in tracer.iter[:]:
            model.layers[0].output *= 0.5
            outputs.append(model.layers[0].output.save())
    kept = cache["model.transformer.h.0"]
    assert len(kept) == 3 and all(same(a, b) for a, b in zip(kept.output, outputs, strict=True))
    assert same(kept[1].output, outputs[1]) and same(kept[-1].output, outputs[2]) and kept[2].input.shape == (1, 1, 128)
    assert [each[0][0].shape for each in kept.inputs] == [(1, 10, 128), (1, 1, 128), (1, 1, 128)]
    assert [each.shape for each in named["layers.1.attention.pattern"]] == [(1, 4, 10, 10), (1, 4, 1, 11), (1, 4, 1, 12)]
    assert same(cache.layers[0][2].output, outputs[2]) and len(named) == 4
    with model.generate(PROMPT, max_new_tokens=2, stop_tokens=[]) as tracer:
        cache = tracer.cache(["blocks.*.hook_resid_post", "model.transformer.h.1.mlp", model.layers[2].attention, "transformer.h.*.mlp.post"])
    assert len(cache) == 4 + 1 + 1 + 4 and same(cache["resid_post", 1][1], cache["layers.1"].output[1])


def test_a_cache_keeps_what_flows_on(model):
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(modules=[model.layers[1]])
        model.layers[1].output[:, -1] = 0
        after = model.layers[1].output.save()
        model.logits[0, 0, 0].save()
    assert same(cache["layers.1"].output, after) and not after[0, -1].numpy().any() and len(cache["layers.1"]) == 1


def test_a_cache_in_a_block_that_an_exception_leaves(model):
    with model.generate(PROMPT, max_new_tokens=2) as tracer:
        try:
            with tracer.all():
                cache = tracer.cache(modules=[model.layers[0]])
                raise KeyError
        except KeyError:
            pass
        tracer.result.save("tokens")
    with pytest.raises(pl.NotComputedError, match="exception left"):
        cache["layers.0"]


def test_a_cache(model):
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(modules=[model.transformer.h[0], "layers.2.mlp"], include_inputs=True)
        h = model.layers[0].output.save()
        everything = tracer.cache()
    assert same(cache["transformer.h.0"].output, h) and same(cache["layers.0"].output, h)
    assert same(cache["model.transformer.h.0"].output, h)
    assert cache["transformer.h.2.mlp"].input.shape == (1, 10, 128)
    assert everything["layers.3.attention"].output.shape == (1, 10, 128) and len(everything) > 20


def test_transformer_lens_forms(model):
    logits, cache = model.run_with_cache(PROMPT, names=["layers.*.output", "blocks.1.attn.hook_pattern"])
    assert cache["layers.1.output"].shape == (1, 10, 128) and cache["layers.1.attention.pattern"].shape == (1, 4, 10, 10)

    def zero(value, hook):
        value[:, :, 0] = 0

    def scale(value):
        return value * 0.5

    edited = model.run_with_hooks(PROMPT, fwd_hooks=[("blocks.1.attn.hook_z", zero), ("layers.2.mlp.output", scale)])
    with model.trace(PROMPT):
        model.layers[1].attention.mixed[:, :, 0] = 0
        model.layers[2].mlp.output *= 0.5
        expected = model.logits.save()
    assert same(edited, expected) and not same(edited, logits)


def test_edits_of_a_model(model):
    with model.edit() as calm:
        calm.layers[2].output *= 0.9
    with calm.trace(PROMPT):
        calmed = calm.logits.save()
    with model.trace(PROMPT):
        plain = model.logits.save()
    with model.trace(PROMPT):
        model.layers[2].output *= 0.9
        expected = model.logits.save()
    assert same(calmed, expected) and not same(plain, expected)
    with calm.generate(PROMPT, max_new_tokens=3) as tracer:
        tokens = tracer.result.save()
    with model.generate(PROMPT, max_new_tokens=3) as tracer:
        with tracer.all():
            model.layers[2].output *= 0.9
        again = tracer.result.save()
    assert same(tokens, again)


def test_stop_leaves_the_rest_of_the_block(model):
    reached = []
    with model.trace(PROMPT) as tracer:
        h = model.layers[0].output.save()
        tracer.stop()
        reached.append(1)
    assert not reached and h.shape == (1, 10, 128)
    assert tracer.results.report["passes"] == 1


def test_shapes_are_known_before_anything_runs(model):
    with model.scan(PROMPT) as tracer:
        h = model.layers[0].output
        assert h.shape == (1, 10, 128) and h.dtype == pl.float32 and len(h) == 1 and h.ndim == 3
        assert h.reshape(1, 10, 4, 32).permute(0, 2, 1, 3).shape == (1, 4, 10, 32)
        left, right = h.split(64, dim=-1)
        assert left.shape == right.shape == (1, 10, 64)
        assert h.topk(3).indices.dtype == pl.int64
    assert h.shape == (1, 10, 128)
    with pytest.raises(pl.NotComputedError, match="only checked"):
        h.numpy()


def test_a_part_can_be_set_from_another_part_of_the_same(model):
    with model.trace(PROMPT):
        h = model.layers[1].output
        before = h[:, 2].clone().save()
        h[:, 5] = h[:, 2]
        written = model.layers[1].output[:, 5].save()
        x = pl.arange(4).float()
        x[0] = x[3]
        part = x[1:3]
        x[1] = 7
        part.save(), x.save()
        model.logits[0, 0, 0].save()
    assert same(before, written) and x.tolist() == [3, 7, 2, 3] and part.tolist() == [7, 2]
