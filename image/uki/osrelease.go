package uki

import (
	"bufio"
	"strings"
)

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
