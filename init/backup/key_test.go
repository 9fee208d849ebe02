package backup

import (
	"crypto/rand"
	"strings"
	"testing"
)

func TestKey(t *testing.T) {
	k, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := k.Text()
	if len(text) != 9*5-1 || strings.Count(text, "-") != 8 {
		t.Errorf("the key is printed as %q", text)
	}
	for _, typed := range []string{text, strings.ToUpper(text), strings.ReplaceAll(text, "-", ""), " " + strings.ReplaceAll(text, "-", " ") + "\n",
		strings.ReplaceAll(text, "0", "O"), strings.ReplaceAll(text, "1", "l")} {
		if got, err := ParseKey(typed); err != nil || got != k {
			t.Errorf("%q is not read: %v", typed, err)
		}
	}
	if strings.Contains(k.String(), k.letters[:4]) {
		t.Error("the key shows in logs")
	}
}

// Every slip of one letter is seen, and every swap of neighbours.
func TestKeySlips(t *testing.T) {
	k, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.ReplaceAll(k.Text(), "-", "")
	missed := 0
	for i := range all {
		for _, letter := range keyAlphabet {
			slip := all[:i] + string(letter) + all[i+1:]
			if _, err := ParseKey(slip); err == nil && slip != all {
				missed++
			}
		}
		if i > 0 {
			swap := all[:i-1] + all[i:i+1] + all[i-1:i] + all[i+1:]
			if _, err := ParseKey(swap); err == nil && swap != all {
				missed++
			}
		}
	}
	if missed > 1 { // one in a million is let through by chance
		t.Errorf("%d slips are not seen", missed)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("0000-0000-0000-0000-0000-0000-0000-0000-0000")
	f.Add("O I l ‑ \u00a0")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseKey(text)
		if err != nil {
			return
		}
		if again, err := ParseKey(k.Text()); err != nil || again != k {
			t.Errorf("%q is read as %q, which is not: %v", text, k.Text(), err)
		}
	})
}
