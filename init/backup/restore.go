package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/init/state/btrfs"
	"allotment/updater/snapshot"
)

// Stages of a full restore. Each is durable before what follows from it begins.
const (
	stageFetching  = "fetching"  // nothing of the box has changed; a cut ends it
	stageArmed     = "armed"     // all is on this box; the next start exchanges it with what the box has
	stageExchanged = "exchanged" // modules run on it; their restore steps follow, again after a cut
	stageDone      = "done"
	stageFailed    = "failed"
)

// restoreRecord is a full restore under way, or the last one.
type restoreRecord struct {
	Stage    string                  `json:"stage"`
	Time     time.Time               `json:"time"`
	Snapshot string                  `json:"snapshot"`
	Contents contents                `json:"contents"`
	Problem  string                  `json:"problem,omitempty"`
	Modules  []api.BackupModuleProof `json:"modules,omitempty"`
}

func (r *restoreRecord) shown() *api.BackupRestore {
	return &api.BackupRestore{Time: r.Time, Stage: r.Stage, Snapshot: r.Snapshot, Problem: r.Problem, Modules: r.Modules}
}

// setFormat notes the version of a restored volume's content, as package state does.
func setFormat(path string, format int) error {
	if format == 0 {
		return nil
	}
	return unix.Setxattr(path, "trusted.allotment.format", []byte(strconv.Itoa(format)), 0)
}

// Restore checks that the backup can be restored here, and begins: it fetches all beside what the box has, and has the box
// restart. It returns once it is certain that target, key and backup fit.
func (s *Service) Restore(ctx context.Context, r api.BackupRestoreRequest) error {
	if !r.Confirm {
		return api.Errorf(api.Conflict, "a restore replaces all that this box has: say that it may")
	}
	if err := CheckTarget(r.Target); err != nil {
		return err
	}
	if err := know(ctx, &r.Target); err != nil {
		return err
	}
	key, err := ParseKey(r.Key)
	if err != nil {
		return api.Errorf(api.Invalid, "%v", err)
	}
	end, err := s.begin(api.BackupRestoring)
	if err != nil {
		return err
	}
	o, closed, err := s.open(r.Target, key)
	var k kept
	var record *restoreRecord
	if err == nil {
		limited, cancel := withPatience(ctx)
		k, record, err = s.choose(limited, o, r.Snapshot)
		cancel()
	}
	if err == nil {
		err = s.reach(record, stageFetching)
	}
	if err == nil {
		err = s.ask(s.restoring(o, k, record, r.Target, key, func() { closed(); end() }))
	}
	if err != nil {
		closed()
		end()
	}
	return err
}

// restoring is what Run does of a restore that was asked for.
func (s *Service) restoring(o opened, k kept, record *restoreRecord, t api.BackupTarget, key Key, end func()) func(context.Context) {
	return func(ctx context.Context) {
		defer end()
		if err := s.fetch(ctx, o, k, record); err != nil {
			s.giveUp(record, err)
			return
		}
		if err := s.arm(record, t, key); err != nil {
			s.giveUp(record, err)
			return
		}
		s.config.Box.Restart("to put the backup in place of what this box has")
	}
}

// choose finds the snapshot and checks that this box can run what is in it.
func (s *Service) choose(ctx context.Context, o opened, id string) (kept, *restoreRecord, error) {
	s.doing("asking the target")
	k, err := o.newest(ctx, "", id)
	var c contents
	if err == nil {
		c, err = o.contents(ctx, k)
	}
	var told *api.Error
	if errors.As(err, &told) {
		return k, nil, err
	}
	if err != nil {
		return k, nil, api.Errorf(api.Conflict, "cannot read the backup: %v", inWords(err))
	}
	known := map[string]Module{}
	for _, m := range s.config.Box.Modules() {
		known[m.Name] = m
	}
	for _, saved := range c.Modules {
		m, ok := known[saved.Name]
		if !ok {
			return k, nil, api.Errorf(api.Conflict, "the backup has data of %s, which is not part of this box", saved.Title)
		}
		if err := checkFormats(saved, m); err != nil {
			return k, nil, err
		}
	}
	return k, &restoreRecord{Time: s.config.Now().UTC(), Snapshot: k.ID, Contents: c}, nil
}

// fetch brings everything into a snapshot like that of an update.
func (s *Service) fetch(ctx context.Context, o opened, k kept, r *restoreRecord) error {
	dir := snapshot.Path(s.config.Root, snapshot.Restored)
	if err := snapshot.Remove(s.config.Root, snapshot.Restored); err != nil {
		return err
	}
	for _, m := range r.Contents.Modules {
		for _, v := range m.Volumes {
			s.doing("fetching %s", m.Title)
			path := filepath.Join(dir, "volumes", m.Name, v.Name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return err
			}
			if _, _, err := s.bringVolume(ctx, o, k, m.Name, v, path); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"settings", "secrets"} {
		s.doing("fetching the box's own %s", name)
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		if _, _, err := o.bring(ctx, k, name, path, s.tell); err != nil {
			return err
		}
	}
	s.doing("making sure that all is on the disk")
	return snapshot.Finish(s.config.Root, snapshot.Restored)
}

// arm makes the next start exchange the data. From then on the box backs up to where the backup came from.
func (s *Service) arm(r *restoreRecord, t api.BackupTarget, k Key) error {
	if err := s.store.keepKey(k); err != nil {
		return err
	}
	if err := s.use(t, false); err != nil {
		return err
	}
	if err := s.Printed(); err != nil { // whoever restores has it on paper
		return err
	}
	return s.reach(r, stageArmed)
}

// reach notes a stage.
func (s *Service) reach(r *restoreRecord, stage string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *r
	next.Stage = stage
	if err := s.store.keep(restoreFile, next); err != nil {
		return err
	}
	*r = next
	s.restore = r
	return nil
}

// giveUp ends a restore before anything of the box has changed.
func (s *Service) giveUp(r *restoreRecord, err error) {
	next := *r
	next.Stage, next.Problem = stageFailed, inWords(err).Error()
	s.config.Box.Tell(api.Bad, "the backup was not restored, and nothing has changed: "+next.Problem)
	// First what was fetched, which may have left no room for a note.
	if err := errors.Join(snapshot.Remove(s.config.Root, snapshot.Restored), btrfs.Sync(s.config.Root)); err != nil {
		s.config.Warn(err)
	}
	if err := s.reach(&next, stageFailed); err != nil {
		s.config.Warn(err)
		s.mu.Lock()
		s.restore = &next
		s.mu.Unlock()
	}
}

// Armed tells whether the next start of the box has to call Exchange; root is the mounted state partition.
func Armed(root string) (bool, error) {
	var r restoreRecord
	found, err := store{filepath.Join(root, folder)}.load(restoreFile, &r)
	return found && r.Stage == stageArmed, err
}

// Exchange puts the restored data in place of the box's. It does nothing unless a restore has come that far; cut, it is to be
// called again. No module may run, and nobody may have settings or secrets open.
func Exchange(root string) error {
	s := store{filepath.Join(root, folder)}
	var r restoreRecord
	found, err := s.load(restoreFile, &r)
	if err != nil || !found || r.Stage != stageArmed {
		return err
	}
	if err := snapshot.Restore(root, snapshot.Restored); err != nil {
		return err
	}
	if err := btrfs.Sync(root); err != nil {
		return err
	}
	r.Stage = stageExchanged
	return s.keep(restoreFile, r)
}

// finish runs the modules' own restore steps after Exchange.
func (s *Service) finish(ctx context.Context) {
	s.mu.Lock()
	r := s.restore
	s.mu.Unlock()
	if r == nil || r.Stage != stageExchanged {
		return
	}
	s.work.Lock()
	defer s.resting()
	s.mu.Lock()
	s.state = api.BackupRestoring
	s.mu.Unlock()
	s.config.Box.Tell(api.Fair, "the backup's data are in place; parts are still being restored")
	steps := map[string]Module{}
	for _, m := range s.config.Box.Modules() {
		steps[m.Name] = m
	}
	var errs []error
	var results []api.BackupModuleProof
	for _, saved := range r.Contents.Modules {
		m := steps[saved.Name]
		if m.Steps == nil {
			continue
		}
		s.doing("restoring %s", m.Title)
		p, err := s.finishModule(ctx, m)
		if ctx.Err() != nil {
			return // the next start does it again
		}
		results = append(results, p)
		s.proceed(r, results)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.Title, err))
		}
	}
	s.concludeRestore(r, results, errors.Join(errs...))
}

// proceed shows the receipt as far as it has come.
func (s *Service) proceed(r *restoreRecord, results []api.BackupModuleProof) {
	next := *r
	next.Modules = slices.Clone(results)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restore = &next
}

func (s *Service) finishModule(ctx context.Context, m Module) (api.BackupModuleProof, error) {
	begun := s.config.Now()
	p := api.BackupModuleProof{Module: m.Name}
	err := s.config.Box.Ready(ctx, m.Name)
	if err == nil && m.Steps.Restore != nil {
		p.Steps = "restore"
		err = s.config.Box.Step(ctx, m.Name, "restore")
	}
	if err == nil && m.Steps.RestoreTest != nil {
		p.Steps += " restore-test"
		if err = s.config.Box.Ready(ctx, m.Name); err == nil {
			err = s.config.Box.Step(ctx, m.Name, "restore-test")
		}
	}
	p.OK, p.Seconds = err == nil, s.config.Now().Sub(begun).Seconds()
	if err != nil {
		p.Problem = err.Error()
	}
	return p, err
}

func (s *Service) concludeRestore(r *restoreRecord, results []api.BackupModuleProof, err error) {
	next := *r
	next.Modules = results
	stage := stageDone
	if err != nil {
		stage, next.Problem = stageFailed, err.Error()
	}
	err = errors.Join(s.reach(&next, stage), snapshot.Remove(s.config.Root, snapshot.Restored))
	if err != nil {
		s.config.Warn(err)
	}
	if stage == stageFailed {
		s.config.Box.Tell(api.Bad, "the backup was restored, but not everything works: "+next.Problem)
		return
	}
	s.config.Box.Tell(api.Good, fmt.Sprintf("the backup of %s is restored", r.Contents.Time.Format(time.DateTime)))
}
