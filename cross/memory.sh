#!/usr/bin/env bash
# memory.sh [PROGRAM]   prints what a client holds in memory, in KiB, with three links and ten tunnels: idle, while 64 visitors
# download, while 64 slow ones wait, and while 64 upload to a target that reads nothing; for each choice of `memory`. Fails where an
# idle client holds more than 4 MiB of anonymous memory or 8 MiB in all, where `memory: small` holds more than 12 MiB of it under any
# load, or where the second half of a load needs more than the first. PROGRAM is one that runs here; default: the one that build.sh
# made for x86_64. `MEMORY` chooses among small, normal and large, `LOAD_SECONDS` how long each load lasts.
set -euo pipefail
cd "$(dirname "$0")/.."
NODES=${NODES:-3}
. cross/stage.sh
program=${1:-target/cross/x86_64-unknown-linux-musl/client-lite}
seconds=${LOAD_SECONDS:-20}

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

failed=0
limit() { # WHAT VALUE MOST
    if [ "$2" -gt "$3" ]; then
        echo "$1 is over $3 KiB"
        failed=1
    fi
}

# held PID   RSS and anonymous memory.
held() { awk '/^Rss:/ { rss = $2 } /^Anonymous:/ { anonymous = $2 } END { print rss, anonymous }' "/proc/$1/smaps_rollup"; }

# most SECONDS PID   the most of each that is seen meanwhile.
most() {
    local end=$((SECONDS + $1)) rss anonymous most_rss=0 most_anonymous=0
    while [ "$SECONDS" -lt "$end" ]; do
        read -r rss anonymous < <(held "$2")
        if [ "$rss" -gt "$most_rss" ]; then most_rss=$rss; fi
        if [ "$anonymous" -gt "$most_anonymous" ]; then most_anonymous=$anonymous; fi
        sleep 0.2
    done
    echo "$most_rss $most_anonymous"
}

# settle PID   waits until memory has not risen for five seconds: until then visitors are still coming.
settle() {
    local anonymous had=0 calm=0 end=$((SECONDS + 120))
    while [ "$calm" -lt 10 ] && [ "$SECONDS" -lt "$end" ]; do
        sleep 0.5
        read -r _ anonymous < <(held "$1")
        calm=$((calm + 1))
        if [ "$anonymous" -gt $((had + had / 50 + 64)) ]; then had=$anonymous calm=0; fi
    done
}

printf '%-28s %8s %8s %16s\n' "KiB" RSS anon "anon, 2nd half"
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
    until_line 90 "$work/$memory.log" "up=$NODES " >/dev/null
    files=$(awk -v port=":$files_port\$" '$0 ~ port { print $1 }' "$work/$memory")
    deaf=$(awk -v port=":$deaf_port\$" '$0 ~ port { print $1 }' "$work/$memory")
    read -r rss anonymous < <(held "$client")
    printf '%-28s %8d %8d\n' "$memory, idle" "$rss" "$anonymous"
    limit "$memory, idle: anonymous memory" "$anonymous" 4096
    limit "$memory, idle: memory" "$rss" 8192

    load() { # WHAT ARGUMENTS...
        local rss anonymous later_rss later
        curl -sS --http1.1 --parallel --parallel-immediate --parallel-max 64 --cacert "$ca" "${@:2}" >"$work/load.log" 2>&1 &
        local visitors=$!
        children+=("$visitors")
        settle "$client"
        read -r rss anonymous < <(most "$((seconds / 2))" "$client")
        read -r later_rss later < <(most "$((seconds / 2))" "$client")
        kill "$visitors" 2>/dev/null || true
        wait "$visitors" 2>/dev/null || true
        printf '%-28s %8d %8d %16d\n' "$memory, $1" "$((later_rss > rss ? later_rss : rss))" "$anonymous" "$later"
        # A tenth more is what one moment differs from another.
        limit "$memory, $1: anonymous memory in the second half" "$later" "$((anonymous + anonymous / 10 + 256))"
        if [ "$memory" = small ]; then limit "small, $1: anonymous memory" "$((later > anonymous ? later : anonymous))" 12288; fi
    }
    load "64 downloads" -o /dev/null "$files/huge?[1-10000]"
    load "64 slow downloads" --limit-rate 20k -o /dev/null "$files/huge?[1-64]"
    load "64 stalled uploads" -T "$work/files/huge" "$deaf/[1-64]"
    kill -TERM "$client"
    wait "$client"
done
exit "$failed"
