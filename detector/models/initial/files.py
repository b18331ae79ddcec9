"""Where the file of the initial weights is: on this machine, in the folder of a run, or behind a URL."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch

from detector.config.results_folder import checkpoint_file
from detector.exceptions import WeightsError
from detector.files import sha256
from detector.models.downloads import downloading

HASH = re.compile(r"sha256=([0-9a-f]{64})", re.IGNORECASE)
GOT = re.compile(r'got "([0-9a-f]{64})"')  # in the message of torch.hub
SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_url(weights: str) -> bool:
    """Whether ``weights`` is the address of a file."""
    return weights.lower().startswith(("http://", "https://"))


def is_file(weights: str) -> bool:
    """Whether ``weights`` names a file, or the folder of a run, that is there, or an address."""
    return weights not in ("", "none") and (is_url(weights) or Path(weights).expanduser().exists())


def no_file(weights: str, names: Sequence[str]) -> str:
    """Why ``weights`` is no file, in words, with the nearest of the ``names`` that it may have meant."""
    if SCHEME.match(weights):
        return f"model.weights={weights}: only http and https are loaded; fetch the file and give its path."
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(weights.lower(), by_lower, n=2, cutoff=0.75)
    hint = f" Did you mean {' or '.join(by_lower[name] for name in near)}?" if near else ""
    return f"model.weights={Path(weights).expanduser()}: there is no such file.{hint}"


def check_file(weights: str) -> None:
    """Refuse what :func:`local_file` will not find; nothing is read or downloaded.

    Raises:
        WeightsError: an address without a hash, or a folder without a checkpoint.
    """
    if is_url(weights):
        _hash_of(weights)
    elif not checkpoint_file(weights).is_file():
        folder = Path(weights).expanduser()
        places = (folder / "checkpoints" / "last.ckpt", folder / "best.ckpt", folder / "last.ckpt")
        there = [path for path in places if path.is_file()]
        instead = f"there is {there[0]}: give model.weights={there[0]}" if there else "nor a last.ckpt. Give a file"
        raise WeightsError(
            f"model.weights={weights}: this is a folder, and it has no checkpoints/best.ckpt, "
            f"{'but ' if there else ''}{instead}, or the folder of a run"
        )


def local_file(weights: str) -> Path:
    """The file that ``weights`` names; what is behind an address is downloaded once, to the folder of ``torch.hub``.

    Args:
        weights: a path, the folder of a run (its best checkpoint), or ``URL#sha256=`` with 64 digits.

    Raises:
        WeightsError: as :func:`check_file`; the download fails, or has another hash.
    """
    check_file(weights)
    return _download(weights) if is_url(weights) else checkpoint_file(weights)


def _hash_of(url: str) -> str:
    """The SHA-256 after the ``#``, in small letters."""
    found = HASH.fullmatch(urlsplit(url).fragment)
    if not found:
        address = url.partition("#")[0]
        raise WeightsError(
            f"model.weights={url}: an address needs the hash of its file, so that it is the same file wherever and "
            f"whenever it is loaded: model.weights={address}#sha256=HASH, with the 64 digits that `sha256sum FILE` "
            "prints. Who publishes the file may say them; else download it once and look"
        )
    return found[1].lower()


def _download(url: str) -> Path:
    digest, address = _hash_of(url), url.partition("#")[0]
    name = re.sub(r"[^\w.-]", "_", unquote(urlsplit(address).path).rpartition("/")[2]) or "weights"
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{digest[:16]}-{name}"
    with downloading(url, "the file", "it elsewhere and give it"):
        if path.is_file() and sha256(path) == digest:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:  # written under a temporary name, and renamed when its hash is the one
            torch.hub.download_url_to_file(address, str(path), digest, progress=False)
        except RuntimeError as error:
            got = GOT.search(str(error))
            if not got:  # of the connection
                raise
            raise WeightsError(
                f"model.weights={url}: what came has another hash. The file was changed, the download was cut off, or "
                f"the hash is not its own. If you trust what came: model.weights={address}#sha256={got[1]}"
            ) from None
    return path
