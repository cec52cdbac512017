from contextlib import ExitStack

import torch

from .common import IOI


def logit_lens(gpt2):
    """What would the model say if it stopped at this layer? The final norm and the unembedding, applied early."""
    prompts = {
        "fact": ("The Eiffel Tower is in the city of", "Paris"),
        "ioi": (IOI.format(a="Mary", b="John", place="store", giver="John", thing="drink"), "Mary"),
    }
    transformer = gpt2.model.transformer
    definition, results = {}, {}
    for name, (text, answer) in prompts.items():
        prompt = gpt2.prompt(text)
        outputs = []
        with ExitStack() as stack:
            for layer in range(gpt2.layers):
                stack.enter_context(gpt2.edit(gpt2.block(layer), "output", lambda v: outputs.append(v) or v))
            final = gpt2.logits([prompt["ids"]])[0]
        residual = torch.cat([gpt2.read([prompt["ids"]], "residual")[:1, 0], torch.stack(outputs)[:, 0]])
        logits = gpt2.model.lm_head(transformer.ln_f(residual))
        torch.testing.assert_close(logits[-1], final)
        probabilities = logits.softmax(-1)
        top = probabilities.topk(5)
        results[f"{name}.answer_probability"] = probabilities[..., gpt2.word(answer)]
        results[f"{name}.top_ids"], results[f"{name}.top_probabilities"] = top.indices, top.values
        results[f"{name}.last_logits"] = logits[:, -1]
        # How far each layer's guess is from the model's own: KL(final || layer).
        surprise = (probabilities[-1] * (probabilities[-1].log() - logits.log_softmax(-1))).sum(-1)
        results[f"{name}.kl_to_final"] = surprise
        definition[name] = {"prompt": prompt, "answer": gpt2.word(answer), "answer_text": answer}
    points = ["transformer.h.0.input"] + [f"transformer.h.{layer}.output" for layer in range(gpt2.layers)]
    return {
        "prompts": definition, "hook_points": points, "applied": ["transformer.ln_f", "lm_head"], "top": 5,
        "axes": {"answer_probability": ["hook_point", "position"], "top_ids": ["hook_point", "position", "rank"],
                 "top_probabilities": ["hook_point", "position", "rank"], "last_logits": ["hook_point", "vocabulary"],
                 "kl_to_final": ["hook_point", "position"]},
    }, results
