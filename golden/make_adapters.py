"""Adapters and sparse autoencoders, and what they make of small models: by `peft` itself, and by plain torch.

Writes `adapters/<name>/`: the files as `peft` and SAELens lay them out, `expected.json` and `expected.safetensors`.
"""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tiny_gpt2 import TinyGpt2
from transformers import AutoModelForCausalLM

FOLDER = Path(__file__).parent / "adapters"
MODELS = Path(__file__).parent / "models"
PROMPT = "When Mary and John went to the store, John gave a drink to"


def write(name, expected, tensors):
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    save_file({key: value.detach().float().contiguous() for key, value in tensors.items()}, folder / "expected.safetensors")


def lora(name, model, model_path, ids, config):
    """An adapter of random numbers, saved by `peft`, and the model's logits with it."""
    model.requires_grad_(False)
    plain = model(input_ids=torch.tensor([ids])).logits
    adapted = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in adapted.named_parameters():
            if "lora_" in key:
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        logits = adapted(input_ids=torch.tensor([ids])).logits
    if (logits - plain).abs().max() < 0.1:
        raise ValueError(f"{name}: the adapter does nothing to speak of")
    adapted.save_pretrained(FOLDER / name)
    (FOLDER / name / "README.md").unlink(missing_ok=True)
    path = FOLDER / name / "adapter_config.json"
    saved = json.loads(path.read_text())
    # peft keeps modules as a set, in no order.
    saved |= {"base_model_name_or_path": model_path, "target_modules": sorted(saved["target_modules"])}
    path.write_text(json.dumps(saved, indent=2) + "\n")
    write(name, {"model": model_path, "ids": ids}, {"logits": logits[0, -1], "plain_logits": plain[0, -1]})


def autoencoder(gpt2, name, layer, configuration, normalise, activate):
    """A random autoencoder at a block's output, what it says there, and the logits with it in the block's place."""
    generator = torch.Generator().manual_seed(1)
    width, features = 128, 96
    randn = lambda *shape: torch.randn(*shape, generator=generator)
    weights = {"W_enc": randn(width, features) / 8, "b_enc": 0.2 * randn(features), "W_dec": randn(features, width) / 12, "b_dec": 0.2 * randn(width)}
    if configuration["architecture"] == "jumprelu":
        weights["threshold"] = 0.5 * torch.rand(features, generator=generator)
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(configuration | {
        "d_in": width, "d_sae": features, "dtype": "float32", "hook_name": f"blocks.{layer}.hook_resid_post", "hook_head_index": None}, indent=1) + "\n")
    kept = {}

    def splice(change, with_error):
        def function(x):
            inside, back = normalise(x)
            shifted = inside - weights["b_dec"] if configuration["apply_b_dec_to_input"] else inside
            found = activate(shifted @ weights["W_enc"] + weights["b_enc"], weights)
            decode = lambda found: back(found @ weights["W_dec"] + weights["b_dec"])
            kept.update(x=x, features=found, reconstruction=decode(found))
            return decode(change(found)) + (x - decode(found) if with_error else 0)

        with gpt2.edit(gpt2.block(layer), "output", function):
            return gpt2.logits([gpt2.ids(PROMPT)])[0, -1]

    identity = splice(lambda found: found, True)
    replaced = splice(lambda found: found, False)
    doubled = splice(lambda found: 2 * found, True)
    write(name, {"prompt": PROMPT, "layer": layer}, {
        "features": kept["features"], "reconstruction": kept["reconstruction"], "identity_logits": identity,
        "replaced_logits": replaced, "doubled_logits": doubled})


def layer_norm(x):
    mean = x.mean(-1, keepdim=True)
    deviation = (x - mean).std(-1, keepdim=True)
    return (x - mean) / (deviation + 1e-5), lambda y: y * deviation + mean


def constant_norm(x):
    factor = x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True)
    return x * factor, lambda y: y / factor


def jump_relu(x, weights):
    return x.relu() * (x > weights["threshold"])


def top_k(x, weights):
    found = x.topk(12, dim=-1)
    return torch.zeros_like(x).scatter(-1, found.indices, found.values.relu())


def main():
    gpt2 = TinyGpt2()
    autoencoder(gpt2, "sae-jumprelu", 1, {"architecture": "jumprelu", "apply_b_dec_to_input": False, "normalize_activations": "layer_norm"}, layer_norm, jump_relu)
    autoencoder(gpt2, "sae-topk", 2, {"architecture": "topk", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 12}, "apply_b_dec_to_input": True,
                                      "normalize_activations": "constant_norm_rescale"}, constant_norm, top_k)
    lora("lora-gpt2", gpt2.model, "models/tiny-gpt2/model", gpt2.ids(PROMPT), LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, use_rslora=True, fan_in_fan_out=True, target_modules=["c_attn", "mlp.c_proj"],
        rank_pattern={"h.1.attn.c_attn": 2}, alpha_pattern={"h.1.attn.c_attn": 16, "h.2.mlp.c_proj": 3}))
    name = "llama3"
    golden = json.loads((MODELS / name / "golden.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(MODELS / name, dtype=torch.float32, attn_implementation="eager").eval()
    lora("lora-llama", model, f"golden/models/{name}", golden["prompts"][0], LoraConfig(
        task_type="CAUSAL_LM", r=3, lora_alpha=24, target_modules=["q_proj", "v_proj", "down_proj"]))


if __name__ == "__main__":
    main()
