package terminal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"allotment/internal/progress"
)

// clock is a time that only the test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

// plain and screen return reporters without a ticker: the tests call refresh.
func plain() (*Reporter, *bytes.Buffer, *clock) {
	out, c := &bytes.Buffer{}, &clock{time.Unix(1_000_000_000, 0)}
	return &Reporter{out: out, now: c.now}, out, c
}

func screen(width int) (*Reporter, *bytes.Buffer, *clock) {
	r, out, c := plain()
	r.width = func() int { return width }
	return r, out, c
}

func wantOutput(t *testing.T, out *bytes.Buffer, want string) {
	t.Helper()
	if got := out.String(); got != want {
		t.Errorf("output:\n%q\nwant:\n%q", got, want)
	}
	out.Reset()
}

func TestPlainLines(t *testing.T) {
	r, out, c := plain()
	s := r.Step("fetch 112 packages", 120_000_000)
	r.refresh()
	wantOutput(t, out, "")
	s.Add(45_000_000)
	c.advance(12 * time.Second)
	r.refresh()
	wantOutput(t, out, "fetch 112 packages: 45 of 120 MB, 12 s\n")
	c.advance(11 * time.Second)
	r.refresh()
	wantOutput(t, out, "")
	c.advance(time.Second)
	r.refresh()
	wantOutput(t, out, "fetch 112 packages: 45 of 120 MB, 24 s\n")
	s.Add(75_000_000)
	c.advance(6 * time.Second)
	s.Done(nil)
	wantOutput(t, out, "fetch 112 packages: 120 MB, 30 s (4 MB/s)\n")
}

func TestTotalsAreThoseCounted(t *testing.T) {
	r, out, c := plain()
	short, failed, bare := r.Step("fetch", 1000), r.Step("pack", 0), r.Step("sign", 0)
	short.Add(400)
	failed.Add(2_500_000)
	c.advance(90 * time.Second)
	short.Done(nil)
	wantOutput(t, out, "fetch: 0.4 of 1 kB, 1 min 30 s (4 B/s)\n")
	failed.Done(errors.New("disk full"))
	wantOutput(t, out, "pack: failed after 1 min 30 s, 2.5 MB\n")
	bare.Done(nil)
	wantOutput(t, out, "sign: 1 min 30 s\n")
	bare.Done(nil)
	wantOutput(t, out, "")
}

func TestQuickStepsLeaveNoLine(t *testing.T) {
	r, out, c := plain()
	s := r.Step("read the profile", 0)
	c.advance(worthALine - 1)
	s.Done(nil)
	wantOutput(t, out, "")
}

func TestBars(t *testing.T) {
	r, out, c := screen(100)
	a := r.Step("fetch", 100)
	b := r.Step("hash", 0)
	a.Add(50)
	c.advance(2 * time.Second)
	r.refresh()
	bars := "fetch [============            ]  50 of 100 B (25 B/s)  2 s\nhash  2 s\n"
	wantOutput(t, out, bars)
	fmt.Fprintln(r, "a message")
	wantOutput(t, out, "\x1b[2A\r\x1b[Ja message\n"+bars)
	a.Add(50)
	a.Done(nil)
	wantOutput(t, out, "\x1b[2A\r\x1b[Jfetch: 100 B, 2 s (50 B/s)\nhash  2 s\n")
	b.Done(nil)
	wantOutput(t, out, "\x1b[1A\r\x1b[Jhash: 2 s\n")
	r.refresh()
	wantOutput(t, out, "")
}

func TestBarsNeverWrap(t *testing.T) {
	for _, width := range []int{1, 2, 10, 39, 200} {
		r, out, c := screen(width)
		r.Step("füll the öven", 10).Add(25)
		c.advance(time.Hour)
		r.refresh()
		line := strings.TrimSuffix(out.String(), "\n")
		if n := len([]rune(line)); n >= width && n > 0 {
			t.Errorf("bar of %d columns on a terminal of %d: %q", n, width, line)
		}
	}
}

func TestSeveralGoroutines(t *testing.T) {
	r, out, c := screen(100)
	c.advance(time.Second)
	sum := r.Step("all", 0)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			s := r.Step("part", 10)
			for range 10 {
				s.Add(1)
				sum.Add(1)
				r.refresh()
			}
			s.Done(nil)
		})
	}
	wg.Wait()
	out.Reset()
	c.advance(time.Second)
	sum.Done(nil)
	wantOutput(t, out, "\x1b[1A\r\x1b[Jall: 200 B, 1 s (200 B/s)\n")
}

func TestFileIsNoTerminal(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := New(f)
	var _ progress.Reporter = r
	r.Step("cut short", 0).Done(errors.New("interrupted"))
	r.Step("not ended", 0)
	r.Close()
	text, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if want := "cut short: failed after 0 s\n"; string(text) != want {
		t.Errorf("file says %q, want %q", text, want)
	}
}
