"""Whether Python's other threads go on."""

import threading
import time


def ticks_during(work):
    """How often another thread, which sleeps a millisecond at a time, had its turn while `work` ran, for each second of it."""
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.perf_counter()
    work()
    ended = time.perf_counter()
    stop.set()
    thread.join()
    return sum(started < each < ended for each in ticks) / (ended - started)
