-- What channel tells of a business story besides the common tables (form: common/story_queries.sql).
-- Nothing personal: no card, no name, no content of a code, no body of a callback.

-- name: list_story
-- Charges and refunds as they were asked for, what channels answered, and what they told by
-- themselves. What an answer said in the channel's own words is known of the last one.
SELECT at, kind, subject, summary, details FROM (
    SELECT created_at AS at, 'call' AS kind, 'charge ' || reference AS subject, 'Charge' AS summary,
        jsonb_build_object('actor', actor, 'payment_id', payment_id, 'merchant_id', merchant_id,
            'channel', channel, 'product', product, 'amount_minor', amount_minor::text,
            'currency_code', currency_code) AS details
    FROM charges WHERE biz_trace_id = $1 AND biz_trace_id <> ''
    UNION ALL
    SELECT created_at, 'call', 'refund ' || reference, 'Refund',
        jsonb_build_object('actor', actor, 'subject_id', subject_id, 'merchant_id', merchant_id,
            'charge_reference', charge_reference, 'channel', channel,
            'amount_minor', amount_minor::text, 'currency_code', currency_code)
    FROM channel_refunds WHERE biz_trace_id = $1 AND biz_trace_id <> ''
    UNION ALL
    SELECT h.at, 'channel_call', 'charge ' || h.id,
        c.channel || CASE WHEN h.from_state IN ('', 'NOT_SENT') THEN ' is sent the request'
            ELSE ' ' || h.reason || ' → ' || h.to_state END,
        jsonb_build_object('channel', c.channel,
            'verdict', CASE WHEN h.from_state IN ('', 'NOT_SENT') THEN '' ELSE h.to_state END)
        || CASE h.version WHEN c.version THEN jsonb_build_object(
            'channel_transaction_no', c.channel_transaction_no, 'raw_code', c.raw_code,
            'decline_code', c.decline_code, 'remedy', c.remedy, 'blame', c.blame) ELSE '{}' END
    FROM history AS h JOIN charges AS c ON c.reference = h.id
    WHERE h.biz_trace_id = $1 AND h.biz_trace_id <> '' AND h.noun = 'charge'
        AND h.reason NOT LIKE 'callback %'
    UNION ALL
    SELECT h.at, 'channel_call', 'refund ' || h.id,
        r.channel || CASE WHEN h.from_state IN ('', 'NOT_SENT') THEN ' is sent the request'
            ELSE ' ' || h.reason || ' → ' || h.to_state END,
        jsonb_build_object('channel', r.channel,
            'verdict', CASE WHEN h.from_state IN ('', 'NOT_SENT') THEN '' ELSE h.to_state END)
        || CASE h.version WHEN r.version THEN jsonb_build_object(
            'channel_transaction_no', r.channel_transaction_no, 'raw_code', r.raw_code,
            'decline_code', r.decline_code, 'remedy', r.remedy, 'blame', r.blame) ELSE '{}' END
    FROM history AS h JOIN channel_refunds AS r ON r.reference = h.id
    WHERE h.biz_trace_id = $1 AND h.biz_trace_id <> '' AND h.noun = 'refund'
        AND h.reason NOT LIKE 'callback %'
    UNION ALL
    SELECT received_at, 'callback', lower(kind) || ' ' || reference,
        channel || ' tells ' || told_state || ': ' || verdict,
        jsonb_build_object('channel', channel, 'callback_id', callback_id, 'notice_id', notice_id,
            'verdict', verdict, 'raw_code', raw_code, 'body_sha256', encode(body_digest, 'hex'),
            'told_minor', coalesce(told_minor::text, ''),
            'told_currency_code', coalesce(told_currency_code, ''))
    FROM callbacks
    WHERE reference IN (
        SELECT reference FROM charges WHERE biz_trace_id = $1 AND biz_trace_id <> ''
        UNION ALL
        SELECT reference FROM channel_refunds WHERE biz_trace_id = $1 AND biz_trace_id <> ''
    )
) AS told
WHERE at >= $2
ORDER BY at
FETCH FIRST ($3) ROWS WITH TIES;

-- name: find_story
-- The stories of a reference, payment or refund.
SELECT biz_trace_id FROM (
    SELECT biz_trace_id, tenant_id FROM charges WHERE reference = $1
    UNION ALL SELECT biz_trace_id, tenant_id FROM charges WHERE payment_id = $1
    UNION ALL SELECT biz_trace_id, tenant_id FROM channel_refunds WHERE reference = $1
    UNION ALL SELECT biz_trace_id, tenant_id FROM channel_refunds WHERE subject_id = $1
) AS found
WHERE tenant_id = $2;

-- name: find_story_thoroughly
-- The stories of a channel's own number, of its notice or of a callback: read from end to end.
SELECT biz_trace_id FROM (
    SELECT biz_trace_id, tenant_id FROM charges WHERE channel_transaction_no = $1
    UNION ALL SELECT biz_trace_id, tenant_id FROM channel_refunds WHERE channel_transaction_no = $1
    UNION ALL SELECT c.biz_trace_id, c.tenant_id FROM callbacks AS b
    JOIN charges AS c ON c.reference = b.reference WHERE b.callback_id = $1 OR b.notice_id = $1
    UNION ALL SELECT r.biz_trace_id, r.tenant_id FROM callbacks AS b
    JOIN channel_refunds AS r ON r.reference = b.reference
    WHERE b.callback_id = $1 OR b.notice_id = $1
) AS found
WHERE tenant_id = $2;
