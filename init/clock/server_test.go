package clock

import (
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// ntpTime is a time as 64 bits: seconds since 1900 and their fraction (RFC 5905, section 6).
func ntpTime(t time.Time) uint64 {
	const since1900 = 2208988800
	return uint64(t.Unix()+since1900)<<32 | uint64(t.Nanosecond())<<32/1e9
}

// serve answers as a server of the stratum whose clock is ahead of ours does.
func serve(t *testing.T, ahead time.Duration, stratum byte) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		for b := make([]byte, 512); ; {
			n, peer, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if n < 48 {
				continue
			}
			now := ntpTime(time.Now().Add(ahead))
			out := make([]byte, 48)
			out[0], out[1], out[2], out[3] = 4<<3|4, stratum, 6, 0xec // version 4, server
			copy(out[24:32], b[40:48])                                // what the client sent returns as origin
			for _, at := range []int{16, 32, 40} {
				binary.BigEndian.PutUint64(out[at:], now)
			}
			c.WriteTo(out, peer)
		}
	}()
	return c.LocalAddr().String()
}

func TestQuery(t *testing.T) {
	s, err := query(serve(t, time.Hour, 2))
	if err != nil || (s.Offset-time.Hour).Abs() > time.Second || s.Error <= 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := query(serve(t, 0, 16)); err == nil {
		t.Errorf("a server that is not synchronised was believed: %+v", s)
	}
}
