package image

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Version is a release's version: dot-separated numbers, such as 2026.11.3. It is part of file names on the ESP, where
// systemd-boot sorts entries by it, so it has no other characters.
type Version string

var versionForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){1,3}$`)

// ParseVersion checks s: two to four dot-separated numbers without leading zeros.
func ParseVersion(s string) (Version, error) {
	if !versionForm.MatchString(s) {
		return "", fmt.Errorf("cannot use version %q: want two to four numbers with dots, such as 2026.11.3", s)
	}
	return Version(s), nil
}

// UnmarshalText implements encoding.TextUnmarshaler with ParseVersion.
func (v *Version) UnmarshalText(b []byte) error {
	p, err := ParseVersion(string(b))
	*v = p
	return err
}

// Compare orders versions number by number: negative when v is older than w. A missing number counts as less than any.
func (v Version) Compare(w Version) int {
	a, b := strings.Split(string(v), "."), strings.Split(string(w), ".")
	for i := 0; i < len(a) && i < len(b); i++ {
		x, _ := strconv.Atoi(a[i])
		y, _ := strconv.Atoi(b[i])
		if c := cmp.Compare(x, y); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

// Slot is one of the two places for a root file system.
type Slot string

// The two slots.
const (
	SlotA Slot = "a"
	SlotB Slot = "b"
)
