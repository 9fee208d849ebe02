#!/bin/sh
# Friends' passwords are made of one secret, so that nothing has to be kept of them: whoever has this box's backup has them.
set -eu

access=/run/access/htpasswd

# password prints that of a friend, which only this secret, name and number give (156 bits).
password() {
	read -r secret </run/secrets/passwords || [ "$secret" ]
	derived=$(printf '%s %s %s' "$secret" "$1" "$2" | mkpasswd -m sha-256 -S allotment -s)
	printf '%.26s' "${derived##*\$}"
}

# admit lets somebody in who has the password.
admit() { printf '%s:%s\n' "$1" "$(printf '%s' "$2" | mkpasswd -m bcrypt -s)" >>"$access"; }

case $1 in
passwords)
	while read -r name number; do
		printf '%s  %s\n' "$name" "$(password "$name" "${number:-1}")"
	done </run/config/friends
	;;
start) # tests give an address
	umask 077
	: >"$access"
	while read -r name number; do
		admit "$name" "$(password "$name" "${number:-1}")"
	done </run/config/friends
	read -r journey </run/secrets/journey || [ "$journey" ]
	admit _journey "$journey"
	. /run/config/options
	case $keep in true) keep=--append-only ;; *) keep= ;; esac
	exec restic-rest-server --listen "${2:-:8000}" --path /var/lib/backups --htpasswd-file "$access" --private-repos \
		--max-size $((room * 1073741824)) $keep
	;;
esac
