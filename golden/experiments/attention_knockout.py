import torch

from .common import IOI, hook_points


def attention_knockout(gpt2):
    """Does the answer need this edge? Scores from one position to another set to minus infinity, in every head."""
    prompts = {
        "fact": ("The Eiffel Tower is in the city of", "Paris", "Rome"),
        "ioi": (IOI.format(a="Mary", b="John", place="store", giver="John", thing="drink"), "Mary", "John"),
    }
    windows = [[layer] for layer in range(gpt2.layers)] + [[0, 1], [1, 2], [2, 3], list(range(gpt2.layers))]
    definition, results = {}, {}
    for name, (text, answer, wrong) in prompts.items():
        prompt = gpt2.prompt(text)
        ids, (answer, wrong) = prompt["ids"], (gpt2.word(answer), gpt2.word(wrong))
        # From the last position to each earlier one.
        edges = [(len(ids) - 1, position) for position in range(len(ids) - 1)]
        results[f"{name}.baseline_logits"] = gpt2.logits([ids])[0, -1]
        probability = torch.zeros(len(windows), len(edges))
        difference = torch.zeros_like(probability)
        for row, window in enumerate(windows):
            for column, (query, key) in enumerate(edges):
                def cut(layer, scores):
                    if layer not in window:
                        return scores
                    scores = scores.clone()
                    scores[:, :, query, key] = -torch.inf
                    return scores

                with gpt2.scores(cut):
                    logits = gpt2.logits([ids])[0, -1]
                probability[row, column] = logits.softmax(-1)[answer]
                difference[row, column] = logits[answer] - logits[wrong]
        results[f"{name}.answer_probability"], results[f"{name}.difference"] = probability, difference
        definition[name] = {"prompt": prompt, "answer": answer, "wrong": wrong, "edges": edges}
    return {
        "prompts": definition, "hook_points": hook_points(scores="attn.scores"), "windows": windows,
        "edges": "pairs of query position and key position; every head",
        "axes": {"answer_probability": ["window", "edge"], "difference": ["window", "edge"]},
    }, results
