"""The account service as a process of its own, as production runs it, and a caller on a stream.

Everything that runs beside the calls runs: expiry of holds, drain of buffers, vouchers, proofs,
relay of events. When the process dies it is started again, as a cluster would.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from paymesh.account.v1 import (
    AccountServiceStub,
    CheckBooksRequest,
    CreateTransferRequest,
    CreateTransfersRequest,
    GeneralLedgerServiceStub,
    OpenAccountsRequest,
    ProveBooksRequest,
    TransferKind,
    TransferSpec,
)
from paymesh.account.v1 import AccountSpec as AccountSpecMessage
from paymesh.account.v1 import TransferResult as TransferResultMessage
from pydantic import SecretStr

from common.clock import SystemClock
from common.context import ActorType, CallContext, Principal, bound
from common.embedded import ports
from common.embedded.supervisor import Child, Supervisor
from common.mesh.chain import production_chain
from common.mesh.host import Host
from common.mesh.middleware.authorisation import load_access
from common.mesh.settings import MeshSettings
from common.mesh.topology import load_topology
from services.account.domain.accounts import AccountSpec
from services.account.domain.transfers import Transfer
from services.cli.deployment import serves
from tests.integration.account.load import Verdict

ROOT = Path(__file__).resolve().parents[3]
NAME = "account"
_KEY = "test:test"
SERVICE = CallContext(principal=Principal(actor_type=ActorType.SERVICE, actor_id="payment"))
OPERATOR = CallContext(
    principal=Principal(
        actor_type=ActorType.OPERATOR, actor_id="ann", roles=("operator", "accountant")
    )
)


@dataclass
class ServedLedger:
    """Processes of the account service under a supervisor, and callers' stubs to each."""

    supervisor: Supervisor
    hosts: list[Host]
    _next: int = field(default=0)

    @property
    def names(self) -> list[str]:
        """Names of the processes."""
        return [f"{NAME}-{place}" for place in range(len(self.hosts))]

    async def open(self, specs: Sequence[AccountSpec]) -> None:
        """Open accounts."""
        request = OpenAccountsRequest(
            accounts=[
                AccountSpecMessage(
                    id=spec.id,
                    owner_id=spec.owner_id,
                    kind=spec.kind,
                    currency_code=spec.currency_code,
                    is_buffered=spec.is_buffered,
                )
                for spec in specs
            ]
        )
        stub = AccountServiceStub(self.hosts[0].channel("payment", NAME))
        with bound(SERVICE):
            await stub.OpenAccounts(request, timeout=20)

    async def post(self, call: list[Transfer]) -> list[Verdict]:
        """Send one call, to one process after the other."""
        self._next += 1
        host = self.hosts[self._next % len(self.hosts)]
        stub = AccountServiceStub(host.channel("payment", NAME))
        specs = [_spec(transfer) for transfer in call]
        with bound(SERVICE):
            if len(specs) == 1:
                request = CreateTransferRequest(transfer=specs[0])
                return [_verdict((await stub.CreateTransfer(request, timeout=10)).result)]
            requests = CreateTransfersRequest(transfers=specs)
            answer = await stub.CreateTransfers(requests, timeout=10)
            return [_verdict(result) for result in answer.results]

    async def findings(self) -> list[str]:
        """What the service itself finds wrong: its check of the books, and its proof."""
        channel = self.hosts[0].channel("operator", NAME)
        with bound(OPERATOR):
            books = await AccountServiceStub(channel).CheckBooks(CheckBooksRequest(), timeout=60)
            proof = await GeneralLedgerServiceStub(channel).ProveBooks(
                ProveBooksRequest(), timeout=60
            )
        broken = [f"{one}" for one in proof.proof.unfit]
        if not proof.proof.holds:
            broken.append("the proof does not hold")
        return [*books.findings, *broken]


def _spec(transfer: Transfer) -> TransferSpec:
    return TransferSpec(
        id=transfer.id,
        kind=TransferKind.Value(f"TRANSFER_KIND_{transfer.kind}"),
        debit_account_id=transfer.debit_account_id,
        credit_account_id=transfer.credit_account_id,
        currency_code=transfer.currency_code,
        amount_minor=transfer.amount_minor,
        pending_id=transfer.pending_id,
        keep_rest=transfer.keep_rest,
        timeout_seconds=transfer.timeout_seconds,
        linked=transfer.linked,
        balancing_debit=transfer.balancing_debit,
        movement=transfer.movement,
        reference_id=transfer.reference_id,
    )


def _verdict(result: TransferResultMessage) -> Verdict:
    return result.transfer_id, result.reason or "BOOKED", result.booked_minor


@asynccontextmanager
async def serving(
    environment: Mapping[str, str], namespace: str, folder: Path, *, processes: int = 1
) -> AsyncIterator[ServedLedger]:
    """Run the account service on the servers that the environment names.

    `namespace` begins the names of queues, `folder` takes logs.
    """
    chosen = ports.choose(processes)
    supervisor = Supervisor(
        [_child(f"{NAME}-{n}", port, environment, namespace) for n, port in enumerate(chosen)],
        run_folder=folder / "run",
        log_folder=folder / "logs",
    )
    hosts = [_host(port) for port in chosen]
    async with supervisor:
        try:
            yield ServedLedger(supervisor, hosts)
        finally:
            for host in hosts:
                await host.close()


def _child(name: str, port: int, environment: Mapping[str, str], namespace: str) -> Child:
    return Child(
        name=name,
        argv=[sys.executable, "-m", "paymesh", "serve", NAME],
        env={
            **environment,
            "PAYMESH_REDIS_NAMESPACE": namespace,
            "PAYMESH_AMQP_NAMESPACE": namespace,
            "PAYMESH_TOPOLOGY_PATH": str(ROOT / "topology" / "processes.toml"),
            "PAYMESH_PORTS": json.dumps({NAME: port}),
            "PAYMESH_PRINCIPAL_KEY": _KEY,
            "PAYMESH_MESH_SECRET": _KEY,
            "PAYMESH_LOG_LEVEL": "WARNING",
        },
        cwd=ROOT,
        ready=lambda: serves(f"127.0.0.1:{port}"),
        ready_timeout_seconds=90,
    )


def _host(port: int) -> Host:
    settings = MeshSettings(secret=SecretStr(_KEY))
    return Host(
        process="payment",
        topology=load_topology(ROOT / "topology" / "processes.toml", {}).with_ports({NAME: port}),
        middleware=production_chain(
            settings=settings,
            principal_key=_KEY,
            access=load_access(ROOT / "topology" / "access.toml"),
            clock=SystemClock(),
        ),
        clock=SystemClock(),
        settings=settings,
    )
