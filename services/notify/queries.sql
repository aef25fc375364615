-- name: insert_endpoint
-- A new address; a request that was made before is left alone.
INSERT INTO webhook_endpoints (id, tenant_id, mode, merchant_id, actor, request_id, url, types,
    disabled, sealed_secret, biz_trace_id, version, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, false, $9, $10, 1, $11, $11)
ON CONFLICT (tenant_id, mode, merchant_id, request_id) DO NOTHING
RETURNING id;

-- name: find_endpoint_of_request
-- The address that a request made.
SELECT id, tenant_id, mode, merchant_id, url, types, disabled, created_at
FROM webhook_endpoints
WHERE tenant_id = $1 AND mode = $2 AND merchant_id = $3 AND request_id = $4;

-- name: list_endpoints
-- Addresses of a merchant, or of all merchants for the platform's own people, oldest first.
SELECT id, tenant_id, mode, merchant_id, url, types, disabled, created_at
FROM webhook_endpoints
WHERE tenant_id = $1 AND mode = $2 AND ($3 = '' OR merchant_id = $3)
ORDER BY created_at, id LIMIT $4;

-- name: count_endpoints
-- How many addresses a merchant uses.
SELECT count(*) FROM webhook_endpoints
WHERE tenant_id = $1 AND mode = $2 AND merchant_id = $3 AND NOT disabled;

-- name: find_listeners
-- Addresses of the merchants that a batch of events concerns.
SELECT id, tenant_id, mode, merchant_id, url, types, disabled, created_at
FROM webhook_endpoints
WHERE (tenant_id, mode, merchant_id) IN (
    SELECT tenant_id, mode, merchant_id
    FROM unnest($1::text[], $2::text[], $3::text[]) AS heard (tenant_id, mode, merchant_id)
) AND NOT disabled
ORDER BY created_at, id;

-- name: insert_webhooks
-- New webhooks; one that was told before is left alone.
INSERT INTO webhooks (id, tenant_id, mode, merchant_id, type, subject_id, biz_trace_id, body,
    cause, created_at)
SELECT id, tenant_id, mode, merchant_id, type, subject_id, biz_trace_id, body, cause, $10
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[])
AS new (id, tenant_id, mode, merchant_id, type, subject_id, biz_trace_id, body, cause)
ON CONFLICT (id) DO NOTHING;

-- name: insert_deliveries
-- Deliveries to each address, due at once; those that were made before are left alone.
INSERT INTO deliveries (id, webhook_id, endpoint_id, tenant_id, mode, merchant_id, actor, type,
    subject_id, biz_trace_id, state, version, next_attempt_at, created_at, updated_at)
SELECT id, webhook_id, endpoint_id, tenant_id, mode, merchant_id, $10, type, subject_id,
    biz_trace_id, 'PENDING', 1, $11, $11, $11
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[])
AS new (id, webhook_id, endpoint_id, tenant_id, mode, merchant_id, type, subject_id, biz_trace_id)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: claim_deliveries
-- Due deliveries, up to the room that each address ($1, $2; others: $3) and the process ($5) has.
WITH RECURSIVE waiting (endpoint_id) AS (
    -- Jumps from address to address in the index, whatever the backlog of each.
    SELECT min(endpoint_id) FROM deliveries WHERE state = 'PENDING'
    UNION ALL
    SELECT (
        SELECT min(d.endpoint_id) FROM deliveries AS d
        WHERE d.state = 'PENDING' AND d.endpoint_id > waiting.endpoint_id
    ) FROM waiting WHERE waiting.endpoint_id IS NOT NULL
),
due AS (
    SELECT one.id FROM waiting
    LEFT JOIN unnest($1::text[], $2::int[]) AS busy (endpoint_id, room)
        ON busy.endpoint_id = waiting.endpoint_id
    CROSS JOIN LATERAL (
        SELECT d.id, d.next_attempt_at FROM deliveries AS d
        WHERE d.endpoint_id = waiting.endpoint_id AND d.state = 'PENDING'
            AND d.next_attempt_at <= $4 AND d.claimed_until <= $4
        ORDER BY d.next_attempt_at
        LIMIT coalesce(busy.room, $3::int)
        FOR UPDATE SKIP LOCKED
    ) AS one
    ORDER BY one.next_attempt_at
    LIMIT $5
)
UPDATE deliveries SET claimed_until = $6
FROM due, webhooks, webhook_endpoints
WHERE deliveries.id = due.id AND webhooks.id = deliveries.webhook_id
    AND webhook_endpoints.id = deliveries.endpoint_id
RETURNING deliveries.id, deliveries.version, deliveries.attempts, deliveries.tries,
    deliveries.webhook_id, deliveries.endpoint_id, deliveries.biz_trace_id,
    deliveries.next_attempt_at, webhook_endpoints.url, webhook_endpoints.sealed_secret,
    webhook_endpoints.disabled, webhooks.body;

-- name: renew_deliveries
-- Claims that are still in use, until $3; those that ran out and were taken by another are left.
WITH held AS (
    SELECT d.id FROM deliveries AS d
    JOIN unnest($1::text[], $2::timestamptz[]) AS mine (id, claimed_until) ON mine.id = d.id
    WHERE d.claimed_until = mine.claimed_until AND d.state = 'PENDING'
    ORDER BY d.id
    FOR UPDATE OF d
)
UPDATE deliveries SET claimed_until = $3
FROM held
WHERE deliveries.id = held.id
RETURNING deliveries.id;

-- name: release_deliveries
-- Claims that will not be used: another process may send these at once.
UPDATE deliveries SET claimed_until = '-infinity'
FROM unnest($1::text[], $2::timestamptz[]) AS unused (id, claimed_until)
WHERE deliveries.id = unused.id AND deliveries.claimed_until = unused.claimed_until
    AND deliveries.state = 'PENDING';

-- name: update_deliveries
-- Outcomes of attempts, each only if its delivery is as it was when it was claimed.
UPDATE deliveries SET state = new.state, version = deliveries.version + 1,
    attempts = new.attempts, tries = deliveries.tries + (new.attempts - deliveries.attempts),
    last_http_status = coalesce(new.http_status, deliveries.last_http_status),
    next_attempt_at = new.next_attempt_at,
    claimed_until = '-infinity', updated_at = new.at
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::int[], $5::int[], $6::timestamptz[],
    $7::timestamptz[])
AS new (id, version, state, attempts, http_status, next_attempt_at, at)
WHERE deliveries.id = new.id AND deliveries.version = new.version
    AND deliveries.state = 'PENDING'
RETURNING deliveries.id;

-- name: insert_attempts
-- What attempts brought.
INSERT INTO attempts (delivery_id, attempt, http_status, problem, took_ms, at)
SELECT delivery_id, attempt, http_status, problem, took_ms, at
FROM unnest($1::text[], $2::int[], $3::int[], $4::text[], $5::int[], $6::timestamptz[])
AS new (delivery_id, attempt, http_status, problem, took_ms, at)
ON CONFLICT (delivery_id, attempt) DO NOTHING;

-- name: find_versions
-- Versions of deliveries, to find out which outcomes were written.
SELECT id, version FROM deliveries WHERE id = ANY ($1::text[]);

-- name: disable_endpoints
-- Addresses that want no webhooks any more.
UPDATE webhook_endpoints SET disabled = true, version = version + 1, updated_at = $2
WHERE id = ANY ($1::text[]) AND NOT disabled
RETURNING id, version, biz_trace_id;

-- name: park_deliveries
-- Everything that waits for addresses that were switched off.
UPDATE deliveries SET state = 'PARKED', version = version + 1, next_attempt_at = NULL,
    claimed_until = '-infinity', updated_at = $2
WHERE endpoint_id = ANY ($1::text[]) AND state = 'PENDING'
RETURNING id, version, biz_trace_id;

-- name: find_delivery
-- One delivery.
SELECT id, webhook_id, endpoint_id, tenant_id, mode, merchant_id, type, subject_id, biz_trace_id,
    state, attempts, last_http_status, next_attempt_at, created_at, version
FROM deliveries WHERE id = $1;

-- name: lock_delivery
-- One delivery, locked, with whether its address is switched off.
SELECT d.id, d.webhook_id, d.endpoint_id, d.tenant_id, d.mode, d.merchant_id, d.type,
    d.subject_id, d.biz_trace_id, d.state, d.attempts, d.last_http_status, d.next_attempt_at,
    d.created_at, d.version, e.disabled
FROM deliveries AS d JOIN webhook_endpoints AS e ON e.id = d.endpoint_id
WHERE d.id = $1 FOR UPDATE OF d;

-- name: insert_resend
-- A request to send again; one that was made before is left alone.
INSERT INTO resends (tenant_id, mode, merchant_id, request_id, delivery_id, actor, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (tenant_id, mode, merchant_id, request_id) DO NOTHING
RETURNING delivery_id;

-- name: find_resend
-- The delivery that a request sent again.
SELECT delivery_id FROM resends
WHERE tenant_id = $1 AND mode = $2 AND merchant_id = $3 AND request_id = $4;

-- name: restart_delivery
-- From the beginning of the schedule, at once; an attempt that is under way does not count.
UPDATE deliveries SET state = 'PENDING', version = version + 1, tries = 0, next_attempt_at = $2,
    claimed_until = '-infinity', updated_at = $2
WHERE id = $1
RETURNING id, webhook_id, endpoint_id, tenant_id, mode, merchant_id, type, subject_id,
    biz_trace_id, state, attempts, last_http_status, next_attempt_at, created_at, version;

-- name: list_deliveries
-- Deliveries to a merchant, or to all for the platform's own people, newest first.
SELECT id, webhook_id, endpoint_id, tenant_id, mode, merchant_id, type, subject_id, biz_trace_id,
    state, attempts, last_http_status, next_attempt_at, created_at, version
FROM deliveries
WHERE tenant_id = $1 AND mode = $2 AND ($3 = '' OR merchant_id = $3)
    AND ($4 = '' OR subject_id = $4)
    AND ($5::timestamptz IS NULL OR (created_at, id) < ($5, $6))
ORDER BY created_at DESC, id DESC LIMIT $7;

-- name: list_delivery_facts
-- Deliveries in the order of their ids, for audits.
SELECT id, webhook_id, endpoint_id, tenant_id, mode, merchant_id, type, subject_id, state,
    attempts, last_http_status
FROM deliveries WHERE id > $1 ORDER BY id LIMIT $2;

-- name: list_unfinished
-- Every delivery that nobody took, and what this service has not heard or told, by id.
SELECT id, noun, state FROM (
    SELECT id, 'delivery' AS noun, state FROM deliveries WHERE state <> 'DELIVERED'
    UNION ALL
    SELECT job_id AS id, 'job' AS noun, state FROM jobs WHERE state IN ('OPEN', 'PARKED')
    UNION ALL
    SELECT event_id AS id, 'event' AS noun, 'WAITING' AS state FROM outbox
    WHERE published_at IS NULL
    UNION ALL
    SELECT event_id AS id, 'heard event' AS noun, 'PARKED' AS state FROM inbox_parked
    UNION ALL
    SELECT event_id AS id, 'heard event' AS noun, 'DEAD' AS state FROM inbox_dead
) AS open_nouns
WHERE id > $1 ORDER BY id LIMIT $2;
