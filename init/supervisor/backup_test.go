package supervisor

import (
	"maps"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// What an export says of settings must be TOML, whatever members have typed.
func TestSection(t *testing.T) {
	values := map[string]any{"title": "Ünïcode \"🌷\" \\ \x01\x7f\n\u2028", "days": int64(-3), "open": true, "plain-name": ""}
	var out strings.Builder
	section(&out, "modules.web", values)
	section(&out, "modules.none", nil)
	var got struct{ Modules map[string]map[string]any }
	if err := toml.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if len(got.Modules) != 1 || !maps.Equal(got.Modules["web"], values) {
		t.Errorf("%v becomes %v", values, got.Modules)
	}
}
