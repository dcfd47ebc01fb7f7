#!/bin/sh
# Makes an authority of its own, once, and a new certificate for the host names `postgres` and `kafka`, for a year.
# Compose mounts the files into containers of other users: the directory keeps other users of this machine out.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p certificates
chmod 700 certificates
cd certificates
new_key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

if [ ! -s ca.pem ]; then
    new_key ca.key
    openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=wallet-compose" -out ca.pem \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign
fi
for host in postgres kafka; do
    new_key "$host.key.new"
    openssl req -new -key "$host.key.new" -subj "/CN=$host" |
        openssl x509 -req -CA ca.pem -CAkey ca.key -sha256 -days 365 -out "$host.pem.new" -extfile /dev/fd/3 3<<END
subjectAltName=DNS:$host
extendedKeyUsage=serverAuth
END
    # Kafka takes key and certificate from one file.
    cat "$host.key.new" "$host.pem.new" > "$host.store.pem.new"
    for file in "$host.key" "$host.pem" "$host.store.pem"; do mv "$file.new" "$file"; done
done
chmod 444 ca.pem ./*.key ./*.pem
chmod 400 ca.key
