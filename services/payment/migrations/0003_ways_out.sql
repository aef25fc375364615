-- How money leaves that has to go back, decided before it is booked, and what goes back too often.

ALTER TABLE payments
    ADD COLUMN way_out text NOT NULL DEFAULT ''
        CHECK (way_out IN ('', 'RETURN', 'UNCLAIM')),
    ADD COLUMN late_returns int NOT NULL DEFAULT 0 CHECK (late_returns >= 0);
COMMENT ON COLUMN payments.way_out IS
    'What is booked of a payment that is RETURNING, or was; only one of both ever is';
COMMENT ON COLUMN payments.late_returns IS
    'How often its channel gave all of it back once too often; each is booked as a loss';
