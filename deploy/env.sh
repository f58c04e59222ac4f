#!/bin/sh
# Prints the variables that docker-compose.yml needs, with fresh random passwords and a key: deploy/env.sh >.env
set -eu

secret() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

umask 077
echo "FARM_DATABASE_PASSWORD=$(secret)"
echo "FARM_REDIS_PASSWORD=$(secret)"
echo "FARM_API_KEYS=ann:$(secret)"
echo "FARM_ADMINS=ann"
