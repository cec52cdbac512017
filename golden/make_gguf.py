"""Makes golden/gguf/: what the GGUF reader is held to.

    python make_gguf.py

- `blocks.safetensors`: for each block type, random valid blocks (`TYPE.bytes`) and what the package `gguf` makes of
  them (`TYPE.values`).
- `ARCHITECTURE.gguf`: the tiny models of `models/` as llama.cpp's converters write them, made with the package's own
  writer: other names, query and key rows interleaved, one added to Gemma's norms, GPT-2's matrices transposed,
  GPT-NeoX's fused rows sorted by kind. Reading one must give the model's own tensors.
- `quantised-ARCHITECTURE.gguf`: three of them with every matrix quantised that can be, the types in turn;
  `quantised-k.gguf`: a model wide enough for the K types, of random blocks. Held as blocks they must be the same models.
- `tokenizer-KIND.gguf`, `tokenizer-KIND.json`: small tokenizers of each kind, and the ids of texts: by `sentencepiece`
  itself for SentencePiece's kind, by `tokenizers` for the byte-level kinds.

Everything follows from the seeds here; a second run writes the same bytes.
"""

import io
import json
import random
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

HERE = Path(__file__).parent
OUTPUT = HERE / "gguf"
MODELS = HERE / "models"
TINY_TOKENIZER = HERE.parent / "models" / "tiny-gpt2" / "model" / "tokenizer.json"

BLOCKS = 12
# Byte offsets of the f16 scales in a block: these must be finite, everything else may be any bits.
SCALES = {
    Type.Q8_0: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2],
    Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
    Type.F16: [0], Type.BF16: [0], Type.F32: [],
}  # fmt: skip


def blocks():
    generator = np.random.default_rng(20250)
    tensors = {}
    for kind, scales in SCALES.items():
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        count = BLOCKS if elements > 1 else 256
        if kind == Type.F32:
            raw = generator.standard_normal(count).astype("<f4").view(np.uint8).reshape(count, size)
        else:
            raw = generator.integers(0, 256, (count, size), dtype=np.uint8)
            for offset in scales:
                values = (generator.standard_normal(count) * 0.1).astype(np.float32)
                half = values.astype("<f2").view(np.uint8) if kind != Type.BF16 else values.view(np.uint8).reshape(-1, 4)[:, 2:]
                raw[:, offset : offset + 2] = half.reshape(count, 2)
        # Rows of four blocks, as a tensor has them.
        values = dequantize(raw.reshape(4, -1), kind).astype(np.float32)
        assert np.isfinite(values).all()
        tensors[f"{kind.name}.bytes"] = raw.reshape(-1)
        tensors[f"{kind.name}.values"] = values.reshape(-1)
    save_file(tensors, OUTPUT / "blocks.safetensors")


def interleave(weight, heads):
    """llama.cpp's `permute`: the two halves of each head's rows become pairs."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def fused_by_kind(weight, heads):
    """llama.cpp's sorting of GPT-NeoX's fused projection: all queries, all keys, all values."""
    by_head = weight.reshape(heads, 3, weight.shape[0] // heads // 3, *weight.shape[1:])
    return np.concatenate([by_head[:, kind].reshape(-1, *weight.shape[1:]) for kind in range(3)])


DECODER = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
GEMMA = DECODER | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
GPT2 = {
    "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down", "lm_head": "output",
}  # fmt: skip
GPT_NEOX = {
    "gpt_neox.embed_in": "token_embd", "gpt_neox.final_layer_norm": "output_norm", "embed_out": "output",
    "input_layernorm": "attn_norm", "attention.query_key_value": "attn_qkv", "attention.dense": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down",
}  # fmt: skip
# model folder, GGUF architecture, names, prefix of blocks
ARCHITECTURES = [
    ("llama3", "llama", DECODER, "model.layers."),
    ("qwen2", "qwen2", DECODER, "model.layers."),
    ("qwen3", "qwen3", DECODER, "model.layers."),
    ("gemma2", "gemma2", GEMMA, "model.layers."),
    ("gemma3", "gemma3", GEMMA, "model.layers."),
    ("gpt2", "gpt2", GPT2, "transformer.h."),
    ("gpt-neox", "gptneox", GPT_NEOX, "gpt_neox.layers."),
]


def stored_name(name, names, blocks_prefix):
    stem, kind = name.rsplit(".", 1)
    if stem.startswith(blocks_prefix):
        number, stem = stem[len(blocks_prefix) :].split(".", 1)
        return f"blk.{number}.{names[stem]}.{kind}"
    return f"{names[stem]}.{kind}"


def changed(architecture, name, tensor, heads, key_heads):
    if architecture == "llama" and ".attn_q." in name:
        return interleave(tensor, heads)
    if architecture == "llama" and ".attn_k." in name:
        return interleave(tensor, key_heads)
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return tensor + np.float32(1)
    if architecture == "gptneox" and ".attn_qkv." in name:
        return fused_by_kind(tensor, heads)
    linear = (".attn_qkv.weight", ".attn_output.weight", ".ffn_up.weight", ".ffn_down.weight")
    if architecture == "gpt2" and name.endswith(linear):
        return tensor.T.copy()
    return tensor


# The types that the package can quantise to.
QUANTISED = [Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1]


def architecture_file(folder, architecture, names, blocks_prefix, quantised=False):
    config = json.loads((MODELS / folder / "config.json").read_text())
    get = lambda *keys: next((config[key] for key in keys if key in config), None)  # noqa: E731
    heads = get("num_attention_heads", "n_head")
    key_heads = get("num_key_value_heads") or heads
    hidden = get("hidden_size", "n_embd")
    head_size = get("head_dim") or hidden // heads

    writer = gguf.GGUFWriter(OUTPUT / f"{'quantised-' if quantised else ''}{architecture}.gguf", architecture)
    writer.add_block_count(get("num_hidden_layers", "n_layer"))
    writer.add_context_length(get("max_position_embeddings", "n_positions"))
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(get("intermediate_size", "n_inner"))
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_bos_token_id(get("bos_token_id"))
    writer.add_eos_token_id(get("eos_token_id"))
    if (epsilon := get("rms_norm_eps")) is not None:
        writer.add_layer_norm_rms_eps(epsilon)
        writer.add_key_length(head_size)
        # Llama 3's own base, so that its scaling has something to scale.
        base = 500000.0 if architecture == "llama" else get("rope_theta")
        writer.add_rope_freq_base(base)
    else:
        writer.add_layer_norm_eps(get("layer_norm_epsilon", "layer_norm_eps"))
    if architecture == "gptneox":
        writer.add_rope_dimension_count(int(head_size * config["rotary_pct"]))
        writer.add_rope_freq_base(config["rotary_emb_base"])
        writer.add_parallel_residual(config["use_parallel_residual"])
    if architecture.startswith("gemma"):
        writer.add_sliding_window(config["sliding_window"])
        writer.add_float32(f"{architecture}.attention.scale", config["query_pre_attn_scalar"] ** -0.5)
        if "attn_logit_softcapping" in config:
            writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
            writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if architecture == "gemma3":
        writer.add_uint32("gemma3.attention.sliding_window_pattern", config["sliding_window_pattern"])
        writer.add_float32("gemma3.rope.freq_base_swa", config["rope_local_base_freq"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config["rope_scaling"]["factor"])
    if architecture == "llama":
        # As for Llama 3.x, with its context of 8192, which the tiny model's scaling does not have.
        scaling = config["rope_scaling"] | {"original_max_position_embeddings": 8192}
        writer.add_tensor("rope_freqs.weight", llama3_factors(base, head_size, scaling))

    tensors = load_file(MODELS / folder / "model.safetensors")
    known = {name: tensor for name, tensor in tensors.items() if not name.endswith((".attention.bias", ".masked_bias", ".inv_freq"))}
    matrices = 0
    for name, tensor in sorted(known.items()):
        stored = stored_name(name, names, blocks_prefix)
        tensor = changed(architecture, stored, tensor.astype(np.float32), heads, key_heads)
        if quantised and tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            kind = QUANTISED[matrices % len(QUANTISED)]
            matrices += 1
            writer.add_tensor(stored, quantize(tensor, kind), raw_dtype=kind)
        elif architecture == "qwen2" and stored.endswith("ffn_up.weight"):
            # One quantised matrix in a whole file; the test dequantises what lies in it.
            writer.add_tensor(stored, quantize(tensor, Type.Q8_0), raw_dtype=Type.Q8_0)
        else:
            writer.add_tensor(stored, tensor)
    if architecture == "gpt2" and not quantised:
        # Older converters wrote the tied unembedding a second time.
        writer.add_tensor("output.weight", tensors["transformer.wte.weight"])
    finish(writer)


def k_types_file():
    """A Llama of one block, 256 wide, its matrices random blocks of the K types."""
    generator = np.random.default_rng(20260)
    hidden, heads, key_heads, vocabulary = 256, 4, 2, 96
    writer = gguf.GGUFWriter(OUTPUT / "quantised-k.gguf", "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_key_length(hidden // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100.0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    kinds = [Type.Q6_K, Type.Q4_K, Type.Q5_K]
    rows = {
        "token_embd": vocabulary, "blk.0.attn_q": hidden, "blk.0.attn_k": hidden // 2, "blk.0.attn_v": hidden // 2,
        "blk.0.attn_output": hidden, "blk.0.ffn_gate": hidden, "blk.0.ffn_up": hidden, "blk.0.ffn_down": hidden,
    }  # fmt: skip
    for index, (name, count) in enumerate(rows.items()):
        kind = kinds[index % len(kinds)]
        raw = generator.integers(0, 256, (count, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
        for place, offset in enumerate(SCALES[kind]):
            # The scale of numbers up to 63 * 31 or 127 * 32, and the offset's of numbers up to 63.
            values = np.abs(generator.standard_normal(count)) * (2e-3 if place else 1e-4)
            raw[:, offset : offset + 2] = values.astype("<f2").view(np.uint8).reshape(count, 2)
        assert np.isfinite(dequantize(raw, kind)).all()
        writer.add_tensor(f"{name}.weight", raw, raw_dtype=kind)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(hidden, dtype=np.float32))
    finish(writer)


def llama3_factors(base, head_size, scaling):
    factors = []
    for index in range(head_size // 2):
        wavelength = 2 * np.pi * base ** (2 * index / head_size)
        low = scaling["original_max_position_embeddings"] / scaling["low_freq_factor"]
        high = scaling["original_max_position_embeddings"] / scaling["high_freq_factor"]
        if wavelength < high:
            factors.append(1.0)
        elif wavelength > low:
            factors.append(scaling["factor"])
        else:
            smooth = (scaling["original_max_position_embeddings"] / wavelength - scaling["low_freq_factor"]) / (
                scaling["high_freq_factor"] - scaling["low_freq_factor"]
            )
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


TEXTS = [
    "When Mary and John went to the store, John gave a drink to",
    "The Eiffel Tower is in the city of",
    "  two spaces, a\ttab\nand a line\n\n  more   ",
    "In 1969 they'd paid $12,345.67 (or 99%)!",
    "Zoë saw 東京 🗼 and cafe\u0301 — naïve.",
    "",
    " ",
    "don't DON'T I'll we've x_y __init__(self):",
]


def tokenizer_writer(kind):
    writer = gguf.GGUFWriter(OUTPUT / f"tokenizer-{kind}.gguf", "llama")
    return writer


def write_expected(kind, encode, decode):
    cases = []
    for text in TEXTS:
        ids = encode(text)
        cases.append({"text": text, "ids": ids, "decoded": decode(ids)})
    (OUTPUT / f"tokenizer-{kind}.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")


def sentence_piece_tokenizer():
    words = sorted({word for text in TEXTS for word in text.split()})
    chooser = random.Random(7)
    sentences = [" ".join(chooser.choices(words, k=8)) for _ in range(400)] + TEXTS[:2] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, vocab_size=420, model_type="bpe", byte_fallback=True,
        character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False,
        num_threads=1, minloglevel=2, split_digits=True,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    writer = tokenizer_writer("llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    ids = range(processor.vocab_size())
    kinds = [
        gguf.TokenType.UNKNOWN if processor.IsUnknown(i)
        else gguf.TokenType.CONTROL if processor.IsControl(i)
        else gguf.TokenType.BYTE if processor.IsByte(i)
        else gguf.TokenType.NORMAL
        for i in ids
    ]  # fmt: skip
    writer.add_token_list([processor.IdToPiece(i) for i in ids])
    writer.add_token_scores([processor.GetScore(i) for i in ids])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(processor.bos_id())
    writer.add_eos_token_id(processor.eos_id())
    writer.add_unk_token_id(processor.unk_id())
    finish(writer)
    # Texts begin with the token that begins texts, as llama.cpp and transformers have it for this kind.
    write_expected("llama", lambda text: [processor.bos_id()] + processor.Encode(text), lambda ids: processor.Decode(ids))


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(expression):
    return [
        pre_tokenizers.Split(Regex(expression), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def byte_level_tokenizers():
    """The bundled model's vocabulary under each kind of pre-tokenizer, as the models that have it publish it."""
    source = json.loads(TINY_TOKENIZER.read_text())["model"]
    vocabulary, merges = source["vocab"], [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in source["merges"]]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    kinds = {
        "gpt-2": [byte_level],
        "smollm": [pre_tokenizers.Digits(individual_digits=True), byte_level],
        "llama-bpe": split(LLAMA3),
        "qwen2": split(QWEN2),
    }
    for kind, steps in kinds.items():
        writer = tokenizer_writer(kind)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(kind)
        tokens = sorted(vocabulary, key=vocabulary.get)
        writer.add_token_list(tokens)
        special = "<|endoftext|>"
        writer.add_token_types([gguf.TokenType.CONTROL if token == special else gguf.TokenType.NORMAL for token in tokens])
        writer.add_token_merges([" ".join(merge) for merge in merges])
        writer.add_bos_token_id(vocabulary[special])
        writer.add_eos_token_id(vocabulary[special])
        writer.add_chat_template("{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}")
        finish(writer)
        tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=kind == "llama-bpe"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
        if kind == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.decoder = decoders.ByteLevel()
        first = [vocabulary[special]] if kind == "llama-bpe" else []
        write_expected(kind, lambda text: first + tokenizer.encode(text).ids, lambda ids: tokenizer.decode(ids[len(first) :]))


if __name__ == "__main__":
    OUTPUT.mkdir(exist_ok=True)
    blocks()
    for row in ARCHITECTURES:
        architecture_file(*row)
        if row[1] in ("llama", "gpt2", "gptneox"):
            architecture_file(*row, quantised=True)
    k_types_file()
    sentence_piece_tokenizer()
    byte_level_tokenizers()
    print(f"{sum(file.stat().st_size for file in OUTPUT.iterdir()) / 1e6:.1f} MB in {OUTPUT}")
