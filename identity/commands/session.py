"""What the operator's commands share: credentials, one call, a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from devices.terminal import Connection

Credentials = Annotated[
    Path,
    typer.Option(
        "--as",
        envvar="ANJU_CREDENTIALS",
        help="Directory with the credentials to use, e.g. DIR/operators/operator-1.",
    ),
]


# Into a file or another program a row stays one line.
PIPED_WIDTH = 240


@contextmanager
def connected(credentials: Path) -> Iterator[Connection]:
    """A connection to the server that the credentials belong to."""
    from devices.terminal import connect

    with connect(credentials) as connection:
        yield connection


def new_key() -> str:
    """An idempotency key: each run of a command is one intended change."""
    from devices.terminal.wire import new_idempotency_key

    return new_idempotency_key()


class Page(Protocol):
    """An answer that may have another one after it."""

    @property
    def next_page_token(self) -> str: ...


PageT = TypeVar("PageT", bound=Page)


def pages(ask: Callable[[str], PageT]) -> Iterator[PageT]:
    """Every page of a listing; ``ask`` is given the page token, empty for the first."""
    token = ""
    while True:
        answer = ask(token)
        yield answer
        token = answer.next_page_token
        if not token:
            return


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headings, or say that there are none."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        typer.echo("none")
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table)


def instant(message: Timestamp) -> str:
    """An instant for people: Asia/Shanghai, to the minute; a dash where there is none."""
    from datetime import UTC

    from identity.particulars import SHANGHAI

    if not message.seconds:
        return "-"
    return message.ToDatetime(tzinfo=UTC).astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M")
