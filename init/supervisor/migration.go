package supervisor

import (
	"context"
	"fmt"

	"allotment/api"
	"allotment/init/plan"
)

// migration is one step of a module's volume from a format to the next.
type migration struct {
	plan  *plan.Migration
	state migrationState
}

type migrationState string

// A migration that fails stays so until the next boot, or until somebody asks for it: nothing would be different.
const (
	pending   migrationState = ""
	migrating migrationState = "running"
	migrated  migrationState = "done"
	broken    migrationState = "failed"
)

// eventMigrated tells that a migration ended.
type eventMigrated struct {
	module    *module
	migration *migration
	output    string // the last that it printed
	err       error
}

func allDone(all []*migration) bool {
	for _, d := range all {
		if d.state != migrated {
			return false
		}
	}
	return true
}

// startMigrations starts the next migration of each module, as soon as what it needs is ready.
func (s *Supervisor) startMigrations(ctx context.Context) {
	for _, m := range s.modules {
		d := m.nextMigration()
		if d == nil || d.state != pending || !m.runs() || m.network == "" || !s.allReady(d.plan.Requires) {
			continue
		}
		t, err := s.begin(ctx, m, d.plan.Service)
		if err != nil {
			continue // the one before has not quite ended
		}
		d.state = migrating
		s.log.Info("migrating", "module", m.plan.Name, "volume", d.plan.Volume, "format", d.plan.Format)
		go s.migrate(t, m, d)
	}
}

// nextMigration is the first that is not done; nil if all are.
func (m *module) nextMigration() *migration {
	for _, d := range m.migrations {
		if d.state != migrated {
			return d
		}
	}
	return nil
}

// migrating says which migration runs; empty if none does.
func (m *module) migrating() string {
	if d := m.nextMigration(); d != nil && d.state == migrating {
		return fmt.Sprintf("migrating volume %s to format %d", d.plan.Volume, d.plan.Format)
	}
	return ""
}

// allReady tells whether the units of all these services are ready.
func (s *Supervisor) allReady(services []*plan.Service) bool {
	for _, service := range services {
		if u := s.unit(service.ID); u == nil || u.machine.state != ready {
			return false
		}
	}
	return true
}

// migrate runs a migration and notes the format that the volume has then. A cut before that is written makes it run
// again.
func (s *Supervisor) migrate(t *task, m *module, d *migration) {
	output, err := s.runTask(t)
	if err == nil {
		err = t.state.SetFormat(t.service.Module.Name, d.plan.Volume, d.plan.Format)
	}
	t.end()
	s.send(eventMigrated{m, d, output, err})
}

func (s *Supervisor) onMigrated(e eventMigrated) {
	m, d := e.module, e.migration
	what := fmt.Sprintf("migration of volume %s of %s to format %d", d.plan.Volume, m.plan.Name, d.plan.Format)
	if e.err == nil {
		d.state, m.problem = migrated, ""
		s.log.Info("migrated", "module", m.plan.Name, "volume", d.plan.Volume, "format", d.plan.Format)
		s.record(api.Event{Level: api.Good, Kind: "task", Module: m.plan.Name, Text: what + " is done"}, nil)
		return
	}
	if !m.runs() || s.ending { // it was stopped
		d.state = pending
		return
	}
	d.state = broken
	m.problem = what + " failed: " + withOutput(e.err, e.output)
	s.log.Error("a migration failed", "module", m.plan.Name, "volume", d.plan.Volume, "format", d.plan.Format,
		"error", e.err, "output", e.output)
	s.record(api.Event{Level: api.Bad, Kind: "task", Module: m.plan.Name, Text: m.problem}, nil)
}

// retry lets a migration that failed run once more.
func (d *migration) retry(m *module) {
	if d.state == broken {
		d.state, m.problem = pending, ""
	}
}

// withOutput is an error of a command and what it printed last.
func withOutput(err error, output string) string {
	if output == "" {
		return err.Error()
	}
	return err.Error() + ": " + output
}
