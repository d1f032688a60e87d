#!/bin/sh
# Gives a gateway the certificate that certbot has just fetched; certbot runs it after each renewal. Written by stoker; the next deploy
# overwrites changes made here.
#
# renewed-certificate.sh DIRECTORY CONTAINER CONFIGURATION NOTE
#
# From $RENEWED_LINEAGE into DIRECTORY, which the container sees. When nginx does not take the new one, the old one comes back and the exit
# status is 1. NOTE is told which certificate nginx has read.
set -eu
directory=$1 container=$2 configuration=$3 note=$4

umask 077
work=$(mktemp -d "$directory/.new.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/old" "$work/new"
for name in privkey.pem fullchain.pem; do
    cp -p "$directory/$name" "$work/old/"
    cat "$RENEWED_LINEAGE/$name" >"$work/new/$name"
done
chmod 644 "$work/new/fullchain.pem"

put() {
    mv -f "$work/$1/privkey.pem" "$work/$1/fullchain.pem" "$directory/"
}

put new
if [ "$(docker inspect -f '{{.State.Running}}' "$container" 2>/dev/null)" = true ]; then
    docker exec "$container" nginx -c "$configuration" -t -q || { put old; exit 1; }
    docker exec "$container" nginx -c "$configuration" -s reload
fi  # else nginx reads it when it starts
sha256sum "$directory/fullchain.pem" | cut -d ' ' -f 1 >"$note"
chmod 644 "$note"
