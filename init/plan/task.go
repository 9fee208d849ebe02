package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"allotment/image"
)

// What the names of tasks begin with, and those of services do not.
const (
	taskPrefix      = "task-"
	migrationPrefix = "migrate-"
)

// Task plans a journey's step, a repair or a step of a backup as a container called "MODULE.task-NAME", beside the
// services of m. The name is lower-case letters, digits and hyphens, at most 100.
func Task(m *Module, name string, t *image.Task) (*Service, error) {
	if !taskForm.MatchString(name) {
		return nil, fmt.Errorf("cannot plan task %q of module %q: %w", name, m.Name, errName)
	}
	s, err := m.newTask(taskPrefix+name, t)
	if err != nil {
		return nil, fmt.Errorf("cannot plan task %q of module %q: %w", name, m.Name, err)
	}
	return s, nil
}

// Leftover is a task or migration of m as far as its end goes, by the name of its control group. ok is false for a service's.
func Leftover(m *Module, name string) (s *Service, ok bool) {
	if !strings.HasPrefix(name, taskPrefix) && !strings.HasPrefix(name, migrationPrefix) {
		return nil, false
	}
	return &Service{Module: m, Name: name, ID: m.Name + "." + name, Cgroup: m.Cgroup + "/" + name}, true
}

func (mod *Module) newTask(name string, t *image.Task) (*Service, error) {
	s, err := mod.newContainer(name, t)
	if err != nil {
		return nil, err
	}
	s.Timeout = seconds(t.Timeout, defaultTaskTimeout)
	return s, nil
}

// addMigrations plans the migrations in the order of their formats; those of one format keep the manifest's order.
func (mod *Module) addMigrations(m *image.Module) error {
	for i := range m.Migrations {
		d := &m.Migrations[i]
		s, err := mod.newTask(fmt.Sprintf("%s%s-%d", migrationPrefix, d.Volume, d.Format), &d.Task)
		if err != nil {
			return fmt.Errorf("migration of volume %q to format %d: %w", d.Volume, d.Format, err)
		}
		s.Needs = d.Needs
		mod.Migrations = append(mod.Migrations, &Migration{Service: s, Volume: d.Volume, Format: d.Format})
	}
	slices.SortStableFunc(mod.Migrations, func(a, b *Migration) int { return cmp.Compare(a.Format, b.Format) })
	return mod.checkFormats()
}

// checkFormats makes sure that just one migration leads to each format of each volume.
func (mod *Module) checkFormats() error {
	next := map[string]int{}
	for _, m := range mod.Migrations {
		next[m.Volume]++
		if m.Format != next[m.Volume] {
			return fmt.Errorf("volume %q has no single migration to each format up to %d", m.Volume, m.Format)
		}
	}
	for _, v := range mod.Volumes {
		if next[v.Name] != v.Format {
			return fmt.Errorf("volume %q has format %d, but migrations to %d", v.Name, v.Format, next[v.Name])
		}
		delete(next, v.Name)
	}
	if len(next) > 0 {
		return errors.New("a migration is of a volume that is not there")
	}
	return nil
}
