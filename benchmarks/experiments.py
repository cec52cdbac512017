"""Whole experiments, written as one first writes them, beside the peers. What both sides find is held together."""

import cases
import patching
from peers import tokens
from report import Comparison, reached, same, same_tokens

PATCHING = 15
PAIRS = 32
HOOKS = "PyTorch hooks, batched by hand"


def experiments(report, arguments, sides, server):
    vocabulary = sides.config.vocab_size
    sides.load("model", "nnsight", "transformer_lens")

    def compare(words, aim, hold=same):
        return Comparison(report, server, arguments, words, aim, hold)

    prompts = tokens(2, PATCHING, vocabulary)
    case, comparison = patching.Heads(sides, prompts), compare(("patching", PATCHING), 15)
    comparison.against(HOOKS, case.hooks)
    comparison.against("nnsight, batched by hand", case.nnsight_batched)
    comparison.against("TransformerLens, `generic_activation_patch`", case.transformer_lens)
    comparison.against("nnsight, the clean run cached", lambda: case.nnsight(True))
    comparison.against("nnsight as first written", case.nnsight, aim=200)
    sweep = comparison.beside("Pellucid, written as one sweep", "sweep", PATCHING)
    comparison.beside("Pellucid, every logit of the read positions computed", *comparison.words, "every-logit")
    comparison.beside("Pellucid without any rewrite", *comparison.words, "alone")
    comparison.beside("Pellucid's naive interpreter", *comparison.words, "naive")
    cells = len(case.cells)
    comparison.table(f"patching a head at the last position, {cells} cells, {PATCHING} tokens")
    report.table("the file of what is found", "numbers, bytes", "file, bytes", "times", "aim, at most")
    sized(report, f"one pair, {cells} saves", comparison.found)
    sized(report, "one pair, a sweep's one save", sweep)
    count = 2 if arguments.quick else PAIRS
    sized(report, f"{count} pairs, {cells} saves", server.ask("pairs", count, PATCHING))

    case, comparison = patching.Residual(sides, prompts), compare(("residual", PATCHING), 5)
    comparison.against(HOOKS, case.hooks)
    comparison.against("nnsight, batched by hand", case.nnsight_batched)
    comparison.against("TransformerLens, `get_act_patch_resid_pre`", case.transformer_lens)
    comparison.against("nnsight as first written", case.nnsight)
    comparison.table(f"patching the residual stream, every layer and position, {len(case.cells)} cells, {PATCHING} tokens")

    case, comparison = cases.Everything(sides, tokens(1, 32, vocabulary)), compare(("everything", 32), 1.5, same_sums)
    comparison.against("PyTorch hooks on every module", case.hooks, case.of_hooks)
    comparison.against("TransformerLens, `run_with_cache`", case.transformer_lens, case.of_transformer_lens)
    comparison.table(f"everything kept, 1 × 32 ({comparison.found['saved']} hook points here)")

    case, comparison = cases.Lens(sides, tokens(100, PATCHING, vocabulary)), compare(("lens", 100, PATCHING), 1.5)
    comparison.against("PyTorch hooks", case.hooks)
    comparison.against("TransformerLens", case.transformer_lens)
    comparison.table(f"logit lens at the last position, 100 prompts of {PATCHING}")

    case = cases.Steering(sides, tokens(8, PATCHING, vocabulary), 50)
    comparison = compare(("steering", 8, PATCHING, 50), 1.5, same_tokens)
    same(server.ask(*comparison.words, "logits")["values"], case.largest_logits(), "steering's logits")
    comparison.against("transformers' `generate` with a hook", case.hooks)
    comparison.table(f"steering, 50 tokens of 8 prompts of {PATCHING}")

    case, comparison = cases.Attribution(sides, tokens(2, 32, vocabulary)), compare(("attribution", 32), 1.5)
    comparison.against("PyTorch hooks and autograd", case.hooks)
    comparison.table(f"attribution patching at {comparison.found['saved']} hook points, 1 × 32")


def sized(report, name, found):
    """A result's file as a service hands it out, names, shapes and what made it included, beside its numbers of four bytes."""
    numbers = 4 * len(found["values"])
    times = found["bytes"] / numbers
    report.row(name, numbers, found["bytes"], f"{times:.2f}", reached(times, 2, False))


def same_sums(ours, theirs, what):
    """Sums of the attentions' outputs, the MLPs' and the layers', which are of different sizes."""
    third = len(theirs) // 3
    for start in range(0, len(theirs), third):
        same(ours[start : start + third], theirs[start : start + third], what)


def pairs(report, arguments, sides, server):
    """The case study on many pairs of prompts, beside the fastest peers: the others would take an hour."""
    sides.load("model", "nnsight")
    count = 2 if arguments.quick else PAIRS
    case = patching.Heads(sides, tokens(2 * count, PATCHING, sides.config.vocab_size))
    comparison = Comparison(report, server, arguments, ("pairs", count, PATCHING), 15)
    comparison.against("PyTorch hooks, a pair's cells in a batch", case.hooks)
    comparison.against("nnsight, a pair's cells in a batch", case.nnsight_batched)
    comparison.beside("Pellucid, every logit of the read positions computed", *comparison.words, "every-logit")
    comparison.table(f"patching a head, {count} pairs of {PATCHING} tokens, {len(comparison.found['values'])} results")
    report.note("TransformerLens and nnsight as first written take a pass for each cell, and several times as long on one pair: left out.")


def smollm2(report, arguments, sides, server):
    """The same on another family, whose layers are more and narrower, beside the fastest peers."""
    sides.load("model", "nnsight")
    vocabulary = sides.config.vocab_size

    def row(title, case, words, aim, peers, hold=same):
        comparison = Comparison(report, server, arguments, words, aim, hold)
        for name, way, *read in peers:
            comparison.against(name, getattr(case, way), *(getattr(case, of) for of in read))
        comparison.write(title.format(**comparison.found))

    hooks, wrapped = (HOOKS, "hooks"), ("nnsight, batched by hand", "nnsight_batched")
    prompts = tokens(2, PATCHING, vocabulary)
    case = patching.Heads(sides, prompts)
    title = f"patching a head at the last position, {len(case.cells)} cells, {PATCHING} tokens"
    row(title, case, ("patching", PATCHING), 15, [hooks, wrapped])
    case = patching.Residual(sides, prompts)
    title = f"patching the residual stream, every layer and position, {len(case.cells)} cells, {PATCHING} tokens"
    row(title, case, ("residual", PATCHING), 5, [hooks, wrapped])
    case = cases.Everything(sides, tokens(1, 32, vocabulary))
    peers = [("PyTorch hooks on every module", "hooks", "of_hooks")]
    row("everything kept, 1 × 32 ({saved} hook points here)", case, ("everything", 32), 1.5, peers, same_sums)
    case = cases.Lens(sides, tokens(100, PATCHING, vocabulary))
    title = f"logit lens at the last position, 100 prompts of {PATCHING}"
    row(title, case, ("lens", 100, PATCHING), 1.5, [("PyTorch hooks", "hooks")])
    case = cases.Steering(sides, tokens(8, PATCHING, vocabulary), 50)
    same(server.ask("steering", 8, PATCHING, 50, "logits")["values"], case.largest_logits(), "steering's logits")
    title, peers = f"steering, 50 tokens of 8 prompts of {PATCHING}", [("transformers' `generate` with a hook", "hooks")]
    row(title, case, ("steering", 8, PATCHING, 50), 1.5, peers, same_tokens)
    case = cases.Attribution(sides, tokens(2, 32, vocabulary))
    title = "attribution patching at {saved} hook points, 1 × 32"
    row(title, case, ("attribution", 32), 1.5, [("PyTorch hooks and autograd", "hooks")])
