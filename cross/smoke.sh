#!/usr/bin/env bash
# smoke.sh [TRIPLE...]   runs clients that build.sh made, under qemu where they are for other processors, against a real node on
# loopback: they register, publish, serve requests small and large, join a raw tunnel, list their names, stop in good order, and
# have the same names after a restart. Default: those of tier 1.
set -euo pipefail
cd "$(dirname "$0")/.."
. cross/stage.sh

if [ $# -eq 0 ]; then mapfile -t triples < <(target list 1); else triples=("$@"); fi
for triple in "${triples[@]}"; do
    program=target/cross/$triple/client-lite
    # No emulator here has what QUIC needs of Windows.
    if [ "$(target get "$triple" linker)" = mingw ]; then continue; fi
    client=($(target get "$triple" qemu) "$program")
    dir=$work/$triple
    mkdir "$dir"
    cat >"$dir/client.yaml" <<YAML
version: 2
apex: $apex
caFile: $ca
memory: small
tunnels:
  - target: http://127.0.0.1:$files_port
  - target: tcp://127.0.0.1:$echo_port
YAML
    start=$SECONDS
    for run in first second; do
        "${client[@]}" tunnel --config "$dir/client.yaml" >"$dir/$run" 2>"$dir/$run.log" &
        pid=$!
        children+=("$pid")
        url=$(until_line 90 "$dir/$run" '^https://' | cut -d' ' -f1)
        raw=$(until_line 30 "$dir/$run" '^tcp://' | sed -E 's,tcp://([^: ]+).*,\1,')
        test "$(curl -sS --fail --max-time 60 --cacert "$ca" "$url/")" = 'a page behind the tunnel'
        if [ "$run" = first ]; then
            names="$url $raw"
            # A small transfer shows that it works on big-endian MIPS, whose emulation loses large ones.
            if [[ "$triple" != mips-* ]]; then
                curl -sS --fail --max-time 120 --cacert "$ca" "$url/large" | cmp - "$work/files/large"
            fi
            answer=$(echo 'there and back' | timeout 60 "${client[@]}" connect "$raw" --apex "$apex" --ca "$ca")
            test "$answer" = 'there and back'
            "${client[@]}" ls --config "$dir/client.yaml" >"$dir/names"
            grep -qF "$raw" "$dir/names"
        else
            test "$names" = "$url $raw"
        fi
        kill -TERM "$pid"
        code=0
        wait "$pid" || code=$?
        test "$code" -eq 0 || { echo "$triple ended with code $code" >&2; tail "$dir/$run.log" >&2; exit 1; }
    done
    printf '%-34s works, %d s\n' "$triple" "$((SECONDS - start))"
done
