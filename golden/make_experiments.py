"""Makes golden/experiments/: classic experiments on the bundled model, by plain PyTorch hooks.

    python make_experiments.py [--rounding] [name ...]

With --rounding nothing is written: each experiment is computed in f32 and again in f64, and how far they differ is printed,
which is what rounding alone can do to a result.

Each module of `experiments/` is one experiment of the field: a function of the same name returns its definition, with every
token id, place and number that another program needs to repeat it, and its results. See README.md for the format.
"""

import importlib
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tiny_gpt2 import TinyGpt2

ROOT = Path(__file__).parent / "experiments"
EXPERIMENTS = {
    "activation_patching": 1, "attribution_patching": 2, "path_patching": 3, "causal_tracing": 4, "logit_lens": 5,
    "tuned_lens": 5, "steering": 6, "linear_probes": 7, "sparse_autoencoder": 8, "function_vectors": 9,
    "attention_knockout": 10, "distributed_alignment_search": 11, "lora": 12, "soft_prompts": 12, "edge_attribution": 13, "directions": 14,
    "direct_logit_attribution": 15, "ablation": 16, "conditional_steering": 17, "induction_heads": 18, "patchscopes": 19,
    "rank_one_edit": 20, "gradient_surgery": 21,
}


def compute(name, gpt2):
    function = getattr(importlib.import_module(f"experiments.{name}"), name)
    definition, results = function(gpt2)
    return function.__doc__, definition, {key: torch.as_tensor(value).detach() for key, value in results.items()}


def write(name, gpt2):
    about, definition, results = compute(name, gpt2)
    numbers = {key: value.item() for key, value in results.items() if value.dim() == 0}
    tensors = {key: value.contiguous() for key, value in results.items() if value.dim() > 0}
    document = {
        "experiment": EXPERIMENTS[name], "name": name, "about": " ".join(about.split()),
        "model": "models/tiny-gpt2/model", "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__, **definition, "numbers": numbers,
        "tensors": {key: list(value.shape) for key, value in tensors.items()},
    }
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    (ROOT / f"{name}.json").write_text("{\n" + lines + "\n}\n")
    save_file(tensors, ROOT / f"{name}.safetensors")
    print(name, numbers, flush=True)


def rounding(name, gpt2):
    results = compute(name, gpt2)[2]
    torch.set_default_dtype(torch.float64)
    gpt2.model.double()
    exact = compute(name, gpt2)[2]
    torch.set_default_dtype(torch.float32)
    gpt2.model.float()
    print(name, {key: f"{(value - exact[key]).abs().max().item():.0e}" for key, value in results.items()}, flush=True)


def main():
    transformers.utils.logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    gpt2 = TinyGpt2()
    names = [argument for argument in sys.argv[1:] if argument != "--rounding"] or EXPERIMENTS
    for name in names:
        (rounding if "--rounding" in sys.argv else write)(name, gpt2)


if __name__ == "__main__":
    main()
