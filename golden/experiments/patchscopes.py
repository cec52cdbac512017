import torch

from .common import RESIDUAL, checked


def patchscopes(gpt2):
    """A hidden state of one prompt, read out by another prompt into which it is put."""
    cases = {
        "answer": ("The Eiffel Tower is in the city of", -1, "The capital of Japan is", -1, "Paris"),
        "entity": ("The capital of France is", 3, "People in Japan speak", 2, "French"),
    }
    new_tokens, definition, results = 2, {}, {}
    for name, (source, source_position, target, target_position, answer) in cases.items():
        source, target, answer_id = gpt2.prompt(source), gpt2.prompt(target), gpt2.word(answer)
        source_position %= len(source["ids"])
        target_position %= len(target["ids"])
        states = gpt2.read([source["ids"]], "residual")[:, 0, source_position]
        probability = torch.zeros(gpt2.layers, gpt2.layers)
        logits, generated = torch.zeros(gpt2.layers, gpt2.layers, new_tokens, gpt2.model.config.vocab_size), []
        for source_layer in range(gpt2.layers):
            generated.append([])
            for target_layer in range(gpt2.layers):
                def put(value):
                    value[:, target_position] = states[source_layer]
                    return value

                ids, steps = checked(gpt2.generate(
                    target["ids"], new_tokens, lambda length: gpt2.set("residual", target_layer, put)))
                generated[-1].append(ids)
                logits[source_layer, target_layer] = steps
                probability[source_layer, target_layer] = steps[0].softmax(-1)[answer_id]
        results[f"{name}.answer_probability"] = probability
        results[f"{name}.best_logits"] = logits[tuple(divmod(probability.argmax().item(), gpt2.layers))]
        definition[name] = {
            "source": source, "source_position": source_position, "target": target, "target_position": target_position,
            "answer": answer_id, "answer_text": answer, "generated_ids": generated,
            "best": list(divmod(probability.argmax().item(), gpt2.layers)),
        }
    return {
        "cases": definition, "hook_points": RESIDUAL, "new_tokens": new_tokens,
        "axes": {"answer_probability": ["source layer", "target layer"], "best_logits": ["step", "vocabulary"],
                 "generated_ids": ["source layer", "target layer", "step"]},
    }, results
