package slot

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"allotment/image"
	"allotment/updater/attempt"
	"allotment/updater/gate"
)

// kind is how the new release behaves.
type kind string

const (
	good  kind = "good"
	hangs kind = "hangs before init" // and the watchdog resets the machine
	dies  kind = "dies in its trial"
	fails kind = "fails a check in its trial"
	back  kind = "good, but officers go back"
)

// model is the search through every state that a box can be left in from the moment when a release is staged: whatever a
// start does, the power can be cut before or after every durable write of it, any number of times, and each box that may be
// found then is started in turn. The gate, the record, the decisions and the store with the file system below it are the
// real ones.
type model struct {
	*world
	kind   kind
	queue  []*box
	keys   map[string]bool
	raw    map[string]string // the key of each box, by what its disks hold
	next   map[string]string // from a state to that after a start without a cut
	ended  map[string]attempt.Stage
	faults []string
	starts int
}

func newModel(t testing.TB, m machine, k kind, plant string) *model {
	t.Helper()
	uki := makeUKI(t, to.Version, 0)
	w := &world{t: t, machine: m, folder: filepath.Join(quickDir(t), "update"), uki: uki, plant: plant}
	b := &box{esp: newESP(t, m.arch), copies: map[string]data{}, data: data{{format: "1.0"}, {format: "1.0"}}}
	if err := m.open(t, b.esp).Place(to.Version, write(t, uki)); err != nil {
		t.Fatal(err)
	}
	b.esp.Freeze()
	a := &attempt.Attempt{Number: 1, From: from, To: to, Release: image.NewDigest([32]byte{2}), Stage: attempt.Staged}
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	b.update = map[string]string{"attempt.json": string(text), "boot/2.0.efi": string(uki)}
	return &model{
		world: w, kind: k, keys: map[string]bool{}, raw: map[string]string{}, next: map[string]string{},
		ended: map[string]attempt.Stage{}, queue: []*box{b},
	}
}

// quickDir is a folder in memory where there is one: the record is synced thousands of times.
func quickDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "slot-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// run searches until no new state turns up, or a fault does.
func (m *model) run() {
	first := m.key(m.queue[0])
	m.keys[first] = true
	for len(m.queue) > 0 && len(m.faults) == 0 {
		b := m.queue[len(m.queue)-1]
		m.queue = m.queue[:len(m.queue)-1]
		at := m.key(b)
		off, stage, err := m.boot(b)
		if err != nil {
			m.faults = append(m.faults, fmt.Sprintf("%v\nin the state:\n%s", err, at))
			return
		}
		if stage != "" {
			m.ended[at] = stage
		}
		m.next[at] = m.add(off)
		for _, b := range m.left {
			m.add(b)
		}
	}
	m.checkEnds(first)
}

// add queues a box unless it was seen, and returns its key.
func (m *model) add(b *box) string {
	sum := b.esp.Sum()
	record := b.update["attempt.json"] + b.update["bad.json"]
	raw := fmt.Sprintf("%x %v %v %v %v %q", sum, b.data, b.copies, b.kept, b.taken, record)
	if key, ok := m.raw[raw]; ok {
		return key
	}
	key := m.key(b)
	m.raw[raw] = key
	if !m.keys[key] {
		m.keys[key] = true
		m.queue = append(m.queue, b)
	}
	return key
}

// boot starts a box and lets it go on until its next reset or the end of its story. It returns the box as it is then, and the
// stage that the story ended in.
func (m *model) boot(b *box) (*box, attempt.Stage, error) {
	m.starts++
	running, err := m.start(b)
	if err != nil {
		return nil, "", err
	}
	if running == to && m.kind == hangs {
		return m.off(), "", nil
	}
	g := m.gate(running)
	next, err := g.Start(false)
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("the gate of version %s: %w", running.Version, err)
	case next == gate.Trial && running == to:
		return m.trial(g)
	case next == gate.Usual:
		return m.usual(running, g)
	case next == gate.Reset:
		return m.off(), "", nil
	}
	return nil, "", fmt.Errorf("the gate of version %s says %d", running.Version, next)
}

// off is the box after a reset.
func (m *model) off() *box {
	m.cut()
	b := m.left[len(m.left)-1]
	m.left = m.left[:len(m.left)-1]
	return b
}

// trial migrates the data and comes to a verdict.
func (m *model) trial(g *gate.Gate) (*box, attempt.Stage, error) {
	for i := range m.on.data {
		m.on.data[i].format = to.Version
		m.cut()
	}
	switch m.kind {
	case dies:
		return m.off(), "", nil
	case fails:
		err := g.Undo(attempt.Failure{Check: attempt.CheckJourney, Problem: "planted"}, nil)
		return m.off(), "", err
	}
	if m.plant == "open before the commit" {
		m.membersWrite()
	}
	if err := g.Commit(nil); err != nil {
		return nil, "", err
	}
	m.membersWrite()
	g.Settle()
	return m.usual(to, g)
}

// usual lets members in, after a look whether the data are theirs, and in the format of what runs.
func (m *model) usual(running attempt.System, g *gate.Gate) (*box, attempt.Stage, error) {
	a := g.Attempt()
	kept := m.on.kept
	if a.ByHand {
		kept = m.on.taken
	}
	for _, v := range m.on.data {
		if v != (volume{running.Version, kept}) {
			return nil, "", fmt.Errorf("members meet version %s with the data %v, and wrote %d times",
				running.Version, m.on.data, kept)
		}
	}
	if running == to && m.kind != good && m.kind != back {
		return nil, "", errors.New("a bad release stays")
	}
	switch {
	case running == to && a.Stage == attempt.Committed:
		m.membersWrite()
		if m.kind == back {
			err := g.Back()
			return m.off(), "", err
		}
	case running == from && a.Stage == attempt.Undone:
		if !strings.Contains(m.readUpdate()["bad.json"], string(a.Release)) {
			return nil, "", errors.New("a release that failed is not remembered")
		}
	case running == from && a.Stage == attempt.Staged:
		m.membersWrite()
		return m.restart(g)
	default:
		return nil, "", fmt.Errorf("version %s runs as usual, and the record says %s", running.Version, a.Stage)
	}
	return m.off(), a.Stage, nil
}

// membersWrite is what members do on a day on which they are let in.
func (m *model) membersWrite() {
	if m.on.kept >= 2 {
		return // enough to see whether a write is lost
	}
	for i := range m.on.data {
		m.on.data[i].writes++
	}
	m.on.kept++
	m.cut()
}

// restart is the night: modules stand still, the release is armed.
func (m *model) restart(g *gate.Gate) (*box, attempt.Stage, error) {
	err := g.Arm(nil)
	if m.plant == "take the snapshot last" {
		m.on.copies[string(to.Version)] = m.on.data
	}
	return m.off(), "", err
}

// checkEnds wants every state to come to an end when the power stays on, and the first one to the right one.
func (m *model) checkEnds(first string) {
	for at := range m.keys {
		steps := map[string]bool{}
		for s := at; m.ended[s] == "" && len(m.faults) == 0; s = m.next[s] {
			if steps[s] {
				m.faults = append(m.faults, "this goes on for ever:\n"+s+"and then\n"+m.next[s])
			}
			steps[s] = true
		}
	}
	if len(m.faults) > 0 {
		return
	}
	s := first
	for m.ended[s] == "" {
		s = m.next[s]
	}
	want := attempt.Undone
	if m.kind == good {
		want = attempt.Committed
	}
	if m.ended[s] != want {
		m.faults = append(m.faults, fmt.Sprintf("with the power on all the time it ends %s, want %s", m.ended[s], want))
	}
}

// TestModel searches all states; with ALLOT_FULL=1 for all kinds of releases and machines.
func TestModel(t *testing.T) {
	quick := map[machine][]kind{machines[0]: {fails}, machines[1]: {hangs, back}}
	for _, mach := range machines {
		for _, k := range []kind{good, hangs, dies, fails, back} {
			if os.Getenv("ALLOT_FULL") == "" && !slices.Contains(quick[mach], k) {
				continue
			}
			m := newModel(t, mach, k, "")
			m.run()
			for _, f := range m.faults {
				t.Errorf("%v, a release that is %s: %s", mach, k, f)
			}
			ends := map[attempt.Stage]int{}
			for _, s := range m.ended {
				ends[s]++
			}
			t.Logf("%v, %s: %d states, %d starts, ends %v", mach, k, len(m.keys), m.starts, maps.Clone(ends))
		}
	}
}

// TestModelFindsFaults plants faults and wants each found.
func TestModelFindsFaults(t *testing.T) {
	for _, c := range []struct {
		plant string
		kind  kind
	}{
		{"take no snapshot", fails},
		{"take the snapshot last", fails},
		{"keep the first snapshot", fails},
		{"restore nothing", fails},
		{"drop nothing", back},
		{"open before the commit", good},
		{"count nothing", hangs},
	} {
		for _, mach := range machines[:2] {
			if mach.uefi && os.Getenv("ALLOT_FULL") == "" {
				continue
			}
			m := newModel(t, mach, c.kind, c.plant)
			m.run()
			if len(m.faults) == 0 {
				t.Errorf("%v: %q is not found in %d states", mach, c.plant, len(m.keys))
			}
			t.Logf("%v: %q is found after %d starts", mach, c.plant, m.starts)
		}
	}
}
