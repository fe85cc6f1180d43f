"""`anju verify` on rosters, folders, PDFs and a scanner."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pypdfium2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from issuance import qr, sources
from issuance.authority import NewAuthority
from issuance.card import CardFormat, draw_card
from issuance.cli import app
from issuance.errors import SourceError
from issuance.issuer import Issuer
from issuance.types import IssuedPermit
from tests.issuance.kit import HOLDER, RULES, START, Clock, holder

NOW = ["--now", (START + timedelta(hours=1)).isoformat()]


class Office:
    """An employer's office: permits in every state, and the command."""

    def __init__(self, issuer: Issuer, authority: NewAuthority, directory: Path) -> None:
        self.directory = directory
        self.valid = [issuer.issue(holder(full_name=f"示例{n}")) for n in "甲乙丙"]
        self.revoked = issuer.issue(HOLDER)
        issuer.revoke(self.revoked.status)
        issuer.publish_trust()
        self.trust = ["--trust", str(authority.bundle), "--root", str(authority.root)]
        self.trust += ["--state", str(directory / "state.json"), *NOW]

    def run(self, *args: str | Path, stdin: str | None = None) -> tuple[int, str, str]:
        command = ["verify", *map(str, args), *self.trust]
        result = CliRunner().invoke(app, command, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        return result.exit_code, result.stdout, result.stderr

    def picture(self, permit: IssuedPermit, name: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        qr.picture(qr.symbol(permit.qr_text), 4).convert("RGB").save(path)
        return path

    def roster(self, rows: Sequence[Sequence[str]], name: str = "roster.csv") -> Path:
        path = self.directory / name
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        return path


@pytest.fixture
def office(issuer: Issuer, authority: NewAuthority, tmp_path: Path) -> Office:
    return Office(issuer, authority, tmp_path)


def test_roster_of_valid_permits_exits_0(office: Office) -> None:
    rows = [["name", "permit"], *([p.permit.holder.full_name, p.qr_text] for p in office.valid)]
    code, out, err = office.run(office.roster(rows))
    assert (code, err) == (0, "")
    assert "3 valid" in out
    assert "0 refused" in out


def test_roster_report_keeps_the_columns_and_says_what_is_wrong(office: Office) -> None:
    one, two, _ = office.valid
    office.picture(two, "two.png")
    rows = [
        ["worker", "permit", "note"],
        ["a", one.qr_text, "=1+1"],
        ["b", "two.png", ""],
        ["c", office.revoked.qr_text, ""],
        ["d", "missing.png", ""],
        ["e", "", ""],
        ["f", one.qr_text, "the same"],
        ["g", "HELLO", ""],
    ]
    report = office.directory / "report.csv"
    code, out, _ = office.run(office.roster(rows), "--report", report)
    assert code == 1
    assert "3 valid" in out
    assert "2 refused" in out
    assert "2 not judged" in out
    data = report.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    written = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert [row["worker"] for row in written] == list("abcdefg")
    assert [row["place"] for row in written] == [f"row {n}" for n in range(2, 9)]
    assert [row["result"] for row in written] == [
        *("valid", "valid", "refused", "not-judged", "not-judged", "valid", "refused")
    ]
    assert [row["reason"] for row in written][2:5] == ["REVOKED", "NOT_READ", "NOT_READ"]
    assert written[5]["note"] == "SEEN_BEFORE: roster.csv, row 2"
    assert written[0]["note (roster)"] == "'=1+1", "no formula for a spreadsheet"
    assert written[0]["full_name"] == "示例甲"
    assert written[2]["full_name"] == "", "a refused permit shows nothing"
    assert "和平路" not in data.decode("utf-8-sig")


def test_json_report_and_output_are_the_same(office: Office) -> None:
    rows = [["permit"], [office.valid[0].qr_text], [office.revoked.qr_text], ["none.pdf"]]
    report = office.directory / "report.json"
    code, out, _ = office.run(office.roster(rows), "--report", report, "--json")
    assert code == 1
    document = json.loads(report.read_bytes())
    assert json.loads(out) == document
    assert [one["outcome"] for one in document] == ["valid", "refused", "not-judged"]
    assert document[1]["stage"] == "status"


def test_exit_code_is_2_only_if_nothing_was_refused(office: Office) -> None:
    unreadable = office.roster([["permit"], [office.valid[0].qr_text], ["none.png"]])
    assert office.run(unreadable)[0] == 2
    assert office.run(office.roster([["permit"]]))[0] == 2


@pytest.mark.parametrize(
    ("header", "delimiter", "encoding"),
    [
        ("permit", ",", "utf-8-sig"),
        ("Permit", ";", "utf-8"),
        ("证件", "\t", "gb18030"),
        ("二维码", ",", "gb18030"),
    ],
)
def test_rosters_of_any_spreadsheet_are_read(
    office: Office, header: str, delimiter: str, encoding: str
) -> None:
    path = office.directory / "roster.csv"
    text = f"姓名{delimiter}{header}\r\n示例甲{delimiter}{office.valid[0].qr_text}\r\n"
    path.write_bytes(text.encode(encoding))
    assert office.run(path)[0] == 0


def test_column_can_be_named(office: Office) -> None:
    path = office.roster([["name", "symbol"], ["x", office.valid[0].qr_text]])
    code, _, err = office.run(path)
    assert code == 2
    assert "symbol" in err
    assert office.run(path, "--column", "symbol")[0] == 0
    assert office.run(path, "--column", "nothing")[0] == 2


def test_roster_reads_no_files_outside_its_folder(office: Office) -> None:
    inside = office.directory / "inside"
    inside.mkdir()
    outside = office.picture(office.valid[0], "outside.png")
    (inside / "link.png").symlink_to(outside)
    for value in ("../outside.png", str(outside), "link.png"):
        path = office.roster([["permit"], [value]], "inside/roster.csv")
        code, out, _ = office.run(path)
        assert code == 2
        assert "outside the folder" in out


def test_folder_is_read_in_order_with_whatever_is_in_it(office: Office) -> None:
    one, two, three = office.valid
    office.picture(one, "folder/1.png")
    office.picture(two, "folder/2.jpg")
    (office.directory / "folder" / "3.txt").write_text(three.qr_text)
    (office.directory / "folder" / "4.pdf").write_bytes(
        draw_card(office.revoked.qr_text, RULES, format=CardFormat.PDF)
    )
    (office.directory / "folder" / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (office.directory / "folder" / "6.docx").write_bytes(b"ignored")
    code, out, _ = office.run(office.directory / "folder", "--json")
    assert code == 1
    document = json.loads(out)
    assert [one["source"] for one in document] == ["1.png", "2.jpg", "3.txt", "4.pdf", "5.png"]
    assert [one["outcome"] for one in document] == [
        *("valid", "valid", "valid", "refused", "not-judged")
    ]


def test_pdf_card_is_verified_like_a_picture(office: Office) -> None:
    path = office.directory / "card.pdf"
    path.write_bytes(draw_card(office.valid[0].qr_text, RULES, format=CardFormat.PDF))
    code, out, _ = office.run(path)
    assert code == 0
    assert "示例甲" in out


def many_pages(cards: Sequence[bytes]) -> bytes:
    document = pypdfium2.PdfDocument.new()
    for card in cards:
        document.import_pages(pypdfium2.PdfDocument(card))
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def test_pdf_of_many_cards_is_a_collection(office: Office) -> None:
    permits = [*office.valid, office.revoked]
    cards = [draw_card(p.qr_text, RULES, format=CardFormat.PDF) for p in permits]
    path = office.directory / "batch.pdf"
    path.write_bytes(many_pages(cards))
    code, out, _ = office.run(path, "--json")
    assert code == 1
    document = json.loads(out)
    assert [one["place"] for one in document] == ["page 1", "page 3", "page 5", "page 7"]
    assert [one["outcome"] for one in document] == ["valid", "valid", "valid", "refused"]


def test_pdfs_that_cannot_be_read_are_one_line(office: Office) -> None:
    blank = pypdfium2.PdfDocument.new()
    blank.new_page(200, 200)
    buffer = io.BytesIO()
    blank.save(buffer)
    huge = pypdfium2.PdfDocument.new()
    huge.new_page(14_400, 14_400)
    buffer_huge = io.BytesIO()
    huge.save(buffer_huge)
    for name, data in {
        "cut.pdf": b"%PDF-1.7\n",
        "blank.pdf": buffer.getvalue(),
        "huge.pdf": buffer_huge.getvalue(),
    }.items():
        (office.directory / name).write_bytes(data)
        code, out, err = office.run(office.directory / name)
        assert (code, out) == (2, ""), name
        assert len(err.strip().splitlines()) == 1, err


def test_scanner_gets_a_verdict_for_every_line(office: Office) -> None:
    one, two, _ = office.valid
    lines = [
        one.qr_text,
        "",
        two.qr_text,
        office.revoked.qr_text,
        "HTTP://EXAMPLE.ORG",
        "A" * 30_000,
    ]
    code, out, _ = office.run("--scan", stdin="\r\n".join(lines) + "\r\n")
    assert code == 1
    assert out.count("VALID 有效") == 2
    assert "REVOKED" in out
    assert "NOT_A_PERMIT" in out
    assert "TOO_LARGE" in out
    code, out, _ = office.run("--scan", "--json", stdin=one.qr_text)
    assert code == 0
    assert json.loads(out)["valid"]
    assert office.run("--scan", stdin="")[0] == 2


def test_scanner_takes_up_a_newer_bundle(
    office: Office, issuer: Issuer, authority: NewAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    permit = office.valid[0]
    judged: list[str] = []
    real = sources.from_scanner

    def revoke_after_the_first(line: str) -> str:
        if judged:
            issuer.revoke(permit.status)
            issuer.publish_trust()
        judged.append(line)
        return real(line)

    monkeypatch.setattr("issuance.cli.from_scanner", revoke_after_the_first)
    code, out, _ = office.run("--scan", stdin=f"{permit.qr_text}\n" * 3)
    assert code == 1
    assert out.count("VALID 有效") == 2
    assert out.count("REVOKED") == 1


@settings(max_examples=50)
@given(st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:", min_size=1, max_size=60))
def test_what_keyboards_do_to_a_symbols_text_is_undone(text: str) -> None:
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    assert sources.from_scanner(wide + "\r\n") == text
    assert sources.from_scanner(text.lower()) == text
    assert sources.from_scanner(text.replace(".", "。").replace("$", "￥")) == text


def test_wrong_usage_is_refused_before_anything_is_read(office: Office) -> None:
    assert office.run()[0] == 2
    assert office.run("--scan", office.directory)[0] == 2
    path = office.roster([["permit"], [office.valid[0].qr_text]])
    code, out, err = office.run(path, "--report", office.directory / "report.docx")
    assert (code, out) == (2, "")
    assert "csv" in err


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 100, b'permit\n"unclosed', b"permit\r\x00\n", b"\xff\xfe\x00permit"]
)
def test_any_bytes_called_a_roster_are_rows_or_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "roster.csv"
    path.write_bytes(data)
    try:
        entries = list(sources.open_source(path).entries())
    except SourceError:
        return
    assert all(entry.source == "roster.csv" for _, entry in entries)


def test_picture_with_two_permits_gives_both_in_a_collection(office: Office) -> None:
    left, right = (qr.picture(qr.symbol(p.qr_text), 4) for p in office.valid[:2])
    sheet = Image.new("L", (left.width + right.width, left.height), 255)
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width, 0))
    (office.directory / "folder").mkdir()
    sheet.save(office.directory / "folder" / "both.png")
    code, out, _ = office.run(office.directory / "folder", "--json")
    assert code == 0
    assert len(json.loads(out)) == 2


def test_permits_that_stand_are_printed_in_one_pdf(
    issuer: Issuer, authority: NewAuthority, clock: Clock, tmp_path: Path
) -> None:
    # `print` has no `--now`: what it prints must stand today.
    clock.now = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    issuer.ensure_keys()
    office = Office(issuer, authority, tmp_path)
    office.trust[-1] = datetime.now(UTC).isoformat()
    texts = [p.qr_text for p in (*office.valid, office.revoked)]
    roster = office.roster([["permit"], *([text] for text in texts)])
    output = office.directory / "cards.pdf"
    bundle = office.trust[:2]
    done = CliRunner().invoke(app, ["print", str(roster), str(output), *bundle])
    assert done.exit_code == 1
    assert "3 printed, 1 left out" in done.stdout
    assert "row 5: REVOKED" in done.stderr
    pages = [entry.texts for _, entry in sources.open_source(output).entries()]
    assert pages == [(text,) for text in texts[:3]]
    one = office.directory / "one.txt"
    one.write_text(texts[0])
    for name in ("one.png", "one.svg", "one.pdf"):
        done = CliRunner().invoke(
            app,
            ["print", str(one), str(office.directory / name), *bundle, "--paper", "certificate"],
        )
        assert done.exit_code == 0, done.output
    assert office.run(office.directory / "one.png")[0] == 0
    for arguments in ([str(roster), "out.png"], [str(one), "out.gif"]):
        done = CliRunner().invoke(app, ["print", *arguments, *bundle])
        assert isinstance(done.exception, SourceError)
    # A picture with a permit, one that does not stand, and something else.
    symbols = [qr.picture(qr.symbol(text), 3) for text in (texts[0], texts[3], "HELLO")]
    sheet = Image.new("RGB", (sum(symbol.width for symbol in symbols), symbols[0].height), "white")
    left = 0
    for symbol in symbols:
        sheet.paste(symbol, (left, 0))
        left += symbol.width
    sheet.save(office.directory / "sheet.png")
    again = [str(office.directory / "sheet.png"), str(office.directory / "again.svg")]
    done = CliRunner().invoke(app, ["print", *again, *bundle])
    assert done.exit_code == 1
    assert "1 printed, 1 left out" in done.stdout
    assert done.stderr == "sheet.png: REVOKED\n"
