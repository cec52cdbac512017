"""Sessions, sweeps, loops, conditions, gradients, logs."""

import numpy as np
import pellucid as pl
import pytest
from conftest import CLEAN, CORRUPTED, PROMPT


def test_a_session(model):
    with model.session() as session:
        with model.trace(PROMPT):
            h = model.layers[2].output[:, -1]
        with model.trace("The capital of Japan is"):
            model.layers[2].output[:, -1] = h
            token = model.logits[0, -1].argmax().save()
    assert model.tokenizer.decode(token) == " Paris" and session.results.report["passes"] >= 2


def test_a_sweep_is_its_loop(model):
    with model.trace() as tracer:
        with tracer.invoke(CLEAN) as clean:
            pass
        with tracer.sweep(layer=range(4), position=[3, 9]) as cell:
            with cell.invoke(CORRUPTED):
                with clean:
                    source = model.layers[cell.layer].output[:, cell.position]
                model.layers[cell.layer].output[:, cell.position] = source
                best = model.logits[0, -1].amax().save()
    assert best.shape == (4, 2)
    for layer in range(4):
        for number, position in enumerate([3, 9]):
            with model.trace() as tracer:
                with tracer.invoke(CLEAN):
                    source = model.layers[layer].output[:, position]
                with tracer.invoke(CORRUPTED):
                    model.layers[layer].output[:, position] = source
                    one = model.logits[0, -1].amax().save()
            assert best[layer, number]._core.is_same(one._core)


def test_parameters_of_one_axis_go_together(model):
    prompts = {"clean": [CLEAN, PROMPT], "corrupted": [CORRUPTED, "The Colosseum is in the city of"]}
    with model.trace() as tracer:
        with tracer.sweep(pair=prompts, layer=range(2)) as cell:
            with cell.invoke(cell.clean):
                source = model.layers[cell.layer].output[:, -1]
            with cell.invoke(cell.corrupted):
                model.layers[cell.layer].output[:, -1] = source
                best = model.logits[0, -1].amax().save()
    assert best.shape == (2, 2)


def test_what_is_absent_says_why(model):
    with model.trace() as tracer:
        with tracer.sweep(layer=range(3)) as cell:
            with cell.invoke(PROMPT):
                size = model.layers[cell.layer].output.norm()
                with tracer.cond(size > 42):
                    big = size.save()
                model.logits[0, 0, 0].save("any")
    assert tracer.results.absent == ["big"]
    assert repr(big) == "<`big` is absent: the branch that it stands in did not run in every cell of the sweep>"
    with pytest.raises(pl.NotComputedError, match="did not run in every cell.*\n.*tracer.results.absent"):
        big.numpy()
    with model.generate(PROMPT, max_new_tokens=4, stop_tokens=[0]) as tracer:
        with tracer.all():
            best = model.logits[0, -1].argmax().save()
    assert "the generation had stopped before its step" in repr(best[3]) and "branch" not in repr(best[3])


def test_modules_of_a_layer_that_a_parameter_chooses(model):
    with model.trace() as tracer:
        with tracer.sweep(layer=range(4), head=range(4)) as cell:
            with cell.invoke(PROMPT):
                model.layers[cell.layer].attention.mixed[:, :, cell.head] = 0.0
                best = model.logits[0, -1].amax().save()
    with model.trace(PROMPT):
        model.layers[2].attention.mixed[:, :, 1] = 0.0
        one = model.logits[0, -1].amax().save()
    assert best.shape == (4, 4) and best[2, 1]._core.is_same(one._core)


def test_a_sweep_over_texts_and_its_reductions(model):
    prompts = ["The capital of France is", "The capital of Japan is", PROMPT]
    with model.session() as session:
        with session.sweep(text=prompts) as cell:
            with model.trace(cell.text):
                last = model.layers[1].output[0, -1]
            mean = cell.mean(last)
            every = cell.collect(last)
        mean.save()
        spread = (every - mean).norm(dim=-1).save()
        every.save()
    assert every.shape == (3, 128) and np.allclose(mean, every.numpy().mean(0), atol=1e-5) and spread.shape == (3,)


def test_a_loop_carries_values(model):
    with model.session() as session:
        with session.loop(6, carry={"x": 2.0}) as loop:
            better = (2 / loop.x + loop.x) * 0.5
            loop.next(x=better)
        root = loop.x.save()
    assert float(root) == pytest.approx(2**0.5)


def test_conditions(model):
    def run(bound):
        with model.trace(PROMPT) as tracer:
            h = model.layers[1].output
            with tracer.cond((h.norm(dim=-1) > bound).any()) as branch:
                model.layers[1].output = h * 0.5
            logits = model.logits.save()
        return logits.numpy()

    with model.trace(PROMPT):
        plain = model.logits.save()
    assert np.array_equal(run(1e9), plain) and not np.array_equal(run(0.0), plain)
    with model.trace(PROMPT) as tracer:
        x = model.logits[0, -1].amax()
        with tracer.cond(x > 1e9) as branch:
            a = x * 2
        with branch.otherwise():
            b = x * 3
        chosen = branch.choose(a, b).save()
        also = pl.cond(x > 1e9, lambda v: v * 2, lambda v: v * 3, x).save()
        x.save()
    assert float(chosen) == float(also) == pytest.approx(3 * float(x))


def test_gradients(model):
    token = model.token(" Paris")
    with model.trace(PROMPT):
        early, late = model.layers[0].output, model.layers[2].output
        loss = model.logits[0, -1, token]
        with loss.backward():
            gradient = early.grad.save()
            other = late.grad.save()
    assert gradient.shape == (1, 10, 128) and np.any(gradient.numpy() != 0)
    with model.trace(PROMPT):
        early, late = model.layers[0].output, model.layers[2].output
        with model.logits[0, -1, token].backward():
            late.grad[:] *= 2
            doubled = early.grad.save()
    assert np.allclose(doubled, 2 * gradient.numpy(), atol=1e-5) and other.shape == gradient.shape
    # Against a finite difference.
    direction = np.random.default_rng(0).standard_normal((1, 10, 128)).astype(np.float32)

    def at(scale):
        with model.trace(PROMPT):
            model.layers[0].output += pl.tensor(direction) * scale
            value = model.logits[0, -1, token].save()
        return float(value)

    slope = (at(1e-2) - at(-1e-2)) / 2e-2
    assert slope == pytest.approx(float((gradient.numpy() * direction).sum()), rel=2e-2, abs=1e-2)


def test_gradients_of_weights(model):
    path, place = "transformer.h.0.mlp.c_fc", (3, 7)

    def run(write=lambda weight: None, ask=True):
        with model.trace(PROMPT):
            weight = model.module(path).weight
            write(weight)
            loss = model.logits[0, -1].log_softmax(-1)[3].save()
            if ask:
                with loss.backward():
                    gradient = weight.grad.save()
        return (float(loss), gradient.numpy()) if ask else float(loss)

    def moved(by):
        def write(weight):
            weight[place] += by

        return run(write, ask=False)

    loss, gradient = run()
    assert loss == run(ask=False)  # asking for it changes nothing
    np.testing.assert_allclose(gradient[place], (moved(0.05) - moved(-0.05)) / 0.1, rtol=0.02, atol=1e-4)
    with model.trace(PROMPT):
        with model.logits[0, -1].log_softmax(-1)[3].backward():
            again = model.module(path).weight.grad.save()  # read on the way back
            bias = model.layers[0].mlp.c_fc.bias.grad.save()
    assert np.array_equal(again, gradient) and bias.shape == (512,)

    def doubled(weight):
        model.module(path).weight = weight * 2

    with model.trace(PROMPT):
        own = model.module(path).weight.clone() * 2
        model.module(path).weight = own
        loss = model.logits[0, -1].log_softmax(-1)[3].save()
        with loss.backward():
            of_what_was_set = own.grad.save()
    theirs, gradient = run(doubled)
    assert theirs == float(loss)  # what was set stays set
    np.testing.assert_allclose(gradient, of_what_was_set.numpy() * 2, rtol=1e-5, atol=1e-7)


def test_gradients_in_the_forms_of_older_scripts(model):
    with model.trace(PROMPT):
        h = model.layers[1].output
        h.requires_grad_()
        h.requires_grad = True
        h.retain_grad()
        loss = model.logits[0, -1].logsumexp(0)
        loss.backward(retain_graph=True)
        g = h.grad.save()
    assert np.any(g.numpy() != 0)
    with pytest.raises(pl.NotComputedError, match="backward"):
        with model.trace(PROMPT):
            model.layers[1].output.grad.save()


def test_logs(model, capsys):
    with model.trace(PROMPT) as tracer:
        tracer.log("largest", model.logits.amax())
        model.logits[0, 0, 0].save()
    assert "largest: tensor(" in capsys.readouterr().out


def test_apply_and_barrier_and_accepted_words(model):
    with model.trace() as tracer:
        barrier = tracer.barrier(2)
        with tracer.invoke(PROMPT):
            p = tracer.apply("softmax", model.logits[0, -1], dim=-1).save()
            q = tracer.apply(lambda x: x.exp() / x.exp().sum(), model.logits[0, -1]).save()
            barrier()
    assert np.allclose(p, q, atol=1e-6)
    with pytest.raises(AttributeError, match="no operation"):
        with model.trace(PROMPT) as tracer:
            tracer.apply("fft", model.logits)


def test_training_steps(model):
    target = model.token(" Rome")
    with model.session() as session:
        with session.loop(8, carry={"v": pl.zeros(128), "m": pl.zeros(128), "s": pl.zeros(128)}) as loop:
            with model.trace(PROMPT):
                v = loop.v
                model.layers[1].output[:, -1] += v
                loss = pl.cross_entropy(model.logits[:, -1], pl.tensor([target]))
                with loss.backward():
                    gradient = v.grad
            new, m, s = pl.adam_step(v, gradient, loop.m, loop.s, loop.i + 1, 0.5)
            loop.next(v=new, m=m, s=s)
            losses = loss.save()
    assert losses.shape == (8,) and float(losses[-1]) < float(losses[0]) / 2


def test_several_models(model):
    other = pl.Model("bundled")
    with model.session():
        with other.trace(PROMPT):
            taught = other.logits[0, -1].softmax(-1)
        with model.trace(PROMPT):
            gap = (model.logits[0, -1].softmax(-1) - taught).abs().amax().save()
    assert float(gap) == 0
