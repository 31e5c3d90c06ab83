#!/usr/bin/env bash
# windows.sh [FILTER]   runs tests of the client, those of named pipes if nothing is said, as a Windows program under wine. QUIC does
# not run there: wine lacks the socket options.
set -euo pipefail
cd "$(dirname "$0")/.."
home=${CROSS_HOME:-$PWD/target/cross-toolchain}
triple=x86_64-pc-windows-gnu
cross/toolchain.sh gcc-mingw-w64-x86-64 wine64
wine=$(command -v wine64 || echo /usr/lib/wine/wine64)

export RUSTC="$home/bin/rustc" RUSTC_BOOTSTRAP=1 CARGO_INCREMENTAL=0
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUSTFLAGS=-Clink-self-contained=no
program=$(cargo test -Zbuild-std --target "$triple" -p client-lite --lib --no-run --message-format json-render-diagnostics |
    python3 -c '
import json, sys
made = (json.loads(line) for line in sys.stdin)
print([message["executable"] for message in made if message.get("executable")][-1])')

# Where the standard library takes its random numbers; old versions of wine have no such file.
prefix=$PWD/target/cross/wine
mkdir -p "$prefix" target/cross/shim
printf '%s\n' '#include <windows.h>' 'BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);' \
    '__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE b, SIZE_T n) { return SystemFunction036(b, n); }' \
    >target/cross/shim/prng.c
x86_64-w64-mingw32-gcc -shared -o target/cross/shim/bcryptprimitives.dll target/cross/shim/prng.c -ladvapi32
cp target/cross/shim/bcryptprimitives.dll "$(dirname "$program")/"

export WINEPREFIX=$prefix WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml="
"$wine" "$program" "${1:-target::local}"
