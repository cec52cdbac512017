"""Trains the sparse autoencoder in `sae/`: the residual stream that enters layer 2, in 256 features.

    python models/tiny-gpt2/train_sae.py

Loss: squared error plus an L1 penalty on the features, weighed by the length of their decoder rows (Anthropic, April 2024).
Written in SAELens' layout. Two minutes on one CPU thread; another machine's sums give another file.
"""

import json
import random
from pathlib import Path

import corpus
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
LAYER, FEATURES, PENALTY, STEPS, BATCH, RATE = 2, 256, 1.6, 4000, 512, 2e-3


def activations(documents):
    """[tokens, hidden]: what enters the layer, at every position but the first, whose states are far from all others."""
    model = AutoModelForCausalLM.from_pretrained(HERE / "model", dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(HERE / "model" / "tokenizer.json"))
    found = []
    handle = model.transformer.h[LAYER].register_forward_pre_hook(lambda m, args: found.append(args[0][0, 1:]))
    with torch.no_grad():
        for document in documents:
            model(input_ids=torch.tensor([tokenizer.encode(document).ids[:128]]), use_cache=False)
    handle.remove()
    return torch.cat(found)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    states = activations(corpus.docs(random.Random(5), 6000))
    hidden = states.shape[1]
    held, states = states[:4096], states[4096:]
    decoder = torch.randn(FEATURES, hidden)
    decoder = (0.1 * decoder / decoder.norm(dim=1, keepdim=True)).requires_grad_()
    encoder = decoder.detach().T.clone().requires_grad_()
    encoder_bias, decoder_bias = torch.zeros(FEATURES, requires_grad=True), states.mean(0).requires_grad_()
    parameters = [encoder, encoder_bias, decoder, decoder_bias]
    optimiser = torch.optim.Adam(parameters, lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1, 5 * (1 - step / STEPS)))

    def run(batch):
        features = ((batch - decoder_bias) @ encoder + encoder_bias).relu()
        return features, features @ decoder + decoder_bias

    for step in range(STEPS):
        batch = states[torch.randint(len(states), (BATCH,))]
        features, again = run(batch)
        error = (again - batch).pow(2).sum(-1).mean()
        sparsity = (features * decoder.norm(dim=1)).sum(-1).mean()
        warm = min(1, step / 1000)
        optimiser.zero_grad()
        (error + warm * PENALTY * sparsity).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        # Decoder rows of length 1, as SAELens has them; the products stay as they are.
        length = decoder.norm(dim=1)
        encoder *= length
        encoder_bias *= length
        decoder /= length[:, None]
        features, again = run(held)
        unexplained = (again - held).pow(2).sum() / (held - held.mean(0)).pow(2).sum()
        active, dead = (features > 0).float().sum(1).mean(), (features.amax(0) == 0).sum()
    print(f"variance explained {1 - unexplained:.4f}, features active at once {active:.1f}, never active {dead}")
    folder = HERE / "sae"
    folder.mkdir(exist_ok=True)
    save_file({"W_enc": encoder.detach().contiguous(), "b_enc": encoder_bias.detach(),
               "W_dec": decoder.detach().contiguous(), "b_dec": decoder_bias.detach()}, folder / "sae_weights.safetensors")
    configuration = {
        "architecture": "standard", "d_in": hidden, "d_sae": FEATURES, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"model_name": "tiny-gpt2", "hook_name": f"blocks.{LAYER}.hook_resid_pre", "prepend_bos": False,
                     "context_size": 128},
    }
    (folder / "cfg.json").write_text(json.dumps(configuration, indent=1) + "\n")


if __name__ == "__main__":
    main()
