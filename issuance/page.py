"""The verifier as one web page: where it lies, and how a department gets it.

The page is built from `web/src` with Node and lies ready in `web/dist`; nothing here needs Node. It
gives the same verdicts in the same words as `verifier.verify`: `texts` hands the words over, and
the tests hold both to the same vectors.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from issuance import bundle as bundles
from issuance.errors import TrustError
from issuance.messages import sentences
from issuance.profile import DEPARTMENTS, GENERAL, SHOWABLE_FIELDS
from issuance.types import Reason

PAGE_NAME, WORKER_NAME, BUNDLE_NAME = "verify.html", "sw.js", "trust.anju"
# An empty data block of the built page; a browser never runs it.
_SLOT: Final = b'<script type="application/base64" id="carried-trust"></script>'

PURPOSES: Final[Mapping[str, tuple[str, str]]] = {
    GENERAL: ("通用核验", "General check"),
    "education": ("教育", "Education"),
    "health": ("卫生健康", "Health"),
    "social-security": ("社会保险", "Social security"),
    "housing": ("住房", "Housing"),
    "tax": ("税务", "Tax"),
    "civil-affairs": ("民政", "Civil affairs"),
}


def page(trust_bundle: bytes | None = None) -> bytes:
    """The page; with a trust bundle inside it, one file that a stick carries to any counter.

    Raises `TrustError` with reason NOT_A_BUNDLE.
    """
    built = _built(PAGE_NAME)
    if trust_bundle is None:
        return built
    bundles.unpack(trust_bundle)
    filled = _SLOT.replace(b"></", b">" + base64.b64encode(trust_bundle) + b"</")
    if built.count(_SLOT) != 1:
        raise TrustError("BAD_PAGE", "the installed page has no place for a trust bundle")
    return built.replace(_SLOT, filled)


def write_page(target: Path, trust_bundle: bytes | None = None) -> list[Path]:
    """Write the page for departments, and return what was written.

    A `target` that ends in .html becomes one file with the bundle inside, to be opened from a
    stick. Any other is a directory for a web server: page, service worker, and the bundle beside
    them, which is the only one of the three to be replaced from then on.

    Raises:
        OSError: it cannot be written.
        TrustError: NOT_A_BUNDLE.
    """
    if target.suffix == ".html":
        contents = {target: page(trust_bundle)}
    else:
        target.mkdir(parents=True, exist_ok=True)
        contents = {target / name: _built(name) for name in (PAGE_NAME, WORKER_NAME)}
        if trust_bundle is not None:
            bundles.unpack(trust_bundle)
            contents[target / BUNDLE_NAME] = trust_bundle
    for path, data in contents.items():
        # Beside and then renamed: a stick pulled too early holds the old page, not half of one.
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        beside.write_bytes(data)
        os.replace(beside, path)
    return list(contents)


def texts() -> dict[str, Any]:
    """What the page takes from this package instead of writing it down again; JSON values."""
    from issuance.cli import LABELS

    braces = {name: f"{{{name}}}" for name in ("until", "begin", "published")}
    return {
        "sentences": {reason.value: sentences(reason, **braces) for reason in Reason},
        "labels": {name: LABELS[name].split(" ", 1) for name in SHOWABLE_FIELDS},
        "showable": SHOWABLE_FIELDS,
        "departments": DEPARTMENTS,
        "purposes": PURPOSES,
    }


def _built(name: str) -> bytes:
    return files("issuance").joinpath("web", "dist", name).read_bytes()
