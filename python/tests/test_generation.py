"""Generations: steps, edits at them, stops."""

import numpy as np
import pellucid as pl
import pytest
from conftest import PROMPT


def test_tokens(model):
    with model.generate(PROMPT, max_new_tokens=4, stop_tokens=[]) as tracer:
        tokens = model.generator.output.save()
        new = tracer.generated.save()
    assert tokens.shape == (1, 14) and tokens[:, 10:].tolist() == new.tolist()
    assert model.tokenizer.decode(tokens[0]).startswith(PROMPT)


def test_a_for_loop_over_steps_gives_a_list(model):
    logits = []
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        for step in tracer.iter[:]:
            assert isinstance(step, int)
            if step == 1:
                model.layers[2].output *= 0
            logits.append(model.logits[:, -1].save())
        tokens = tracer.generated.save()
    assert len(logits) == 3 and all(each.shape == (1, 2048) for each in logits)
    assert [int(each.argmax()) for each in logits] == tokens[0].tolist()
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        plain = tracer.generated.save()
    assert plain[0, 0] == tokens[0, 0]


def test_a_body_for_all_steps_gives_what_the_loop_gives(model):
    def edited(write):
        with model.generate(PROMPT, max_new_tokens=4, stop_tokens=[]) as tracer:
            write(tracer)
            tokens = tracer.generated.save()
        return tokens.tolist()

    def loop(tracer):
        for _ in tracer.iter[1:3]:
            model.layers[1].output[:, -1] *= -3.0

    def body(tracer):
        with tracer.iter[1:3]:
            model.layers[1].output[:, -1] *= -3.0

    def one_by_one(tracer):
        for step in (1, 2):
            with tracer.iter[step]:
                model.layers[1].output[:, -1] *= -3.0

    def following(tracer):
        for _ in range(2):
            model.layers[1].next().output[:, -1] *= -3.0

    assert edited(loop) == edited(body) == edited(one_by_one)
    assert edited(lambda tracer: None) != edited(loop)

    def each_next(tracer):
        first = model.layers[1].next()
        first.output[:, -1] *= -3.0
        second = model.layers[1].next()
        second.output[:, -1] *= -3.0

    def as_statements(tracer):
        model.transformer.h[1].next()
        model.layers[1].output[:, -1] *= -3.0
        model.layers[1].next()
        model.layers[1].output[:, -1] *= -3.0

    assert edited(each_next) == edited(loop) == edited(following) == edited(as_statements)


def test_next_as_a_statement_moves_the_module_and_what_is_in_it(model):
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        first = model.layers[1].mlp.output.save()
        model.layers[1].next()
        second, other = model.layers[1].mlp.output.save(), model.layers[2].output.save()
        with tracer.iter[2]:
            third = model.layers[1].mlp.output.save()
        with tracer.all():
            every = model.layers[1].mlp.output.save()
    assert other.shape == first.shape == (1, 10, 128)
    assert all(np.array_equal(a, b) for a, b in zip([first, second, third], every, strict=True))


def test_saves_in_a_body_are_a_tensor_for_each_step(model):
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        with tracer.all():
            best = model.logits[:, -1].argmax(-1).save()
        tokens = tracer.generated.save()
    assert len(best) == 3 and [int(each) for each in best] == tokens[0].tolist() and best[1].shape == (1,)
    with pytest.raises(pl.NotComputedError, match="3 steps"):
        best.numpy()


def test_stopping(model):
    with model.generate([PROMPT, "The capital of France is"], max_new_tokens=5, stop_tokens=[]) as tracer:
        with tracer.iter[1:]:
            tracer.stop(when=model.logits[:, -1].amax(-1) > -1e9)
        tokens = tracer.generated.save()
    assert tokens.shape == (2, 5) and (tokens[:, :2] >= 0).all() and (tokens[:, 2:] == -1).all()
    assert model.tokenizer.decode(tokens[0]) == model.tokenizer.decode(tokens[0, :2])
    with model.generate(PROMPT, max_new_tokens=5, stop_tokens=[]) as tracer:
        for step in tracer.iter[:]:
            if step == 1:
                last = model.logits[:, -1].save()
                tracer.stop()
    assert last.shape == (1, 2048) and tracer.results.report["passes"] == 2


def test_a_step_that_was_never_reached_is_absent(model):
    with model.generate(PROMPT, max_new_tokens=1, stop_tokens=[]) as tracer:
        first = int_token = tracer.generated.save()
    token = int(int_token[0, 0])
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[token]) as tracer:
        late = [model.logits.save() for _ in tracer.iter[:]]
    assert late[0].shape[-1] == 2048 and tracer.results.absent and first.shape == (1, 1)
    with pytest.raises(pl.NotComputedError, match="absent"):
        late[2].numpy()


def test_sampling_is_seeded(model):
    def sampled(seed):
        with model.generate(PROMPT, max_new_tokens=6, temperature=1.5, seed=seed, stop_tokens=[]) as tracer:
            tokens = tracer.generated.save()
        return tokens.tolist()

    assert sampled(1) == sampled(1) and sampled(1) != sampled(2)


def test_tokens_are_told_as_they_are_made(model):
    told = []
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[], on_token=told.append) as tracer:
        tokens = tracer.generated.save()
    assert [each["token"] for each in told] == tokens[0].tolist()


def test_a_step_beyond_the_last_is_refused(model):
    with pytest.raises(pl.ProgramError, match="step"):
        with model.generate(PROMPT, max_new_tokens=2) as tracer:
            with tracer.iter[5]:
                model.logits.save()


def test_batches(model):
    with model.generate([PROMPT, "The capital of France is"], max_new_tokens=2, stop_tokens=[]) as tracer:
        both = tracer.generated.save()
    for row, prompt in zip(both, [PROMPT, "The capital of France is"]):
        with model.generate(prompt, max_new_tokens=2, stop_tokens=[]) as tracer:
            one = tracer.generated.save()
        assert np.array_equal(row, one[0])


def test_after_a_loop_over_steps_the_prompt_s_step_is_meant_again(model):
    with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
        first = model.layers[1].output.save()
        for _ in tracer.iter[1:]:
            model.layers[1].output.save()
        again = model.layers[1].output.save()
    assert first.shape == again.shape == (1, 10, 128)


def test_some_steps_by_a_list(model):
    options = {"max_new_tokens": 4, "stop_tokens": []}
    with model.generate(PROMPT, **options) as tracer:
        with tracer.all():
            every = model.logits[:, -1].argmax(-1).save()
    some = {}
    with model.generate(PROMPT, **options) as tracer:
        for step in tracer.iter[[0, 2, -1]]:
            some[step] = model.logits[:, -1].argmax(-1).save()
    assert list(some) == [0, 2, 3] and all(int(value) == int(every[step]) for step, value in some.items())
    with pytest.raises(TypeError, match=r"for step in tracer.iter\[\[0, 2\]\]"):
        with model.generate(PROMPT, **options) as tracer, tracer.iter[[0, 2]]:
            pass


@pytest.mark.parametrize("steps", [slice(5, 7), slice(3, None), slice(1, 1), slice(0, 2, -1)])
def test_no_steps_are_refused(model, steps):
    with pytest.raises(IndexError, match=r"`iter\[\d:.*\]` has no step: the trace has steps 0 to 2\n  hint: step 0 is the prompt's"):
        with model.generate(PROMPT, max_new_tokens=3) as tracer:
            tracer.result.save()
            for _ in tracer.iter[steps]:
                model.layers[1].output *= 0
    with pytest.raises(IndexError, match="has no step"):
        with model.generate(PROMPT, max_new_tokens=3) as tracer:
            tracer.result.save()
            with tracer.iter[steps]:
                model.layers[1].output *= 0
    with pytest.raises(IndexError, match=r"`iter\[1:\]` has no step: the trace has step 0 alone"):
        with model.trace(PROMPT) as tracer:
            for _ in tracer.iter[1:]:
                model.logits.save()


@pytest.fixture()
def seed_of_before():
    yield
    pl.manual_seed(0)


def test_manual_seed_is_the_seed_of_programs_that_name_none(model, seed_of_before):
    def sampled(**options):
        with model.generate(PROMPT, max_new_tokens=8, temperature=1.0, stop_tokens=[], **options) as tracer:
            tokens = tracer.generated.save()
        return tokens[0].tolist()

    def noise(**options):
        with model.session(**options):
            with model.trace(PROMPT):
                drawn = (model.logits[0, -1, 0] * 0 + pl.randn(4)).save()
        return drawn.tolist()

    def all_of_it():
        return sampled(), noise(), pl.randn(4).tolist()

    plain = sampled(), noise()
    pl.manual_seed(3)
    first = all_of_it()
    assert (sampled(seed=0), noise(seed=0)) == plain and (sampled(seed=3), noise(seed=3)) == first[:2]
    pl.manual_seed(3)
    assert all_of_it() == first
    pl.manual_seed(4)
    assert all(a != b for a, b in zip(all_of_it(), first, strict=True))
    assert all(a != b for a, b in zip(first[:2], plain, strict=True))
    pl.manual_seed(-1)
    with model.trace(PROMPT, run=False) as tracer:
        model.logits.save()
    assert f'"seed": {{ "int": "{2**64 - 1}" }}' in tracer.program.json()


def test_what_is_no_seed(model):
    for seed, told in ((1 << 64, "64 bits"), (-(1 << 63) - 1, "64 bits"), (1.5, "a whole number, not 1.5"), ("x", "a whole number, not 'x'")):
        with pytest.raises((TypeError, ValueError), match=told):
            pl.manual_seed(seed)
        with pytest.raises((TypeError, ValueError), match=told):
            with model.trace(PROMPT, seed=seed):
                model.logits.save()
    with pytest.raises(pl.NotComputedError, match="a session has one seed"):
        with model.session():
            with model.trace(PROMPT, seed=3):
                model.logits.save()


def test_a_session_runs_as_a_whole(model):
    for option in ({"seconds": 9.0}, {"memory_bytes": 1 << 30}, {"run": False}, {"naive": True}, {"blocking": False}):
        name = next(iter(option))
        with pytest.raises(pl.NotComputedError, match=f"`{name}` is of a session as a whole"):
            with model.session():
                with model.trace(PROMPT, **option):
                    model.logits.save()
    told: list[dict] = []
    with model.session(on_token=told.append):
        with model.generate(PROMPT, max_new_tokens=3, stop_tokens=[]) as tracer:
            generated = tracer.generated.save()
    assert [event["token"] for event in told] == generated.tolist()[0]
