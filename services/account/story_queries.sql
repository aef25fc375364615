-- What account tells of a business story besides the common tables (form: common/story_queries.sql).

-- name: list_story
-- Postings, booked and refused, with the kinds of their accounts; the calls that they came in; and
-- the vouchers of both and of the story's events, with their lines. Vouchers of the journal are found
-- by their transfers, and what stands in their place by what took them back: there is no index of
-- them by story. (OFFSET 0 lets each be looked up by itself, whatever is known of the tables.)
WITH journal AS MATERIALIZED (
    SELECT v.book, v.id
    FROM transfers AS t
    CROSS JOIN LATERAL (
        SELECT a.book, a.id FROM all_vouchers AS a
        WHERE a.book = t.book AND a.business_date = t.business_date AND a.source_id = t.id
            AND a.source = 'JOURNAL'
        OFFSET 0
    ) AS v
    WHERE t.biz_trace_id = $1 AND t.biz_trace_id <> ''
), told_by AS MATERIALIZED (
    SELECT book, id FROM journal
    UNION
    SELECT r.book, r.replacement_id
    FROM journal AS j
    JOIN voucher_reversals AS r ON r.book = j.book AND r.voucher_id = j.id
    WHERE r.replacement_id IS NOT NULL
    UNION
    SELECT book, id FROM all_vouchers
    WHERE biz_trace_id = $1 AND biz_trace_id <> '' AND source <> 'JOURNAL'
), vouched AS MATERIALIZED (
    SELECT v.book, v.business_date, v.number, v.tenant_id, v.mode, v.id, v.recorded_at, v.source,
        v.source_id, v.summary, v.currency_code, v.rule, v.rule_version, v.value_on, v.actor
    FROM told_by AS j
    CROSS JOIN LATERAL (
        SELECT a.book, a.business_date, a.number, a.tenant_id, a.mode, a.id, a.recorded_at,
            a.source, a.source_id, a.summary, a.currency_code, a.rule, a.rule_version, a.value_on,
            a.actor
        FROM all_vouchers AS a
        WHERE a.book = j.book AND a.id = j.id
        OFFSET 0
    ) AS v
)
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
    UNION ALL
    SELECT v.recorded_at, 'voucher', 'voucher ' || v.id,
        v.summary || ': no. ' || v.number || ' of ' || v.business_date || ', ' || (
            SELECT string_agg(l.subject_code || CASE WHEN l.is_debit THEN ' Dr ' ELSE ' Cr ' END
                || l.amount_minor, ' / ' ORDER BY l.line)
            FROM all_voucher_lines AS l
            WHERE l.book = v.book AND l.business_date = v.business_date
                AND l.tenant_id = v.tenant_id AND l.mode = v.mode AND l.number = v.number),
        jsonb_build_object('source', lower(v.source), 'made_from', v.source_id,
            'currency_code', v.currency_code, 'rule', v.rule,
            'rule_version', nullif(v.rule_version, 0)::text, 'value_on', v.value_on::text,
            'actor', v.actor)
    FROM vouched AS v
) AS told
WHERE at >= $2
ORDER BY at
FETCH FIRST ($3) ROWS WITH TIES;

-- name: find_story
-- The stories of a transfer, of a voucher, or of the noun that transfers belong to.
SELECT biz_trace_id FROM (
    SELECT biz_trace_id, tenant_id FROM transfers WHERE id = $1
    UNION ALL (SELECT biz_trace_id, tenant_id FROM transfers WHERE reference_id = $1 LIMIT 1)
    UNION ALL
    SELECT biz_trace_id, tenant_id FROM all_vouchers
    WHERE id = $1 AND book IN (SELECT book FROM business_dates) AND $1 LIKE 'vch%'
) AS found
WHERE tenant_id = $2;
