-- What a callback told, as far as the channel has to be asked about it, and which are looked into.

ALTER TABLE callbacks
    ADD COLUMN told_transaction_no text NOT NULL DEFAULT '',
    ADD COLUMN told_payment_reference text NOT NULL DEFAULT '',
    ADD COLUMN told_requested_at timestamptz;
COMMENT ON COLUMN callbacks.told_transaction_no IS 'The channel''s own number';
COMMENT ON COLUMN callbacks.told_payment_reference IS 'Of a refund: our reference of its payment';
COMMENT ON COLUMN callbacks.told_requested_at IS 'When we sent what it tells of, if it says so';

-- Whoever looks into a callback asks by its id; the others are never looked for by it.
DROP INDEX callbacks_to_look_at;
CREATE INDEX callbacks_questioned ON callbacks (callback_id)
    WHERE verdict IN ('ORPHAN', 'CONTRADICTED', 'DOUBTED');
