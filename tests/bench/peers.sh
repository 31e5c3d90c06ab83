#!/bin/sh
# Installs the other tunnels that the benchmark compares with, at pinned versions, into target/peers.
# A peer that cannot be installed is said and left out; the benchmark then leaves it out, too.
set -u
cd "$(dirname "$0")/../.."
peers="${CARGO_TARGET_DIR:-$PWD/target}/peers"
mkdir -p "$peers/bin"
failed=0

say() { echo "peers: $*" >&2; }

# Without --locked: the lock file of rathole 0.5.0 pins a crate that compilers since 1.80 refuse. Noise instead of TLS,
# which needs OpenSSL's headers.
cargo install rathole --version 0.5.0 --no-default-features --features server,client,noise \
    --root "$peers" --target-dir "$peers/build" || { say "rathole is left out"; failed=1; }
cargo install bore-cli --version 0.6.0 --locked \
    --root "$peers" --target-dir "$peers/build" || { say "bore is left out"; failed=1; }

if command -v go >/dev/null; then
    module="$peers/chisel"
    mkdir -p "$module"
    cat >"$module/go.mod" <<EOF
module peers
go 1.22
require github.com/jpillora/chisel v1.10.1
EOF
    (cd "$module" && CGO_ENABLED=0 go build -mod=mod -o "$peers/bin/chisel" github.com/jpillora/chisel) \
        || { say "chisel is left out"; failed=1; }
else
    say "chisel is left out: there is no go"
    failed=1
fi
exit "$failed"
