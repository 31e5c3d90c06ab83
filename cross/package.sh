#!/usr/bin/env bash
# package.sh [TRIPLE...]   makes packages of the clients that build.sh made, into target/cross/TRIPLE/: .ipk and .apk for OpenWrt,
# .deb where targets.toml names an architecture of Debian. With SPECTER_SERVER, a .deb of that node for this machine's
# architecture, too. Every package is read back and its content compared with what was put in.
set -euo pipefail
cd "$(dirname "$0")/.."
target() { python3 cross/targets.py "$@"; }

if [ $# -eq 0 ]; then mapfile -t triples < <(target list 1); else triples=("$@"); fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n1)
# Times in packages: the same sources make the same bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1700000000)}
export SOURCE_DATE_EPOCH
umask 022
python=${CROSS_HOME:-$PWD/target/cross-toolchain}/venv/bin/python
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

openwrt() { # PROGRAM TRIPLE ARCHITECTURE...
    local root=$stage/$2
    install -D -m 755 "$1" "$root/usr/bin/client-lite"
    install -D -m 755 cross/openwrt/files/uci-to-yaml "$root/usr/lib/specter/uci-to-yaml"
    install -D -m 755 cross/openwrt/files/specter.init "$root/etc/init.d/specter"
    install -D -m 600 cross/openwrt/files/specter.config "$root/etc/config/specter"
    # What a new firmware takes over.
    install -d "$root/lib/upgrade/keep.d"
    echo /etc/specter/ >"$root/lib/upgrade/keep.d/specter-client"
    "$python" cross/package.py "$root" "$version" "target/cross/$2" "${@:3}"
}

debian() { # NAME PROGRAM ARCHITECTURE OUT DESCRIPTION
    local root=$stage/$1-$3 out=$4/$1_${version}_$3.deb
    install -D -m 755 "$2" "$root/usr/bin/$(basename "$2")"
    install -D -m 644 "cross/debian/$1.service" "$root/usr/lib/systemd/system/$1.service"
    install -D -m 644 -t "$root/usr/share/doc/$1" LICENSE-MIT LICENSE-APACHE
    if [ "$1" = specter-client ]; then
        install -D -m 644 client-lite/example.yaml "$root/usr/share/doc/$1/client.yaml"
    fi
    install -d "$root/DEBIAN"
    cat >"$root/DEBIAN/control" <<CONTROL
Package: $1
Version: $version
Architecture: $3
Maintainer: Specter <specter@localhost>
Installed-Size: $(du -sk "$root/usr" | cut -f1)
Section: net
Priority: optional
Description: $5
CONTROL
    # A static program needs nothing.
    local libraries libc needs
    libraries=$(ldd "$2" 2>/dev/null || true)
    if [[ "$libraries" == *libc.so* ]]; then
        libc=$(dpkg-query -W -f '${Version}' libc6)
        needs="libc6 (>= ${libc%-*})"
        if [[ "$libraries" == *libgcc_s.so* ]]; then needs+=", libgcc-s1"; fi
        sed -i "s/^Section:/Depends: $needs\n&/" "$root/DEBIAN/control"
    fi
    for script in postinst prerm postrm; do
        install -m 755 "cross/debian/$script" "$root/DEBIAN/$script"
        sed -i "s/@NAME@/$1/g" "$root/DEBIAN/$script"
    done
    dpkg-deb --root-owner-group -Zxz --build "$root" "$out" >/dev/null
    # Read back: the program whole, nothing writable for others, everything owned by root.
    dpkg-deb --fsys-tarfile "$out" | tar -xO "./usr/bin/$(basename "$2")" | cmp - "$2"
    [ "$(dpkg-deb --field "$out" Architecture)" = "$3" ]
    if dpkg-deb --contents "$out" | grep -vE '^.(rw[xs-]r-[xs-]r-[x-]) root/root'; then
        echo "$out holds a file with other rights than these" >&2
        return 1
    fi
    echo "$out"
}

for triple in "${triples[@]}"; do
    program=target/cross/$triple/client-lite
    read -ra architectures < <(target get "$triple" openwrt)
    if [ "${#architectures[@]}" -gt 0 ]; then openwrt "$program" "$triple" "${architectures[@]}"; fi
    architecture=$(target get "$triple" debian)
    if [ -n "$architecture" ]; then
        debian specter-client "$program" "$architecture" "target/cross/$triple" \
            "publishes services behind NAT through Specter's nodes"
    fi
done
if [ -n "${SPECTER_SERVER:-}" ]; then
    mkdir -p target/cross/server
    debian specter-server "$SPECTER_SERVER" "$(dpkg --print-architecture)" target/cross/server "a node of a Specter network"
fi
