"""Signatures of certificates, made and checked by OpenSSH's ``ssh-keygen -Y``.

A seal can be made anew by anybody, a signature only by who holds the key. The signature lies beside
the certificate, in OpenSSH's own form: whoever has OpenSSH can check it without dqx.
"""

import subprocess
import tempfile
from pathlib import Path

from dqx.files import whole_file
from dqx.study.entries import StudyError, read_plain

# What the signature is for, which it holds: one of another purpose is none.
NAMESPACE = "dqx-certificate"
_SIGNER = "signer"
_KINDS = ("ssh-", "ecdsa-", "sk-")


def check_key(key: Path) -> None:
    """Refuses what cannot sign, before anything is trained.

    Raises:
        StudyError: if there is no such key, or no ``ssh-keygen``.
    """
    _open(key)
    done = _run("-l", "-f", str(key.absolute()))
    if done.returncode:
        raise StudyError(
            f"{key} is no key of OpenSSH ({_words(done)}): `ssh-keygen -t ed25519 -f {key}` makes "
            "one where there is none yet"
        )


def sign(content: bytes, key: Path, target: Path) -> None:
    """Writes a signature over ``content``; asks for the key's passphrase if it has one.

    Args:
        content: what is signed.
        key: a private key, or the public one of a key that an agent holds.
        target: the file of the signature.

    Raises:
        StudyError: if it cannot be signed.
        OSError: if it cannot be written.
    """
    done = _run("-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(key.absolute()), given=content)
    if done.returncode or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        raise StudyError(f"{key} does not sign: {_words(done)}")
    with whole_file(target) as file:
        file.write(done.stdout)


def public_key(key: Path) -> str:
    """The public key in a file: one line of kind, key and comment.

    Raises:
        StudyError: if there is none.
    """
    text = _open(key).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()[:1] not in ("", "#")]
    if len(lines) != 1 or not lines[0].startswith(_KINDS) or len(lines[0].split()) < 2:
        raise StudyError(f"{key} is no public key of OpenSSH: give one line of kind and key")
    return lines[0]


def unsigned_by(content: bytes, signature: bytes, public: str) -> str:
    """Why a signature over ``content`` is not one by a key, in words; empty if it is.

    Args:
        content: what was signed.
        signature: what `sign` wrote.
        public: a public key, see `public_key`.

    Raises:
        StudyError: if there is no ``ssh-keygen``.
    """
    with tempfile.TemporaryDirectory() as folder:
        signers, made = Path(folder) / "signers", Path(folder) / "signature"
        signers.write_text(f"{_SIGNER} {public}\n", encoding="utf-8")
        made.write_bytes(signature)
        names = ("-n", NAMESPACE, "-I", _SIGNER, "-f", str(signers), "-s", str(made))
        done = _run("-Y", "verify", *names, given=content)
    return "" if done.returncode == 0 else _words(done)


def _open(key: Path) -> bytes:
    try:
        return read_plain(key.resolve())  # a key may be a link: it is the user's own
    except OSError as error:
        raise StudyError(f"cannot read the key {key}: {error.strerror}") from None


def _run(*arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(["ssh-keygen", *arguments], input=given, capture_output=True)
    except OSError as error:
        raise StudyError(
            f"signatures need OpenSSH's ssh-keygen, which cannot be run: {error.strerror}"
        ) from None


def _words(done: "subprocess.CompletedProcess[bytes]") -> str:
    """What ssh-keygen says of a failure, in one line."""
    lines = (done.stderr + done.stdout).decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip() and not line.startswith("@")]
    return "; ".join(said[:2]) or f"ssh-keygen ended with status {done.returncode}"
