"""TransformerLens' forms: runs with a cache and with hooks, names whole and short, patterns, filters."""

import pathlib

import numpy as np
import pellucid as pl
import pytest
from conftest import CLEAN, PROMPT
from pellucid._lens_names import lens_names


def traced(model, path):
    with model.trace(PROMPT):
        value = model[path].save()
    return value.numpy()


def test_hooks_by_pattern_are_called_for_each_hook_point(model):
    seen = []

    def half(value, hook):
        seen.append((str(hook), hook.name, hook.layer()))
        return value * 0.5

    logits = model.run_with_hooks(PROMPT, fwd_hooks=[("layers.*.mlp.output", half)])
    with model.trace(PROMPT):
        for layer in model.layers:
            layer.mlp.output = layer.mlp.output * 0.5
        expected = model.logits.save()
    assert np.array_equal(logits, expected)
    assert seen == [(f"layers.{k}.mlp.output", f"blocks.{k}.hook_mlp_out", k) for k in range(4)]
    for names in ("blocks.*.hook_mlp_out", "blocks[0:4].hook_mlp_out", "layers[0,1,2,3].mlp.output", lambda name: name.endswith("hook_mlp_out")):
        seen.clear()
        assert np.array_equal(model.run_with_hooks(PROMPT, fwd_hooks=[(names, half)]), expected) and len(seen) == 4


def test_hooks_change_in_place_or_return_and_leave_word_for_one_another(model):
    def first(value, hook):
        hook.ctx["mean"] = value.mean()
        value[:, -1] = 0

    def second(value, hook):
        assert "mean" in hook.ctx

    name = "blocks.1.hook_resid_post"
    logits = model.run_with_hooks(PROMPT, fwd_hooks=[(name, first), (name, second), ("blocks.2.attn.hook_z", lambda z: z * 0)])
    with model.trace(PROMPT):
        model.layers[1].output[:, -1] = 0
        model.layers[2].attention.mixed = model.layers[2].attention.mixed * 0
        expected = model.logits.save()
    assert np.array_equal(logits, expected)


def test_a_cache_answers_to_the_names_it_was_asked_by(model):
    _, cache = model.run_with_cache(PROMPT, names_filter=["blocks.1.attn.hook_pattern", "blocks.*.hook_resid_post", "ln_final.hook_normalized", "hook_pos_embed"])
    right = traced(model, "layers.1.attention.pattern")
    for key in ("blocks.1.attn.hook_pattern", ("pattern", 1), ("pattern", 1, "attn"), ("pattern", -3), "layers.1.attention.pattern"):
        assert np.array_equal(cache[key], right)
    assert np.array_equal(cache["resid_post", -1], traced(model, "layers.3.output"))
    assert np.array_equal(cache["ln_final.hook_normalized"], traced(model, "final_norm.output")) and np.array_equal(cache["normalized",], cache["final_norm.output"])
    assert cache["hook_pos_embed"].shape[-1] == 128 and np.array_equal(cache["pos_embed",], cache["transformer.wpe.output"])
    with pytest.raises(KeyError):
        cache["blocks.1.attn.hook_z"]
    with pytest.raises(KeyError, match="no standard name"):
        cache["blocks.1.hook_nonsense"]


def test_a_cache_is_gone_through_like_the_model(model):
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache()
        kept = model.layers[1].mlp.output.save()
        entered = model.layers[1].mlp.input.save()
    with model.trace(PROMPT) as tracer:
        inputs = tracer.cache(modules=[model.layers[1].mlp], include_inputs=True)
    for found in (
        cache[model.layers[1].mlp].output, cache.layers[1].mlp.output, cache.transformer.h[1].mlp.output, cache.model.transformer.h[1].mlp.output,
        cache["layers.1"].mlp.output, cache["model.transformer.h.1.mlp"].output,
    ):
        assert np.array_equal(found, kept)
    assert np.array_equal(inputs["layers.1.mlp"].inputs[0][0], entered)
    with pytest.raises(KeyError, match="layers.9"):
        cache.layers[9]
    with pytest.raises(AttributeError):
        cache.layers[1].nonsense
    with pytest.raises(KeyError):
        cache["nonsense"]


def test_filters_are_names_patterns_or_functions(model):
    _, all_of_it = model.run_with_cache(PROMPT)
    _, patterns = model.run_with_cache(PROMPT, names_filter=lambda name: name.endswith("pattern"))
    assert len(patterns) == 4 and len(all_of_it) > 60
    assert np.array_equal(patterns["pattern", 2], all_of_it["blocks.2.attn.hook_pattern"])
    _, one = model.run_with_cache(PROMPT, names_filter="blocks.0.hook_resid_pre")
    assert list(one) == ["transformer.h.0.input"]
    with pytest.raises(KeyError, match="none"):
        model.run_with_cache(PROMPT, names_filter=lambda name: False)
    with pytest.raises(TypeError, match="names_filter"):
        model.run_with_cache(PROMPT, names="x", names_filter="y")


def test_what_a_run_returns(model):
    prompts = [PROMPT, CLEAN]
    logits, loss = model.run_with_hooks(prompts, return_type="both")
    chances, total, count = [], 0.0, 0
    for prompt in prompts:
        own = model.run_with_hooks(prompt).numpy()[0]
        ids = model.tokenizer.encode(prompt)
        log = own - np.log(np.exp(own - own.max(-1, keepdims=True)).sum(-1, keepdims=True)) - own.max(-1, keepdims=True)
        chances = [log[place, token] for place, token in enumerate(ids[1:])]
        total, count = total - sum(chances), count + len(chances)
    assert abs(float(loss) - total / count) < 1e-4 and logits.shape[0] == 2
    assert abs(float(model.run_with_hooks(prompts, return_type="loss")) - total / count) < 1e-4
    nothing, cache = model.run_with_cache(PROMPT, names=["layers.1.output"], return_type=None, reset_hooks_end=True)
    assert nothing is None and len(cache) == 1
    assert model.run_with_hooks(PROMPT, return_type=None) is None
    with pytest.raises(ValueError, match="return_type"):
        model.run_with_hooks(PROMPT, return_type="tokens")


def test_what_is_not_there_is_said(model):
    with pytest.raises(pl.NotComputedError, match="bwd_hooks"):
        model.run_with_hooks(PROMPT, bwd_hooks=[("blocks.0.hook_resid_post", lambda grad, hook: grad)])
    with pytest.raises(TypeError, match="reset_hooks_end|hooks belong"):
        model.run_with_hooks(PROMPT, reset_hooks_end=False)
    with pytest.raises(KeyError, match="no hook point matches"):
        model.run_with_hooks(PROMPT, fwd_hooks=[("layers.*.nonsense", lambda value: value)])
    with pytest.raises(TypeError, match="stop_at_layer"):
        model.run_with_hooks(PROMPT, stop_at_layer=2)


@pytest.mark.parametrize("family", ["llama3", "gemma2", "gpt-neox", "opt"])
def test_names_mean_what_they_do_there(family):
    model = pl.Model(str(pathlib.Path(__file__).resolve().parents[2] / "golden/models" / family))
    logits, cache = model.run_with_cache([[5, 6, 7, 8]], names_filter=lambda name: name.startswith(("blocks.", "hook_", "ln_final.")))
    keys = {path: cache[name] for path, name in lens_names(model._tree).items() if name != "unembed.hook_out"}
    assert len(keys) > 50 and all(np.array_equal(cache[path], value) for path, value in keys.items())
    before, attention, mlp, after = (cache[name, 1].numpy() for name in ("resid_pre", "attn_out", "mlp_out", "resid_post"))
    assert np.allclose(before + attention + mlp, after, atol=1e-4)
    if family != "gpt-neox":  # its branches are side by side
        assert np.allclose(before + attention, cache["resid_mid", 1], atol=1e-4)
    if family in ("llama3", "gemma2"):
        q, rotated = cache["q", 1].numpy(), cache["rot_q", 1].numpy()
        assert np.allclose(q[:, 0], rotated[:, 0], atol=1e-5) and not np.allclose(q[:, 2], rotated[:, 2], atol=1e-3)
    # Twice what a hook gives is what a write at that name gives.
    doubled = model.run_with_hooks([[5, 6, 7, 8]], fwd_hooks=[("blocks.*.hook_attn_out", lambda value: value * 2)])
    assert not np.allclose(doubled, logits, atol=1e-3)


def test_the_residual_stream_is_the_sum_of_what_is_written_into_it(model):
    _, cache = model.run_with_cache(PROMPT)
    for layer, end in ((None, cache["resid_post", 3]), (-1, cache["resid_post", 3]), (2, cache["resid_pre", 2])):
        parts, names = cache.decompose_resid(layer, return_labels=True)
        assert names[:4] == ["embed", "pos_embed", "0_attn_out", "0_mlp_out"] and len(names) == len(parts) == (6 if layer == 2 else 10)
        assert np.allclose(parts.sum(0), end, atol=1e-5)
        streams, names = cache.accumulated_resid(layer, incl_mid=True, return_labels=True)
        assert names[:3] == ["0_pre", "0_mid", "1_pre"] and names[-1] == ("2_pre" if layer == 2 else "final_post")
        assert np.array_equal(streams[-1], end) and np.array_equal(streams[1], cache["resid_mid", 0])
        assert np.array_equal(streams[::2], cache.accumulated_resid(layer))
    heads = cache.decompose_resid(mode="attn", incl_embeds=False)
    assert np.array_equal(heads, np.stack([cache["attn_out", layer] for layer in range(4)]))
    with pytest.raises(ValueError, match="`mode`"):
        cache.decompose_resid(mode="heads")
    _, few = model.run_with_cache(PROMPT, names_filter="layers.*.output")
    with pytest.raises(KeyError, match="`hook_embed` is not in the cache"):
        few.decompose_resid()
    with model.generate(PROMPT, max_new_tokens=2) as tracer:
        kept = tracer.cache(pattern="**")
        tracer.result.save()
    with pytest.raises(pl.NotComputedError, match="a tensor for each step"):
        kept.decompose_resid()
