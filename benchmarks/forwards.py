"""Passes and nothing else: forward, decoding, backward, in each precision; and what an intervention costs beside them."""

import fresh
import peers
from peers import CONTEXT, FOLDER, tokens
from report import Server, compared, interleaved, reached

FORWARDS = [(1, 16, 15, 2.8), (1, 32, 15, 2.8), (1, 128, 9, 1.8), (1, 512, 5, 1.5), (8, 64, 5, 1.5)]
NEW_TOKENS = 24
GRADIENTS = (2, 32)
LORA = (2, 64)


def forward(report, server, model, prompts, length, rounds, name, aim=""):
    theirs = peers.forward(model, tokens(prompts, length, model.config.vocab_size))
    report.compared(name, interleaved(lambda: server.seconds("forward", prompts, length), theirs, rounds), aim)


def decode(report, server, model, rounds, name="", aim=""):
    ours = lambda: server.seconds("decode", CONTEXT, NEW_TOKENS)  # noqa: E731
    pairs = interleaved(ours, lambda: peers.decode(model, NEW_TOKENS), rounds)
    report.compared(f"decoding a token, context {CONTEXT}{name}", pairs, aim)


def forwards(report, arguments, model, server):
    compared(report, "forward pass, all logits", "PyTorch eager")
    for prompts, length, rounds, aim in FORWARDS:
        rounds = 2 if arguments.quick else rounds
        forward(report, server, model, prompts, length, rounds, f"{prompts} × {length}", aim)
    decode(report, server, model, 1 if arguments.quick else 7, aim=2.8)


def half(report, arguments, model):
    """Both sides hold bf16 weights; PyTorch rounds what passes between its operations too, we do not."""
    rounds = 2 if arguments.quick else 7
    theirs = peers.opened(FOLDER, peers.torch.bfloat16)
    with Server(arguments.server, FOLDER, "bf16") as server:
        for name, other in (("f32", model), ("bf16", theirs)):
            difference = peers.difference(other, server.ask("logits", 32))
            assert difference < 0.05, f"bf16 beside PyTorch's {name}: logits differ by {difference}"
        report.table("`--dtype bf16` (weights bf16, sums f32)", "Pellucid bf16, ms", "PyTorch, ms", "times as fast", "aim")
        for name, other in (("f32", model), ("bf16", theirs)):
            for prompts, length, _, _ in FORWARDS[1:3]:
                title = f"forward {prompts} × {length}; PyTorch {name}"
                forward(report, server, other, prompts, length, rounds, title)
            decode(report, server, other, rounds, f"; PyTorch {name}")


def quantised(report, arguments):
    """SmolLM2-135M-Instruct as its GGUF file has it, beside the same file unpacked: what is found is the same to the bit."""
    path, file, rounds = arguments.server, arguments.gguf, 2 if arguments.quick else 7
    with Server(path, file, "quantised") as ours, Server(path, file) as whole, Server(path, file, "bf16") as half:
        assert ours.ask("logits", 32) == whole.ask("logits", 32), "quantised weights give other logits than unpacked ones"
        megabytes = [round(server.hello["weight_bytes"] / 1e6) for server in (ours, whole, half)]
        title = f"`--dtype quantised` (SmolLM2-135M-Instruct in Q4_1; weights of {megabytes[0]} MB, f32 {megabytes[1]}, bf16 {megabytes[2]})"
        report.table(title, "quantised, ms", "the other, ms", "times as fast", "aim")
        for name, theirs in (("f32", whole), ("bf16", half)):
            words = ("decode", CONTEXT, NEW_TOKENS)
            pairs = interleaved(lambda: ours.seconds(*words), lambda s=theirs: s.seconds(*words), rounds)  # noqa: B023
            report.compared(f"decoding a token, context {CONTEXT}; {name}", pairs)
            for length in (32, 128):
                words = ("forward", 1, length)
                pairs = interleaved(lambda: ours.seconds(*words), lambda s=theirs: s.seconds(*words), rounds)  # noqa: B023
                report.compared(f"forward 1 × {length}; {name}", pairs)


def backwards(report, arguments, model, server):
    compared(report, "gradients and training", "PyTorch eager")
    for name, shape, theirs, aim in [
        ("gradients", GRADIENTS, lambda: peers.gradients(model, tokens(*GRADIENTS, model.config.vocab_size)), 2),
        ("lora", LORA, lambda: peers.lora(tokens(*LORA, model.config.vocab_size)), 1),
    ]:
        title = {
            "gradients": f"forward with gradients at 24 hook points, {shape[0]} × {shape[1]}",
            "lora": f"a LoRA step (rank 8, AdamW), {shape[0]} × {shape[1]}; the peer is peft",
        }[name]
        first = server.ask(name, *shape)
        if "error" in first:
            report.row(title, f"does not run: {first['error']}", "", "", aim)
            continue
        ours = lambda name=name, shape=shape: server.seconds(name, *shape)  # noqa: E731
        report.compared(title, interleaved(ours, theirs(), 2 if arguments.quick else 11), aim)


def smollm2(report, arguments, model, server):
    for length, rounds in [(32, 11), (128, 7)]:
        forward(report, server, model, 1, length, 2 if arguments.quick else rounds, f"forward 1 × {length}")
    decode(report, server, model, 1 if arguments.quick else 5)


def overheads(report, arguments):
    with Server(arguments.server, peers.tiny_model()) as server:
        own = server.ask("overhead")
    peer = fresh.ask("overheads")
    report.table("cost beside the model, the least of many runs", "Pellucid, µs", "nnsight, µs", "aim, µs")
    of = lambda key: f"{peer[key] * 1e6:.0f}" if key in peer else "did not run: " + peer.get("error", "")  # noqa: E731
    title = f"an empty trace (reading and checking the program: {own['parse_and_check'] * 1e6:.0f})"
    report.row(title, f"{own['empty'] * 1e6:.1f}", of("empty"), reached(own["empty"] * 1e6, 50, False))
    report.row("a getter, saved", f"{own['getter'] * 1e6:.2f}", of("getter"), reached(own["getter"] * 1e6, 2, False))
    report.row("a setter", f"{own['setter'] * 1e6:.2f}", "", reached(own["setter"] * 1e6, 2, False))
