-- What trade tells of a business story besides the common tables (form: common/story_queries.sql).

-- name: list_story
-- Orders and refunds as they were asked for, the fee that was agreed, and who won an order.
SELECT at, kind, subject, summary, details FROM (
    SELECT created_at AS at, 'call' AS kind, 'order ' || id AS subject, 'CreateOrder' AS summary,
        jsonb_build_object('actor', actor, 'merchant_id', merchant_id,
            'idempotency_key_sha256', encode(sha256(convert_to(request_id, 'UTF8')), 'hex'),
            'merchant_order_no', merchant_order_no, 'mode', mode, 'type', type,
            'amount_minor', amount_minor::text, 'currency_code', currency_code) AS details
    FROM orders WHERE biz_trace_id = $1 AND biz_trace_id <> ''
    UNION ALL
    SELECT created_at, 'decision', 'order ' || id, 'fee of ' || fee_rate_ppm || ' ppm',
        jsonb_build_object('fee_rate_ppm', fee_rate_ppm::text, 'fee_minor', fee_minor::text,
            'returned_on_refund', fee_returned_on_refund::text)
    FROM orders WHERE biz_trace_id = $1 AND biz_trace_id <> ''
    UNION ALL
    SELECT at, 'decision', 'order ' || id, reason, jsonb_build_object('actor', actor, 'cause', cause)
    FROM history
    WHERE biz_trace_id = $1 AND biz_trace_id <> '' AND noun = 'order' AND to_state = 'PAID'
    UNION ALL
    SELECT created_at, 'call', 'refund ' || id, 'CreateRefund',
        jsonb_build_object('actor', actor, 'merchant_id', merchant_id,
            'idempotency_key_sha256', encode(sha256(convert_to(request_id, 'UTF8')), 'hex'),
            'merchant_refund_no', merchant_refund_no, 'order_id', order_id,
            'payment_id', payment_id, 'amount_minor', amount_minor::text,
            'currency_code', currency_code)
    FROM refunds WHERE biz_trace_id = $1 AND biz_trace_id <> ''
) AS told
WHERE at >= $2
ORDER BY at
FETCH FIRST ($3) ROWS WITH TIES;

-- name: find_story
-- The stories of an id, a merchant's number or a request. A number is unique for each merchant and
-- world only, and their indexes begin with these: so it is looked for under each of them in turn.
WITH RECURSIVE worlds AS (
    (SELECT mode, merchant_id FROM orders WHERE tenant_id = $2 ORDER BY mode, merchant_id LIMIT 1)
    UNION ALL
    SELECT next.mode, next.merchant_id
    FROM worlds CROSS JOIN LATERAL (
        SELECT orders.mode, orders.merchant_id FROM orders
        WHERE orders.tenant_id = $2
            AND (orders.mode, orders.merchant_id) > (worlds.mode, worlds.merchant_id)
        ORDER BY orders.mode, orders.merchant_id LIMIT 1
    ) AS next
)
SELECT biz_trace_id FROM (
    SELECT biz_trace_id, created_at FROM orders WHERE id = $1 AND tenant_id = $2
    UNION
    SELECT biz_trace_id, created_at FROM refunds WHERE id = $1 AND tenant_id = $2
    UNION
    SELECT o.biz_trace_id, o.created_at FROM worlds JOIN orders AS o
        ON o.tenant_id = $2 AND o.mode = worlds.mode AND o.merchant_id = worlds.merchant_id
            AND o.merchant_order_no = $1
    UNION
    SELECT o.biz_trace_id, o.created_at FROM worlds JOIN orders AS o
        ON o.tenant_id = $2 AND o.mode = worlds.mode AND o.merchant_id = worlds.merchant_id
            AND o.request_id = $1
    UNION
    SELECT r.biz_trace_id, r.created_at FROM worlds JOIN refunds AS r
        ON r.tenant_id = $2 AND r.mode = worlds.mode AND r.merchant_id = worlds.merchant_id
            AND r.merchant_refund_no = $1
    UNION
    SELECT r.biz_trace_id, r.created_at FROM worlds JOIN refunds AS r
        ON r.tenant_id = $2 AND r.mode = worlds.mode AND r.merchant_id = worlds.merchant_id
            AND r.request_id = $1
) AS found
ORDER BY created_at DESC
LIMIT 21;
