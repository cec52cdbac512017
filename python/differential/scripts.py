"""The same experiments for nnsight 0.8.1 and for Pellucid.

Most are written once and run by both: `model` is the one's or the other's, and nothing else changes. Where the guide says that the two
differ (docs/coming-from-nnsight.md), a script is written twice, `_nnsight` and `_pellucid`.

Each gives a dictionary of tensors, or lists of them. `m` has what differs between families: the blocks, the norm, the names inside.
"""

import nnsight
import pellucid as pl
import torch

PROMPT = "The Eiffel Tower is in the city of"
# As many tokens as PROMPT: nnsight pads the shorter of two prompts, and its positions count pads.
OTHER = "The Colosseum can be found in the old city of"
BOTH = {}
PAIRS = {}


def both(function):
    BOTH[function.__name__] = function
    return function


def pair(function):
    name, _, which = function.__name__.rpartition("_")
    PAIRS.setdefault(name, {})[which] = function
    return function


# Reading


@both
def read_a_block(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[1].output.save()
    return {"h": h}


@both
def read_many_blocks(model, m):
    with model.trace(PROMPT):
        a = m.blocks(model)[0].output.save()
        b = m.blocks(model)[2].output.save()
        logits = model.lm_head.output.save()
    return {"a": a, "b": b, "logits": logits}


@both
def read_an_input(model, m):
    with model.trace(PROMPT):
        x = m.blocks(model)[2].input.save()
    return {"x": x}


@both
def read_inputs(model, m):
    with model.trace(PROMPT):
        x = m.mlp(m.blocks(model)[1]).inputs[0][0].save()
    return {"x": x}


@both
def read_an_mlp(model, m):
    with model.trace(PROMPT):
        x = m.mlp(m.blocks(model)[1]).output.save()
    return {"x": x}


@both
def read_a_norm(model, m):
    with model.trace(PROMPT):
        x = m.norm(model).output.save()
    return {"x": x}


@both
def read_a_projection(model, m):
    with model.trace(PROMPT):
        x = m.projection(m.blocks(model)[0]).output.save()
    return {"x": x}


@both
def read_embeddings(model, m):
    with model.trace(PROMPT):
        x = m.embedding(model).output.save()
    return {"x": x}


@pair
def read_attention_nnsight(model, m):
    with model.trace(PROMPT):
        x = m.attention(m.blocks(model)[1]).output[0].save()
    return {"x": x}


@pair
def read_attention_pellucid(model, m):
    with model.trace(PROMPT):
        x = m.attention(m.blocks(model)[1]).output.save()
    return {"x": x}


@both
def read_a_slice(model, m):
    with model.trace(PROMPT):
        x = m.blocks(model)[1].output[:, -1, 3:17].save()
    return {"x": x}


@both
def read_tokens_as_prompt(model, m):
    with model.trace([11, 45, 81, 300, 7]):
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def read_with_arithmetic(model, m):
    with model.trace(PROMPT):
        a = m.blocks(model)[0].output
        b = m.blocks(model)[1].output
        delta = (b - a).norm(dim=-1).save()
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1).save()
    return {"delta": delta, "cosine": cosine}


@both
def read_probabilities(model, m):
    with model.trace(PROMPT):
        logits = model.lm_head.output[:, -1]
        p = torch.softmax(logits, dim=-1)
        top = p.topk(5)
        values = top.values.save()
        places = top.indices.save()
        entropy = (-(p * torch.log(p)).sum(-1)).save()
    return {"values": values, "places": places, "entropy": entropy}


@both
def read_by_functions_of_torch(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[1].output
        a = torch.einsum("bsd,btd->bst", h, h).save()
        b = torch.cat([h, h * 2], dim=1).save()
        c = torch.stack([h, h]).mean(dim=0).save()
        d = torch.where(h > 0, h, torch.zeros(())).sum(dim=-1).save()
        e = torch.nn.functional.gelu(h)[:, 0].save()
    return {"a": a, "b": b, "c": c, "d": d, "e": e}


@both
def read_lens(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[1].output
        lens = model.lm_head(m.norm(model)(h)).save()
    return {"lens": lens}


@both
def read_shapes(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[0].output
        heads = h.reshape(h.shape[0], h.shape[1], 4, h.shape[-1] // 4).transpose(1, 2).save()
    return {"heads": heads}


# Writing


@both
def write_zero_a_block(model, m):
    with model.trace(PROMPT):
        m.blocks(model)[1].output[:] = 0
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_a_position(model, m):
    with model.trace(PROMPT):
        m.blocks(model)[1].output[:, -1] = 0.5
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_by_assignment(model, m):
    with model.trace(PROMPT):
        m.mlp(m.blocks(model)[1]).output = m.mlp(m.blocks(model)[1]).output * 0.5
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_times_two(model, m):
    with model.trace(PROMPT):
        m.blocks(model)[2].output[:, -1] *= 2
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_plus(model, m):
    with model.trace(PROMPT):
        m.blocks(model)[0].output[:, 2:4] += 0.25
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_in_place_method(model, m):
    with model.trace(PROMPT):
        m.blocks(model)[0].output.mul_(0.5)
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_in_place_chain(model, m):
    with model.trace(PROMPT):
        m.blocks(model)[0].output.mul_(0.5).add_(0.1)
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_a_view(model, m):
    with model.trace(PROMPT):
        row = m.blocks(model)[1].output[0]
        row[3] = 0
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_a_view_of_a_view(model, m):
    with model.trace(PROMPT):
        row = m.blocks(model)[1].output[0]
        part = row[2:5]
        part[:, :8] = 1
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_through_transpose(model, m):
    with model.trace(PROMPT):
        m.blocks(model)[1].output.transpose(1, 2)[:, 5] = 2
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_through_heads(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[1].output
        heads = h.view(1, h.shape[1], 4, h.shape[2] // 4)
        heads[:, :, 2] = 0
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_a_view_seen_by_its_base(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[1].output
        row = h[:, 0]
        row.zero_()
        seen = h[:, 0].clone().save()
        logits = model.lm_head.output.save()
    return {"seen": seen, "logits": logits}


@both
def write_and_keep_a_clone(model, m):
    with model.trace(PROMPT):
        before = m.blocks(model)[1].output.clone().save()
        m.blocks(model)[1].output[:] = 0
        after = m.blocks(model)[1].output.save()
        logits = model.lm_head.output.save()
    return {"before": before, "after": after, "logits": logits}


@both
def write_and_see_it_in_what_was_saved(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[1].output.save()
        h[:, 0] = 0
        logits = model.lm_head.output.save()
    return {"h": h, "logits": logits}


@both
def write_two_times(model, m):
    with model.trace(PROMPT):
        m.blocks(model)[1].output[:, 0] = 1
        m.blocks(model)[1].output[:, 1] = 2
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_an_input(model, m):
    with model.trace(PROMPT):
        m.mlp(m.blocks(model)[1]).input[:, -1] = 0
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_an_input_by_assignment(model, m):
    with model.trace(PROMPT):
        m.mlp(m.blocks(model)[1]).input = m.mlp(m.blocks(model)[1]).input * 2
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_from_an_earlier_layer(model, m):
    with model.trace(PROMPT):
        early = m.blocks(model)[0].output.clone()
        m.blocks(model)[2].output[:, -1] = early[:, -1]
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_a_projection_out(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[1].output
        direction = h[0, -1] / h[0, -1].norm()
        m.blocks(model)[1].output = h - (h @ direction)[..., None] * direction
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_where(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[1].output
        m.blocks(model)[1].output = torch.where(h.abs() > 1, torch.zeros(()), h)
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_with_a_mask(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[1].output
        h[h > 1] = 0
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_a_tensor_of_torch(model, m):
    vector = torch.linspace(-1, 1, m.hidden)
    with model.trace(PROMPT):
        m.blocks(model)[1].output += vector
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_the_logits(model, m):
    with model.trace(PROMPT):
        model.lm_head.output[:, :, 5] = 100
        best = model.lm_head.output.argmax(-1).save()
    return {"best": best}


@pair
def write_attention_nnsight(model, m):
    with model.trace(PROMPT):
        m.attention(m.blocks(model)[1]).output[0][:, 2] = 0
        logits = model.lm_head.output.save()
    return {"logits": logits}


@pair
def write_attention_pellucid(model, m):
    with model.trace(PROMPT):
        m.attention(m.blocks(model)[1]).output[:, 2] = 0
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_embeddings(model, m):
    with model.trace(PROMPT):
        m.embedding(model).output[:, 0] = 0
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_by_index_tensor(model, m):
    with model.trace(PROMPT):
        m.blocks(model)[1].output[:, torch.tensor([0, 3])] = 0
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def write_by_masked_fill(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[1].output
        h.masked_fill_(h < -0.5, 0.0)
        logits = model.lm_head.output.save()
    return {"logits": logits}


# Invokes


@both
def invokes_two_prompts(model, m):
    with model.trace() as tracer:
        with tracer.invoke(PROMPT):
            a = model.lm_head.output[:, -1].save()
        with tracer.invoke(OTHER):
            b = model.lm_head.output[:, -1].save()
    return {"a": a, "b": b}


@both
def invokes_edit_one(model, m):
    with model.trace() as tracer:
        with tracer.invoke(PROMPT):
            a = model.lm_head.output[:, -1].save()
        with tracer.invoke(PROMPT):
            m.blocks(model)[1].output[:, -1] = 0
            b = model.lm_head.output[:, -1].save()
    return {"a": a, "b": b}


@pair
def invokes_patch_nnsight(model, m):
    with model.trace() as tracer:
        barrier = tracer.barrier(2)
        with tracer.invoke(OTHER):
            source = m.blocks(model)[1].output[:, -1]
            barrier()
        with tracer.invoke(PROMPT):
            barrier()
            m.blocks(model)[1].output[:, -1] = source
            logits = model.lm_head.output[:, -1].save()
    return {"logits": logits}


@pair
def invokes_patch_pellucid(model, m):
    with model.trace() as tracer:
        with tracer.invoke(OTHER):
            source = m.blocks(model)[1].output[:, -1]
        with tracer.invoke(PROMPT):
            m.blocks(model)[1].output[:, -1] = source
            logits = model.lm_head.output[:, -1].save()
    return {"logits": logits}


@pair
def invokes_across_depths_nnsight(model, m):
    with model.trace() as tracer:
        barrier = tracer.barrier(2)
        with tracer.invoke(OTHER):
            source = m.blocks(model)[0].output[:, 2]
            barrier()
        with tracer.invoke(PROMPT):
            barrier()
            m.blocks(model)[2].output[:, 2] = source
            logits = model.lm_head.output[:, -1].save()
    return {"logits": logits}


@pair
def invokes_across_depths_pellucid(model, m):
    with model.trace() as tracer:
        with tracer.invoke(OTHER):
            source = m.blocks(model)[0].output[:, 2]
        with tracer.invoke(PROMPT):
            m.blocks(model)[2].output[:, 2] = source
            logits = model.lm_head.output[:, -1].save()
    return {"logits": logits}


@both
def invokes_of_batches(model, m):
    with model.trace([PROMPT, PROMPT]):
        m.blocks(model)[1].output[1] = 0
        logits = model.lm_head.output[:, -1].save()
    return {"logits": logits}


@both
def invokes_in_a_loop(model, m):
    found = []
    with model.trace() as tracer:
        for layer in range(3):
            with tracer.invoke(PROMPT):
                m.blocks(model)[layer].output[:, -1] = 0
                found.append(model.lm_head.output[:, -1].save())
    return {"found": found}


# Gradients


@both
def gradient_of_a_block(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[1].output
        h.requires_grad_()
        loss = model.lm_head.output[0, -1, 5]
        with loss.backward():
            g = h.grad.save()
    return {"g": g}


@both
def gradient_of_several(model, m):
    with model.trace(PROMPT):
        a = m.blocks(model)[0].output
        a.requires_grad_()
        b = m.blocks(model)[2].output
        loss = model.lm_head.output[0, -1].logsumexp(dim=-1)
        with loss.backward():
            gb = b.grad.save()
            ga = a.grad.save()
    return {"ga": ga, "gb": gb}


@both
def gradient_edited(model, m):
    with model.trace(PROMPT):
        a = m.blocks(model)[0].output
        a.requires_grad_()
        b = m.blocks(model)[2].output
        loss = model.lm_head.output[0, -1, 7]
        with loss.backward():
            b.grad = b.grad * 2
            ga = a.grad.save()
    return {"ga": ga}


@both
def gradient_zeroed_in_part(model, m):
    with model.trace(PROMPT):
        a = m.blocks(model)[0].output
        a.requires_grad_()
        b = m.blocks(model)[1].output
        loss = model.lm_head.output[0, -1, 7]
        with loss.backward():
            kept = b.grad.clone()
            kept[:, :3] = 0
            b.grad = kept
            ga = a.grad.save()
    return {"ga": ga}


@both
def gradient_after_an_edit(model, m):
    with model.trace(PROMPT):
        a = m.blocks(model)[0].output
        a.requires_grad_()
        m.mlp(m.blocks(model)[2]).output = m.mlp(m.blocks(model)[2]).output * 0.5
        loss = model.lm_head.output[0, -1, 3]
        with loss.backward():
            ga = a.grad.save()
    return {"ga": ga}


@both
def gradient_of_a_difference(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[1].output
        h.requires_grad_()
        logits = model.lm_head.output[0, -1]
        loss = logits[3] - logits[9]
        with loss.backward():
            effect = (h.grad * h).sum(dim=-1).save()
    return {"effect": effect}


# Sessions, edits, skips, stops, scans, caches


@both
def session_of_two_traces(model, m):
    with model.session():
        with model.trace(OTHER):
            h = m.blocks(model)[1].output[:, -1].save()
        with model.trace(PROMPT):
            m.blocks(model)[1].output[:, -1] = h
            logits = model.lm_head.output[:, -1].save()
    return {"logits": logits}


@both
def session_of_a_mean(model, m):
    with model.session():
        with model.trace(PROMPT):
            a = m.blocks(model)[1].output[:, -1].save()
        with model.trace(OTHER):
            b = m.blocks(model)[1].output[:, -1].save()
        mean = ((a + b) / 2).save()
    return {"mean": mean}


@pair
def edit_not_in_place_nnsight(model, m):
    with model.edit() as (tracer, edited):
        m.blocks(edited)[1].output[:] *= 0.5
    with edited.trace(PROMPT):
        a = edited.lm_head.output.save()
    with model.trace(PROMPT):
        b = model.lm_head.output.save()
    return {"a": a, "b": b}


@pair
def edit_not_in_place_pellucid(model, m):
    with model.edit() as edited:
        m.blocks(edited)[1].output[:] *= 0.5
    with edited.trace(PROMPT):
        a = edited.lm_head.output.save()
    with model.trace(PROMPT):
        b = model.lm_head.output.save()
    return {"a": a, "b": b}


@both
def edit_in_place(model, m):
    with model.edit(inplace=True):
        m.blocks(model)[1].output[:, -1] = 0
    with model.trace(PROMPT):
        a = model.lm_head.output.save()
    model.clear_edits()
    with model.trace(PROMPT):
        b = model.lm_head.output.save()
    return {"a": a, "b": b}


@both
def skip_an_mlp(model, m):
    with model.trace(PROMPT):
        x = m.mlp(m.blocks(model)[0]).output
        m.mlp(m.blocks(model)[1]).skip(x * 0.5)
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def skip_a_block(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[0].output
        m.blocks(model)[1].skip(h)
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def stop_early(model, m):
    with model.trace(PROMPT) as tracer:
        h = m.blocks(model)[1].output.save()
        tracer.stop()
    return {"h": h}


@both
def cache_some(model, m):
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(modules=[m.blocks(model)[0], m.blocks(model)[2]])
    return {"a": m.cached(cache, 0).output, "b": m.cached(cache, 2).output}


@both
def cache_after_an_edit(model, m):
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(modules=[m.blocks(model)[1]])
        m.blocks(model)[0].output[:] = 0
    return {"a": m.cached(cache, 1).output}


@both
def cache_of_what_is_edited(model, m):
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(modules=[m.blocks(model)[1]])
        m.blocks(model)[1].output[:, -1] = 0
    return {"a": m.cached(cache, 1).output}


@pair
def cache_of_a_generation_nnsight(model, m):
    with model.generate(PROMPT, max_new_tokens=3, min_new_tokens=3, do_sample=False) as tracer:
        cache = tracer.cache(modules=[m.blocks(model)[1]])
        for step in tracer.iter[:3]:
            m.blocks(model)[0].output[:] *= 0.5
    return {"visits": torch.tensor(len(m.cached(cache, 1))), "a": m.cached(cache, 1).output}


@pair
def cache_of_a_generation_pellucid(model, m):
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        cache = tracer.cache(modules=[m.blocks(model)[1]])
        for step in tracer.iter[:3]:
            m.blocks(model)[0].output[:] *= 0.5
    return {"visits": torch.tensor(len(m.cached(cache, 1))), "a": list(m.cached(cache, 1).output)}


@both
def save_values_and_places(model, m):
    with model.trace(PROMPT):
        top = model.lm_head.output[0, -1].topk(5).save()
    return {"values": top.values, "indices": top.indices}


@pair
def save_a_list_that_fills_nnsight(model, m):
    with model.trace(PROMPT):
        found = nnsight.save(list())
        for layer in range(3):
            found.append(m.blocks(model)[layer].output.norm())
    return {"found": found}


@pair
def save_a_list_that_fills_pellucid(model, m):
    with model.trace(PROMPT):
        found = pl.save(list())
        for layer in range(3):
            found.append(m.blocks(model)[layer].output.norm())
    return {"found": found}


@pair
def gradient_of_a_given_vector_nnsight(model, m):
    with model.trace(PROMPT):
        vector = torch.linspace(-1, 1, m.hidden).requires_grad_()
        m.blocks(model)[1].output[:] += torch.tanh(vector) * 2
        loss = model.lm_head.output[0, -1, 3]
        with loss.backward():
            gradient = vector.grad.save()
    return {"gradient": gradient}


@pair
def gradient_of_a_given_vector_pellucid(model, m):
    with model.trace(PROMPT):
        vector = pl.tensor(torch.linspace(-1, 1, m.hidden))
        m.blocks(model)[1].output[:] += torch.tanh(vector) * 2
        loss = model.lm_head.output[0, -1, 3]
        with loss.backward():
            gradient = vector.grad.save()
    return {"gradient": gradient}


@both
def gradient_that_torch_s_own_tensor_has_after_the_trace(model, m):
    vector = torch.linspace(-1, 1, m.hidden).requires_grad_()
    with model.trace(PROMPT):
        m.blocks(model)[1].output[:] += torch.tanh(vector) * 2
        model.lm_head.output[0, -1, 3].backward()
    return {"gradient": vector.grad}


@both
def train_a_module_of_torch(model, m):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(m.hidden, 4), torch.nn.ReLU(), torch.nn.Linear(4, m.hidden))
    optimiser, losses = torch.optim.SGD(module.parameters(), lr=0.01), []
    for _ in range(4):
        optimiser.zero_grad()
        with model.trace(PROMPT):
            h = m.blocks(model)[1].output
            m.blocks(model)[1].output = h + module(h)
            loss = torch.nn.functional.cross_entropy(model.lm_head.output[:, -1], torch.tensor([3])).save()
            loss.backward()
        optimiser.step()
        losses.append(float(loss))
    return {"losses": torch.tensor(losses), "weight": module[0].weight}


@both
def gradient_of_a_weight(model, m):
    with model.trace(PROMPT):
        weight = m.projection(m.blocks(model)[1]).weight
        norm = m.norm(model).weight
        loss = model.lm_head.output[0, -1].log_softmax(-1)[3]
        with loss.backward():
            of_norm = norm.grad.save()
            gradient = weight.grad.save()
    return {"gradient": gradient, "norm": of_norm}


@both
def a_way_back_of_which_nothing_is_asked(model, m):
    with model.trace(PROMPT):
        loss = model.lm_head.output[0, -1, 3].save()
        loss.backward()
    return {"loss": loss}


@both
def gradient_of_a_clone(model, m):
    with model.trace(PROMPT):
        h = m.blocks(model)[1].output
        h.requires_grad_()
        copy = h.clone()
        copy.retain_grad()
        loss = (copy * copy).sum() + h.sum()
        with loss.backward():
            gradient = copy.grad.save()
    return {"gradient": gradient}


@both
def scan_shapes(model, m):
    with model.scan(PROMPT):
        h = m.blocks(model)[1].output.save()
        logits = model.lm_head.output.save()
    return {"shape": torch.tensor(list(h.shape)), "last": torch.tensor(logits.shape[-1])}


# Generation


@pair
def generate_tokens_nnsight(model, m):
    with model.generate(PROMPT, max_new_tokens=4, do_sample=False) as tracer:
        tokens = tracer.result.save()
    return {"tokens": tokens}


@pair
def generate_tokens_pellucid(model, m):
    with model.generate(PROMPT, max_new_tokens=4) as tracer:
        tokens = tracer.result.save()
    # The guide: as wide as it may be, −1 where a prompt had stopped.
    return {"tokens": tokens[:, (tokens.numpy() >= 0).any(0)]}


@pair
def generate_and_read_each_step_nnsight(model, m):
    logits = []
    with model.generate(PROMPT, max_new_tokens=3, min_new_tokens=3, do_sample=False) as tracer:
        for step in tracer.iter[:3]:
            logits.append(model.lm_head.output[:, -1].save())
    return {"logits": logits}


@pair
def generate_and_read_each_step_pellucid(model, m):
    logits = []
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        for step in tracer.iter[:3]:
            logits.append(model.lm_head.output[:, -1].save())
    return {"logits": logits}


@pair
def generate_with_an_edit_at_each_step_nnsight(model, m):
    logits = []
    with model.generate(PROMPT, max_new_tokens=3, min_new_tokens=3, do_sample=False) as tracer:
        for step in tracer.iter[:3]:
            m.blocks(model)[1].output[:, -1] += 0.5
            logits.append(model.lm_head.output[:, -1].save())
    return {"logits": logits}


@pair
def generate_with_an_edit_at_each_step_pellucid(model, m):
    logits = []
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        for step in tracer.iter[:3]:
            m.blocks(model)[1].output[:, -1] += 0.5
            logits.append(model.lm_head.output[:, -1].save())
    return {"logits": logits}


@pair
def generate_with_an_edit_at_one_step_nnsight(model, m):
    logits = []
    with model.generate(PROMPT, max_new_tokens=3, min_new_tokens=3, do_sample=False) as tracer:
        for step in tracer.iter[:3]:
            if step == 1:
                m.blocks(model)[1].output[:] = 0
            logits.append(model.lm_head.output[:, -1].save())
    return {"logits": logits}


@pair
def generate_with_an_edit_at_one_step_pellucid(model, m):
    logits = []
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        for step in tracer.iter[:3]:
            if step == 1:
                m.blocks(model)[1].output[:] = 0
            logits.append(model.lm_head.output[:, -1].save())
    return {"logits": logits}


@pair
def generate_one_step_by_number_nnsight(model, m):
    with model.generate(PROMPT, max_new_tokens=3, min_new_tokens=3, do_sample=False) as tracer:
        for step in tracer.iter[2]:
            h = m.blocks(model)[1].output.save()
    return {"h": h}


@pair
def generate_one_step_by_number_pellucid(model, m):
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        for step in tracer.iter[2]:
            h = m.blocks(model)[1].output.save()
    return {"h": h}


# Errors: both refuse


def refuses(work):
    try:
        work()
    except Exception:
        return torch.tensor(1)
    return torch.tensor(0)


@both
def error_of_a_shape(model, m):
    def work():
        with model.trace(PROMPT):
            m.blocks(model)[1].output[:] = torch.zeros(3)
            model.lm_head.output.save()

    return {"refused": refuses(work)}


@both
def error_of_a_name(model, m):
    def work():
        with model.trace(PROMPT):
            m.blocks(model)[1].no_such_module.output.save()

    return {"refused": refuses(work)}


@both
def error_outside_of_a_trace(model, m):
    return {"refused": refuses(lambda: m.blocks(model)[1].output + 1)}


@both
def error_of_an_index(model, m):
    def work():
        with model.trace(PROMPT):
            m.blocks(model)[1].output[:, 99].save()

    return {"refused": refuses(work)}
