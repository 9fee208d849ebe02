package sentence

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// words are modules' words as the portal's messages have them.
var words = map[string]string{"Web pages": "Webseiten", "Calendar": "Kalender", "calendar": "Kalender",
	"Share a calendar": "Einen Kalender teilen", "enter of calendar": "Einen Termin eintragen"}

func read(t *testing.T, tag string) *Catalogue {
	t.Helper()
	c, err := Read(Files, tag, words, func(t time.Time, clock bool) string {
		if clock {
			return t.Format("2.1.2006 15:04")
		}
		return t.Format("2.1.2006")
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestLetters says the letters of the updater's own tests in German, but for what is for those who help.
func TestLetters(t *testing.T) {
	c := read(t, "de")
	all, err := filepath.Glob("../../updater/letter/testdata/*.txt")
	if err != nil || len(all) < 10 {
		t.Fatal(all, err)
	}
	for _, name := range all {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(string(b), "For whoever helps")
		for _, p := range c.Say(text) {
			if p.English {
				t.Errorf("%s: %q is left in English", name, p.Text)
			}
		}
	}
}

// TestSay says what boxes have said, with values, terms, lists, moments, sentences within sentences, and what nobody knows.
func TestSay(t *testing.T) {
	c := read(t, "de")
	for _, x := range []struct{ text, want, english string }{
		{"the box is ready", "Der Server ist bereit.", ""},
		{"calendar.radicale ended: exit code 1", "calendar.radicale ist ausgefallen: Endcode 1", ""},
		{"Calendar is needed by Calendar, Web pages", "Kalender wird gebraucht von: Kalender, Webseiten", ""},
		{"journey enter of calendar succeeded", "Probe „Einen Termin eintragen“: gelungen", ""},
		{"verify, restore-test", "Prüfung, Erprobung", ""},
		{"Updates are deferred: the earliest time is on Monday 2 March at 02:00.", "Updates sind verschoben, frühestens auf: 2.3.0000 02:00.", ""},
		{"- Calendar: “Share a calendar”", "- Kalender: „Einen Kalender teilen“", ""},
		{"Garden Club: the server was updated to version 2026.6.2", "Garden Club: der Server hat jetzt Version 2026.6.2", ""},
		{"is starting again: radicale: exit code 2; nginx: no answer in time",
			"startet noch einmal: radicale: Endcode 2; nginx: keine Antwort in der gesetzten Zeit", ""},
		{"the backup failed: Calendar could not be prepared: status 1\ncannot open \"/a b\": no such file",
			"Die Sicherung ist fehlgeschlagen: Kalender konnte nicht vorbereitet werden: status 1\ncannot open \"/a b\": no such file",
			"status 1|cannot open \"/a b\": no such file"},
		{"the box stops: rats have eaten <b>the cable", "Der Server hält an: rats have eaten <b>the cable", "rats have eaten <b>the cable"},
		{"7.0 GiB free", "7.0 GiB free", "7.0 GiB free"},
		{"calendar.radicale", "calendar.radicale", ""},
		{"", "", ""}, {"\n\n", "\n\n", ""}, {": ", ": ", ""}, {"; ", "; ", ""},
	} {
		parts := c.Say(x.text)
		var english []string
		for _, p := range parts {
			if p.English {
				english = append(english, p.Text)
			}
		}
		if got := Text(parts); got != x.want || strings.Join(english, "|") != x.english {
			t.Errorf("%q: %q with %q in English", x.text, got, english)
		}
	}
}

// TestTwin takes a sentence out of the catalogue and sees that it is missed.
func TestTwin(t *testing.T) {
	b, err := Files.ReadFile("de.toml")
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.DeleteFunc(strings.Split(string(b), "\n"), func(l string) bool {
		return strings.HasPrefix(l, `"a backup was made: `) || strings.HasPrefix(l, `"{a} of {b} MiB are available"`)
	})
	files := fstest.MapFS{"de.toml": {Data: []byte(strings.Join(lines, "\n"))}}
	c, err := Read(files, "de", nil, func(time.Time, bool) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	whole, missed := read(t, "de"), 0
	for _, dir := range []string{"../../init/backup", "../../init/supervisor"} {
		for _, s := range sentencesOf(t, dir) {
			if !knows(c, s.text) && knows(whole, s.text) {
				missed++
			}
		}
	}
	if missed != 2 {
		t.Errorf("%d sentences are missed", missed)
	}
	for text, want := range map[string]bool{"there is no module 7": true, "there is no module 7 at this time of day": false,
		"rats have eaten 7": false, "the box is ready": true, "the boot failed": true} {
		if knows(whole, text) != want {
			t.Errorf("knows %q: %t", text, !want)
		}
	}
}

// TestBadCatalogues refuses what would say something wrong.
func TestBadCatalogues(t *testing.T) {
	for text, want := range map[string]string{
		`"the {a} runs" = "es läuft"`:          "has the parts",
		`"the box" = "der {name}"`:             "has the parts",
		`"{name} runs {name}" = "{name} geht"`: "has the parts",
		`"{name}: [why]" = "{name}: [why]"`:    "says nothing by itself",
		`"a" = 3`:                              "cannot read",
	} {
		files := fstest.MapFS{"de.toml": {Data: []byte(text)}}
		if _, err := Read(files, "de", nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := Read(Files, "xx", nil, nil); err == nil {
		t.Error("a language that is not there")
	}
}

// FuzzSay loses nothing that it does not know, whatever a box says.
func FuzzSay(f *testing.F) {
	c, err := Read(Files, "de", words, func(t time.Time, _ bool) string { return t.String() })
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"the box stops: [why]", "a: b; c\n- d", "{name} is ready", "calendar.radicale ended: exit code 1", "“”: (", "\xff\n ; : "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range c.Say(text) {
			if p.English && !strings.Contains(text, p.Text) {
				t.Errorf("%q is no part of %q", p.Text, text)
			}
		}
	})
}
