package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/init/durable"
	"allotment/init/state/btrfs"
	"allotment/updater/snapshot"
)

// keeps is how restic tells of a rest-server that lets nothing be removed.
const keeps = "unexpected HTTP response (403)"

// pruneEvery is how often data that no snapshot needs is removed at the target.
const pruneEvery = 7 * 24 * time.Hour

// tidy takes away what a cut has left on this box.
func (s *Service) tidy() error {
	err := snapshot.Remove(s.config.Root, snapshot.Backup)
	err = errors.Join(err, s.removeScratch())
	if s.restore == nil || s.restore.Stage != stageArmed {
		err = errors.Join(err, snapshot.Remove(s.config.Root, snapshot.Restored))
	}
	return err
}

// Save makes a backup and thins out the old ones. The result is noted, too, and told once the next one can begin.
func (s *Service) Save(ctx context.Context) (api.BackupRun, error) {
	run, err := s.saveAndNote(ctx)
	switch {
	case run.OK:
		s.config.Box.Tell(api.Good, fmt.Sprintf("a backup was made: %d files, %s, of which %s are new", run.Files, size(run.Bytes), size(run.Added)))
	case run.Problem != "":
		s.config.Box.Tell(api.Bad, "the backup failed: "+run.Problem)
	}
	return run, err
}

// size is a number of bytes as people say it: from one megabyte on in megabytes, and less in kilobytes, of which a few bytes are
// one.
func size(bytes int64) string {
	if bytes < 1e6 {
		return fmt.Sprintf("%d kB", (bytes+999)/1e3)
	}
	return fmt.Sprintf("%d MB", bytes/1e6)
}

func (s *Service) saveAndNote(ctx context.Context) (api.BackupRun, error) {
	end, err := s.begin(api.BackupSaving)
	if err != nil {
		return api.BackupRun{}, err
	}
	defer end()
	run := api.BackupRun{Time: s.config.Now().UTC()}
	err = s.save(ctx, &run)
	run.Seconds = s.config.Now().Sub(run.Time).Seconds()
	if run.OK = err == nil; !run.OK {
		run.Problem = inWords(err).Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history.Last = &run
	if run.OK {
		s.history.Good = &run
	}
	return run, errors.Join(err, s.store.keep(historyFile, s.history))
}

func (s *Service) save(ctx context.Context, run *api.BackupRun) error {
	o, closed, err := s.openOwn()
	if err != nil {
		return err
	}
	defer closed()
	s.doing("asking the target")
	if err := errors.Join(s.tidy(), o.ensure(ctx)); err != nil {
		return err
	}
	modules := s.config.Box.Modules()
	// A module that cannot be dumped is no reason to lose the backup of the others; but the run is not a good one.
	lacking := s.dump(ctx, modules)
	if err := s.freeze(ctx, modules); err != nil {
		return errors.Join(err, s.tidy())
	}
	s.doing("sending what is new")
	sum, err := o.save(ctx, snapshot.Path(s.config.Root, snapshot.Backup), s.tell)
	run.Snapshot, run.Bytes, run.Files, run.Added = sum.Snapshot, sum.Bytes, sum.Files, sum.Added
	if err := errors.Join(err, s.tidy()); err != nil {
		return errors.Join(err, lacking)
	}
	s.doing("removing backups that are too old")
	return errors.Join(lacking, s.thinOut(ctx, o))
}

// dump has every module write and verify what cannot be copied as files.
func (s *Service) dump(ctx context.Context, modules []Module) error {
	var errs []error
	for _, m := range modules {
		if m.Steps == nil {
			continue
		}
		s.doing("preparing %s", m.Title)
		var err error
		if m.Steps.Dump != nil {
			err = s.config.Box.Step(ctx, m.Name, "dump")
		}
		if err == nil && m.Steps.Verify != nil {
			err = s.config.Box.Step(ctx, m.Name, "verify")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s could not be prepared: %w", m.Title, err))
		}
	}
	return errors.Join(errs...)
}

// freeze takes the snapshot that restic reads, with every module quiet that wants to be, for as short as can be.
func (s *Service) freeze(ctx context.Context, modules []Module) (err error) {
	s.doing("taking a copy of everything")
	c := contents{Format: contentsFormat, Profile: s.config.Profile, Version: s.config.Version, Time: s.config.Now().UTC()}
	for _, m := range modules {
		saved := savedModule{Name: m.Name, Title: m.Title}
		for _, v := range m.Volumes {
			described, err := s.describe(m.Name, v)
			if err != nil {
				return err
			}
			saved.Volumes = append(saved.Volumes, described)
		}
		c.Modules = append(c.Modules, saved)
		if m.Steps == nil || m.Steps.Quiesce == nil {
			continue
		}
		defer func() {
			err = errors.Join(err, s.config.Box.Step(context.WithoutCancel(ctx), m.Name, "resume"))
		}()
		if err := s.config.Box.Step(ctx, m.Name, "quiesce"); err != nil {
			return err
		}
	}
	release := s.config.Box.Hold()
	err = snapshot.Take(s.config.Root, snapshot.Backup)
	release()
	if err != nil {
		return err
	}
	return s.reduce(c)
}

// describe says what restic does not know of a volume.
func (s *Service) describe(module, volume string) (savedVolume, error) {
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(s.config.Root, "volumes", module, volume), &st); err != nil {
		return savedVolume{}, fmt.Errorf("cannot look at volume %q of %q: %w", volume, module, err)
	}
	format, err := s.config.Box.Format(module, volume)
	return savedVolume{Name: volume, Format: format, UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777}, err
}

// reduce leaves in the snapshot only what the backup is to have, with a description.
func (s *Service) reduce(c contents) error {
	dir := snapshot.Path(s.config.Root, snapshot.Backup)
	keep := map[string]bool{}
	for _, m := range c.Modules {
		for _, v := range m.Volumes {
			keep[filepath.Join(dir, "volumes", m.Name, v.Name)] = true
		}
	}
	all, err := filepath.Glob(filepath.Join(dir, "volumes", "*", "*"))
	for _, path := range all {
		if err == nil && !keep[path] {
			err = btrfs.Delete(path)
		}
		delete(keep, path)
	}
	if err != nil {
		return err
	}
	for path := range keep {
		return fmt.Errorf("there is no volume %q to be saved", strings.TrimPrefix(path, dir+"/"))
	}
	b, err := json.MarshalIndent(c, "", "\t")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, contentsFile), b, 0o600)
}

// thinOut removes old snapshots, and once a week their data.
func (s *Service) thinOut(ctx context.Context, o opened) error {
	s.mu.Lock()
	prune := s.config.Now().Sub(s.history.Pruned) >= pruneEvery
	s.mu.Unlock()
	err := o.forget(ctx, prune)
	if r := (*ResticError)(nil); errors.As(err, &r) && strings.Contains(r.Text, keeps) {
		return nil // its officers want it so, and say when it may
	}
	if err != nil {
		return err
	}
	if prune {
		s.mu.Lock()
		s.history.Pruned = s.config.Now()
		s.mu.Unlock()
	}
	return nil
}

// scratch is the folder where proofs restore to.
func (s *Service) scratch() string { return filepath.Join(s.config.Root, folder, "scratch") }

func (s *Service) removeScratch() error {
	paths, err := filepath.Glob(filepath.Join(s.scratch(), "*"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := btrfs.Delete(path); err != nil {
			return err
		}
	}
	return os.RemoveAll(s.scratch())
}
