"""Safeties at the doors: who asks, once only, and what may be asked again."""

from __future__ import annotations

from typing import Final

from tests.mutations.safety import Safety

_ONCE: Final = "services/edge/rest/once.py"
_IDEMPOTENCY: Final = "tests/integration/edge/test_idempotency.py"
_SIGNATURES: Final = "tests/integration/edge/test_signatures.py"
_CALLS: Final = "tests/conformance/mesh/test_mesh_calls.py"
_COALESCER: Final = "tests/unit/test_coalescer.py"
_RISK: Final = "tests/integration/risk/test_risk_assessing.py"
_LEDGER: Final = "tests/integration/account/test_ledger_flows.py"
_STREAM: Final = "tests/conformance/mesh/test_mesh_stream.py"

SAFETIES: Final = (
    Safety(
        name="edge-idempotency-key",
        protects="Copies of a request that arrive at the same time are executed once.",
        file=_ONCE,
        before="        if is_first:\n            self._hold",
        after="        if True:\n            self._hold",
        tests=(
            f"{_IDEMPOTENCY}::test_copies_at_once_run_once",
            f"{_IDEMPOTENCY}::test_a_repeat_gets_the_first_answer_marked_as_such",
        ),
    ),
    Safety(
        name="edge-lock-of-its-own",
        protects="A request that was stalled beyond its lock leaves the turn of the next alone.",
        file=_ONCE,
        before="if redis.call('GET', KEYS[1]) ~= ARGV[1] then return end\n",
        after="",
        tests=(f"{_IDEMPOTENCY}::test_a_stalled_request_leaves_a_later_holders_turn_alone",),
    ),
    Safety(
        name="edge-only-final-answers-kept",
        protects="A refusal that may turn out otherwise later is not kept as the answer for ever.",
        file=_ONCE,
        before="        status in _KEPT_STATUSES and retry in (Retry.NEVER, Retry.NEW_ID)\n",
        after="        status in _KEPT_STATUSES\n",
        tests=(f"{_IDEMPOTENCY}::test_only_final_refusals_are_kept",),
    ),
    Safety(
        name="edge-nonce-replay",
        protects="A signed request that somebody caught cannot be sent a second time.",
        file=_ONCE,
        before="        if not taken:\n",
        after="        if False:\n",
        tests=(
            f"{_SIGNATURES}::test_a_replayed_request_is_refused",
            f"{_SIGNATURES}::test_copies_sent_at_once_pass_once",
        ),
    ),
    Safety(
        name="edge-signature",
        protects="Nobody acts for a merchant without its key.",
        file="services/edge/rest/signature.py",
        before="        public_key.verify(request.signature, request.base)\n",
        after="        pass\n",
        tests=(f"{_SIGNATURES}::test_a_signature_for_another_request_is_refused",),
    ),
    Safety(
        name="edge-body-digest",
        protects="A body is the one that was signed.",
        file="services/edge/rest/signature.py",
        before="    if given != hashlib.sha256(body).digest():\n",
        after="    if False:\n",
        tests=(f"{_SIGNATURES}::test_another_body_than_the_digests_is_refused",),
    ),
    Safety(
        name="mesh-no-blind-repeat",
        protects="A call whose outcome is unknown is repeated only where that has one effect.",
        file="common/mesh/calling.py",
        before="        return error.outcome is Outcome.UNKNOWN and self._method.repeats\n",
        after="        return error.outcome is Outcome.UNKNOWN\n",
        tests=(f"{_STREAM}::test_call_of_unknown_outcome_is_repeated_only_where_that_is_safe",),
    ),
    Safety(
        name="mesh-deny-by-default",
        protects="A service calls only what the table allows it.",
        file="common/mesh/middleware/authorisation.py",
        before="        raise PermissionDeniedError(method=path, caller=caller)\n",
        after="",
        tests=(
            f"{_CALLS}::test_caller_that_the_table_does_not_name_is_refused",
            f"{_CALLS}::test_role_that_the_table_asks_for_decides",
        ),
    ),
    Safety(
        name="risk-limits-at-once",
        protects="Actions at the same time never use more of a limit than there is.",
        file="services/risk/scripts/reserve.lua",
        before="    if total + tonumber(ARGV[at + 2]) > tonumber(ARGV[at + 3]) then\n",
        after="    if false then\n",
        tests=(f"{_RISK}::test_actions_at_once_never_exceed_a_limit",),
    ),
    Safety(
        name="batch-culprit-alone",
        protects="One bad item of a batch never fails its neighbours.",
        file="common/coalescer.py",
        before="        if len(batch) == 1:\n            _log.error",
        after="        if True:\n            _log.error",
        tests=(
            f"{_COALESCER}::test_flushing_a_poisoned_item_sets_it_alone_aside",
            f"{_LEDGER}::test_posting_what_the_database_refuses_sets_only_that_aside",
        ),
    ),
    Safety(
        name="batch-read-back",
        protects="When the answer to a commit is lost, the rows are asked what became of it.",
        file="common/coalescer.py",
        before="                is_unknown = failure is Failure.READ_BACK\n",
        after="                is_unknown = False\n",
        tests=(f"{_COALESCER}::test_losing_the_answer_of_a_commit_answers_from_the_rows",),
    ),
)
