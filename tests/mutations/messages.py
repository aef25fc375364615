"""Safeties of what travels by itself: events, jobs, leases, webhooks."""

from __future__ import annotations

from typing import Final

from tests.mutations.safety import Safety

_FAULTS: Final = "tests/integration/events/test_faults.py"
_INBOX: Final = "tests/integration/events/test_inbox.py"
_OUTBOX: Final = "tests/integration/events/test_outbox.py"
_WORKER: Final = "tests/integration/jobs/test_worker.py"
_SENDING: Final = "tests/integration/notify/test_sending.py"

SAFETIES: Final = (
    Safety(
        name="relay-confirm-before-mark",
        protects="An event counts as told only when the broker has confirmed it.",
        file="common/events/relay.py",
        before="        envelopes = fill_envelopes(rows)\n",
        after="        envelopes = fill_envelopes(rows)\n        await self._mark(rows)\n",
        tests=(
            f"{_FAULTS}::test_a_crash_between_publish_and_mark_tells_again_and_takes_effect_once",
            f"{_FAULTS}::test_a_refused_envelope_waits_and_the_others_are_marked",
        ),
    ),
    Safety(
        name="relay-only-confirmed",
        protects="Of several envelopes, those that were not confirmed are told again.",
        file="common/events/relay.py",
        before="            if answer is None\n",
        after="",
        tests=(f"{_FAULTS}::test_a_refused_envelope_waits_and_the_others_are_marked",),
    ),
    Safety(
        name="broker-keeps-unrouted",
        protects="An event that no queue takes is kept by the broker, not dropped in silence.",
        file="common/events/broker.py",
        before='            arguments={"alternate-exchange": unrouted.name},\n',
        after="",
        tests=(f"{_OUTBOX}::test_what_nobody_listens_to_is_kept_by_the_broker",),
    ),
    Safety(
        name="relay-mark-not-position",
        protects="An event that commits late, behind others, is told as well.",
        file="common/events/queries.sql",
        before="""\
WHERE published_at IS NULL
ORDER BY position
LIMIT $1;
""",
        after="""\
WHERE published_at IS NULL AND position >
    (SELECT coalesce(max(position), 0) FROM outbox WHERE published_at IS NOT NULL)
ORDER BY position
LIMIT $1;
""",
        tests=(f"{_OUTBOX}::test_a_late_commit_with_a_smaller_position_is_told_too",),
    ),
    Safety(
        name="inbox-dedup",
        protects="A copy of an event takes no second effect.",
        file="common/events/inbox.py",
        before='        fresh = {row["event_id"] for row in rows}\n',
        after="        fresh = set(unique)\n",
        tests=(f"{_INBOX}::test_copies_of_an_event_are_dropped",),
    ),
    Safety(
        name="inbox-next-version",
        protects="A consumer that needs every state sees an aggregate's states one after the"
        " other, whatever order they come in.",
        file="common/events/inbox.py",
        before="wait=self._order is Order.NEXT",
        after="wait=False",
        tests=(f"{_INBOX}::test_versions_out_of_order_are_parked_until_the_gap_closes",),
    ),
    Safety(
        name="envelope-ack-after-commit",
        protects="An event stays with the broker until what it causes is committed.",
        file="common/events/consumer.py",
        before="""\
            await self._process(events, parked=False)
            await last_good.ack(multiple=True)
""",
        after="""\
            await last_good.ack(multiple=True)
            await self._process(events, parked=False)
""",
        tests=(f"{_INBOX}::test_an_event_in_the_hands_of_a_dying_consumer_is_heard_by_another",),
    ),
    Safety(
        name="job-lease",
        protects="A job runs in one place at a time: whoever claims it keeps others away.",
        file="common/jobs/queries.sql",
        before=" + make_interval(secs => due.lease_seconds)\n",
        after="\n",
        tests=(
            f"{_WORKER}::test_a_run_whose_worker_died_is_run_again_after_its_lease",
            f"{_WORKER}::test_many_workers_run_each_job_once",
        ),
    ),
    Safety(
        name="job-end-under-its-lease",
        protects="A worker that was stalled cannot end the job that its successor runs.",
        file="common/jobs/queries.sql",
        before="jobs.job_id = ended.job_id AND jobs.lease = ended.lease AND",
        after="jobs.job_id = ended.job_id AND",
        tests=(f"{_WORKER}::test_a_stalled_run_cannot_undo_what_its_successor_notes",),
    ),
    Safety(
        name="job-news-during-a-run",
        protects="News that comes while a job runs is looked at by one more run.",
        file="common/jobs/queries.sql",
        before="    state = CASE WHEN jobs.is_hastened THEN 'OPEN' ELSE ended.state END,\n",
        after="    state = ended.state,\n",
        tests=(f"{_WORKER}::test_hastening_moves_a_waiting_job_and_runs_a_running_one_once_more",),
    ),
    Safety(
        name="webhook-mark-after-2xx",
        protects="A webhook counts as delivered only when the merchant has answered 2xx.",
        file="services/notify/domain/deliveries.py",
        before="        return 200 <= self.http_status < 300\n",
        after="        return True\n",
        tests=(f"{_SENDING}::test_failing_keeps_the_schedule_then_parks",),
    ),
    Safety(
        name="webhook-claim-is-a-lease",
        protects="A webhook that a process died with is sent again by another, after the lease.",
        file="services/notify/queries.sql",
        before="            AND d.next_attempt_at <= $4 AND d.claimed_until <= $4\n",
        after="            AND d.next_attempt_at <= $4\n",
        tests=(
            f"{_SENDING}::test_crashing_between_send_and_note_sends_again_with_the_same_id",
            f"{_SENDING}::test_several_processes_send_each_webhook_once",
        ),
    ),
    Safety(
        name="webhook-once-per-event",
        protects="An event that is heard twice becomes one webhook.",
        file="services/notify/events.py",
        before='    return derive("msg", event_id, "webhook")\n',
        after="    return f\"msg_{__import__('uuid').uuid4().hex[:26]}\"\n",
        tests=(f"{_SENDING}::test_hearing_an_event_again_sends_nothing_again",),
    ),
)
