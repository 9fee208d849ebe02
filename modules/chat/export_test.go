package chat_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// TestExport wants the messages as JSON, whatever is in them.
func TestExport(t *testing.T) {
	c := newClub(t)
	const odd = "Grüße \"🌷\" \\ <&"
	c.tell(c.logIn("anna"), c.logIn("bert"), odd)
	if err := errors.Join(c.history("dump"), c.history("export")); err != nil {
		t.Fatal(err)
	}
	var all []struct{ Host, Of, Kind, Time, With, Stanza string }
	if err := json.Unmarshal(c.prosody.Read("/var/lib/dump/messages.json"), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].Kind != "archive" || !strings.HasPrefix(all[0].Time, "20") || !strings.Contains(all[0].Stanza, "Grüße \"🌷\" \\ &lt;&amp;") &&
		!strings.Contains(all[0].Stanza, "Grüße &quot;🌷&quot; \\ &lt;&amp;") {
		t.Errorf("%q", all)
	}
}
