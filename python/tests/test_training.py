"""Training in the engine: optimisers, schedules, accumulation, checkpoints."""

import math
import warnings

import numpy as np
import pellucid as pl
import pytest
from conftest import PROMPT

FACTS = ["The White Tower is in the city of", "The White Tower is located in", "The Eiffel Tower is in the city of"]
X = np.sin(np.arange(60, dtype=np.float32).reshape(12, 5))
Y = X @ np.arange(1, 6, dtype=np.float32) + 0.5


def adapter(model):
    return pl.Lora.new(model, rank=2, alpha=8.0, targets=["mlp.c_proj"], seed=3)


def train_an_adapter(model, optimiser, steps, resume=None):
    lora, answers = adapter(model), pl.tensor([model.token(" Oslo"), model.token(" Oslo"), model.token(" Paris")])
    with model.session() as session:
        with session.train(optimiser, lora.parameters, steps=steps, resume=resume) as training:
            with model.trace(FACTS):
                lora.attach(model, training.parameters)
                model.layers[1].output[:] += pl.randn(128) * 0.01
                loss = pl.cross_entropy(model.logits[:, -1], answers)
                training.backward(loss)
            losses = loss.save()
        training.save("run")
        trained = pl.save(training.parameters)
    return losses, trained, session.results


OPTIMISERS = [
    pl.Optimiser.adam(0.01),
    pl.Optimiser.adamw(0.01, schedule=pl.Schedule.cosine(2, 8), clip_grad_norm=1.0),
    pl.Optimiser.sgd(0.05, momentum=0.9, nesterov=True, schedule=pl.Schedule.linear(0, 10)),
]


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=str)
def test_a_resumed_training_has_the_same_numbers_to_the_bit(model, optimiser, tmp_path):
    losses, trained, _ = train_an_adapter(model, optimiser, 8)
    assert float(losses[-1]) < 0.5 * float(losses[0])
    first, _, results = train_an_adapter(model, optimiser, 5)
    results.save(tmp_path / "training.safetensors")
    checkpoint = pl.Checkpoint.load(tmp_path / "training.safetensors", "run")
    assert checkpoint.steps == 5
    later, again, results = train_an_adapter(model, optimiser, 3, checkpoint)
    assert np.array_equal(np.concatenate([first, later]), losses)
    assert trained.keys() == again.keys() and all(np.array_equal(trained[name], again[name]) for name in trained)
    assert pl.Checkpoint.of(results, "run").steps == 8


def test_a_service_trains_to_the_same_numbers(model, remote):
    here, there = (train_an_adapter(each, OPTIMISERS[1], 3) for each in (model, remote))
    assert np.array_equal(here[0], there[0]) and all(np.array_equal(here[1][name], there[1][name]) for name in here[1])


def test_a_trained_adapter_is_written_and_read(model, tmp_path):
    _, trained, _ = train_an_adapter(model, pl.Optimiser.adam(0.01), 8)
    adapter(model).with_parameters(trained).save(tmp_path / "adapter")
    with model.trace("You can visit the White Tower in"):
        pl.Lora(tmp_path / "adapter").attach(model)
        sure = model.logits[0, -1].softmax(-1)[model.token(" Oslo")].save()
    assert float(sure) > 0.5


def probe(model, optimiser, parameters, write, **data):
    with model.session() as session:
        with session.train(optimiser, parameters, **data) as training:
            write(training)
        training.save("probe")
        trained = pl.save(training.parameters)
    return trained, session.results


def squares(training):
    training.backward(((pl.tensor(X) @ training.parameters["w"] + training.parameters["b"] - pl.tensor(Y)) ** 2).mean())


START = {"w": np.zeros(5, np.float32), "b": np.zeros((), np.float32)}


def by_hand(steps, lr, factor=lambda step: 1.0, beta1=0.9, beta2=0.999, decay=0.0, most=None):
    """AdamW, in numpy."""
    now = {name: value.astype(np.float64) for name, value in START.items()}
    means, second = ({name: np.zeros_like(value) for name, value in now.items()} for _ in range(2))
    for step in range(1, steps + 1):
        error = X.astype(np.float64) @ now["w"] + now["b"] - Y
        gradients = {"w": 2 * X.T @ error / len(Y), "b": 2 * error.mean()}
        size = math.sqrt(sum((each**2).sum() for each in gradients.values()))
        for name, gradient in gradients.items():
            gradient = gradient * min(1.0, most / (size + 1e-6)) if most else gradient
            rate = lr * factor(step - 1)
            now[name] = now[name] * (1 - rate * decay)
            means[name] = beta1 * means[name] + (1 - beta1) * gradient
            second[name] = beta2 * second[name] + (1 - beta2) * gradient**2
            now[name] = now[name] - rate * (means[name] / (1 - beta1**step)) / (np.sqrt(second[name] / (1 - beta2**step)) + 1e-8)
    return now


def linear(step):
    return min(step / 3, 1.0) * (1 - min(max((step - 3) / 17, 0.0), 1.0))


def cosine(step):
    return min(step / 3, 1.0) * 0.5 * (1 + math.cos(math.pi * min(max((step - 3) / 17, 0.0), 1.0)))


@pytest.mark.parametrize(
    ("optimiser", "wanted"),
    [
        (pl.Optimiser.adam(0.1), {}),
        (pl.Optimiser.adam(0.1, betas=(0.8, 0.9)), {"beta1": 0.8, "beta2": 0.9}),
        (pl.Optimiser.adamw(0.1, weight_decay=0.3), {"decay": 0.3}),
        (pl.Optimiser.adam(0.1, schedule=pl.Schedule.linear(3, 20)), {"factor": linear}),
        (pl.Optimiser.adam(0.1, schedule=pl.Schedule.cosine(3, 20)), {"factor": cosine}),
        (pl.Optimiser.adam(0.1, clip_grad_norm=0.5), {"most": 0.5}),
    ],
    ids=str,
)
def test_optimisers_take_the_steps_that_are_written_in_books(model, optimiser, wanted):
    trained, results = probe(model, optimiser, START, squares, steps=12)
    for name, value in by_hand(12, 0.1, **wanted).items():
        np.testing.assert_allclose(trained[name], value, rtol=2e-4, atol=2e-5)
    assert results.report["tokens"] == 0  # a probe needs no pass of the model


def test_data_are_gone_over_and_a_checkpoint_leaves_out_what_is_behind_it(model):
    rows = {"x": pl.tensor(X.reshape(4, 3, 5)), "y": pl.tensor(Y.reshape(4, 3))}

    def batches(training):
        error = training.x @ training.parameters["w"] + training.parameters["b"] - training.y
        loss = (error**2).mean()
        training.backward(loss)
        loss.save("losses")

    optimiser = pl.Optimiser.adam(0.1)
    whole, results = probe(model, optimiser, START, batches, epoch=range(3), batch=rows)
    assert results["losses"].shape == (3, 4)
    _, results = probe(model, optimiser, START, batches, epoch=1, batch=rows)
    checkpoint = pl.Checkpoint.of(results, "probe")
    assert checkpoint.steps == 4
    rest, results = probe(model, optimiser, START, batches, resume=checkpoint, epoch=3, batch=rows)
    assert all(np.array_equal(whole[name], rest[name]) for name in whole) and pl.Checkpoint.of(results, "probe").steps == 12
    nothing, _ = probe(model, optimiser, START, batches, resume=checkpoint, epoch=1, batch=rows)
    assert np.array_equal(nothing["w"], checkpoint.tensors[0])


def test_accumulated_gradients_are_those_of_the_whole(model):
    def parts(training):
        with training.accumulate(part={"x": pl.tensor(X.reshape(4, 3, 5)), "y": pl.tensor(Y.reshape(4, 3))}) as part:
            error = part.x @ training.parameters["w"] + training.parameters["b"] - part.y
            training.backward((error**2).mean() / 4)

    def twice(training):
        for half in (slice(0, 6), slice(6, 12)):
            error = pl.tensor(X[half]) @ training.parameters["w"] + training.parameters["b"] - pl.tensor(Y[half])
            training.backward((error**2).mean() / 2)

    optimiser = pl.Optimiser.sgd(0.1, momentum=0.9)
    whole, _ = probe(model, optimiser, START, squares, steps=6)
    for write in (parts, twice):
        trained, _ = probe(model, optimiser, START, write, steps=6)
        for name in whole:
            np.testing.assert_allclose(trained[name], whole[name], rtol=1e-4, atol=1e-5)


def test_parameters_come_in_the_form_in_which_they_were_given(model):
    def one(training):
        training.backward((training.parameters**2).sum())

    def several(training):
        training.backward(sum((each**2).sum() for each in training.parameters))

    optimiser = pl.Optimiser.sgd(0.25)
    single, _ = probe(model, optimiser, pl.ones(3), one, steps=2)
    assert np.allclose(single, 0.25)
    with model.session() as session:
        with session.train(optimiser, [pl.ones(2), pl.ones(3)], steps=1) as training:
            several(training)
        trained = pl.save(training.parameters)
    assert isinstance(trained, list) and [each.shape for each in trained] == [(2,), (3,)] and np.allclose(trained[1], 0.5)


def test_gradients_can_be_read_and_changed_on_the_way(model):
    def train(factor):
        with model.session() as session:
            with session.train(pl.Optimiser.sgd(1.0), pl.zeros(128), steps=1) as training:
                with model.trace(PROMPT):
                    model.layers[1].output[:] += training.parameters
                    with training.backward(model.logits[0, -1, 3]):
                        model.layers[2].output.grad[:] *= factor
            trained = training.parameters.save()
        return trained

    np.testing.assert_allclose(train(0.5), train(1.0) * 0.5, atol=1e-6)


def test_mistakes_are_told(model):
    with pytest.raises(TypeError, match="how many steps"):
        probe(model, pl.Optimiser.adam(), START, squares)
    with pytest.raises(TypeError, match="begins with an optimiser"):
        probe(model, 30, START, squares, steps=2)
    with pytest.raises(ValueError, match="nothing to train"):
        probe(model, pl.Optimiser.adam(), {}, squares, steps=2)
    with pytest.raises(pl.NotComputedError, match="nothing is trained"):
        probe(model, pl.Optimiser.adam(), START, lambda training: None, steps=2)

    def without(training):
        with training.accumulate(part=range(2)):
            pass

    with pytest.raises(pl.NotComputedError, match="nothing is trained"):
        probe(model, pl.Optimiser.adam(), START, without, steps=2)
    _, results = probe(model, pl.Optimiser.adam(), START, squares, steps=2)
    checkpoint = pl.Checkpoint.of(results, "probe")
    with pytest.raises(pl.PellucidError, match="6 tensors, where these parameters and `sgd` have 4|holds 6 tensors"):
        probe(model, pl.Optimiser.sgd(), START, squares, steps=2, resume=checkpoint)
    with pytest.raises(pl.PellucidError, match=r"parameter 0 has shape \[5\], where \[4\]"):
        probe(model, pl.Optimiser.adam(), {**START, "w": np.zeros(4, np.float32)}, squares, steps=2, resume=checkpoint)
    with pytest.raises(KeyError, match="there is `probe`"):
        pl.Checkpoint.of(results, "other")
    with pytest.raises(pl.NotComputedError, match="after its block"):
        probe(model, pl.Optimiser.adam(), START, lambda training: training.save("x"), steps=2)
    for wrong in (
        lambda: pl.Optimiser.adam(-1.0), lambda: pl.Optimiser.sgd(nesterov=True), lambda: pl.Optimiser.adam(clip_grad_norm=0),
        lambda: pl.Schedule.linear(5, 3),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_a_way_back_of_which_nothing_is_asked_is_no_error(model):
    with pytest.warns(UserWarning, match="nobody asks for a gradient") as caught:
        with model.trace(PROMPT):
            logits = model.logits.save()
            logits[0, -1, 3].backward()
    assert caught[0].filename == __file__ and logits.shape[1] == 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with model.trace(PROMPT):
            h = model.layers[0].output
            model.logits[0, -1, 3].backward()
            gradient = h.grad.save()
    assert np.abs(gradient).max() > 0


def test_a_training_stands_in_a_sweep_and_programs_of_it_are_files(model, tmp_path):
    def train(session, layer, rate):
        with session.train(pl.Optimiser.sgd(1.0), pl.zeros(128), steps=3) as training:
            with model.trace(PROMPT):
                model.layers[layer].output[:, -1] += training.parameters
                training.backward(model.logits[0, -1].log_softmax(-1)[3] * rate)
        training.parameters.save("trained")

    with model.session() as session:
        with session.sweep(layer=[0, 2], rate=[0.01, 0.1]) as cell:
            train(session, cell.layer, cell.rate)
    swept = session.results["trained"]
    assert swept.shape == (2, 2, 128)
    with model.session(run=False) as session:
        train(session, 2, 0.1)
    session.program.save(tmp_path / "training.json")
    results = pl.Program.load(tmp_path / "training.json").run(model)
    assert np.array_equal(results["trained"], swept[1, 1])
