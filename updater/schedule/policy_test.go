package schedule

import "testing"

func TestPolicyCheck(t *testing.T) {
	for source, ok := range map[string]bool{
		"": true, "usb:UPDATES": true, "usb:garden club": true, "http://mirror.lan/club": true, "https://example.org": true,
		"usb:": false, "usb:A\nB": false, "UPDATES": false, "/state/volumes": false, "file:///state": false, "https://": false,
		"https://name:word@example.org": false, "https://example.org/?a": false,
	} {
		if err := (Policy{Source: source}).Check(); (err == nil) != ok {
			t.Errorf("source %q: %v", source, err)
		}
	}
}
