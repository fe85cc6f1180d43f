"""What this terminal is made of, for the register's inventory.

Whoever sets a terminal up may write ``equipment.json`` beside its credentials::

    {"sensor_vendor": "...", "sensor_model": "...", "sensor_version": "...",
     "template_formats": ["iso-19794-2-2005"]}

Every key may be left out. The software's version is this package's own.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

from devices.errors import CredentialsError
from devices.terminal.types import SampleFormat
from devices.types import Equipment

EQUIPMENT_FILE = "equipment.json"
_TEXTS = ("sensor_vendor", "sensor_model", "sensor_version")
_FORMATS = "template_formats"


def equipment_of(directory: Path) -> Equipment:
    """What the terminal of that directory is made of.

    Raises:
        CredentialsError: ``equipment.json`` is malformed.
    """
    path = directory / EQUIPMENT_FILE
    try:
        stated = json.loads(path.read_bytes())
    except FileNotFoundError:
        stated = {}
    except ValueError as error:
        raise CredentialsError(f"{path} is no JSON file in UTF-8") from error
    if not isinstance(stated, dict) or not set(stated) <= {*_TEXTS, _FORMATS}:
        raise CredentialsError(f"{path} may state {', '.join(_TEXTS)} and {_FORMATS}, nothing else")
    formats = stated.get(_FORMATS, [SampleFormat.ISO_19794_2_2005.label])
    texts = {name: stated.get(name, "") for name in _TEXTS}
    if not isinstance(formats, list) or not all(
        isinstance(one, str) for one in (*formats, *texts.values())
    ):
        raise CredentialsError(f"{path}: texts, and a list of texts as {_FORMATS}")
    return Equipment(
        software_version=_software(),
        template_formats=tuple(formats),
        **texts,
    )


def _software() -> str:
    try:
        return f"anju {metadata.version('anju')}"
    except metadata.PackageNotFoundError:  # run from its source
        return "anju"
