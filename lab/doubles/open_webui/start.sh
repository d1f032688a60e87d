#!/usr/bin/env bash
# Open WebUI's start, as the image's command runs it: a key for the sessions, then the server.
set -euo pipefail
key_file=${WEBUI_SECRET_KEY_FILE:-.webui_secret_key}
if [[ -z "${WEBUI_SECRET_KEY:-}" && -z "${WEBUI_JWT_SECRET_KEY:-}" ]]; then
    echo "No WEBUI_SECRET_KEY environment variable set, loading from file."
    if [[ ! -f "$key_file" ]]; then
        echo "Generating new WEBUI_SECRET_KEY..."
        (umask 022 && head -c 12 /dev/random | base64 >"$key_file")
    fi
    echo "Loading WEBUI_SECRET_KEY from $key_file"
fi
exec python3 -m lab_webui.server
