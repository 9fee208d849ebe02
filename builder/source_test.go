package builder

import (
	"path"
	"strings"
	"testing"

	"allotment/internal/run"
)

// TestDeviceCode looks that a change of any package that a device program is made of has it compiled anew.
func TestDeviceCode(t *testing.T) {
	var out strings.Builder
	args := []string{"list", "-deps"}
	for _, p := range devicePrograms {
		args = append(args, "allotment/"+path.Join("cmd", p))
	}
	if err := (run.Host{}).Run(t.Context(), run.Command{Name: "go", Args: args, Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, p := range strings.Fields(out.String()) {
		name, ok := strings.CutPrefix(p, "allotment/")
		if !ok {
			continue
		}
		ours++
		if !covers(deviceCode, name) {
			t.Errorf("package %s is not in deviceCode", p)
		}
	}
	if ours < len(devicePrograms) || covers(deviceCode, "cmd/allot") {
		t.Errorf("%d packages of ours were looked at", ours)
	}
}

// covers tells whether one of the folders holds the package.
func covers(folders []string, name string) bool {
	for _, f := range folders {
		if name == f || strings.HasPrefix(name, f+"/") {
			return true
		}
	}
	return false
}
