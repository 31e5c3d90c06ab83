#!/usr/bin/env bash
# check.sh   installs each .deb that package.sh made into a scratch root, by dpkg itself, has systemd check its unit there, and
# removes and purges it. Maintainer scripts see no running systemd, so they start nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
root=$(mktemp -d)
trap '"${as_root[@]}" rm -rf "$root"' EXIT

# What a unit refers to beside the package.
mkdir -p "$root/var/lib/dpkg" "$root/bin" "$root/usr/lib/systemd/system" "$root/etc"
touch "$root/var/lib/dpkg/status"
cp "$(command -v chown)" "$root/bin/chown"
for unit in network network-online multi-user basic sysinit shutdown; do
    printf '[Unit]\nDescription=%s\n' "$unit" >"$root/usr/lib/systemd/system/$unit.target"
done

# Scripts of packages run in the root, which needs a shell and what they call.
busybox=$(command -v busybox)
cp --parents "$busybox" $(ldd "$busybox" 2>/dev/null | grep -o '/[^ ]*') "$root"
for name in sh rm; do ln -s "$busybox" "$root/bin/$name"; done

install() { "${as_root[@]}" env PATH=/bin:/usr/bin:/sbin:/usr/sbin dpkg --root="$root" --force-architecture,depends "$@" >/dev/null 2>"$root/said" ||
    { cat "$root/said" >&2; return 1; }; }

for package in target/cross/*/*.deb; do
    [ -f "$package" ] || continue
    name=$(dpkg-deb --field "$package" Package)
    dpkg-deb --info "$package" | grep -E '^ (Version|Architecture|Depends|Installed-Size)' | tr -s '\n' ' '
    install --install "$package"
    # What a program is linked with is asked for, and a static one asks for nothing.
    program=$(dpkg-deb --contents "$package" | awk '$6 ~ "^./usr/bin/." { print $6 }')
    if [[ "$(ldd "$root/$program" 2>/dev/null)" == *libc.so* ]]; then
        test -n "$(dpkg-deb --field "$package" Depends)" || { echo "$package asks for no libc" >&2; exit 1; }
    else
        test -z "$(dpkg-deb --field "$package" Depends)"
    fi
    dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Status}\n' "$name" | grep -qx 'install ok installed'
    if command -v systemd-analyze >/dev/null; then
        systemd-analyze verify --man=no --root="$root" "$name.service" 2>"$root/said" || { cat "$root/said" >&2; exit 1; }
        if [ -s "$root/said" ]; then cat "$root/said" >&2; exit 1; fi
    fi
    # What a service leaves behind goes with a purge and not before.
    "${as_root[@]}" mkdir -p "$root/var/lib/private/$name"
    install --remove "$name"
    test -d "$root/var/lib/private/$name"
    test ! -e "$root/usr/lib/systemd/system/$name.service"
    install --purge "$name"
    test ! -e "$root/var/lib/private/$name"
    echo "$(basename "$package") works"
done
