"""Activation patching as the peers run it: by PyTorch's hooks as an expert writes it, by nnsight as one first writes it and batched by
hand, and by TransformerLens' own utilities."""

import torch
from cases import blocks, hooked, projections


class Patching:
    """From clean prompts into as many corrupted ones: of what a layer's module reads, a part at one position. A cell's result, of
    each pair, is the difference of two logits at the last position."""

    def __init__(self, sides, prompts):
        self.sides = sides
        pairs = len(prompts) // 2
        self.clean, self.corrupted = torch.tensor(prompts[:pairs]), torch.tensor(prompts[pairs:])
        self.layers, self.length = sides.config.num_hidden_layers, len(prompts[0])
        self.cells = self.grid()

    @staticmethod
    def metric(logits):
        return logits[0, -1, 0] - logits[0, -1, 1]

    def of_every_pair(self, batch):
        """All cells of a pair in one batch, the logits of the last position alone."""
        found = [batch(clean, corrupted) for clean, corrupted in zip(self.clean.split(1), self.corrupted.split(1), strict=True)]
        return torch.stack(found, 1).flatten().tolist()

    def write(self, layer, values, clean):
        """A row of the batch for each cell: into those of a layer its clean values."""
        for row, (at, position, part) in enumerate(self.cells):
            if at == layer:
                values[row, position, part] = clean[position, part]

    @torch.no_grad()
    def hooks(self):
        model = self.sides.model
        modules = list(enumerate(self.modules(model)))

        def batch(clean, corrupted):
            kept = {}
            keep = lambda layer: lambda module, inputs: kept.__setitem__(layer, inputs[0][0].clone())  # noqa: E731
            with hooked([(module, keep(layer)) for layer, module in modules], before=True):
                model(clean, use_cache=False, logits_to_keep=1)

            def patch(layer):
                def function(module, inputs):
                    values = inputs[0].clone()
                    self.write(layer, values, kept[layer])
                    return (values, *inputs[1:])

                return function

            with hooked([(module, patch(layer)) for layer, module in modules], before=True):
                logits = model(corrupted.expand(len(self.cells), -1), use_cache=False, logits_to_keep=1).logits[:, -1]
            return logits[:, 0] - logits[:, 1]

        return self.of_every_pair(batch)

    @torch.no_grad()
    def nnsight_batched(self):
        wrapped = self.sides.nnsight
        modules = self.modules(wrapped)

        def batch(clean, corrupted):
            kept = []
            with wrapped.trace(clean, use_cache=False, logits_to_keep=1):
                for module in modules:
                    kept.append(module.input[0].clone().save())
            rows = corrupted.expand(len(self.cells), -1)
            with wrapped.trace(rows, use_cache=False, logits_to_keep=1):
                for layer, module in enumerate(modules):
                    self.write(layer, module.input, kept[layer])
                logits = wrapped.lm_head.output[:, -1, :2].clone().save()
            return logits[:, 0] - logits[:, 1]

        return self.of_every_pair(batch)

    @torch.no_grad()
    def nnsight(self, cached=False):
        """With nnsight as one first writes it: for every cell the clean prompt and the corrupted one; or the clean one only once
        for each layer and position."""
        wrapped = self.sides.nnsight
        modules, found, known = self.modules(wrapped), [], {}
        for layer, position, part in self.cells:
            if not (cached and (layer, position) in known):
                with wrapped.trace(self.clean):
                    values = modules[layer].input[0, position].clone().save()
                known[layer, position] = values
            value = known[layer, position][part]
            with wrapped.trace(self.corrupted):
                modules[layer].input[0, position, part] = value
                logits = wrapped.lm_head.output[0, -1, :2].clone().save()
            found.append((logits[0] - logits[1]).item())
        return found


class Heads(Patching):
    """One head's mixed values at the last position, for every layer and head: what the output projection reads."""

    modules = staticmethod(projections)

    def grid(self):
        config = self.sides.config
        size = config.hidden_size // config.num_attention_heads
        heads = range(config.num_attention_heads)
        part = lambda head: slice(head * size, (head + 1) * size)  # noqa: E731
        return [(layer, self.length - 1, part(head)) for layer in range(self.layers) for head in heads]

    @torch.no_grad()
    def transformer_lens(self):
        from transformer_lens import patching

        def setter(values, index, clean):
            _, head = index
            values[:, -1, head] = clean[:, -1, head]
            return values

        lens = self.sides.transformer_lens
        _, cache = lens.run_with_cache(self.clean)
        found = patching.generic_activation_patch(
            lens, self.corrupted, cache, self.metric, setter, "z", index_axis_names=("layer", "head")
        )
        return found.flatten().tolist()


class Residual(Patching):
    """The residual stream that enters a layer, for every layer and position."""

    modules = staticmethod(blocks)

    def grid(self):
        return [(layer, position, slice(None)) for layer in range(self.layers) for position in range(self.length)]

    @torch.no_grad()
    def transformer_lens(self):
        from transformer_lens import patching

        lens = self.sides.transformer_lens
        _, cache = lens.run_with_cache(self.clean)
        return patching.get_act_patch_resid_pre(lens, self.corrupted, cache, self.metric).flatten().tolist()
