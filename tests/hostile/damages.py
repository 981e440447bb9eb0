"""Ways in which files get damaged: each takes dice and a path, and gives the paths it changed."""

import shutil


def truncate(dice, path, _):
    content = path.read_bytes()
    path.write_bytes(content[: dice.randrange(len(content))])
    return [path]


def flip(dice, path, _):
    """One bit, anywhere."""
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)
    return [path]


def zero(dice, path, _):
    """A block of zeros, as a disk leaves that lost one."""
    content = bytearray(path.read_bytes())
    start = dice.randrange(len(content))
    end = min(len(content), start + dice.choice([1, 16, 512, 4096]))
    if not any(content[start:end]):
        start, end = 0, len(content)
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    return [path]


def empty(dice, path, _):
    path.write_bytes(b"")
    return [path]


def append(dice, path, _):
    path.write_bytes(path.read_bytes() + dice.randbytes(dice.choice([1, 7, 4096])))
    return [path]


def double(dice, path, _):
    """Its content twice, one after the other."""
    path.write_bytes(2 * path.read_bytes())
    return [path]


def scramble(dice, path, _):
    """Some bytes anywhere replaced by others."""
    content = bytearray(path.read_bytes())
    for _ in range(dice.choice([2, 20])):
        content[dice.randrange(len(content))] = dice.randrange(256)
    if bytes(content) == path.read_bytes():
        content[0] ^= 255
    path.write_bytes(content)
    return [path]


def _neighbours(path):
    """Other files of its folder; where there are none, JSON below the folder above."""
    found = [p for p in sorted(path.parent.iterdir()) if p.is_file() and p != path]
    return found or [p for p in sorted(path.parents[1].rglob("*.json")) if p != path]


def swap(dice, path, _):
    """With another file of the study, of the same kind if there is one."""
    others = _neighbours(path)
    other = dice.choice([p for p in others if p.suffix == path.suffix] or others)
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)
    return [path, other]


def copy_of_neighbour(dice, path, _):
    """The content of another file of the same folder in its place."""
    shutil.copyfile(dice.choice(_neighbours(path)), path)
    return [path]


def replace(dice, path, foreign):
    """By the file of the same name of another study of the same shape."""
    if not foreign.is_file() or foreign.read_bytes() == path.read_bytes():
        return empty(dice, path, foreign)
    shutil.copyfile(foreign, path)
    return [path]


def remove(dice, path, _):
    path.unlink()
    return [path]


def noise(dice, path, _):
    """Random bytes of the same length."""
    path.write_bytes(dice.randbytes(path.stat().st_size))
    return [path]


ALL = (
    truncate, flip, zero, empty, append, double, scramble, swap, copy_of_neighbour, replace, remove,
    noise,
)  # fmt: skip
