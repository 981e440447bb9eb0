"""What holds for every test."""

import collections
import signal

# A job in the background is started with Ctrl-C ignored, and would hand that on to the processes
# that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Puts files with slow tests first, so that no worker is left alone with one at the end."""
    weights = collections.Counter()
    for item in items:
        weights[item.path] += 20 if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -weights[item.path])
