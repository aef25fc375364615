-- What settlement tells of a business story besides the common tables (form: common/story_queries.sql).

-- name: list_story
-- Clearing entries.
SELECT created_at AS at, 'posting' AS kind, 'clearing_entry ' || id AS subject,
    CASE kind WHEN 'PAYMENT' THEN 'cleared ' ELSE 'cleared back ' END || subject_id AS summary,
    jsonb_build_object('merchant_id', merchant_id, 'gross_minor', gross_minor::text,
        'fee_minor', fee_minor::text, 'net_minor', net_minor::text,
        'currency_code', currency_code, 'business_date', business_date::text) AS details
FROM clearing_entries
WHERE biz_trace_id = $1 AND biz_trace_id <> '' AND created_at >= $2
ORDER BY created_at
FETCH FIRST ($3) ROWS WITH TIES;

-- name: find_story
-- The stories of an entry, payment or refund.
SELECT biz_trace_id FROM (
    SELECT biz_trace_id, tenant_id FROM clearing_entries WHERE id = $1
    UNION ALL SELECT biz_trace_id, tenant_id FROM clearing_entries WHERE subject_id = $1
) AS found
WHERE tenant_id = $2;
