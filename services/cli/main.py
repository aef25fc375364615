"""The commands."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from common.embedded.instances import InstanceBusyError
from common.embedded.postgres import PostgresMissingError
from common.embedded.processes import ProcessStartError
from common.embedded.rabbitmq import RabbitMissingError
from common.embedded.valkey import ValkeyMissingError
from services.cli.books import books_app
from services.cli.demo.faults import KillError
from services.cli.exceptions import exceptions_app
from services.cli.vouchers import add_commands as add_voucher_commands

app = typer.Typer(
    help="paymesh: a payment platform as a gRPC mesh.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(exceptions_app, name="exceptions")
app.add_typer(books_app, name="books")
add_voucher_commands(books_app)

_SET_UP_ERRORS = (
    InstanceBusyError,
    KillError,
    ProcessStartError,
    PostgresMissingError,
    RabbitMissingError,
    ValkeyMissingError,
)


@app.command()
def serve(
    names: Annotated[list[str], typer.Argument(help="services, in one process")],
    alone: Annotated[
        bool, typer.Option("--alone", help="a ledger and PostgreSQL, without a broker")
    ] = False,
) -> None:
    """Run some services in this process until it is told to stop."""
    from common.process import serve as serve_process
    from services.cli.sources import ServiceNameError, find_source, stand_alone

    try:
        if alone:
            stand_alone(names)
        sources = [find_source(name) for name in names]
    except ServiceNameError as error:
        sys.exit(f"paymesh: {error}")
    sys.exit(serve_process(sources))


@app.command()
def migrate(
    names: Annotated[list[str] | None, typer.Argument(help="services; none for all")] = None,
) -> None:
    """Bring the database schemas of services up to date, then exit."""
    from services.cli.migrate import run_migrations
    from services.cli.sources import SERVICES, ServiceNameError, find_source

    try:
        sources = [find_source(name) for name in names or SERVICES]
    except ServiceNameError as error:
        sys.exit(f"paymesh: {error}")
    _run(run_migrations(sources))


@app.command()
def up(
    topology: Annotated[Path | None, typer.Option(help="which services share a process")] = None,
) -> None:
    """Run servers and all services until interrupted."""
    from services.cli.up import run_up

    _run(run_up(topology))


@app.command()
def demo(
    input_file: Annotated[
        Path | None, typer.Option("--input", help="purchases, in either form of the data set")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="the first N data lines")] = None,
    topology: Annotated[Path | None, typer.Option(help="which services share a process")] = None,
    faults: Annotated[
        int | None, typer.Option(metavar="SEED", help="let everything go wrong, by a seed")
    ] = None,
    kill: Annotated[
        list[str] | None,
        typer.Option(metavar="SERVICE@ORDER", help="kill -9 before the ORDERth purchase"),
    ] = None,
) -> None:
    """Replay a shop's purchases through the whole platform, and prove the books."""
    from services.cli.demo.run import Wishes, run_demo

    wishes = Wishes(limit=limit, seed=faults, kills=tuple(kill or ()))
    if input_file is not None:
        wishes = replace(wishes, input_file=input_file)
    if topology is not None:
        wishes = replace(wishes, topology=topology)
    _run(run_demo(wishes, Console()))


@app.command()
def chaos(
    seeds: Annotated[str, typer.Option(help="1-5, or 3,7,20-22")] = "1-5",
    limit: Annotated[int, typer.Option(min=1, help="the first N data lines")] = 500,
) -> None:
    """Run the demo with faults under several seeds, one after the other."""
    from services.cli.demo.chaos import SeedsError, read_seeds, run_chaos
    from services.cli.demo.run import Wishes

    try:
        chosen = read_seeds(seeds)
    except SeedsError as error:
        sys.exit(f"paymesh: {error}")
    _run(run_chaos(chosen, Wishes(limit=limit), Console()))


@app.command()
def audit() -> None:
    """Prove the books of a running platform; say what is off."""
    from services.cli.audit import run_audit
    from services.cli.printing import open_console

    _run(run_audit(open_console()))


@app.command()
def trace(
    subject: Annotated[
        str,
        typer.Argument(
            help="any id or number of an order: order, payment, refund, reference, webhook …"
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="as JSON, for programs")] = False,
    service: Annotated[
        list[str] | None, typer.Option("--service", help="only what this service tells")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="only one kind: request, call, decision, state, posting …"),
    ] = None,
) -> None:
    """Tell the whole story of an order on one time line."""
    from services.cli.trace import Wanted, run_trace

    wanted = Wanted(frozenset(service or ()), frozenset(kind or ()))
    _run(run_trace(subject, as_json, Console(), wanted))


def _run(work: Coroutine[Any, Any, int]) -> None:
    """Run a command's coroutine; its result is the exit status."""
    import uvloop

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        status = uvloop.run(work)
    except _SET_UP_ERRORS as error:
        sys.exit(f"paymesh: {error}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    sys.exit(status)
