package attempt

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"allotment/image"
	"allotment/image/verity"
)

func example() *Attempt {
	return &Attempt{
		Number: 1, Release: image.NewDigest([32]byte{9}),
		From: System{Version: "1.0", RootHash: verity.RootHash{1}, Slot: image.SlotA},
		To:   System{Version: "2.0", RootHash: verity.RootHash{2}, Slot: image.SlotB},
	}
}

// TestDecide goes through every stage on either system, with what the boot loader may say.
func TestDecide(t *testing.T) {
	placed := []Entry{{Version: "1.0"}}
	armed := []Entry{{"2.0", true, 3, 0}, {Version: "1.0"}}
	started := []Entry{{"2.0", true, 2, 1}, {Version: "1.0"}}
	hung := []Entry{{Version: "1.0"}, {"2.0", true, 0, 3}}
	committed := []Entry{{Version: "2.0"}, {Version: "1.0"}}
	unknown := verity.RootHash{3}
	for _, c := range []struct {
		stage   Stage
		running int // 1: From, 2: To
		entries []Entry
		starts  int // also of Untried and Forwards
		want    Decision
	}{
		{Fetching, 1, placed, 0, Normal},
		{Fetching, 2, placed, 0, LeaveTrial},
		{Staged, 1, placed, 0, Normal},
		{Staged, 2, started, 0, LeaveTrial},
		{Armed, 1, placed, 0, NotTried},
		{Armed, 1, armed, 2, NotTried},
		{Armed, 1, armed, 3, Restore},
		{Armed, 1, hung, 0, Restore},
		{Armed, 1, started, 0, Restore},
		{Armed, 2, started, 0, BeginTrial},
		{Trial, 1, hung, 1, Restore},
		{Trial, 1, placed, 1, Restore},
		{Trial, 2, started, 2, RepeatTrial},
		{Trial, 2, started, 3, LeaveTrial},
		{Committed, 1, hung, 0, RollForward},
		{Committed, 1, committed, 2, RollForward},
		{Committed, 1, committed, 3, Stranded},
		{Committed, 2, committed, 1, Normal},
		{Committed, 2, started, 1, FinishCommit},
		{Committed, 2, nil, 1, FinishCommit},
		{Committed, 2, []Entry{{Version: "1.0"}, {Version: "2.0"}}, 1, FinishCommit},
		{Undoing, 1, started, 1, Restore},
		{Undoing, 2, started, 1, LeaveTrial},
		{Undoing, 2, committed, 1, LeaveTrial},
		{Undone, 1, placed, 1, Normal},
		{Undone, 2, started, 1, LeaveTrial},
	} {
		a := example()
		a.Stage, a.Starts, a.Untried, a.Forwards = c.stage, c.starts, c.starts, c.starts
		running := []verity.RootHash{1: a.From.RootHash, 2: a.To.RootHash}[c.running]
		if got := Decide(a, running, c.entries); got != c.want {
			t.Errorf("%s, release %d runs, entries %v, counted %d: %s, want %s", c.stage, c.running, c.entries, c.starts, got, c.want)
		}
		want := Stranded
		if c.stage == Fetching || c.stage == Staged || c.stage == Undone {
			want = Normal
		}
		if got := Decide(a, unknown, c.entries); got != want {
			t.Errorf("%s, a third system runs: %s, want %s", c.stage, got, want)
		}
	}
	if got := Decide(nil, unknown, placed); got != Normal {
		t.Errorf("no record: %s", got)
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "update")
	if a, err := Load(dir); a != nil || err != nil {
		t.Fatalf("no record: %v, %v", a, err)
	}
	want := example()
	now := time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)
	want.Reach(Fetching, now)
	want.Reach(Staged, now.Add(time.Minute))
	if err := want.Save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir)
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("loaded %v, %s", err, cmp.Diff(want, got))
	}
	if err := (&Attempt{Stage: Staged, Number: 1}).Save(dir); err == nil {
		t.Error("an attempt from nowhere to nowhere was saved")
	}
	if again, err := Load(dir); err != nil || !cmp.Equal(again, want) {
		t.Errorf("after a refused Save: %v, %v", again, err)
	}
}

// TestLoadNotices damages the record.
func TestLoadNotices(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"empty": "", "cut": `{"number": 1, "stage": "tri`, "no stage": `{"number": 1}`,
		"same": `{"number": 1, "stage": "trial"}`,
		"huge": string(make([]byte, maxSize+1)),
	} {
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if a, err := Load(dir); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, %v", name, a, err)
		}
	}
}

// FuzzParse feeds records: what is accepted is accepted again after it was saved.
func FuzzParse(f *testing.F) {
	dir := f.TempDir()
	a := example()
	a.Reach(Armed, time.Unix(1795000000, 0))
	a.Failure = &Failure{Check: CheckStart}
	if err := a.Save(dir); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"number":1,"stage":"armed","later":{},"from":{"version":"1.0","slot":"a"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parse(b)
		if err != nil {
			return
		}
		dir := t.TempDir()
		if err := a.Save(dir); err != nil {
			t.Skip(err) // such as a time that JSON cannot say
		}
		if _, err := Load(dir); err != nil {
			t.Errorf("saved, and cannot be loaded: %v", err)
		}
	})
}
