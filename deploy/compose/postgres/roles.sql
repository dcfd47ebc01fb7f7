DO $$ BEGIN IF to_regrole('wallet_owner') IS NULL THEN CREATE ROLE wallet_owner NOLOGIN; END IF; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN IF to_regrole('wallet_api') IS NULL THEN CREATE ROLE wallet_api NOLOGIN; END IF; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN IF to_regrole('outbox_relay') IS NULL THEN CREATE ROLE outbox_relay NOLOGIN; END IF; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN IF to_regrole('history_consumer') IS NULL THEN CREATE ROLE history_consumer NOLOGIN; END IF; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN IF to_regrole('history_reader') IS NULL THEN CREATE ROLE history_reader NOLOGIN; END IF; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN IF to_regrole('wallet_operator') IS NULL THEN CREATE ROLE wallet_operator NOLOGIN; END IF; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN IF to_regrole('wallet_auditor') IS NULL THEN CREATE ROLE wallet_auditor NOLOGIN; END IF; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN IF NOT pg_has_role('wallet_owner', 'wallet_operator', 'SET') OR NOT pg_has_role('wallet_owner', 'wallet_operator', 'USAGE') THEN GRANT wallet_operator TO wallet_owner; END IF; END $$;
DO $$ BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC, wallet_owner, wallet_api, outbox_relay, history_consumer, history_reader, wallet_operator, wallet_auditor', current_database()); END $$;
DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO wallet_owner', current_database()); END $$; -- logs in
DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO wallet_api', current_database()); END $$; -- logs in
DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO outbox_relay', current_database()); END $$; -- logs in
DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO history_consumer', current_database()); END $$; -- logs in
DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO history_reader', current_database()); END $$; -- logs in
DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO wallet_operator', current_database()); END $$; -- logs in
DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO wallet_auditor', current_database()); END $$; -- logs in
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO wallet_owner', current_database()); END $$; -- `db migrate` makes the schemas
REVOKE ALL ON SCHEMA public FROM PUBLIC, wallet_owner, wallet_api, outbox_relay, history_consumer, history_reader, wallet_operator, wallet_auditor;
