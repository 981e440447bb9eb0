"""The digest of a whole study and signed certificates: what a reader of a published study has."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from dqx.settings import ConfigError
from dqx.study import StudyError, certify, load, published, signature, verify
from dqx.study.entries import read_plain
from dqx.study.folder import Folder
from dqx.study.sealed import read_sealed, write_sealed
from tests.study.kit import call, make_study
from tests.study.reseal import (
    change_arrays,
    change_plan,
    change_table,
    derive,
    place,
    rows_of,
    swapped,
)

QUIET = ("--quiet", "--devices", "cpu:1")
needs_openssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")


@pytest.fixture
def folder(finished):
    """A copy of a finished study of 12 seeds in three chunks, with snapshots."""
    return Folder(finished)


def last_run(folder):
    return load(folder.path).configs[0], 11


def missed_by(folder, run):
    """A pick whose sample of one run is not this one."""
    study = load(folder.path)
    drawn = (certify._chosen(study, 1, pick)[0] for pick in range(99))
    return next(i for i, one in enumerate(drawn) if (one["config"], one["seed"]) != run)


def test_what_only_training_again_can_tell_is_told_by_a_published_digest_too(folder):
    """Episodes forged with such care that the folder agrees with itself."""
    published, run = load(folder.path).digest(), last_run(folder)
    chunk, _ = place(folder, *run)
    change_table(folder, "episodes", chunk, lambda table: swapped(table, rows_of(table, *run)))
    derive(folder)
    found = verify(folder.path, sample=None, devices="cpu:1")
    (check,) = [check for check in found.checks if check.verdict != "identical"]
    assert (check.config, check.seed) == run and found.problems == ()
    assert re.fullmatch(r"the return of its episode \d+ is \d+, and \d+ now", check.detail)
    # A sample that misses the run says nothing of it.
    arguments = ("verify", folder.path, "--sample", 1, "--pick", missed_by(folder, run), *QUIET)
    assert call(*arguments)[0] == 0
    status, out, _ = call(*arguments, "--expect", published.upper())
    forged = load(folder.path).digest()
    assert (
        status == 1
        and forged != published
        and out[:2]
        == [
            f"differs: the study's digest is {forged}; expected was {published}",
            "verdict: different (1 of 1 runs trained again have the same bits; the study has 12)",
        ]
    )
    assert read_sealed(folder.certificate)["expected"] == published
    assert call(*arguments, "--expect", forged)[0] == 0


def test_what_is_no_digest_is_refused_in_a_line(folder):
    status, out, err = call("verify", folder.path, *QUIET, "--expect", "a" * 63)
    assert (status, out) == (2, []) and len(err) == 1
    assert "a study's digest has 64 hexadecimal digits, got 'aaa" in err[0]
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        verify(folder.path, expect="")


def test_a_digest_hangs_on_results_and_not_on_time_place_or_form(folder, tmp_path, made):
    before = load(folder.path).digest()
    assert re.fullmatch(r"[0-9a-f]{64}", before)
    assert before != load(made / "other").digest()
    change_plan(folder, lambda plan: plan.update(created="long ago", command="dqx"))
    change_table(folder, "metrics", 0, lambda table: table)  # written by another version, say
    folder = Folder(folder.path.rename(tmp_path / "elsewhere"))
    assert load(folder.path).digest() == before == load(folder.path).manifest["digest"]
    status, out, _ = call("study", "status", folder.path)
    assert status == 0 and f"digest: {before}" in out


@pytest.mark.parametrize("what", ["episodes", "snapshot", "params", "record", "plan"])
def test_a_digest_changes_with_every_kind_of_result(tmp_path, what):
    """Also where a record was left as it was: it is the files that count."""
    folder = make_study(tmp_path / "s", {"seeds": 6, "snapshot_every": 200}).folder
    study = load(folder.path)
    before, digests = study.digest(), study.digests
    if what == "episodes":
        change_table(folder, what, 1, lambda table: table.slice(1))
    elif what in ("snapshot", "params"):
        step = 200 if what == "snapshot" else None
        change = lambda a: a["params/Dense_0/bias"].__setitem__((0, 0), np.float32(7))  # noqa: E731
        change_arrays(folder, 1, change, step)
    elif what == "record":
        record = read_sealed(folder.record(1))
        record["runs"][0]["diverged_at"] = 300
        write_sealed(folder.record(1), record)
    else:
        plan = {k: v for k, v in read_sealed(folder.plan).items() if k != "sha256"}
        plan["points"][0]["hyper"]["learning_rate"] /= 2
        write_sealed(folder.plan, plan)
        for path in folder.records():
            mark = read_sealed(folder.plan)["sha256"]
            write_sealed(path, {**read_sealed(path), "plan_seal": mark})
    assert load(folder.path).digests == digests and load(folder.path).digest() != before


def test_only_a_whole_study_has_a_digest(tmp_path):
    folder = make_study(tmp_path / "s", {"seeds": 6}, leave_out={1}).folder
    with pytest.raises(StudyError, match="is not finished, and only a whole study has a digest"):
        load(folder.path).digest()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two keys of OpenSSH without a passphrase."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        make = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", folder / name)
        subprocess.run(make, check=True)
    return folder


def checked(folder, key, *more):
    return call("verify", folder.path, "--check-signature", key, "--quiet", *more)


@needs_openssh
def test_a_signed_certificate_holds_for_these_files_and_this_key(folder, keys):
    mine, public = keys / "mine", keys / "mine.pub"
    status, out, _ = call("verify", folder.path, "--sample", 1, "--sign", mine, *QUIET)
    assert status == 0 and out[-1] == f"signature: {folder.signature}, by {mine}"
    content = folder.certificate.read_bytes()
    status, out, err = checked(folder, public, "--expect", load(folder.path).digest())
    assert (status, err) == (0, []) and folder.certificate.read_bytes() == content
    assert out[0] == f"digest: {load(folder.path).digest()}"
    assert re.fullmatch(
        rf"signature: holds; {public} has signed on \S+ that 1 of 12 runs trained again have the "
        r"same bits", out[1],
    )  # fmt: skip
    # OpenSSH alone says the same.
    signers = keys / "signers"
    signers.write_text(f"me {public.read_text()}")
    names = ("-n", "dqx-certificate", "-I", "me", "-f", signers, "-s", folder.signature)
    done = subprocess.run(["ssh-keygen", "-Y", "verify", *names], input=content)
    assert done.returncode == 0

    status, out, _ = checked(folder, keys / "other.pub")
    assert status == 1 and out[0].startswith(
        f"differs: certificate.json.sig: {keys / 'other.pub'} has not signed this certificate: "
    )
    status, out, _ = checked(folder, public, "--expect", "0" * 64)
    assert status == 1 and out[0].endswith(f"expected was {'0' * 64}")

    certificate = read_sealed(folder.certificate)
    write_sealed(folder.certificate, {**certificate, "checked": 12})
    status, out, _ = checked(folder, public)
    assert status == 1 and "has not signed this certificate" in out[0]
    assert out[-1] == "signature: does not hold for this study"
    folder.certificate.write_bytes(content)

    change_arrays(folder, 0, lambda a: a["params/Dense_0/bias"].__setitem__((0, 0), np.float32(7)))
    derive(folder)
    status, out, _ = checked(folder, public)
    assert status == 1 and out[0] == (
        f"differs: certificate.json: it is of a study of digest {certificate['digest']}, and that "
        f"of the files is {load(folder.path).digest()}"
    )


@needs_openssh
def test_a_new_certificate_has_no_older_signature_and_a_bad_one_says_so(folder, keys):
    options = ("--sample", 1, *QUIET)
    change_arrays(folder, 0, lambda a: a["params/Dense_0/bias"].__setitem__((0, 0), np.float32(7)))
    derive(folder)
    found = verify(folder.path, sample=None, sign=keys / "mine", devices="cpu:1")
    assert found.verdict == "different" and folder.signature.exists()
    status, out, _ = checked(folder, keys / "mine.pub")
    assert status == 1 and out[0] == "differs: certificate.json: its verdict is different"
    call("verify", folder.path, *options)
    assert not folder.signature.exists()
    status, out, err = checked(folder, keys / "mine.pub")
    assert (status, out) == (2, []) and err == [
        f"dqx: error: {folder.signature}: No such file or directory; `dqx verify {folder.path} "
        "--sign KEY` writes a certificate and signs it"
    ]


@needs_openssh
def test_what_is_judged_is_what_was_read_and_what_is_signed_what_was_made(
    folder, keys, monkeypatch
):
    """Somebody who exchanges the certificate in between gets neither our word nor our signature."""
    content = {
        "plan_seal": load(folder.path).plan["sha256"], "verdict": "identical", "checked": 1,
        "digest": load(folder.path).digest(), "runs": 12, "differences": [], "statistics": "",
        "checks": [], "written": "today",
    }  # fmt: skip
    forged = {**content, "checked": 12}

    def exchanged(path, made):
        written = write_sealed(path, made)
        write_sealed(path, forged)
        return written

    def read(path, most):
        found = read_plain(path, most)
        write_sealed(folder.certificate, forged)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(certify, "write_sealed", exchanged)
        certify._write(folder, content, keys / "mine")
    assert checked(folder, keys / "mine.pub")[0] == 1
    write_sealed(folder.certificate, content)
    monkeypatch.setattr(published, "read_plain", read)
    found = published.check_signature(folder.path, keys / "mine.pub")
    assert found.problems == () and found.certificate["checked"] == 1
    assert read_sealed(folder.certificate)["checked"] == 12


@needs_openssh
@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--sign", "nowhere"), "cannot read the key nowhere: No such file or directory"),
        (("--sign", "no-key"), "no-key is no key of OpenSSH .*: `ssh-keygen -t ed25519 -f no-key`"),
        (("--check-signature", "no-key"), "no-key is no public key of OpenSSH: give one line"),
        (("--check-signature", "no-key", "--sign", "no-key"), "takes no --sign: it writes no"),
        (("--check-signature", "no-key", "--pick", "3"), "takes no --pick: it writes no"),
    ],
)
def test_a_key_that_is_none_is_refused_before_anything_is_trained(
    folder, option, words, monkeypatch
):
    monkeypatch.chdir(folder.path.parent)
    (folder.path.parent / "no-key").write_text("nothing\n")
    for name in (folder.certificate, folder.signature):
        write_sealed(name, {})
    status, out, err = call("verify", folder.path, "--quiet", *option)
    assert (status, out) == (2, []) and len(err) == 1 and re.search(words, err[0])


def test_without_openssh_signing_is_refused_in_a_line(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "key").write_text("a key")
    with pytest.raises(StudyError, match="signatures need OpenSSH's ssh-keygen, which cannot be"):
        signature.check_key(tmp_path / "key")
