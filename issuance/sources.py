"""Where permits come from: pictures, PDFs, texts of scanners, folders of them, and rosters.

Everything is bounded before it is read, because files come from strangers, and everything gives
entries: a name for people, and the texts of the symbols found, or the problem with it. Only what
cannot be opened at all is an error.
"""

from __future__ import annotations

import csv
import io
import os
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from PIL import Image

from issuance import qr
from issuance.device import read
from issuance.envelope import MAX_TEXT_CHARS
from issuance.errors import SourceError, SymbolError

MAX_PDF_BYTES: Final = 512 << 20
MAX_PDF_PAGES: Final = 20_000
MAX_ROSTER_BYTES: Final = 256 << 20
MAX_ENTRIES: Final = 1_000_000
PDF_DPI: Final = 300
PICTURES: Final = frozenset({".png", ".jpg", ".jpeg"})
ROSTERS: Final = frozenset({".csv", ".tsv"})
READABLE: Final = PICTURES | {".pdf", ".txt"}
# Names of the column with the permit, most telling first; compared without case.
COLUMNS: Final = ("permit", "code", "qr", "file", "证件", "二维码", "文件")
_PICTURE_HEADS: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_PDF_HEAD: Final = b"%PDF-"
# What Chinese input methods make of the punctuation of base45, beyond what NFKC undoes.
_IME: Final = str.maketrans({"。": ".", "￥": "$", "¥": "$", "、": "/", "—": "-", "–": "-"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to verify.

    Attributes:
        source: file name, or a number of a scan, for people to find it again.
        place: page or row within the source; empty if it has none.
        texts: of the symbols found; empty if there is a problem.
        problem: why nothing could be read, None if something was.
        columns: the roster's own columns.
    """

    source: str
    place: str = ""
    texts: tuple[str, ...] = field(default=(), repr=False)
    problem: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Source:
    """Entries to come, and how many steps it takes to get them all (for a progress bar)."""

    steps: int
    entries: Callable[[], Iterator[tuple[int, Entry]]]
    many: bool


def open_source(path: Path, column: str | None = None) -> Source:
    """What is at `path`; entries come with the number of the step they belong to, from 1.

    Args:
        column: of a roster, the one with the symbol's text or a file name; found by its name if
            left out.

    Raises:
        SourceError: it is of no kind that is known, too large, or a roster without such a column.
        OSError: it cannot be read.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() in ROSTERS:
        return _roster(path, column)
    with path.open("rb") as file:
        head = file.read(len(_PDF_HEAD))
    if head == _PDF_HEAD:
        return _pdf(path)
    return Source(1, lambda: iter([(1, _file(path, path.name))]), many=False)


def from_bytes(data: bytes, name: str) -> Entry:
    """A picture, or the text of a symbol, as it comes through a pipe. Raises `SourceError`."""
    if data.startswith(_PICTURE_HEADS):
        try:
            return Entry(name, texts=tuple(_read_picture(data)))
        except SymbolError as error:
            raise SourceError(str(error)) from error
    if len(data) > 4 * MAX_TEXT_CHARS:
        raise SourceError("it is neither a PNG nor a JPEG picture, a PDF, nor a symbol's text")
    return Entry(name, texts=(data.decode("latin-1"),))


def from_scanner(line: str) -> str:
    """The symbol's text from what a scanner typed.

    A scanner is a keyboard: line ends surround the text, caps lock inverts it, and an input method
    left on makes full-width characters of it. None of this can change what was signed.
    """
    text = unicodedata.normalize("NFKC", line.strip("\r\n").translate(_IME))
    return text.upper()


def _file(path: Path, name: str) -> Entry:
    """One picture, PDF or text; whatever is wrong with it becomes its problem."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_PDF_HEAD))
        if head == _PDF_HEAD:
            texts = [text for _, entry in _pdf(path).entries() for text in entry.texts]
            return Entry(name, texts=tuple(texts), problem=None if texts else _NOTHING)
        return from_bytes(read(path, qr.MAX_PICTURE_BYTES), name)
    except (SourceError, ValueError) as error:
        return Entry(name, problem=str(error))
    except OSError as error:
        return Entry(name, problem=error.strerror or "cannot be read")


_NOTHING: Final = "there is no readable QR symbol in it"


def _folder(path: Path) -> Source:
    files = sorted(
        found for found in path.rglob("*") if found.suffix.lower() in READABLE and found.is_file()
    )
    if not files:
        raise SourceError(f"there are no pictures, PDFs or texts in {path}")
    if len(files) > MAX_ENTRIES:
        raise SourceError(f"{path} holds more than {MAX_ENTRIES:,} files")

    def entries() -> Iterator[tuple[int, Entry]]:
        # Reading symbols runs outside Python's lock, so threads use every core.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            names = (str(file.relative_to(path)) for file in files)
            yield from enumerate(pool.map(_file, files, names), start=1)

    return Source(len(files), entries, many=True)


def _pdf(path: Path) -> Source:
    try:
        import pypdfium2
    except ImportError as error:
        raise SourceError("PDFs need pypdfium2: install anju anew") from error
    data = read(path, MAX_PDF_BYTES)
    try:
        document = pypdfium2.PdfDocument(data)
        pages = len(document)
    except pypdfium2.PdfiumError as error:
        raise SourceError(f"{path.name} is damaged, encrypted, or no PDF") from error
    if pages > MAX_PDF_PAGES:
        raise SourceError(f"{path.name} has more than {MAX_PDF_PAGES:,} pages")

    def entries() -> Iterator[tuple[int, Entry]]:
        found = False
        for number in range(1, pages + 1):
            place = f"page {number}"
            try:
                texts = tuple(_read_page(document[number - 1]))
            except pypdfium2.PdfiumError:
                yield number, Entry(path.name, place, problem="the page cannot be drawn")
                continue
            # The backs of cards have no symbol, which is no problem unless no page has one.
            if texts:
                found = True
                yield number, Entry(path.name, place, texts)
        if not found:
            yield pages, Entry(path.name, problem=_NOTHING)

    return Source(pages, entries, many=pages > 2)


def _read_page(page: Any) -> list[str]:
    width, height = page.get_size()  # in points, and whatever the file says
    scale = PDF_DPI / 72
    scale *= min(1.0, (qr.MAX_PICTURE_PIXELS / max(width * height * scale**2, 1)) ** 0.5)
    if min(width, height) * scale < 1:
        return []
    return qr.read_worn_image(page.render(scale=scale, grayscale=True).to_pil())


def _roster(path: Path, column: str | None) -> Source:
    data = read(path, MAX_ROSTER_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # What spreadsheets in China write when they are not asked for anything else.
        text = data.decode("gb18030", errors="replace")
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
    try:
        names = [name.strip() for name in rows.fieldnames or ()]
    except csv.Error as error:
        raise SourceError(f"{path.name} is no CSV file") from error
    rows.fieldnames = names
    chosen = _column(names, column, path.name)
    steps = sum(1 for line in text.splitlines() if line.strip()) - 1
    if steps > MAX_ENTRIES:
        raise SourceError(f"{path.name} has more than {MAX_ENTRIES:,} rows")

    def entries() -> Iterator[tuple[int, Entry]]:
        try:
            for number, row in enumerate(rows, start=1):
                extra: Any = row.pop(None, None)
                entry = _row(path, row, str(row.get(chosen) or ""), number)
                if extra:
                    entry = Entry(path.name, entry.place, problem="too many columns", columns=row)
                yield number, entry
        except csv.Error as error:
            raise SourceError(f"{path.name} is damaged: {error}") from error

    return Source(max(steps, 0), entries, many=True)


def _column(names: list[str], wanted: str | None, file: str) -> str:
    folded = {name.casefold(): name for name in reversed(names)}
    for name in (wanted,) if wanted else COLUMNS:
        if name.casefold() in folded:
            return folded[name.casefold()]
    raise SourceError(
        f"{file} has no column {wanted or ' or '.join(COLUMNS)}; name one of its columns with "
        f"--column: {', '.join(names) or 'it has none'}"
    )


def _row(path: Path, row: Mapping[str, str], value: str, number: int) -> Entry:
    place = f"row {number + 1}"  # as a spreadsheet counts, with the headings as row 1
    if not value.strip():
        return Entry(path.name, place, problem="no permit is given", columns=row)
    if Path(value.strip()).suffix.lower() not in READABLE:
        return Entry(path.name, place, (from_scanner(value),), columns=row)
    # A roster is somebody else's: it may name files beside it, and no others.
    named = path.parent / value.strip()
    if not named.resolve().is_relative_to(path.parent.resolve()):
        return Entry(path.name, place, problem="the file is outside the folder", columns=row)
    entry = _file(named, path.name)
    return Entry(path.name, place, entry.texts, entry.problem, row)


def _read_picture(data: bytes) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return qr.read_picture(data)
