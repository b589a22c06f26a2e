"""Files that hold the old content or the new one, never a part."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from rstg_pyg.files import naming


def replace_file(path: str | os.PathLike, content: bytes | memoryview) -> None:
    """Write a file beside ``path``, wait until it is on the disk, and give it the name.

    Args:
        path: The file; its folder is made where there is none.
        content: All of it.

    Raises:
        OSError: If the folder cannot be made or the file not be written. What was there before is still there.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from rstg_pyg.training.replace_file import replace_file
        >>> path = Path(tempfile.mkdtemp(), "note.txt")
        >>> replace_file(path, b"all of it")
        >>> path.read_text()
        'all of it'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        with naming(path), open(part, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def part_of(path: Path) -> Path:
    """Return a new name beside ``path`` for what is to get its name: two processes do not write to the same."""
    return path.with_name(f"{path.name}.{uuid4().hex}.part")
