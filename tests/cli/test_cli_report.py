"""`dqx report` and `dqx watch`: their files, what is said, and who may see what is served."""

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from dqx.report import figures, page
from dqx.report.watch import Server
from dqx.study import load
from tests.cli.kit import ROOT, environment
from tests.study.kit import call, make_study

PLAN = {"seeds": 4, "grid": {"gamma": [0.9, 0.99], "learning_rate": [1e-3, 1e-2]}}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("report") / "s", PLAN).folder.path


@pytest.mark.slow
def test_the_page_and_every_figure_in_three_formats(study):
    status, out, err = call("report", study, "--no-films")
    folder = study / "report"
    assert (status, out[-1]) == (0, f"page: {folder / 'index.html'}")
    names = {
        "learning_curves", "scores", "profiles", "improvement", "thresholds", "episodes",
        "training", "effects", "parallel", "heat_map",
    }  # fmt: skip
    expected = {f"{name}.{kind}" for name in names for kind in figures.FORMATS}
    assert {path.name for path in folder.iterdir()} == expected | {"index.html"}
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for path in folder.glob("*.*"):
        assert path.read_bytes().startswith(starts.get(path.suffix[1:], b"<!doctype html>"))
    assert err[0] == "report: reading..." and len(err) == 1 + len(names)
    assert len(load(study).digests) == 16


def test_a_page_is_never_in_the_way_of_something_else(study, tmp_path, monkeypatch):
    other = make_study(tmp_path / "other", PLAN).folder.path
    search = tmp_path / "search"
    (search / "generation-00").mkdir(parents=True)
    (search / "search.json").write_text('{"search": {}, "search_seal": ""}')
    for name in ("plan.json", "search.json"):  # of another program
        (tmp_path / name).write_text("{}")
    inside = (study, study / "metrics", study / "metrics" / "mine", other / "report")
    for place in (*inside, search, search / "report", search / "generation-00"):
        status, out, (line,) = call("report", study, "--out", place, "--no-films")
        assert (status, out) == (2, []) and f"{place} lies in " in line
    mine = '<!doctype html><meta name="referrer" content="no-referrer">mine'
    for folder, arguments in ((tmp_path, (study, other)), (other, (other,))):
        monkeypatch.chdir(tmp_path)
        (folder / "report").mkdir()
        (folder / "report" / "index.html").write_text(mine)
        status, out, (line,) = call("report", *arguments, "--no-films")
        assert (status, out) == (2, []) and "report/index.html is no page of dqx" in line
        assert (folder / "report" / "index.html").read_text() == mine
    page.write([load(study)], tmp_path / "report")
    page.check_place(tmp_path / "report")  # its own it replaces
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]


@pytest.mark.long
def test_six_configurations_of_64_seeds_are_soon_reported(tmp_path):
    """Page and every figure, of 100 evaluations and 2,000 episodes a run."""

    def change(config, seed, run):
        rng = np.random.default_rng(seed)
        ends = np.sort(rng.choice(100_000, 2000, replace=False)) + 1
        run["episodes"] = (
            ends,
            rng.normal(size=2000).astype(np.float32),
            rng.integers(1, 99, 2000),
        )

    base = {"total_steps": 100_000, "log_period": 1000, "eval_period": 1000, "chunk_width": 64}
    grid = {"learning_rate": [1e-4, 1e-3, 1e-2], "double": [False, True]}
    make_study(tmp_path / "s", {"seeds": 64, "base": base, "grid": grid}, change=change)
    begun = time.process_time()
    status, out, err = call("report", tmp_path / "s", "--no-films", "--quiet")
    seconds = time.process_time() - begun
    assert status == 0 and len(list((tmp_path / "s" / "report").glob("*.pdf"))) >= 9, err
    print(f"{seconds:.1f} s")
    assert seconds < 15


def test_mistakes_are_told_in_a_line(study, tmp_path):
    status, out, (line,) = call("report", tmp_path)
    assert (status, out) == (2, []) and "holds no study" in line
    (tmp_path / "file").write_text("mine")
    status, out, (line,) = call("report", study, "--out", tmp_path / "file")
    assert (status, out) == (2, []) and "is a file: choose another folder with --out" in line
    status, out, (line,) = call("report", study.parent)
    assert (status, out) == (2, []) and f"give a study's folder, here {study}" in line
    status, out, (line,) = call("watch", study, "--port", 65_536)
    assert (status, out) == (2, []) and "from 0 to 65535, got '65536'" in line
    status, out, (line,) = call("watch", tmp_path)
    assert (status, out) == (2, []) and "holds no study" in line


def test_a_damaged_file_is_named_and_no_page_is_written(tmp_path):
    made = make_study(tmp_path / "s", {"seeds": 2})
    made.folder.part("episodes", 0).unlink()
    status, out, err = call("report", tmp_path / "s", "--quiet")
    (line,) = err
    assert (status, out) == (2, []) and "episodes/part-00000.parquet: No such file" in line
    assert not (tmp_path / "s" / "report").exists()


def test_an_unfinished_study_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "drawings", lambda *_: [])
    make_study(tmp_path / "s", {"seeds": 8}, leave_out=[1])
    status, out, err = call("report", tmp_path / "s", "--quiet", "--out", tmp_path / "there")
    assert (status, err) == (0, [])
    assert out == [
        f"unfinished: {tmp_path / 's'} has 4 of 8 runs",
        f"figures: 0 in {tmp_path / 'there'}, each as PNG, SVG and PDF",
        f"page: {tmp_path / 'there' / 'index.html'}",
    ]


def test_several_studies_make_one_page_in_the_current_folder(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "drawings", lambda *_: [])
    make_study("other", {"name": "other", "seeds": 4})
    status, out, err = call("report", study, "other", "--quiet")
    assert (status, err, out[-1]) == (0, [], "page: report/index.html")
    assert "2 studies compared" in (tmp_path / "report" / "index.html").read_text()


# --- Watching.


@pytest.fixture
def served(tmp_path):
    """A study with one of two chunks, its server at work, and how to ask it."""
    made = make_study(tmp_path / "s", {"seeds": 8}, leave_out=[1])
    with Server(tmp_path / "s") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()

        def ask(path=f"/{server.token}/", method="GET", **headers):
            asking = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
            headers = {"Host": f"127.0.0.1:{server.server_port}", **headers}
            asking.request(
                method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
            )
            answer = asking.getresponse()
            found = answer.status, dict(answer.headers), answer.read().decode()
            asking.close()
            return found

        yield made, server, ask
        server.shutdown()
        thread.join()


def test_the_page_is_served_to_who_knows_the_token(served):
    _, server, ask = served
    status, headers, text = ask()
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert 'name="dqx-watch"' in text and "connect-src 'self'" in text
    assert headers["Cache-Control"] == "no-store" and headers["X-Frame-Options"] == "DENY"
    assert len(server.token) >= 24 and server.token not in text
    assert ask(Host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize(
    ("status", "given"),
    [
        (404, {"path": "/"}),
        (404, {"path": "/data.json"}),
        (404, {"path": "/0123456789abcdef01234567/data.json"}),
        (403, {"Host": "evil.example"}),
        (403, {"Host": "127.0.0.1"}),
        (405, {"method": "POST"}),
        (405, {"method": "HEAD"}),
        (405, {"method": "DELETE"}),
    ],
)
def test_everything_else_is_refused(served, status, given):
    found, headers, text = served[2](**given)
    assert found == status and "default" not in text
    assert headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("name", ["plan.json", "../plan.json", "..%2fplan.json", "data.json/", "x"])
def test_no_other_file_is_served(served, name):
    _, server, ask = served
    assert ask(f"/{server.token}/{name}")[0] == 404


def test_data_are_given_once_and_again_when_there_are_new_ones(served):
    made, server, ask = served
    path = f"/{server.token}/data.json"
    status, headers, text = ask(path)
    assert status == 200 and json.loads(text)["groups"][0]["cases"][0]["n"] == 4
    mark = headers["ETag"]
    assert ask(path, If_None_Match=mark)[::2] == (304, "")
    server.watched._rest = 0.0
    make_study(made.folder.path, {"seeds": 8})
    status, headers, text = ask(path, If_None_Match=mark)
    assert status == 200 and headers["ETag"] != mark
    found = json.loads(text)
    assert found["groups"][0]["cases"][0]["n"] == 8 and found["studies"][0]["finished"]


def test_a_damaged_file_is_named_in_place_of_data(served):
    made, server, ask = served
    made.folder.part("metrics", 0).write_bytes(b"")
    status, _, text = ask(f"/{server.token}/data.json")
    assert status == 500 and "metrics/part-00000.parquet: 0 bytes instead of" in text


def test_a_folder_that_is_gone_is_told_and_the_server_stays(served):
    made, server, ask = served
    shutil.rmtree(made.folder.path)
    for _ in range(2):
        status, _, text = ask(f"/{server.token}/data.json")
        assert status == 500 and str(made.folder.path) in text


def test_only_a_browser_that_leaves_is_no_news(served, capsys):
    for kind in (BrokenPipeError, ConnectionResetError, ValueError):
        try:
            raise kind
        except Exception:
            served[1].handle_error(None, ("127.0.0.1", 1))
        assert ("Traceback" in capsys.readouterr().err) is (kind is ValueError)


def test_a_port_that_is_taken_is_told(served):
    made, server, _ = served
    status, out, err = call("watch", made.folder.path, "--port", server.server_port)
    assert (status, out) == (2, [])
    assert f"cannot listen on port {server.server_port} of 127.0.0.1: Address already" in err[-1]
    assert "choose another --port, or none for a free one" in err[-1]


def test_ctrl_c_ends_watching_with_status_0(tmp_path):
    make_study(tmp_path / "s", {"seeds": 2})
    process = subprocess.Popen(
        [sys.executable, "-m", "dqx", "watch", str(tmp_path / "s")],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stdout.readline()
    assert re.fullmatch(rf"{tmp_path / 's'} is at http://127\.0\.0\.1:\d+/[\w-]{{24}}/\n", line)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "no longer watched\n", "")


@pytest.mark.long
def test_films_of_best_median_and_worst_seed_are_in_the_page(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "write", lambda *_: [])
    monkeypatch.setattr("dqx.report.page.films.SECONDS", 1e9)
    status, out, err = call("report", trained.folder, "--out", tmp_path / "out")
    assert status == 0 and f"page: {tmp_path / 'out' / 'index.html'}" in out
    kinds = [line.split()[3] for line in err if line.startswith("report: films: the ")]
    assert kinds == ["best", "median", "worst"]
    text = (tmp_path / "out" / "index.html").read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    (group,) = json.loads(data)["groups"]
    (case,) = group["cases"]
    for film in group["films"]:
        assert film["source"].startswith("data:image/gif;base64,R0lGOD")
        place = case["extremes"][film["kind"]]
        assert film["case"] == 0 and film["seed"] == case["seeds"][place]
        assert re.match(r"return [\d.]+ in [\d,]+ steps, ", film["words"])
