"""Small studies that are really trained, and what a test may start, stop, go on with or repair."""

import shutil
import warnings

from dqx.files import whole_file
from dqx.study import Sink, StudyWarning, load
from dqx.study.folder import Folder
from tests.study import kit

# Two chunks of four seeds, four rows of metrics, and a snapshot halfway.
PLAN = kit.plan(8, {"total_steps": 352}, snapshot_every=176)
OTHER = kit.plan(8, {"total_steps": 352, "learning_rate": 3e-3}, snapshot_every=176)
EVERY_ROW = {"checkpoint_seconds": 0}


class Quick(Sink):
    """A picture and a page that take no time."""

    def complete(self, study):
        folder = Folder(study.path)
        folder.report.mkdir(exist_ok=True)
        for path in (folder.picture, folder.report / "index.html"):
            with whole_file(path) as file:
                file.write(b"curves")


def start(out, **options):
    """A new study of `PLAN`, with a checkpoint at every row."""
    return kit.run(PLAN, out, **{"sinks": [Quick()], **EVERY_ROW, **options})


def go_on(out, **options):
    """Resumes a study; what it warns of is expected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StudyWarning)
        return kit.resume(out, **{"sinks": [Quick()], **EVERY_ROW, **options})


def make_templates(folder):
    """Studies to be copied: finished, stopped in the second chunk, and both of another plan."""
    for name, plan in (("mine", PLAN), ("other", OTHER)):
        kit.run(plan, folder / f"{name}-finished", sinks=[Quick()])
        kit.interrupted(plan, folder / f"{name}-stopped", 6, sinks=[Quick()])
    return folder


class Scenario:
    """Something that a study does, what was there before, and what has to be there in the end.

    Args:
        template: of `make_templates`, copied first; None: nothing is there.
        act: ``act(out)`` does it.
        mend: ``mend(out)`` is what a user does after it was stopped.
        damage: ``damage(out)`` comes before it.
    """

    def __init__(self, template, act, mend, damage=None):
        self.template, self.act, self.mend, self.damage = template, act, mend, damage

    def prepare(self, templates, out):
        if self.template is not None:
            shutil.copytree(templates / self.template, out)
        if self.damage is not None:
            self.damage(out)


def damage(out):
    """Two data files of the first chunk are damaged."""
    path = out / "metrics" / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)
    (out / "params" / "part-00000.npz").unlink()


def begin_again(out):
    """After a start was stopped: goes on where there is a plan, else starts anew."""
    if (out / "plan.json").exists():
        return go_on(out)
    return start(out)


def replace_again(out):
    """After an overwriting start was stopped: goes on with the new plan, else starts anew."""
    if (out / "plan.json").exists() and load(out).point()[1].learning_rate == LEARNING_RATE:
        return go_on(out)
    return replace(out)


def replace(out):
    """A new study over an old one of another plan."""
    return start(out, overwrite=True)


LEARNING_RATE = PLAN["base"]["learning_rate"]
SCENARIOS = {
    "start": Scenario(None, start, begin_again),
    "resume": Scenario("mine-stopped", go_on, go_on),
    "repair": Scenario("mine-finished", go_on, go_on, damage),
    "overwrite": Scenario("other-finished", replace, replace_again),
}
