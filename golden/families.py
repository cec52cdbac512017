"""The tiny models: one configuration for each family and variant, in the form that published checkpoints use.

Sizes are chosen to be all different where they can be (hidden 32, inner 48, vocabulary 96), so that a mixed-up
dimension fails instead of passing, and the options that change the result (windows, soft caps, rope scaling) are
set to values that matter within twelve tokens.
"""

from dataclasses import dataclass, field


@dataclass
class TinyModel:
    """One folder under `golden/models/`."""

    name: str
    config: dict
    seed: int
    # How the weights are written: "plain", "sharded" (two files and an index), "bfloat16", "bare" (without the base
    # model's prefix, as the GPT-2 checkpoints of the hub are) or "embed_out" (GPT-NeoX's published name of `lm_head`).
    storage: str = "plain"
    # Tensors that old checkpoints carry and no model uses.
    stale_tensors: list[str] = field(default_factory=list)
    # The weights and the golden values are those of another model; only logits and greedy ids are written.
    same_weights_as: str | None = None


def llama_like(model_type: str, architecture: str, **changes) -> dict:
    config = {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-05,
        "rope_theta": 100.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    config.update(changes)
    return {key: value for key, value in config.items() if value is not None}


def gpt2(**changes) -> dict:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": 96,
        "n_positions": 64,
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-05,
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "resid_pdrop": 0.1,
        "bos_token_id": 95,
        "eos_token_id": 95,
    } | changes


def gpt_neox(**changes) -> dict:
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
        "max_position_embeddings": 64,
        "layer_norm_eps": 1e-05,
        "rotary_pct": 0.25,
        "rotary_emb_base": 100,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
    } | changes


def opt(**changes) -> dict:
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "vocab_size": 96,
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 32,
        "do_layer_norm_before": True,
        "activation_function": "relu",
        "max_position_embeddings": 64,
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "prefix": "</s>",
    } | changes


GEMMA = {
    "hidden_act": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-06,
    "head_dim": 16,
    "sliding_window": 5,
    "query_pre_attn_scalar": 24,
    "tie_word_embeddings": None,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}

# With four rotated pairs at base 100 the wavelengths are 6.3, 20, 63 and 199 tokens: one is kept, one is blended and
# two are stretched.
LLAMA3_ROPE = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 32,
    "rope_type": "llama3",
}
LLAMA3 = llama_like("llama", "LlamaForCausalLM", rope_scaling=LLAMA3_ROPE, tie_word_embeddings=True)

TINY_MODELS = [
    TinyModel("gpt2", gpt2(n_inner=48), seed=1281),
    TinyModel("gpt2-bare", gpt2(n_inner=None, n_layer=2, scale_attn_by_inverse_layer_idx=True), seed=722, storage="bare",
              stale_tensors=["attn.bias"]),
    TinyModel("llama2", llama_like("llama", "LlamaForCausalLM", num_key_value_heads=4), seed=103),
    TinyModel("llama3", LLAMA3, seed=124),
    TinyModel("llama3-sharded", LLAMA3, seed=124, storage="sharded", same_weights_as="llama3"),
    TinyModel("llama3-bfloat16", LLAMA3, seed=124, storage="bfloat16"),
    TinyModel("mistral", llama_like("mistral", "MistralForCausalLM", sliding_window=5), seed=105),
    TinyModel("gpt-neox", gpt_neox(), seed=346, storage="embed_out", stale_tensors=["attention.bias", "attention.masked_bias"]),
    TinyModel("gpt-neox-sequential", gpt_neox(use_parallel_residual=False, rotary_pct=1.0), seed=247),
    TinyModel("opt", opt(), seed=608),
    TinyModel("opt-post-norm", opt(do_layer_norm_before=False, word_embed_proj_dim=16), seed=1849),
    TinyModel("qwen2", llama_like("qwen2", "Qwen2ForCausalLM", rms_norm_eps=1e-06, use_sliding_window=False,
                                  sliding_window=5, max_window_layers=3, tie_word_embeddings=True), seed=290),
    TinyModel("qwen3", llama_like("qwen3", "Qwen3ForCausalLM", rms_norm_eps=1e-06, head_dim=16,
                                  attention_bias=False), seed=151),
    TinyModel("gemma2", llama_like("gemma2", "Gemma2ForCausalLM", **GEMMA, attn_logit_softcapping=4.0,
                                   final_logit_softcapping=5.0), seed=232),
    TinyModel("gemma3", llama_like("gemma3_text", "Gemma3ForCausalLM", **GEMMA | {
        "sliding_window_pattern": 3, "rope_theta": 1000.0, "rope_local_base_freq": 100.0,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}), seed=233),
]
