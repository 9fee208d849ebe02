package letter

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"allotment/updater/attempt"
)

var update = flag.Bool("update", false, "write the letters as they are now")

// night is an attempt that was armed at 2:14 in London's summer, and ended three minutes later.
func night(end attempt.Stage, f *attempt.Failure) *attempt.Attempt {
	at := func(minute int) time.Time { return time.Date(2026, 6, 7, 1, minute, 20, 0, time.UTC) }
	return &attempt.Attempt{
		Number: 4, From: attempt.System{Version: "2026.6.1"}, To: attempt.System{Version: "2026.6.2"}, Stage: end, Starts: 1,
		Marks: []attempt.Mark{{Stage: attempt.Staged, Time: at(0)}, {Stage: attempt.Armed, Time: at(14)},
			{Stage: attempt.Trial, Time: at(15)}, {Stage: end, Time: at(17)}},
		Baseline: []attempt.Result{
			{Module: "calendar", Title: "Calendar", OK: true},
			{Module: "web", Title: "Web pages", Problem: "php: exit code 1"},
			{Module: "calendar", Journey: "enter", Title: "Enter an appointment and see it", OK: true},
			{Module: "calendar", Journey: "share", Title: "Share a calendar", Problem: "status 500"},
		},
		Failure: f,
	}
}

// TestLetters wants the letters for all ends that an update can have to be those in testdata.
func TestLetters(t *testing.T) {
	names := Names{Organisation: "Garden Club", Modules: map[string]string{"calendar": "Calendar", "web": "Web pages"}}
	var err error
	if names.Zone, err = time.LoadLocation("Europe/London"); err != nil {
		t.Fatal(err)
	}
	committed := night(attempt.Committed, nil)
	committed.Results = []attempt.Result{{Module: "calendar", Title: "Calendar", OK: true}, {Module: "web", Title: "Web pages"},
		{Module: "calendar", Journey: "enter", Title: "Enter an appointment and see it", OK: true}}
	good := *committed
	good.Baseline = nil
	cuts := night(attempt.Undone, &attempt.Failure{Check: attempt.CheckTries,
		Problem: "it began its trial 3 times and was reset each time, without a verdict"})
	cuts.Starts = 3
	byHand := night(attempt.Undone, nil)
	byHand.ByHand = true
	undone := func(f attempt.Failure) *attempt.Attempt { return night(attempt.Undone, &f) }
	for name, a := range map[string]*attempt.Attempt{
		"committed":                committed,
		"committed-nothing-broken": &good,
		"by-hand":                  byHand,
		"power-cuts":               cuts,
		"journey": undone(attempt.Failure{Check: attempt.CheckJourney, Module: "calendar", Journey: "enter",
			Problem: "Enter an appointment and see it failed: status 500",
			Output:  "radicale: starting\nradicale: TypeError: 'NoneType' object is not iterable"}),
		"migration": undone(attempt.Failure{Check: attempt.CheckMigration, Module: "calendar",
			Problem: "migration of volume data of calendar to format 3 failed: status 1", Output: "no such column: uid"}),
		"module": undone(attempt.Failure{Check: attempt.CheckModule, Module: "calendar", Problem: "radicale: exit code 1"}),
		"time":   undone(attempt.Failure{Check: attempt.CheckTime, Module: "calendar", Problem: "it was not done after 15m0s"}),
		"time-journeys": undone(attempt.Failure{Check: attempt.CheckTime,
			Problem: "it was not done after 15m0s"}),
		"core": undone(attempt.Failure{Check: attempt.CheckCore, Problem: "services: gateway: exit code 2"}),
		"store": undone(attempt.Failure{Check: attempt.CheckStore,
			Problem: "cannot write \"attempt.json\": no space left on device"}),
		"kernel-hang": undone(attempt.Failure{Check: attempt.CheckStart,
			Problem: "the boot loader started it and gave it up; it never came so far as to open the state partition"}),
	} {
		t.Run(name, func(t *testing.T) {
			l := Write(a, names)
			got := l.Subject + "\n\n" + l.Text
			path := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A letter is written of whatever a record says, be it damaged or of another release.
func TestLetterOfLittle(t *testing.T) {
	for _, a := range []*attempt.Attempt{{}, {Stage: attempt.Undone}, {Stage: attempt.Committed}, {Failure: &attempt.Failure{}}} {
		if l := Write(a, Names{}); l.Subject == "" || l.Text == "" {
			t.Errorf("%+v: %+v", a, l)
		}
	}
}
