"""What is said where files or the folder of a study are gone, or are not what they should be."""

import re
import shutil
from pathlib import Path

import pytest

from dqx.files import whole_file
from dqx.report import plots
from dqx.report.picture import Picture
from dqx.study import Sink, StudyError, StudyWarning, load
from dqx.study.folder import Folder
from dqx.study.stops import explained
from tests.study.kit import PLAN, call, make_study, run

ROOT = Path(__file__).resolve().parents[2]


class Deleting(Sink):
    """Deletes a folder when the first runs are finished, at once: no write meets half of it."""

    def __init__(self, path):
        self.path = path

    def finished(self, runs):
        if self.path.exists():
            away = self.path.resolve().parent / "away"
            self.path.resolve().rename(away)
            shutil.rmtree(away)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (".", "s was deleted or moved away while .*, and with it all that was finished: .*its beg"),
        ("metrics", "s/metrics was deleted or moved away .*: what was in it is lost, unless .*put"),
    ],
)
def test_a_folder_that_is_deleted_while_training(tmp_path, name, words):
    path = tmp_path / "s"
    with pytest.raises(StudyError, match=words) as caught:
        run(PLAN, path, sinks=[Deleting(path / name)], checkpoint_seconds=0)
    assert "nothing that was finished is lost" not in str(caught.value)
    assert f"dqx study resume {path}" in str(caught.value)
    assert path.exists() == (name != ".")  # nor is half of it made again


def test_a_mistake_is_told_as_it_is_while_the_folder_is_there(tmp_path):
    with (
        pytest.raises(StudyError, match="^a line of its own$"),
        explained(Folder(tmp_path), 15.0),
    ):
        raise StudyError("a line of its own")


@pytest.mark.parametrize("kind", ["open", "replace"])
def test_a_directory_in_a_files_place_is_named_and_not_the_temporary_file(tmp_path, kind):
    (tmp_path / "s").mkdir()
    path = tmp_path / "s" / "progress.json"
    if kind == "replace":
        path.mkdir()
    else:
        path = tmp_path / "s" / "none" / "progress.json"
    with (
        pytest.raises(StudyError) as caught,
        explained(Folder(tmp_path / "s"), 15.0),
        whole_file(path) as file,
    ):
        file.write(b"{}")
    assert str(path if kind == "replace" else path.parent) in str(caught.value)
    assert ".tmp" not in str(caught.value)
    assert [p for p in tmp_path.rglob("*.tmp")] == []


def test_status_names_the_data_files_that_are_missing(tmp_path):
    make_study(tmp_path / "s", {"seeds": 8, "snapshot_every": 200})
    assert load(tmp_path / "s").absent() == []
    assert not any("missing" in line for line in call("study", "status", tmp_path / "s")[1])
    (tmp_path / "s/metrics/part-00001.parquet").unlink()
    cut = tmp_path / "s/params/part-00000.npz"
    cut.write_bytes(cut.read_bytes()[:-1])
    (tmp_path / "s/snapshots/part-00001-200.npz").unlink()
    names = ["params/part-00000.npz", "metrics/part-00001.parquet"]
    names.append("snapshots/part-00001-200.npz")
    assert load(tmp_path / "s").absent() == names
    status, out, err = call("study", "status", tmp_path / "s")
    assert (status, err) == (0, [])
    (line,) = (line for line in out if line.startswith("missing: "))
    resume = f"`dqx study resume {tmp_path / 's'}` trains the runs again whose files they are"
    assert line == f"missing: {', '.join(names)}; {resume}"
    shutil.rmtree(tmp_path / "s/metrics")
    shutil.rmtree(tmp_path / "s/episodes")
    shutil.rmtree(tmp_path / "s/params")
    _, out, _ = call("study", "status", tmp_path / "s")
    (line,) = (line for line in out if line.startswith("missing: "))
    assert re.search(r"params/part-00000.npz, .* and 2 more; ", line)


def test_a_missing_picture_is_drawn_and_anothers_is_left_alone(tmp_path):
    made = make_study(tmp_path / "s", {"seeds": 2})
    study, path = load(tmp_path / "s"), made.folder.picture
    Picture().complete(study)
    drawn = path.read_bytes()
    assert plots.is_drawn(path)
    for damaged in (b"", drawn[:2000]):  # what an interruption or a damaged disk may leave
        path.write_bytes(damaged)
        Picture().complete(study)
        assert path.read_bytes() == drawn
    before = re.sub(rb"\0\0\0.tEXtSoftware\0dqx.{4}", b"", drawn, count=1, flags=re.DOTALL)
    assert len(before) == len(drawn) - 24  # as older versions drew it
    for older in (before, (ROOT / "docs" / "learning_curve.png").read_bytes()):
        path.write_bytes(older)
        Picture().complete(study)
        assert path.read_bytes() == drawn
    mine = drawn.replace(b"Software\0dqx", b"Software\0xyz")
    path.write_bytes(mine)
    words = "was not drawn by dqx, so it stays as it is: move it away, and `dqx study resume"
    with pytest.warns(StudyWarning, match=words):
        Picture().complete(study)
    assert path.read_bytes() == mine
    path.unlink()
    Picture().complete(study)
    assert path.read_bytes() == drawn
