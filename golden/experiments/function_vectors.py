import random

import torch

from .common import corpus, hook_points, ids_of, one_length, short

RELATIONS = {"capital": 0, "language": 2}
PROMPTS, TEST, TOP = 8, 12, 3


def function_vectors(gpt2):
    """A relation as a vector: the mean of a few heads at the end of prompts that show the relation by examples. Added to a
    prompt without examples, it says which of a country's facts is asked for."""
    draw = random.Random(3)
    countries = list(corpus.COUNTRIES)
    def fact(country, relation):
        return corpus.COUNTRIES[country].split()[RELATIONS.get(relation, relation)]

    def examples(relation):
        """A prompt with four examples and a question. `relation` None: each example shows some relation or other."""
        *shown, asked = draw.sample(countries, 5)
        lines = [f"{country}: {fact(country, draw.randrange(4) if relation is None else relation)}" for country in shown]
        return ", ".join([*lines, f"{asked}:"]), asked

    test = draw.sample(countries, TEST)
    bare = one_length([short(gpt2, f"{country}:") for country in test])
    weights = torch.stack([gpt2.block(layer).attn.c_proj.weight for layer in range(gpt2.layers)])
    weights = weights.unflatten(1, (gpt2.heads, gpt2.head_size))
    every = torch.arange(PROMPTS)
    relations, results, vectors = {}, {}, {}
    for relation in RELATIONS:
        shown = [examples(relation) for _ in range(PROMPTS)]
        mixed_up = [examples(None) for _ in range(PROMPTS)]
        prompts = one_length([short(gpt2, text) for text, _ in shown])
        confused = one_length([short(gpt2, text) for text, _ in mixed_up])
        answers = torch.tensor([gpt2.word(fact(asked, relation)) for _, asked in mixed_up])

        def probability():
            return gpt2.logits(ids_of(confused))[:, -1].softmax(-1)[every, answers].mean()

        means = gpt2.read(ids_of(prompts), "mixed")[:, :, -1].mean(1)
        base, effect = probability(), torch.zeros(gpt2.layers, gpt2.heads)
        for layer in range(gpt2.layers):
            for head in range(gpt2.heads):
                def put(value):
                    value[:, -1, head] = means[layer, head]
                    return value

                with gpt2.set("mixed", layer, put):
                    effect[layer, head] = probability() - base
        chosen = effect.flatten().topk(TOP).indices
        vectors[relation] = sum(means[place // gpt2.heads, place % gpt2.heads] @ weights[place // gpt2.heads, place % gpt2.heads]
                                for place in chosen.tolist())
        results |= {f"{relation}.confused_probability": base, f"{relation}.effect": effect, f"{relation}.heads": chosen,
                    f"{relation}.vector": vectors[relation]}
        relations[relation] = {"prompts": prompts, "confused": confused, "answers": answers.tolist(),
                               "test_answers": [gpt2.word(fact(country, relation)) for country in test]}
    rows = torch.arange(TEST)
    for relation in RELATIONS:
        # How probable each relation's answer is: without a vector, and with this one at each layer's output.
        table = torch.zeros(gpt2.layers + 1, len(RELATIONS))
        for layer in range(-1, gpt2.layers):
            def add(value):
                value[:, -1] += vectors[relation] if layer >= 0 else 0
                return value

            with gpt2.edit(gpt2.block(max(layer, 0)), "output", add):
                probabilities = gpt2.logits(ids_of(bare))[:, -1].softmax(-1)
            for column, of in enumerate(RELATIONS):
                answers = torch.tensor(relations[of]["test_answers"])
                table[layer + 1, column] = probabilities[rows, answers].mean()
        results[f"{relation}.probability"] = table
    return {
        "relations": relations, "test": bare, "top": TOP,
        "hook_points": hook_points(heads="attn.mixed", added="output"),
        "effect": "the mean over the confused prompts of the answer's probability at the last position, with the head's mixed value "
                  "there set to its mean over the prompts, less the same without",
        "heads": "the places of the `top` largest effects, layer * heads + head",
        "vector": "the sum over these heads of the mean mixed value times the head's rows of attn.c_proj.weight",
        "probability": "the mean over the test prompts of the probability of each relation's answer at the last position; row 0 "
                       "without the vector, row 1 + layer with it added to that layer's output at the last position",
        "axes": {"<relation>.effect": ["layer", "head"], "<relation>.heads": ["rank"], "<relation>.vector": ["hidden"],
                 "<relation>.probability": ["place", "relation of the answer"]},
    }, results
