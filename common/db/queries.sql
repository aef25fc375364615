-- The append-only tables of a schema (common/migrations/0001_history.sql).

-- name: add_history
-- Note changes of state, in the transaction that makes them.
INSERT INTO history (noun, id, version, from_state, to_state, actor, reason, cause, biz_trace_id,
    at)
SELECT noun, id, version, from_state, to_state, actor, reason, cause, biz_trace_id, at
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::timestamptz[])
    AS new (noun, id, version, from_state, to_state, actor, reason, cause, biz_trace_id, at);

-- name: list_history
-- What became of one noun, in order.
SELECT noun, id, version, from_state, to_state, actor, reason, cause, biz_trace_id, at
FROM history
WHERE noun = $1 AND id = $2
ORDER BY version;

-- name: lock_audit
-- Let one transaction at a time lengthen the chain of this schema.
SELECT pg_advisory_xact_lock(hashtextextended('audit ' || current_schema(), 0));

-- name: find_last_audit
-- The end of the chain.
SELECT position, link FROM audit ORDER BY position DESC LIMIT 1;

-- name: add_audit
-- Lengthen the chain.
INSERT INTO audit (position, at, tenant_id, mode, actor, on_behalf_of, role, action, subject,
    before_digest, after_digest, reason, biz_trace_id, previous_link, link)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- name: read_audit
-- A stretch of the chain, to be proved or shown.
SELECT position, at, tenant_id, mode, actor, on_behalf_of, role, action, subject, before_digest,
    after_digest, reason, biz_trace_id, previous_link, link
FROM audit
WHERE position > $1
ORDER BY position
LIMIT $2;
