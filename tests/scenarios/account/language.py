"""Scenarios of the ledger as text: what is set up, what is asked, what must come back.

One statement a line; `#` begins a comment.

    account NAME KIND CURRENCY [limit=N] [book=N] [buffered]   open an account
    status NAME STATUS                              freeze, unfreeze, close
    limit NAME N                                    give another credit limit
    buffer NAME on|off                              buffer its single credits, or no longer
    drain NAME N                                    post what waits in its buffer: N credits
    court NAME N                                    freeze an amount by court
    wait SECONDS                                    let the time of holds pass
    date YYYY-MM-DD                                 advance the business date
    ID single|pending DEBIT CREDIT AMOUNT [options] -> EXPECTED
    ID post PENDING [AMOUNT] [options] -> EXPECTED
    ID void PENDING [options] -> EXPECTED
    batch … end                                     the transfers between are one call
    balance NAME [available=N] [frozen=N] [posted=DEBITS/CREDITS] [pending=DEBITS/CREDITS]
                 [buffered=N] [version=N]
    entries NAME VERSION:CHANGE=BALANCE …           all lines, on the account's normal side
    expire N                                        run the expiry; N holds are given back

Options: linked, forced, ungranted, keep_rest, balancing_debit, balancing_credit, timeout=N,
currency=C, movement=M, reference=R, debit=NAME, credit=NAME, pending=ID, tenant=T, mode=M,
merchant=M, age=DAYS (the id is so old), ahead=MINUTES, pending_age=DAYS, pending_ahead=MINUTES,
book=N, malformed, value_on=DATE, times=N (so many of them in one call). `expire` and `unspecified`
as kinds are refused.

EXPECTED is `BOOKED` or `BOOKED=AMOUNT`, or a reason with what its metadata must say (names stand
for ids), then `replayed` for the answer of an earlier call, `invalid` where nothing is kept under
the id, `date=DATE` for the business date, `redirected=NAME` for the account that was credited in
place of a shut one, `buffered` when the credit waits in a buffer. At the end of a scenario, nothing
may be kept under ids that were only ever invalid, and something under all others.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Protocol

from common.ids import ID_LENGTH, derive, encode_time
from services.account.domain.accounts import (
    Account,
    AccountSpec,
    AccountStatus,
    platform_account_id,
)
from services.account.domain.transfers import (
    Transfer,
    TransferKind,
    TransferResult,
    TransferStatus,
)
from tests.scenarios.account.reading import Line, Scenario, load_scenarios

__all__ = ["BASE_DATE", "Books", "Player", "Scenario", "load_scenarios"]

BASE_DATE = date(2026, 1, 1)

_KINDS = ("single", "pending", "post", "void", "expire", "unspecified")
_FLAGS = frozenset(
    {
        "linked",
        "forced",
        "ungranted",
        "keep_rest",
        "malformed",
        "balancing_debit",
        "balancing_credit",
    }
)


class Books(Protocol):
    """A ledger that scenarios can be played on."""

    def now(self) -> datetime:
        """The clock that ids are made from."""
        ...

    async def open(self, specs: list[AccountSpec]) -> None:
        """Open accounts."""
        ...

    async def post(self, transfers: list[Transfer], *, may_force: bool) -> list[TransferResult]:
        """Book the transfers of one call."""
        ...

    async def set_status(self, account_id: str, status: AccountStatus) -> None:
        """Give an account another status."""
        ...

    async def freeze_by_court(self, account_id: str, amount_minor: int) -> None:
        """Freeze an amount."""
        ...

    async def wait(self, seconds: int) -> None:
        """Let the time of holds pass."""
        ...

    async def advance(self, business_date: date) -> None:
        """Advance the business date."""
        ...

    async def expire(self) -> int:
        """Expire what is due."""
        ...

    async def account(self, account_id: str) -> Account:
        """Read an account."""
        ...

    async def change_credit_limit(self, account_id: str, amount_minor: int) -> None:
        """Give an account another credit limit."""
        ...

    async def set_buffering(self, account_id: str, *, is_buffered: bool) -> None:
        """Turn the buffering of single credits on or off."""
        ...

    async def drain(self, account_id: str) -> int:
        """Post what waits in an account's buffer; return how many credits."""
        ...

    async def entries(self, account_id: str) -> list[tuple[int, int, int]]:
        """The account's lines: version, change and balance on its normal side."""
        ...

    async def kept(self, ids: list[str]) -> set[str]:
        """The ids, of book 0, under which something is kept."""
        ...


class Player:
    """Plays one scenario on one ledger."""

    def __init__(self, books: Books, salt: str = "") -> None:
        self._books = books
        self._salt = salt
        self._now = books.now()
        self._currencies: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._was_kept: dict[str, bool] = {}
        self.reached: set[tuple[str, str]] = set()
        """Reason (empty when booked) and kind of every answer."""
        self.differing: set[str] = set()
        """Fields that were named as differing from what is kept under an id."""

    async def play(self, scenario: Scenario) -> None:
        """Play all lines; raises AssertionError naming the line that went otherwise."""
        call: list[Line] | None = None
        for line in scenario.lines:
            place = f"{scenario.name}.txt:{line.number}"
            verb = line.words[0]
            if verb == "batch":
                call = []
            elif verb == "end":
                assert call is not None, place
                await self._post(call, scenario.name)
                call = None
            elif len(line.words) > 1 and line.words[1] in _KINDS:
                if call is None:
                    await self._post([line], scenario.name)
                else:
                    call.append(line)
            else:
                await self._statement(line, place)
        kept = await self._books.kept(list(self._was_kept))
        assert kept == {one for one, is_kept in self._was_kept.items() if is_kept}

    async def _statement(self, line: Line, place: str) -> None:
        verb, *words = line.words
        if verb == "account":
            await self._open(line)
        elif verb == "status":
            await self._books.set_status(self._ids[words[0]], AccountStatus(words[1]))
        elif verb == "court":
            await self._books.freeze_by_court(self._ids[words[0]], int(words[1]))
        elif verb == "limit":
            await self._books.change_credit_limit(self._ids[words[0]], int(words[1]))
        elif verb == "buffer":
            await self._books.set_buffering(self._ids[words[0]], is_buffered=words[1] == "on")
        elif verb == "drain":
            drained = await self._books.drain(self._ids[words[0]])
            assert drained == int(words[1]), f"{place}: {drained} credits"
        elif verb == "wait":
            await self._books.wait(int(words[0]))
        elif verb == "date":
            await self._books.advance(date.fromisoformat(words[0]))
        elif verb == "expire":
            assert await self._books.expire() == int(words[0]), place
        elif verb == "balance":
            await self._check_balance(line, place)
        elif verb == "entries":
            lines = await self._books.entries(self._ids[words[0]])
            found = [f"{version}:{change:+}={balance}" for version, change, balance in lines]
            assert found == words[1:], f"{place}: {' '.join(found)}"
        else:
            raise AssertionError(f"{place}: no statement {verb!r}")

    async def _open(self, line: Line) -> None:
        _, name, kind, currency, *flags = line.words
        book = int(line.options.get("book", "0"))
        self._currencies[name] = currency
        self._ids[name] = self._account_id(name, book)
        limit = int(line.options.get("limit", "0"))
        if kind == "unclaimed":
            self._ids[name] = platform_account_id(
                kind, currency, tenant_id=self._tenant, mode="LIVE"
            )
        spec = AccountSpec(
            self._ids[name],
            f"owner-{name}",
            kind,
            currency,
            limit,
            tenant_id=self._tenant,
            is_buffered="buffered" in flags,
        )
        await self._books.open([spec])

    async def _check_balance(self, line: Line, place: str) -> None:
        account = await self._books.account(self._ids[line.words[1]])
        found = {
            "available": str(account.available_minor),
            "frozen": str(account.frozen_minor),
            "posted": f"{account.debits_posted_minor}/{account.credits_posted_minor}",
            "pending": f"{account.debits_pending_minor}/{account.credits_pending_minor}",
            "buffered": str(account.buffered_minor),
            "version": str(account.version),
        }
        for name, value in line.options.items():
            assert found[name] == value, f"{place}: {name} is {found[name]}, not {value}"

    async def _post(self, lines: list[Line], name: str) -> None:
        transfers = [self._transfer(line) for line in lines]
        may_force = not any("ungranted" in line.words for line in lines)
        results = await self._books.post(transfers, may_force=may_force)
        assert [r.transfer_id for r in results] == [t.id for t in transfers]
        for line, transfer, result in zip(lines, transfers, results, strict=True):
            place = f"{name}.txt:{line.number}"
            self._check(line, result, place)
            self._note(transfer, result)

    def _check(self, line: Line, result: TransferResult, place: str) -> None:
        verdict, *rest = line.expected
        verdict, _, amount = verdict.partition("=")
        got = result.reason or result.status
        assert got == verdict, f"{place}: {got} {result.refusal}, not {verdict}"
        if amount:
            assert result.booked_minor == int(amount), f"{place}: booked {result.booked_minor}"
        assert result.replayed == ("replayed" in rest), f"{place}: replayed {result.replayed}"
        if result.status == TransferStatus.INVALID:
            assert "invalid" in rest or result.reason == "LINKED_TRANSFER_FAILED", (
                f"{place}: {got} is kept under no id"
            )
        else:
            assert "invalid" not in rest, f"{place}: {got} is kept under the id"
            assert result.booked_at is not None, place
        said = dict(word.split("=") for word in rest if "=" in word)
        if "date" in said:
            assert str(result.business_date) == said.pop("date"), f"{place}: {result.business_date}"
        target = self._ids[said.pop("redirected")] if "redirected" in said else ""
        assert result.redirected_to == target, f"{place}: went to {result.redirected_to!r}"
        assert result.is_buffered == ("buffered" in rest), f"{place}: buffered"
        metadata = {} if result.refusal is None else result.refusal.metadata
        for key, value in said.items():
            assert metadata.get(key) == self._ids.get(value, value), f"{place}: {key}: {metadata}"

    def _note(self, transfer: Transfer, result: TransferResult) -> None:
        """Remember what was reached, and what has to be kept in the end."""
        self.reached.add((result.reason, transfer.kind))
        if result.reason == "ID_CONFLICT" and result.refusal is not None:
            self.differing.add(result.refusal.metadata["field"])
        if transfer.id[14:16] == "00":
            is_kept = result.status != TransferStatus.INVALID
            self._was_kept[transfer.id] = self._was_kept.get(transfer.id, False) or is_kept
            if transfer.kind == TransferKind.VOID and is_kept and transfer.pending_id:
                # It may have left a mark, which only a hold that comes would show.
                self._was_kept.pop(transfer.pending_id, None)

    def _transfer(self, line: Line) -> Transfer:
        name, verb, *words = line.words
        parties = [word for word in words if word not in _FLAGS]
        options = line.options
        transfer_id = self._transfer_id(name, options)
        if "malformed" in words:
            transfer_id = transfer_id[:-1]
        debit, credit, amount, pending = "", "", 0, ""
        if verb in ("single", "pending", "unspecified"):
            debit, credit = self._party(parties[0]), self._party(parties[1])
            amount = int(parties[2])
            currency = options.get("currency", self._currencies.get(parties[0], "USD"))
        else:
            if parties[0] != "-":
                pending = self._pending_id(parties[0], options)
            if len(parties) > 1:
                amount = int(parties[1])
            currency = options.get("currency", "")
        if "pending" in options:
            pending = self._ids[options["pending"]]
        if "debit" in options:
            debit = self._party(options["debit"])
        if "credit" in options:
            credit = self._party(options["credit"])
        value_on = options.get("value_on")
        return Transfer(
            id=transfer_id,
            kind=TransferKind(verb.upper()),
            debit_account_id=debit,
            credit_account_id=credit,
            currency_code=currency,
            amount_minor=amount,
            pending_id=pending,
            keep_rest="keep_rest" in words,
            timeout_seconds=int(options.get("timeout", "0")),
            linked="linked" in words,
            forced="forced" in words,
            balancing_debit="balancing_debit" in words,
            balancing_credit="balancing_credit" in words,
            movement=options.get("movement", "test.move"),
            reference_id=options.get("reference", f"ref-{name}"),
            value_on=None if value_on is None else date.fromisoformat(value_on),
            biz_trace_id=f"story-{self._salt}",
            tenant_id=options.get("tenant", self._tenant),
            mode=options.get("mode", "LIVE"),
            merchant_id=options.get("merchant", ""),
            actor="SERVICE:test",
        )

    @property
    def _tenant(self) -> str:
        return f"tenant-{self._salt}"

    def _party(self, name: str) -> str:
        if name == "-":
            return ""
        if name == "crooked":
            return "acc_x"
        return self._ids.setdefault(name, self._account_id(name, 0))

    def _account_id(self, name: str, book: int) -> str:
        return derive("acc", _parent(self._now, book), self._salt, name)

    def _pending_id(self, name: str, options: dict[str, str]) -> str:
        at = {key[8:]: value for key, value in options.items() if key.startswith("pending_")}
        if at:
            return self._transfer_id(name, at)
        return self._ids.get(name) or self._transfer_id(name, {})

    def _transfer_id(self, name: str, options: dict[str, str]) -> str:
        at = self._now - timedelta(days=int(options.get("age", "0")))
        at += timedelta(minutes=int(options.get("ahead", "0")))
        made = derive("tfr", _parent(at, int(options.get("book", "0"))), self._salt, name)
        self._ids[name] = made
        return made


def _parent(at: datetime, book: int) -> str:
    letters = "0123456789abcdefghjkmnpqrstvwxyz"
    head = encode_time(at.astimezone(UTC)) + letters[book // 32] + letters[book % 32]
    return ("tst_" + head).ljust(ID_LENGTH, "0")
