"""Makes golden/models/: tiny random models of every family, and the values transformers computes with them.

    python make_models.py [name ...]

See README.md for the format. Everything follows from the seeds in families.py; a second run writes the same bytes.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers
from capture import (Capture, is_attention, is_mlp, is_norm, layers_of, output_projection)
from families import TINY_MODELS, TinyModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

ROOT = Path(__file__).parent / "models"
VOCABULARY = 96
# The first three are the batch of unequal lengths; the last is as long as the first, for the patched residual.
PROMPT_LENGTHS = [12, 7, 3, 12]
NEW_TOKENS = 10
# Below this the greedy choice would hang on rounding.
LEAST_LOGIT_GAP = 1e-2


def random_weights(model, seed):
    """Weights for which no part of the model is degenerate: scores spread enough for a pattern that is neither flat nor
    one-hot, biases that are not zero, norms that are not one."""
    generator = torch.Generator().manual_seed(seed)
    is_gemma = model.config.model_type.startswith("gemma")
    for path, module in model.named_modules():
        if path == "lm_head" and model.config.tie_word_embeddings:
            continue
        for name, parameter in module.named_parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator)
            if is_norm(module):
                centre = 0.0 if is_gemma or name == "bias" else 1.0
                # Gemma's embedding is scaled up on its way in and tied to the unembedding: it is kept small, or every
                # token would predict itself, which is made up for here.
                centre += 9.0 if is_gemma and path == "model.norm" else 0.0
                value = centre + 0.3 * noise
            elif name == "bias":
                value = 0.2 * noise
            elif isinstance(module, torch.nn.Embedding):
                value = noise * (0.04 if is_gemma else 0.6)
            elif path == "lm_head":
                value = 0.5 * noise
            else:
                inputs = parameter.shape[0] if type(module).__name__ == "Conv1D" else parameter.shape[1]
                value = noise * 1.3 * inputs**-0.5
            parameter.copy_(value)


def write_checkpoint(model, tiny: TinyModel, folder: Path):
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    if tiny.storage == "bare":
        tensors = {name.removeprefix(model.base_model_prefix + "."): tensor for name, tensor in tensors.items()}
    if tiny.storage == "embed_out":
        tensors["embed_out.weight"] = tensors.pop("lm_head.weight")
    if tiny.storage == "bfloat16":
        tensors = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    for path, _ in layers_of(model):
        for name in tiny.stale_tensors:
            path = path.removeprefix(model.base_model_prefix + ".") if tiny.storage == "bare" else path
            stale = torch.tensor(-1e4) if name.endswith("masked_bias") else torch.ones(1, 1, 8, 8).tril()
            tensors[f"{path}.{name}"] = stale if tiny.storage == "bare" else stale.to(torch.float16)
    if tiny.storage != "sharded":
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {}
    for shard, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"model-{shard:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_json(path, value):
    """One member a line, however deep it is: short files with readable differences."""
    if isinstance(value, dict):
        lines = [f" {json.dumps(key)}: {json.dumps(member)}" for key, member in value.items()]
    else:
        lines = [f" {json.dumps(member)}" for member in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    path.write_text(opening + "\n" + ",\n".join(lines) + "\n" + closing + "\n")


def ids_of(tokens):
    return torch.tensor([tokens])


def logits_of(model, tokens):
    return model(input_ids=ids_of(tokens), use_cache=False).logits[0]


def check_left_padding(model, prompts, alone):
    """A batch, padded on the left as tokenizers do, says the same as its prompts one by one."""
    length = max(map(len, prompts))
    ids = torch.tensor([[0] * (length - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    batch = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    for row, logits in zip(batch, alone):
        torch.testing.assert_close(row[length - len(logits) :], logits, atol=1e-4, rtol=1e-4)


def generate(model, prompt):
    """Greedy ids and the logits of each step, without a cache; checked against transformers' own generation."""
    tokens, steps = list(prompt), []
    for _ in range(NEW_TOKENS):
        logits = logits_of(model, tokens)[-1]
        best = logits.topk(2).values
        if (best[0] - best[1]).item() < LEAST_LOGIT_GAP:
            raise ValueError("a greedy choice is too close: take another seed")
        steps.append(logits)
        tokens.append(logits.argmax().item())
    model.generation_config.eos_token_id = None
    ids = ids_of(prompt)
    theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False,
                            pad_token_id=0, eos_token_id=None)[0].tolist()
    if theirs != tokens:
        raise ValueError("generation with a cache differs")
    return tokens[len(prompt) :], torch.stack(steps)


def with_hook(register, hook, model, tokens):
    handle = register(hook)
    try:
        return logits_of(model, tokens)
    finally:
        handle.remove()


def interventions(model, prompt, other, seed):
    """Three edits by plain hooks. Returns the tensors, and what each edit is."""
    layers = layers_of(model)
    (path_0, layer_0), (path_1, layer_1) = layers[0], layers[1]
    attention_path, attention = next((p, m) for p, m in layer_1.named_modules() if is_attention(m))
    projection = output_projection(attention)
    heads = model.config.num_attention_heads
    size = next(projection.parameters()).numel() // model.config.hidden_size // heads

    def zero_head(module, args):
        mixed = args[0].clone()
        mixed[..., :size] = 0
        return (mixed,)

    source = {}
    with_hook(layer_1.register_forward_hook, lambda m, a, output: source.update(value=output.clone()), model, other)

    def patch(module, args, output):
        output = output.clone()
        output[:, 3] = source["value"][:, 3]
        return output

    vector = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(seed + 1000))

    def add(module, args, output):
        output = output.clone()
        output[:, -1] += vector
        return output

    tensors = {
        "intervention.zero_head.logits": with_hook(projection.register_forward_pre_hook, zero_head, model, prompt),
        "intervention.patch_residual.logits": with_hook(layer_1.register_forward_hook, patch, model, prompt),
        "intervention.add_vector.logits": with_hook(layer_0.register_forward_hook, add, model, prompt),
        "intervention.add_vector.vector": vector,
    }
    baseline = logits_of(model, prompt)
    for key, value in tensors.items():
        if key.endswith("logits") and (value - baseline).abs().max() < 0.05:
            raise ValueError(f"{key} hardly differs from the baseline")
    described = {
        "zero_head": f"{path_1}.{attention_path}.mixed[:, :, 0] = 0",
        "patch_residual": f"{path_1}.output[:, 3] = the same hook point's [:, 3] for prompt 3",
        "add_vector": f"{path_0}.output[:, -1] += vector",
    }
    return tensors, described


def gradients(model, prompt):
    """The gradient of one logit difference at the last position, at hook points of every kind."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    capture = Capture(model, keep_gradients=True)
    with torch.enable_grad():
        with capture.recording():
            logits = logits_of(model, prompt)
        (logits[-1, 5] - logits[-1, 9]).backward()
    embedding = model.get_input_embeddings()
    wanted = {path for path, module in model.named_modules()
              if is_attention(module) or is_mlp(module) or is_norm(module) or module is embedding}
    wanted |= {path for path, _ in layers_of(model)}
    values = {key: value.grad for key, value in capture.values.items() if value.is_floating_point()}
    for key, value in values.items():
        if value is None:
            raise ValueError(f"no gradient at {key}")
    capture.values = values
    kept = capture.unflattened(len(prompt))
    return {f"gradient.{key}": value for key, value in kept.items() if key.rpartition(".")[0] in wanted}


def module_list(model, capture):
    listing = []
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) or "rotary" in path:
            continue
        given, made = capture.calls[path]
        listing.append({
            "path": path, "class": type(module).__name__, "called": made is not None, "input": given, "output": made,
            "parameters": {n: list(p.shape) for n, p in module.named_parameters(recurse=False)},
        })
    return listing


def without_repeats(tensors):
    """Splits off the values that are bit for bit those of another key: a block's input is the output of the one before."""
    kept, aliases, seen = {}, {}, {}
    for key, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        identity = (tensor.dtype, tuple(tensor.shape), tensor.numpy().tobytes())
        if identity in seen:
            aliases[key] = seen[identity]
        else:
            seen[identity] = key
            kept[key] = tensor
    return kept, aliases


def make(tiny: TinyModel):
    folder = ROOT / tiny.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / "config.json", tiny.config | {"transformers_version": "4.46.0", "torch_dtype":
               "bfloat16" if tiny.storage == "bfloat16" else "float32"})
    config = AutoConfig.from_pretrained(folder)
    torch.manual_seed(tiny.seed)
    model = AutoModelForCausalLM.from_config(config)
    random_weights(model, tiny.seed)
    write_checkpoint(model, tiny, folder)

    # From here on only what stands in the folder counts.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    # The same configuration as transformers 5 writes it, which newer checkpoints have.
    current = json.loads(model.config.to_json_string(use_diff=False))
    for key in ("_name_or_path", "attn_implementation", "id2label", "label2id"):
        current.pop(key, None)
    write_json(folder / "config.transformers5.json", current)

    generator = torch.Generator().manual_seed(tiny.seed)
    prompts = [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in PROMPT_LENGTHS]
    tensors = {f"logits.{i}": logits_of(model, prompt) for i, prompt in enumerate(prompts)}
    check_left_padding(model, prompts[:3], [tensors[f"logits.{i}"] for i in range(3)])
    greedy = {}
    for i in (0, 2):
        greedy[str(i)], tensors[f"greedy.{i}.logits"] = generate(model, prompts[i])
    description = {
        "name": tiny.name, "model_type": config.model_type, "storage": tiny.storage, "seed": tiny.seed,
        "torch": torch.__version__.partition("+")[0], "transformers": transformers.__version__,
        "prompts": prompts, "greedy": greedy,
    }
    if tiny.storage == "bfloat16":
        half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager").eval()
        tensors["bfloat16.logits.0"] = logits_of(half, prompts[0]).float()
    if tiny.same_weights_as:
        twin = load_file(ROOT / tiny.same_weights_as / "golden.safetensors")
        for key, tensor in tensors.items():
            torch.testing.assert_close(tensor, twin[key], atol=0, rtol=0)
        description["same_weights_as"] = tiny.same_weights_as
    else:
        capture = Capture(model)
        with capture.recording():
            again = logits_of(model, prompts[0])
        torch.testing.assert_close(again, tensors["logits.0"], atol=1e-5, rtol=1e-5)
        values = capture.unflattened(len(prompts[0]))
        edits, description["interventions"] = interventions(model, prompts[0], prompts[3], tiny.seed)
        write_json(folder / "modules.json", module_list(model, capture))
        description["flattened"] = sorted(capture.flattened)
        tensors |= edits | values
        description["gradient_of"] = "logits.0[-1, 5] - logits.0[-1, 9]"
        kept, description["gradient_aliases"] = without_repeats(gradients(model, prompts[0]))
        save_file(kept, folder / "gradients.safetensors")
    tensors, description["aliases"] = without_repeats(tensors)
    save_file(tensors, folder / "golden.safetensors")
    write_json(folder / "golden.json", description)
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    print(f"{tiny.name}: {sum(sizes.values())} bytes in {len(sizes)} files")


def main():
    transformers.utils.logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    names = sys.argv[1:]
    for tiny in TINY_MODELS:
        if not names or tiny.name in names:
            make(tiny)


if __name__ == "__main__":
    main()
