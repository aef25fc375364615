-- The baselines' tables: the ledger's own columns and indexes, and no partitions, which is in the
-- baselines' favour.
CREATE TABLE plain_accounts (LIKE accounts INCLUDING ALL) WITH (fillfactor = 60);
CREATE TABLE plain_transfers (LIKE transfers INCLUDING ALL);
CREATE TABLE plain_entries (LIKE entries INCLUDING ALL);

-- One transfer, all of it on the server: the baseline of one round trip.
CREATE FUNCTION plain_post(transfer_id text, debit text, credit text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    available bigint;
    debited record;
    credited record;
BEGIN
    PERFORM 1 FROM plain_accounts WHERE book = 0 AND id IN (debit, credit) ORDER BY id FOR UPDATE;
    SELECT credits_posted_minor - debits_posted_minor - debits_pending_minor INTO available
    FROM plain_accounts WHERE book = 0 AND id = debit;
    IF available < 1 THEN
        RETURN false;
    END IF;
    UPDATE plain_accounts
    SET debits_posted_minor = debits_posted_minor + 1, version = version + 1, updated_at = now()
    WHERE book = 0 AND id = debit
    RETURNING version, debits_posted_minor, credits_posted_minor INTO debited;
    UPDATE plain_accounts
    SET credits_posted_minor = credits_posted_minor + 1, version = version + 1, updated_at = now()
    WHERE book = 0 AND id = credit
    RETURNING version, debits_posted_minor, credits_posted_minor INTO credited;
    INSERT INTO plain_transfers (
        book, amount_minor, booked_minor, debit_version, credit_version, booked_at,
        timeout_seconds, business_date, keep_rest, linked, forced, id, kind, status,
        debit_account_id, credit_account_id, currency_code, pending_id, movement, reference_id,
        biz_trace_id, tenant_id, mode, merchant_id, actor
    )
    VALUES (0, 1, 1, debited.version, credited.version, now(), 0, '2026-01-01', false, false,
            false, transfer_id, 'SINGLE', 'BOOKED', debit, credit, 'USD', '', 'bench.move',
            transfer_id, transfer_id, 'default', 'LIVE', '', '');
    INSERT INTO plain_entries (
        book, is_debit, business_date, version, amount_minor, debits_posted_minor,
        credits_posted_minor, booked_at, account_id, transfer_id
    )
    VALUES
        (0, true, '2026-01-01', debited.version, 1, debited.debits_posted_minor,
         debited.credits_posted_minor, now(), debit, transfer_id),
        (0, false, '2026-01-01', credited.version, 1, credited.debits_posted_minor,
         credited.credits_posted_minor, now(), credit, transfer_id);
    RETURN true;
END
$$;
