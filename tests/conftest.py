"""What holds for every test."""

import signal

# A job in the background is started with Ctrl-C ignored, and would hand that on to the processes
# that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
