#!/usr/bin/env bash
# compare.sh   prints size and memory of our client beside those of bore, rathole and chisel, each with one tunnel: programs without
# symbols, in bytes; memory in KiB, idle and the most while 64 visitors download at once. tests/bench/peers.sh builds the others from
# their own packages, for this machine; one that it cannot build is left out. Ours is the `lite` of build.sh, and the default client if
# `CLIENT` names one. `LOAD_SECONDS` is how long the load lasts.
#
# They do different things: ours is encrypted with TLS, rathole with Noise, chisel with SSH, bore not at all.
set -euo pipefail
cd "$(dirname "$0")/.."
peers=${CARGO_TARGET_DIR:-$PWD/target}/peers/bin
tests/bench/peers.sh >target/peers.log 2>&1 || grep '^peers:' target/peers.log >&2
lite=target/cross/x86_64-unknown-linux-musl/client-lite
[ -x "$lite" ] || cross/build.sh x86_64-unknown-linux-musl
. cross/stage.sh
seconds=${LOAD_SECONDS:-15}
head -c 40000000 /dev/zero >"$work/files/huge"

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# answers URL   waits until a visitor is served.
answers() {
    local again=(--retry 120 --retry-delay 0 --retry-max-time 60 --retry-all-errors)
    curl -sS --fail --cacert "$ca" --max-time 60 "${again[@]}" -o /dev/null "$1/" 2>/dev/null || {
        echo "nothing answers on $1" >&2
        exit 1
    }
}

# held PID   RSS and anonymous memory.
held() { awk '/^Rss:/ { rss = $2 } /^Anonymous:/ { anonymous = $2 } END { print rss, anonymous }' "/proc/$1/smaps_rollup"; }

# measure NAME PROGRAM PID URL   prints a line, and ends the client.
measure() {
    local rss anonymous most_rss=0 most_anonymous=0 idle visitors end
    answers "$4"
    sleep 2
    idle=$(held "$3")
    curl -sS --http1.1 --parallel --parallel-immediate --parallel-max 64 --cacert "$ca" -o /dev/null "$4/huge?[1-10000]" >/dev/null 2>&1 &
    visitors=$!
    children+=("$visitors")
    end=$((SECONDS + seconds))
    while [ "$SECONDS" -lt "$end" ]; do
        read -r rss anonymous < <(held "$3")
        if [ "$rss" -gt "$most_rss" ]; then most_rss=$rss; fi
        if [ "$anonymous" -gt "$most_anonymous" ]; then most_anonymous=$anonymous; fi
        sleep 0.2
    done
    kill "$visitors" "$3" 2>/dev/null || true
    wait "$visitors" "$3" 2>/dev/null || true
    cp "$2" "$work/program"
    strip "$work/program"
    printf '%-28s %10d %8d %8d %10d %10d\n' "$1" "$(stat -c %s "$work/program")" $idle "$most_rss" "$most_anonymous"
}

ours() { # NAME PROGRAM MEMORY
    local config=$work/$3.$RANDOM.yaml client
    cat >"$config" <<YAML
version: 2
apex: $apex
caFile: $ca
memory: $3
tunnels:
  - target: http://127.0.0.1:$files_port
YAML
    "$2" tunnel --config "$config" >"$config.out" 2>"$config.out.log" &
    client=$!
    children+=("$client")
    measure "$1, $3" "$2" "$client" "$(until_line 90 "$config.out" '^https://' | cut -d' ' -f1)"
}

rathole() {
    local control public key name
    control=$(free_port) public=$(free_port)
    "$peers/rathole" --genkey >"$work/keys"
    key() { grep -A1 "^$1" "$work/keys" | tail -n1 | tr -d ' '; }
    cat >"$work/server.toml" <<TOML
[server]
bind_addr = "127.0.0.1:$control"
default_token = "secret"
[server.transport]
type = "noise"
[server.transport.noise]
local_private_key = "$(key 'Private Key')"
[server.services.files]
bind_addr = "127.0.0.1:$public"
TOML
    cat >"$work/client.toml" <<TOML
[client]
remote_addr = "127.0.0.1:$control"
default_token = "secret"
[client.transport]
type = "noise"
[client.transport.noise]
remote_public_key = "$(key 'Public Key')"
[client.services.files]
local_addr = "127.0.0.1:$files_port"
TOML
    for name in server client; do
        "$peers/rathole" "--$name" "$work/$name.toml" >"$work/rathole-$name" 2>&1 &
        children+=($!)
    done
    measure rathole "$peers/rathole" $! "http://127.0.0.1:$public"
}

bore() {
    # Its control port is fixed, so it has an address of loopback of its own.
    local host public
    host=127.77.$((RANDOM % 250 + 1)).$((RANDOM % 250 + 1)) public=$(free_port)
    "$peers/bore" server --bind-addr "$host" --bind-tunnels 127.0.0.1 >"$work/bore-server" 2>&1 &
    children+=($!)
    timeout 30 bash -c "until (: </dev/tcp/$host/7835) 2>/dev/null; do sleep 0.1; done"
    "$peers/bore" local --to "$host" --local-host 127.0.0.1 --port "$public" "$files_port" >"$work/bore-client" 2>&1 &
    children+=($!)
    measure bore "$peers/bore" $! "http://127.0.0.1:$public"
}

chisel() {
    local control public
    control=$(free_port) public=$(free_port)
    "$peers/chisel" server --host 127.0.0.1 --reverse --port "$control" >"$work/chisel-server" 2>&1 &
    children+=($!)
    timeout 30 bash -c "until (: </dev/tcp/127.0.0.1/$control) 2>/dev/null; do sleep 0.1; done"
    "$peers/chisel" client "http://127.0.0.1:$control" "R:127.0.0.1:$public:127.0.0.1:$files_port" >"$work/chisel-client" 2>&1 &
    children+=($!)
    measure chisel "$peers/chisel" $! "http://127.0.0.1:$public"
}

printf '%-28s %10s %8s %8s %10s %10s\n' "" bytes RSS anon "RSS, 64" "anon, 64"
for memory in small normal; do ours 'client-lite, lite' "$lite" "$memory"; done
if [ -n "${CLIENT:-}" ]; then ours client-lite "$CLIENT" normal; fi
for peer in rathole bore chisel; do if [ -x "$peers/$peer" ]; then "$peer"; fi; done
