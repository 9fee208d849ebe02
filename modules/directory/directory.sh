#!/bin/sh
# What takes more than one command: the supervisor runs no shell of its own.
set -eu

config=/run/config/slapd.conf
data=/var/lib/ldap/data.mdb
dump=/var/lib/dump/directory.ldif

# load fills the database anew. LMDB takes an empty file for a new database.
load() {
	: >"$data"
	exec /usr/sbin/slapadd -f "$config" -g -b o=organisation -l "$1"
}

case $1 in
start) # tests give an address
	/usr/sbin/slapadd -f "$config" -b ou=probes,ou=people,o=organisation -l /run/config/probes.ldif
	exec /usr/sbin/slapd -f "$config" -h "${2:-ldap://}" -d none # to standard error, and only what is grave
	;;
create) load /usr/share/allotment/organisation.ldif ;;
restore) load "$dump" ;;
compare)
	/usr/sbin/slapcat -f "$config" -g -b o=organisation -l /tmp/restored.ldif
	exec /usr/bin/cmp "$dump" /tmp/restored.ldif
	;;
esac
