"""Files of weights on this machine and behind addresses."""

import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import torch

from detector.config.defaults import default
from detector.config.schema import ModelConfig
from detector.exceptions import WeightsError
from detector.models.initial.files import check_file, is_file, local_file
from detector.models.weights import check_weights

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves the file, cut off, not at all, or by way of another address."""

    asked: ClassVar[list] = []

    def do_GET(self):
        self.asked.append(self.path)
        if self.path == "/moved.pth":
            self.send_response(302)
            self.send_header("Location", "/file.pth")
            self.end_headers()
            return
        self.send_response(404 if self.path == "/gone.pth" else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100] if self.path == "/cut.pth" else CONTENT)

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """torch.hub's folder is one of the test, and no proxy is asked."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(monkeypatch):
    """The address of a server of this machine."""
    monkeypatch.setattr(Handler, "asked", [])
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()


def cached(tmp_path):
    return sorted(path for path in (tmp_path / "hub").rglob("*") if path.is_file())


def test_a_file_is_downloaded_once(server, tmp_path):
    url = f"{server}/file.pth#sha256={DIGEST.upper()}"
    assert is_file(url)
    path = local_file(url)
    assert (path.read_bytes(), cached(tmp_path)) == (CONTENT, [path])
    assert path.parent == tmp_path / "hub" / "checkpoints"
    assert local_file(url) == path
    assert Handler.asked == ["/file.pth"]  # without the hash
    path.write_bytes(b"damaged")
    assert local_file(url).read_bytes() == CONTENT
    assert local_file(f"{server}/moved.pth?key=1#sha256={DIGEST}").read_bytes() == CONTENT


def test_two_files_of_one_name(server, tmp_path):
    old = tmp_path / "hub" / "checkpoints" / "file.pth"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"something else")
    assert local_file(f"{server}/file.pth#sha256={DIGEST}").read_bytes() == CONTENT
    assert old.read_bytes() == b"something else"


@pytest.mark.parametrize("end", ["", "#", "#sha256=", f"#sha256={DIGEST[:63]}", f"#md5={DIGEST}", f"#{DIGEST}"])
def test_an_address_without_a_hash_is_refused_before_it_is_asked(server, end):
    for refuse in (check_file, local_file):
        with pytest.raises(WeightsError, match=r"sha256sum FILE") as refused:
            refuse(f"{server}/file.pth{end}")
        assert f"model.weights={server}/file.pth#sha256=" in str(refused.value)
    assert Handler.asked == []


@pytest.mark.parametrize(
    ("name", "digest", "message"),
    [
        ("file.pth", "0" * 64, rf"another hash.*model\.weights=http://.*/file\.pth#sha256={DIGEST}"),
        ("cut.pth", DIGEST, "cut off"),
        ("gone.pth", DIGEST, r"404"),
    ],
)
def test_a_download_that_is_not_the_file_leaves_nothing(server, tmp_path, name, digest, message):
    with pytest.raises(WeightsError, match=message) as refused:
        local_file(f"{server}/{name}#sha256={digest}")
    assert "network" not in str(refused.value)  # there is one
    assert cached(tmp_path) == []


def test_a_server_that_says_nothing_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr("detector.models.downloads.SILENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/file.pth"
        with pytest.raises(WeightsError, match=r"failed.*timed out.*model\.weights=PATH"):
            local_file(f"{address}#sha256={DIGEST}")
    assert socket.getdefaulttimeout() is None
    assert cached(tmp_path) == []


def test_no_server():
    with pytest.raises(WeightsError, match=r"download of the file failed.*model\.weights=PATH"):
        local_file(f"http://127.0.0.1:9/file.pth#sha256={DIGEST}")


def test_the_folder_of_a_run_means_its_best_checkpoint(tmp_path):
    with pytest.raises(WeightsError, match=r"best\.ckpt"):
        check_file(str(tmp_path))
    assert "last.ckpt: give" not in refusal(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert f"model.weights={tmp_path / 'checkpoints' / 'last.ckpt'}" in refusal(tmp_path)
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    assert f"model.weights={tmp_path / 'checkpoints' / 'best.ckpt'}" in refusal(tmp_path / "checkpoints")
    check_file(str(tmp_path))
    assert local_file(str(tmp_path)) == tmp_path / "checkpoints" / "best.ckpt"


def test_names_are_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").touch()
    assert not any(map(is_file, ("", "none", "IMAGENET1K_V2", "ftp://host/file.pth")))


def refusal(folder):
    with pytest.raises(WeightsError, match=r"no checkpoints/best\.ckpt") as refused:
        check_file(str(folder))
    return str(refused.value)


def test_an_address_of_another_kind():
    for address in ("s3://bucket/a.pth", "ftp://host/a.pth", "file:///a.pth"):
        with pytest.raises(WeightsError, match=f"{address}: only http and https"):
            check_weights(default(ModelConfig, weights=address))


@pytest.mark.parametrize(
    ("given", "meant"),
    [("imagnet", "imagenet"), ("ImageNet", "imagenet"), ("None", "none"), ("coco_v1", "COCO_V1"),
     ("imagenet1k_v2", "IMAGENET1K_V2")],
)  # fmt: skip
def test_a_slip_in_a_name(given, meant):
    with pytest.raises(WeightsError, match=rf"{given}: .*Did you mean {meant}\b"):
        check_weights(default(ModelConfig, weights=given))


def test_a_name_that_is_like_none():
    with pytest.raises(WeightsError, match=r"mine\.pth: there is no such file") as refused:
        check_weights(default(ModelConfig, weights="mine.pth"))
    assert "Did you mean" not in str(refused.value)
