package supervisor

import (
	"context"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"allotment/api"
	"allotment/init/servicelog"
)

// Events implements apiserver.Box.
func (b *Box) Events(ctx context.Context, q api.EventQuery) iter.Seq2[api.Event, error] {
	return b.supervisor.journal.Events(ctx, q)
}

// logEvery is how often logs are looked at that somebody follows.
const logEvery = 250 * time.Millisecond

// Logs implements apiserver.Box. Lines of several services come in the order of their times.
func (b *Box) Logs(ctx context.Context, q api.LogQuery) iter.Seq2[api.Line, error] {
	return func(yield func(api.Line, error) bool) {
		tails, lines, err := b.supervisor.openLogs(q)
		if err != nil {
			yield(api.Line{}, err)
			return
		}
		defer func() {
			for _, t := range tails {
				t.Close()
			}
		}()
		for _, l := range lines {
			if !yield(l, nil) {
				return
			}
		}
		pause := time.NewTicker(logEvery)
		defer pause.Stop()
		for q.Follow {
			select {
			case <-ctx.Done():
				return
			case <-b.supervisor.over:
				return
			case <-pause.C:
			}
			lines, err := nextLines(q.Module, tails)
			for _, l := range lines {
				if !yield(l, nil) {
					return
				}
			}
			if err != nil {
				yield(api.Line{}, err)
				return
			}
		}
	}
}

// openLogs opens the logs that the query asks for, by the services' names, and returns their newest lines.
func (s *Supervisor) openLogs(q api.LogQuery) (map[string]*servicelog.Tail, []api.Line, error) {
	services, err := s.logNames(q)
	if err != nil {
		return nil, nil, err
	}
	folder := logFolder(q.Module)
	tails := map[string]*servicelog.Tail{}
	var all []api.Line
	for _, name := range services {
		lines, t, err := servicelog.OpenTail(filepath.Join(s.config.State, "logs", folder, name+".log"), q.Lines)
		if err != nil {
			return tails, nil, err
		}
		tails[name] = t
		all = append(all, named(q.Module, name, lines)...)
	}
	sortLines(all)
	if q.Lines >= 0 && len(all) > q.Lines {
		all = all[len(all)-q.Lines:]
	}
	return tails, all, nil
}

// logFolder is the name of the folder of a module's logs; of the box's own if it is empty.
func logFolder(module string) string {
	if module == "" {
		return "system"
	}
	return module
}

// logNames are the services, tasks among them, that have a log.
func (s *Supervisor) logNames(q api.LogQuery) ([]string, error) {
	names := []string{"supervisor", "gateway", "resolver"}
	if q.Module != "" {
		names = nil
		var err error
		failed := s.call(func(context.Context) {
			var m *module
			if m, err = s.find(q.Module); err == nil {
				for _, u := range m.units {
					names = append(names, strings.TrimPrefix(u.name, q.Module+"."))
				}
			}
		})
		if failed != nil || err != nil {
			return nil, firstOf(failed, err)
		}
	}
	files, err := filepath.Glob(filepath.Join(s.config.State, "logs", logFolder(q.Module), "*.log"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".log"))
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if q.Service == "" {
		return names, nil
	}
	if !slices.Contains(names, q.Service) {
		return nil, api.Errorf(api.NotFound, "there is no log of a service %q", q.Service)
	}
	return []string{q.Service}, nil
}

func nextLines(module string, tails map[string]*servicelog.Tail) ([]api.Line, error) {
	var all []api.Line
	for name, t := range tails {
		lines, err := t.Next()
		all = append(all, named(module, name, lines)...)
		if err != nil {
			return all, err
		}
	}
	sortLines(all)
	return all, nil
}

func named(module, service string, lines []servicelog.Line) []api.Line {
	var out []api.Line
	for _, l := range lines {
		out = append(out, api.Line{Time: l.Time, Module: module, Service: service, Text: l.Text})
	}
	return out
}

func sortLines(all []api.Line) {
	slices.SortStableFunc(all, func(a, b api.Line) int { return a.Time.Compare(b.Time) })
}
