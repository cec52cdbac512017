from contextlib import ExitStack, contextmanager

import torch

from .common import IOI, difference, hook_points, kl

STEPS = 5
KINDS = ("query", "key", "value")


def edge_attribution(gpt2):
    """Which edges make the circuit? An edge goes from what a component writes to what another reads; its score is the change
    of what is written, from the clean to the corrupted prompt, times the gradient where it is read. With integrated gradients, the
    gradient is averaged on the way from the clean to the corrupted embeddings."""
    names = {"a": "Mary", "b": "John", "place": "store", "thing": "drink"}
    clean, corrupted = (gpt2.prompt(IOI.format(**names, giver=giver)) for giver in ("John", "Mary"))
    answer, wrong = gpt2.word("Mary"), gpt2.word("John")
    layers, heads, hidden = gpt2.layers, gpt2.heads, gpt2.model.config.n_embd
    weights = [gpt2.block(layer).attn.c_proj.weight.unflatten(0, (heads, gpt2.head_size)) for layer in range(layers)]

    def embeddings(prompt):
        found = []
        with gpt2.edit(gpt2.model.transformer.wte, "output", lambda v: found.append(v) or v):
            logits = gpt2.logits([prompt["ids"]])
        return found[0], logits

    def written(prompt):
        """[senders, length, hidden]: the embeddings, then each layer's heads and its MLP."""
        mixed, mlp = gpt2.read([prompt["ids"]], "mixed")[:, 0], gpt2.read([prompt["ids"]], "mlp")[:, 0]
        parts = [gpt2.read([prompt["ids"]], "residual")[0]]
        for layer in range(layers):
            parts += [torch.einsum("phd,hdo->hpo", mixed[layer], weights[layer]), mlp[layer][None]]
        return torch.cat(parts)

    @contextmanager
    def receivers():
        """While it is open, each head reads three copies of the residual stream, for its query, key and value. Gives what is
        read, in order: each layer's copies [3 heads, length, hidden] and its MLP's, then the last norm's."""
        read = []
        with ExitStack() as stack:
            for layer in range(layers):
                block, entered = gpt2.block(layer), []
                linear, norm = block.attn.c_attn, block.ln_1

                def split(_, entered=entered, linear=linear, norm=norm):
                    copies = entered.pop().expand(3 * heads, -1, -1).clone()
                    copies.retain_grad()
                    read.append(copies)
                    # Of each copy, only the columns that its head and kind of vector take.
                    columns = linear.weight.unflatten(1, (3 * heads, gpt2.head_size))
                    parts = torch.einsum("cph,hcd->pcd", norm(copies), columns) + linear.bias.unflatten(0, (3 * heads, -1))
                    return parts.flatten(1)[None]

                stack.enter_context(gpt2.edit(block, "input", lambda v, entered=entered: entered.append(v) or v))
                stack.enter_context(gpt2.edit(linear, "output", split))
                stack.enter_context(gpt2.edit(block.ln_2, "input", lambda v: v.retain_grad() or read.append(v) or v))
            stack.enter_context(gpt2.edit(gpt2.model.transformer.ln_f, "input", lambda v: v.retain_grad() or read.append(v) or v))
            yield read

    start, clean_logits = embeddings(clean)
    end, corrupted_logits = embeddings(corrupted)
    change = written(corrupted) - written(clean)

    def scores(metric, share):
        """[senders, receivers] of one run whose embeddings are that share of the way to the corrupted ones."""
        with torch.enable_grad(), receivers() as read:
            here = (start + share * (end - start)).requires_grad_()
            with gpt2.edit(gpt2.model.transformer.wte, "output", lambda _: here):
                value = metric(gpt2.logits([clean["ids"]]))
        value.backward()
        gradient = torch.cat([part.grad for part in read])
        found = torch.einsum("sph,rph->sr", change, gradient)
        # A receiver reads only what was written before it.
        sent = [-1.0] + [layer + (0.5 if place == heads else 0.25) for layer in range(layers) for place in range(heads + 1)]
        reads = [layer + (0.4 if place == 3 * heads else 0) for layer in range(layers) for place in range(3 * heads + 1)] + [layers]
        return found * torch.tensor([[float(s < r) for r in reads] for s in sent], dtype=found.dtype)

    eap = scores(lambda logits: difference(logits, answer, wrong), 0.0)
    integrated = sum(scores(lambda logits: kl(clean_logits[0, -1], logits[0, -1]), step / STEPS) for step in range(1, STEPS + 1)) / STEPS
    senders = ["embeddings"] + [name for layer in range(layers) for name in [f"{layer}.{head}" for head in range(heads)] + [f"mlp {layer}"]]
    readers = [name for layer in range(layers)
               for name in [f"{layer}.{head}.{kind}" for kind in KINDS for head in range(heads)] + [f"mlp {layer}"]] + ["logits"]
    return {
        "clean": clean, "corrupted": corrupted, "answer": answer, "wrong": wrong, "steps": STEPS, "senders": senders, "receivers": readers,
        "hook_points": hook_points(mixed="attn.mixed", mlp="mlp.output", read="input", read_by_mlp="ln_2.input")
        | {"embeddings": "transformer.h.0.input", "interpolated": "transformer.wte.output", "read_by_logits": "transformer.ln_f.input"},
        "written": "the embeddings: the residual stream that enters layer 0; a head: its mixed value times its rows of attn.c_proj.weight; "
                   "an MLP: its output",
        "read": "of a head's query, key and value: the layer's input, a copy for each, before ln_1; of an MLP: what enters ln_2; of the "
                "logits: what enters ln_f",
        "score": "the sum over positions and hidden of (corrupted - clean) written times the gradient of the metric read; 0 where the "
                 "receiver comes first",
        "eap": "metric logits[answer] - logits[wrong] at the last position, gradient of the clean run",
        "integrated": "metric KL(clean || run) at the last position, the mean over runs k = 1 … steps whose token embeddings are clean + k / "
                      "steps (corrupted - clean)",
        "axes": {"eap": ["sender", "receiver"], "integrated": ["sender", "receiver"]},
    }, {"eap": eap, "integrated": integrated, "clean_difference": difference(clean_logits, answer, wrong),
        "corrupted_kl": kl(clean_logits[0, -1], corrupted_logits[0, -1])}
