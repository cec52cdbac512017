"""Runs every script by nnsight and by Pellucid on the same weights, and says where they differ: `cargo xtask python differential`.

The models: the bundled one, and a GPT-2 and a Llama of random weights, which are made in FOLDER.
"""

import argparse
import os
import pathlib
import shutil
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import warnings

import numpy as np
import pellucid as pl
import torch
import transformers
from nnsight import LanguageModel

import scripts
import scripts_in_place  # noqa: F401 (registers its scripts)

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "models/tiny-gpt2/model"
#: Of differences, relative to the largest number where that is above 1.
TOLERANCE = 1e-4


class Gpt2:
    hidden = 128
    blocks = staticmethod(lambda model: model.transformer.h)
    norm = staticmethod(lambda model: model.transformer.ln_f)
    embedding = staticmethod(lambda model: model.transformer.wte)
    mlp = staticmethod(lambda block: block.mlp)
    attention = staticmethod(lambda block: block.attn)
    projection = staticmethod(lambda block: block.mlp.c_fc)
    cached = staticmethod(lambda cache, layer: cache[f"model.transformer.h.{layer}"])


class Llama:
    hidden = 64
    blocks = staticmethod(lambda model: model.model.layers)
    norm = staticmethod(lambda model: model.model.norm)
    embedding = staticmethod(lambda model: model.model.embed_tokens)
    mlp = staticmethod(lambda block: block.mlp)
    attention = staticmethod(lambda block: block.self_attn)
    projection = staticmethod(lambda block: block.mlp.up_proj)
    cached = staticmethod(lambda cache, layer: cache[f"model.model.layers.{layer}"])


def made(folder, name, config, model):
    """A model of random weights, with the bundled tokenizer."""
    path = folder / name
    if not (path / "model.safetensors").is_file():
        torch.manual_seed(0)
        made = model(config)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        made.save_pretrained(path)
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(BUNDLED / file, path / file)
    return path


def models(folder):
    gpt2 = transformers.GPT2Config(n_layer=3, n_embd=128, n_head=4, vocab_size=2048, n_positions=64, bos_token_id=0, eos_token_id=0)
    llama = transformers.LlamaConfig(
        num_hidden_layers=3, hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, vocab_size=2048,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
    )
    yield "bundled", BUNDLED, Gpt2
    yield "random GPT-2", made(folder, "gpt2", gpt2, transformers.GPT2LMHeadModel), Gpt2
    yield "random Llama", made(folder, "llama", llama, transformers.LlamaForCausalLM), Llama


def flat(values):
    out = {}
    for name, value in values.items():
        for place, each in enumerate(value if isinstance(value, (list, tuple)) else [value]):
            array = each.detach().numpy() if isinstance(each, torch.Tensor) else np.asarray(each)
            out[f"{name}.{place}"] = array.astype(np.float64)
    return out


def compared(theirs, ours):
    """The largest difference, or what is not alike."""
    a, b = flat(theirs), flat(ours)
    if a.keys() != b.keys():
        return f"they give {sorted(a)}, we give {sorted(b)}"
    worst = 0.0
    for name in a:
        if a[name].shape != b[name].shape:
            return f"{name}: {a[name].shape} there, {b[name].shape} here"
        if a[name].size:
            worst = max(worst, float(np.abs(a[name] - b[name]).max()) / max(1.0, float(np.abs(a[name]).max())))
    return worst


def main(folder, only):
    warnings.filterwarnings("ignore")  # both warn of what the guide says
    transformers.utils.logging.set_verbosity_error()
    failed = 0
    lines = []

    def tell(line):
        print(line)
        lines.append(line)

    pairs = {name: (function, function) for name, function in scripts.BOTH.items()}
    pairs |= {name: (both["nnsight"], both["pellucid"]) for name, both in scripts.PAIRS.items()}
    tell(f"{len(pairs)} scripts, {len(scripts.BOTH)} of them the same text for both")
    for title, path, m in models(folder):
        nnsight, pellucid = LanguageModel(str(path), device_map="cpu", dispatch=True), pl.Model(path)
        worst = 0.0
        for name, (there, here) in pairs.items():
            if only and only not in name:
                continue
            try:
                theirs = there(nnsight, m)
            except Exception as error:
                tell(f"{title}: {name}: nnsight itself fails: {type(error).__name__}: {str(error)[:300]}")
                failed += 1
                continue
            try:
                ours = here(pellucid, m)
            except Exception as error:
                tell(f"{title}: {name}: FAILS here: {type(error).__name__}: {error}")
                failed += 1
                continue
            difference = compared(theirs, ours)
            if isinstance(difference, str) or not difference <= TOLERANCE:
                tell(f"{title}: {name}: DIFFERS: {difference}")
                failed += 1
            else:
                worst = max(worst, difference)
        tell(f"{title}: the largest difference of those that agree is {worst:.1e}")
    tell("all agree" if failed == 0 else f"{failed} do not agree")
    (folder / "summary.txt").write_text("\n".join(lines) + "\n")
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, metavar="FOLDER", help="where the random models and the summary go")
    parser.add_argument("only", nargs="?", default="", help="only scripts whose names contain this")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sys.exit(1 if main(arguments.folder, arguments.only) else 0)
