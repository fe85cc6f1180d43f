"""What every :class:`devices.ports.TerminalStore` must keep to; run against each implementation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from devices.ports import TerminalStore
from devices.types import Equipment, Terminal, TerminalState, TokenRecord

AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
TOKEN = TokenRecord(b"h" * 32, "t-1", "hall", AT + timedelta(hours=24))
EXPECTED = Terminal("t-1", "hall", TerminalState.EXPECTED, version=1, token_hash=b"h" * 32)
ACTIVE = replace(
    EXPECTED,
    state=TerminalState.ACTIVE,
    version=2,
    serials=("abc", "def"),
    certificate_not_after=AT + timedelta(days=90),
)


class StoreContract:
    """Subclass it in a test module, with a fixture ``store``."""

    def test_what_is_stored_comes_back(self, store: TerminalStore) -> None:
        assert store.terminal("t-1") is None
        assert store.put_terminal(EXPECTED)
        assert store.terminal("t-1") == EXPECTED
        assert store.put_terminal(ACTIVE)
        assert store.terminal("t-1") == ACTIVE
        assert store.token(TOKEN.token_hash) is None
        store.put_token(TOKEN)
        assert store.token(TOKEN.token_hash) == TOKEN

    def test_a_stale_writer_changes_nothing(self, store: TerminalStore) -> None:
        assert not store.put_terminal(ACTIVE)  # version 2 of what does not exist
        assert store.terminal("t-1") is None
        assert store.put_terminal(EXPECTED)
        assert not store.put_terminal(EXPECTED)
        assert not store.put_terminal(replace(ACTIVE, version=3))
        assert store.terminal("t-1") == EXPECTED

    def test_terminals_are_paged_by_id(self, store: TerminalStore) -> None:
        for id in ("t-2", "t-10", "t-1"):
            store.put_terminal(replace(EXPECTED, terminal_id=id))
        assert [one.terminal_id for one in store.terminals("", 2)] == ["t-1", "t-10"]
        assert [one.terminal_id for one in store.terminals("t-10", 2)] == ["t-2"]

    def test_contact_lives_beside_the_version(self, store: TerminalStore) -> None:
        store.put_terminal(EXPECTED)
        store.touch("t-1", AT)
        assert store.terminal("t-1") == replace(EXPECTED, last_contact=AT)
        assert store.put_terminal(ACTIVE)
        assert store.terminal("t-1") == replace(ACTIVE, last_contact=AT)

    def test_equipment_lives_beside_the_version(self, store: TerminalStore) -> None:
        store.put_terminal(EXPECTED)
        made_of = Equipment("anju 1", "vendor", "model", "2.1", ("iso-19794-2-2005", "x"))
        store.report("t-1", made_of)
        assert store.terminal("t-1") == replace(EXPECTED, equipment=made_of)
        assert store.put_terminal(ACTIVE)
        assert store.terminal("t-1") == replace(ACTIVE, equipment=made_of)

    def test_a_token_is_redeemed_with_its_terminal_or_not_at_all(
        self, store: TerminalStore
    ) -> None:
        store.put_token(TOKEN)
        store.put_terminal(EXPECTED)
        redeemed = replace(TOKEN, key_hash=b"k" * 32, certificate=b"certificate")
        assert not store.redeem(redeemed, replace(ACTIVE, version=3))
        assert store.token(TOKEN.token_hash) == TOKEN
        assert store.redeem(redeemed, ACTIVE)
        assert store.token(TOKEN.token_hash) == redeemed
        assert store.terminal("t-1") == ACTIVE
        again = replace(TOKEN, key_hash=b"x" * 32, certificate=b"another")
        assert not store.redeem(again, replace(ACTIVE, version=3, serials=("123",)))
        assert store.token(TOKEN.token_hash) == redeemed
        assert store.terminal("t-1") == ACTIVE

    def test_of_simultaneous_redeemers_one_wins(self, store: TerminalStore) -> None:
        store.put_token(TOKEN)
        store.put_terminal(EXPECTED)
        won: list[bytes] = []
        start = threading.Barrier(8)

        def redeem(key: bytes) -> Callable[[], None]:
            def run() -> None:
                start.wait()
                record = replace(TOKEN, key_hash=key, certificate=key)
                if store.redeem(record, replace(ACTIVE, serials=(key.hex(),))):
                    won.append(key)

            return run

        threads = [threading.Thread(target=redeem(bytes([n]) * 32)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        stored, terminal = store.token(TOKEN.token_hash), store.terminal("t-1")
        assert stored is not None
        assert terminal is not None
        assert stored.key_hash == won[0]
        assert terminal.serials == (won[0].hex(),)

    def test_serials_are_revoked_once_and_for_all(self, store: TerminalStore) -> None:
        assert not store.serial_revoked("abc")
        store.revoke_serial("abc", "left the office", AT)
        store.revoke_serial("abc", "again", AT)
        assert store.serial_revoked("abc")
        assert not store.serial_revoked("ab")
