-- Outbox and inbox of a schema (common/migrations/0002_events.sql).

-- name: add_events
-- Write a transaction's events, in the order given.
INSERT INTO outbox (event_id, type, aggregate_id, aggregate_version, tenant_id, mode, merchant_id,
    biz_trace_id, body)
SELECT event_id, type, aggregate_id, aggregate_version, tenant_id, mode, merchant_id,
    biz_trace_id, body
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::bytea[])
    AS new (event_id, type, aggregate_id, aggregate_version, tenant_id, mode, merchant_id,
        biz_trace_id, body);

-- name: find_waiting_events
-- The oldest events that were not told yet; by the mark on the row, never by a position.
SELECT recorded_at, position, type, aggregate_id, body
FROM outbox
WHERE published_at IS NULL
ORDER BY position
LIMIT $1;

-- name: mark_published
-- Note that the broker has confirmed these events.
UPDATE outbox SET published_at = clock_timestamp()
FROM unnest($1::timestamptz[], $2::bigint[]) AS told (recorded_at, position)
WHERE outbox.recorded_at = told.recorded_at AND outbox.position = told.position;

-- name: count_waiting_events
-- How many events wait and how long the oldest has, for metrics and the end of a demo.
SELECT count(*) AS waiting,
    coalesce(extract(epoch FROM clock_timestamp() - min(recorded_at)), 0)::float8 AS oldest_seconds
FROM outbox
WHERE published_at IS NULL;

-- name: make_partitions
-- Make the partitions of the days ahead.
SELECT outbox_make_partitions($1);

-- name: drop_partitions
-- Drop the days that are told and old.
SELECT outbox_drop_partitions($1);

-- name: take_events
-- Note events as taken by a consumer; answers those that it had not.
INSERT INTO inbox (consumer, event_id)
SELECT $1, event_id FROM unnest($2::text[]) AS new (event_id)
ON CONFLICT DO NOTHING
RETURNING event_id;

-- name: begin_versions
-- Let an ordered consumer know of aggregates.
INSERT INTO inbox_versions (consumer, aggregate_id, version)
SELECT $1, aggregate_id, 0 FROM unnest($2::text[]) AS new (aggregate_id)
ON CONFLICT DO NOTHING;

-- name: lock_versions
-- How far the consumer is with aggregates; held until the end of the transaction, so that two
-- copies of the consumer never take the same aggregate at once.
SELECT aggregate_id, version
FROM inbox_versions
WHERE consumer = $1 AND aggregate_id = ANY ($2::text[])
ORDER BY aggregate_id
FOR UPDATE;

-- name: advance_versions
-- Note how far the consumer has come.
UPDATE inbox_versions SET version = come.version
FROM unnest($2::text[], $3::bigint[]) AS come (aggregate_id, version)
WHERE inbox_versions.consumer = $1 AND inbox_versions.aggregate_id = come.aggregate_id;

-- name: park_events
-- Let events wait: for an earlier version, or for another attempt.
INSERT INTO inbox_parked AS parked (consumer, event_id, aggregate_id, aggregate_version, attempts,
    due_at, last_error, event)
SELECT $1, event_id, aggregate_id, aggregate_version, $6,
    clock_timestamp() + make_interval(secs => $7), $8, event
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bytea[])
    AS new (event_id, aggregate_id, aggregate_version, event)
ON CONFLICT (consumer, event_id) DO UPDATE SET
    attempts = parked.attempts + excluded.attempts,
    due_at = excluded.due_at,
    last_error = CASE WHEN excluded.last_error = '' THEN parked.last_error
        ELSE excluded.last_error END
RETURNING event_id, attempts;

-- name: wake_parked
-- Let the parked versions of aggregates be looked at, now that an earlier one was applied.
UPDATE inbox_parked SET due_at = clock_timestamp()
WHERE consumer = $1 AND aggregate_id = ANY ($2::text[]) AND due_at > clock_timestamp()
RETURNING event_id;

-- name: find_due_parked
-- Parked events whose time has come, one aggregate's in order.
SELECT event_id, attempts, event, parked_at < clock_timestamp() - make_interval(secs => $3)
    AS is_overdue
FROM inbox_parked
WHERE consumer = $1 AND due_at <= clock_timestamp()
ORDER BY aggregate_id, aggregate_version
LIMIT $2;

-- name: lock_parked
-- Hold parked events for handling; those that another copy of the consumer holds are left to it.
SELECT event_id FROM inbox_parked
WHERE consumer = $1 AND event_id = ANY ($2::text[])
ORDER BY event_id
FOR UPDATE SKIP LOCKED;

-- name: unpark_events
-- Forget parked events: they were applied, or are of no use.
DELETE FROM inbox_parked WHERE consumer = $1 AND event_id = ANY ($2::text[]);

-- name: bury_event
-- Keep an event that cannot be handled, for a person.
INSERT INTO inbox_dead (consumer, event_id, type, aggregate_id, aggregate_version, biz_trace_id,
    attempts, last_error, event)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (consumer, event_id) DO UPDATE SET
    attempts = excluded.attempts, last_error = excluded.last_error, died_at = clock_timestamp();

-- name: list_dead
-- Events that a person must decide on, oldest first.
SELECT consumer, event_id, type, aggregate_id, aggregate_version, biz_trace_id, attempts,
    last_error, died_at
FROM inbox_dead
ORDER BY died_at
LIMIT $1;

-- name: exhume_events
-- Take dead events out for another life.
DELETE FROM inbox_dead WHERE consumer = $1 AND event_id = ANY ($2::text[])
RETURNING event_id, aggregate_id, aggregate_version, event;

-- name: set_version
-- Let a revived event be the next version, whatever is missing before it.
INSERT INTO inbox_versions AS known (consumer, aggregate_id, version)
VALUES ($1, $2, $3)
ON CONFLICT (consumer, aggregate_id) DO UPDATE SET version = excluded.version;

-- name: count_parked
-- How many events wait and how many are dead, of one consumer.
SELECT
    (SELECT count(*) FROM inbox_parked WHERE consumer = $1) AS parked,
    (SELECT count(*) FROM inbox_dead WHERE consumer = $1) AS dead;

-- name: prune_inbox
-- Forget events that were taken long ago and whose id is as old: no copy of them comes any more.
DELETE FROM inbox
WHERE consumer = $1 AND event_id IN (
    SELECT event_id FROM inbox
    WHERE consumer = $1 AND event_id < $2 AND received_at < $3
    ORDER BY event_id
    LIMIT $4
)
RETURNING event_id;
