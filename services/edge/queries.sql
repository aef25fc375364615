-- The record of refusals.

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

-- name: find_refusal
-- One refusal, by the number that its caller was told.
SELECT refused_at, request_id, route, reason, merchant_id
FROM refusals
WHERE request_id = $1 AND tenant_id = $2;
