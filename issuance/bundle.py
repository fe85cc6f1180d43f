"""A trust bundle as one file: the TUF repository in a zip archive, the same bytes every time.

Members are stored, not compressed: metadata barely shrinks, status lists are compressed already,
and what is not compressed cannot explode. Reading takes no member larger than the file itself.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Final

from issuance.errors import TrustError

# 64 lists of a million permits at 16 KiB each, and room for as many again.
MAX_BUNDLE_BYTES: Final = 16 << 20
MAX_MEMBERS: Final = 1_024
# The archive format's own epoch: time must not make two equal bundles differ.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def pack(files: Mapping[str, bytes]) -> bytes:
    """A bundle of `files`, path to content; deterministic."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            member = zipfile.ZipInfo(name, _EPOCH)
            member.create_system = 3
            member.external_attr = 0o644 << 16
            archive.writestr(member, files[name])
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """Inverse of `pack`. Raises `TrustError` with reason NOT_A_BUNDLE for anything else."""
    if len(data) > MAX_BUNDLE_BYTES:
        raise _refused(f"it is larger than {MAX_BUNDLE_BYTES} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS or len({m.filename for m in members}) != len(members):
                raise _refused("too many members, or two of one name")
            # Stored, and together no larger than the file: overlapping members cannot multiply.
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if not stored or sum(member.file_size for member in members) > len(data):
                raise _refused("its members are compressed or overlap")
            return {member.filename: archive.read(member) for member in members}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise _refused("it is damaged or something else") from error
    except EOFError as error:
        raise _refused("it ends early") from error


def _refused(why: str) -> TrustError:
    return TrustError("NOT_A_BUNDLE", f"the file is not a trust bundle: {why}")
