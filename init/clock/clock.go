package clock

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/beevik/ntp"
	"golang.org/x/sys/unix"
)

// Clock is the machine's clock.
type Clock struct {
	epoch   time.Time
	servers []string
	file    string // where the last known time is kept; empty until Remember
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	logErr  func(error)
	synced  bool
}

// How often servers are asked.
const (
	steadyPause = 17 * time.Minute
	firstPause  = 5 * time.Second
	askTimeout  = 4 * time.Second
	lookTimeout = 10 * time.Second
	mostServers = 5
	saveEvery   = time.Hour
)

// New returns the clock of a release whose newest input is of epoch. DNS queries go to the server that resolver names at
// that time; errors from which it goes on are told to logErr.
func New(epoch time.Time, servers []string, resolver func() (netip.Addr, bool), logErr func(error)) *Clock {
	return &Clock{epoch: epoch, servers: servers, logErr: logErr,
		dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			a, ok := resolver()
			if !ok {
				return nil, fmt.Errorf("cannot look a name up: no resolver is known yet")
			}
			var d net.Dialer
			return d.DialContext(ctx, network, netip.AddrPortFrom(a, 53).String())
		}}
}

// Begin sets the clock forward to the epoch if it shows less.
func (c *Clock) Begin() error { return c.raise(time.Time{}) }

// Remember reads the last known time from the file, sets the clock forward to it, and keeps the time there from now on.
func (c *Clock) Remember(file string) error {
	c.file = file
	last, err := readTime(file)
	if err != nil && !os.IsNotExist(err) {
		c.logErr(err)
	}
	if !Plausible(last, c.epoch) {
		last = time.Time{}
	}
	return c.raise(last)
}

func (c *Clock) raise(last time.Time) error {
	now := time.Now()
	floor := Floor(now, c.epoch, last)
	if floor.Equal(now) {
		return nil
	}
	return set(floor)
}

func set(t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("cannot set the clock to %s: %w", t.UTC().Format(time.RFC3339), err)
	}
	return nil
}

// readTime reads a file that Save wrote.
func readTime(file string) (time.Time, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return time.Time{}, err
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot read the last known time: %w", err)
	}
	return time.Unix(seconds, 0), nil
}

// Save keeps the time for the next start. A machine without a clock of its own then starts from here.
func (c *Clock) Save() error {
	if c.file == "" {
		return nil
	}
	next := c.file + ".new"
	if err := os.WriteFile(next, []byte(strconv.FormatInt(time.Now().Unix(), 10)+"\n"), 0o644); err != nil {
		return fmt.Errorf("cannot keep the time: %w", err)
	}
	return os.Rename(next, c.file)
}

// Run follows the servers until ctx ends: often until the first time they agree, then rarely. A signal on online makes it
// ask at once. Report is called after every correction.
func (c *Clock) Run(ctx context.Context, online <-chan struct{}, report func(offset time.Duration)) {
	pause := firstPause
	save := time.NewTicker(saveEvery)
	defer save.Stop()
	ask := time.NewTimer(0)
	defer ask.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-save.C:
			if err := c.Save(); err != nil {
				c.logErr(err)
			}
			continue
		case <-online:
			if c.synced {
				continue
			}
			pause = firstPause
		case <-ask.C:
		}
		offset, err := c.sync(ctx)
		switch {
		case err == nil:
			pause = steadyPause
			report(offset)
		case c.synced:
			c.logErr(err)
			pause = steadyPause
		default:
			pause = min(2*pause, steadyPause)
		}
		ask.Reset(pause)
	}
}

// sync asks the servers once and corrects the clock.
func (c *Clock) sync(ctx context.Context) (time.Duration, error) {
	samples := c.ask(ctx)
	if len(samples) == 0 {
		return 0, fmt.Errorf("cannot get the time: no server answers")
	}
	offset, err := Agree(samples, time.Now(), c.epoch)
	if err != nil {
		return 0, err
	}
	switch Decide(offset, !c.synced) {
	case Slew:
		err = slew(offset)
	case Step:
		err = set(time.Now().Add(offset))
	}
	if err != nil {
		return 0, err
	}
	c.synced = true
	return offset, c.Save()
}

// slew lets the clock run up to 0.05 % faster or slower until the offset is gone.
func slew(offset time.Duration) error {
	_, err := unix.ClockAdjtime(unix.CLOCK_REALTIME, &unix.Timex{Modes: adjSingleShot, Offset: offset.Microseconds()})
	if err != nil {
		return fmt.Errorf("cannot slew the clock by %v: %w", offset, err)
	}
	return nil
}

const adjSingleShot = 0x8001 // ADJ_OFFSET_SINGLESHOT, adjtimex(2)

// ask asks all servers at once.
func (c *Clock) ask(ctx context.Context) []Sample {
	addresses := c.resolve(ctx)
	var mu sync.Mutex
	var wg sync.WaitGroup
	var samples []Sample
	for _, a := range addresses {
		wg.Go(func() {
			s, err := query(a.String())
			if err != nil {
				return // a silent server is nothing to tell of
			}
			mu.Lock()
			defer mu.Unlock()
			samples = append(samples, s)
		})
	}
	wg.Wait()
	return samples
}

func query(address string) (Sample, error) {
	r, err := ntp.QueryWithOptions(address, ntp.QueryOptions{Timeout: askTimeout})
	if err == nil {
		err = r.Validate()
	}
	if err != nil {
		return Sample{}, fmt.Errorf("cannot use the time of %s: %w", address, err)
	}
	return Sample{Server: address, Offset: r.ClockOffset, Error: r.RootDistance + time.Millisecond}, nil
}

// resolve returns addresses of the servers, one of each at first, up to mostServers: a single name often stands for
// several.
func (c *Clock) resolve(ctx context.Context) []netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	r := &net.Resolver{PreferGo: true, Dial: c.dial}
	var first, more []netip.Addr
	for _, s := range c.servers {
		addrs := []netip.Addr{}
		if a, err := netip.ParseAddr(s); err == nil {
			addrs = append(addrs, a)
		} else if addrs, err = r.LookupNetIP(ctx, "ip", s); err != nil || len(addrs) == 0 {
			continue
		}
		first = append(first, addrs[0])
		more = append(more, addrs[1:]...)
	}
	all := append(first, more...)
	return all[:min(mostServers, len(all))]
}
