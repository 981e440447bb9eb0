"""A certificate that somebody else has signed, held against the folder that it came with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dqx.arguments import FUNCTION, PATH, TEXT, maybe, require
from dqx.settings import ConfigError
from dqx.study import forms, signature, strict
from dqx.study.audit import audit
from dqx.study.certify import IDENTICAL, check_digest, not_expected
from dqx.study.entries import read_plain
from dqx.study.folder import Folder, StudyError, read_plan_record
from dqx.study.record import plan_of
from dqx.study.sealed import unsealed

_MOST = 2**20  # bytes of a signature


class Published(NamedTuple):
    """What a signed certificate is worth for the folder it lies in.

    Attributes:
        problems: why it does not hold, in words; none if it does.
        digest: of the study as its files are now; empty where it has none.
        certificate: its content.
    """

    problems: tuple[str, ...]
    digest: str
    certificate: dict[str, Any]


def check_signature(
    path: Any,
    key: str | Path,
    *,
    expect: str | None = None,
    reading: Callable[[int, int], None] | None = None,
) -> Published:
    """Whether a key has signed that this very study was verified; trains nothing.

    The signature has to be the key's, the certificate has to say that all that was trained again
    was identical, and the files have to be those that it is about.

    Args:
        path: the study's folder.
        key: the signer's public key.
        expect: the digest that the study has to have.
        reading: ``reading(done, total)`` is called after every chunk whose files were checked.

    Raises:
        StudyError: if there is no signed certificate, or the folder or the key cannot be used.
        ConfigError: for an argument of the wrong kind.
    """
    require(
        ConfigError,
        key=(key, PATH),
        expect=(expect, maybe(TEXT)),
        reading=(reading, maybe(FUNCTION)),
    )
    expected = None if expect is None else check_digest(expect)
    public = signature.public_key(Path(key))
    folder = Folder(path)
    record = read_plan_record(folder)
    try:
        # Once: what is judged is what was signed, whatever becomes of the file meanwhile.
        content = read_plain(folder.certificate, strict.most_bytes())
        made = read_plain(folder.signature, _MOST)
    except OSError as error:
        raise StudyError(
            f"{error.filename}: {error.strerror}; `dqx verify {folder.path} --sign KEY` writes a "
            "certificate and signs it"
        ) from None
    certificate = unsealed(folder.certificate, content, forms.CERTIFICATE)
    found = audit(folder, record, plan_of(folder, record), reading)
    problems = []
    if why := signature.unsigned_by(content, made, public):
        problems.append(f"{folder.signature.name}: {key} has not signed this certificate: {why}")
    if certificate.get("plan_seal") != record["sha256"]:
        problems.append(f"{folder.certificate.name}: it is of another study")
    if certificate.get("verdict") != IDENTICAL:
        problems.append(f"{folder.certificate.name}: its verdict is {certificate.get('verdict')}")
    if not found.digest or certificate.get("digest") != found.digest:
        problems.append(
            f"{folder.certificate.name}: it is of a study of digest {certificate.get('digest')}, "
            f"and that of the files is {found.digest or 'not known'}"
        )
    problems += [*found.problems, *not_expected(found.digest, expected)]
    return Published(tuple(problems), found.digest, certificate)
