"""Converts a GGUF file to a Hugging Face folder, with `gguf` and `transformers` alone, so that both can be compared.

    python gguf_to_folder.py MODEL.gguf FOLDER [--reference REFERENCE.json]

The folder holds config.json, generation_config.json, model.safetensors (f32), tokenizer.json, tokenizer_config.json
and chat_template.jinja. With --reference, also writes what the Rust code is held to: the shape and a checksum of every
tensor (the sum, modulo 2^64, of the f32 values' bits as integers, each times one more than twice its place), the ids
of texts, what transformers continues them with and how probably, conversations as the chat template writes them, and
two experiments with plain PyTorch hooks: each layer's attention left out, and the residual stream carried from a clean
prompt into a corrupted one.
Only the architecture `llama` (SmolLM2, TinyLlama, Llama) is known here.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def metadata_of(reader):
    return {name: field.contents() for name, field in reader.fields.items()}


def config_of(metadata, tied):
    key = lambda name: metadata[f"llama.{name}"]  # noqa: E731
    return LlamaConfig(
        vocab_size=len(metadata["tokenizer.ggml.tokens"]),
        hidden_size=key("embedding_length"),
        intermediate_size=key("feed_forward_length"),
        num_hidden_layers=key("block_count"),
        num_attention_heads=key("attention.head_count"),
        num_key_value_heads=key("attention.head_count_kv"),
        max_position_embeddings=key("context_length"),
        rms_norm_eps=float(str(np.float32(key("attention.layer_norm_rms_epsilon")))),
        rope_theta=key("rope.freq_base"),
        tie_word_embeddings=tied,
        bos_token_id=metadata.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=metadata.get("tokenizer.ggml.eos_token_id"),
        pad_token_id=metadata.get("tokenizer.ggml.padding_token_id"),
    )


def restored(name, values, config):
    """Undoes llama.cpp's interleaving of the rows of queries and keys."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return values
    half = values.shape[0] // heads // 2
    return values.reshape(heads, half, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def checksum(values):
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).reshape(-1).astype(np.uint64)
    places = 2 * np.arange(bits.size, dtype=np.uint64) + 1
    return int((bits * places).sum(dtype=np.uint64))


def tokenizer_of(path, metadata):
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    if metadata["tokenizer.ggml.pre"] == "smollm":
        # transformers leaves this out; SmolLM's own tokenizer.json has it.
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return tokenizer


TEXTS = [
    "When Mary and John went to the store, John gave a drink to",
    "The Eiffel Tower is in the city of",
    "  In 1969 they'd paid $12,345.67\n\n\tZoë saw 東京 🗼.",
    "Once upon a time, in a small village by the sea,",
]
NEW_TOKENS = 50
CORRUPTED = "When Mary and John went to the store, Mary gave a drink to"
CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": "You answer in rhymes."},
        {"role": "user", "content": "Hi <there> & 'you'\n"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye"},
    ],
]


def experiments_of(model, tokenizer):
    """How probable the answer to the first text is, by layer: without that layer's attention; and after the corrupted
    text, with the residual stream after that layer taken from the clean one where the texts differ, or at the end."""
    clean, corrupted = (torch.tensor([tokenizer(text)["input_ids"]]) for text in (TEXTS[0], CORRUPTED))
    [subject] = (clean != corrupted)[0].nonzero()[:, 0].tolist()
    last = clean.shape[1] - 1
    answer = int(model(clean).logits[0, -1].argmax())
    streams = model(clean, output_hidden_states=True).hidden_states

    def probability(ids, module, hook):
        handle = module.register_forward_hook(hook)
        try:
            return round(float(model(ids).logits[0, -1].softmax(-1)[answer]), 6)
        finally:
            handle.remove()

    def without(module, inputs, output):
        return (torch.zeros_like(output[0]), *output[1:])

    def carried(layer, position):
        def hook(module, inputs, output):
            stream = (output[0] if isinstance(output, tuple) else output).clone()
            # The last of `hidden_states` is after the final norm; nothing above it would be left to patch.
            stream[0, position] = streams[layer + 1][0, position]
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        return hook

    layers = model.model.layers
    return {
        "answer": answer,
        "corrupted": round(float(model(corrupted).logits[0, -1].softmax(-1)[answer]), 6),
        "subject": subject,
        "ablation": [probability(clean, block.self_attn, without) for block in layers],
        "patching": [
            [probability(corrupted, layers[layer], carried(layer, position)) for position in (subject, last)]
            for layer in range(len(layers) - 1)
        ],
    }


@torch.no_grad()
def reference_of(state, model, tokenizer):
    tensors = {name: {"shape": list(t.shape), "checksum": checksum(t.numpy())} for name, t in sorted(state.items())}
    prompts = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        logits = model(torch.tensor([ids])).logits[0, -1]
        continued = model.generate(torch.tensor([ids]), max_new_tokens=NEW_TOKENS, do_sample=False)[0].tolist()
        probability, best = logits.softmax(-1).max(-1)
        prompts.append({
            "text": text, "ids": ids, "next": int(best), "next_text": tokenizer.decode([int(best)]),
            "probability": round(float(probability), 6), "logit": round(float(logits[best]), 5),
            "greedy": continued[len(ids) :], "greedy_text": tokenizer.decode(continued[len(ids) :], skip_special_tokens=True),
        })  # fmt: skip
    chats = [
        {
            "messages": messages,
            "add_generation_prompt": prompt,
            "text": tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt),
        }
        for messages in CHATS
        for prompt in (False, True)
    ]
    return {"prompts": prompts, "chats": chats, "experiments": experiments_of(model, tokenizer), "tensors": tensors}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reference", type=Path)
    arguments = parser.parse_args()

    reader = GGUFReader(arguments.gguf)
    metadata = metadata_of(reader)
    assert metadata["general.architecture"] == "llama", metadata["general.architecture"]
    stored = {tensor.name: tensor for tensor in reader.tensors if not tensor.name.startswith("rope_freqs")}
    config = config_of(metadata, tied="output.weight" not in stored)

    state = {}
    for name, tensor in stored.items():
        values = restored(name, dequantize(tensor.data, tensor.tensor_type).astype(np.float32), config)
        parts = name.split(".")
        prefix = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
        state[f"{prefix}{NAMES[parts[-2]]}.{parts[-1]}"] = torch.from_numpy(np.ascontiguousarray(values))
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    model.save_pretrained(arguments.folder)
    tokenizer = tokenizer_of(arguments.gguf, metadata)
    tokenizer.save_pretrained(arguments.folder)
    if arguments.reference:
        reference = reference_of(state, model.eval(), tokenizer)
        arguments.reference.write_text(json.dumps(reference, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
