-- name: stage
-- The moves by number: who is debited and credited, what came before, and when.
CREATE UNLOGGED TABLE bench_moves AS
SELECT round, place, (place + 1 + round % ({accounts} - 1)) % {accounts} AS credit_place,
       ((place - 1 - round % ({accounts} - 1)) % {accounts} + {accounts}) % {accounts} < place
           AS is_credited_before,
       (place + 1 + round % ({accounts} - 1)) % {accounts} < place AS is_debited_before,
       to_timestamp(at_ms / 1000.0) AS booked_at,
       {time_letters} || '00' || substr(md5(number::text), 1, 14) AS letters
FROM (
    SELECT number, (number / {accounts})::integer AS round,
           (number % {accounts})::integer AS place,
           {first_ms} + ({last_ms} - {first_ms}) * number / ({rounds} * {accounts}) AS at_ms
    FROM generate_series(0, {rounds}::bigint * {accounts} - 1) AS number
) AS numbered;

-- name: detach
-- The month's tables are filled without indexes, which are made again when they are attached.
ALTER TABLE transfers DETACH PARTITION transfers_{month};
ALTER TABLE entries DETACH PARTITION entries_{month};
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT i.indexrelid::regclass AS name, i.indrelid::regclass AS owner, i.indisprimary
        FROM pg_index i
        WHERE i.indrelid IN ('transfers_{month}'::regclass, 'entries_{month}'::regclass)
    LOOP
        IF one.indisprimary THEN
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', one.owner, one.name);
        ELSE
            EXECUTE format('DROP INDEX %s', one.name);
        END IF;
    END LOOP;
END
$$;

-- name: transfers
-- The journal.
INSERT INTO transfers_{month} (
    book, amount_minor, booked_minor, debit_version, credit_version, booked_at, timeout_seconds,
    business_date, keep_rest, linked, forced, id, kind, status, debit_account_id,
    credit_account_id, currency_code, pending_id, movement, reference_id, biz_trace_id, tenant_id,
    mode, merchant_id, actor
)
SELECT 0, 1, 1, {version_before} + 2 * m.round + 1 + m.is_credited_before::integer,
       {version_before} + 2 * m.round + 1 + m.is_debited_before::integer, m.booked_at, 0,
       day.business_date, false, false, false, 'tfr_' || m.letters, 'SINGLE', 'BOOKED', debit.id,
       credit.id, 'USD', '', 'bench.move', 'pay_' || m.letters, 'btr_' || m.letters, 'default',
       'LIVE', '', 'MERCHANT:bench'
FROM bench_moves m
JOIN bench_accounts debit ON debit.place = m.place
JOIN bench_accounts credit ON credit.place = m.credit_place
CROSS JOIN (SELECT business_date FROM business_dates WHERE book = 0) AS day;

-- name: entries
-- Two lines for each transfer, with the version and sums of their account after it.
INSERT INTO entries_{month} (
    book, is_debit, business_date, version, amount_minor, debits_posted_minor,
    credits_posted_minor, booked_at, account_id, transfer_id
)
SELECT 0, line.is_debit, day.business_date, {version_before} + 2 * m.round + 1 + line.before, 1,
       m.round + CASE WHEN line.is_debit THEN 1 ELSE line.before END,
       {funds_minor} + m.round + CASE WHEN line.is_debit THEN line.before ELSE 1 END,
       m.booked_at, account.id, 'tfr_' || m.letters
FROM bench_moves m
CROSS JOIN LATERAL (
    VALUES (true, m.place, m.is_credited_before::integer),
           (false, m.credit_place, m.is_debited_before::integer)
) AS line (is_debit, place, before)
JOIN bench_accounts account ON account.place = line.place
CROSS JOIN (SELECT business_date FROM business_dates WHERE book = 0) AS day;

-- name: accounts
-- The accounts as they stand after the last round.
UPDATE accounts a
SET debits_posted_minor = {rounds}, credits_posted_minor = {funds_minor} + {rounds},
    version = {version_before} + 2 * {rounds}
FROM bench_accounts b
WHERE a.book = 0 AND a.id = b.id;

-- name: attach_transfers
-- Makes the indexes too.
ALTER TABLE transfers ATTACH PARTITION transfers_{month} FOR VALUES FROM ('{low}') TO ('{high}');

-- name: attach_entries
-- Makes the indexes too.
ALTER TABLE entries ATTACH PARTITION entries_{month} FOR VALUES FROM ('{low}') TO ('{high}');

-- name: inner_books
-- The sums of the inner books, and the journal followed to its end: the vouchers of these transfers
-- are as good as archived with their period.
WITH moved AS (
    UPDATE subject_balances
    SET debits_minor = debits_minor + {rounds}::bigint * {accounts},
        credits_minor = credits_minor + {rounds}::bigint * {accounts}
    WHERE book = 0 AND subject_code = (
        SELECT subject_code FROM subject_kinds WHERE kind = 'user_available'
    )
)
UPDATE voucher_cursors SET written_in = pg_current_xact_id() WHERE book = 0;

-- name: tidy
-- Nothing of the making stays.
DROP TABLE bench_moves, bench_accounts;
