"""The sealed file itself: many chunks, exact sizes, and what must not open it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from matcher import snapshot
from matcher.errors import IndexStateError

KEY = bytes(32)


def sealed(path: Path, size: int, key: bytes = KEY) -> None:
    with snapshot.writing(path, key, {"versions": 1}) as out:
        out.array("a", np.arange(size, dtype=np.int16))
        out.array("empty", np.empty((0, 3), dtype=np.float32))
        out.array("b", np.arange(12, dtype=np.uint8).reshape(3, 4))


def opened(path: Path, key: bytes = KEY) -> dict[str, NDArray[Any]]:
    with snapshot.reading(path, key) as (header, reader):
        assert header["versions"] == 1
        arrays = {name: reader.array(name) for name in ("a", "empty", "b")}
        reader.end()
    return arrays


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 64, 1000])
def test_what_was_sealed_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 64)
    sealed(tmp_path / "s", size)
    arrays = opened(tmp_path / "s")
    np.testing.assert_array_equal(arrays["a"], np.arange(size))
    assert arrays["empty"].shape == (0, 3)
    np.testing.assert_array_equal(arrays["b"], np.arange(12).reshape(3, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def chunks_of(path: Path) -> tuple[bytes, list[bytes]]:
    content = path.read_bytes()
    start = 12 + int.from_bytes(content[8:12], "big")
    size = 64 + 16
    body = content[start:]
    return content[:start], [body[k : k + size] for k in range(0, len(body), size)]


@pytest.mark.parametrize("change", ["swapped", "dropped last", "dropped first", "foreign", "twice"])
def test_chunks_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 64)
    path = tmp_path / "s"
    sealed(path, 500)
    head, chunks = chunks_of(path)
    assert len(chunks) > 5
    if change == "swapped":
        chunks[1], chunks[2] = chunks[2], chunks[1]
    elif change == "dropped last":
        chunks.pop()
    elif change == "dropped first":
        chunks.pop(0)
    elif change == "twice":
        chunks.insert(1, chunks[1])
    else:
        sealed(tmp_path / "other", 500)
        chunks[2] = chunks_of(tmp_path / "other")[1][2]
    path.write_bytes(head + b"".join(chunks))
    with pytest.raises(IndexStateError):
        opened(path)


def test_arrays_are_asked_for_by_name_and_to_the_end(tmp_path: Path) -> None:
    sealed(tmp_path / "s", 10)
    with (
        snapshot.reading(tmp_path / "s", KEY) as (_, reader),
        pytest.raises(IndexStateError, match="where 'b' is expected"),
    ):
        reader.array("b")
    with snapshot.reading(tmp_path / "s", KEY) as (_, reader):
        reader.array("a")
        with pytest.raises(IndexStateError, match="longer"):
            reader.end()
        for name in ("empty", "b"):
            reader.array(name)
        reader.end()
        with pytest.raises(IndexStateError, match="shorter"):
            reader.array("c")


@pytest.mark.parametrize(
    "content",
    [b"", b"ANJUIDX2", b"ANJUIDX0\0\0\0\2{}", b"ANJUIDX2\xff\xff\xff\xff", b"ANJUIDX2\0\0\0\2{}"],
)
def test_a_file_that_is_no_snapshot_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(IndexStateError):
        opened(tmp_path / "s")


def test_a_failed_write_leaves_the_previous_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    sealed(path, 10)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        sealed(path, 20)
    assert path.read_bytes() == before
    assert [left.name for left in tmp_path.iterdir()] == ["s"]


def test_two_snapshots_of_the_same_content_share_no_bytes(tmp_path: Path) -> None:
    sealed(tmp_path / "one", 100)
    sealed(tmp_path / "two", 100)
    one, two = (tmp_path / "one").read_bytes(), (tmp_path / "two").read_bytes()
    assert one[-200:] != two[-200:]
