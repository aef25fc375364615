-- What risk tells of a business story besides the common tables (form: common/story_queries.sql).

-- name: list_story
-- Verdicts with their reasons, and what became of what they reserved.
SELECT at, kind, subject, summary, details FROM (
    SELECT decided_at AS at, 'call' AS kind, 'action ' || action_id AS subject,
        'AssessAction' AS summary,
        jsonb_build_object('actor', actor, 'merchant_id', merchant_id, 'action', action,
            'product', product, 'amount_minor', amount_minor::text,
            'currency_code', currency_code) AS details
    FROM decisions WHERE biz_trace_id = $1 AND biz_trace_id <> ''
    UNION ALL
    SELECT decided_at, 'decision', 'action ' || action_id, action || ': ' || verdict,
        jsonb_build_object('rules', rules, 'rules_version', rules_version::text,
            'degraded', CASE WHEN degraded THEN 'true' ELSE '' END)
    FROM decisions WHERE biz_trace_id = $1 AND biz_trace_id <> ''
    UNION ALL
    SELECT r.created_at, 'state', 'action ' || r.action_id,
        CASE WHEN r.confirmed THEN 'RESERVED → CONFIRMED' ELSE 'RESERVED → RELEASED' END,
        jsonb_build_object('cause', r.cause)
    FROM decisions AS d JOIN resolutions AS r ON r.action_id = d.action_id
    WHERE d.biz_trace_id = $1 AND d.biz_trace_id <> ''
) AS told
WHERE at >= $2
ORDER BY at
FETCH FIRST ($3) ROWS WITH TIES;

-- name: find_story
-- The story of an action.
SELECT biz_trace_id FROM decisions WHERE action_id = $1 AND tenant_id = $2;
