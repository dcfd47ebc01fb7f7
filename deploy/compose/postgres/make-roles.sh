#!/bin/sh
# Makes the roles of docs/roles.md that are missing, and gives each its password.
set -eu
PGPASSWORD=$(cat /run/secrets/postgres_password)
export PGPASSWORD PGHOST=postgres PGUSER=postgres PGDATABASE=wallet
psql() { command psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 "$@"; }
# In one transaction: at no moment a running process lacks the right to connect.
psql --single-transaction --file /setup/roles.sql
for file in /run/secrets/*_password; do
    role=$(basename "$file" _password)
    [ "$role" = postgres ] && continue
    # By standard input: other users of the machine see arguments. A failing statement would be in the server's log.
    psql --set role="$role" --set file="$file" <<'SQL'
SET log_min_error_statement = panic;
\set password `cat :'file'`
ALTER ROLE :"role" LOGIN PASSWORD :'password';
SQL
done
