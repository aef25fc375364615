-- Request ids belong to whoever asks: two accountants, or one in two worlds, may give the same one
-- on the same day. Vouchers by hand are told apart by their own ids, which are made of all that; what
-- is made of a transfer, an event or a voucher is still there once only.
ALTER TABLE vouchers
    DROP CONSTRAINT vouchers_book_business_date_source_id_source_rule_rule_vers_key;

CREATE UNIQUE INDEX vouchers_by_source
ON vouchers (book, business_date, source_id, source, rule, rule_version)
WHERE source <> 'MANUAL';
