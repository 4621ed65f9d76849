#!/usr/bin/env bash
# Runs before the official mongo image's own entrypoint: members of a replica set that demands
# authentication know each other by a key file, which must belong to mongod and to nobody else.
set -euo pipefail
: "${MONGO_REPLICA_KEY:?}"
install --mode 400 --owner mongodb --group mongodb \
    <(printf '%s' "$MONGO_REPLICA_KEY") /tmp/replica.key
unset MONGO_REPLICA_KEY
exec docker-entrypoint.sh "$@" --keyFile /tmp/replica.key
