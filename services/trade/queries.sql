-- Orders and refunds (services/trade/migrations).

-- name: insert_orders
-- New orders; those whose number or request exists are left out and not returned.
INSERT INTO orders (id, tenant_id, mode, merchant_id, actor, request_id, merchant_order_no, type,
    state, version, currency_code, amount_minor, fee_minor, fee_rate_ppm, fee_returned_on_refund,
    user_id, subject, biz_trace_id, metadata, expires_in_seconds, business_date, expires_at,
    created_at, updated_at)
SELECT id, tenant_id, mode, merchant_id, actor, request_id, merchant_order_no, type,
    state, 1, currency_code, amount_minor, fee_minor, fee_rate_ppm, fee_returned_on_refund,
    user_id, subject, biz_trace_id, metadata, expires_in_seconds, business_date, expires_at,
    created_at, created_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[],
    $14::boolean[], $15::text[], $16::text[], $17::text[], $18::jsonb[], $19::int[], $20::text[],
    $21::timestamptz[], $22::timestamptz[])
    WITH ORDINALITY
    AS new (id, tenant_id, mode, merchant_id, actor, request_id, merchant_order_no, type,
        state, currency_code, amount_minor, fee_minor, fee_rate_ppm, fee_returned_on_refund,
        user_id, subject, biz_trace_id, metadata, expires_in_seconds, business_date, expires_at,
        created_at, place)
ORDER BY place
ON CONFLICT DO NOTHING
RETURNING id;

-- name: open_orders
-- Note orders as not ended, with the time at which they are to be closed.
INSERT INTO open_orders (order_id, due_at)
SELECT order_id, due_at FROM unnest($1::text[], $2::timestamptz[]) AS new (order_id, due_at);

-- name: find_orders_in_the_way
-- Orders that hold the request id or the number of orders that could not be written.
SELECT id, tenant_id, mode, merchant_id, actor, request_id, merchant_order_no, type, state, version,
    currency_code, amount_minor, fee_minor, fee_rate_ppm, fee_returned_on_refund, user_id, subject,
    payment_id, refunded_minor, refunding_minor, biz_trace_id, metadata, expires_in_seconds,
    business_date, expires_at, created_at, updated_at
FROM orders
WHERE (tenant_id, mode, merchant_id, request_id) IN (
        SELECT tenant_id, mode, merchant_id, request_id
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
            AS asked (tenant_id, mode, merchant_id, request_id))
UNION
SELECT id, tenant_id, mode, merchant_id, actor, request_id, merchant_order_no, type, state, version,
    currency_code, amount_minor, fee_minor, fee_rate_ppm, fee_returned_on_refund, user_id, subject,
    payment_id, refunded_minor, refunding_minor, biz_trace_id, metadata, expires_in_seconds,
    business_date, expires_at, created_at, updated_at
FROM orders
WHERE (tenant_id, mode, merchant_id, merchant_order_no) IN (
        SELECT tenant_id, mode, merchant_id, merchant_order_no
        FROM unnest($1::text[], $2::text[], $3::text[], $5::text[])
            AS asked (tenant_id, mode, merchant_id, merchant_order_no));

-- name: find_orders
-- Orders by id.
SELECT id, tenant_id, mode, merchant_id, actor, request_id, merchant_order_no, type, state, version,
    currency_code, amount_minor, fee_minor, fee_rate_ppm, fee_returned_on_refund, user_id, subject,
    payment_id, refunded_minor, refunding_minor, biz_trace_id, metadata, expires_in_seconds,
    business_date, expires_at, created_at, updated_at
FROM orders
WHERE id = ANY ($1::text[]);

-- name: list_orders
-- A page of a merchant's orders, newest first; the last id of the page before is left out.
SELECT id, tenant_id, mode, merchant_id, actor, request_id, merchant_order_no, type, state, version,
    currency_code, amount_minor, fee_minor, fee_rate_ppm, fee_returned_on_refund, user_id, subject,
    payment_id, refunded_minor, refunding_minor, biz_trace_id, metadata, expires_in_seconds,
    business_date, expires_at, created_at, updated_at
FROM orders
WHERE merchant_id = $1 AND tenant_id = $2 AND mode = $3 AND ($4 = '' OR id < $4)
    AND ($5 = '' OR merchant_order_no = $5)
ORDER BY id DESC
LIMIT $6;

-- name: claim_orders
-- Let payments win orders that nobody has won; locked in the order of ids. One payment an order.
WITH before AS MATERIALIZED (
    SELECT id, state FROM orders WHERE id = ANY ($1::text[]) ORDER BY id FOR UPDATE
)
UPDATE orders SET state = 'PAID', payment_id = wanted.payment_id, version = orders.version + 1,
    updated_at = $3
FROM before
JOIN unnest($1::text[], $2::text[]) AS wanted (order_id, payment_id) ON wanted.order_id = before.id
WHERE orders.id = before.id AND orders.payment_id = ''
    AND orders.state IN ('CREATED', 'CLOSING')
RETURNING orders.id, orders.version, orders.biz_trace_id, before.state AS from_state;

-- name: complete_orders
-- End orders whose payment is booked, when it is theirs and of their amount.
WITH before AS MATERIALIZED (
    SELECT id FROM orders WHERE id = ANY ($1::text[]) ORDER BY id FOR UPDATE
)
UPDATE orders SET state = 'COMPLETED', business_date = booked.business_date,
    version = orders.version + 1, updated_at = $6
FROM before
JOIN unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])
    AS booked (order_id, payment_id, currency_code, amount_minor, business_date)
    ON booked.order_id = before.id
WHERE orders.id = before.id AND orders.state = 'PAID' AND orders.payment_id = booked.payment_id
    AND orders.currency_code = booked.currency_code AND orders.amount_minor = booked.amount_minor
RETURNING orders.id, orders.tenant_id, orders.mode, orders.merchant_id, orders.actor,
    orders.request_id, orders.merchant_order_no, orders.type, orders.state, orders.version,
    orders.currency_code, orders.amount_minor, orders.fee_minor, orders.fee_rate_ppm,
    orders.fee_returned_on_refund, orders.user_id, orders.subject, orders.payment_id,
    orders.refunded_minor, orders.refunding_minor, orders.biz_trace_id, orders.metadata,
    orders.expires_in_seconds, orders.business_date, orders.expires_at, orders.created_at,
    orders.updated_at;

-- name: begin_closing
-- Let orders that nobody has paid be closing.
UPDATE orders SET state = 'CLOSING', version = version + 1, updated_at = $2
WHERE id = ANY ($1::text[]) AND state = 'CREATED'
RETURNING id, version, biz_trace_id;

-- name: finish_closing
-- Close orders whose payments are all closed, unless one has won meanwhile.
UPDATE orders SET state = 'CLOSED', version = version + 1, updated_at = $2
WHERE id = ANY ($1::text[]) AND state = 'CLOSING'
RETURNING id, tenant_id, mode, merchant_id, actor, request_id, merchant_order_no, type, state,
    version, currency_code, amount_minor, fee_minor, fee_rate_ppm, fee_returned_on_refund, user_id,
    subject, payment_id, refunded_minor, refunding_minor, biz_trace_id, metadata,
    expires_in_seconds, business_date, expires_at, created_at, updated_at;

-- name: forget_open_orders
-- Orders that have ended.
DELETE FROM open_orders WHERE order_id = ANY ($1::text[]);

-- name: take_due_orders
-- Orders whose time has come, put off so that no other process takes them meanwhile.
UPDATE open_orders SET due_at = $2, attempts = attempts + 1
WHERE order_id IN (
    SELECT order_id FROM open_orders WHERE due_at <= $1
    ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING order_id, attempts;

-- name: put_off_orders
-- Look at open orders again at these times.
UPDATE open_orders SET due_at = later.due_at
FROM unnest($1::text[], $2::timestamptz[]) AS later (order_id, due_at)
WHERE open_orders.order_id = later.order_id;

-- name: insert_refund
-- A new refund; none when its number or request exists.
INSERT INTO refunds (id, order_id, payment_id, tenant_id, mode, merchant_id, actor, request_id,
    merchant_refund_no, state, version, currency_code, amount_minor, reason, biz_trace_id,
    created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'PROCESSING', 1, $10, $11, $12, $13, $14, $14)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: reserve_refund
-- Take a refund's part of what is left of its order; none when too little is left.
UPDATE orders SET refunding_minor = refunding_minor + $2
WHERE id = $1 AND state = 'COMPLETED' AND payment_id <> ''
    AND refunded_minor + refunding_minor + $2 <= amount_minor
RETURNING id;

-- name: open_refund
-- Note a refund as not ended, with the time at which payment is asked again.
INSERT INTO open_refunds (refund_id, due_at) VALUES ($1, $2);

-- name: find_refund_in_the_way
-- The refund that holds a request id or, failing that, a number.
SELECT id, order_id, payment_id, tenant_id, mode, merchant_id, actor, request_id,
    merchant_refund_no, state, version, currency_code, amount_minor, fee_returned_minor, reason,
    failure_reason, biz_trace_id, created_at, updated_at
FROM refunds
WHERE tenant_id = $1 AND mode = $2 AND merchant_id = $3
    AND (request_id = $4 OR merchant_refund_no = $5)
ORDER BY request_id = $4 DESC
LIMIT 1;

-- name: find_refunds
-- Refunds by id.
SELECT id, order_id, payment_id, tenant_id, mode, merchant_id, actor, request_id,
    merchant_refund_no, state, version, currency_code, amount_minor, fee_returned_minor, reason,
    failure_reason, biz_trace_id, created_at, updated_at
FROM refunds
WHERE id = ANY ($1::text[]);

-- name: settle_refunds
-- Apply news of refunds that have not ended; locked in the order of ids. One piece a refund.
WITH before AS MATERIALIZED (
    SELECT id, state FROM refunds WHERE id = ANY ($1::text[]) ORDER BY id FOR UPDATE
)
UPDATE refunds SET state = news.state, fee_returned_minor = news.fee_returned_minor,
    failure_reason = news.failure_reason, version = refunds.version + 1, updated_at = $7
FROM before
JOIN unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])
    AS news (refund_id, state, currency_code, amount_minor, fee_returned_minor, failure_reason)
    ON news.refund_id = before.id
WHERE refunds.id = before.id AND refunds.currency_code = news.currency_code
    AND refunds.amount_minor = news.amount_minor
    AND (refunds.state = 'PROCESSING'
        OR refunds.state = 'WAITING_FUNDS' AND news.state IN ('COMPLETED', 'FAILED'))
RETURNING refunds.id, refunds.order_id, refunds.payment_id, refunds.tenant_id, refunds.mode,
    refunds.merchant_id, refunds.actor, refunds.request_id, refunds.merchant_refund_no,
    refunds.state, refunds.version, refunds.currency_code, refunds.amount_minor,
    refunds.fee_returned_minor, refunds.reason, refunds.failure_reason, refunds.biz_trace_id,
    refunds.created_at, refunds.updated_at, before.state AS from_state;

-- name: settle_orders_of_refunds
-- Add what was given back to orders, and release what was asked for.
WITH before AS MATERIALIZED (
    SELECT id FROM orders WHERE id = ANY ($1::text[]) ORDER BY id FOR UPDATE
)
UPDATE orders SET refunded_minor = orders.refunded_minor + ended.given_minor,
    refunding_minor = orders.refunding_minor - ended.released_minor,
    version = orders.version + CASE WHEN ended.given_minor > 0 THEN 1 ELSE 0 END,
    updated_at = CASE WHEN ended.given_minor > 0 THEN $4 ELSE orders.updated_at END
FROM before
JOIN unnest($1::text[], $2::bigint[], $3::bigint[])
    AS ended (order_id, given_minor, released_minor) ON ended.order_id = before.id
WHERE orders.id = before.id
RETURNING orders.id, orders.tenant_id, orders.mode, orders.merchant_id, orders.actor,
    orders.request_id, orders.merchant_order_no, orders.type, orders.state, orders.version,
    orders.currency_code, orders.amount_minor, orders.fee_minor, orders.fee_rate_ppm,
    orders.fee_returned_on_refund, orders.user_id, orders.subject, orders.payment_id,
    orders.refunded_minor, orders.refunding_minor, orders.biz_trace_id, orders.metadata,
    orders.expires_in_seconds, orders.business_date, orders.expires_at, orders.created_at,
    orders.updated_at;

-- name: forget_open_refunds
-- Refunds that have ended.
DELETE FROM open_refunds WHERE refund_id = ANY ($1::text[]);

-- name: take_due_refunds
-- Refunds that payment is to be asked about, put off so that no other process takes them meanwhile.
UPDATE open_refunds SET due_at = $2, attempts = attempts + 1
WHERE refund_id IN (
    SELECT refund_id FROM open_refunds WHERE due_at <= $1
    ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING refund_id, attempts;

-- name: put_off_refunds
-- Look at open refunds again at these times.
UPDATE open_refunds SET due_at = later.due_at
FROM unnest($1::text[], $2::timestamptz[]) AS later (refund_id, due_at)
WHERE open_refunds.refund_id = later.refund_id;

-- name: find_business_date
-- The last business date that was heard of.
SELECT business_date FROM business_dates WHERE tenant_id = $1 AND mode = $2;

-- name: keep_business_date
-- Note a business date; an earlier one changes nothing.
INSERT INTO business_dates AS kept (tenant_id, mode, business_date, updated_at)
VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant_id, mode) DO UPDATE SET
    business_date = excluded.business_date, updated_at = excluded.updated_at
WHERE kept.business_date < excluded.business_date;

-- name: list_order_facts
-- Orders in the order of their ids, for audits.
SELECT id AS key, jsonb_build_object('state', state, 'type', type, 'merchant_id', merchant_id,
    'merchant_order_no', merchant_order_no, 'currency_code', currency_code,
    'amount_minor', amount_minor::text, 'fee_minor', fee_minor::text,
    'refunded_minor', refunded_minor::text, 'payment_id', payment_id, 'user_id', user_id,
    'business_date', business_date, 'biz_trace_id', biz_trace_id) AS facts
FROM orders
WHERE tenant_id = $1 AND mode = $2 AND id > $3
ORDER BY id
LIMIT $4;

-- name: list_refund_facts
-- Refunds in the order of their ids, for audits.
SELECT id AS key, jsonb_build_object('state', state, 'order_id', order_id, 'payment_id', payment_id,
    'merchant_id', merchant_id, 'merchant_refund_no', merchant_refund_no,
    'currency_code', currency_code, 'amount_minor', amount_minor::text,
    'fee_returned_minor', fee_returned_minor::text, 'failure_reason', failure_reason,
    'biz_trace_id', biz_trace_id) AS facts
FROM refunds
WHERE tenant_id = $1 AND mode = $2 AND id > $3
ORDER BY id
LIMIT $4;

-- name: list_unfinished
-- Everything that has not ended, in the order of the keys.
SELECT key, facts FROM (
    SELECT orders.id AS key, jsonb_build_object('noun', 'order', 'state', state) AS facts
    FROM open_orders JOIN orders ON orders.id = open_orders.order_id
    WHERE tenant_id = $1 AND mode = $2
    UNION ALL
    SELECT refunds.id, jsonb_build_object('noun', 'refund', 'state', state)
    FROM open_refunds JOIN refunds ON refunds.id = open_refunds.refund_id
    WHERE tenant_id = $1 AND mode = $2
    UNION ALL
    SELECT job_id, jsonb_build_object('noun', 'job', 'state', state, 'kind', kind)
    FROM jobs WHERE state IN ('OPEN', 'PARKED') AND tenant_id = $1 AND mode = $2
    UNION ALL
    SELECT event_id, jsonb_build_object('noun', 'event', 'state', 'WAITING', 'type', type)
    FROM outbox WHERE published_at IS NULL AND tenant_id = $1 AND mode = $2
    UNION ALL
    SELECT event_id, jsonb_build_object('noun', 'inbox', 'state', 'PARKED', 'consumer', consumer)
    FROM inbox_parked
    UNION ALL
    SELECT event_id, jsonb_build_object('noun', 'inbox', 'state', 'DEAD', 'consumer', consumer)
    FROM inbox_dead
) AS unfinished
WHERE key COLLATE "C" > $3
ORDER BY key COLLATE "C"
LIMIT $4;
