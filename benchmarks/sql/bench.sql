-- What the benchmark's loads share: numbered wallets, rows as the wallet API writes them, and procedures that make many
-- at once. All of it is in its own schema, beside the schemas under test.
CREATE SCHEMA bench;

-- The id of wallet 1, 2, 3, …: every load can compute it, and ids are spread over the indexes as random ones are.
CREATE FUNCTION bench.wallet_id(number bigint) RETURNS uuid IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN md5('wallet-' || number)::uuid;

-- An Idempotency-Key, from random numbers, which pgbench can draw.
CREATE FUNCTION bench.key(high bigint, low bigint) RETURNS text IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN to_hex(high) || '-' || to_hex(low);

-- `common.identifiers.lane_of`.
CREATE FUNCTION bench.lane(id uuid) RETURNS smallint IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN (crc32(uuid_send(id)) % 64)::smallint;

-- `common.money.to_major` of a currency with two decimals.
CREATE FUNCTION bench.major(minor bigint) RETURNS text IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN minor / 100 || '.' || lpad((minor % 100)::text, 2, '0');

CREATE FUNCTION bench.moment(at timestamptz) RETURNS text STABLE PARALLEL SAFE LANGUAGE sql
RETURN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

CREATE FUNCTION bench.change(id uuid, user_id text, version bigint, balance bigint, direction text) RETURNS text
IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN '{"wallet_id":"' || id || '","user_id":"' || user_id || '","version":' || version || ',"balance_after":"'
    || bench.major(balance) || '","held_after":' || CASE WHEN direction IS NULL THEN 'null' ELSE '"0.00"' END
    || ',"direction":' || coalesce('"' || direction || '"', 'null') || '}';

-- An event (`common.events.models`): the fields of its type are before and after its wallets.
CREATE FUNCTION bench.event(
    event_id uuid, at timestamptz, event_type text, before text, changes text, after text
) RETURNS json STABLE PARALLEL SAFE LANGUAGE sql
RETURN ('{"schema_version":1,"event_id":"' || event_id || '","created_at":"' || bench.moment(at)
    || '","currency":"EUR","metadata":{},"event_type":"' || event_type || '",' || before || '"wallets":[' || changes || ']'
    || after || '}')::json;

CREATE FUNCTION bench.transaction(transaction_id uuid) RETURNS text IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN '"transaction_id":"' || transaction_id || '","reference":null,';

CREATE FUNCTION bench.amount(amount bigint) RETURNS text IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN ',"amount":"' || bench.major(amount) || '"';

-- `wallet_api.replies.transaction_reply` of a transfer.
CREATE FUNCTION bench.reply(
    transaction_id uuid, sender uuid, receiver uuid, amount bigint, balance bigint, version bigint, at timestamptz
) RETURNS bytea STABLE PARALLEL SAFE LANGUAGE sql
RETURN convert_to('{"transaction_id":"' || transaction_id || '","type":"TRANSFER","wallet_id":"' || sender
    || '","counterparty_wallet_id":"' || receiver || '","amount":"' || bench.major(amount)
    || '","currency":"EUR","balance":"' || bench.major(balance) || '","held":"0.00","available":"'
    || bench.major(balance) || '","version":' || version
    || ',"reference":null,"external_id":null,"metadata":{},"created_at":"' || bench.moment(at) || '"}', 'UTF8');

CREATE FUNCTION bench.etag(version bigint) RETURNS json IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN ('{"ETag":"\"' || version || '\""}')::json;

CREATE FUNCTION bench.request_hash(sender uuid, receiver uuid, amount bigint) RETURNS bytea
IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN sha256(convert_to('POST' || E'\n/wallets/' || sender || E'/transfer\n{"amount":"' || bench.major(amount)
    || '","currency":null,"metadata":{},"reference":null,"to_wallet_id":"' || receiver || '"}', 'UTF8'));

-- Makes wallets 1 to `count`, each funded once: two versions, two events.
CREATE PROCEDURE bench.make_wallets(count bigint, balance bigint) LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMP TABLE made ON COMMIT DROP AS
    SELECT number, bench.wallet_id(number) AS id, 'user-' || number AS user_id, uuidv7() AS transaction_id,
        uuidv7() AS created_event_id, uuidv7() AS funded_event_id, now() AS at
    FROM generate_series(1, count) AS number ORDER BY number;

    INSERT INTO wallet.wallets (id, user_id, currency, balance_minor, version, created_at, updated_at)
    SELECT id, user_id, 'EUR', balance, 2, at, at FROM made;

    INSERT INTO wallet.wallet_transactions (
        transaction_id, entry, wallet_id, wallet_version, counterparty_wallet_id, type, amount_minor, currency,
        balance_after_minor, held_after_minor, metadata, created_at
    )
    SELECT transaction_id, 1, id, 2, NULL, 'FUND', balance, 'EUR', balance, 0, '{}'::jsonb, at FROM made
    UNION ALL
    SELECT transaction_id, 2, NULL, NULL, id, 'FUND', -balance, 'EUR', NULL, NULL, NULL, at FROM made;

    INSERT INTO wallet.outbox (event_id, aggregate_id, lane, event_type, payload, created_at)
    SELECT event_id, id, bench.lane(id), event_type,
        bench.event(
            event_id, at, event_type, before, bench.change(id, user_id, version, balance_after, direction), after
        ), at
    FROM made CROSS JOIN LATERAL (
        VALUES
            (created_event_id, 'WALLET_CREATED', '"external_id":null,', '', 1, 0::bigint, NULL),
            (
                funded_event_id, 'WALLET_FUNDED', bench.transaction(transaction_id), bench.amount(balance), 2, balance,
                'in'
            )
    ) AS event (event_id, event_type, before, after, version, balance_after, direction)
    ORDER BY number, version;
END $$;

-- In one round each wallet sends one cent to the next one, in the order of numbers. All but the first have received a cent
-- before. After the round each wallet has two more versions, and its balance is unchanged.
CREATE PROCEDURE bench.make_transfers(count bigint, balance bigint, round bigint) LANGUAGE plpgsql AS $$
BEGIN
    CREATE TEMP TABLE made ON COMMIT DROP AS
    SELECT number, bench.wallet_id(number) AS sender, 'user-' || number AS sender_user,
        2 * round + CASE number WHEN 1 THEN 3 ELSE 4 END AS sender_version,
        balance - CASE number WHEN 1 THEN 1 ELSE 0 END AS sender_balance,
        bench.wallet_id(number % count + 1) AS receiver, 'user-' || number % count + 1 AS receiver_user,
        2 * round + CASE number WHEN count THEN 4 ELSE 3 END AS receiver_version,
        balance + CASE number WHEN count THEN 0 ELSE 1 END AS receiver_balance,
        uuidv7() AS transaction_id, uuidv7() AS event_id, now() AS at
    FROM generate_series(1, count) AS number ORDER BY number;

    INSERT INTO wallet.wallet_transactions (
        transaction_id, entry, wallet_id, wallet_version, counterparty_wallet_id, type, amount_minor, currency,
        balance_after_minor, held_after_minor, metadata, created_at
    )
    SELECT transaction_id, entry, id, version, other, 'TRANSFER', amount, 'EUR', after, 0, '{}'::jsonb, at
    FROM made CROSS JOIN LATERAL (
        VALUES
            (1, sender, sender_version, receiver, -1, sender_balance),
            (2, receiver, receiver_version, sender, 1, receiver_balance)
    ) AS side (entry, id, version, other, amount, after);

    INSERT INTO wallet.outbox (event_id, aggregate_id, lane, event_type, payload, created_at)
    SELECT event_id, sender, bench.lane(sender), 'TRANSFER_DONE',
        bench.event(
            event_id, at, 'TRANSFER_DONE', bench.transaction(transaction_id),
            bench.change(sender, sender_user, sender_version, sender_balance, 'out') || ','
            || bench.change(receiver, receiver_user, receiver_version, receiver_balance, 'in'),
            bench.amount(1)
        ), at
    FROM made ORDER BY number;
END $$;

-- Makes rounds `first` to `rounds` - 1, a transaction each, and updates the wallets.
CREATE PROCEDURE bench.make_rounds(count bigint, balance bigint, first bigint, rounds bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR round IN first .. rounds - 1 LOOP
        CALL bench.make_transfers(count, balance, round);
        UPDATE wallet.wallets SET version = version + 2;
        COMMIT;
    END LOOP;
END $$;

-- A transfer of one cent in one call and one transaction: the most that the database alone can do.
CREATE FUNCTION bench.transfer(sender uuid, receiver uuid, key text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    source wallet.wallets;
    target wallet.wallets;
    locked wallet.wallets;
    made_id uuid := uuidv7();
    told_id uuid := uuidv7();
    at timestamptz;
BEGIN
    PERFORM pg_try_advisory_xact_lock(hashtextextended(transfer.key, 1)), stored.reply_body
    FROM (VALUES (transfer.key)) AS wanted (key) LEFT JOIN wallet.idempotency_keys AS stored USING (key);
    FOR locked IN SELECT * FROM wallet.wallets WHERE id IN (sender, receiver) ORDER BY id FOR UPDATE LOOP
        IF locked.id = sender THEN source := locked; ELSE target := locked; END IF;
    END LOOP;
    at := clock_timestamp();
    source.balance_minor := source.balance_minor - 1;
    source.version := source.version + 1;
    target.balance_minor := target.balance_minor + 1;
    target.version := target.version + 1;
    UPDATE wallet.wallets SET balance_minor = change.balance_minor, version = change.version, updated_at = at
    FROM (VALUES (source.id, source.balance_minor, source.version), (target.id, target.balance_minor, target.version))
        AS change (id, balance_minor, version)
    WHERE wallets.id = change.id;
    INSERT INTO wallet.wallet_transactions (
        transaction_id, entry, wallet_id, wallet_version, counterparty_wallet_id, type, amount_minor, currency,
        balance_after_minor, held_after_minor, metadata, created_at
    ) VALUES
        (made_id, 1, sender, source.version, receiver, 'TRANSFER', -1, 'EUR', source.balance_minor, 0, '{}', at),
        (made_id, 2, receiver, target.version, sender, 'TRANSFER', 1, 'EUR', target.balance_minor, 0, '{}', at);
    INSERT INTO wallet.outbox (event_id, aggregate_id, lane, event_type, payload, created_at)
    VALUES (
        told_id, sender, bench.lane(sender), 'TRANSFER_DONE',
        bench.event(
            told_id, at, 'TRANSFER_DONE', bench.transaction(made_id),
            bench.change(sender, source.user_id, source.version, source.balance_minor, 'out') || ','
            || bench.change(receiver, target.user_id, target.version, target.balance_minor, 'in'),
            bench.amount(1)
        ), at
    );
    INSERT INTO wallet.idempotency_keys (key, request_hash, reply_status, reply_headers, reply_body)
    VALUES (
        transfer.key, bench.request_hash(sender, receiver, 1), 200, bench.etag(source.version),
        bench.reply(made_id, sender, receiver, 1, source.balance_minor, source.version, at)
    );
END $$;
