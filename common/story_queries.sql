-- What every schema can tell of a business story: its common tables.
--
-- Statements that list a story, these and the services' own in their `story_queries.sql`, are alike: given
-- the story's id, an instant and a number, they answer the items from that instant on, oldest first,
-- that many and all that happened at the instant of the last. Columns: at, kind, subject, summary,
-- details.

-- name: list_common_story
-- Changes of state, jobs (begun and ended), events told, events that could not be handled.
SELECT at, kind, subject, summary, details FROM (
    SELECT at, CASE noun WHEN 'exception' THEN 'exception' ELSE 'state' END AS kind,
        noun || ' ' || id AS subject,
        CASE WHEN from_state = '' THEN to_state ELSE from_state || ' → ' || to_state END AS summary,
        jsonb_build_object('actor', actor, 'reason', reason, 'cause', cause,
            'version', version::text) AS details
    FROM history WHERE biz_trace_id = $1 AND biz_trace_id <> ''
    UNION ALL
    SELECT created_at, 'job', 'job ' || job_id, kind || ' of ' || key || ' begun',
        jsonb_build_object('actor', actor, 'cause', causation_id)
        || CASE WHEN ended_at IS NULL THEN jsonb_build_object('state', state,
            'attempts', attempts::text, 'last_answer', last_error,
            'due_at', to_char(run_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
            ELSE '{}' END
    FROM jobs WHERE biz_trace_id = $1 AND biz_trace_id <> ''
    UNION ALL
    SELECT ended_at, 'job', 'job ' || job_id, kind || ' of ' || key || ' ' || lower(state),
        jsonb_build_object('state', state, 'attempts', attempts::text, 'last_answer', last_error)
    FROM jobs WHERE biz_trace_id = $1 AND biz_trace_id <> '' AND ended_at IS NOT NULL
    UNION ALL
    SELECT recorded_at, 'event', 'event ' || event_id,
        type || CASE WHEN published_at IS NULL THEN ' waits to be told' ELSE ' told' END,
        jsonb_build_object('event_id', event_id, 'type', type, 'aggregate_id', aggregate_id,
            'version', aggregate_version::text, 'told_at', coalesce(
                to_char(published_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), ''))
    FROM outbox WHERE biz_trace_id = $1 AND biz_trace_id <> ''
) AS told
WHERE at >= $2
ORDER BY at
FETCH FIRST ($3) ROWS WITH TIES;

-- name: list_heard
-- Which consumers of this schema took events, let them wait or gave them up. The names of consumers
-- are read off the index one after the other, because there are few of them and many rows.
WITH RECURSIVE consumers AS (
    (SELECT consumer FROM inbox ORDER BY consumer LIMIT 1)
    UNION ALL
    SELECT (SELECT inbox.consumer FROM inbox WHERE inbox.consumer > consumers.consumer
        ORDER BY inbox.consumer LIMIT 1)
    FROM consumers WHERE consumers.consumer IS NOT NULL
)
SELECT received_at AS at, 'event' AS kind, 'event ' || event_id AS subject,
    inbox.consumer || ' heard it' AS summary,
    jsonb_build_object('event_id', event_id, 'consumer', inbox.consumer) AS details
FROM consumers JOIN inbox ON inbox.consumer = consumers.consumer
WHERE event_id = ANY ($1::text[])
UNION ALL
SELECT parked_at, 'event', 'event ' || event_id, consumer || ' lets it wait',
    jsonb_build_object('event_id', event_id, 'consumer', consumer, 'attempts', attempts::text,
        'last_answer', last_error)
FROM inbox_parked WHERE event_id = ANY ($1::text[])
UNION ALL
SELECT died_at, 'event', 'event ' || event_id, consumer || ' could not handle it',
    jsonb_build_object('event_id', event_id, 'consumer', consumer, 'attempts', attempts::text,
        'last_answer', last_error)
FROM inbox_dead WHERE event_id = ANY ($1::text[])
ORDER BY at;

-- name: find_common_story
-- The stories of a noun, a job, or an event that could not be handled.
SELECT biz_trace_id FROM history WHERE id = $1 AND biz_trace_id <> ''
UNION
SELECT biz_trace_id FROM jobs WHERE job_id = $1 AND biz_trace_id <> ''
UNION
SELECT biz_trace_id FROM inbox_dead WHERE event_id = $1 AND biz_trace_id <> '';

-- name: find_story_of_event
-- The story of an event that was written between two instants; there is no index on events' ids.
SELECT biz_trace_id
FROM outbox
WHERE event_id = $1 AND recorded_at >= $2 AND recorded_at < $3 AND biz_trace_id <> ''
ORDER BY recorded_at
LIMIT 1;
