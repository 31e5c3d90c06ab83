#!/usr/bin/env bash
# memory.sh [PROGRAM]   prints what a client holds in memory, in KiB, with ten tunnels: idle, while 64 visitors download, while 64
# slow ones wait, and while 64 upload to a target that reads nothing; for each choice of `memory`. PROGRAM is one that runs here;
# default: the one that build.sh made for x86_64.
set -euo pipefail
cd "$(dirname "$0")/.."
. cross/stage.sh
program=${1:-target/cross/x86_64-unknown-linux-musl/client-lite}

# A target that takes connections and reads nothing.
python3 -u - >"$work/deaf" <<'PYTHON' &
import socket

listener = socket.create_server(("127.0.0.1", 0), backlog=512)
print(f"port {listener.getsockname()[1]}")
kept = []
while True:
    kept.append(listener.accept())
PYTHON
children+=($!)
read -r _ deaf_port < <(until_line 60 "$work/deaf" '^port')
head -c 40000000 /dev/zero >"$work/files/huge"

show() { # WHAT PID
    awk -v what="$1" '/^Rss:/ { rss = $2 } /^Anonymous:/ { anonymous = $2 } END { printf "%-36s %8d %8d\n", what, rss, anonymous }' \
        "/proc/$2/smaps_rollup"
}

# peak SECONDS PID WHAT   the most that is seen meanwhile.
peak() {
    local end=$((SECONDS + $1)) now most=0 line=""
    while [ "$SECONDS" -lt "$end" ]; do
        now=$(awk '/^Anonymous:/ { print $2 }' "/proc/$2/smaps_rollup")
        if [ "$now" -gt "$most" ]; then most=$now line=$(show "$3" "$2"); fi
        sleep 0.1
    done
    echo "$line"
}

printf '%-36s %8s %8s\n' "KiB" RSS anon
for memory in ${MEMORY:-small normal large}; do
    config=$work/$memory.yaml
    printf 'version: 2\napex: %s\ncaFile: %s\nmemory: %s\ntunnels:\n' "$apex" "$ca" "$memory" >"$config"
    echo "  - target: http://127.0.0.1:$files_port" >>"$config"
    echo "  - target: http://127.0.0.1:$deaf_port" >>"$config"
    for index in 1 2 3 4 5 6 7 8; do echo "  - target: tcp://127.0.0.1:$((index + 20))" >>"$config"; done
    "$program" tunnel --config "$config" >"$work/$memory" 2>"$work/$memory.log" &
    client=$!
    children+=("$client")
    until_line 90 "$work/$memory" "^tcp.*:28\$" >/dev/null
    files=$(awk -v port=":$files_port\$" '$0 ~ port { print $1 }' "$work/$memory")
    deaf=$(awk -v port=":$deaf_port\$" '$0 ~ port { print $1 }' "$work/$memory")
    show "$memory, idle" "$client"

    load() { # WHAT ARGUMENTS...
        curl -sS --http1.1 --parallel --parallel-immediate --parallel-max 64 --cacert "$ca" "${@:2}" >"$work/load.log" 2>&1 &
        local visitors=$!
        children+=("$visitors")
        peak "${LOAD_SECONDS:-15}" "$client" "$memory, $1"
        kill "$visitors" 2>/dev/null || true
        wait "$visitors" 2>/dev/null || true
    }
    load "64 downloads" -o /dev/null "$files/huge?[1-10000]"
    load "64 slow downloads" --limit-rate 20k -o /dev/null "$files/huge?[1-64]"
    load "64 stalled uploads" -T "$work/files/huge" "$deaf/[1-64]"
    kill -TERM "$client"
    wait "$client"
done
