-- Versions of the routing rules (migrations/0001_rules.sql).

-- name: find_current
-- The rules in force.
SELECT version, rules FROM rule_versions ORDER BY version DESC LIMIT 1;

-- name: find_current_version
-- The number of the rules in force, for the poll of every process.
SELECT coalesce(max(version), 0) FROM rule_versions;

-- name: find_by_request
-- The version that a request made before.
SELECT version, rules FROM rule_versions
WHERE tenant_id = $1 AND mode = $2 AND request_id = $3;

-- name: insert_version
-- Add a version; answers nothing when another has its number or its request was used.
INSERT INTO rule_versions (version, tenant_id, mode, actor, request_id, rules, reason,
    biz_trace_id, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT DO NOTHING
RETURNING version;
