"""What the register's tests share: a clock to set, people who never lived, and a small register.

Everything is the real part: SQLite files, the matcher in memory, the issuer with its keys.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from devices.terminal import Person
from devices.types import Principal, Role
from identity.adjudication import Adjudication
from identity.config import CaptureConfig, DecisionPolicy, LookupConfig, PermitConfig
from identity.enrolment import EnrolCommand, Enrolment
from identity.example_population import Fingers, example_person
from identity.issuing import IssuerPort
from identity.lookups import Lookups
from identity.permits import PermitDesk
from identity.ports import Comparer
from identity.reception import Answer, Reception
from identity.references import ReferenceFollower
from identity.register import Register
from identity.store import Database
from identity.types import (
    ApplicationState,
    CapturedSample,
    Case,
    Gender,
    Once,
    Particulars,
    PersonalDetails,
    Purpose,
    Residence,
    Verdict,
)
from identity.uploads import UploadDesk
from identity.vault import Vault
from issuance.authority import init_authority
from issuance.issuer import Issuer
from issuance.profile import Profile
from issuance.trust import TrustStore
from matcher.codec import decode
from matcher.matcher import Matcher
from matcher.types import Template

# 10:00 on a Tuesday in Shanghai.
START = datetime(2026, 11, 24, 2, 0, 0, tzinfo=UTC)
SEED = 20_261_124
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TERMINAL = Principal(Role.TERMINAL, "hall-1", "east-gate")
ELSEWHERE = Principal(Role.TERMINAL, "hall-2", "west-gate")
ANNA, BO, CHEN, DAI = (f"operator:{name}" for name in ("anna", "bo", "chen", "dai"))
COUNTER = Purpose("counter-service", "case 7")

_numbers = itertools.count()


class FakeClock:
    """A clock that a test sets."""

    def __init__(self, now: datetime = START) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def advance(self, by: timedelta) -> None:
        self.time += by


@lru_cache(maxsize=2_000)
def records(index: int, impression: int = 0) -> tuple[bytes, ...]:
    """Two fingers of person ``index``, as captured the ``impression``-th time."""
    return Fingers(SEED).records(index, impression)


def samples(index: int, impression: int = 0) -> tuple[CapturedSample, ...]:
    return tuple(CapturedSample(record, decode(record)[0]) for record in records(index, impression))


def templates(index: int, impression: int = 0) -> list[Template]:
    return [sample.template for sample in samples(index, impression)]


def person(index: int, now: datetime = START) -> Person:
    return example_person(index, now.date())


def particulars(index: int, now: datetime = START) -> Particulars:
    one = person(index, now)
    return Particulars(
        PersonalDetails(
            full_name=one.full_name,
            gender=Gender(one.gender),
            birth_date=one.birth_date,
            document_number=one.document_number,
            household_division_code=one.household_division_code,
            ethnicity=one.ethnicity,
        ),
        Residence(one.residence_division_code, one.residence_address, one.arrival_date),
    )


def command(
    fingers: int,
    name: int | None = None,
    impression: int = 0,
    permit: bool = False,
    now: datetime = START,
) -> EnrolCommand:
    """The fingers of one person under the particulars of the same or another."""
    return EnrolCommand(
        particulars=particulars(fingers if name is None else name, now),
        samples=samples(fingers, impression),
        permit_requested=permit,
        captured_at=None,
    )


def once(
    caller: str = str(TERMINAL),
    method: str = "EnrolmentService.Enrol",
    key: str = "",
    content: str = "",
) -> Once:
    """One intended change; a new one each time unless a key is given."""
    key = key or f"key-{next(_numbers):012}"
    return Once(caller, method, key, hashlib.sha256(content.encode()).digest())


def decision(operator: str, key: str = "") -> Once:
    return once(operator, "AdjudicationService.DecideCase", key)


@dataclass
class World:
    """A register with everything in it, and shorthands for what tests do all the time."""

    directory: Path
    clock: FakeClock
    vault: Vault
    database: Database
    comparer: Comparer
    follower: ReferenceFollower
    enrolment: Enrolment
    issuer: Issuer
    port: IssuerPort
    desk: PermitDesk
    adjudication: Adjudication
    register: Register
    lookups: Lookups
    reception: Reception
    uploads: UploadDesk

    @property
    def file(self) -> Path:
        return self.directory / "register.sqlite3"

    def enrol(
        self,
        fingers: int,
        name: int | None = None,
        impression: int = 0,
        permit: bool = False,
        key: str = "",
        caller: Principal = TERMINAL,
    ) -> Answer:
        return self.reception.enrol(
            command(fingers, name, impression, permit, self.clock.now()),
            once(str(caller), key=key, content=f"{fingers}/{name}/{impression}/{permit}"),
            caller,
            lambda: None,
        )

    def registrant(self, fingers: int, permit: bool = False) -> str:
        """Enrol somebody new; returns their id."""
        application = self.enrol(fingers, permit=permit).application
        assert application.state is ApplicationState.ENROLLED
        assert application.registrant_id is not None
        return application.registrant_id

    def open_case(self, fingers: int, name: int, impression: int = 1) -> Case:
        """A case about known fingers under another name."""
        application = self.enrol(fingers, name, impression, permit=True).application
        assert application.state is ApplicationState.IN_ADJUDICATION
        assert application.case_id is not None
        return self.case(application.case_id)

    def case(self, case_id: str) -> Case:
        with self.database.read() as tx:
            return tx.cases.get(case_id)

    def decide(
        self, case: Case, operator: str, verdict: Verdict, registrant_id: str = "", key: str = ""
    ) -> Case:
        return self.adjudication.decide(
            case.case_id, verdict, registrant_id, "looked at both", decision(operator, key)
        )

    def application_state(self, application_id: str) -> ApplicationState:
        return self.enrolment.application(application_id).state

    def registrants(self) -> int:
        with self.database.read() as tx:
            return int(
                tx.connection.exec_driver_sql("SELECT count(*) FROM registrants").scalar_one()
            )

    def dump(self) -> list[str]:
        """Every row of the database, as SQL: equal dumps mean that nothing changed."""
        with self.database.read() as tx:
            driver = tx.connection.connection.driver_connection
            assert driver is not None
            return list(driver.iterdump())

    def trust(self) -> TrustStore:
        return TrustStore.load(self.issuer.trust().bundle)


@dataclass(frozen=True)
class Templates:
    """Freshly made parts that each world copies, because making them takes a while."""

    database: Path
    authority: Path
    vault: Vault


def make_templates(directory: Path) -> Templates:
    vault = Vault(b"k" * 32, b"l" * 32, b"s" * 32)
    database = Database(f"sqlite:///{directory / 'register.sqlite3'}", vault)
    database.migrate()
    database.close()
    rules = Profile(issuer=PermitConfig().issuer_uri, authority=PermitConfig().authority_name)
    init_authority(directory / "issuance", rules, lambda: START)
    return Templates(directory / "register.sqlite3", directory / "issuance", vault)


def build_world(made: Templates, directory: Path, comparer: Comparer | None = None) -> World:
    """A new register in a directory. Close its database and issuer when done."""
    shutil.copy(made.database, directory / "register.sqlite3")
    shutil.copytree(made.authority, directory / "issuance")
    return connect_world(made.vault, directory, FakeClock(), comparer)


def connect_world(
    vault: Vault, directory: Path, clock: FakeClock, comparer: Comparer | None = None
) -> World:
    """The register that lies in a directory, with an index that is still empty."""
    comparer = Matcher.open(None) if comparer is None else comparer
    database = Database(f"sqlite:///{directory / 'register.sqlite3'}", vault)
    issuer = Issuer.open(directory / "issuance", clock.now)
    port = IssuerPort(issuer, PermitConfig())
    follower = ReferenceFollower(database, comparer)
    policy, lookup = DecisionPolicy(), LookupConfig()
    uploads = UploadDesk(database, CaptureConfig(), clock)
    desk = PermitDesk(database, port, clock)
    enrolment = Enrolment(database, comparer, follower, policy, clock)
    return World(
        directory=directory,
        clock=clock,
        vault=vault,
        database=database,
        comparer=comparer,
        follower=follower,
        enrolment=enrolment,
        issuer=issuer,
        port=port,
        desk=desk,
        adjudication=Adjudication(database, enrolment, clock),
        register=Register(database, desk, follower, lookup, clock),
        lookups=Lookups(
            database, comparer, policy, lookup, clock, lambda: Principal(Role.OPERATOR, "anna")
        ),
        reception=Reception(enrolment, desk, uploads, finger_images=True),
        uploads=uploads,
    )


def renamed(stated: Particulars, full_name: str) -> Particulars:
    return replace(stated, details=replace(stated.details, full_name=full_name))
