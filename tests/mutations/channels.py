"""Safeties at the channels: never sent twice, never believed blindly, never ended by a guess."""

from __future__ import annotations

from typing import Final

from tests.mutations.safety import Edit, Safety

_DOMAIN: Final = "services/channel/domain.py"
_CHARGE: Final = "services/channel/flows/charge_payer.py"
_REFUND: Final = "services/channel/flows/refund_payer.py"
_CHARGING: Final = "tests/integration/channel/test_channel_charging.py"
_ROWS: Final = "tests/integration/channel/test_channel_callback_rows.py"
_DOUBTED: Final = "tests/integration/channel/test_channel_doubted_callbacks.py"
_QUESTIONED: Final = "tests/integration/channel/test_channel_questioned_callbacks.py"
_REFUNDING: Final = "tests/integration/channel/test_channel_refunding.py"
_OUTCOMES: Final = "tests/integration/channel/test_channel_refund_outcomes.py"
_NEWS: Final = "tests/integration/channel/test_channel_news_order.py"
_CODES: Final = "tests/integration/channel/test_lost_codes.py"
_GUARD: Final = "tests/unit/channel/test_channel_guard.py"
_CALLBACKS: Final = "tests/conformance/channels/test_channel_callbacks.py"

SAFETIES: Final = (
    Safety(
        name="channel-never-sent-twice",
        protects="A charge that is asked for again is asked about at the channel, never sent"
        " again while it may have been executed.",
        file=_CHARGE,
        before="    if opened.is_new:\n        return await _send",
        after="    if True:\n        return await _send",
        tests=(f"{_CHARGING}::test_crash_between_intent_and_call_is_found_out_by_asking",),
        also=(
            Edit(
                _CHARGE,
                "    if opened.is_new:\n        return await parts.charging",
                "    if True:\n        return await parts.charging",
            ),
        ),
    ),
    Safety(
        name="channel-refund-never-sent-twice",
        protects="A refund that is asked for again is asked about at the channel, never sent"
        " again while it may have been executed.",
        file=_REFUND,
        before="    if opened.is_new:\n        return await _send",
        after="    if True:\n        return await _send",
        tests=(f"{_OUTCOMES}::test_refund_asked_for_again_and_again_is_given_once",),
        also=(
            Edit(
                _REFUND,
                "    if opened.is_new:\n        work = _send",
                "    if True:\n        work = _send",
            ),
        ),
    ),
    Safety(
        name="channel-same-reference-same-content",
        protects="A reference that is used for something else is refused, not answered as done.",
        file=_CHARGE,
        before="    if opened.differs:\n",
        after="    if False:\n",
        tests=(f"{_CHARGING}::test_same_reference_for_something_else_is_refused",),
    ),
    Safety(
        name="channel-unknown-once-written",
        protects="Whatever fails after a request has left us is an unknown outcome, never a"
        " failure.",
        file="services/channel/guard.py",
        before="                if attempt.written:\n",
        after="                if False:\n",
        tests=(f"{_GUARD}::test_stray_error_after_sending_is_an_unknown_outcome",),
    ),
    Safety(
        name="channel-not-found-is-no-failure",
        protects="A charge that the channel does not know has failed only once no request of ours"
        " can be on its way any more.",
        file=_DOMAIN,
        before='    return ChargeState.FAILED if now > charge.updated_at + request_life else ""\n',
        after="    return ChargeState.FAILED\n",
        tests=(
            f"{_CHARGING}::test_unknown_reference_is_a_failure_only_after_the_requests_life",
            f"{_NEWS}::test_unseen_charge_ends_only_after_the_requests_life",
        ),
    ),
    Safety(
        name="channel-refund-not-found-is-no-failure",
        protects="A refund that the channel does not know is sent again only once no request of"
        " ours can be on its way any more.",
        file="services/channel/flows/query_refund.py",
        before="if now <= refund.updated_at + parts.catalogue.find(refund.channel).request_life:",
        after="if False:",
        tests=(f"{_OUTCOMES}::test_unseen_refund_is_sent_again_only_after_its_requests_life",),
    ),
    Safety(
        name="channel-conclusion-of-a-version",
        protects="What was concluded about an earlier sending says nothing of a later one.",
        file="services/channel/store/news.py",
        before="            if told.of_version not in (0, known.version):\n",
        after="            if False:\n",
        tests=(f"{_OUTCOMES}::test_old_conclusion_does_not_end_a_refund_that_was_sent_again",),
    ),
    Safety(
        name="channel-success-stays",
        protects="Money that was taken is a fact that no later word takes back.",
        file=_DOMAIN,
        before="    _C.SUCCEEDED: frozenset(),\n",
        after="    _C.SUCCEEDED: frozenset({_C.FAILED, _C.CLOSED}),\n",
        tests=(
            f"{_ROWS}::test_contradiction_never_takes_a_success_back",
            f"{_NEWS}::test_hearing_in_any_order_keeps_money_that_came",
        ),
    ),
    Safety(
        name="channel-late-success-wins",
        protects="Money that comes after the charge was given up is not overlooked.",
        file=_DOMAIN,
        before="    _C.CLOSED: frozenset({_C.SUCCEEDED, _C.CONFLICTED}),\n",
        after="    _C.CLOSED: frozenset(),\n",
        tests=(f"{_ROWS}::test_late_success_wins_over_closed",),
    ),
    Safety(
        name="callback-signature",
        protects="Nobody but the channel tells of its payments.",
        file="services/channel/adapters/alipay.py",
        before="        key.verify(base64.b64decode(signature, validate=True), text, *_RSA2)\n",
        after="        base64.b64decode(signature, validate=True)\n",
        tests=(
            f"{_CALLBACKS}::test_changed_callback_is_not_believed",
            f"{_CALLBACKS}::test_callback_signed_by_a_strange_key_is_not_believed",
        ),
    ),
    Safety(
        name="callback-dedup",
        protects="A callback that comes again is taken, and told of, once.",
        file="services/channel/store/news.py",
        before="        if key in taken:\n",
        after="        if False:\n",
        tests=(f"{_DOUBTED}::test_copy_of_a_doubted_callback_asks_nobody_again",),
    ),
    Safety(
        name="callback-dedup-across-processes",
        protects="Copies of a callback that several processes take at the same moment are told of"
        " once.",
        file="services/channel/store/movements.py",
        before='        kept = {row["callback_id"] for row in rows}\n',
        after="        kept = {told.notice.callback_id for told, _, _ in notices if told.notice}\n",
        tests=(f"{_QUESTIONED}::test_orphan_that_another_takes_at_this_moment_is_told_of_there",),
    ),
    Safety(
        name="callback-amount",
        protects="Success with other money than was asked for is a conflict, never a success.",
        file=_DOMAIN,
        before="if told is ChargeState.SUCCEEDED and news.money not in (None, charge.amount):",
        after="if False:",
        tests=(
            f"{_NEWS}::test_success_with_another_amount_is_never_a_success",
            f"{_DOUBTED}::test_wrong_amount_that_the_channel_confirms_is_a_conflict",
        ),
    ),
    Safety(
        name="callback-doubted-is-asked",
        protects="A callback that denies what we asked for is believed only when the channel says"
        " the same to our own question.",
        file="services/channel/store/news.py",
        before="        is_doubted = self.doubts(known, told.news)\n",
        after="        is_doubted = False\n",
        tests=(
            f"{_DOUBTED}::test_wrong_amount_that_the_channel_denies_is_questioned",
            f"{_DOUBTED}::test_end_without_money_is_what_the_channel_says_when_asked",
        ),
    ),
    Safety(
        name="callback-of-its-own-channel",
        protects="A channel tells only of references that it was given.",
        file="services/channel/store/news.py",
        before="        if known is None or known.channel != notice.channel:\n",
        after="        if known is None:\n",
        tests=(f"{_QUESTIONED}::test_reference_of_another_channel_is_asked_at_the_one_that_told",),
    ),
    Safety(
        name="callback-questioned-is-told",
        protects="A callback that contradicts what is known, or that belongs to nothing, is told"
        " to whoever looks into it.",
        file="services/channel/store/movements.py",
        before="if verdict in QUESTIONED and told.notice and told.notice.callback_id in kept\n",
        after="if False\n",
        tests=(f"{_QUESTIONED}::test_orphan_is_told_of_once_whoever_takes_its_copies",),
    ),
    Safety(
        name="channel-asks-again-for-codes-only",
        protects="A card is not charged again for being asked about; only a code, which moves no"
        " money, is asked for again.",
        file="services/channel/flows/query_charge.py",
        before=" or not parts.catalogue.find(charge.channel).guard.shows_codes:\n",
        after=":\n",
        tests=(f"{_CODES}::test_a_card_is_never_charged_again_for_being_asked_about",),
    ),
    Safety(
        name="channel-refund-cap",
        protects="Refunds of one charge never give back more than the channel has taken.",
        file="services/channel/store/movements.py",
        before="        or asked.amount.amount_minor > left\n",
        after="",
        tests=(
            f"{_REFUNDING}::test_refunds_at_once_never_exceed_the_charge",
            f"{_REFUNDING}::test_giving_back_in_parts_ends_at_what_was_received",
        ),
    ),
)
