"""Adapters and autoencoders: held to what `peft` and plain torch give (`golden/make_adapters.py`)."""

import json
import pathlib
import struct

import numpy as np
import pellucid as pl
import pytest
from conftest import PROMPT

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Expected:
    """What an independent implementation made of one adapter."""

    def __init__(self, name):
        folder = ROOT / "golden/adapters" / name
        self.folder, self.json = folder, json.loads((folder / "expected.json").read_text())
        data = (folder / "expected.safetensors").read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        self.arrays = {
            key: np.frombuffer(data[8 + length :][slice(*about["data_offsets"])], np.float32)
            for key, about in json.loads(data[8 : 8 + length]).items() if key != "__metadata__"
        }

    def holds(self, key, got, bound):
        want = self.arrays[key]
        np.testing.assert_allclose(got.numpy().reshape(-1), want, rtol=0, atol=bound * np.abs(want).max(), err_msg=key)


@pytest.mark.parametrize("name", ["lora-gpt2", "lora-llama"])
def test_adapters_give_what_peft_gives(name):
    expected = Expected(name)
    model = pl.Model(ROOT / expected.json["model"])
    lora = pl.Lora(expected.folder)
    with model.trace() as tracer:
        with tracer.invoke([expected.json["ids"]]):
            plain = model.logits[0, -1].save()
        with tracer.invoke([expected.json["ids"]]):
            lora.attach(model)
            adapted = model.logits[0, -1].save()
    expected.holds("plain_logits", plain, 1e-5)
    expected.holds("logits", adapted, 1e-5)
    with model.edit() as edited:
        lora.attach(edited)
    with edited.trace([expected.json["ids"]]):
        again = edited.logits[0, -1].save()
    assert np.array_equal(again, adapted)


def test_an_adapter_is_trained_and_written(model, tmp_path):
    lora = pl.Lora.new(model, 2, 8.0, ["mlp.c_fc"])
    assert lora.modules == [f"transformer.h.{layer}.mlp.c_fc" for layer in range(4)]
    answer = pl.tensor([model.token(" Oslo")])
    prompt = "The White Tower is in the city of"
    with model.session() as session:
        with session.loop(10, carry=lora.parameters) as loop:
            with model.trace(prompt):
                matrices = {name: loop[name] for name in lora.parameters}
                lora.attach(model, matrices)
                loss = pl.cross_entropy(model.logits[:, -1], answer)
                with loss.backward():
                    gradients = {name: value.grad for name, value in matrices.items()}
            loop.next(**{name: loop[name] - 0.05 * gradients[name] for name in matrices})
            losses = loss.save()
        trained = {name: loop[name].save(f"trained_{name}") for name in lora.parameters}
        with model.trace(prompt):
            lora.attach(model, {name: loop[name] for name in lora.parameters})
            inside = model.logits[0, -1].save()
    assert float(losses[-1]) < float(losses[0])
    new = lora.with_parameters(trained)
    new.save(tmp_path / "adapter")
    with model.trace(prompt):
        pl.Lora(tmp_path / "adapter").attach(model)
        outside = model.logits[0, -1].save()
    assert np.array_equal(inside, outside)


def test_an_adapter_travels_once_however_often_it_is_attached(model):
    lora = pl.Lora(ROOT / "golden/adapters/lora-gpt2")
    with model.generate(max_new_tokens=3, stop_tokens=[]) as tracer:
        for _ in range(2):
            with tracer.invoke(PROMPT):
                with tracer.all():
                    lora.attach(model)
                tracer.generated.save()
    constants = [node for node in json.loads(tracer.program.json())["body"] if node["op"] == "constant"]
    assert 0 < len(constants) <= 2 * len(lora.modules)


def test_what_does_not_fit_is_said(model):
    with pytest.raises(pl.ModelError, match="it has no linear layer"):
        with model.trace(PROMPT):
            pl.Lora(ROOT / "golden/adapters/lora-llama").attach(model)
    with pytest.raises(pl.ModelError, match="there are c_attn, c_fc, c_proj"):
        pl.Lora.new(model, 2, 2.0, ["q_proj"])
    with pytest.raises(pl.ModelError, match="adapter_config.json"):
        pl.Lora(ROOT / "golden/adapters/sae-topk")
    lora = pl.Lora.new(model, 2, 2.0, ["c_fc"])
    with pytest.raises(pl.ModelError):
        lora.with_parameters({"a0": pl.zeros(3, 128)})
    with pytest.raises(KeyError, match="no matrix `c0`"):
        with model.trace(PROMPT):
            lora.attach(model, {"c0": pl.zeros(2, 2)})


@pytest.mark.parametrize("name", ["sae-jumprelu", "sae-topk"])
def test_autoencoders_give_what_plain_torch_gives(model, name):
    expected = Expected(name)
    autoencoder = pl.SparseAutoencoder(expected.folder)
    hook = autoencoder.hook_point(model)
    assert hook == f"layers.{expected.json['layer']}.output"
    prompt = expected.json["prompt"]
    logits = {}
    with model.trace() as tracer:
        with tracer.invoke(prompt):
            found = autoencoder.read(model)
            features = found.features[0].save()
            reconstruction = (model[hook] - found.error)[0].save()
        for key in ("replaced", "doubled", "identity"):
            with tracer.invoke(prompt):
                with autoencoder.splice(model) as splice:
                    if key == "replaced":
                        splice.error *= 0
                    elif key == "doubled":
                        splice.features *= 2
                logits[key] = model.logits[0, -1].save(key)
    expected.holds("features", features, 1e-5)
    expected.holds("reconstruction", reconstruction, 1e-5)
    for key, value in logits.items():
        expected.holds(f"{key}_logits", value, 2e-5)


def changed(tmp_path, **fields):
    """The golden autoencoder with some fields of its configuration changed."""
    source = ROOT / "golden/adapters/sae-topk"
    (tmp_path / "sae_weights.safetensors").write_bytes((source / "sae_weights.safetensors").read_bytes())
    (tmp_path / "cfg.json").write_text(json.dumps({**json.loads((source / "cfg.json").read_text()), **fields}))
    return pl.SparseAutoencoder(tmp_path)


@pytest.mark.parametrize("fields", [
    {"hook_name": "blocks.1.attn.hook_z"},
    {"normalize_activations": "layer_norm"},
    {"normalize_activations": "constant_norm_rescale"},
    {"apply_b_dec_to_input": False, "model_from_pretrained_kwargs": {"center_writing_weights": False}},
])
def test_what_is_decoded_plus_the_error_is_what_was_there(model, tmp_path, fields):
    autoencoder = changed(tmp_path, **fields)
    hook = autoencoder.hook_point(model)
    with model.trace() as tracer:
        with tracer.invoke(PROMPT):
            plain = model[hook].save()
        with tracer.invoke(PROMPT):
            with autoencoder.splice(model) as splice:
                pass
            features, spliced = splice.features.save(), model[hook].save()
    assert features.shape == (1, 10, autoencoder.features) and float(features.sum()) > 0
    np.testing.assert_allclose(spliced, plain, atol=1e-4)


def test_a_feature_is_ablated_in_place(model):
    autoencoder = pl.SparseAutoencoder(ROOT / "models/tiny-gpt2/sae")
    with model.trace("The movie was awful. I") as tracer:
        with autoencoder.splice(model) as splice:
            before = splice.features.clone().save()
            splice.features[:, -1, splice.features[0, -1].argmax()] = 0
        after = splice.features.save()
        model.logits[0, -1].save()
    assert int((before.numpy() != after.numpy()).sum()) == 1
    with pytest.raises(pl.ModelError, match="cfg.json"):
        pl.SparseAutoencoder(ROOT / "golden/adapters/lora-gpt2")


def test_an_autoencoder_that_does_not_fit_says_so(model):
    autoencoder = pl.SparseAutoencoder(ROOT / "models/tiny-gpt2/sae")
    for use in (autoencoder.read, lambda *where: autoencoder.splice(*where).__enter__()):
        with pytest.raises(pl.ModelError, match="reads values 128 wide, and `layers.1.mlp.post` is 512 wide"):
            with model.trace(PROMPT):
                use(model, "layers.1.mlp.post")


STEERING = pl.Steering("layers.1.output", np.linspace(-1, 1, 128, dtype=np.float32), scale=2.0)


def steered(model, write):
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        write(tracer)
        cache = tracer.cache(modules=[model.layers[2]])
    return [each.numpy() for each in cache["layers.2"].output]


def test_a_steering_vector_is_applied_by_tracer_model_and_edit(model):
    right = steered(model, STEERING.apply)
    plain = steered(model, lambda tracer: None)
    assert all(not np.array_equal(a, b) for a, b in zip(right, plain, strict=True))
    with model.edit() as edited:
        STEERING.apply(edited)

    def body(tracer):
        with tracer.all():
            STEERING.apply(model)

    def loop(tracer):
        for _ in tracer.iter[:]:
            STEERING.apply(tracer)

    for found in (steered(model, lambda _: STEERING.apply(model)), steered(edited, lambda _: None), steered(model, body), steered(model, loop)):
        assert all(np.array_equal(a, b) for a, b in zip(found, right, strict=True))


def test_a_steering_vector_of_some_tokens(model):
    vector = STEERING.vector
    late = pl.Steering("layers.1.output", vector, positions=slice(-2, None), generated=False)
    whole, some = steered(model, lambda tracer: None), steered(model, late.apply)
    assert np.array_equal(whole[0][:, :-2], some[0][:, :-2]) and not np.array_equal(whole[0][:, -2:], some[0][:, -2:])

    def loop(tracer):
        for _ in tracer.iter[:]:
            late.apply(model)

    assert all(np.array_equal(a, b) for a, b in zip(steered(model, loop), some, strict=True))
    with pytest.raises(pl.PellucidError, match="this vector is for some"):
        with model.edit() as edited:
            late.apply(edited)
    with pytest.raises(pl.NotComputedError, match="outside of a trace"):
        late.apply(model)


def test_adapters_go_to_a_service(model, remote):
    lora = pl.Lora.new(remote, 2, 8.0, ["c_attn", "mlp.c_proj"], seed=5)
    here = pl.Lora.new(model, 2, 8.0, ["c_attn", "mlp.c_proj"], seed=5)
    assert lora.modules == here.modules
    assert all(np.array_equal(lora.parameters[name], here.parameters[name]) for name in here.parameters)
    golden = pl.Lora(ROOT / "golden/adapters/lora-gpt2")
    values = []
    for each in (model, remote):
        with each.trace(PROMPT):
            golden.attach(each)
            values.append(each.logits[0, -1].save("adapted"))
    assert values[0]._core.is_same(values[1]._core)
