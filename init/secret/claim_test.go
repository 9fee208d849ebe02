package secret

import (
	"testing"
)

func TestParseClaim(t *testing.T) {
	for text, want := range map[string]string{
		"3F7K-9QXM-02TA": "3F7K-9QXM-02TA", " 3f7k 9qxm o2ta\n": "3F7K-9QXM-02TA", "IL7K9QXM02TA": "117K-9QXM-02TA",
		"3F7K-9QXM-02T": "", "3F7K-9QXM-02TAA": "", "3F7K-9QXM-02TU": "", "3F7K-9QXM-02Té": "", "": "",
	} {
		got, err := ParseClaim(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	for range 100 {
		if c := NewClaim(); func() string { p, _ := ParseClaim(c); return p }() != c {
			t.Errorf("%q cannot be read", c)
		}
	}
	if a, b := NewClaim(), NewClaim(); a == b {
		t.Error("two boxes have the same code")
	}
}

func FuzzParseClaim(f *testing.F) {
	f.Add("3F7K-9QXM-02TA")
	f.Add("ıſ")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseClaim(text)
		if err != nil {
			return
		}
		if again, err := ParseClaim(c); err != nil || again != c || len(c) != 14 {
			t.Errorf("%q became %q, then %q, %v", text, c, again, err)
		}
	})
}

// The first code counts, for good, until the box is claimed; and then none ever does.
func TestClaim(t *testing.T) {
	dir := t.TempDir()
	open := func() *Store {
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	check := func(wantCode string, wantDecided bool) {
		t.Helper()
		code, decided, err := open().Claim()
		if code != wantCode || decided != wantDecided || err != nil {
			t.Errorf("%q, %t, %v; want %q, %t", code, decided, err, wantCode, wantDecided)
		}
	}
	check("", false)
	for range 2 { // the second time is another start of the box
		if got, err := open().DecideClaim("AAAA-AAAA-AAAA"); got != "AAAA-AAAA-AAAA" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if got, err := open().DecideClaim("BBBB-BBBB-BBBB"); got != "AAAA-AAAA-AAAA" || err != nil {
		t.Errorf("a second code counts: %q, %v", got, err)
	}
	check("AAAA-AAAA-AAAA", true)
	if err := open().VoidClaim(); err != nil {
		t.Fatal(err)
	}
	check("", true)
	if got, err := open().DecideClaim("BBBB-BBBB-BBBB"); got != "" || err != nil {
		t.Errorf("a claimed box got a new code: %q, %v", got, err)
	}
}
