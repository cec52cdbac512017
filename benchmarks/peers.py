"""What the peers run besides the experiments of `cases.py`: PyTorch eager through transformers, nnsight, peft."""

import importlib.metadata
import os
import pathlib
import time

THREADS = 2
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".cache" / "benchmarks" / "gpt2-small"
SMOLLM2 = FOLDER.parent / "smollm2-135m"
CONTEXT = 128

torch.set_num_threads(THREADS)


def tokens(prompts, length, vocabulary):
    """The same tokens that our side makes."""
    return [[(p * 7919 + t * 104729 + 13) % vocabulary for t in range(length)] for p in range(prompts)]


def made(folder):
    """This folder, with a model in it, which is made where it is not there yet: GPT-2 small's shape or SmolLM2-135M's."""
    if not (folder / "model.safetensors").is_file():
        torch.manual_seed(0)
        llama = dict(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True,
        )  # fmt: skip
        config = transformers.GPT2Config() if folder == FOLDER else transformers.LlamaConfig(**llama)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def opened(folder, dtype=torch.float32):
    """The model of this folder."""
    return transformers.AutoModelForCausalLM.from_pretrained(made(folder), dtype=dtype).eval()


def tiny_model():
    """The folder of a model too small to matter."""
    folder = FOLDER.parent / "tiny"
    if not (folder / "model.safetensors").is_file():
        torch.manual_seed(0)
        config = transformers.GPT2Config(n_layer=12, n_embd=16, n_head=2, vocab_size=64, n_positions=64)
        transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def versions():
    named = {"PyTorch": "torch", **{name: name for name in ("transformers", "nnsight", "transformer-lens", "peft")}}
    return ", ".join(f"{name} {importlib.metadata.version(package)}" for name, package in named.items())


@torch.no_grad()
def difference(model, ours):
    """Between our last logits of one prompt of 32 tokens, the first thousand of them, and PyTorch's."""
    theirs = model(torch.tensor(tokens(1, 32, model.config.vocab_size))).logits[0, -1, : len(ours)]
    return (torch.tensor(ours) - theirs).abs().max().item()


def timed(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def forward(model, prompts):
    ids = torch.tensor(prompts)

    def once():
        with torch.no_grad():
            return timed(lambda: model(ids, use_cache=False).logits)

    return once


@torch.no_grad()
def decode(model, count):
    ids = torch.tensor(tokens(1, CONTEXT, model.config.vocab_size))
    out = model(ids, use_cache=True)
    past, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
    started = time.perf_counter()
    for _ in range(count - 1):
        out = model(token, past_key_values=past, use_cache=True)
        past, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
    return (time.perf_counter() - started) / (count - 1)


def with_gradients(model, ids):
    """A forward pass and the gradients of a logit difference at the 24 outputs of attentions and MLPs."""
    kept = []

    def keep(module, inputs, output):
        value = output[0] if isinstance(output, tuple) else output
        if not value.requires_grad:
            # The first of them: nothing before it carries gradients, as no weight does.
            value.requires_grad_()
        value.retain_grad()
        kept.append(value)

    handles = [part.register_forward_hook(keep) for block in model.transformer.h for part in (block.attn, block.mlp)]
    try:
        logits = model(ids, use_cache=False).logits
        (logits[:, -1, 0] - logits[:, -1, 1]).sum().backward()
    finally:
        for handle in handles:
            handle.remove()
    return kept


def gradients(model, prompts):
    ids = torch.tensor(prompts)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return lambda: timed(lambda: with_gradients(model, ids))


def lora(prompts):
    """A training step of a rank-8 adapter of every query-key-value projection."""
    import peft

    adapted = peft.get_peft_model(
        opened(FOLDER), peft.LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    )
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-3)
    ids = torch.tensor(prompts)

    def step():
        adapted(ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return lambda: timed(step)


def overheads():
    """What an empty trace and a getter cost nnsight, on a model too small to matter."""
    try:
        import nnsight

        config = transformers.GPT2Config(n_layer=12, n_embd=16, n_head=2, vocab_size=64, n_positions=64)
        small = nnsight.NNsight(transformers.GPT2LMHeadModel(config).eval())
        ids = torch.tensor(tokens(1, 16, 64))

        def empty():
            with small.trace(ids):
                pass

        def getters():
            with small.trace(ids):
                for block in small.transformer.h:
                    block.output[0].save()

        def plain():
            with torch.no_grad():
                small._module(ids)

        figures = {}
        for name, work in (("plain", plain), ("empty", empty), ("getters", getters)):
            work()
            figures[name] = min(timed(work) for _ in range(60))
        return {
            "empty": figures["empty"] - figures["plain"],
            "getter": (figures["getters"] - figures["empty"]) / 12,
        }
    except Exception as error:  # noqa: BLE001 - a peer that does not run is reported, not hidden
        return {"error": f"{type(error).__name__}: {error}"}


@torch.no_grad()
def speeds():
    """What this machine can do: operations a second in a product of large matrices, and bytes a second that are read."""
    one = torch.randn(2048, 2048)
    large = torch.ones(1 << 28)
    product = min(timed(lambda: one @ one) for _ in range(20))
    read = min(timed(large.sum) for _ in range(8))
    return 2 * 2048**3 / product, large.numel() * 4 / read
