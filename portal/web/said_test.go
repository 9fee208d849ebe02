package web

import (
	"testing"
	"time"
)

// TestSaid says the box's texts within messages, as text and as HTML, with what nobody has translated marked and escaped.
func TestSaid(t *testing.T) {
	messages, err := ReadMessages(fileSystem(map[string]string{
		"messages/en.toml": "\"bees.no\" = \"No, {name}: {text}\"\n\"module.bees.title\" = \"Bees\"\n\"task.bees.feed.title\" = \"Feed <them>\"\n",
		"messages/de.toml": "\"bees.no\" = \"Nein, {name}: {text}\"\n\"module.bees.title\" = \"Bienen\"\n\"task.bees.feed.title\" = \"Füttern\"\n",
	}), own)
	if err != nil {
		t.Fatal(err)
	}
	s := &Site{messages: messages, deps: Deps{Clock: time.Now}}
	if err := s.readSentences(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ tag, said, html, text string }{
		{"de", "Bees is switched off", "Nein, &lt;Ann&gt;: Bienen ist ausgeschaltet.", "Nein, <Ann>: Bienen ist ausgeschaltet."},
		{"de", "repair feed of bees succeeded", "Nein, &lt;Ann&gt;: Reparatur „Füttern“: gelungen", "Nein, <Ann>: Reparatur „Füttern“: gelungen"},
		{"de", "rats <b>ate it", `Nein, &lt;Ann&gt;: <span lang="en">rats &lt;b&gt;ate it</span>`, "Nein, <Ann>: rats <b>ate it"},
		{"en", "rats <b>ate it", "No, &lt;Ann&gt;: rats &lt;b&gt;ate it", "No, <Ann>: rats <b>ate it"},
		{"fr", "the box is ready", `No, &lt;Ann&gt;: <span lang="en">the box is ready</span>`, "No, <Ann>: the box is ready"},
	} {
		args := []any{"name", "<Ann>", "text", Said(c.said)}
		if got := s.html(c.tag, "bees.no", args...); string(got) != c.html {
			t.Errorf("%s in %s: %s", c.said, c.tag, got)
		}
		if got := s.text(c.tag, "bees.no", args...); got != c.text {
			t.Errorf("%s in %s: %s", c.said, c.tag, got)
		}
	}
}

// TestNearest finds the year that a date without one means.
func TestNearest(t *testing.T) {
	day := func(year int, month time.Month) time.Time { return time.Date(year, month, 3, 2, 0, 0, 0, time.UTC) }
	for _, c := range []struct{ now, want time.Time }{
		{day(2026, time.February), day(2026, time.January)}, {day(2026, time.December), day(2027, time.January)},
	} {
		if got := nearest(day(0, time.January), c.now); !got.Equal(c.want) {
			t.Errorf("at %v: %v", c.now, got)
		}
	}
}
