#!/usr/bin/env bash
# check.sh [CLIENT]   runs what the package puts on a router, with busybox as a router has it and a stand-in for OpenWrt's functions.
# First uci-to-yaml, with CLIENT (target/debug/client-lite) over what it writes: settings arrive, what the client wrote stays, and an
# unchanged configuration is not written. Then each package that package.sh made: it is installed into a scratch root, where its own
# scripts and its init script run. For an .ipk that is what opkg does, step by step; an .apk is installed by another implementation
# of apk, where there is a Go compiler for it. The programs `opkg` and `apk` themselves are in no registry that a build may rely on.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || [ -x target/debug/client-lite ] || cargo build -p client-lite
client=${1:-target/debug/client-lite}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n1)
target() { python3 cross/targets.py "$@"; }
as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
if ! command -v busybox >/dev/null; then
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends busybox-static >/dev/null
fi
root=$(mktemp -d)
trap '"${as_root[@]}" rm -rf "$root"' EXIT

# make_root FOLDER   what the scripts find on a router: busybox and the functions that they use. A UCI file is a list of shell words,
# so reading one calls `config` and `option`, as `uci export` does there.
make_root() {
    mkdir -p "$1/bin" "$1/lib" "$1/etc/config" "$1/tmp"
    busybox --install -s "$1/bin"
    cat >"$1/lib/functions.sh" <<'SH'
config() {
	SECTION_COUNT=$((${SECTION_COUNT:-0} + 1))
	SECTION=${2:-cfg$SECTION_COUNT}
	SECTIONS="$SECTIONS $SECTION"
	eval "KIND_$SECTION=\$1"
}
option() { eval "VALUE_${SECTION}_$1=\$2"; }
list() { echo "no list is expected" >&2; }
config_load() { . "${IPKG_INSTROOT}/etc/config/$1"; }
config_get() { eval "$1=\${VALUE_$2_$3:-\${4:-}}"; }
config_get_bool() {
	config_get "$@"
	eval "case \$$1 in 1|on|true|yes|enabled) $1=1 ;; *) $1=0 ;; esac"
}
config_foreach() {
	local each kind
	for each in $SECTIONS; do
		eval "kind=\$KIND_$each"
		[ "$kind" != "$2" ] || "$1" "$each" ""
	done
}
add_group_and_user() { echo "user for $pkgname" >>/tmp/calls; }
default_postinst() { echo "postinst ${pkgname:-${1##*/}}" >>/tmp/calls; }
default_prerm() { echo "prerm ${pkgname:-${1##*/}}" >>/tmp/calls; }
SH
    cat >"$1/etc/rc.common" <<'SH'
#!/bin/sh
. /lib/functions.sh
for call in open_instance close_instance add_reload_trigger; do eval "procd_$call() { echo \"$call \$*\"; }"; done
procd_set_param() { echo "$*"; }
. "$1"
case $2 in
start) start_service; service_triggers ;;
esac
SH
    chmod +x "$1/etc/rc.common"
}

make_root "$root"
out=$root/etc/specter/client.yaml
script=$PWD/cross/openwrt/files/uci-to-yaml
write() { env -i PATH="$root/bin" IPKG_INSTROOT="$root" "$root/bin/ash" "$script" "$out"; }
expect() { grep -qxF -- "$1" "$out" || { echo "no line: $1" >&2; cat "$out" >&2; exit 1; }; }

cp cross/openwrt/files/specter.config "$root/etc/config/specter"
write
"$client" validate --config "$out" >/dev/null
expect "memory: 'small'"

cat >"$root/etc/config/specter" <<'UCI'
config specter 'main'
	option enabled '1'
	option apex 'example.com:8443'
	option memory 'normal'
	option links '2'
	option transport 'quic'
config tunnel
	option target 'http://127.0.0.1:80'
	option header_mode 'hostname'
	option header_timeout '30s'
config tunnel
	option target 'tcp://127.0.0.1:22'
config tunnel
	option target 'tcp://127.0.0.1:22'
config tunnel
	option target 'https://127.0.0.1:443'
	option insecure '1'
	option header_host 'its.name'
config tunnel
	option target 'http://127.0.0.1:81'
	option disabled '1'
UCI
write
"$client" validate --config "$out" | grep -q 'has 4 tunnels'
expect "links: '2'"
expect "transport: 'quic'"
expect "    insecure: true"
expect "    headerTimeout: '30s'"

# What the client writes, in the places where it writes it.
sed -i -e "s/^apex: .*/&\ncertificate: |\n  -----BEGIN CERTIFICATE-----\n  AAAA\n  -----END CERTIFICATE-----\nprivKey: |\n  KEY/" \
    -e "/target: 'http/a\    hostname: web-one" "$out"
awk '/target: .tcp/ { print; print "    hostname: ssh-" ++n; next } { print }' "$out" >"$out.2" && mv "$out.2" "$out"
cp -p "$out" "$root/before"
inode=$(stat -c %i "$out")
write
cmp "$out" "$root/before"
[ "$(stat -c %i "$out")" = "$inode" ] || { echo "an unchanged file was written" >&2; exit 1; }

# Another setting and another order: names go with their targets.
sed -i -e "s/option memory 'normal'/option memory 'large'/" -e "/127.0.0.1:80'/,/30s/d" "$root/etc/config/specter"
cat >>"$root/etc/config/specter" <<'UCI'
config tunnel
	option target 'http://127.0.0.1:80'
UCI
sed -i -e '0,/^config tunnel$/{/^config tunnel$/d}' "$root/etc/config/specter"
write
expect "memory: 'large'"
expect "  KEY"
expect "    hostname: ssh-2"
grep -A1 "127.0.0.1:80'" "$out" | grep -qx "    hostname: web-one"
[ "$(stat -c %a "$out")" = 600 ]
echo "uci-to-yaml works"

# router FOLDER EMULATOR   a root that commands can run in, and programs for another processor through the emulator.
router() {
    local busybox
    busybox=$(command -v busybox)
    make_root "$1"
    cp --parents "$busybox" $(ldd "$busybox" 2>/dev/null | grep -o '/[^ ]*') "$1"
    cp "$(command -v "$2")" "$1/emulator"
    mkdir "$1/dev"
    "${as_root[@]}" mknod -m 666 "$1/dev/null" c 1 3
    echo 'specter:x:4711:4711::/:/bin/false' >"$1/etc/passwd"
    echo 'specter:x:4711:' >"$1/etc/group"
}
inside() { "${as_root[@]}" chroot "$1" /bin/env -i PATH=/bin "${@:2}"; }

# install_ipk PACKAGE ROOT   what opkg does with a package.
install_ipk() {
    local parts=$2/parts info=$2/usr/lib/opkg/info
    mkdir -p "$parts" "$info"
    busybox tar -xzf "$1" -C "$parts"
    busybox tar -xzf "$parts/data.tar.gz" -C "$2"
    busybox tar -xzf "$parts/control.tar.gz" -C "$parts"
    for name in control conffiles postinst prerm; do cp "$parts/$name" "$info/specter-client.$name"; done
    inside "$2" /usr/lib/opkg/info/specter-client.postinst configure
    grep -qx 'postinst specter-client.postinst' "$2/tmp/calls"
}

# try_out ROOT   the init script starts nothing at first, and once it shall, the client with a configuration that it takes.
try_out() {
    [ "$(inside "$1" /etc/init.d/specter start)" = 'add_reload_trigger specter' ]
    sed -i "s/option enabled '0'/option enabled '1'/" "$1/etc/config/specter"
    inside "$1" /etc/init.d/specter start >"$1/started"
    grep -qx 'command /usr/bin/client-lite tunnel --config /etc/specter/client.yaml --log info' "$1/started"
    grep -qx 'file /etc/config/specter' "$1/started"
    grep -qx 'user specter' "$1/started"
    [ "$("${as_root[@]}" stat -c '%u %a' "$1/etc/specter/client.yaml")" = '4711 600' ]
    inside "$1" /emulator /usr/bin/client-lite validate --config /etc/specter/client.yaml | grep -q 'has 1 tunnel'
}

# installer   compiles what installs an .apk, from pinned sources; nothing without a Go compiler.
installer() {
    local folder=target/cross/apk
    command -v go >/dev/null || return 0
    mkdir -p "$folder"
    cp cross/openwrt/apk/main.go "$folder/"
    printf 'module apk\n\ngo 1.22\n\nrequire github.com/chainguard-dev/go-apk %s\n' v0.0.0-20240605175618-f3471089c263 >"$folder/go.mod"
    (cd "$folder" && go build -mod=mod -o install .) >&2
    echo "$folder/install"
}

# install_apk PACKAGE ROOT ARCHITECTURE   from what the installer makes of the package.
install_apk() {
    local made=$2.apk scripts
    mkdir "$made"
    "$installer" "$1" "$made" "$3"
    scripts=$made/lib/apk/db/scripts.tar
    tar -xf "$scripts" -O --wildcards '*.post-install' 2>/dev/null >"$made/post-install"
    chmod +x "$made/post-install"
    cp -r "$made/." "$2/"
    inside "$2" /post-install
    grep -qx 'user for specter-client' "$2/tmp/calls"
    grep -qx 'postinst specter-client' "$2/tmp/calls"
    # Whether a configuration was changed is seen by this list at an update.
    (cd "$2" && sed -E 's,^/([^ ]*) (.*)$,\2  \1,' lib/apk/packages/specter-client.conffiles_static | sha256sum --check --quiet)
}

installer=$(installer)
for triple in $(target list 9); do
    emulator=$(target get "$triple" qemu)
    # The packages for other processors of the kind hold the same files.
    read -r architecture _ < <(target get "$triple" openwrt)
    package=target/cross/$triple/specter-client_$version-r1_$architecture
    if [ -z "$emulator" ] || [ ! -f "$package.ipk" ]; then continue; fi
    router "$root/$triple" "$emulator"
    install_ipk "$package.ipk" "$root/$triple"
    try_out "$root/$triple"
    echo "$(basename "$package").ipk works"
    [ -n "$installer" ] || continue
    router "$root/$triple-2" "$emulator"
    install_apk "$package.apk" "$root/$triple-2" "$architecture"
    try_out "$root/$triple-2"
    echo "$(basename "$package").apk works"
done
