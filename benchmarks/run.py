"""Pellucid beside its peers, interleaved in one run.

    python benchmarks/run.py SERVER [--quick] [--write docs/benchmarks.md]

SERVER is the built example `bench_server`. The model is GPT-2 small's shape with random weights, made once into
.cache/benchmarks. Both sides get the same tokens and two threads, f32. Ratios are medians of per-round ratios: the sides
take turns, so a machine whose speed drifts slows both.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

THREADS = 2
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".cache" / "benchmarks" / "gpt2-small"
FORWARDS = [(1, 16, 15, 2.8), (1, 32, 15, 2.8), (1, 128, 9, 1.8), (1, 512, 5, 1.5), (8, 64, 5, 1.5)]
CONTEXT, NEW_TOKENS = 128, 24


def tokens(prompts, length, vocabulary):
    return [[(p * 7919 + t * 104729 + 13) % vocabulary for t in range(length)] for p in range(prompts)]


def make_model():
    if not (FOLDER / "model.safetensors").is_file():
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
        FOLDER.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(FOLDER)
    return transformers.GPT2LMHeadModel.from_pretrained(FOLDER, dtype=torch.float32).eval()


class Server:
    def __init__(self, path, *arguments):
        environment = dict(os.environ, PELLUCID_THREADS=str(THREADS))
        self.process = subprocess.Popen(
            [path, str(FOLDER), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.hello = json.loads(self.process.stdout.readline())

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def timed(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def interleaved(sides, rounds):
    """Seconds of each side in turn, after a warm-up: {name: [seconds]}."""
    for work in sides.values():
        work()
    seconds = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            seconds[name].append(work())
    return seconds


def row(seconds, ours="pellucid", peer="torch"):
    ratios = [theirs / mine for mine, theirs in zip(seconds[ours], seconds[peer])]
    return statistics.median(seconds[ours]), statistics.median(seconds[peer]), statistics.median(ratios)


@torch.no_grad()
def torch_decode(model, count):
    ids = torch.tensor(tokens(1, CONTEXT, model.config.vocab_size))
    out = model(ids, use_cache=True)
    past, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
    started = time.perf_counter()
    for _ in range(count - 1):
        out = model(token, past_key_values=past, use_cache=True)
        past, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
    return (time.perf_counter() - started) / (count - 1)


def overheads():
    """What an empty trace and a getter cost nnsight, on a model too small to matter."""
    try:
        import nnsight

        config = transformers.GPT2Config(n_layer=12, n_embd=16, n_head=2, vocab_size=64, n_positions=64)
        model = nnsight.NNsight(transformers.GPT2LMHeadModel(config).eval())
        ids = torch.tensor(tokens(1, 16, 64))

        def empty():
            with model.trace(ids):
                pass

        def getters():
            with model.trace(ids):
                for block in model.transformer.h:
                    block.output[0].save()

        def plain():
            with torch.no_grad():
                model._module(ids)

        figures = {}
        for name, work in (("plain", plain), ("empty", empty), ("getters", getters)):
            work()
            figures[name] = min(timed(work) for _ in range(60))
        return {
            "empty": figures["empty"] - figures["plain"],
            "getter": (figures["getters"] - figures["empty"]) / 12,
        }
    except Exception as error:  # noqa: BLE001 - a peer that does not run is reported, not hidden
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs")
    parser.add_argument("--write", type=pathlib.Path, help="the document to write")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    model = make_model()
    server = Server(arguments.server)
    vocabulary = model.config.vocab_size
    lines = []

    with torch.no_grad():
        ours = torch.tensor(server.ask("logits", 32))
        theirs = model(torch.tensor(tokens(1, 32, vocabulary))).logits[0, -1, : len(ours)]
        difference = (ours - theirs).abs().max().item()
    assert difference < 1e-3, f"the two sides compute different things: {difference}"

    lines.append("| forward pass, all logits | Pellucid, ms | PyTorch eager, ms | times as fast | aim |")
    lines.append("| --- | --- | --- | --- | --- |")
    for prompts, length, rounds, aim in FORWARDS:
        ids = torch.tensor(tokens(prompts, length, vocabulary))

        def torch_forward(ids=ids):
            with torch.no_grad():
                return timed(lambda: model(ids, use_cache=False).logits)

        seconds = interleaved(
            {"pellucid": lambda p=prompts, n=length: server.ask("forward", p, n)["seconds"], "torch": torch_forward},
            2 if arguments.quick else rounds,
        )
        mine, peer, ratio = row(seconds)
        lines.append(f"| {prompts} × {length} | {mine * 1e3:.1f} | {peer * 1e3:.1f} | {ratio:.2f} | {aim} |")
        print(lines[-1], flush=True)

    seconds = interleaved(
        {
            "pellucid": lambda: server.ask("decode", CONTEXT, NEW_TOKENS)["seconds"],
            "torch": lambda: torch_decode(model, NEW_TOKENS),
        },
        1 if arguments.quick else 5,
    )
    mine, peer, ratio = row(seconds)
    lines.append(f"| decoding a token, context {CONTEXT} | {mine * 1e3:.1f} | {peer * 1e3:.1f} | {ratio:.2f} | 2.8 |")
    print(lines[-1], flush=True)

    memory = server.ask("memory")
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    server.close()

    half = Server(arguments.server, "bf16")
    lines += ["", "With `--dtype bf16` (weights bf16, sums f32):", "", "| | Pellucid bf16, ms | PyTorch f32, ms | times as fast |", "| --- | --- | --- | --- |"]
    for prompts, length, rounds, _ in FORWARDS[1:3]:
        ids = torch.tensor(tokens(prompts, length, vocabulary))

        def torch_forward(ids=ids):
            with torch.no_grad():
                return timed(lambda: model(ids, use_cache=False).logits)

        seconds = interleaved(
            {"pellucid": lambda p=prompts, n=length: half.ask("forward", p, n)["seconds"], "torch": torch_forward},
            2 if arguments.quick else 5,
        )
        mine, peer, ratio = row(seconds)
        lines.append(f"| forward {prompts} × {length} | {mine * 1e3:.1f} | {peer * 1e3:.1f} | {ratio:.2f} |")
        print(lines[-1], flush=True)
    half.close()

    tiny = FOLDER.parent / "tiny"
    if not (tiny / "model.safetensors").is_file():
        torch.manual_seed(0)
        config = transformers.GPT2Config(n_layer=12, n_embd=16, n_head=2, vocab_size=64, n_positions=64)
        transformers.GPT2LMHeadModel(config).save_pretrained(tiny)
    small = subprocess.Popen([arguments.server, str(tiny)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    small.stdout.readline()
    small.stdin.write("overhead\n")
    small.stdin.flush()
    own = json.loads(small.stdout.readline())
    small.stdin.close()
    small.wait()
    peer = overheads()

    lines += ["", "| cost beside the model | Pellucid, µs | nnsight 0.8.1, µs | aim, µs |", "| --- | --- | --- | --- |"]
    of = lambda key: f"{peer[key] * 1e6:.0f}" if key in peer else "did not run: " + peer.get("error", "")  # noqa: E731
    lines.append(f"| an empty trace (reading and checking the program: {own['parse_and_check'] * 1e6:.0f}) | {own['empty'] * 1e6:.1f} | {of('empty')} | 50 |")
    lines.append(f"| a getter, saved | {own['getter'] * 1e6:.2f} | {of('getter')} | 2 |")
    lines.append(f"| a setter | {own['setter'] * 1e6:.2f} | | 2 |")
    lines += ["", "| memory | MB |", "| --- | --- |"]
    lines.append(f"| weights, f32 | {weights / 1e6:.0f} |")
    lines.append(f"| peak, all of the above (mapped file included) | {memory['peak'] / 1e6:.0f} ({memory['peak'] / weights:.2f} times the weights) |")
    lines.append(f"| of it not backed by the file, at the end | {memory['anonymous'] / 1e6:.0f} |")
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        import platform

        processor = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
        head = (
            "# Benchmarks\n\nMade by `cargo xtask bench`, which builds the peers' environment and runs both sides in turn, "
            "two threads each.\nTimes as fast: the median over rounds of the peer's time divided by ours in the same round.\n\n"
            f"GPT-2 small's shape (124 M parameters), random weights, f32. {processor}; PyTorch {torch.__version__}, "
            f"transformers {transformers.__version__}; kernels' path {server.hello['instruction_set']}; commit {commit}. "
            f"Both sides' logits agree to {difference:.1e}.\n\n"
        )
        arguments.write.write_text(head + text + "\n")


main()
