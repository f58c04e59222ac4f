#!/bin/sh
# Prints what docker-compose.yml asks for, with passwords and a key that nobody else has: deploy/env.sh >.env
set -eu

secret() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

umask 077
echo "FARM_DATABASE_PASSWORD=$(secret)"
echo "FARM_REDIS_PASSWORD=$(secret)"
echo "FARM_API_KEYS=ann:$(secret)"
