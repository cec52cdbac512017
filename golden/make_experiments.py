"""Makes golden/experiments/: classic experiments on the bundled model, by plain PyTorch hooks.

    python make_experiments.py [name ...]

Each function below is one experiment of the field. It returns its definition, with every token id, place and number that
another program needs to repeat it, and its results. See README.md for the format.
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tiny_gpt2 import TinyGpt2

ROOT = Path(__file__).parent / "experiments"
IOI = "When {a} and {b} went to the {place}, {giver} gave a {thing} to"
# Below this a greedy choice would hang on rounding.
LEAST_LOGIT_GAP = 1e-3


def hook_points(**names):
    return {name: f"transformer.h.{{layer}}.{hook}" for name, hook in names.items()}


RESIDUAL = hook_points(residual="input")
OUTPUTS = hook_points(attention="attn.output", mlp="mlp.output")
MIXED = hook_points(mixed="attn.mixed")


def checked(generated):
    ids, logits = generated
    best = logits.topk(2).values
    if (best[:, 0] - best[:, 1]).min() < LEAST_LOGIT_GAP:
        raise ValueError("a greedy choice is too close")
    return ids, logits


def activation_patching(gpt2):
    """Which places carry what tells the clean prompt from the corrupted one? Each is set, in the corrupted run, to its
    clean value."""
    names = {"a": "Mary", "b": "John", "place": "store", "thing": "drink"}
    clean, corrupted = (gpt2.prompt(IOI.format(**names, giver=giver)) for giver in ("John", "Mary"))
    answer, wrong = gpt2.word("Mary"), gpt2.word("John")
    length, last = len(clean["ids"]), len(clean["ids"]) - 1

    def difference():
        logits = gpt2.logits([corrupted["ids"]])[0, -1]
        return logits[answer] - logits[wrong]

    clean_logits, corrupted_logits = gpt2.logits([clean["ids"]])[0], gpt2.logits([corrupted["ids"]])[0]
    best = clean_logits[-1, answer] - clean_logits[-1, wrong]
    worst = difference()
    results = {"clean_difference": best, "corrupted_difference": worst}
    for name in ("residual", "attention", "mlp"):
        source = gpt2.read([clean["ids"]], name)
        grid = torch.zeros(gpt2.layers, length)
        for layer in range(gpt2.layers):
            for position in range(length):
                def patch(value):
                    value[:, position] = source[layer][:, position]
                    return value

                with gpt2.set(name, layer, patch):
                    grid[layer, position] = (difference() - worst) / (best - worst)
        results[name] = grid
    source = gpt2.read([clean["ids"]], "mixed")
    results["heads"] = torch.zeros(gpt2.layers, gpt2.heads)
    for layer in range(gpt2.layers):
        for head in range(gpt2.heads):
            def patch(value):
                value[:, last, head] = source[layer][:, last, head]
                return value

            with gpt2.set("mixed", layer, patch):
                results["heads"][layer, head] = (difference() - worst) / (best - worst)
    results["clean_logits"], results["corrupted_logits"] = clean_logits[-1], corrupted_logits[-1]
    return {
        "clean": clean, "corrupted": corrupted, "answer": answer, "wrong": wrong,
        "hook_points": RESIDUAL | OUTPUTS | hook_points(heads="attn.mixed"),
        "heads_position": last,
        "metric": "(difference - corrupted_difference) / (clean_difference - corrupted_difference), where difference is "
                  "logits[answer] - logits[wrong] at the last position",
        "axes": {"residual": ["layer", "position"], "attention": ["layer", "position"], "mlp": ["layer", "position"],
                 "heads": ["layer", "head"]},
    }, results


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


def steering(gpt2):
    """The mean difference between good and bad reviews, added while the model reads and writes."""
    layer, new_tokens = 2, 3
    things = ["movie", "book", "food", "song", "party", "hotel"]
    pairs = [("wonderful", "awful"), ("great", "terrible"), ("excellent", "horrible")]
    positive, negative = ([gpt2.prompt(f"The {thing} was {pair[side]}. I") for thing in things for pair in pairs]
                          for side in (0, 1))

    def mean(prompts):
        return torch.stack([gpt2.read([prompt["ids"]], "residual")[layer, 0, -1] for prompt in prompts]).mean(0)

    vector = mean(positive) - mean(negative)
    prompt = gpt2.prompt("The show was boring. I")
    start = len(prompt["ids"])
    # The positions steered in a run of a given length: new tokens stand at start, start + 1, ….
    variants = {
        "baseline": {"scale": 0.0, "prompt_positions": [], "generated": False},
        "last_and_generated": {"scale": 1.0, "prompt_positions": [start - 1], "generated": True},
        "prompt_only": {"scale": 1.5, "prompt_positions": [start - 2, start - 1], "generated": False},
        "generated_only": {"scale": 2.0, "prompt_positions": [], "generated": True},
        "negative": {"scale": -1.0, "prompt_positions": [start - 1], "generated": True},
    }
    results = {"vector": vector, "vector_norm": vector.norm()}
    for name, variant in variants.items():
        def edits(length):
            def add(value):
                positions = variant["prompt_positions"] + (list(range(start, length)) if variant["generated"] else [])
                value[:, positions] += variant["scale"] * vector
                return value

            return gpt2.set("residual", layer, add)

        ids, results[f"{name}.logits"] = checked(gpt2.generate(prompt["ids"], new_tokens, edits))
        variant["generated_ids"], variant["generated_text"] = ids, gpt2.tokenizer.decode(ids)
    return {
        "positive": positive, "negative": negative, "prompt": prompt, "hook_point": f"transformer.h.{layer}.input",
        "vector": "mean over the positive prompts of the hook point at the last position, minus that over the negative ones",
        "new_tokens": new_tokens, "variants": variants, "axes": {"<variant>.logits": ["step", "vocabulary"]},
    }, results


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


def ablation(gpt2):
    """What does the model lose without this part? Each part set to 0, to its mean over a data set, or to another row's."""
    people = [("Mary", "John"), ("Alice", "James"), ("Emma", "Robert"), ("Laura", "Michael"), ("Anna", "David"),
              ("Julia", "Daniel"), ("Helen", "Thomas"), ("Susan", "Paul")]
    places = ["store", "school", "park", "garden", "station", "market", "library", "museum"]
    things = ["drink", "book", "ball", "ring", "flower", "letter", "bottle", "hat"]
    rows = []
    for row, ((a, b), place, thing) in enumerate(zip(people, places, things)):
        giver, receiver = (a, b) if row % 2 else (b, a)
        rows.append({"prompt": gpt2.prompt(IOI.format(a=a, b=b, place=place, giver=giver, thing=thing)),
                     "answer": gpt2.word(receiver), "wrong": gpt2.word(giver)})
    ids = [row["prompt"]["ids"] for row in rows]
    if len({len(prompt) for prompt in ids}) != 1:
        raise ValueError("the prompts have to be of one length")
    permutation = [3, 0, 5, 7, 6, 1, 2, 4]
    answer, wrong = (torch.tensor([row[key] for row in rows]) for key in ("answer", "wrong"))
    every = torch.arange(len(rows))

    def difference():
        logits = gpt2.logits(ids)[:, -1]
        return (logits[every, answer] - logits[every, wrong]).mean()

    results = {"baseline": difference()}
    kinds = ["zero", "mean", "resample"]
    for name in ("mixed", "attention", "mlp"):
        clean = gpt2.read(ids, name)
        means = clean.mean(1)
        results[f"{name}.means"] = means
        targets = [slice(None)] if name != "mixed" else list(range(gpt2.heads))
        grid = torch.zeros(len(kinds), gpt2.layers, len(targets))
        for layer in range(gpt2.layers):
            replacements = {"zero": torch.zeros_like(clean[layer]), "mean": means[layer].expand_as(clean[layer]),
                            "resample": clean[layer][permutation]}
            for row, kind in enumerate(kinds):
                for column, target in enumerate(targets):
                    def replace(value):
                        value[:, :, target] = replacements[kind][:, :, target]
                        return value

                    with gpt2.set(name, layer, replace):
                        grid[row, layer, column] = difference()
        results[f"{name}.difference"] = grid if name == "mixed" else grid[..., 0]
    return {
        "data_set": rows, "permutation": permutation, "kinds": kinds, "hook_points": OUTPUTS | MIXED,
        "mean": "over the data set, position by position",
        "resample": "row i gets the value of row permutation[i]",
        "metric": "the mean over the data set of logits[answer] - logits[wrong] at the last position",
        "axes": {"mixed.difference": ["kind", "layer", "head"], "attention.difference": ["kind", "layer"],
                 "mlp.difference": ["kind", "layer"], "mixed.means": ["layer", "position", "head", "head size"],
                 "attention.means": ["layer", "position", "hidden"], "mlp.means": ["layer", "position", "hidden"]},
    }, results


def induction_heads(gpt2):
    """Which heads look for what came after the last time? On random tokens, repeated."""
    half, count = 20, 6
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(1, gpt2.model.config.vocab_size, (count, half), generator=generator)
    ids = torch.cat([first, first], 1).tolist()
    offsets = {"induction": 1 - half, "previous_token": -1, "duplicate_token": -half}
    patterns = gpt2.patterns(ids)
    results = {name: patterns.diagonal(offset, -2, -1).mean(-1).mean(1) for name, offset in offsets.items()}
    logits = gpt2.logits(ids)
    right = logits[:, half:-1].argmax(-1) == torch.tensor(ids)[:, half + 1 :]
    results["accuracy"] = right.float().mean()
    return {
        "ids": ids, "half": half, "offsets": offsets, "hook_points": hook_points(pattern="attn.pattern"),
        "metric": "the mean of the pattern's diagonal at the offset (pattern[query, query + offset]), over the prompts",
        "accuracy": "how often the most probable token after position half or later is the next one",
        "axes": {name: ["layer", "head"] for name in offsets},
    }, results


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


EXPERIMENTS = {
    1: activation_patching, 5: logit_lens, 6: steering, 10: attention_knockout, 16: ablation, 18: induction_heads,
    19: patchscopes,
}


def write(number, function, gpt2):
    definition, results = function(gpt2)
    numbers = {key: value.item() for key, value in results.items() if value.dim() == 0}
    tensors = {key: value.contiguous() for key, value in results.items() if value.dim() > 0}
    document = {
        "experiment": number, "name": function.__name__, "about": " ".join(function.__doc__.split()),
        "model": "models/tiny-gpt2/model", "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__, **definition, "numbers": numbers,
        "tensors": {key: list(value.shape) for key, value in tensors.items()},
    }
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    (ROOT / f"{function.__name__}.json").write_text("{\n" + lines + "\n}\n")
    save_file(tensors, ROOT / f"{function.__name__}.safetensors")
    print(function.__name__, numbers)


def main():
    transformers.utils.logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    ROOT.mkdir(exist_ok=True)
    gpt2 = TinyGpt2()
    for number, function in EXPERIMENTS.items():
        if len(sys.argv) == 1 or function.__name__ in sys.argv[1:]:
            write(number, function, gpt2)


if __name__ == "__main__":
    main()
