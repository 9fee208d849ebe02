package uki

import (
	"bufio"
	"fmt"
	"strings"

	"allotment/image"
)

// OSRelease is the os-release(5) text of a release. systemd-boot takes the entry's title from PRETTY_NAME, sorts entries
// of one IMAGE_ID by IMAGE_VERSION, newest first, and falls back to the next one when the tries are used up.
func OSRelease(profile, title string, version image.Version) string {
	var b strings.Builder
	for _, f := range [][2]string{
		{"ID", "allotment"},
		{"NAME", "Allotment"},
		{"PRETTY_NAME", fmt.Sprintf("%s %s", title, version)},
		{"VERSION_ID", string(version)},
		{"VARIANT_ID", profile},
		{"IMAGE_ID", "allotment"},
		{"IMAGE_VERSION", string(version)},
	} {
		fmt.Fprintf(&b, "%s=%s\n", f[0], quote(f[1]))
	}
	return b.String()
}

// quote puts a value between double quotes where os-release(5) asks for them.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`", "\n", " ").Replace(s) + `"`
}

// OSReleaseField returns the value of a field of an os-release text, or "" when it has none.
func OSReleaseField(text, name string) string {
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		value, ok := strings.CutPrefix(lines.Text(), name+"=")
		if !ok {
			continue
		}
		if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
			value = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\$`, "$", "\\`", "`").Replace(value[1 : len(value)-1])
		}
		return value
	}
	return ""
}
