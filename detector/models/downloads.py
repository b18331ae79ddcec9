"""Downloads of weights: how long they may be silent, and what is said of those that fail."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import HTTPError

from detector.exceptions import WeightsError
from detector.words import first_line

SILENCE = 60.0  # seconds without a byte after which a connection counts as lost; by themselves they wait for ever


@contextmanager
def downloading(name: str, what: str, instead: str, keys: str = "") -> Iterator[None]:
    """Inside the block the weights are downloaded, by whichever library.

    Args:
        name: of the weights, as in ``model.weights=imagenet``.
        what: is asked for.
        instead: what may be fetched elsewhere and given as a file.
        keys: those that such a file needs besides, with a space before them.

    Raises:
        WeightsError: the download fails, or nothing comes for a minute.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        yield
    except WeightsError:
        raise
    except HTTPError as error:  # the network is there, and the server has answered
        raise WeightsError(
            f"model.weights={name}: the download of {what} failed: the server answered {error.code} {error.reason}. "
            f"Check the address, or fetch {instead} as model.weights=PATH{keys}."
        ) from None
    except Exception as error:  # of urllib, or of the client of a hub, which has many kinds
        raise WeightsError(
            f"model.weights={name}: the download of {what} failed ({first_line(error)}). Without a network, fetch "
            f"{instead} as model.weights=PATH{keys}, or train from scratch with model.weights=none model.norm=batch."
        ) from None
    finally:
        socket.setdefaulttimeout(before)
