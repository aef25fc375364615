-- What the edge tells of a business story (form: common/story_queries.sql).

-- name: list_story
-- Changing requests of merchants that belong to a story.
SELECT began_at AS at, kind, 'request ' || request_id AS subject,
    route || ' → ' || http_status || CASE reason WHEN '' THEN '' ELSE ' ' || reason END
        || CASE WHEN replayed THEN ' (replayed)' ELSE '' END AS summary,
    jsonb_build_object('merchant_id', merchant_id, 'key_id', key_id, 'mode', mode,
        'noun_id', noun_id, 'idempotency_key_sha256', encode(idempotency_key_hash, 'hex'),
        'took_ms', (extract(epoch FROM ended_at - began_at) * 1000)::int::text) AS details
FROM requests
WHERE biz_trace_id = $1 AND biz_trace_id <> '' AND began_at >= $2
ORDER BY began_at
FETCH FIRST ($3) ROWS WITH TIES;

-- name: list_related
-- Callbacks and requests that know no story: by their ids, by the nouns that they were about, or
-- (callbacks) by the digest of their bodies.
SELECT began_at AS at, kind, 'request ' || request_id AS subject,
    CASE channel WHEN '' THEN route ELSE replace(route, '{channel}', channel) END
        || ' → ' || http_status || CASE reason WHEN '' THEN '' ELSE ' ' || reason END
        || CASE WHEN replayed THEN ' (replayed)' ELSE '' END AS summary,
    jsonb_build_object('merchant_id', merchant_id, 'key_id', key_id, 'mode', mode,
        'channel', channel, 'noun_id', noun_id,
        CASE channel WHEN '' THEN 'idempotency_key_sha256' ELSE 'body_sha256' END,
        encode(idempotency_key_hash, 'hex'),
        'took_ms', (extract(epoch FROM ended_at - began_at) * 1000)::int::text) AS details
FROM requests
WHERE (request_id = ANY ($1::text[]) AND biz_trace_id = '')
    OR (noun_id = ANY ($1::text[]) AND noun_id <> '' AND biz_trace_id = '')
    OR (kind = 'callback' AND idempotency_key_hash <> '' AND idempotency_key_hash = ANY (ARRAY(
        SELECT decode(id, 'hex') FROM unnest($1::text[]) AS id WHERE id ~ '^[0-9a-f]{64}$'
    )))
UNION ALL
SELECT refused_at, 'request', 'request ' || request_id, route || ' refused: ' || reason,
    jsonb_build_object('merchant_id', merchant_id)
FROM refusals WHERE request_id = ANY ($1::text[])
ORDER BY at
LIMIT 1000;

-- name: find_story
-- The stories of a request, by its number or its Idempotency-Key.
SELECT biz_trace_id FROM requests
WHERE request_id = $1 AND tenant_id = $2 AND biz_trace_id <> ''
UNION
SELECT biz_trace_id FROM requests
WHERE idempotency_key_hash = sha256(convert_to($1, 'UTF8')) AND idempotency_key_hash <> ''
    AND tenant_id = $2 AND biz_trace_id <> ''
LIMIT 21;
