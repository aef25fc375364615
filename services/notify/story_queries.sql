-- What notify tells of a business story besides the common tables (form: common/story_queries.sql).

-- name: list_story
-- Webhooks as they were made, and every attempt; after the last one, when the next is due.
SELECT at, kind, subject, summary, details FROM (
    SELECT d.created_at AS at, 'webhook' AS kind, 'delivery ' || d.id AS subject,
        d.type || ' is to be sent' AS summary,
        jsonb_build_object('webhook_id', d.webhook_id, 'endpoint_id', d.endpoint_id,
            'merchant_id', d.merchant_id, 'subject_id', d.subject_id, 'cause', w.cause) AS details
    FROM deliveries AS d JOIN webhooks AS w ON w.id = d.webhook_id
    WHERE d.biz_trace_id = $1 AND d.biz_trace_id <> ''
    UNION ALL
    SELECT a.at, 'webhook', 'delivery ' || d.id, d.type || ' attempt ' || a.attempt || ': '
            || CASE a.problem WHEN '' THEN 'HTTP ' || a.http_status ELSE a.problem END,
        jsonb_build_object('webhook_id', d.webhook_id, 'endpoint_id', d.endpoint_id,
            'subject_id', d.subject_id, 'attempt', a.attempt::text,
            'http_status', a.http_status::text, 'took_ms', a.took_ms::text,
            'next_attempt_at', CASE WHEN a.attempt = d.attempts THEN coalesce(
                to_char(d.next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), '')
                ELSE '' END)
    FROM deliveries AS d JOIN attempts AS a ON a.delivery_id = d.id
    WHERE d.biz_trace_id = $1 AND d.biz_trace_id <> ''
) AS told
WHERE at >= $2
ORDER BY at
FETCH FIRST ($3) ROWS WITH TIES;

-- name: find_story
-- The stories of a delivery, a webhook, or the noun of one.
SELECT biz_trace_id FROM (
    SELECT biz_trace_id, tenant_id FROM deliveries WHERE id = $1
    UNION ALL SELECT biz_trace_id, tenant_id FROM webhooks WHERE id = $1
    UNION ALL SELECT biz_trace_id, tenant_id FROM deliveries WHERE subject_id = $1
) AS found
WHERE tenant_id = $2;
