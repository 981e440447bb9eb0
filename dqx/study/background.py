"""Threads and signals: chunks in their places, a thread that writes, and what asks to stop."""

import collections
import concurrent.futures
import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

# What the names of threads that train chunks begin with.
CHUNK_THREAD = "dqx-chunk"


class Stopped(Exception):
    """Ctrl-C or a termination signal has asked to stop, and what is under way has been kept."""


class Writer:
    """One thread that writes while the devices compute; a failure shows at the next call."""

    # Finished chunks that may wait in memory.
    _LIMIT = 16

    def __init__(self) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "dqx-writer")
        self._waiting: list[concurrent.futures.Future] = []
        self._lock = threading.Lock()

    def submit(self, function: Callable, *args: Any) -> None:
        """Lets the thread call ``function(*args)`` after all before it."""
        with self._lock:
            self._waiting.append(self._pool.submit(function, *args))
            while self._waiting and (self._waiting[0].done() or len(self._waiting) > self._LIMIT):
                self._waiting.pop(0).result()

    def wait(self) -> None:
        """Returns when everything is written."""
        with self._lock:
            while self._waiting:
                self._waiting.pop(0).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)


@contextlib.contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    try:
        for number in usual:
            signal.signal(number, handle)
        yield stop
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def over_places(
    places: Sequence[Any],
    tasks: Iterable[Any],
    work: Callable[[Any, Any], None],
    stop: threading.Event | None = None,
) -> None:
    """Calls ``work(place, task)`` for every task, at most one at a time in each place.

    The first error ends it: no other task is begun, ``stop`` is set so that those under way may end
    early, and when they have, the error is raised. A second Ctrl-C is raised at once.
    """
    waiting = collections.deque(tasks)
    failed: list[BaseException] = []

    def fail(error: BaseException) -> None:
        failed.append(error)
        if stop is not None:
            stop.set()

    def run(place: Any) -> None:
        while not failed:
            try:
                task = waiting.popleft()
            except IndexError:
                return
            try:
                work(place, task)
            except BaseException as error:  # carried to the caller's thread
                fail(error)

    threads = [
        threading.Thread(target=run, args=(place,), name=f"{CHUNK_THREAD}-{i}", daemon=True)
        for i, place in enumerate(places)
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # in short waits, so that a signal is noticed
    except BaseException as error:  # a second Ctrl-C: what is under way is not waited for
        fail(error)
        raise
    if failed:
        raise failed[0]
