-- Rules, decisions and resolutions (migrations/0001_decisions.sql).

-- name: find_current_rules
-- The rules in force.
SELECT version, digest, rules FROM rule_versions ORDER BY version DESC LIMIT 1;

-- name: find_current_version
-- The number of the rules in force, for the poll of every process.
SELECT coalesce(max(version), 0) FROM rule_versions;

-- name: insert_rules
-- Add a version, unless another process was quicker.
INSERT INTO rule_versions (version, digest, rules, created_at)
VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING;

-- name: insert_decisions
-- Keep verdicts; answers the actions that had none.
INSERT INTO decisions (action_id, tenant_id, mode, merchant_id, actor, biz_trace_id, action,
    product, currency_code, amount_minor, user_id, card_id, ip_hash, device_hash, verdict, rules,
    rules_version, degraded, decided_at)
SELECT action_id, tenant_id, mode, merchant_id, actor, biz_trace_id, action, product,
    currency_code, amount_minor, user_id, card_id, ip_hash, device_hash, verdict, rules,
    rules_version, degraded, decided_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::bigint[], $11::text[], $12::text[], $13::text[], $14::text[],
    $15::text[], $16::text[], $17::bigint[], $18::boolean[], $19::timestamptz[])
    AS new (action_id, tenant_id, mode, merchant_id, actor, biz_trace_id, action, product,
        currency_code, amount_minor, user_id, card_id, ip_hash, device_hash, verdict, rules,
        rules_version, degraded, decided_at)
ON CONFLICT DO NOTHING
RETURNING action_id;

-- name: find_decisions
-- Verdicts by action.
SELECT action_id, tenant_id, mode, merchant_id, actor, biz_trace_id, action, product,
    currency_code, amount_minor, user_id, card_id, ip_hash, device_hash, verdict, rules,
    rules_version, degraded, decided_at
FROM decisions
WHERE action_id = ANY ($1::text[]);

-- name: insert_resolutions
-- Note what became of actions, and that the counters are to be told of what is new.
WITH fresh AS (
    INSERT INTO resolutions (action_id, confirmed, tenant_id, mode, biz_trace_id, cause,
        created_at)
    SELECT action_id, confirmed, tenant_id, mode, biz_trace_id, cause, $7::timestamptz
    FROM unnest($1::text[], $2::boolean[], $3::text[], $4::text[], $5::text[], $6::text[])
        AS new (action_id, confirmed, tenant_id, mode, biz_trace_id, cause)
    ON CONFLICT DO NOTHING
    RETURNING action_id, confirmed, created_at
)
INSERT INTO resolutions_waiting (action_id, confirmed, created_at)
SELECT action_id, confirmed, created_at FROM fresh;

-- name: find_waiting
-- The oldest resolutions that the counters were not told of.
SELECT waiting.action_id, waiting.confirmed, resolutions.tenant_id, resolutions.mode
FROM resolutions_waiting AS waiting
JOIN resolutions USING (action_id, confirmed)
ORDER BY waiting.created_at, waiting.action_id, waiting.confirmed
LIMIT $1;

-- name: forget_waiting
-- The counters were told of these.
DELETE FROM resolutions_waiting AS waiting
USING unnest($1::text[], $2::boolean[]) AS told (action_id, confirmed)
WHERE waiting.action_id = told.action_id AND waiting.confirmed = told.confirmed;

-- name: list_decision_facts
-- Decisions by action, for audits.
SELECT action_id AS key, action, product, verdict, rules, rules_version, currency_code,
    amount_minor, degraded
FROM decisions
WHERE action_id > $1
ORDER BY action_id
LIMIT $2;

-- name: list_unfinished
-- What is still to be done, or waits for a person, by key.
SELECT key, noun, state FROM (
    SELECT action_id || CASE WHEN confirmed THEN ':confirm' ELSE ':release' END AS key,
        'resolution' AS noun, 'WAITING' AS state
    FROM resolutions_waiting
    UNION ALL
    SELECT event_id, 'event', 'PARKED' FROM inbox_parked
    UNION ALL
    SELECT event_id, 'event', 'DEAD' FROM inbox_dead
) AS found
WHERE key COLLATE "C" > $1
ORDER BY key COLLATE "C"
LIMIT $2;
