package power

import (
	"encoding/binary"
	"testing"
)

func event(kind, code uint16, value uint32) []byte {
	b := make([]byte, eventSize)
	binary.NativeEndian.PutUint16(b[eventSize-8:], kind)
	binary.NativeEndian.PutUint16(b[eventSize-6:], code)
	binary.NativeEndian.PutUint32(b[eventSize-4:], value)
	return b
}

func TestPushes(t *testing.T) {
	sync := event(0, 0, 0)
	for name, c := range map[string]struct {
		in   []byte
		want bool
	}{
		"down":       {append(event(eventKey, keyPower, 1), sync...), true},
		"second":     {append(event(eventKey, 30, 1), event(eventKey, keyPower, 1)...), true},
		"up":         {event(eventKey, keyPower, 0), false},
		"held":       {event(eventKey, keyPower, 2), false},
		"other key":  {event(eventKey, 30, 1), false},
		"other kind": {event(4, keyPower, 1), false},
		"cut":        {event(eventKey, keyPower, 1)[:eventSize-1], false},
		"none":       {nil, false},
	} {
		if got := pushes(c.in); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzNames(f *testing.F) {
	f.Add(append(append(make([]byte, 12), 8, 0, 0, 0), "event3\x00\x00"...))
	f.Fuzz(func(t *testing.T, b []byte) { names(b) })
}
