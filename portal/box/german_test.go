package box

import (
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"allotment/api"
)

// TestGerman reads in German what boxes really say: events, lamps, why an update waits, a letter, receipts, what failed.
func TestGerman(t *testing.T) {
	o := open(t)
	letter, err := os.ReadFile("../../updater/letter/testdata/journey.txt")
	if err != nil {
		t.Fatal(err)
	}
	subject, text, _ := strings.Cut(string(letter), "\n\n")
	for _, says := range []string{"the box is ready", "web.php ended: exit code 255", "journey write of chat succeeded",
		"the backup failed: the box ate <it>", "settings of calendar were changed"} {
		o.box.Happen(api.Event{Time: o.now, Text: says})
	}
	o.box.State.Lamps = append(o.box.State.Lamps, api.Lamp{What: "Chat", Module: "chat", Level: api.Bad,
		Text: "does not work: prosody: the services of chat needed more than its 96 MiB of memory together"},
		api.Lamp{What: "network", Level: api.Good, Text: "192.0.2.1"})
	o.box.Updates.Reason = "Updates are deferred: the earliest time is on Monday 30 November at 02:00."
	o.box.Updates.Text, o.box.Updates.State, o.box.Updates.Offered = "This box is somewhere else.", "elsewhere", ""
	o.box.Tried[0].Subject, o.box.Tried[0].Letter = subject, text
	o.box.Saved = api.BackupStatus{State: api.BackupIdle, Target: &api.BackupTarget{Kind: "usb", Label: "BACKUP"},
		Last: &api.BackupRun{Time: o.now, Problem: "the target does not answer: is the address right, and the box online? (dial: refused)"},
		Proof: &api.BackupProof{Time: o.now, Problem: "Calendar: cannot stat /x", Modules: []api.BackupModuleProof{
			{Module: "calendar", Steps: "files, verify, restore-test"}}}}
	for path, wants := range map[string][]string{
		"health": {"Der Server ist bereit.", "web.php ist ausgefallen: Endcode 255", "Probe „Sich anmelden und eine Nachricht schreiben“: gelungen",
			`Die Sicherung ist fehlgeschlagen: <span lang="en">the box ate &lt;it&gt;</span>`, "Einstellungen von Kalender wurden geändert.",
			"funktioniert nicht: prosody: die Teile von Chat brauchten zusammen mehr als die 96 MiB"},
		"updates":   {"frühestens auf: 30. November 2026, 02:00 Uhr", `<span lang="en">This box is somewhere else.</span>`},
		"updates/1": {"<h2>Garden Club: ein Update wurde erprobt und zurückgenommen", "7. Juni 2026, 02:17 Uhr: Der Server hat ein Update", "Woran es lag: "},
		"backup":    {"Der Ort antwortet nicht.", `Kalender: <span lang="en">cannot stat /x</span>`, "Dateien, Prüfung, Erprobung"},
	} {
		status, page := o.get(root+path, "de")
		for _, want := range wants {
			if status != 200 || !strings.Contains(page, want) {
				t.Errorf("%s: %d, no %q in %s", path, status, want, page)
			}
		}
		status, page = o.get(root+path, "en")
		if status != 200 || strings.Contains(page, `<span lang="en">`) {
			t.Errorf("%s in English: %d, marks English: %s", path, status, page)
		}
	}
}

// TestGermanRefusals are what the box refuses, on the page of a job.
func TestGermanRefusals(t *testing.T) {
	o := open(t)
	o.box.Failing["page.read"] = "not ready within 30 s: it answers 502 Bad Gateway"
	at, _ := url.Parse(o.server.URL)
	o.browser.Jar.SetCookies(at, []*http.Cookie{{Name: "language", Value: "de", Path: "/"}})
	_, page := o.send(root+"health", root+"health/run", "kind", "journey", "module", "page", "name", "read")
	for end := time.Now().Add(20 * time.Second); !strings.Contains(page, "502"); {
		if time.Now().After(end) {
			t.Fatalf("no end: %s", page)
		}
		at := page[strings.Index(page, root+"jobs/"):]
		_, page = o.get(at[:strings.IndexByte(at, '"')], "de")
	}
	if !strings.Contains(page, "nicht bereit nach 30 s: es antwortet 502 Bad Gateway") {
		t.Error(page)
	}
}
