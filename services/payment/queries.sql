-- name: insert_payments
-- Intents of many payments; an id that exists already is left alone and not returned.
INSERT INTO payments (id, order_id, tenant_id, mode, merchant_id, actor, request_id, product, form,
    state, version, currency_code, amount_minor, user_id, card_id, bank_code, subject, order_type,
    channel, channel_reason, attempt, risk_verdict, risk_rules, action_kind, action_content,
    failure_reason, decline_code, raw_code, advice, fee_minor, fee_returned_on_refund,
    business_date, biz_trace_id, client_ip, device_id, expires_at, created_at, updated_at)
SELECT id, order_id, tenant_id, mode, merchant_id, actor, request_id, product, form,
    state, version, currency_code, amount_minor, user_id, card_id, bank_code, subject, order_type,
    channel, channel_reason, attempt, risk_verdict, risk_rules, action_kind, action_content,
    failure_reason, decline_code, raw_code, advice, fee_minor, fee_returned_on_refund,
    business_date, biz_trace_id, client_ip, device_id, expires_at, created_at, created_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::text[], $11::bigint[], $12::text[], $13::bigint[], $14::text[],
    $15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::int[],
    $22::text[], $23::text[], $24::text[], $25::text[], $26::text[], $27::text[], $28::text[],
    $29::text[], $30::bigint[], $31::boolean[], $32::text[], $33::text[], $34::text[], $35::text[],
    $36::timestamptz[], $37::timestamptz[])
AS new (id, order_id, tenant_id, mode, merchant_id, actor, request_id, product, form,
    state, version, currency_code, amount_minor, user_id, card_id, bank_code, subject, order_type,
    channel, channel_reason, attempt, risk_verdict, risk_rules, action_kind, action_content,
    failure_reason, decline_code, raw_code, advice, fee_minor, fee_returned_on_refund,
    business_date, biz_trace_id, client_ip, device_id, expires_at, created_at)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: insert_attempts
-- References that are about to be sent to a channel.
INSERT INTO attempts (payment_id, attempt, reference, channel, created_at)
SELECT payment_id, attempt, reference, channel, created_at
FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::timestamptz[])
AS new (payment_id, attempt, reference, channel, created_at)
ON CONFLICT (payment_id, attempt) DO NOTHING;

-- name: update_payments
-- Outcomes of many payments, each only if its version is still the one that was read. One change
-- of a version: of two, the server would write either.
UPDATE payments SET state = new.state, version = new.version, channel = new.channel,
    channel_reason = new.channel_reason, attempt = new.attempt, action_kind = new.action_kind,
    action_content = new.action_content, failure_reason = new.failure_reason,
    decline_code = new.decline_code, raw_code = new.raw_code, advice = new.advice,
    business_date = new.business_date, updated_at = new.updated_at,
    received_currency_code = new.received_currency_code, received_minor = new.received_minor,
    return_attempt = new.return_attempt, retried_steps = new.retried_steps, way_out = new.way_out,
    late_returns = new.late_returns
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::int[],
    $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
    $15::timestamptz[], $16::text[], $17::bigint[], $18::int[], $19::text[], $20::text[], $21::int[])
AS new (id, expected_version, state, version, channel, channel_reason, attempt, action_kind,
    action_content, failure_reason, decline_code, raw_code, advice, business_date, updated_at,
    received_currency_code, received_minor, return_attempt, retried_steps, way_out, late_returns)
WHERE payments.id = new.id AND payments.version = new.expected_version
RETURNING payments.id, new.expected_version, EXISTS (
    SELECT FROM exceptions
    WHERE exceptions.subject_id = payments.id AND exceptions.state <> 'RESOLVED'
) AS has_exceptions;

-- name: find_payments
-- Payments by id.
SELECT id, order_id, tenant_id, mode, merchant_id, actor, request_id, product, form, state, version,
    currency_code, amount_minor, user_id, card_id, bank_code, subject, order_type, channel,
    channel_reason, attempt, risk_verdict, risk_rules, action_kind, action_content, failure_reason,
    decline_code, raw_code, advice, fee_minor, fee_returned_on_refund, refunded_minor,
    refunding_minor, fee_given_back_minor, business_date, biz_trace_id, client_ip, device_id,
    expires_at, created_at, updated_at, received_currency_code, received_minor, return_attempt,
    retried_steps, way_out, late_returns
FROM payments WHERE id = ANY ($1::text[]);

-- name: find_payments_of_order
-- All payments of one order, oldest first.
SELECT id, order_id, tenant_id, mode, merchant_id, actor, request_id, product, form, state, version,
    currency_code, amount_minor, user_id, card_id, bank_code, subject, order_type, channel,
    channel_reason, attempt, risk_verdict, risk_rules, action_kind, action_content, failure_reason,
    decline_code, raw_code, advice, fee_minor, fee_returned_on_refund, refunded_minor,
    refunding_minor, fee_given_back_minor, business_date, biz_trace_id, client_ip, device_id,
    expires_at, created_at, updated_at, received_currency_code, received_minor, return_attempt,
    retried_steps, way_out, late_returns
FROM payments WHERE order_id = $1 ORDER BY created_at, id;

-- name: find_payment_of_reference
-- The payment that a channel's reference was made for.
SELECT payment_id FROM attempts WHERE reference = $1;

-- name: list_payment_facts
-- Payments in the order of their ids, for audits.
SELECT id, order_id, mode, merchant_id, product, state, currency_code, amount_minor, fee_minor,
    refunded_minor, user_id, channel, order_type, attempt, business_date, received_currency_code,
    received_minor, return_attempt, way_out, late_returns
FROM payments WHERE id > $1 ORDER BY id LIMIT $2;

-- name: list_refund_facts
-- Refunds in the order of their ids, for audits.
SELECT id, payment_id, order_id, mode, merchant_id, state, currency_code, amount_minor,
    fee_returned_minor, source_kind, attempt, business_date
FROM refunds WHERE id > $1 ORDER BY id LIMIT $2;

-- name: list_unfinished
-- Every payment and refund that has not ended, in the order of their ids.
SELECT id, noun, state FROM (
    SELECT id, 'payment' AS noun, state FROM payments
    WHERE state NOT IN ('SUCCEEDED', 'FAILED', 'CLOSED', 'RETURNED', 'UNCLAIMED')
    UNION ALL
    SELECT id, 'refund' AS noun, state FROM refunds WHERE state NOT IN ('SUCCEEDED', 'FAILED')
    UNION ALL
    SELECT id, 'exception' AS noun, state FROM exceptions WHERE state <> 'RESOLVED'
    UNION ALL
    SELECT job_id AS id, 'job' AS noun, state FROM jobs WHERE state IN ('OPEN', 'PARKED')
    UNION ALL
    SELECT event_id AS id, 'event' AS noun, 'WAITING' AS state FROM outbox
    WHERE published_at IS NULL
    UNION ALL
    SELECT event_id AS id, 'heard event' AS noun, 'PARKED' AS state FROM inbox_parked
    UNION ALL
    SELECT event_id AS id, 'heard event' AS noun, 'DEAD' AS state FROM inbox_dead
) AS open_nouns
WHERE id > $1 ORDER BY id LIMIT $2;

-- name: reserve_refund
-- The cap: takes what is to go back out of what is left; no row when too little is left.
UPDATE payments SET refunding_minor = refunding_minor + $2,
    fee_given_back_minor = fee_given_back_minor + $3, updated_at = $4
WHERE id = $1 AND state = 'SUCCEEDED' AND refunded_minor + refunding_minor + $2 <= amount_minor
RETURNING id;

-- name: lock_payment
-- One payment, locked, so that the fee of a refund is computed from what stands.
SELECT id, order_id, tenant_id, mode, merchant_id, actor, request_id, product, form, state, version,
    currency_code, amount_minor, user_id, card_id, bank_code, subject, order_type, channel,
    channel_reason, attempt, risk_verdict, risk_rules, action_kind, action_content, failure_reason,
    decline_code, raw_code, advice, fee_minor, fee_returned_on_refund, refunded_minor,
    refunding_minor, fee_given_back_minor, business_date, biz_trace_id, client_ip, device_id,
    expires_at, created_at, updated_at, received_currency_code, received_minor, return_attempt,
    retried_steps, way_out, late_returns
FROM payments WHERE id = $1 FOR UPDATE;

-- name: finish_refund_reservation
-- A refund has ended: what was being given back is given back ($3), or free again.
UPDATE payments SET refunding_minor = refunding_minor - $2,
    refunded_minor = refunded_minor + CASE WHEN $3 THEN $2 ELSE 0 END,
    fee_given_back_minor = fee_given_back_minor - CASE WHEN $3 THEN 0 ELSE $4 END,
    updated_at = $5
WHERE id = $1;

-- name: insert_refund
-- Intent to give money back; an id that exists already is left alone.
INSERT INTO refunds (id, payment_id, order_id, tenant_id, mode, merchant_id, actor, state, version,
    currency_code, amount_minor, fee_returned_minor, reason, attempt, source_kind, failure_reason,
    raw_code, business_date, biz_trace_id, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, '', '', '', $16, $17, $17)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: find_refunds
-- Refunds by id.
SELECT id, payment_id, order_id, tenant_id, mode, merchant_id, actor, state, version, currency_code,
    amount_minor, fee_returned_minor, reason, attempt, source_kind, failure_reason, raw_code,
    business_date, biz_trace_id, created_at, updated_at, retried_steps
FROM refunds WHERE id = ANY ($1::text[]);

-- name: update_refund
-- Outcome of a refund, only if its version is still the one that was read.
UPDATE refunds SET state = $3, version = $4, attempt = $5, source_kind = $6, failure_reason = $7,
    raw_code = $8, business_date = $9, updated_at = $10, retried_steps = $11
WHERE id = $1 AND version = $2
RETURNING id, EXISTS (
    SELECT FROM exceptions
    WHERE exceptions.subject_id = refunds.id AND exceptions.state <> 'RESOLVED'
) AS has_exceptions;

-- name: list_exception_facts
-- Exceptions in the order of their ids, for audits and reports.
SELECT id, kind, state, mode, merchant_id, subject_id, payment_id, channel, currency_code,
    amount_minor, default_action, action, maker, checker, resolution, repeats
FROM exceptions WHERE id > $1 ORDER BY id LIMIT $2;

-- name: list_recovered_facts
-- Payments and refunds that have ended after nobody knew for a while, or by a question of the
-- janitor where the first call should have ended them, in the order of their ids.
SELECT id, noun, state, was_unknown FROM (
    SELECT p.id, 'payment' AS noun, p.state, EXISTS (
        SELECT FROM history h
        WHERE h.id = p.id AND h.noun = 'payment' AND h.to_state = 'UNKNOWN'
    ) AS was_unknown, (
        -- A payer who scans a code ends the payment by a job, and quite regularly.
        EXISTS (
            SELECT FROM history h
            WHERE h.id = p.id AND h.noun = 'payment' AND h.version = p.version
                AND h.cause LIKE 'job\_%'
        )
        AND NOT EXISTS (
            SELECT FROM history h
            WHERE h.id = p.id AND h.noun = 'payment' AND h.to_state = 'REQUIRES_ACTION'
        )
    ) AS was_asked
    FROM payments p
    WHERE p.state IN ('SUCCEEDED', 'FAILED', 'CLOSED', 'RETURNED', 'UNCLAIMED')
    UNION ALL
    SELECT r.id, 'refund' AS noun, r.state, EXISTS (
        SELECT FROM history h
        WHERE h.id = r.id AND h.noun = 'refund' AND h.to_state = 'UNKNOWN'
    ) AS was_unknown, EXISTS (
        SELECT FROM history h
        WHERE h.id = r.id AND h.noun = 'refund' AND h.version = r.version
            AND h.cause LIKE 'job\_%'
    ) AS was_asked
    FROM refunds r
    WHERE r.state IN ('SUCCEEDED', 'FAILED')
) AS ended
WHERE (was_unknown OR was_asked) AND id > $1 ORDER BY id LIMIT $2;

-- name: insert_exceptions
-- New exceptions; one of the same subject, kind and occasion stays as it is.
INSERT INTO exceptions (id, kind, state, version, tenant_id, mode, merchant_id, subject_id, payment_id,
    channel, currency_code, amount_minor, detail, occasion, default_action, due_at, repeats, action, maker,
    maker_reason, checker, checker_reason, resolution, biz_trace_id, created_at, updated_at)
SELECT id, kind, state, version, tenant_id, mode, merchant_id, subject_id, payment_id,
    channel, currency_code, amount_minor, detail, occasion, default_action, due_at, repeats, action, maker,
    maker_reason, checker, checker_reason, resolution, biz_trace_id, created_at, updated_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[], $14::text[],
    $15::text[], $16::timestamptz[], $17::int[], $18::text[], $19::text[], $20::text[],
    $21::text[], $22::text[], $23::text[], $24::text[], $25::timestamptz[], $26::timestamptz[])
AS new (id, kind, state, version, tenant_id, mode, merchant_id, subject_id, payment_id,
    channel, currency_code, amount_minor, detail, occasion, default_action, due_at, repeats, action, maker,
    maker_reason, checker, checker_reason, resolution, biz_trace_id, created_at, updated_at)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: update_exception
-- An exception after a move, only if its version is still the one that was read.
UPDATE exceptions SET state = $3, version = $4, detail = $5, due_at = $6, repeats = $7, action = $8,
    maker = $9, maker_reason = $10, checker = $11, checker_reason = $12, resolution = $13,
    updated_at = $14
WHERE id = $1 AND version = $2
RETURNING id;

-- name: find_exception
-- One exception.
SELECT id, kind, state, version, tenant_id, mode, merchant_id, subject_id, payment_id,
    channel, currency_code, amount_minor, detail, occasion, default_action, due_at, repeats, action, maker,
    maker_reason, checker, checker_reason, resolution, biz_trace_id, created_at, updated_at
FROM exceptions WHERE id = $1;

-- name: lock_open_exceptions
-- Exceptions of subjects that may be over with what has just been written, and those named.
SELECT id, kind, state, version, tenant_id, mode, merchant_id, subject_id, payment_id,
    channel, currency_code, amount_minor, detail, occasion, default_action, due_at, repeats, action, maker,
    maker_reason, checker, checker_reason, resolution, biz_trace_id, created_at, updated_at
FROM exceptions
WHERE (subject_id = ANY ($1::text[]) OR id = ANY ($2::text[])) AND state <> 'RESOLVED'
ORDER BY id
FOR UPDATE;

-- name: list_exceptions
-- A page of a world's exceptions, oldest deadline first.
SELECT id, kind, state, version, tenant_id, mode, merchant_id, subject_id, payment_id,
    channel, currency_code, amount_minor, detail, occasion, default_action, due_at, repeats, action, maker,
    maker_reason, checker, checker_reason, resolution, biz_trace_id, created_at, updated_at
FROM exceptions
WHERE tenant_id = $1 AND mode = $2 AND ($3 = '' OR kind = $3) AND ($4 OR state <> 'RESOLVED')
    AND (due_at, id) > ($5, $6)
ORDER BY due_at, id
LIMIT $7;

