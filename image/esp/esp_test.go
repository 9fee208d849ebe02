package esp

import (
	"strings"
	"testing"

	"allotment/image"
)

func TestUKINames(t *testing.T) {
	for name, want := range map[string]UKI{
		"allotment-2026.11.3.efi":     {Version: "2026.11.3"},
		"allotment-2026.11.3+3.efi":   {Version: "2026.11.3", Counted: true, Left: 3},
		"allotment-2026.11.3+2-1.efi": {Version: "2026.11.3", Counted: true, Left: 2, Done: 1},
		"allotment-1.0+0-3.efi":       {Version: "1.0", Counted: true, Done: 3},
		"allotment-1.0.new":           {Version: "1.0", Placed: true},
	} {
		if got, ok := ParseUKI(name); !ok || got != want || got.Name() != name {
			t.Errorf("%s: %+v, %v, %s", name, got, ok, got.Name())
		}
	}
	for _, name := range []string{"", "ALLOTM~1.EFI", "allotment-1.efi", "allotment-1.0+.efi", "allotment-1.0+3-.efi",
		"allotment-1.0+3.new", "allotment-01.0.efi", "allotment-1.0.efi.new", "other-1.0.efi"} {
		if u, ok := ParseUKI(name); ok {
			t.Errorf("%s is taken for %+v", name, u)
		}
	}
}

func TestEnvironment(t *testing.T) {
	long := image.Version("123456789.123456789.123456789.123456789")
	for _, want := range []Environment{
		{Version: "1.0"}, {Version: "1.1", Previous: "1.0"}, {Version: "1.1", Trial: "1.2", Tries: 3},
		{Version: long, Previous: long, Trial: long, Tries: 0},
	} {
		b := want.Marshal()
		if got, err := ParseEnvironment(b); err != nil || got != want || len(b) != environmentSize {
			t.Errorf("%+v of %d bytes: %v", got, len(b), err)
		}
		if strings.Trim(string(b[environmentSector:]), "#") != "" {
			t.Errorf("%+v does not fit a sector", want)
		}
	}
	good := string(Environment{Version: "1.0", Trial: "1.1", Tries: 2}.Marshal())
	for name, bad := range map[string]string{
		"short":      good[:512],
		"no head":    "#" + good[1:] + "#",
		"no version": strings.Replace(good, "version=1.0\n", "############", 1),
		"bad tries":  strings.Replace(good, "tries=2", "tries=9", 1),
		"other line": strings.Replace(good, "tries=2", "trees=2", 1),
		"cut line":   strings.Replace(good, "tries=2\n", "tries=##", 1),
	} {
		if e, err := ParseEnvironment([]byte(bad)); err == nil {
			t.Errorf("%s: taken for %+v", name, e)
		}
	}
}

// FuzzParseEnvironment feeds blocks: what is accepted is the same once more.
func FuzzParseEnvironment(f *testing.F) {
	f.Add(Environment{Version: "1.0", Previous: "0.9", Trial: "1.1", Tries: 1}.Marshal())
	f.Add(Environment{Version: "1.0"}.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEnvironment(b)
		if err != nil {
			return
		}
		if e.Trial == "" {
			e.Tries = 0 // means nothing
		}
		if again, err := ParseEnvironment(e.Marshal()); err != nil || again != e {
			t.Errorf("%+v became %+v, %v", e, again, err)
		}
	})
}

// TestGRUBConfigEndsInReboot wants no menu, and nothing behind the last start but a reboot.
func TestGRUBConfigEndsInReboot(t *testing.T) {
	if !strings.HasSuffix(GRUBConfig, "sleep 10\nreboot\n") || strings.Contains(GRUBConfig, "menuentry") {
		t.Error("the configuration has a menu, or does not end in a reboot")
	}
	counted := strings.Index(GRUBConfig, "if save_env")
	if started := strings.Index(GRUBConfig, "start $trial"); counted < 0 || started < counted {
		t.Error("a trial is started before it is counted")
	}
	if _, err := ArgumentsFile("a='b'"); err == nil {
		t.Error("a quote in the command line is accepted")
	}
}
