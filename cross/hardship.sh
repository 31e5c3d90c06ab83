#!/usr/bin/env bash
# hardship.sh [PROGRAM]   puts a client where routers are: behind an uplink with IPv6 alone that comes up late, with a resolver that is
# silent, then fails, then answers, on a read-only root with its file on an overlay. It has to publish without help, to serve again
# when the uplink went and came back and when its address changed, to write its file when it got something and never again, and to
# work as it is when the file cannot be written either. Then the clock: a machine that starts in 1970 says so and goes on once it is told the time.
#
# Node and router are two network namespaces on one wire. PROGRAM is one that runs here, default: the debug build; the
# clock is turned for a program that loads libraries, as the debug build does, with `faketime`.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" -ne 0 ]; then exec sudo --preserve-env=SPECTER_SERVER,CI cross/hardship.sh "$@"; fi
[ $# -gt 0 ] || [ -x target/debug/client-lite ] || cargo build -p client-lite
program=$(realpath "${1:-target/debug/client-lite}")
server=${SPECTER_SERVER:-target/debug/specter-server}
[ -x "$server" ] || cargo build -p specter-server
. cross/scratch.sh
node=specter-node-$$ router=specter-router-$$
end() {
    stop_all
    ip netns delete "$node" 2>/dev/null || true
    ip netns delete "$router" 2>/dev/null || true
}
trap end EXIT
on_node() { ip netns exec "$node" "$@"; }
on_router() { ip netns exec "$router" "$@"; }

ip netns add "$node"
ip netns add "$router"
ip link add wan netns "$router" type veth peer name lan netns "$node"
on_node ip link set lo up
on_node ip link set lan up
on_node ip address add fd00::1/64 dev lan nodad
on_router ip link set lo up
address() { on_router ip -6 address "$1" "fd00::$2/64" dev wan nodad; }

# A resolver that does what a file says: `silent`, `fails` or `answers`. The node's name has no IPv4.
cat >"$work/resolver.py" <<'PYTHON'
import ipaddress, pathlib, socket, sys

mode, address = pathlib.Path(sys.argv[1]), ipaddress.ip_address(sys.argv[2]).packed
listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
listener.bind(("::", 53))
print("ready", flush=True)
while True:
    query, asker = listener.recvfrom(512)
    end = query.index(b"\0", 12) + 5
    question, kind = query[12:end], query[end - 4 : end - 2]
    match mode.read_text().strip():
        case "fails":
            listener.sendto(query[:2] + b"\x81\x82\0\1\0\0\0\0\0\0" + question, asker)
        case "answers" if kind == b"\0\x1c":
            answer = b"\xc0\x0c\0\x1c\0\1\0\0\0\5\0\x10" + address
            listener.sendto(query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question + answer, asker)
        case "answers":
            listener.sendto(query[:2] + b"\x81\x80\0\1\0\0\0\0\0\0" + question, asker)
PYTHON
echo silent >"$work/mode"
ip netns exec "$node" python3 "$work/resolver.py" "$work/mode" fd00::1 >"$work/resolver" 2>"$work/resolver.log" &
children+=($!)
until_line 30 "$work/resolver" ready >/dev/null

"$server" pki init --cert-dir "$work/certs" --advertise node.test:443 >/dev/null
ip netns exec "$node" "$server" run --apex node.test --advertise node.test:443 --listen '[fd00::1]:443' --listen-http none \
    --data-dir "$work/data" --cert-dir "$work/certs" >"$work/node" 2>"$work/node.log" &
children+=($!)
until_line 120 "$work/node" '^ready' >/dev/null

# What is behind the router.
mkdir "$work/page"
echo 'a page behind the router' >"$work/page/index.html"
ip netns exec "$router" python3 -u -m http.server --bind ::1 --directory "$work/page" 8000 >"$work/target" 2>&1 &
children+=($!)
until_line 30 "$work/target" '^Serving' >/dev/null

# What may be written on the router.
overlay=$work/overlay
mkdir "$overlay"
cp "$work/certs/gateway-ca.crt" "$overlay/ca.crt"
cat >"$overlay/client.yaml" <<'YAML'
version: 2
apex: node.test
caFile: ca.crt
memory: small
tunnels:
  - target: http://[::1]:8000
YAML
echo 'nameserver fd00::1' >"$work/resolv.conf"

# start NAME HOW COMMAND...   the client on the router, its root read-only; its overlay is mounted as HOW says, `rw` or `ro`.
start() {
    # The log is opened before the disk is read-only.
    ip netns exec "$router" unshare --mount sh -c '
        mount --bind "$2/resolv.conf" /etc/resolv.conf && mount --bind "$2/overlay" "$2/overlay" &&
        mount -o "remount,bind,$1" "$2/overlay" && mount -o remount,bind,ro / && shift 2 && exec "$@"
    ' sh "$2" "$work" "${@:3}" tunnel --config "$overlay/client.yaml" >"$work/$1" 2>"$work/$1.log" &
    client=$!
    children+=("$client")
}
stop() {
    kill -TERM "$client"
    wait "$client"
}
# served URL SECONDS   waits until a visitor gets the page, and says how long that took.
served() {
    local start=$SECONDS
    local visit=(curl -sS --fail --max-time 5 --cacert "$overlay/ca.crt" --connect-to '::[fd00::1]:443' "$1/")
    until [ "$(on_node "${visit[@]}" 2>/dev/null)" = 'a page behind the router' ]; do
        [ $((SECONDS - start)) -lt "$2" ] || {
            echo "no visitor was served within $2 s" >&2
            tail -n 20 "$work"/*.log >&2
            exit 1
        }
        sleep 0.5
    done
    echo $((SECONDS - start))
}
# until_more_lines PATTERN   waits until the log has two more of them: the first may be of an attempt that had begun before.
until_more_lines() {
    local start=$SECONDS had
    had=$(grep -c "$1" "$work/boot.log" || true)
    until [ "$(grep -c "$1" "$work/boot.log")" -ge $((had + 2)) ]; do
        [ $((SECONDS - start)) -lt 120 ] || {
            echo "no more lines like $1 came within 120 s" >&2
            tail -n 20 "$work/boot.log" >&2
            exit 1
        }
        sleep 0.5
    done
}
# written   what changes with every write: a file is replaced as a whole.
written() { stat -c '%i %Y %y' "$overlay" "$overlay/client.yaml"; }

start boot rw "$program"
until_line 60 "$work/boot.log" 'no link' >/dev/null
address add 2
on_router ip link set wan up
until_more_lines 'no link'
echo fails >"$work/mode"
until_more_lines 'no link'
echo answers >"$work/mode"
answered=$SECONDS
url=$(until_line 120 "$work/boot" '^https://' | cut -d' ' -f1)
served "$url" 60 >/dev/null
echo "uplink and resolver came late, IPv6 alone: served $((SECONDS - answered)) s after the last of them"
before=$(written)

on_router ip link set wan down
until_more_lines 'no link'
on_router ip link set wan up
address add 2
echo "the uplink went and came back: served after $(served "$url" 120) s"
address add 3
address del 2
echo "another address: served after $(served "$url" 60) s"
stop

start again rw "$program"
until_line 120 "$work/again" "^$url" >/dev/null
served "$url" 60 >/dev/null
stop
[ "$(written)" = "$before" ] || { echo "the file was written again:" "$before" "$(written)" >&2; exit 1; }
echo "read-only root, file on an overlay: never written again"

start whole ro "$program"
until_line 120 "$work/whole" "^$url" >/dev/null
served "$url" 60 >/dev/null
stop
echo "a file that cannot be written: served with the names that it has"

if ! ldd "$program" >/dev/null 2>&1; then
    echo "the clock is not turned: the program is static"
    exit 0
fi
faketime=$(find /usr/lib -name libfaketime.so.1 2>/dev/null | head -n1)
if [ -z "$faketime" ]; then
    echo "the clock is not turned: install faketime" >&2
    if [ -n "${CI:-}" ]; then exit 1; else exit 0; fi
fi
# A date turns the clock for as long as the file holds it. Only the calendar: the clock of timers is never set.
echo '1970-01-01 00:02:00' >"$work/date"
start clock rw env LD_PRELOAD="$faketime" FAKETIME_TIMESTAMP_FILE="$work/date" FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 "$program"
until_line 60 "$work/clock.log" "clock is not set" >/dev/null
if [ -s "$work/clock" ]; then echo "it published before it knew the time" >&2; exit 1; fi
echo +0 >"$work/date"
until_line 60 "$work/clock" "^$url" >/dev/null
echo "no clock: said so, and served $(served "$url" 60) s after it was set"
stop
