#!/bin/sh
# What takes more than one command: the supervisor runs no shell of its own.
set -eu

config=/run/config/slapd.conf
data=/var/lib/ldap/data.mdb
dump=/var/lib/dump/directory.ldif
lock=cn=default,ou=policies,o=organisation

# tool runs a program of OpenLDAP on the organisation. Never by exec: LMDB tells processes that have the database open apart
# by their process ids, slapd is number 1 of its container, and whatever a task starts first is number 1 of another.
tool() {
	name=$1
	shift
	"/usr/sbin/$name" -f "$config" -g -b o=organisation "$@"
	return
}

# extend makes of a directory of an earlier format what the last one is.
extend() {
	case $(tool slapcat -s "$lock" -a '(pwdMaxFailure=60)') in
	'') tool slapmodify -l /usr/share/allotment/policy.ldif ;;
	esac
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

# without_policy leaves the entry out of an LDIF file, in which an empty line ends each.
without_policy() {
	skip=
	while IFS= read -r line; do
		case $line in "dn: $lock") skip=yes ;; esac
		[ "$skip" ] || printf '%s\n' "$line"
		[ "$line" ] || skip=
	done
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
	# A dump of an older release has another policy, and may lack the folder that load has added.
	without_policy <"$dump" >/tmp/dump.ldif
	without_policy </tmp/restored.ldif >/tmp/compared.ldif
	/usr/bin/cmp /tmp/dump.ldif /tmp/compared.ldif && exit
	tool slapcat -a '(!(&(structuralObjectClass=organizationalUnit)(ou=permissions)))' | without_policy >/tmp/compared.ldif
	/usr/bin/cmp /tmp/dump.ldif /tmp/compared.ldif
	;;
esac
