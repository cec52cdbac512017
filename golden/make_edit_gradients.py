"""Makes golden/edits/: gradients through edits of two small models, by plain PyTorch: weights that are set, skipped modules,
conditions, modules out of order, setters, written gradients.

    python make_edit_gradients.py

See README.md for the format.
"""

import json
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parent
MODELS = ["gpt2", "llama3"]
TOKENS, OTHER = [7, 31, 4, 90, 12], [55, 2, 64, 8, 40]
# transformers' names of what the language calls by one name.
NAMES = {
    "gpt2": {"layers": "transformer.h", "embed": "transformer.wte", "final_norm": "transformer.ln_f", "attention": "attn",
             "norm_1": "ln_1", "down": "mlp.c_proj", "value": "attn.c_attn"},
    "llama3": {"layers": "model.layers", "embed": "model.embed_tokens", "final_norm": "model.norm", "attention": "self_attn",
               "norm_1": "input_layernorm", "down": "mlp.down_proj", "value": "self_attn.v_proj"},
}


class Run:
    """One forward pass with edits, and what is kept of it, with gradients."""

    def __init__(self, name, model, given):
        self.name, self.model, self.given = name, model, given
        self.kept, self.edits = {}, ExitStack()

    def path(self, *parts):
        """A module by its place in a layer, or one of the three outside the layers."""
        names = NAMES[self.name]
        if isinstance(parts[0], int):
            layer, *rest = parts
            return ".".join([names["layers"], str(layer), *(names.get(part, part) for part in rest)])
        return names.get(parts[0], parts[0])

    def module(self, *parts):
        return self.model.get_submodule(self.path(*parts))

    def keep(self, name, value):
        """A copy that everything has to pass, and whose gradient is kept under that name."""
        value = value.clone()
        value.retain_grad()
        self.kept[name] = value
        return value

    def output(self, parts, change):
        """The module's output becomes what is made of it."""
        def hook(module, args, output):
            return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

        self.edits.callback(self.module(*parts).register_forward_hook(hook).remove)

    def weight(self, parts, value):
        """The module has another parameter."""
        *parts, name = parts
        module = self.module(*parts)
        own = module._parameters.pop(name)
        setattr(module, name, value)

        def restore():
            delattr(module, name)
            module._parameters[name] = own

        self.edits.callback(restore)

    def logits(self, tokens=TOKENS, early="early"):
        """The logits of a prompt; gradients reach back to its token embeddings, and are kept under that name."""
        def begin(module, args, output):
            return self.keep(early, output.detach().requires_grad_()) if early else output

        handle = self.module("embed").register_forward_hook(begin)
        try:
            return self.model(input_ids=torch.tensor([tokens]), use_cache=False).logits
        finally:
            handle.remove()


def loss_of(logits):
    return logits[0, -1, 5] - logits[0, -1, 9]


@contextmanager
def patterns(function):
    """While it is open, `function(layer, pattern)` makes what comes of each layer's softmax."""
    own, layer = torch.nn.functional.softmax, [-1]

    def changed(*args, **options):
        layer[0] += 1
        return function(layer[0], own(*args, **options))

    torch.nn.functional.softmax = changed
    try:
        yield
    finally:
        torch.nn.functional.softmax = own


# Each case edits a run, and gives its loss. What it keeps is what the golden file has the gradients of.


def weight_in_a_block(run):
    """The down projection of layer 1 is its half and `matrix`."""
    run.output([0], lambda value: run.keep("layer_0", value))
    run.output([1], lambda value: run.keep("layer_1", value))
    weight = run.module(1, "down").weight * 0.5 + run.given["matrix"]
    run.weight([1, "down", "weight"], run.keep("weight", weight.requires_grad_()))
    return loss_of(run.logits())


def part_of_a_weight(run):
    """Rows 1 and 2 of what makes layer 1's values are twice theirs and `rows`; nothing else of it is touched."""
    own = run.module(1, "value").weight
    rows = run.keep("rows", (own[1:3] * 2 + run.given["rows"]).requires_grad_())
    run.weight([1, "value", "weight"], torch.cat([own[:1], rows, own[3:]]))
    return loss_of(run.logits())


def weight_of_a_norm(run):
    """Layer 2's first norm has a weight that is computed from what it had, by a factor with a gradient of its own."""
    factor = run.keep("factor", torch.tensor(1.5).requires_grad_())
    run.weight([2, "norm_1", "weight"], run.keep("weight", torch.tanh(run.module(2, "norm_1").weight * factor)))
    return loss_of(run.logits())


def tied_embedding(run):
    """Embedding and unembedding are tied: what is set for the one is set for both."""
    table = run.keep("table", (run.module("embed").weight * 0.75 + 0.01).requires_grad_())
    run.weight(["embed", "weight"], table)
    run.weight(["lm_head", "weight"], table)
    run.output([1], lambda value: run.keep("layer_1", value))
    return loss_of(run.logits(early=None))


def two_passes_with_one_weight(run):
    """Two invokes have one weight: both losses come to it, and each to its own stream."""
    weight = run.keep("weight", (run.module(0, "down").weight * 0.5).requires_grad_())
    run.weight([0, "down", "weight"], weight)
    return loss_of(run.logits()) + 0.5 * loss_of(run.logits(OTHER, "other"))


def skipped_mlp(run):
    """Layer 1's MLP is skipped: its output is a bent value of layer 0's."""
    stream = {}
    run.output([0], lambda value: stream.setdefault("value", run.keep("layer_0", value)))
    run.output([1, "mlp"], lambda value: run.keep("given", torch.tanh(stream["value"]) * 0.5))
    return loss_of(run.logits())


def skipped_attention(run):
    """Layer 1's attention is skipped: its output is `vector` at every position."""
    vector = run.keep("vector", run.given["vector"].clone().requires_grad_())
    run.output([1, "attention"], lambda value: vector.expand_as(value))
    run.output([2], lambda value: run.keep("layer_2", value))
    return loss_of(run.logits())


def skipped_block(run):
    """Layer 1 is skipped as a whole, and its output set once more after it."""
    stream = {}
    run.output([0], lambda value: stream.setdefault("value", run.keep("layer_0", value)))
    run.output([1], lambda value: run.keep("given", stream["value"] * 1.5))
    run.output([1], lambda value: run.keep("set", value + run.given["vector"]))
    return loss_of(run.logits())


def condition(run, above):
    """Where the stream is large enough it is set to its half, else to a bent value; what the branch gives is used later."""
    yielded = {}

    def choose(value):
        value = run.keep("layer_0", value)
        yielded["value"] = value * 0.5 if value.norm() > above else torch.tanh(value)
        return run.keep("set", yielded["value"])

    run.output([0], choose)
    run.output([2, "mlp"], lambda value: value + run.keep("later", yielded["value"].mean(1, keepdim=True)))
    return loss_of(run.logits())


def condition_holds(run):
    return condition(run, 0.1)


def condition_fails(run):
    return condition(run, 1e6)


def modules_out_of_order(run):
    """The logits of layer 0's stream, and the last MLP on it, come to the loss too."""
    stream = {}
    run.output([0], lambda value: stream.setdefault("value", run.keep("layer_0", value)))
    loss = loss_of(run.logits())
    lens = run.model.lm_head(run.module("final_norm")(stream["value"]))
    scaled = run.keep("scaled", stream["value"] * 0.5)
    return loss + 0.5 * loss_of(lens) + run.keep("applied", run.module(2, "mlp")(scaled)).pow(2).mean()


def setters(run):
    """The last position of layer 1 is moved by `vector`; what it was is bent and added to the last MLP."""
    vector = run.keep("vector", run.given["vector"].clone().requires_grad_())
    read = {}

    def move(value):
        read["value"] = run.keep("read", value)
        moved = read["value"].clone()
        moved[:, -1] += vector
        return run.keep("set", moved)

    run.output([1], move)
    run.output([2, "mlp"], lambda value: value + 0.5 * torch.tanh(read["value"]))
    return loss_of(run.logits())


def overwritten(run):
    """Two setters of one hook point: the second has the last word, and was computed from the first one's value."""

    def change(value):
        first = run.keep("first", value * run.given["vector"])
        return run.keep("second", torch.tanh(first) + first.detach())

    run.output([1], change)
    return loss_of(run.logits())


def inside_attention(run):
    """Layer 1's attention pattern is made flatter and loses its first head; the gradient of what it was, and of what it is."""

    def change(layer, pattern):
        if layer != 1:
            return pattern
        pattern = run.keep("pattern", pattern)
        flat = pattern * 0.5 + 0.1
        flat[:, 0] = 0
        return run.keep("flat", flat)

    with patterns(change):
        return loss_of(run.logits())


def patched(run):
    """A position of another pass stands at layer 1: what comes to it goes back through that pass."""
    source = {}
    with run.edits:
        run.output([1], lambda value: source.setdefault("value", run.keep("source", value)))
        run.logits(OTHER, "other")

    def patch(value):
        value = value.clone()
        value[:, 3] = source["value"][:, 3] * 2
        return run.keep("patched", value)

    run.output([1], patch)
    return loss_of(run.logits())


def written_gradient(run):
    """The gradient at layer 1 is bent on its way back, and goes on from there; with a weight set before it."""
    run.weight([0, "down", "weight"], run.keep("weight", (run.module(0, "down").weight * 0.5).requires_grad_()))
    run.output([0], lambda value: run.keep("layer_0", value))

    def change(value):
        value.register_hook(lambda gradient: torch.tanh(gradient) * 2)
        return run.keep("layer_1", value)

    run.output([1], change)
    return loss_of(run.logits())


def all_of_it(run):
    """A weight, a skip, a condition, a setter and a module out of order, in one."""
    vector = run.keep("vector", run.given["vector"].clone().requires_grad_())
    run.weight([0, "down", "weight"], run.keep("weight", (run.module(0, "down").weight * 0.5).requires_grad_()))
    stream = {}

    def first(value):
        stream["value"] = run.keep("layer_0", value)
        return stream["value"] + vector if value.norm() > 0.1 else stream["value"]

    run.output([0], first)
    run.output([1, "mlp"], lambda value: run.keep("given", stream["value"] * vector))
    run.output([2], lambda value: run.keep("set", torch.tanh(value)))
    lens = {}
    run.output([1], lambda value: lens.setdefault("value", run.keep("layer_1", value)))
    loss = loss_of(run.logits())
    return loss + loss_of(run.model.lm_head(run.module("final_norm")(lens["value"])))


CASES = [weight_in_a_block, part_of_a_weight, weight_of_a_norm, tied_embedding, two_passes_with_one_weight, skipped_mlp,
         skipped_attention, skipped_block, condition_holds, condition_fails, modules_out_of_order, setters, overwritten,
         inside_attention, patched, written_gradient, all_of_it]


def without_edits(name, model):
    """The gradient at the embeddings with nothing edited: no case may have this one."""
    run = Run(name, model, {})
    loss_of(run.logits()).backward()
    return run.kept["early"].grad


def make(name):
    model = AutoModelForCausalLM.from_pretrained(
        ROOT / "models" / name, dtype=torch.float32, attn_implementation="eager").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(2031)
    shapes = {"matrix": Run(name, model, {}).module(1, "down").weight.shape, "vector": [32],
              "rows": Run(name, model, {}).module(1, "value").weight[1:3].shape}
    given = {key: torch.randn(*shape, generator=generator) * 0.1 for key, shape in shapes.items()}
    tensors = {f"given.{key}": value for key, value in given.items()}
    plain, listing = without_edits(name, model), {}
    for case in CASES:
        run = Run(name, model, given)
        with run.edits:
            loss = case(run)
            loss.backward()
        gradients = {key: value.grad for key, value in run.kept.items()}
        assert all(gradient is not None and gradient.any() for gradient in gradients.values()), (case, gradients)
        early = gradients.get("early")
        assert early is None or not torch.allclose(early, plain, rtol=1e-2), f"{case} changes nothing"
        tensors[f"{case.__name__}.loss"] = loss.detach()
        tensors |= {f"{case.__name__}.{key}": gradient.contiguous().clone() for key, gradient in gradients.items()}
        listing[case.__name__] = {"is": case.__doc__ or condition.__doc__, "gradients_of": sorted(gradients)}
    folder = ROOT / "edits"
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / f"{name}.safetensors")
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in listing.items())
    (folder / f"{name}.json").write_text(
        f'{{\n "tokens": {TOKENS},\n "other": {OTHER},\n "loss": "logits[0, -1, 5] - logits[0, -1, 9]",\n "cases": {{\n{lines}\n }}\n}}\n')
    print(f"{name}: {len(listing)} cases, {len(tensors) - len(given) - len(listing)} gradients, "
          f"{(folder / f'{name}.safetensors').stat().st_size} bytes")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in MODELS:
        make(name)


if __name__ == "__main__":
    main()
