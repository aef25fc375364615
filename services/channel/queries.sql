-- Channels, charges, refunds and callbacks of the schema `channel`.

-- name: insert_charges
-- Store the intents of new charges; answers those whose reference was free.
INSERT INTO charges (
    reference, tenant_id, mode, merchant_id, actor, biz_trace_id, channel, payment_id, product,
    card_id, subject, currency_code, amount_minor, expires_at, state, received_currency_code,
    received_minor, channel_transaction_no, qr_content, redirect_url, refusal_reason,
    decline_code, raw_code, raw_message, remedy, blame, paid_at, version, created_at, updated_at
)
SELECT
    reference, tenant_id, mode, merchant_id, actor, biz_trace_id, channel, payment_id, product,
    card_id, subject, currency_code, amount_minor, expires_at, state, received_currency_code,
    received_minor, channel_transaction_no, qr_content, redirect_url, refusal_reason,
    decline_code, raw_code, raw_message, remedy, blame, paid_at, version, created_at, updated_at
FROM
    unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bigint[],
    $14::timestamptz[], $15::text[], $16::text[], $17::bigint[], $18::text[], $19::text[],
    $20::text[], $21::text[], $22::text[], $23::text[], $24::text[], $25::text[], $26::text[],
    $27::timestamptz[], $28::bigint[], $29::timestamptz[], $30::timestamptz[])
    AS new (
        reference, tenant_id, mode, merchant_id, actor, biz_trace_id, channel, payment_id,
        product, card_id, subject, currency_code, amount_minor, expires_at, state,
        received_currency_code, received_minor, channel_transaction_no, qr_content,
        redirect_url, refusal_reason, decline_code, raw_code, raw_message, remedy, blame,
        paid_at, version, created_at, updated_at
    )
ON CONFLICT DO NOTHING
RETURNING reference;

-- name: find_charges
-- Charges by reference.
SELECT
    reference, tenant_id, mode, merchant_id, actor, biz_trace_id, channel, payment_id, product,
    card_id, subject, currency_code, amount_minor, expires_at, state, received_currency_code,
    received_minor, channel_transaction_no, qr_content, redirect_url, refusal_reason,
    decline_code, raw_code, raw_message, remedy, blame, paid_at, version, created_at, updated_at
FROM charges
WHERE reference = ANY ($1::text[]);

-- name: lock_charges
-- Charges by reference, locked in the order of their keys for a decision.
SELECT
    reference, tenant_id, mode, merchant_id, actor, biz_trace_id, channel, payment_id, product,
    card_id, subject, currency_code, amount_minor, expires_at, state, received_currency_code,
    received_minor, channel_transaction_no, qr_content, redirect_url, refusal_reason,
    decline_code, raw_code, raw_message, remedy, blame, paid_at, version, created_at, updated_at
FROM charges
WHERE reference = ANY ($1::text[])
ORDER BY reference
FOR UPDATE;

-- name: update_charges
-- Write what locked charges have become.
UPDATE charges SET
    state = new.state, received_currency_code = new.received_currency_code, received_minor =
    new.received_minor, channel_transaction_no = new.channel_transaction_no, qr_content =
    new.qr_content, redirect_url = new.redirect_url, refusal_reason = new.refusal_reason,
    decline_code = new.decline_code, raw_code = new.raw_code, raw_message = new.raw_message,
    remedy = new.remedy, blame = new.blame, paid_at = new.paid_at, version = new.version,
    updated_at = new.updated_at
FROM
    unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[],
    $14::timestamptz[], $15::bigint[], $16::timestamptz[])
    AS new (
        reference, state, received_currency_code, received_minor, channel_transaction_no,
        qr_content, redirect_url, refusal_reason, decline_code, raw_code, raw_message, remedy,
        blame, paid_at, version, updated_at
    )
WHERE charges.reference = new.reference;

-- name: insert_refunds
-- Store the intents of new refunds; answers those whose reference was free.
INSERT INTO channel_refunds (
    reference, charge_reference, tenant_id, mode, merchant_id, actor, biz_trace_id, channel,
    subject_id, currency_code, amount_minor, words, state, channel_transaction_no,
    refusal_reason, decline_code, raw_code, raw_message, remedy, blame, version, created_at,
    updated_at
)
SELECT
    reference, charge_reference, tenant_id, mode, merchant_id, actor, biz_trace_id, channel,
    subject_id, currency_code, amount_minor, words, state, channel_transaction_no,
    refusal_reason, decline_code, raw_code, raw_message, remedy, blame, version, created_at,
    updated_at
FROM
    unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::text[], $11::bigint[], $12::text[], $13::text[], $14::text[],
    $15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::bigint[],
    $22::timestamptz[], $23::timestamptz[])
    AS new (
        reference, charge_reference, tenant_id, mode, merchant_id, actor, biz_trace_id, channel,
        subject_id, currency_code, amount_minor, words, state, channel_transaction_no,
        refusal_reason, decline_code, raw_code, raw_message, remedy, blame, version, created_at,
        updated_at
    )
ON CONFLICT DO NOTHING
RETURNING reference;

-- name: find_refunds
-- Refunds by reference.
SELECT
    reference, charge_reference, tenant_id, mode, merchant_id, actor, biz_trace_id, channel,
    subject_id, currency_code, amount_minor, words, state, channel_transaction_no,
    refusal_reason, decline_code, raw_code, raw_message, remedy, blame, version, created_at,
    updated_at
FROM channel_refunds
WHERE reference = ANY ($1::text[]);

-- name: lock_refunds
-- Refunds by reference, locked in the order of their keys for a decision.
SELECT
    reference, charge_reference, tenant_id, mode, merchant_id, actor, biz_trace_id, channel,
    subject_id, currency_code, amount_minor, words, state, channel_transaction_no,
    refusal_reason, decline_code, raw_code, raw_message, remedy, blame, version, created_at,
    updated_at
FROM channel_refunds
WHERE reference = ANY ($1::text[])
ORDER BY reference
FOR UPDATE;

-- name: update_refunds
-- Write what locked refunds have become.
UPDATE channel_refunds SET
    state = new.state, channel_transaction_no = new.channel_transaction_no, refusal_reason =
    new.refusal_reason, decline_code = new.decline_code, raw_code = new.raw_code, raw_message =
    new.raw_message, remedy = new.remedy, blame = new.blame, version = new.version, updated_at =
    new.updated_at
FROM
    unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::bigint[], $11::timestamptz[])
    AS new (
        reference, state, channel_transaction_no, refusal_reason, decline_code, raw_code,
        raw_message, remedy, blame, version, updated_at
    )
WHERE channel_refunds.reference = new.reference;

-- name: sum_refunds
-- What was given back or is being given back, per charge; a refusal gives its part free again.
SELECT charge_reference, sum(amount_minor)::bigint AS amount_minor
FROM channel_refunds
WHERE charge_reference = ANY ($1::text[]) AND state NOT IN ('FAILED', 'NOT_SENT')
GROUP BY charge_reference;

-- name: find_callbacks
-- Which of these callbacks were taken before.
SELECT callbacks.channel, callbacks.notice_id
FROM callbacks
JOIN unnest($1::text[], $2::text[]) AS asked (channel, notice_id)
    ON callbacks.channel = asked.channel AND callbacks.notice_id = asked.notice_id;

-- name: insert_callbacks
-- Keep callbacks with what they came to; a copy that came at the same moment is dropped.
INSERT INTO callbacks (
    channel, notice_id, callback_id, kind, reference, told_state, told_currency_code,
    told_minor, raw_code, verdict, body_digest, biz_trace_id, received_at, told_transaction_no,
    told_payment_reference, told_requested_at
)
SELECT
    channel, notice_id, callback_id, kind, reference, told_state, told_currency_code,
    told_minor, raw_code, verdict, body_digest, biz_trace_id, received_at, told_transaction_no,
    told_payment_reference, told_requested_at
FROM
    unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::bigint[], $9::text[], $10::text[], $11::bytea[], $12::text[], $13::timestamptz[],
    $14::text[], $15::text[], $16::timestamptz[])
    AS new (
        channel, notice_id, callback_id, kind, reference, told_state, told_currency_code,
        told_minor, raw_code, verdict, body_digest, biz_trace_id, received_at,
        told_transaction_no, told_payment_reference, told_requested_at
    )
ON CONFLICT DO NOTHING
RETURNING callback_id;

-- name: find_kept_callback
-- A callback that was not simply believed, by its id.
SELECT
    channel, callback_id, kind, reference, verdict, told_state, told_currency_code, told_minor,
    told_transaction_no, told_payment_reference, told_requested_at, received_at
FROM callbacks
WHERE callback_id = $1 AND verdict IN ('ORPHAN', 'CONTRADICTED', 'DOUBTED');

-- name: put_channel
-- Write a channel as the file has it; its version grows only when something differs.
INSERT INTO channels (
    code, adapter, products, currency_codes, amount_min_minor, amount_max_minor,
    request_life_seconds, timeout_seconds, suspended, config, credentials, version, updated_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1, $12)
ON CONFLICT (code) DO UPDATE SET
    adapter = excluded.adapter, products = excluded.products, currency_codes =
    excluded.currency_codes, amount_min_minor = excluded.amount_min_minor, amount_max_minor =
    excluded.amount_max_minor, request_life_seconds = excluded.request_life_seconds,
    timeout_seconds = excluded.timeout_seconds, suspended = excluded.suspended, config =
    excluded.config, credentials = excluded.credentials, version = channels.version + 1,
    updated_at = excluded.updated_at
WHERE (
    channels.adapter, channels.products, channels.currency_codes, channels.amount_min_minor,
    channels.amount_max_minor, channels.request_life_seconds, channels.timeout_seconds,
    channels.suspended, channels.config, channels.credentials
) IS DISTINCT FROM (
    excluded.adapter, excluded.products, excluded.currency_codes, excluded.amount_min_minor,
    excluded.amount_max_minor, excluded.request_life_seconds, excluded.timeout_seconds,
    excluded.suspended, excluded.config, excluded.credentials
);

-- name: list_channels
-- All channels, by code.
SELECT
    code, adapter, products, currency_codes, amount_min_minor, amount_max_minor,
    request_life_seconds, timeout_seconds, suspended, config, credentials, version
FROM channels
ORDER BY code;

-- name: list_charge_facts
-- Charges by reference, for audits.
SELECT reference, channel, state, currency_code, amount_minor, payment_id,
    channel_transaction_no, coalesce(received_minor, 0) AS received_minor
FROM charges
WHERE reference > $1
ORDER BY reference
LIMIT $2;

-- name: list_refund_facts
-- Refunds by reference, for audits.
SELECT reference, channel, state, currency_code, amount_minor, charge_reference, subject_id
FROM channel_refunds
WHERE reference > $1
ORDER BY reference
LIMIT $2;

-- name: list_unfinished
-- What has not ended, by key. A conflict has, here: what becomes of the money is payment's to say,
-- as it is of questioned callbacks.
SELECT key, noun, state FROM (
    SELECT reference AS key, 'charge' AS noun, state
    FROM charges
    WHERE state IN ('UNKNOWN', 'PENDING')
    UNION ALL
    SELECT reference, 'refund', state FROM channel_refunds WHERE state IN ('UNKNOWN', 'PENDING')
    UNION ALL
    SELECT event_id, 'event', 'UNPUBLISHED' FROM outbox WHERE published_at IS NULL
) AS found
WHERE key COLLATE "C" > $1
ORDER BY key COLLATE "C"
LIMIT $2;
