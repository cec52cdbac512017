import random

import torch
from sklearn.linear_model import LogisticRegression

from .common import IOI, corpus, ids_of, one_length, randperm, short

TRAIN, TEST, STEPS, RATE, MOMENTUM, DECAY, SEED = 192, 128, 100, 0.5, 0.9, 0.01, 0


def linear_probes(gpt2):
    """Is the receiver a woman? A logistic probe for each layer's input at the last position, trained on some sentences and tested
    on others, beside the same probe trained on shuffled labels."""
    draw = random.Random(11)

    def data(count):
        rows, labels = [], []
        for row in range(count):
            # As many women as men among the receivers.
            receiver = draw.choice(corpus.F if row % 2 == 0 else corpus.M)
            giver = draw.choice([name for name in corpus.NAMES if name != receiver])
            a, b = (receiver, giver) if draw.random() < 0.5 else (giver, receiver)
            rows.append(short(gpt2, IOI.format(a=a, b=b, giver=giver, place=draw.choice(corpus.PLACES), thing=draw.choice(corpus.OBJECTS))))
            labels.append(int(receiver in corpus.F))
        return one_length(rows), torch.tensor(labels)

    (train, labels), (test, test_labels) = data(TRAIN), data(TEST)
    features, test_features = (gpt2.read(ids_of(rows), "residual")[:, :, -1] for rows in (train, test))
    # To mean 0 and deviation 1 by the training set, so that one rate suits every layer.
    mean, deviation = features.mean(1, keepdim=True), features.std(1, correction=0, keepdim=True) + 1e-3
    features, test_features = (features - mean) / deviation, (test_features - mean) / deviation
    shuffled = labels[randperm("shuffle", TRAIN, seed=SEED)]
    results = {}
    for name, target in {"probe": labels, "control": shuffled}.items():
        weight, bias = torch.zeros(gpt2.layers, gpt2.model.config.n_embd), torch.zeros(gpt2.layers)
        parameters = [weight.requires_grad_(), bias.requires_grad_()]
        optimiser = torch.optim.SGD(parameters, lr=RATE, momentum=MOMENTUM)
        losses = []
        for _ in range(STEPS):
            with torch.enable_grad():
                logits = torch.einsum("lnh,lh->ln", features, weight) + bias[:, None]
                loss = torch.nn.functional.binary_cross_entropy_with_logits(
                    logits, target.float().expand_as(logits), reduction="none").mean(1)
                penalised = loss + DECAY / 2 * weight.pow(2).sum(1)
                optimiser.zero_grad()
                penalised.sum().backward()
            losses.append(loss.detach())
            optimiser.step()

        def accuracy(rows, right):
            return ((torch.einsum("lnh,lh->ln", rows, weight) + bias[:, None] > 0) == right.bool()).float().mean(1)

        peer = []
        for layer in range(gpt2.layers):
            # The same penalty: scikit-learn weighs the sum of the losses by C against half the squared length.
            model = LogisticRegression(C=1 / (DECAY * TRAIN), max_iter=2000).fit(features[layer].numpy(), target.numpy())
            peer.append(model.score(test_features[layer].numpy(), test_labels.numpy()))
        results |= {f"{name}.losses": torch.stack(losses), f"{name}.weight": weight, f"{name}.bias": bias,
                    f"{name}.train_accuracy": accuracy(features, target), f"{name}.test_accuracy": accuracy(test_features, test_labels),
                    f"{name}.scikit_learn_test_accuracy": torch.tensor(peer)}
    return {
        "train": train, "train_labels": labels.tolist(), "test": test, "test_labels": test_labels.tolist(), "seed": SEED,
        "steps": STEPS, "rate": RATE, "momentum": MOMENTUM, "decay": DECAY, "hook_point": "transformer.h.{layer}.input",
        "features": "the hook point at the last position, less its mean over the training set, divided by (its population standard "
                    "deviation + 0.001)",
        "loss": "mean binary cross-entropy (in `losses`, before each step) + decay / 2 * |weight|²; weight and bias start at 0; SGD with "
                "momentum as in torch; each layer by itself",
        "control": "trained on labels[randperm of a node named `shuffle`], tested on the true ones",
        "scikit_learn": "LogisticRegression on the same features with the same penalty, to convergence",
        "axes": {"<probe>.losses": ["step", "layer"], "<probe>.weight": ["layer", "hidden"], "<probe>.bias": ["layer"],
                 "<probe>.train_accuracy": ["layer"], "<probe>.test_accuracy": ["layer"],
                 "<probe>.scikit_learn_test_accuracy": ["layer"]},
    }, results
