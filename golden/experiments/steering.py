import torch

from .common import checked


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
