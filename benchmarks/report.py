"""Taking turns, comparing what was found, and the tables: what every part of the benchmarks is written with."""

import json
import os
import statistics
import subprocess
import time

from peers import THREADS, timed

# Seconds: a peer that takes longer runs three times rather than seven, and one that takes much longer once.
LONG, MUCH_LONGER = 4, 10


class Server:
    """Our side: one process, one request a line."""

    def __init__(self, path, folder, *arguments):
        environment = dict(os.environ, PELLUCID_THREADS=str(THREADS))
        self.process = subprocess.Popen(
            [path, str(folder), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.hello = json.loads(self.process.stdout.readline())

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def seconds(self, *words):
        return self.ask(*words)["seconds"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def interleaved(ours, theirs, rounds, warm=False):
    """Seconds of both sides in turn, after a warm-up. Before each turn the other side's threads come to rest: they go on spinning
    for a while (of OpenMP up to 0.2 s), which would take a core from whoever is measured."""
    ours, theirs = rested(ours), rested(theirs)
    if not warm:
        ours(), theirs()
    pairs = []
    for number in range(rounds):
        # Whoever goes first has the colder machine: they take turns in that too.
        pairs.append((ours(), theirs()) if number % 2 == 0 else tuple(reversed((theirs(), ours()))))
    return pairs


def rested(work):
    def after_a_rest():
        time.sleep(0.3)
        return work()

    return after_a_rest


def same(ours, theirs, what):
    """Holds together what both sides found: to a thousandth of the distance between its quartiles, so that a value in the place of
    another is noticed. Where all are alike nothing passes."""
    low, _, high = statistics.quantiles(theirs, n=4)
    worst = max(abs(mine - other) for mine, other in zip(ours, theirs, strict=True))
    assert worst < (high - low) / 1000, f"{what}: the two sides find different things, by {worst} where they spread over {high - low}"


def same_tokens(ours, theirs, what):
    """Holds generated tokens together. Two nearly equal logits may fall out either way, and all that follow with them."""
    equal = sum(mine == other for mine, other in zip(ours, theirs, strict=True)) / len(theirs)
    assert equal > 0.9 and len(set(theirs)) > 1, f"{what}: only {equal:.0%} of the generated tokens are the same"


def spread(values, scale=1.0, digits=1):
    """A median, with its quartiles where there are enough values to have some, otherwise with how many there are."""
    values = sorted(value * scale for value in values)
    text = f"{statistics.median(values):.{digits}f}"
    if len(values) < 4:
        return f"{text} ({'once' if len(values) == 1 else f'of {len(values)}'})"
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{text} ({low:.{digits}f}–{high:.{digits}f})"


def reached(value, aim, more_is_better=True):
    """An aim, and whether it was missed."""
    missed = aim != "" and (value < aim if more_is_better else value > aim)
    return f"{aim} (missed)" if missed else aim


class Report:
    def __init__(self):
        self.lines = []

    def table(self, title, *columns):
        self.lines += ["", f"| {title} | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]

    def row(self, *cells):
        self.lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
        print(self.lines[-1], flush=True)

    def note(self, text):
        self.lines += ["", text]

    def compared(self, name, pairs, aim=""):
        """A row of two sides that took turns. A peer that ran once stands in every pair."""
        ratios = [theirs / mine for mine, theirs in pairs]
        mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
        times, aim = spread(ratios, 1, 2), reached(statistics.median(ratios), aim)
        if len(set(theirs)) == 1:
            theirs, times = theirs[:1], spread([statistics.median(ratios)], 1, 2)
        self.row(name, spread(mine, 1e3), spread(theirs, 1e3), times, aim)

    def text(self):
        return "\n".join(self.lines).strip() + "\n"


class Comparison:
    """One experiment, which our side runs by these words, against its peers in turn. The aim stands at the fastest of those that
    have none of their own, so the rows are written when all have run."""

    def __init__(self, report, server, arguments, words, aim="", hold=same):
        self.report, self.server, self.quick, self.words, self.aim, self.hold = report, server, arguments.quick, words, aim, hold
        self.found = server.ask(*words)
        self.rows = []

    def ours(self):
        return self.server.seconds(*self.words)

    def against(self, name, theirs, read=lambda found: found, aim=None):
        """A peer: `theirs` is what is timed, `read` takes of its result what must be the same as ours."""
        kept = []
        first = timed(lambda: kept.append(theirs()))
        self.hold(self.found["values"], read(kept.pop()), name)
        if first > MUCH_LONGER:
            pairs = [(rested(self.ours)(), first) for _ in range(1 if self.quick else 3)]
        else:
            rounds = 1 if self.quick else 3 if first > LONG else 7
            pairs = interleaved(self.ours, lambda: timed(theirs), rounds, warm=True)
        self.rows.append((name, pairs, aim))

    def beside(self, name, *words):
        """Another way of ours; what is found is the same to the bit."""
        found = self.server.ask(*words)
        assert found["values"] == self.found["values"], f"{name}: a rewrite changes what is found"
        rounds = 1 if self.quick else 5
        self.rows.append((name, interleaved(self.ours, lambda: self.server.seconds(*words), rounds, warm=True), ""))
        return found

    def table(self, title):
        compared(self.report, title)
        self.write()

    def write(self, title=None):
        peers = [statistics.median(theirs for _, theirs in pairs) for _, pairs, aim in self.rows if aim is None]
        for name, pairs, aim in self.rows:
            if aim is None:
                aim = self.aim if statistics.median(theirs for _, theirs in pairs) == min(peers) else ""
            self.report.compared(f"{title}; {name}" if title else name, pairs, aim)


def compared(report, title, peer="the peer"):
    """A table of what `Report.compared` writes."""
    report.table(title, "Pellucid, ms", f"{peer}, ms", "times as fast", "aim")
