-- The record of refusals, and the journal of requests.

-- name: add_refusals
-- Take down refusals; a batch that is written twice counts once.
INSERT INTO refusals (refused_at, request_id, route, reason, merchant_id, tenant_id)
SELECT refused_at, request_id, route, reason, merchant_id, $6
FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[])
    AS new (refused_at, request_id, route, reason, merchant_id)
ON CONFLICT (refused_at, request_id) DO NOTHING;

-- name: list_refusals
-- Refusals of a tenant, newest first, from before a place in that order.
SELECT refused_at, request_id, route, reason, merchant_id
FROM refusals
WHERE tenant_id = $1 AND (refused_at, request_id) < ($2, $3)
ORDER BY refused_at DESC, request_id DESC
LIMIT $4;

-- name: add_entries
-- Take down requests; a batch that is written twice counts once.
INSERT INTO requests (began_at, ended_at, http_status, replayed, request_id, kind, route, tenant_id,
    mode, merchant_id, key_id, channel, idempotency_key_hash, noun_id, biz_trace_id, reason)
SELECT began_at, ended_at, http_status, replayed, request_id, kind, route, $16, mode, merchant_id,
    key_id, channel, idempotency_key_hash, noun_id, biz_trace_id, reason
FROM unnest($1::timestamptz[], $2::timestamptz[], $3::int[], $4::boolean[], $5::text[], $6::text[],
    $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::bytea[], $13::text[],
    $14::text[], $15::text[])
    AS new (began_at, ended_at, http_status, replayed, request_id, kind, route, mode, merchant_id,
        key_id, channel, idempotency_key_hash, noun_id, biz_trace_id, reason)
ON CONFLICT (request_id, began_at) DO NOTHING;

-- name: make_partitions
-- Make the partitions of the days ahead.
SELECT requests_make_partitions($1);

-- name: drop_partitions
-- Drop the days that are old.
SELECT requests_drop_partitions($1);
