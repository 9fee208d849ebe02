package modulecheck

import (
	"path"

	"allotment/builder/rootfs"
)

// rule says of paths why they do not matter.
type rule struct {
	pattern string // as in a declaration; what is in a folder that fits, fits too
	unless  string // a package: the rule holds only for modules without it
	why     string
}

// never are the paths that scripts make in every installation and no module needs.
var never = []rule{
	{"/dev", "", "kernel"},
	{"/proc", "", "kernel"},
	{"/sys", "", "kernel"},
	{"/tmp", "", "temporary"},
	{"/var/tmp", "", "temporary"},
	{"/var/cache/*/*", "", "cache"},
	{"/etc/ld.so.cache", "", "cache"},
	{"/**/__pycache__", "", "cache of Python"},
	{"/etc/ssl/certs/*.[0-9]", "", "hash link to a certificate"},
	{"/etc/ssl/certs/*.pem", "", "link to a certificate of the bundle"},
	{"/etc/ca-certificates.conf", "", "input of update-ca-certificates"},

	{"/usr/share/doc", "", "documentation"},
	{"/usr/share/info", "", "documentation"},
	{"/usr/share/man", "", "documentation"},

	{"/var/lib/apt", "", "bookkeeping of apt"},
	{"/var/lib/dpkg", "", "bookkeeping of dpkg"},
	{"/var/lib/pam", "", "bookkeeping of pam-auth-update"},
	{"/var/lib/shells.state", "", "bookkeeping of update-shells"},
	{"/var/lib/systemd/deb-systemd-helper*", "", "bookkeeping of deb-systemd-helper"},
	{"/var/lib/systemd/deb-systemd-user-helper*", "", "bookkeeping of deb-systemd-helper"},
	{"/var/lib/ucf", "", "bookkeeping of ucf"},
	{"/etc/alternatives", "", "bookkeeping of update-alternatives; its links elsewhere count"},
	{"/etc/dpkg", "", "settings of dpkg"},
	{"/**/*.dpkg-*", "", "old version kept by dpkg"},
	{"/**/*.ucf-*", "", "old version kept by ucf"},

	{"/var/log/alternatives.log", "", "log of the installation"},
	{"/var/log/apt", "", "log of the installation"},
	{"/var/log/dpkg.log", "", "log of the installation"},
	{"/var/log/[bw]tmp", "", "log of logins"},
	{"/var/log/lastlog", "", "log of logins"},
	{"/var/log/faillog", "", "log of logins"},

	{"/etc/init.d", "", "the supervisor starts services"},
	{"/etc/rc?.d", "", "the supervisor starts services"},
	{"/etc/systemd", "", "the supervisor starts services"},

	{"/etc/.pwd.lock", "", "lock"},
	{"/run/adduser", "", "lock"},
	{"/etc/passwd", "", "users are compared by name"},
	{"/etc/passwd-", "", "users are compared by name"},
	{"/etc/group", "", "groups are compared by name"},
	{"/etc/group-", "", "groups are compared by name"},
	{"/etc/shadow", "", "nobody has a password"},
	{"/etc/shadow-", "", "nobody has a password"},
	{"/etc/gshadow", "", "nobody has a password"},
	{"/etc/gshadow-", "", "nobody has a password"},
	{"/etc/subgid*", "", "ids are the supervisor's to give"},
	{"/etc/subuid*", "", "ids are the supervisor's to give"},
	{"/etc/machine-id", "", "the supervisor's to give"},

	{"/etc/motd", "", "there is no login"},
	{"/etc/profile", "", "there is no login"},
	{"/root/.bashrc", "", "there is no login"},
	{"/root/.profile", "", "there is no login"},
	{"/etc/opt", "", "for what an administrator installs"},
	{"/media", "", "for what an administrator installs"},
	{"/mnt", "", "for what an administrator installs"},
	{"/opt", "", "for what an administrator installs"},
	{"/srv", "", "for what an administrator installs"},
	{"/usr/local", "", "for what an administrator installs"},
	{"/var/opt", "", "for what an administrator installs"},

	{"/etc/environment", "libpam-modules", "made by a package that only scripts need here"},
	{"/etc/security", "libpam-modules", "made by a package that only scripts need here"},
	{"/etc/pam.d/common-*", "libpam-runtime", "made by a package that only scripts need here"},
	{"/etc/shells", "debianutils", "made by a package that only scripts need here"},
	{"/run/setrans", "libselinux1", "made by a package that only scripts need here"},
}

// fits tells whether a pattern fits p or a folder above it.
func fits(pattern, p string) bool {
	for ; p != "/"; p = path.Dir(p) {
		if rootfs.Match(pattern, p) {
			return true
		}
	}
	return false
}

// neverMatters tells whether one of our rules fits p.
func neverMatters(p string, own map[string]debFile) bool {
	for _, r := range never {
		if _, has := own[r.unless]; !has && fits(r.pattern, p) {
			return true
		}
	}
	return false
}
