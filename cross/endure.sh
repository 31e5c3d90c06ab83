#!/usr/bin/env bash
# endure.sh [PROGRAM]   runs a client with `memory: small` in a control group of 64 MiB, files and sockets counted, for an hour under a
# load of 64 visitors at 20 kB/s each who come and go. Prints what it holds ten times meanwhile; fails if the kernel ended it, if
# a visitor was not served, or if it grew. Needs root. PROGRAM: as in memory.sh. `ENDURE_SECONDS` is how long, `ENDURE_MIB` the limit.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${ENDURE_SECONDS:-3600}
limit_bytes=$((${ENDURE_MIB:-64} * 1024 * 1024))

# The controller of either version; the files have other names.
if grep -qw memory /sys/fs/cgroup/cgroup.controllers 2>/dev/null; then
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control
    group=/sys/fs/cgroup/specter-$$ limit=memory.max most=memory.peak events=memory.events
elif [ -d /sys/fs/cgroup/memory ]; then
    group=/sys/fs/cgroup/memory/specter-$$ limit=memory.limit_in_bytes most=memory.max_usage_in_bytes events=memory.oom_control
else
    echo "there is no memory controller: mount cgroup2" >&2
    exit 2
fi
mkdir "$group"
. cross/stage.sh
trap 'stop_all; sleep 1; rmdir "$group"' EXIT
echo "$limit_bytes" >"$group/$limit"
program=${1:-target/cross/x86_64-unknown-linux-musl/client-lite}

cat >"$work/client.yaml" <<YAML
version: 2
apex: $apex
caFile: $ca
memory: small
tunnels:
  - target: http://127.0.0.1:$files_port
  - target: tcp://127.0.0.1:$echo_port
YAML
sh -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' sh "$group" "$program" tunnel --config "$work/client.yaml" \
    >"$work/client" 2>"$work/client.log" &
client=$!
children+=("$client")
url=$(until_line 90 "$work/client" '^https://' | cut -d' ' -f1)
until_line 90 "$work/client" '^tcp://' >/dev/null

# Each download takes about two minutes, and then another visitor comes.
end=$((SECONDS + seconds))
visit() {
    while [ "$SECONDS" -lt "$end" ]; do
        curl -sS --no-progress-meter --http1.1 --parallel --parallel-immediate --parallel-max 64 --limit-rate 20k --cacert "$ca" --fail \
            -o /dev/null "$url/large?[1-64]" || echo "a visitor was not served"
    done
}
visit >"$work/visits" 2>&1 &
children+=($!)

printf '%8s %10s %10s %14s\n' seconds RSS anon "most, kernel's"
first=0
for sample in 1 2 3 4 5 6 7 8 9 10; do
    sleep $((seconds / 10))
    kill -0 "$client" || { echo "the client ended" >&2; tail "$work/client.log" >&2; exit 1; }
    awk -v at="$((SECONDS - end + seconds))" -v most="$(cat "$group/$most" 2>/dev/null || echo 0)" \
        '/^Rss:/ { rss = $2 } /^Anonymous:/ { anon = $2 } END { printf "%8d %10d %10d %14d\n", at, rss, anon, most / 1024 }' \
        "/proc/$client/smaps_rollup"
    now=$(awk '/^Anonymous:/ { print $2 }' "/proc/$client/smaps_rollup")
    if [ "$sample" = 3 ]; then first=$now; fi
done
kills=$(awk '$1 == "oom_kill" { print $2 }' "$group/$events")
echo "ended for want of memory: $kills"
[ "$kills" = 0 ]
# Those who were in the middle of a download when the time was over are no failure.
if grep -q . "$work/visits"; then
    sort "$work/visits" | uniq -c | sort -rn | head >&2
    grep -E 'WARN|ERROR' "$work/client.log" | tail >&2 || true
    exit 1
fi
[ "$now" -le $((first + first / 4)) ] || { echo "it grew from $first to $now KiB" >&2; exit 1; }
