package schedule

import "testing"

func TestPolicyCheck(t *testing.T) {
	for source, ok := range map[string]bool{
		"": true, "/run/usb": true, "/run/usb/": true, "/run/usb/stick/repo": true,
		"run/usb": false, "/state/volumes": false, "/run/usb/../allotment": false, "/run/usbstick": false, "/": false,
	} {
		if err := (Policy{Source: source}).Check(); (err == nil) != ok {
			t.Errorf("source %q: %v", source, err)
		}
	}
}
