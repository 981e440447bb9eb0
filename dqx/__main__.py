"""``python -m dqx`` is the command ``dqx``."""

import sys

from dqx.cli import main

if __name__ == "__main__":
    sys.exit(main())
