#!/bin/sh
# Writes a random password for each login of compose.yaml that has none yet, and changes no other.
# Compose mounts the files into containers of other users: the directory keeps other users of this machine out.
set -eu
cd "$(dirname "$0")/../.."
umask 077
mkdir -p deploy/compose/secrets
chmod 700 deploy/compose/secrets
sed -n 's|^ .*{file: \(deploy/compose/secrets/[a-z_]*_password\)}$|\1|p' compose.yaml | while read -r file; do
    [ -s "$file" ] && continue
    od -An -v -N 32 -tx1 /dev/urandom | tr -d ' \n' > "$file.new"
    chmod 444 "$file.new"
    mv "$file.new" "$file"
    echo "$file" >&2
done
