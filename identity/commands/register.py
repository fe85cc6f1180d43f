"""``anju register``: one person's record, and who has seen it (operators)."""

from __future__ import annotations

from typing import Annotated

import typer

from identity.commands.session import Credentials, connected, instant, pages, show_table

app = typer.Typer(no_args_is_help=True, help="The register: one record, and who has seen it.")

Registrant = Annotated[str, typer.Argument(metavar="REGISTRANT", help="Registrant id.")]


@app.command()
def show(
    registrant: Registrant,
    purpose: Annotated[str, typer.Option(help="Why; one of the configured purposes.")],
    reference: Annotated[str, typer.Option(help="Your own case number.")],
    credentials: Credentials,
) -> None:
    """Print one record as JSON. The lookup is logged and the person can see it."""
    from google.protobuf.json_format import MessageToJson

    from anju.v1 import common_pb2, register_pb2, register_pb2_grpc

    with connected(credentials) as connection:
        answer = connection.call(
            register_pb2_grpc.RegisterServiceStub(connection.channel).GetRegistrant,
            register_pb2.GetRegistrantRequest(
                registrant_id=registrant,
                purpose=common_pb2.Purpose(code=purpose, case_reference=reference),
            ),
        )
    typer.echo(
        MessageToJson(answer.registrant, preserving_proto_field_name=True, ensure_ascii=False)
    )


@app.command()
def disclosures(registrant: Registrant, credentials: Credentials) -> None:
    """Who has looked at this person's record, newest first: theirs to know."""
    from anju.v1 import register_pb2, register_pb2_grpc

    with connected(credentials) as connection:
        stub = register_pb2_grpc.RegisterServiceStub(connection.channel)
        rows = [
            (
                instant(one.at),
                one.who,
                one.purpose.code,
                one.purpose.case_reference,
                one.action,
            )
            for answer in pages(
                lambda token: connection.call(
                    stub.ListDisclosures,
                    register_pb2.ListDisclosuresRequest(registrant_id=registrant, page_token=token),
                )
            )
            for one in answer.disclosures
        ]
    show_table(("at", "who", "purpose", "case", "action"), rows)
