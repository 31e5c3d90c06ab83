#!/usr/bin/env bash
# check.sh [CLIENT]   runs uci-to-yaml against a stand-in for OpenWrt's functions.sh, and CLIENT (target/debug/client-lite) over what
# it writes: settings arrive, what the client wrote stays, and an unchanged configuration is not written.
set -euo pipefail
cd "$(dirname "$0")/../.."
client=${1:-target/debug/client-lite}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
export IPKG_INSTROOT=$root
mkdir -p "$root/lib" "$root/etc/config"

# The four functions that the script uses, over the text of a UCI file, which is a list of shell words.
cat >"$root/lib/functions.sh" <<'SH'
config_load() {
	section= number=0 sections=
	config() {
		section=${2:-cfg$number}; number=$((number + 1)); sections="$sections $section"
		eval "kind_$section=\$1"
	}
	option() { eval "value_${section}_$1=\$2"; }
	. "$IPKG_INSTROOT/etc/config/$1"
	unset -f config option
	. "$IPKG_INSTROOT/restore"
}
config_get() { eval "$1=\${value_$2_$3:-\${4:-}}"; }
config_get_bool() {
	config_get "$@"
	eval "case \$$1 in 1|on|true|yes|enabled) $1=1 ;; *) $1=0 ;; esac"
}
config_foreach() {
	local each kind
	for each in $sections; do
		eval "kind=\$kind_$each"
		[ "$kind" != "$2" ] || "$1" "$each"
	done
}
SH
# The script has a function of the same name as a word of UCI: it is defined again after the file was read.
sed -n '/^option() {/,/^}/p' cross/openwrt/files/uci-to-yaml >"$root/restore"

out=$root/etc/specter/client.yaml
write() { dash cross/openwrt/files/uci-to-yaml "$out"; }
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
