"""``anju case``: what people decide (operators)."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from identity.commands.session import Credentials, connected, instant, new_key, pages, show_table

if TYPE_CHECKING:
    from anju.v1 import adjudication_pb2, common_pb2

app = typer.Typer(no_args_is_help=True, help="Cases: list, show, decide, appeal.")

CaseId = Annotated[str, typer.Argument(metavar="CASE", help="Case id.")]


class VerdictName(StrEnum):
    DIFFERENT = "different-person"
    SAME = "same-person"
    REJECT = "reject"


@app.command("list")
def list_cases(
    credentials: Credentials,
    include_decided: Annotated[bool, typer.Option("--all", help="Decided cases too.")] = False,
) -> None:
    """Cases that wait for a decision, oldest first."""
    from anju.v1 import adjudication_pb2, adjudication_pb2_grpc

    with connected(credentials) as connection:
        stub = adjudication_pb2_grpc.AdjudicationServiceStub(connection.channel)
        rows = [
            (
                one.case_id,
                _state(one),
                _reason(one),
                one.station_id,
                instant(one.opened_at),
                f"{one.candidates[0].similarity:.1f}" if one.candidates else "-",
            )
            for answer in pages(
                lambda token: connection.call(
                    stub.ListCases,
                    adjudication_pb2.ListCasesRequest(
                        include_decided=include_decided, page_token=token
                    ),
                )
            )
            for one in answer.cases
        ]
    show_table(("case", "state", "reason", "station", "opened", "similarity"), rows)


@app.command()
def show(case: CaseId, credentials: Credentials) -> None:
    """One case with both records side by side; logged for everyone in it."""
    from anju.v1 import adjudication_pb2, adjudication_pb2_grpc

    with connected(credentials) as connection:
        answer = connection.call(
            adjudication_pb2_grpc.AdjudicationServiceStub(connection.channel).GetCase,
            adjudication_pb2.GetCaseRequest(case_id=case),
        )
    _print(answer.case)


@app.command()
def decide(
    case: CaseId,
    verdict: Annotated[VerdictName, typer.Argument(help="What you have found.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the case.")],
    credentials: Credentials,
    registrant: Annotated[
        str, typer.Option(help="For same-person: which candidate, if there are several.")
    ] = "",
) -> None:
    """Decide a case. Turning somebody away takes two operators who agree."""
    from anju.v1 import adjudication_pb2, adjudication_pb2_grpc

    verdicts = {
        VerdictName.DIFFERENT: adjudication_pb2.VERDICT_DIFFERENT_PERSON,
        VerdictName.SAME: adjudication_pb2.VERDICT_SAME_PERSON,
        VerdictName.REJECT: adjudication_pb2.VERDICT_REJECT,
    }
    with connected(credentials) as connection:
        answer = connection.call(
            adjudication_pb2_grpc.AdjudicationServiceStub(connection.channel).DecideCase,
            adjudication_pb2.DecideCaseRequest(
                idempotency_key=new_key(),
                case_id=case,
                verdict=verdicts[verdict],
                registrant_id=registrant,
                reason=reason,
            ),
        )
    typer.echo(f"case {case}: {_state(answer.case)}")


@app.command()
def appeal(
    case: CaseId,
    statement: Annotated[str, typer.Option(help="The person's own words.")],
    credentials: Credentials,
) -> None:
    """Re-open a rejection at the applicant's wish, for somebody who has not decided it before."""
    from anju.v1 import adjudication_pb2, adjudication_pb2_grpc

    with connected(credentials) as connection:
        answer = connection.call(
            adjudication_pb2_grpc.AdjudicationServiceStub(connection.channel).AppealCase,
            adjudication_pb2.AppealCaseRequest(
                idempotency_key=new_key(), case_id=case, statement=statement
            ),
        )
    typer.echo(f"case {case}: {_state(answer.case)}")


def _print(case: adjudication_pb2.Case) -> None:
    from anju.v1 import adjudication_pb2

    typer.echo(f"case         {case.case_id} ({_state(case)})")
    typer.echo(f"reason       {_reason(case)}")
    typer.echo(f"station      {case.station_id}, opened {instant(case.opened_at)}")
    typer.echo(f"application  {case.application_id}")
    columns = ("", "applicant", *(one.registrant_id for one in case.candidates))
    people = [case.applicant, *(one.details for one in case.candidates)]
    rows = [
        ("name", *(one.full_name for one in people)),
        ("gender", *(_gender(one) for one in people)),
        ("born", *(_date(one.birth_date) for one in people)),
        ("document", *(one.document_number for one in people)),
        ("household", *(one.household_division_code for one in people)),
        ("similarity", "", *(f"{one.similarity:.1f}" for one in case.candidates)),
        (
            "by finger",
            "",
            *(
                ", ".join("-" if math.isnan(s) else f"{s:.1f}" for s in one.finger_similarities)
                for one in case.candidates
            ),
        ),
    ]
    show_table(columns, rows)
    for decision in case.decisions:
        verdict = adjudication_pb2.Verdict.Name(decision.verdict).removeprefix("VERDICT_")
        typer.echo(f"{instant(decision.at)}  {decision.operator_id}  {verdict}: {decision.reason}")
    for appeal in case.appeals:
        typer.echo(f"{instant(appeal.at)}  {appeal.taken_by}  APPEAL: {appeal.statement}")


def _state(case: adjudication_pb2.Case) -> str:
    from anju.v1 import adjudication_pb2

    return adjudication_pb2.CaseState.Name(case.state).removeprefix("CASE_STATE_")


def _reason(case: adjudication_pb2.Case) -> str:
    from anju.v1 import adjudication_pb2

    return adjudication_pb2.CaseReason.Name(case.reason).removeprefix("CASE_REASON_")


def _gender(details: common_pb2.PersonalDetails) -> str:
    from anju.v1 import common_pb2

    return common_pb2.Gender.Name(details.gender).removeprefix("GENDER_").lower()


def _date(message: common_pb2.Date) -> str:
    return f"{message.year:04}-{message.month:02}-{message.day:02}"
