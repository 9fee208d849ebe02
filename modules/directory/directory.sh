#!/bin/sh
# What takes more than one command: the supervisor runs no shell of its own.
set -eu

config=/run/config/slapd.conf
data=/var/lib/ldap/data.mdb
dump=/var/lib/dump/directory.ldif

# tool runs a program of OpenLDAP on the organisation. Never by exec: LMDB tells processes that have the database open apart
# by their process ids, slapd is number 1 of its container, and whatever a task starts first is number 1 of another.
tool() {
	name=$1
	shift
	"/usr/sbin/$name" -f "$config" -g -b o=organisation "$@"
	return
}

# extend adds the folders that came with later formats of the volume, if they are not there.
extend() {
	case $(tool slapcat -s ou=permissions,o=organisation) in
	'') tool slapadd -l /usr/share/allotment/permissions.ldif ;;
	esac
}

# load fills the database anew, while slapd does not run. LMDB takes an empty file for a new database.
load() {
	: >"$data"
	tool slapadd -l "$1"
	extend
}

case $1 in
start) # tests give an address
	/usr/sbin/slapadd -f "$config" -b ou=probes,ou=people,o=organisation -l /run/config/probes.ldif
	ulimit -n 1024 # for each file that it may open, slapd takes 1.6 KB beforehand
	exec /usr/sbin/slapd -f "$config" -h "${2:-ldap://}" -d none # to standard error, and only what is grave
	;;
create) load /usr/share/allotment/organisation.ldif ;;
extend)
	tool slapindex # attributes can have got an index
	extend
	;;
reindex) tool slapindex ;;
dump) tool slapcat -l "$dump" ;;
verify) tool slapadd -u -l "$dump" ;;
restore) load "$dump" ;;
compare)
	tool slapcat -l /tmp/restored.ldif
	/usr/bin/cmp "$dump" /tmp/restored.ldif && exit
	# A dump of an older release lacks the folder that load has added.
	tool slapcat -a '(!(&(structuralObjectClass=organizationalUnit)(ou=permissions)))' -l /tmp/restored.ldif
	/usr/bin/cmp "$dump" /tmp/restored.ldif
	;;
esac
