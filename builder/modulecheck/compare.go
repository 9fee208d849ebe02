package modulecheck

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"

	"allotment/builder/profile"
	"allotment/builder/rootfs"
)

// maxContent is the size in bytes up to which contents are compared: configuration files are small.
const maxContent = 256 << 10

// comparison is what the trees of a check say of each other.
type comparison struct {
	*installation
	built *rootfs.Tree // the module's tree

	madeUsers, madeGroups         ids // of the installation
	declaredUsers, declaredGroups ids // of built

	report *Report
}

// compare lists what scripts did to the installation and built does not have. Own are the module's packages.
func compare(i *installation, built *rootfs.Tree, decls []*profile.Tree, own map[string]debFile) (*Report, error) {
	c := &comparison{installation: i, built: built, report: newReport(decls)}
	c.declaredUsers, c.declaredGroups = declaredIDs(built.Accounts)
	if err := c.accounts(); err != nil {
		return nil, err
	}
	for p, n := range c.after.All() {
		what, err := c.judge(p, n)
		if err != nil {
			return nil, fmt.Errorf("cannot compare %q: %w", p, err)
		}
		if what != "" && !neverMatters(p, own) {
			c.report.add(p, what)
		}
	}
	for p := range c.before.All() {
		if c.after.Lookup(p) == nil && built.Lookup(p) != nil && !neverMatters(p, own) {
			c.report.add(p, "a script removes it")
		}
	}
	return c.report, nil
}

// accounts compares users and groups by name: those that every Debian system has do not count.
func (c *comparison) accounts() error {
	for _, kind := range []struct {
		name, made, before string
		ids                *ids
		declared           ids
	}{
		{"user", "/etc/passwd", "/usr/share/base-passwd/passwd.master", &c.madeUsers, c.declaredUsers},
		{"group", "/etc/group", "/usr/share/base-passwd/group.master", &c.madeGroups, c.declaredGroups},
	} {
		made, err := readIDs(c.after, kind.made)
		if err != nil {
			return err
		}
		before, err := readIDs(c.before, kind.before)
		if err != nil {
			return err
		}
		for _, name := range newNames(made, before, kind.declared) {
			c.report.add(kind.made, fmt.Sprintf("missing %s %s", kind.name, name))
		}
		*kind.ids = made
	}
	return nil
}

// judge says what the module's tree lacks at path p, where the installation has made: nothing, if no script had to do
// with it, if it is the same, or if it was left out on purpose.
func (c *comparison) judge(p string, made *rootfs.Node) (string, error) {
	shipped, have := c.before.Lookup(p), c.built.Lookup(p)
	if shipped != nil {
		same, err := untouched(made, shipped)
		if err != nil || same {
			return "", err
		}
		if have == nil { // the declaration drops what the package ships
			return "", nil
		}
	}
	if have == nil {
		if made.Type == tar.TypeSymlink && !c.leadsSomewhere(p) {
			return "", nil
		}
		return "missing " + c.describe(made), nil
	}
	return c.differ(p, made, have)
}

// untouched tells whether a path is after the scripts what the package shipped.
func untouched(made, shipped *rootfs.Node) (bool, error) {
	if made.Type != shipped.Type || made.Target != shipped.Target || made.Mode != shipped.Mode ||
		made.UID != shipped.UID || made.GID != shipped.GID {
		return false, nil
	}
	return sameContent(made, shipped)
}

// leadsSomewhere tells whether the link at p matters: not if it leads to something that the module's tree does not have,
// as the links of update-alternatives to programs that only scripts need.
func (c *comparison) leadsSomewhere(p string) bool {
	end, err := c.after.Resolve(p)
	if err != nil || c.after.Lookup(end) == nil {
		return true // leads nowhere until something runs
	}
	return c.built.Lookup(end) != nil
}

// differ says how the module's tree differs at p, where both have something.
func (c *comparison) differ(p string, made, have *rootfs.Node) (string, error) {
	ours := !strings.HasPrefix(have.From, "package ")
	switch {
	case made.Type == tar.TypeSymlink && have.Type == tar.TypeSymlink:
		return c.differLinks(p, made)
	case made.Type == tar.TypeSymlink && have.Type == tar.TypeReg && ours,
		made.Type == tar.TypeReg && have.Type == tar.TypeSymlink && ours:
		return "", nil // a file of ours for a link to theirs, or the other way round
	case made.Type != have.Type:
		return fmt.Sprintf("%s, not %s", c.describe(made), c.describeOurs(have)), nil
	}
	if made.Mode != have.Mode ||
		owner(made, c.madeUsers, c.madeGroups) != owner(have, c.declaredUsers, c.declaredGroups) {
		return fmt.Sprintf("%s, not %s", c.describe(made), c.describeOurs(have)), nil
	}
	if ours { // with a content of our choice
		return "", nil
	}
	same, err := sameContent(made, have)
	if err != nil || same {
		return "", err
	}
	return "a script changes what the package ships", nil
}

// differLinks compares two links by where they lead, so that a link need not go by way of /etc/alternatives.
func (c *comparison) differLinks(p string, made *rootfs.Node) (string, error) {
	want, err := c.after.Resolve(p)
	if err != nil {
		return "", err
	}
	got, err := c.built.Resolve(p)
	if err != nil {
		return "", err
	}
	if want == got {
		return "", nil
	}
	return fmt.Sprintf("%s, not to %s", c.describe(made), got), nil
}

// describe says what the installation has.
func (c *comparison) describe(n *rootfs.Node) string { return describe(n, c.madeUsers, c.madeGroups) }

// describeOurs says what the module's tree has.
func (c *comparison) describeOurs(n *rootfs.Node) string {
	return describe(n, c.declaredUsers, c.declaredGroups)
}

var kinds = map[byte]string{
	tar.TypeReg: "file", tar.TypeDir: "folder", tar.TypeChar: "device", tar.TypeBlock: "device", tar.TypeFifo: "pipe",
}

func describe(n *rootfs.Node, users, groups ids) string {
	if n.Type == tar.TypeSymlink {
		return "link to " + n.Target
	}
	return fmt.Sprintf("%s %04o %s", kinds[n.Type], n.Mode, owner(n, users, groups))
}

// sameContent compares files; large ones by their size only.
func sameContent(a, b *rootfs.Node) (bool, error) {
	if a.Type != tar.TypeReg {
		return true, nil
	}
	if a.Content.Len() != b.Content.Len() {
		return false, nil
	}
	if a.Content.Len() > maxContent {
		return true, nil
	}
	x, err := read(a)
	if err != nil {
		return false, err
	}
	y, err := read(b)
	return bytes.Equal(x, y), err
}

func read(n *rootfs.Node) ([]byte, error) {
	r, err := n.Content.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
