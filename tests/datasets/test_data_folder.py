"""Other people's files: where they are looked for, and what is said of those that are not there or other ones."""

import hashlib
import shutil

import pytest

from rstg_pyg.datasets import DownloadError, download
from rstg_pyg.datasets.data_folder import read_data_files
from rstg_pyg.files import FileError

CHECKSUMS = {"a.csv": hashlib.sha256(b"1,2").hexdigest()}


def test_where_files_come_from(tmp_path, monkeypatch):
    server, everything = tmp_path / "server", tmp_path / "all" / "made"
    for folder in (server, everything):
        folder.mkdir(parents=True)
        (folder / "a.csv").write_bytes(b"1,2")
    address, root = "https://example.org/", tmp_path / "root"

    def save(url, target):
        shutil.copy(server / url.removeprefix("https://example.org/"), target)

    monkeypatch.setattr(download, "_save", save)
    monkeypatch.delenv("RSTG_PYG_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in (everything, "~/all/made"):
        assert read_data_files("made", CHECKSUMS, address, root, folder) == {"a.csv": b"1,2"}
    assert not root.exists()
    assert read_data_files("made", CHECKSUMS, ["https://example.com/no/", address], root, log=False) == {
        "a.csv": b"1,2"
    }
    (server / "a.csv").unlink()
    assert read_data_files("made", CHECKSUMS, address, root) == {"a.csv": b"1,2"}
    with pytest.raises(DownloadError, match=r"a\.csv could not be downloaded"):
        read_data_files("made", CHECKSUMS, address, tmp_path / "other", log=False)
    monkeypatch.setenv("RSTG_PYG_DATA", str(tmp_path / "all"))
    assert read_data_files("made", CHECKSUMS, address, tmp_path / "other") == {"a.csv": b"1,2"}
    with pytest.raises(FileNotFoundError, match=r"theirs to hold a\.csv, got no a\.csv"):
        read_data_files("theirs", CHECKSUMS, address, root)
    (everything / "a.csv").write_bytes(b"1,3")
    with pytest.raises(FileError, match=r"a\.csv to have the SHA-256 .* of 3 bytes: it is damaged or another file"):
        read_data_files("made", CHECKSUMS, address, root)
