package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"allotment/api"
	"allotment/init/plan"
	"allotment/updater/attempt"
	"allotment/updater/gate"
)

// trial is what the supervisor knows of the release on trial, which is the one that runs.
type trial struct {
	attempt *attempt.Attempt
	judged  bool // the verdict is being written
}

// eventAnother tells that the machine must be reset, as another release is to run.
type eventAnother struct{ state State }

// passGate does what an update asks for before modules start, once a boot, and tells how the boot goes on.
func (s *Supervisor) passGate() gate.Next {
	if s.config.Gate == nil {
		return gate.Usual
	}
	passed := filepath.Join(s.config.Run, "gate-passed")
	_, err := os.Stat(passed)
	before := s.config.Gate.Attempt()
	next, err := s.config.Gate.Start(err == nil)
	if err != nil {
		s.log.Error("the update's gate", "error", err)
	}
	s.tellRestored(before, s.config.Gate.Attempt())
	if next != gate.Reset {
		if err := os.WriteFile(passed, nil, 0o644); err != nil {
			s.warn(err)
		}
	}
	return next
}

// tellRestored tells that this start has brought the data back.
func (s *Supervisor) tellRestored(before, after *attempt.Attempt) {
	if before == nil || after == nil || before.Stage == after.Stage || after.Stage != attempt.Undone {
		return
	}
	check := "none"
	if after.Failure != nil {
		check = after.Failure.Check
	}
	s.config.Console.Print("UPDATE-RESTORED version=%s undone=%s check=%s", after.From.Version, after.To.Version, check)
	s.record(api.Event{Level: api.Fair, Kind: "update", Text: fmt.Sprintf("version %s is undone: version %s runs again, with its data",
		after.To.Version, after.From.Version)}, nil)
}

// onAnother resets the machine. That the state is known lets it be closed in order.
func (s *Supervisor) onAnother(e eventAnother) {
	s.state = e.state
	s.reset("another release is to run")
}

// reset ends the box in order and starts it again.
func (s *Supervisor) reset(why string) {
	if s.ending {
		return
	}
	s.exit = Reboot
	s.stop(why)
}

// onGate takes note of how the boot goes on.
func (s *Supervisor) onGate(ctx context.Context, next gate.Next) {
	switch next {
	case gate.Usual:
		s.startUpdater(ctx)
	case gate.Trial:
		s.trial = &trial{attempt: s.config.Gate.Attempt()}
		s.log.Warn("this release is on trial", "from", s.trial.attempt.From.Version, "start", s.trial.attempt.Starts)
	case gate.Stranded:
		for _, m := range s.modules {
			m.held = true
		}
		s.stranded = true
		s.config.Console.Print("UPDATE-STRANDED version=%s: no module is started, because the data belong to another release",
			s.config.Manifest.Version)
		s.record(api.Event{Level: api.Bad, Kind: "update", Text: strandedText}, nil)
	}
}

const strandedText = "the data belong to another release, which does not start: nothing is lost, but a person has to help"

// tryOut lets the release on trial show that what worked before works, and writes the verdict.
func (s *Supervisor) tryOut(ctx context.Context, a *attempt.Attempt) {
	budget := time.Duration(a.Budget) * time.Second
	if budget == 0 {
		budget = attempt.DefaultBudget * time.Second
	}
	limited, cancel := context.WithDeadline(ctx, s.began.Add(budget))
	defer cancel()
	results, f := s.examineTrial(limited, a)
	if ctx.Err() == nil {
		s.judgeTrial(results, f)
	}
}

// examineTrial waits until all is ready that was ready before, and then tries what members could do before.
func (s *Supervisor) examineTrial(ctx context.Context, a *attempt.Attempt) ([]attempt.Result, *attempt.Failure) {
	late := s.await(ctx, func() bool { return s.trialFailure(a) != nil || s.asReadyAs(a) })
	var f *attempt.Failure
	if s.call(func(context.Context) { f = s.trialFailure(a) }) != nil {
		return nil, nil // the box ends
	}
	if f != nil {
		f.Output = firstText(f.Output, s.lastLines(f.Module))
		return nil, f
	}
	if late != nil {
		return nil, s.overtime(a)
	}
	results := s.examine(ctx, func(r attempt.Result) bool { return succeeded(a, r) })
	f = gate.Compare(a.Baseline, results)
	if ctx.Err() != nil {
		f = s.overtime(a)
	}
	return results, f
}

// succeeded tells whether the same succeeded before the update.
func succeeded(a *attempt.Attempt, r attempt.Result) bool {
	for _, b := range a.Baseline {
		if b.Module == r.Module && b.Journey == r.Journey {
			return b.OK
		}
	}
	return false
}

// wasReady tells whether the module was ready before the update.
func wasReady(a *attempt.Attempt, m *module) bool {
	return succeeded(a, attempt.Result{Module: m.plan.Name})
}

// trialFailure is what fails for good of modules that were ready before.
func (s *Supervisor) trialFailure(a *attempt.Attempt) *attempt.Failure {
	for _, m := range s.modules {
		if !wasReady(a, m) || !m.on {
			continue
		}
		if d := m.nextMigration(); d != nil && d.state == broken {
			problem, output, _ := strings.Cut(m.problem, "\n")
			return &attempt.Failure{Check: attempt.CheckMigration, Module: m.plan.Name, Problem: problem, Output: output}
		}
		if m.state() == "failed" {
			return &attempt.Failure{Check: attempt.CheckModule, Module: m.plan.Name, Problem: m.trouble()}
		}
	}
	return nil
}

// asReadyAs tells whether the core is ready and all modules that were so before the update. If nothing else is waited for,
// the gateway must lead to them, too.
func (s *Supervisor) asReadyAs(a *attempt.Attempt) bool {
	for _, u := range s.units {
		if u.importance == plan.Core && u.module.runs() && u.machine.state != ready {
			return false
		}
	}
	for _, m := range s.modules {
		if m.on && wasReady(a, m) && m.state() != "ready" {
			return false
		}
	}
	return s.booted || s.waitsForUnits()
}

// overtime is the failure of a trial that took too long, with what was not ready.
func (s *Supervisor) overtime(a *attempt.Attempt) *attempt.Failure {
	f := &attempt.Failure{Check: attempt.CheckTime, Problem: fmt.Sprintf("it was not done after %v", s.now().Sub(s.began).Round(time.Second))}
	_ = s.call(func(context.Context) {
		for _, m := range s.modules {
			if m.on && wasReady(a, m) && m.state() != "ready" && f.Module == "" {
				f.Module, f.Problem = m.plan.Name, f.Problem+"; "+m.describe()
			}
		}
	})
	f.Output = s.lastLines(f.Module)
	return f
}

// mostLines is how many lines of a module's log go into a failure.
const mostLines = 10

// lastLines are the newest of the module's log; none without a module.
func (s *Supervisor) lastLines(module string) string {
	if module == "" {
		return ""
	}
	tails, lines, err := s.openLogs(api.LogQuery{Module: module, Lines: mostLines})
	for _, t := range tails {
		t.Close()
	}
	if err != nil {
		s.warn(err)
	}
	var all []string
	for _, l := range lines {
		all = append(all, l.Service+": "+l.Text)
	}
	return strings.Join(all, "\n")
}

func firstText(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// judgeTrial writes the verdict of the trial, unless one is being written.
func (s *Supervisor) judgeTrial(results []attempt.Result, f *attempt.Failure) {
	var mine bool
	err := s.call(func(context.Context) {
		mine = s.trial != nil && !s.trial.judged && !s.ending
		if mine {
			s.trial.judged = true
		}
	})
	if err == nil && mine {
		s.writeVerdict(results, f)
	}
}

// failTrial ends the trial for want of something that the box cannot do without. It is for the loop, and tells whether the
// release is on trial.
func (s *Supervisor) failTrial(stage string, err error) bool {
	if s.trial == nil || s.trial.judged {
		return s.trial != nil
	}
	s.trial.judged = true
	go s.writeVerdict(nil, &attempt.Failure{Check: attempt.CheckCore, Problem: stage + ": " + err.Error()})
	return true
}

// writeVerdict lets the release stay, or ends it.
func (s *Supervisor) writeVerdict(results []attempt.Result, f *attempt.Failure) {
	if f == nil {
		err := s.config.Gate.Commit(results)
		if err == nil {
			_ = s.call(s.onCommitted)
			s.config.Gate.Settle()
			_ = s.call(s.onSettled)
			return
		}
		f = &attempt.Failure{Check: attempt.CheckStore, Problem: err.Error()}
	}
	if err := s.config.Gate.Undo(*f, results); err != nil {
		s.log.Error("the boot loader has to end the trial", "error", err)
	}
	_ = s.call(func(context.Context) {
		s.log.Error("the release is undone", "check", f.Check, "module", f.Module, "journey", f.Journey, "why", f.Problem)
		reason, _, _ := strings.Cut(f.Problem, "\n")
		s.config.Console.Print("UPDATE-UNDONE check=%s module=%s reason=%s", f.Check, f.Module, reason)
		s.reset("the update is taken back")
	})
}

// onCommitted lets the outside in. The updater has to wait until the boot loader was told.
func (s *Supervisor) onCommitted(ctx context.Context) {
	s.trial, s.settling = nil, true
	s.setRules()
	s.config.Console.Print("UPDATE-OK version=%s", s.config.Manifest.Version)
	s.record(api.Event{Level: api.Good, Kind: "update",
		Text: fmt.Sprintf("version %s has passed its trial and stays", s.config.Manifest.Version)}, nil)
	s.startBackup(ctx)
}

func (s *Supervisor) onSettled(ctx context.Context) {
	s.settling = false
	s.startUpdater(ctx)
}
