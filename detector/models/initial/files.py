"""Where the file of the initial weights is: on this machine, in the folder of a run, or behind a URL."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch

from detector.config.results_folder import checkpoint_file
from detector.exceptions import WeightsError
from detector.files import sha256
from detector.models.downloads import downloading
from detector.words import first_line

HASH = re.compile(r"sha256=([0-9a-f]{64})", re.IGNORECASE)


def is_url(weights: str) -> bool:
    """Whether ``weights`` is the address of a file."""
    return weights.lower().startswith(("http://", "https://"))


def is_file(weights: str) -> bool:
    """Whether ``weights`` names a file, or the folder of a run, that is there, or an address."""
    return weights not in ("", "none") and (is_url(weights) or Path(weights).expanduser().exists())


def check_file(weights: str) -> None:
    """Refuse what :func:`local_file` will not find; nothing is read or downloaded.

    Raises:
        WeightsError: an address without a hash, or a folder without a checkpoint.
    """
    if is_url(weights):
        _hash_of(weights)
    elif not checkpoint_file(weights).is_file():
        raise WeightsError(
            f"model.weights={weights}: this is a folder, and it has no checkpoints/best.ckpt. Give the folder of a "
            "run, or a file"
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
            raise WeightsError(
                f"model.weights={url}: what came has another hash: {first_line(error)}. The file was changed, the "
                "download was cut off, or the hash is not its own"
            ) from None
    return path
