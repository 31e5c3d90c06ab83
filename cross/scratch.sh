# Sourced by scripts beside it: `work`, a folder that goes with the script, and `children`, processes that end with it.

work=$(mktemp -d)
children=()
stop_all() {
    for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
    rm -rf "$work"
}
trap stop_all EXIT

# until_line SECONDS FILE PATTERN   waits until a line of a growing file, which need not be there yet, matches.
until_line() {
    timeout "$1" grep -m1 -E "$3" <(tail -n +1 -F --pid=$$ "$2" 2>/dev/null) && return
    echo "no line like $3 came within $1 s; there is:" >&2
    tail -n 20 "$2" "$2.log" >&2 || true
    return 1
}
