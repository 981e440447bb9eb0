"""What happens beside training: a thread that writes, and signals that ask to stop."""

import concurrent.futures
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self


class Writer:
    """One thread that writes while the devices compute; a failure shows at the next call."""

    # Finished chunks that may wait in memory.
    _LIMIT = 16

    def __init__(self) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "dqx-writer")
        self._waiting: list[concurrent.futures.Future] = []

    def submit(self, function: Callable, *args: Any) -> None:
        """Lets the thread call ``function(*args)`` after all before it."""
        self._waiting.append(self._pool.submit(function, *args))
        while self._waiting and (self._waiting[0].done() or len(self._waiting) > self._LIMIT):
            self._waiting.pop(0).result()

    def wait(self) -> None:
        """Returns when everything is written."""
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
