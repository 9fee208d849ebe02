package network

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
)

// userOption is an RTM_NEWNDUSEROPT message for link 3 with an RDNSS option of the addresses.
func userOption(seconds uint32, addrs ...string) []byte {
	m := make([]byte, userOptHeader+8)
	nl.NativeEndian().PutUint32(m[4:], 3)
	m[userOptHeader] = optionRDNSS
	m[userOptHeader+1] = byte(1 + 2*len(addrs))
	binary.BigEndian.PutUint32(m[userOptHeader+4:], seconds)
	for _, a := range addrs {
		m = append(m, netip.MustParseAddr(a).AsSlice()...)
	}
	return m
}

func TestRouterResolvers(t *testing.T) {
	now := time.Unix(1000, 0)
	index, got := routerResolvers(userOption(600, "2001:db8::1", "2001:db8::2"), now)
	if index != 3 || len(got) != 2 || got[1].addr.String() != "2001:db8::2" || !got[0].until.Equal(now.Add(600*time.Second)) {
		t.Errorf("link %d, %v", index, got)
	}
	known := merge(nil, got, now)
	_, again := routerResolvers(userOption(600, "2001:db8::1"), now)
	if known = merge(known, again, now); len(known) != 2 {
		t.Errorf("heard twice: %v", known)
	}
	_, withdrawn := routerResolvers(userOption(0, "2001:db8::1"), now)
	if known = merge(known, withdrawn, now); len(known) != 1 || known[0].addr.String() != "2001:db8::2" {
		t.Errorf("after one was withdrawn: %v", known)
	}
	if known = merge(known, nil, now.Add(time.Hour)); len(known) != 0 {
		t.Errorf("after their time: %v", known)
	}
	for i := range 1000 { // somebody on the link who advertises ever more
		a := netip.AddrFrom16([16]byte{0x20, 1, 14: byte(i >> 8), 15: byte(i)})
		known = merge(known, []resolver{{addr: a, until: now.Add(time.Hour)}}, now)
	}
	if len(known) != mostAdvertised {
		t.Errorf("%d resolvers are kept", len(known))
	}
}

func FuzzRouterResolvers(f *testing.F) {
	f.Add(userOption(600, "2001:db8::1"))
	f.Add(userOption(600, "2001:db8::1")[:userOptHeader+9])
	f.Fuzz(func(t *testing.T, m []byte) {
		if _, got := routerResolvers(m, time.Unix(0, 0)); len(got) > len(m)/16 {
			t.Errorf("%d resolvers in %d bytes", len(got), len(m))
		}
	})
}
