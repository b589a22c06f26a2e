"""Downloads: whole files or none, and an error that says what to do."""

import gzip
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cases import case
from mnist_damage import DAMAGES, IMAGES, damage, everything_under, make

from rstg_pyg.datasets import DownloadError, IDXError, download, mnist

SAVE = download._save


@pytest.fixture
def served(monkeypatch, mnist_files):
    """Stands in for the network: serves the files, or what a test puts in their place."""
    files = {f"{name}.gz": gzip.compress(content) for name, content in mnist_files.items()}
    calls = []

    def save(url, target):
        calls.append(url)
        content = files[target.name]
        assert url.endswith(f"/{target.name}")
        if isinstance(content, Exception):
            raise content
        with open(target, "xb") as file:
            file.write(content)

    monkeypatch.setattr(download, "_save", save)
    files["calls"] = calls
    return files


def test_download(tmp_path, served):
    make(tmp_path / "root")
    assert everything_under(tmp_path / "root") == sorted(
        ["raw", *(f"raw/{name}" for name in served if name != "calls")]
    )
    assert len(served["calls"]) == 4
    make(tmp_path / "root", train=False)
    assert len(served["calls"]) == 4


def test_damaged_download_directory_names_the_file(tmp_path, served):
    make(tmp_path / "root")
    path = tmp_path / "root" / "raw" / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        IDXError,
        match=f"{IMAGES}.gz to be an IDX file, got: Compressed.*Delete the file and construct the dataset again",
    ):
        make(tmp_path / "root")
    path.unlink()
    assert make(tmp_path / "root").source == "mnist"


def test_second_mirror_takes_over(tmp_path, served, monkeypatch, mnist_files):
    save = download._save

    def first_is_broken(url, target):
        save(url, target)
        if url.startswith(mnist.MIRRORS[0]):
            target.write_bytes(damage(mnist_files[IMAGES], "gzip cut"))

    monkeypatch.setattr(download, "_save", first_is_broken)
    assert make(tmp_path / "root").source == "mnist"
    assert len(everything_under(tmp_path / "root")) == 5


def test_wrong_download_is_an_error_and_leaves_nothing(tmp_path, served, mnist_files):
    for how, digits in [("gzip cut", "auto"), ("page", "mnist"), ("other content", "auto")]:
        served[f"{IMAGES}.gz"] = damage(mnist_files[IMAGES], how)
        message = rf"{IMAGES}.gz could not be downloaded \(https://.*{DAMAGES[how]}.*put the four"
        with case(how, digits), pytest.raises(IDXError, match=message):
            make(tmp_path / "root", digits=digits)
        assert not (tmp_path / "root").exists()


def test_a_full_disk_is_not_taken_for_a_missing_network(tmp_path, served):
    served[f"{IMAGES}.gz"] = OSError(28, "No space left on device")
    with pytest.raises(OSError, match=rf"^\[Errno 28\] No space left on device: '{tmp_path}/root/raw/.*/{IMAGES}.gz'$"):
        make(tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_broken_connection_keeps_only_whole_files(tmp_path, served):
    served["t10k-images-idx3-ubyte.gz"] = ConnectionResetError("reset by peer")
    # What training needs has arrived.
    assert make(tmp_path / "root").source == "mnist"
    assert everything_under(tmp_path / "root") == ["raw", f"raw/{IMAGES}.gz", "raw/train-labels-idx1-ubyte.gz"]
    with pytest.raises(DownloadError, match="reset by peer"):
        make(tmp_path / "root", digits="mnist", train=False)


def test_mnist_without_network_is_an_error(tmp_path):
    with pytest.raises(DownloadError, match=r"network is unreachable.*Connect to the network, or put.*mnist_dir"):
        make(tmp_path / "root", digits="mnist")
    assert everything_under(tmp_path) == []


def test_unreachable_server_does_not_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SECONDS_TO_ANSWER", 0.1)
    monkeypatch.setattr(download, "_save", lambda url, target: time.sleep(3))
    start = time.perf_counter()
    with pytest.raises(DownloadError, match=r"no answer within 0\.1 seconds"):
        make(tmp_path / "root", digits="mnist")
    assert time.perf_counter() - start < 2
    assert everything_under(tmp_path) == []


def test_a_server_that_falls_silent_is_given_up_and_other_threads_keep_their_timeouts(tmp_path, monkeypatch):
    """Sockets of the rest of the process have no timeout, also while a download runs."""
    meanwhile = []

    class HalfAnAnswer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(bytes(50))
            self.wfile.flush()
            meanwhile.append(socket.getdefaulttimeout())
            silence.wait(5)

        def log_message(self, *args):
            pass

    silence = threading.Event()
    monkeypatch.setattr(download, "_save", SAVE)
    monkeypatch.setattr(download, "SECONDS_BETWEEN_PACKETS", 0.2)
    with ThreadingHTTPServer(("127.0.0.1", 0), HalfAnAnswer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/file"
            with pytest.raises(DownloadError, match=rf"^file could not be downloaded \({address}: timed out\)$"):
                download.download_files(tmp_path / "raw", {"file": [address]}, print, "the file", log=False)
        finally:
            silence.set()
            server.shutdown()
    assert meanwhile == [None]
    assert everything_under(tmp_path) == []


def test_what_a_server_sends_is_saved(tmp_path, monkeypatch, capfd):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/there/file" else 404)
            self.end_headers()
            self.wfile.write(b"content")

        def log_message(self, *args):
            pass

    monkeypatch.setattr(download, "_save", SAVE)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            here = f"http://127.0.0.1:{server.server_port}"
            urls = [f"{here}/gone/file", f"{here}/there/file"]
            download.download_files(tmp_path, {"file": urls}, lambda path, name: path.read_bytes(), "the file")
        finally:
            server.shutdown()
    assert (tmp_path / "file").read_bytes() == b"content"
    assert capfd.readouterr() == ("", f"Downloading {urls[0]}\nDownloading {urls[1]}\n")
