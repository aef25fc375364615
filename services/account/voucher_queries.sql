-- Statements of the inner books: the chart, vouchers made of the journal and by hand, the register,
-- the trial balance. Whoever writes vouchers of a book holds the lock of its cursor, so numbers have
-- no gaps and a repeat sees what the first one wrote.

-- name: lock_chart
-- Processes that start at once bring the chart in one after the other.
SELECT pg_advisory_xact_lock(7742105911);

-- name: put_subjects
-- Subjects of the files, with names as they are now.
INSERT INTO subjects (code, parent_code, name, class, normal_side)
SELECT code, parent_code, name, class, normal_side
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
    AS new (code, parent_code, name, class, normal_side)
ORDER BY code
ON CONFLICT (code) DO UPDATE SET name = excluded.name
WHERE subjects.name <> excluded.name;

-- name: list_subject_differences
-- Subjects that the files have otherwise than they were, or have no more though vouchers are booked
-- on them.
SELECT kept.code, kept.class, kept.normal_side, new.code IS NULL AS is_missing
FROM subjects AS kept
LEFT JOIN unnest($1::text[], $2::text[], $3::text[]) AS new (code, class, normal_side)
    ON new.code = kept.code
WHERE new.class <> kept.class OR new.normal_side <> kept.normal_side
    OR (new.code IS NULL AND EXISTS (
        SELECT FROM subject_balances AS b WHERE b.subject_code = kept.code))
ORDER BY kept.code;

-- name: put_subject_kinds
-- Which subject each kind adds up to, where it is not known yet.
INSERT INTO subject_kinds (kind, subject_code)
SELECT kind, subject_code FROM unnest($1::text[], $2::text[]) AS new (kind, subject_code)
ORDER BY kind
ON CONFLICT DO NOTHING;

-- name: list_subject_kinds
-- Which subject each kind adds up to, for ever.
SELECT kind, subject_code FROM subject_kinds ORDER BY kind;

-- name: list_subjects_moved_by_hand
-- Of some subjects, those where something stands in a world that no account explains. (Closings are
-- left out, as in the proof.)
SELECT subject_code
FROM subject_balances
WHERE subject_code = ANY ($1::text[])
GROUP BY tenant_id, mode, subject_code, currency_code
HAVING sum(debits_minor) <> sum(credits_minor)
ORDER BY subject_code
LIMIT 1;

-- name: list_rules_on_subjects
-- Movements whose latest rule names one of some subjects, also rules that no file has any more.
SELECT l.movement, l.subject_code
FROM accounting_rule_lines AS l
WHERE l.subject_code = ANY ($1::text[]) AND l.version = (
    SELECT max(r.version) FROM accounting_rules AS r WHERE r.movement = l.movement)
ORDER BY l.movement
LIMIT 1;

-- name: list_kinds_in_use
-- Of all kinds but these, those that accounts have.
SELECT DISTINCT kind FROM accounts WHERE kind <> ALL ($1::text[]) ORDER BY kind;

-- name: put_rules
-- Rules of the files that are new.
INSERT INTO accounting_rules (movement, version, summary, lines)
SELECT movement, version, summary, lines
FROM ROWS FROM (unnest($1::text[]), unnest($2::integer[]), unnest($3::text[]),
    jsonb_array_elements($4::jsonb)) AS new (movement, version, summary, lines)
ORDER BY movement, version
ON CONFLICT DO NOTHING;

-- name: put_rule_lines
-- Their lines, for joins.
INSERT INTO accounting_rule_lines
    (movement, version, line, is_debit, subject_of, subject_code)
SELECT movement, version, line, is_debit, subject_of, subject_code
FROM unnest($1::text[], $2::integer[], $3::smallint[], $4::boolean[], $5::text[], $6::text[])
    AS new (movement, version, line, is_debit, subject_of, subject_code)
ORDER BY movement, version, line
ON CONFLICT DO NOTHING;

-- name: list_rules
-- All versions of all rules.
SELECT movement, version, summary, lines FROM accounting_rules ORDER BY movement, version;

-- name: list_books
-- The books that have a business date.
SELECT book FROM business_dates ORDER BY book;

-- name: insert_cursor
-- A book whose journal is to be followed from its beginning.
INSERT INTO voucher_cursors (book, written_in, moved_at)
VALUES ($1, '0', clock_timestamp())
ON CONFLICT DO NOTHING;

-- name: lock_cursor
-- How far a book's vouchers are made; nobody else writes vouchers of it until the commit.
SELECT written_in::text::bigint FROM voucher_cursors WHERE book = $1 FOR UPDATE;

-- name: try_lock_cursor
-- The same, or no row where another process is at it.
SELECT written_in::text::bigint FROM voucher_cursors WHERE book = $1 FOR UPDATE SKIP LOCKED;

-- name: read_cursor
-- How far a book's vouchers are made, without a lock.
SELECT written_in::text::bigint FROM voucher_cursors WHERE book = $1;

-- name: read_backlog
-- The first row of the journal that the cursor has not passed, complete or not: its transaction and
-- how many seconds ago it was booked.
SELECT t.written_in::text::bigint,
    extract(epoch FROM clock_timestamp() - t.booked_at)::double precision AS seconds
FROM transfers AS t
WHERE t.book = $1
    AND t.written_in > coalesce(
        (SELECT c.written_in FROM voucher_cursors AS c WHERE c.book = $1), '0')
ORDER BY t.written_in
LIMIT 1;

-- name: read_numbering
-- The cluster's next id (a snapshot's xmax is above all transactions that it sees), the greatest
-- number that is kept anywhere, the shift, and by how much new rows are shifted in truth: the column's
-- default belongs to the schema, the shift to the data, and each may be copied without the other.
WITH kept AS (
    SELECT c.written_in::text::bigint AS number FROM voucher_cursors AS c
    UNION ALL
    SELECT t.written_in::text::bigint
    FROM business_dates AS d
    CROSS JOIN LATERAL (
        SELECT t.written_in FROM transfers AS t
        WHERE t.book = d.book
        ORDER BY t.written_in DESC
        LIMIT 1
    ) AS t
    UNION ALL
    SELECT greatest(d.begun_in, d.watermark)::text::bigint - 1 FROM business_days AS d
)
SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
    coalesce((SELECT max(k.number) FROM kept AS k), 0), n.shift,
    coalesce((
        SELECT substring(pg_get_expr(d.adbin, d.adrelid) FROM '\+ ''?([0-9]+)')
        FROM pg_attrdef AS d
        JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
        WHERE d.adrelid = 'transfers'::regclass AND a.attname = 'written_in'
    ), '0')::bigint
FROM journal_numbering AS n;

-- name: update_numbering
-- Numbers are so much above the cluster's ids from now on.
UPDATE journal_numbering SET shift = $1, shifted_at = clock_timestamp();

-- name: move_watermarks
-- Days that are cut and not closed wait for all up to a number.
UPDATE business_days
SET watermark = ($1::bigint + 1)::text::xid8
WHERE state IN ('CUTTING', 'BROKEN');

-- name: renumber_without_vouchers
-- Transfers of days that are not closed, with numbers below one, that have no voucher: they get
-- another number. Returns how many. What was booked in this cluster was so after the transaction that
-- brought the numbering here ($3: the shift until now), so the whole past need not be looked at.
WITH moved AS (
    UPDATE transfers AS t
    SET written_in = $2::bigint::text::xid8
    FROM business_dates AS d
    CROSS JOIN journal_numbering AS n
    WHERE t.book = d.book AND t.written_in < $1::bigint::text::xid8
        AND t.written_in
            >= ($1::bigint - ($1 - $3::bigint - n.xmin::text::bigint) % 4294967296)::text::xid8
        AND t.status = 'BOOKED' AND t.kind IN ('SINGLE', 'POST')
        AND t.business_date >= (
            SELECT min(u.business_date) FROM business_days AS u WHERE u.state <> 'CLOSED')
        AND NOT EXISTS (
            SELECT FROM all_vouchers AS v
            WHERE v.book = t.book AND v.business_date = t.business_date AND v.source_id = t.id
                AND v.source = 'JOURNAL')
    RETURNING 1
)
SELECT count(*) FROM moved;

-- name: find_chunk
-- Up to which transaction the journal is complete, and up to which one the next rows go: all of
-- them, or whole transactions until about so many rows are together.
--
-- Below the oldest transaction that is still running nothing can appear any more. Those of other
-- databases cannot write here, and may run for long, so the snapshot's own xmin is not taken: of all
-- transactions that have begun before the snapshot, those that have not ended since are in the list
-- of sessions, with the lower half of their ids. (This statement only finds the horizon; what ended
-- meanwhile is seen by the next one.) The list shows the transactions of all roles, though not what
-- they do, and those that are prepared are in a list of their own.
WITH snapshot AS MATERIALIZED (
    SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next, n.shift
    FROM journal_numbering AS n
), running AS MATERIALIZED (
    SELECT (s.next - a.xid::text::bigint) % 4294967296 AS behind
    FROM snapshot AS s
    CROSS JOIN (
        SELECT backend_xid AS xid FROM pg_stat_activity
        WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND datname = current_database()
        UNION ALL
        SELECT transaction FROM pg_prepared_xacts WHERE database = current_database()
    ) AS a
), horizon AS MATERIALIZED (
    SELECT (s.shift + s.next - 1 - coalesce((
        -- Ids count round: what seems to be far behind has begun after the snapshot.
        SELECT max(r.behind) FROM running AS r WHERE r.behind BETWEEN 0 AND 2147483648
    ), 0))::text::xid8 AS complete
    FROM snapshot AS s
), filled AS MATERIALIZED (
    SELECT t.written_in
    FROM transfers AS t
    WHERE t.book = $1 AND t.written_in > $2::bigint::text::xid8
        AND t.written_in <= (SELECT h.complete FROM horizon AS h)
    ORDER BY t.written_in
    OFFSET $3 LIMIT 1
)
SELECT h.complete::text::bigint,
    coalesce((SELECT f.written_in FROM filled AS f), h.complete)::text::bigint AS until
FROM horizon AS h;

-- name: list_dates
-- The business dates of journal rows.
SELECT DISTINCT business_date
FROM transfers
WHERE book = $1 AND written_in > $2::bigint::text::xid8 AND written_in <= $3::bigint::text::xid8;

-- name: make_vouchers
-- Vouchers, lines, numbers and sums of the journal's rows after one transaction up to another, by
-- the latest version of their rules. A credit that was redirected is one of the account that really
-- got it. A subject that cannot be told is no row left out but an error. Returns how many vouchers.
WITH rules AS MATERIALIZED (
    SELECT DISTINCT ON (r.movement) r.movement, r.version, r.summary,
        (SELECT count(*) FROM accounting_rule_lines AS l
         WHERE l.movement = r.movement AND l.version = r.version AND l.is_debit) AS debits
    FROM accounting_rules AS r
    ORDER BY r.movement, r.version DESC
), moved AS MATERIALIZED (
    SELECT t.id, t.business_date, t.value_on, t.booked_minor, t.tenant_id, t.mode,
        t.currency_code, t.biz_trace_id, t.actor,
        rule.movement AS rule, rule.version, rule.summary, rule.debits,
        dk.subject_code AS debit_subject, ck.subject_code AS credit_subject,
        row_number() OVER (world ORDER BY t.written_in, t.id) AS place,
        count(*) OVER world AS places
    FROM transfers AS t
    LEFT JOIN accounts AS d ON d.book = t.book AND d.id = t.debit_account_id
    LEFT JOIN subject_kinds AS dk ON dk.kind = d.kind
    LEFT JOIN accounts AS c
        ON c.book = t.book AND c.id = coalesce(t.redirected_to, t.credit_account_id)
    LEFT JOIN subject_kinds AS ck ON ck.kind = c.kind
    LEFT JOIN rules AS named ON named.movement = t.movement
    LEFT JOIN rules AS rule ON rule.movement = coalesce(named.movement, '*')
    WHERE t.book = $1 AND t.written_in > $2::bigint::text::xid8
        AND t.written_in <= $3::bigint::text::xid8
        AND t.status = 'BOOKED' AND t.kind IN ('SINGLE', 'POST')
    WINDOW world AS (PARTITION BY t.business_date, t.tenant_id, t.mode)
), given AS (
    INSERT INTO voucher_numbers (book, business_date, number_last, tenant_id, mode)
    SELECT $1, business_date, count(*), tenant_id, mode
    FROM moved
    GROUP BY business_date, tenant_id, mode
    ON CONFLICT (book, business_date, tenant_id, mode)
    DO UPDATE SET number_last = voucher_numbers.number_last + excluded.number_last
    RETURNING business_date, tenant_id, mode, number_last
), numbered AS MATERIALIZED (
    SELECT m.id, m.business_date, m.value_on, m.booked_minor, m.tenant_id, m.mode,
        m.currency_code, m.biz_trace_id, m.actor, m.rule, m.version, m.summary, m.debits,
        m.debit_subject, m.credit_subject, g.number_last - m.places + m.place AS number
    FROM moved AS m
    JOIN given AS g ON g.business_date = m.business_date AND g.tenant_id = m.tenant_id
        AND g.mode = m.mode
), kept AS (
    INSERT INTO vouchers (book, business_date, number, rule_version, total_minor, recorded_at,
        value_on, id, tenant_id, mode, source, source_id, rule, currency_code, summary,
        biz_trace_id, actor)
    SELECT $1, business_date, number, version, booked_minor * debits, clock_timestamp(), value_on,
        'vch_' || substr(id, 5), tenant_id, mode, 'JOURNAL', id, rule, currency_code, summary,
        biz_trace_id, actor
    FROM numbered
    RETURNING 1
), told AS MATERIALIZED (
    SELECT n.business_date, n.number, l.line, l.is_debit, n.booked_minor, n.tenant_id, n.mode,
        n.currency_code,
        CASE l.subject_of WHEN 'DEBIT_ACCOUNT' THEN n.debit_subject
            WHEN 'CREDIT_ACCOUNT' THEN n.credit_subject ELSE l.subject_code END AS subject_code
    FROM numbered AS n
    JOIN accounting_rule_lines AS l ON l.movement = n.rule AND l.version = n.version
), lines AS (
    INSERT INTO voucher_lines (book, business_date, number, line, is_debit, amount_minor,
        tenant_id, mode, subject_code)
    SELECT $1, business_date, number, line, is_debit, booked_minor, tenant_id, mode, subject_code
    FROM told
), folded AS (
    INSERT INTO subject_balances (book, business_date, debits_minor, credits_minor, tenant_id,
        mode, subject_code, currency_code)
    SELECT $1, business_date, coalesce(sum(booked_minor) FILTER (WHERE is_debit), 0),
        coalesce(sum(booked_minor) FILTER (WHERE NOT is_debit), 0), tenant_id, mode, subject_code,
        currency_code
    FROM told
    GROUP BY business_date, tenant_id, mode, subject_code, currency_code
    ON CONFLICT (book, business_date, tenant_id, mode, subject_code, currency_code)
    DO UPDATE SET debits_minor = subject_balances.debits_minor + excluded.debits_minor,
        credits_minor = subject_balances.credits_minor + excluded.credits_minor
)
SELECT count(*) FROM kept;

-- name: move_cursor
-- The vouchers of a book are made up to a transaction.
UPDATE voucher_cursors
SET written_in = $2::bigint::text::xid8, moved_at = clock_timestamp()
WHERE book = $1;

-- name: share_business_date
-- The business date of a book, which does not move until the commit.
SELECT business_date FROM business_dates WHERE book = $1 FOR SHARE;

-- name: share_days
-- Of some days, those that still take vouchers; none of them closes until the commit.
SELECT business_date
FROM business_days
WHERE book = $1 AND business_date = ANY ($2::date[]) AND state <> 'CLOSED'
ORDER BY business_date
FOR SHARE;

-- name: insert_vouchers
-- Vouchers that are given one by one, in their order; returns their numbers.
WITH new AS MATERIALIZED (
    SELECT id, business_date, source, source_id, summary, currency_code, total_minor, tenant_id,
        mode, rule, rule_version, value_on, biz_trace_id, actor,
        row_number() OVER (world ORDER BY place) AS step, count(*) OVER world AS steps
    FROM unnest($2::text[], $3::date[], $4::text[], $5::text[], $6::text[], $7::text[],
        $8::bigint[], $9::text[], $10::text[], $11::text[], $12::integer[], $13::date[],
        $14::text[], $15::text[]) WITH ORDINALITY
        AS given (id, business_date, source, source_id, summary, currency_code, total_minor,
            tenant_id, mode, rule, rule_version, value_on, biz_trace_id, actor, place)
    WINDOW world AS (PARTITION BY business_date, tenant_id, mode)
), given AS (
    INSERT INTO voucher_numbers (book, business_date, number_last, tenant_id, mode)
    SELECT $1, business_date, count(*), tenant_id, mode
    FROM new
    GROUP BY business_date, tenant_id, mode
    ON CONFLICT (book, business_date, tenant_id, mode)
    DO UPDATE SET number_last = voucher_numbers.number_last + excluded.number_last
    RETURNING business_date, tenant_id, mode, number_last
)
INSERT INTO vouchers (book, business_date, number, rule_version, total_minor, recorded_at,
    value_on, id, tenant_id, mode, source, source_id, rule, currency_code, summary, biz_trace_id,
    actor)
SELECT $1, n.business_date, g.number_last - n.steps + n.step, n.rule_version, n.total_minor,
    clock_timestamp(), n.value_on, n.id, n.tenant_id, n.mode, n.source, n.source_id, n.rule,
    n.currency_code, n.summary, n.biz_trace_id, n.actor
FROM new AS n
JOIN given AS g
    ON g.business_date = n.business_date AND g.tenant_id = n.tenant_id AND g.mode = n.mode
RETURNING id, number, recorded_at;

-- name: insert_voucher_lines
-- The lines of given vouchers, and what they add to their days' sums; those of closings have sums of
-- their own.
WITH told AS MATERIALIZED (
    SELECT business_date, number, line, is_debit, amount_minor, tenant_id, mode, subject_code,
        currency_code, is_closing
    FROM unnest($2::date[], $3::bigint[], $4::smallint[], $5::boolean[], $6::bigint[], $7::text[],
        $8::text[], $9::text[], $10::text[], $11::boolean[])
        AS given (business_date, number, line, is_debit, amount_minor, tenant_id, mode,
            subject_code, currency_code, is_closing)
), lines AS (
    INSERT INTO voucher_lines (book, business_date, number, line, is_debit, amount_minor,
        tenant_id, mode, subject_code)
    SELECT $1, business_date, number, line, is_debit, amount_minor, tenant_id, mode, subject_code
    FROM told
)
INSERT INTO subject_balances (book, business_date, debits_minor, credits_minor,
    closing_debits_minor, closing_credits_minor, tenant_id, mode, subject_code, currency_code)
SELECT $1, business_date,
    coalesce(sum(amount_minor) FILTER (WHERE is_debit AND NOT is_closing), 0),
    coalesce(sum(amount_minor) FILTER (WHERE NOT is_debit AND NOT is_closing), 0),
    coalesce(sum(amount_minor) FILTER (WHERE is_debit AND is_closing), 0),
    coalesce(sum(amount_minor) FILTER (WHERE NOT is_debit AND is_closing), 0),
    tenant_id, mode, subject_code, currency_code
FROM told
GROUP BY business_date, tenant_id, mode, subject_code, currency_code
ON CONFLICT (book, business_date, tenant_id, mode, subject_code, currency_code)
DO UPDATE SET debits_minor = subject_balances.debits_minor + excluded.debits_minor,
    credits_minor = subject_balances.credits_minor + excluded.credits_minor,
    closing_debits_minor = subject_balances.closing_debits_minor + excluded.closing_debits_minor,
    closing_credits_minor = subject_balances.closing_credits_minor + excluded.closing_credits_minor;

-- name: read_latest_terms
-- How the latest version of its rule would book a transfer: the rule, and line by line the subjects.
WITH moved AS (
    SELECT t.booked_minor, dk.subject_code AS debit_subject, ck.subject_code AS credit_subject,
        (SELECT r.movement FROM accounting_rules AS r
         WHERE r.movement IN (t.movement, '*')
         ORDER BY r.movement = '*' LIMIT 1) AS rule
    FROM transfers AS t
    LEFT JOIN accounts AS d ON d.book = t.book AND d.id = t.debit_account_id
    LEFT JOIN subject_kinds AS dk ON dk.kind = d.kind
    LEFT JOIN accounts AS c
        ON c.book = t.book AND c.id = coalesce(t.redirected_to, t.credit_account_id)
    LEFT JOIN subject_kinds AS ck ON ck.kind = c.kind
    WHERE t.book = $1 AND t.id = $2
), latest AS (
    SELECT movement, version, summary
    FROM accounting_rules
    WHERE movement = (SELECT m.rule FROM moved AS m)
    ORDER BY version DESC
    LIMIT 1
)
SELECT r.movement AS rule, r.version, r.summary, l.is_debit, m.booked_minor,
    CASE l.subject_of WHEN 'DEBIT_ACCOUNT' THEN m.debit_subject
        WHEN 'CREDIT_ACCOUNT' THEN m.credit_subject ELSE l.subject_code END AS subject_code
FROM moved AS m
CROSS JOIN latest AS r
JOIN accounting_rule_lines AS l ON l.movement = r.movement AND l.version = r.version
ORDER BY l.line;

-- name: find_reversal
-- What took a voucher back, if anything did.
SELECT voucher_id, reversal_id, replacement_id, request_id, reason, actor
FROM voucher_reversals
WHERE book = $1 AND voucher_id = $2;

-- name: find_reversal_of_request
-- What a request took back.
SELECT voucher_id, reversal_id, replacement_id, request_id, reason, actor
FROM voucher_reversals
WHERE tenant_id = $1 AND mode = $2 AND actor = $3 AND request_id = $4;

-- name: insert_reversal
-- A voucher is taken back, once only.
INSERT INTO voucher_reversals (book, reversed_at, voucher_id, reversal_id, replacement_id,
    tenant_id, mode, request_id, reason, actor)
VALUES ($1, clock_timestamp(), $2, $3, $4, $5, $6, $7, $8, $9);

-- name: find_vouchers
-- Vouchers by id, without their lines.
SELECT v.id, v.book, v.business_date, v.source, v.source_id, v.summary, v.currency_code,
    v.tenant_id, v.mode, v.rule, v.rule_version, v.value_on, v.biz_trace_id, v.actor, v.number,
    v.recorded_at, coalesce(r.reversal_id, '') AS reversed_by_id
FROM all_vouchers AS v
LEFT JOIN voucher_reversals AS r ON r.book = v.book AND r.voucher_id = v.id
WHERE v.book = $1 AND v.id = ANY ($2::text[]);

-- name: list_vouchers
-- A page of one world's register behind a day and number, in their order, without lines. The bounds
-- are said twice: in one row for the index, and by days for the choice of months.
SELECT v.id, v.book, v.business_date, v.source, v.source_id, v.summary, v.currency_code,
    v.tenant_id, v.mode, v.rule, v.rule_version, v.value_on, v.biz_trace_id, v.actor, v.number,
    v.recorded_at, coalesce(r.reversal_id, '') AS reversed_by_id
FROM all_vouchers AS v
LEFT JOIN voucher_reversals AS r ON r.book = v.book AND r.voucher_id = v.id
WHERE v.book = $1 AND v.tenant_id = $2 AND v.mode = $3
    AND v.business_date >= $4 AND v.business_date <= $5
    AND (v.business_date, v.tenant_id, v.mode, v.number) > ($4, $2, $3, $6)
    AND ($7 = '' OR v.source = $7)
    AND ($8 = '' OR EXISTS (
        SELECT FROM all_voucher_lines AS l
        WHERE l.book = v.book AND l.business_date = v.business_date AND l.tenant_id = v.tenant_id
            AND l.mode = v.mode AND l.number = v.number AND l.subject_code = $8))
ORDER BY v.business_date, v.number
LIMIT $9;

-- name: list_lines
-- The lines of vouchers of one world. Each voucher's are looked up by themselves (OFFSET 0 keeps the
-- planner from joining whole tables, of which it may know nothing yet).
SELECT l.business_date, l.number, l.subject_code, l.is_debit, l.amount_minor
FROM unnest($4::date[], $5::bigint[]) AS wanted (business_date, number)
CROSS JOIN LATERAL (
    SELECT a.business_date, a.number, a.line, a.subject_code, a.is_debit, a.amount_minor
    FROM all_voucher_lines AS a
    WHERE a.book = $1 AND a.business_date = wanted.business_date AND a.tenant_id = $2
        AND a.mode = $3 AND a.number = wanted.number
    OFFSET 0
) AS l
ORDER BY l.business_date, l.number, l.line;

-- name: sum_subjects
-- One world's sums by currency and subject, over all books, vouchers of closings included: debits
-- less credits before the first day, debits and credits from it to the last. What was before the
-- last period that was closed earlier is kept with that period. Names and sides are the table's: a
-- process with newer files may have booked on subjects that this one has never heard of.
WITH closed AS MATERIALIZED (
    SELECT max(p.period) AS period
    FROM periods AS p
    WHERE p.period < to_char($3::date, 'YYYY-MM')
), sums AS (
    SELECT b.currency_code, b.subject_code,
        CASE s.normal_side WHEN 'DEBIT' THEN b.closing_minor ELSE -b.closing_minor END AS opening,
        0::numeric AS debits, 0::numeric AS credits
    FROM period_balances AS b
    JOIN subjects AS s ON s.code = b.subject_code
    WHERE b.tenant_id = $1 AND b.mode = $2 AND b.period = (SELECT c.period FROM closed AS c)
    UNION ALL
    SELECT currency_code, subject_code,
        CASE WHEN business_date < $3 THEN debits_minor + closing_debits_minor - credits_minor
            - closing_credits_minor ELSE 0 END,
        CASE WHEN business_date >= $3 THEN debits_minor + closing_debits_minor ELSE 0 END,
        CASE WHEN business_date >= $3 THEN credits_minor + closing_credits_minor ELSE 0 END
    FROM subject_balances
    WHERE tenant_id = $1 AND mode = $2 AND business_date <= $4
        AND business_date >= coalesce(
            (to_date((SELECT c.period FROM closed AS c), 'YYYY-MM') + interval '1 month')::date,
            '0001-01-01')
)
SELECT o.currency_code, o.subject_code, s.name, s.normal_side, sum(o.opening), sum(o.debits),
    sum(o.credits)
FROM sums AS o
JOIN subjects AS s ON s.code = o.subject_code
GROUP BY o.currency_code, o.subject_code, s.name, s.normal_side
HAVING sum(o.opening) <> 0 OR sum(o.debits) <> 0 OR sum(o.credits) <> 0
ORDER BY o.currency_code, o.subject_code;
