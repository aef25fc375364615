-- What payment tells of a business story besides the common tables (form: common/story_queries.sql).

-- name: list_story
-- Payments and refunds as they were asked for, what was decided for them, and each attempt.
SELECT at, kind, subject, summary, details FROM (
    SELECT created_at AS at, 'call' AS kind, 'payment ' || id AS subject,
        'CreatePayment' AS summary,
        jsonb_build_object('actor', actor, 'request_id', request_id, 'order_id', order_id,
            'merchant_id', merchant_id, 'product', product, 'form', form,
            'amount_minor', amount_minor::text, 'currency_code', currency_code) AS details
    FROM payments WHERE biz_trace_id = $1
    UNION ALL
    SELECT created_at, 'decision', 'payment ' || id, 'risk: ' || risk_verdict,
        jsonb_build_object('rules', risk_rules)
    FROM payments WHERE biz_trace_id = $1
    UNION ALL
    SELECT created_at, 'decision', 'payment ' || id,
        product || CASE channel WHEN '' THEN ' by no channel' ELSE ' by ' || channel END
            || CASE channel_reason WHEN '' THEN '' ELSE ': ' || channel_reason END,
        jsonb_build_object('product', product, 'channel', channel, 'reason', channel_reason)
    FROM payments WHERE biz_trace_id = $1
    UNION ALL
    SELECT a.created_at, 'decision', 'payment ' || a.payment_id,
        'attempt ' || a.attempt || ' at ' || a.channel,
        jsonb_build_object('reference', a.reference, 'channel', a.channel,
            'attempt', a.attempt::text)
    FROM payments AS p JOIN attempts AS a ON a.payment_id = p.id WHERE p.biz_trace_id = $1
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
