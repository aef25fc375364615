"""An operator at a topology that lacks what is asked for is told so, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from paymesh.payment.v1 import PaymentServiceStub

from services.cli.operator import operate

LEDGER = "topology/ledger/ledger.toml"


async def test_asking_a_service_that_the_topology_lacks_ends_with_its_name() -> None:
    async with operate({"PAYMESH_TOPOLOGY_PATH": LEDGER}) as operator:
        assert operator.knows("account")
        assert not operator.knows("payment")
        with pytest.raises(SystemExit, match="topology ledger knows no service payment"):
            operator.stub(PaymentServiceStub, "payment")


async def test_acting_by_a_topology_that_is_not_there_ends_with_its_name(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    with pytest.raises(SystemExit, match=r"none\.toml: .*No such file"):
        async with operate({"PAYMESH_TOPOLOGY_PATH": missing}):
            pass
