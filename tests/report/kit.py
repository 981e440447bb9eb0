"""A terminal that tests can read."""

import io
import re


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream):
    """What is on the terminal after all, line by line."""
    lines = [""]
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\n)", stream.getvalue()):
        if part == "\n":
            lines.append("")
        elif part.endswith("[1A"):
            lines.pop()
        elif part.endswith("[2K"):
            lines[-1] = ""
        elif not part.startswith("\x1b["):
            lines[-1] += part.replace("\r", "")
    return [line.rstrip() for line in lines]
