"""Whole experiments as the peers run them, but for `patching.py`: by PyTorch's hooks as an expert writes it, some by TransformerLens."""

import contextlib
import functools

import peers
import torch
import transformers

# Which row of the embedding is added, how often, and after which layer.
STEERED = (100, 1.0, 6)


class Sides:
    """A model as the peers have it. Each has one of its own, made when it is first asked for: TransformerLens and nnsight put
    modules of theirs into it."""

    def __init__(self, folder):
        self.folder = peers.made(folder)

    def load(self, *peers):
        """Loads these peers' models, so that nothing is loaded in what is timed."""
        for peer in peers:
            getattr(self, peer)

    @functools.cached_property
    def config(self):
        return transformers.AutoConfig.from_pretrained(self.folder)

    @functools.cached_property
    def model(self):
        return peers.opened(self.folder)

    @functools.cached_property
    def transformer_lens(self):
        from transformer_lens.model_bridge import TransformerBridge

        return TransformerBridge.boot_transformers(str(self.folder), hf_model=peers.opened(self.folder))

    @functools.cached_property
    def nnsight(self):
        import nnsight

        return nnsight.NNsight(peers.opened(self.folder))


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


# Of GPT-2's family or Llama's.
def blocks(model):
    """A model's layers."""
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


def attentions(model):
    return [block.attn if hasattr(block, "attn") else block.self_attn for block in blocks(model)]


def projections(model):
    """Each layer's output projection: what it reads are the heads' mixed values, side by side."""
    return [part.c_proj if hasattr(part, "c_proj") else part.o_proj for part in attentions(model)]


def mlps(model):
    return [block.mlp for block in blocks(model)]


def final_norm(model):
    return model.transformer.ln_f if hasattr(model, "transformer") else model.model.norm


class Everything:
    """Every value that can be had of one prompt. Hooks keep the output of every module, which is less."""

    def __init__(self, sides, prompts):
        self.sides, self.ids = sides, torch.tensor(prompts)

    @torch.no_grad()
    def hooks(self):
        kept = {}
        keep = lambda module, inputs, output: kept.__setitem__(module, first(output).clone())  # noqa: E731
        model = self.sides.model
        with hooked([(module, keep) for name, module in model.named_modules() if name]):
            model(self.ids, use_cache=False)
        return kept

    def of_hooks(self, kept):
        """What can be compared: the sums of the attentions' outputs, the MLPs' and the layers'."""
        model = self.sides.model
        return [kept[module].double().sum().item() for part in (attentions, mlps, blocks) for module in part(model)]

    @torch.no_grad()
    def transformer_lens(self):
        return self.sides.transformer_lens.run_with_cache(self.ids)

    def of_transformer_lens(self, kept):
        layers = range(self.sides.config.num_hidden_layers)
        names = ("attn_out", "mlp_out", "resid_post")
        return [kept[1][name, layer].double().sum().item() for name in names for layer in layers]


class Lens:
    """The largest logit after each layer, at the last position of many prompts."""

    def __init__(self, sides, prompts):
        self.sides, self.ids = sides, torch.tensor(prompts)

    @torch.no_grad()
    def hooks(self):
        kept, model = [], self.sides.model
        keep = lambda module, inputs, output: kept.append(first(output)[:, -1].clone())  # noqa: E731
        with hooked([(block, keep) for block in blocks(model)]):
            model.base_model(self.ids, use_cache=False)
        logits = model.lm_head(final_norm(model)(torch.stack(kept)))
        return logits.amax(-1).flatten().tolist()

    @torch.no_grad()
    def transformer_lens(self):
        lens = self.sides.transformer_lens
        _, cache = lens.run_with_cache(self.ids, names_filter=lambda name: name.endswith("hook_resid_post"))
        layers = range(self.sides.config.num_hidden_layers)
        stacked = torch.stack([cache["resid_post", layer][:, -1] for layer in layers])
        return lens.unembed(lens.ln_final(stacked)).amax(-1).flatten().tolist()


class Steering:
    """A generation with a vector added to a layer's output at every position and step."""

    def __init__(self, sides, prompts, count):
        self.sides, self.ids, self.count = sides, torch.tensor(prompts), count

    @torch.no_grad()
    def generate(self, **more):
        model = self.sides.model
        row, factor, layer = STEERED
        vector = model.get_input_embeddings().weight[row] * factor

        def add(module, inputs, output):
            steered = first(output) + vector
            return (steered, *output[1:]) if isinstance(output, tuple) else steered

        with hooked([(blocks(model)[layer], add)]):
            return model.generate(
                self.ids,
                attention_mask=torch.ones_like(self.ids),
                max_new_tokens=self.count,
                min_new_tokens=self.count,
                do_sample=False,
                pad_token_id=0,
                **more,
            )

    def hooks(self):
        return self.generate()[:, self.ids.shape[1] :].flatten().tolist()

    def largest_logits(self):
        """Of each step and prompt."""
        found = self.generate(return_dict_in_generate=True, output_logits=True)
        return torch.stack(found.logits).amax(-1).flatten().tolist()


class Attribution:
    """Attribution patching at the outputs of attentions and MLPs: the clean values less the corrupted ones, times the gradients of
    the corrupted run's logit difference."""

    def __init__(self, sides, prompts):
        self.sides = sides
        self.clean, self.corrupted = (torch.tensor([prompt]) for prompt in prompts)

    def hooks(self):
        model = self.sides.model
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        modules = [module for pair in zip(attentions(model), mlps(model), strict=True) for module in pair]
        clean, corrupted = [], []

        def keep(module, inputs, output):
            value = first(output)
            if not value.requires_grad:
                # The first of them: nothing before it carries gradients, as no weight does.
                value.requires_grad_()
            corrupted.append(value)

        with torch.no_grad(), hooked([(module, lambda _, __, output: clean.append(first(output))) for module in modules]):
            model.base_model(self.clean, use_cache=False)
        with hooked([(module, keep) for module in modules]):
            last = model.base_model(self.corrupted, use_cache=False).last_hidden_state[:, -1]
        # Two logits are all that is needed of the unembedding.
        logits = torch.nn.functional.linear(last, model.lm_head.weight[:2])
        gradients = torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), corrupted)
        with torch.no_grad():
            found = [((one - other) * slope).sum() for one, other, slope in zip(clean, corrupted, gradients, strict=True)]
            return torch.stack(found).tolist()
