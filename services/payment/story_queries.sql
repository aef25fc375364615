-- What payment tells of a business story besides the common tables (form: common/story_queries.sql).

-- name: list_story
-- Payments and refunds as they were asked for, what was decided for them, each attempt, and what a
-- person had to look at. What was decided is dated by its row, which is written when all is.
SELECT at, kind, subject, summary, details FROM (
    SELECT created_at AS at, 'call' AS kind, 'payment ' || id AS subject,
        'CreatePayment' AS summary,
        jsonb_build_object('actor', actor, 'order_id', order_id,
            'idempotency_key_sha256', encode(sha256(convert_to(request_id, 'UTF8')), 'hex'),
            'merchant_id', merchant_id, 'product', product, 'form', form,
            'amount_minor', amount_minor::text, 'currency_code', currency_code) AS details
    FROM payments WHERE biz_trace_id = $1
    UNION ALL
    SELECT h.recorded_at, 'decision', 'payment ' || p.id, 'risk: ' || p.risk_verdict,
        jsonb_build_object('rules', p.risk_rules)
    FROM payments AS p
    JOIN history AS h ON h.id = p.id AND h.noun = 'payment' AND h.version = 1
    WHERE p.biz_trace_id = $1
    UNION ALL
    SELECT h.recorded_at, 'decision', 'payment ' || p.id,
        'product ' || p.product || CASE p.channel WHEN '' THEN ', no channel'
            ELSE ' by ' || p.channel END
            || CASE p.channel_reason WHEN '' THEN '' ELSE ': ' || p.channel_reason END,
        jsonb_build_object('product', p.product, 'channel', p.channel, 'reason', p.channel_reason)
    FROM payments AS p
    JOIN history AS h ON h.id = p.id AND h.noun = 'payment' AND h.version = 1
    WHERE p.biz_trace_id = $1
    UNION ALL
    SELECT greatest(a.created_at, h.recorded_at), 'decision', 'payment ' || a.payment_id,
        'attempt ' || a.attempt || ' at ' || a.channel,
        jsonb_build_object('reference', a.reference, 'channel', a.channel,
            'attempt', a.attempt::text)
    FROM payments AS p JOIN attempts AS a ON a.payment_id = p.id
    JOIN history AS h ON h.id = p.id AND h.noun = 'payment' AND h.version = 1
    WHERE p.biz_trace_id = $1
    UNION ALL
    SELECT created_at, 'exception', 'exception ' || id, kind || ' of ' || subject_id,
        jsonb_build_object('kind', kind, 'subject_id', subject_id, 'channel', channel,
            'amount_minor', amount_minor::text, 'currency_code', currency_code,
            'default_action', default_action, 'action', action, 'maker', maker,
            'checker', checker, 'resolution', resolution,
            'due_at', to_char(due_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
    FROM exceptions WHERE biz_trace_id = $1 AND biz_trace_id <> ''
    UNION ALL
    SELECT created_at, 'call', 'refund ' || id, 'RefundPayment',
        jsonb_build_object('actor', actor, 'payment_id', payment_id, 'order_id', order_id,
            'amount_minor', amount_minor::text, 'currency_code', currency_code)
    FROM refunds WHERE biz_trace_id = $1
) AS told
WHERE at >= $2
ORDER BY at
FETCH FIRST ($3) ROWS WITH TIES;

-- name: find_story
-- The stories of an order, payment or refund, or of a reference that a channel was given.
SELECT biz_trace_id FROM (
    SELECT biz_trace_id, tenant_id FROM payments WHERE id = $1
    UNION ALL SELECT biz_trace_id, tenant_id FROM payments WHERE order_id = $1
    UNION ALL SELECT biz_trace_id, tenant_id FROM refunds WHERE id = $1
    UNION ALL SELECT p.biz_trace_id, p.tenant_id
    FROM attempts AS a JOIN payments AS p ON p.id = a.payment_id WHERE a.reference = $1
) AS found
WHERE tenant_id = $2;
