"""Changes in place, for nnsight and for Pellucid: what they reach, and what they do not."""

import torch

from scripts import PROMPT, both


@both
def in_place_through_detach(model, m):
    with model.trace(PROMPT):
        m.blocks(model)[1].output.detach()[:, -1] = 0
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def in_place_through_data(model, m):
    with model.trace(PROMPT):
        m.mlp(m.blocks(model)[1]).output.data[:, 2:4] *= 3
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def in_place_through_the_same_number_type(model, m):
    with model.trace(PROMPT):
        h = m.mlp(m.blocks(model)[1]).output.float()
        h[:, -1] = 0
        m.mlp(m.blocks(model)[2]).output.to(torch.float32)[:, 0] += 1
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def in_place_of_a_copy(model, m):
    with model.trace(PROMPT):
        h = m.mlp(m.blocks(model)[1]).output
        h.double()[:] = 0
        h.transpose(1, 2).reshape(1, -1)[:] = 0
        h.transpose(1, 2).contiguous()[:] = 0
        h.transpose(1, 2).flatten(1)[:] = 0
        h[:, ::2].ravel()[:] = 0
        logits = model.lm_head.output.save()
    return {"logits": logits}


@both
def in_place_of_a_reshape(model, m):
    with model.trace(PROMPT):
        h = m.mlp(m.blocks(model)[1]).output
        h.reshape(-1, m.hidden)[0] = 0
        h.flatten(0, 1)[1] *= 2
        h.contiguous()[:, 2] += 1
        h.unsqueeze(0).squeeze(0)[:, 3] = 1
        h[0].diagonal().fill_(2)
        logits = model.lm_head.output.save()
        h = h.save()
    return {"logits": logits, "h": h}


@both
def in_place_after_it_was_replaced(model, m):
    with model.trace(PROMPT):
        old = m.mlp(m.blocks(model)[1]).output
        old[:, 0] = 1
        m.mlp(m.blocks(model)[1]).output = old * 0.5
        old[:, 1] = 3
        logits = model.lm_head.output.save()
        old = old.save()
    return {"logits": logits, "old": old}


@both
def in_place_of_what_was_read_two_times(model, m):
    with model.trace(PROMPT):
        a = m.mlp(m.blocks(model)[1]).output
        part = a[:, 1]
        m.mlp(m.blocks(model)[1]).output[:] *= 2
        a[:, 0] += 1
        twice = (part * 2).save()
        logits = model.lm_head.output.save()
        a = a.save()
        part = part.save()
    return {"logits": logits, "a": a, "part": part, "twice": twice}


@both
def in_place_of_numbers_of_fewer_bits(model, m):
    with model.trace(PROMPT):
        half = m.mlp(m.blocks(model)[1]).output.half()
        half += torch.ones(m.hidden)
        half *= 2
        half = half.save()
        whole = model.lm_head.output.argmax(-1)
        whole[:, 0] = 2.7
        whole += 1
        whole = whole.save()
    return {"half": half.float(), "whole": whole}


@both
def in_place_parts(model, m):
    with model.trace(PROMPT):
        h, half = m.mlp(m.blocks(model)[1]).output, m.hidden // 2
        left, right = h.narrow(-1, 0, half), h[..., half:]
        left *= 2
        right.copy_(left)
        for position in range(3):
            m.mlp(m.blocks(model)[2]).output.select(1, position).clamp_(-1, 1)
        logits = model.lm_head.output.save()
        right = right.save()
    return {"logits": logits, "right": right}


@both
def in_place_at_each_step(model, m):
    with model.generate(PROMPT, max_new_tokens=3, do_sample=False) as tracer:
        for step in tracer.iter[:3]:
            h = m.mlp(m.blocks(model)[1]).output
            last = h[:, -1]
            last *= 1.5
            h[:, -1, :4] = step
        tokens = tracer.result.save()
    return {"tokens": tokens}


@both
def in_place_of_a_gradient_s_parts(model, m):
    with model.trace(PROMPT):
        early = m.blocks(model)[0].output
        early.requires_grad_(True)
        late = m.blocks(model)[2].output  # torch's in-place change of an MLP's gradient reaches the residual's, which shares its memory
        loss = model.lm_head.output[0, -1].logsumexp(-1)
        with loss.backward():
            part = late.grad[:, -1]
            part *= 0.5
            late.grad[:, 0] = 0
            gradient = early.grad.save()
    return {"gradient": gradient}
