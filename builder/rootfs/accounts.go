package rootfs

import (
	"archive/tar"
	"cmp"
	"fmt"
	"strings"

	"allotment/builder/profile"
)

// shadowGID is the group that may read /etc/shadow; Debian has given it this id for ever (base-passwd).
const shadowGID = 42

// writeAccounts makes the files of users and groups. Nobody has a password: the field is "*".
func (t *Tree) writeAccounts(a profile.Accounts) error {
	var passwd, shadow, group, gshadow strings.Builder
	for _, u := range a.Users {
		iu, ok := a.User(u.Name)
		if !ok {
			return fmt.Errorf("cannot add user %q: no group %q", u.Name, cmp.Or(u.Group, u.Name))
		}
		fmt.Fprintf(&passwd, "%s:x:%d:%d::%s:%s\n", u.Name, iu.UID, iu.GID,
			cmp.Or(u.Home, "/nonexistent"), cmp.Or(u.Shell, "/usr/sbin/nologin"))
		fmt.Fprintf(&shadow, "%s:*:::::::\n", u.Name)
	}
	for _, g := range a.Groups {
		members := strings.Join(a.Members(g.Name), ",")
		fmt.Fprintf(&group, "%s:x:%d:%s\n", g.Name, g.GID, members)
		fmt.Fprintf(&gshadow, "%s:*::%s\n", g.Name, members)
	}
	for _, f := range []struct {
		path string
		mode int64
		gid  int
		text string
	}{
		{"/etc/passwd", 0o644, 0, passwd.String()},
		{"/etc/group", 0o644, 0, group.String()},
		{"/etc/shadow", 0o640, shadowGID, shadow.String()},
		{"/etc/gshadow", 0o640, shadowGID, gshadow.String()},
	} {
		n := &Node{Type: tar.TypeReg, Mode: f.mode, GID: f.gid, Content: Content{Bytes: []byte(f.text)}, From: declared}
		if err := t.Put(f.path, n); err != nil {
			return err
		}
	}
	return nil
}
