-- What account tells of a business story besides the common tables (form: common/story_queries.sql).

-- name: list_story
-- Postings, booked and refused, with the kinds of their accounts; and the calls that they came in.
SELECT at, kind, subject, summary, details FROM (
    SELECT booked_at AS at, 'call' AS kind, 'reference ' || reference_id AS subject,
        'CreateTransfers: ' || count(*) || CASE count(*) WHEN 1 THEN ' transfer'
            ELSE ' transfers' END || CASE WHEN bool_or(linked) THEN ', linked' ELSE '' END
            AS summary,
        jsonb_build_object('actor', actor) AS details
    FROM transfers WHERE biz_trace_id = $1 AND biz_trace_id <> ''
    GROUP BY booked_at, reference_id, actor
    UNION ALL
    SELECT t.booked_at, 'posting', 'transfer ' || t.id,
        t.movement || ' ' || lower(t.kind) || ' ' || t.status
            || CASE t.status WHEN 'REFUSED' THEN ': ' || t.reason
                ELSE ' ' || coalesce(d.kind, '?') || ' → ' || coalesce(c.kind, '?') END,
        jsonb_build_object('debit', t.debit_account_id, 'debit_kind', d.kind,
            'credit', t.credit_account_id, 'credit_kind', c.kind,
            'redirected_to', t.redirected_to, 'pending_id', t.pending_id,
            'asked_minor', t.amount_minor::text, 'amount_minor', t.booked_minor::text,
            'currency_code', t.currency_code, 'business_date', t.business_date::text,
            'reference', t.reference_id, 'reason', t.reason)
    FROM transfers AS t
    LEFT JOIN accounts AS d ON d.book = t.book AND d.id = t.debit_account_id
    LEFT JOIN accounts AS c ON c.book = t.book AND c.id = t.credit_account_id
    WHERE t.biz_trace_id = $1 AND t.biz_trace_id <> ''
) AS told
WHERE at >= $2
ORDER BY at
FETCH FIRST ($3) ROWS WITH TIES;

-- name: find_story
-- The stories of a transfer or of the noun that transfers belong to.
SELECT biz_trace_id FROM (
    SELECT biz_trace_id, tenant_id FROM transfers WHERE id = $1
    UNION ALL (SELECT biz_trace_id, tenant_id FROM transfers WHERE reference_id = $1 LIMIT 1)
) AS found
WHERE tenant_id = $2;
