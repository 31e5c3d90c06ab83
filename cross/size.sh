#!/usr/bin/env bash
# size.sh   prints the size of every client that build.sh made beside its budget in targets.toml; fails if one is over.
set -euo pipefail
cd "$(dirname "$0")/.."
target() { python3 cross/targets.py "$@"; }

over=0
row() {
    local mark="" share
    share=$((100 * $2 / $3))
    if [ "$2" -gt "$3" ]; then mark="  over budget" over=1; fi
    printf '%-34s %10d %10d %4d %%%s\n' "$1" "$2" "$3" "$share" "$mark"
}

printf '%-34s %10s %10s %6s\n' "client" bytes budget share
for triple in $(target list 9); do
    for program in "target/cross/$triple/client-lite" "target/cross/$triple/client-lite.exe"; do
        [ -f "$program" ] || continue
        row "$triple" "$(stat -c %s "$program")" "$(target get "$triple" lite_max_bytes)"
    done
    for package in "target/cross/$triple/"*.ipk "target/cross/$triple/"*.apk; do
        [ -f "$package" ] || continue
        row "  $(basename "$package" | cut -c1-31)" "$(stat -c %s "$package")" "$(target get "$triple" package_max_bytes)"
    done
done
exit "$over"
