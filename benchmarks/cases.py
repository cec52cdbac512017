"""Whole experiments as the peers run them: each by PyTorch's hooks as an expert writes it, by TransformerLens, some by nnsight."""

import contextlib

import torch
from peers import FOLDER, model

# Which row of the embedding is added, how often, and after which layer.
STEERED = (100, 3.0, 6)


def lens_model():
    """The same weights in TransformerLens; from a model of their own, into which it puts its modules."""
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(str(FOLDER), hf_model=model())


@contextlib.contextmanager
def hooked(pairs, before=False):
    """The functions of modules, while the block runs: before or after them."""
    handles = []
    try:
        for module, function in pairs:
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            handles.append(register(function))
        yield
    finally:
        for handle in handles:
            handle.remove()


def first(output):
    return output if isinstance(output, torch.Tensor) else output[0]


def blocks(model):
    """A model's layers: of GPT-2's family or Llama's."""
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


def projections(model):
    """Each layer's output projection: what it reads are the heads' mixed values, side by side."""
    return [block.attn.c_proj if hasattr(block, "attn") else block.self_attn.o_proj for block in blocks(model)]


class Patching:
    """From clean prompts into as many corrupted ones; a cell's result, of each pair, is the difference of two logits at the last position."""

    def __init__(self, model, lens, prompts):
        self.model, self.lens = model, lens
        pairs = len(prompts) // 2
        self.clean, self.corrupted = torch.tensor(prompts[:pairs]), torch.tensor(prompts[pairs:])
        config = model.config
        self.layers, self.heads = config.num_hidden_layers, config.num_attention_heads
        self.size = config.hidden_size // self.heads

    @staticmethod
    def metric(logits):
        return logits[0, -1, 0] - logits[0, -1, 1]

    def batch(self, modules, rows, write):
        """All cells of a pair in one batch, the logits of the last position alone."""
        pairs = zip(self.clean.split(1), self.corrupted.split(1), strict=True)
        found = [self.batch_of(clean, corrupted, modules, rows, write) for clean, corrupted in pairs]
        return torch.stack(found, 1).flatten().tolist()

    def batch_of(self, clean, corrupted, modules, rows, write):
        kept = {}
        keep = lambda layer: lambda module, inputs: kept.__setitem__(layer, inputs[0][0].clone())  # noqa: E731
        with hooked([(module, keep(layer)) for layer, module in enumerate(modules)], before=True):
            self.model(clean, use_cache=False, logits_to_keep=1)

        def patch(layer):
            def function(module, inputs):
                values = inputs[0].clone()
                write(layer, values, kept[layer])
                return (values, *inputs[1:])

            return function

        with hooked([(module, patch(layer)) for layer, module in enumerate(modules)], before=True):
            logits = self.model(corrupted.expand(rows, -1), use_cache=False, logits_to_keep=1).logits[:, -1]
        return logits[:, 0] - logits[:, 1]


class Heads(Patching):
    """One head's mixed values at the last position, for every layer and head: what the output projection reads."""

    def part(self, head):
        return slice(head * self.size, (head + 1) * self.size)

    @torch.no_grad()
    def batched(self):
        def write(layer, values, clean):
            for head in range(self.heads):
                values[layer * self.heads + head, -1, self.part(head)] = clean[-1, self.part(head)]

        return self.batch(projections(self.model), self.layers * self.heads, write)

    @torch.no_grad()
    def transformer_lens(self):
        from transformer_lens import patching

        def setter(values, index, clean):
            _, head = index
            values[:, -1, head] = clean[:, -1, head]
            return values

        _, cache = self.lens.run_with_cache(self.clean)
        found = patching.generic_activation_patch(
            self.lens, self.corrupted, cache, self.metric, setter, "z", index_axis_names=("layer", "head")
        )
        return found.flatten().tolist()

    @torch.no_grad()
    def nnsight(self, cached=False):
        """With nnsight as one first writes it: for every cell the clean prompt and the corrupted one; or the clean one only once
        for each layer."""
        import nnsight

        # A model of its own: what nnsight puts into it stays.
        wrapped, found, known = nnsight.NNsight(model()), [], {}
        for layer in range(self.layers):
            for head in range(self.heads):
                part = self.part(head)
                if not (cached and layer in known):
                    with wrapped.trace(self.clean):
                        mixed = wrapped.transformer.h[layer].attn.c_proj.input[0, -1].clone().save()
                    known[layer] = mixed
                value = known[layer][part]
                with wrapped.trace(self.corrupted):
                    wrapped.transformer.h[layer].attn.c_proj.input[0, -1, part] = value
                    logits = wrapped.lm_head.output[0, -1, :2].clone().save()
                found.append((logits[0] - logits[1]).item())
        return found


class Residual(Patching):
    """The residual stream that enters a layer, for every layer and position."""

    @torch.no_grad()
    def batched(self):
        length = self.clean.shape[1]

        def write(layer, values, clean):
            for position in range(length):
                values[layer * length + position, position] = clean[position]

        return self.batch(blocks(self.model), self.layers * length, write)

    @torch.no_grad()
    def transformer_lens(self):
        from transformer_lens import patching

        _, cache = self.lens.run_with_cache(self.clean)
        return patching.get_act_patch_resid_pre(self.lens, self.corrupted, cache, self.metric).flatten().tolist()


class Everything:
    """Every value that can be had of one prompt. Hooks keep the output of every module, which is less."""

    def __init__(self, model, lens, prompts):
        self.model, self.lens, self.ids = model, lens, torch.tensor(prompts)

    @torch.no_grad()
    def hooks(self):
        kept = []
        keep = lambda module, inputs, output: kept.append(first(output).clone())  # noqa: E731
        with hooked([(module, keep) for name, module in self.model.named_modules() if name]):
            self.model(self.ids, use_cache=False)
        return kept

    @torch.no_grad()
    def transformer_lens(self):
        return self.lens.run_with_cache(self.ids)


class Lens:
    """The largest logit after each layer, at the last position of many prompts."""

    def __init__(self, model, lens, prompts):
        self.model, self.lens, self.ids = model, lens, torch.tensor(prompts)

    @torch.no_grad()
    def hooks(self):
        kept = []
        keep = lambda module, inputs, output: kept.append(first(output)[:, -1].clone())  # noqa: E731
        with hooked([(block, keep) for block in self.model.transformer.h]):
            self.model.transformer(self.ids, use_cache=False)
        logits = self.model.lm_head(self.model.transformer.ln_f(torch.stack(kept)))
        return logits.amax(-1).flatten().tolist()

    @torch.no_grad()
    def transformer_lens(self):
        _, cache = self.lens.run_with_cache(self.ids, names_filter=lambda name: name.endswith("hook_resid_post"))
        layers = range(self.model.config.n_layer)
        stacked = torch.stack([cache["resid_post", layer][:, -1] for layer in layers])
        return self.lens.unembed(self.lens.ln_final(stacked)).amax(-1).flatten().tolist()


class Steering:
    """A generation with a vector added to a layer's output at every position and step."""

    def __init__(self, model, lens, prompts, count):
        self.model, self.lens, self.ids, self.count = model, lens, torch.tensor(prompts), count
        row, factor, self.layer = STEERED
        self.vector = model.transformer.wte.weight[row].detach() * factor

    @torch.no_grad()
    def hooks(self):
        def add(module, inputs, output):
            steered = first(output) + self.vector
            return (steered, *output[1:]) if isinstance(output, tuple) else steered

        with hooked([(self.model.transformer.h[self.layer], add)]):
            out = self.model.generate(
                self.ids,
                attention_mask=torch.ones_like(self.ids),
                max_new_tokens=self.count,
                min_new_tokens=self.count,
                do_sample=False,
                pad_token_id=0,
            )
        return out[:, self.ids.shape[1] :].flatten().tolist()
