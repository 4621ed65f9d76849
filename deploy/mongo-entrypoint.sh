#!/usr/bin/env bash
# Writes the key file of the replica set, then runs the mongo image's own entrypoint. Members of a
# replica set with authentication need this file, which only mongod may read.
set -euo pipefail
: "${MONGO_REPLICA_KEY:?}"
install --mode 400 --owner mongodb --group mongodb \
    <(printf '%s' "$MONGO_REPLICA_KEY") /tmp/replica.key
unset MONGO_REPLICA_KEY
exec docker-entrypoint.sh "$@" --keyFile /tmp/replica.key
