package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/init/state/btrfs"
)

// week numbers the weeks, for the part of the data that a check reads.
func week(t time.Time) int { return int(t.Unix() / int64(7*24*time.Hour/time.Second)) }

// Prove restores the newest backup beside the running system and has every module prove what came back. The receipt is kept,
// and the result told once the next thing can begin.
func (s *Service) Prove(ctx context.Context) (api.BackupProof, error) {
	p, err := s.proveAndNote(ctx)
	switch {
	case p.OK:
		s.config.Box.Tell(api.Good, fmt.Sprintf("the newest backup was restored and proven: %d files, %s", p.Files, size(p.Bytes)))
	case p.Problem != "":
		s.config.Box.Tell(api.Bad, "the newest backup could not be proven: "+p.Problem)
	}
	return p, err
}

func (s *Service) proveAndNote(ctx context.Context) (api.BackupProof, error) {
	end, err := s.begin(api.BackupProving)
	if err != nil {
		return api.BackupProof{}, err
	}
	defer end()
	p := api.BackupProof{Time: s.config.Now().UTC()}
	err = errors.Join(s.prove(ctx, &p), s.removeScratch())
	p.Seconds = s.config.Now().Sub(p.Time).Seconds()
	if p.OK = err == nil; !p.OK {
		p.Problem = inWords(err).Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history.Proof = &p
	if p.OK {
		s.history.Proven = p.Time
	}
	return p, errors.Join(err, s.store.keep(historyFile, s.history))
}

func (s *Service) prove(ctx context.Context, p *api.BackupProof) error {
	o, closed, err := s.openOwn()
	if err != nil {
		return err
	}
	defer closed()
	s.doing("looking for damage at the target")
	if err := errors.Join(s.removeScratch(), o.unlock(ctx)); err != nil {
		return err
	}
	if err := o.check(ctx, week(p.Time)); err != nil {
		return fmt.Errorf("the backup at the target is damaged: %w", err)
	}
	k, err := o.newest(ctx, s.config.Profile, "")
	if err != nil {
		return err
	}
	p.Snapshot, p.Taken = k.ID, k.Time
	c, err := o.contents(ctx, k)
	if err != nil {
		return err
	}
	known := map[string]Module{}
	for _, m := range s.config.Box.Modules() {
		known[m.Name] = m
	}
	var errs []error
	for _, m := range c.Modules {
		now, ok := known[m.Name]
		if !ok {
			continue // it was taken off since
		}
		r, err := s.proveModule(ctx, o, k, m, now, p)
		p.Modules = append(p.Modules, r)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.Title, err))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return errors.Join(errs...)
}

// proveModule restores a module's volumes into scratch ones and runs its proof on them.
func (s *Service) proveModule(
	ctx context.Context, o opened, k kept, saved savedModule, m Module, p *api.BackupProof,
) (api.BackupModuleProof, error) {
	begun := s.config.Now()
	r := api.BackupModuleProof{Module: m.Name}
	s.doing("restoring %s", m.Title)
	volumes := map[string]string{}
	var steps []string
	err := checkFormats(saved, m)
	if err == nil {
		err = os.MkdirAll(s.scratch(), 0o700)
	}
	for _, v := range saved.Volumes {
		if err != nil {
			break
		}
		volumes[v.Name] = filepath.Join(s.scratch(), m.Name+"."+v.Name)
		var bytes, files int64
		bytes, files, err = s.bringVolume(ctx, o, k, saved.Name, v, volumes[v.Name])
		p.Bytes, p.Files = p.Bytes+bytes, p.Files+files
	}
	if err == nil {
		steps = append(steps, "files")
		if m.Steps != nil {
			s.doing("trying %s", m.Title)
			var more []string
			more, err = s.config.Box.Prove(ctx, m.Name, volumes)
			steps = append(steps, more...)
		}
	}
	err = errors.Join(err, s.removeScratch()) // so that one module after another needs the room
	r.Steps, r.OK, r.Seconds = strings.Join(steps, ", "), err == nil, s.config.Now().Sub(begun).Seconds()
	if err != nil {
		r.Problem = inWords(err).Error()
	}
	return r, err
}

// bringVolume makes the folder at path a volume with what the snapshot has of it.
func (s *Service) bringVolume(
	ctx context.Context, o opened, k kept, module string, v savedVolume, path string,
) (bytes, files int64, err error) {
	if err := newVolume(s.config.Root, path); err != nil {
		return 0, 0, fmt.Errorf("cannot make room for volume %q: %w", v.Name, err)
	}
	bytes, files, err = o.bring(ctx, k, filepath.Join("volumes", module, v.Name), path, s.tell)
	if err == nil {
		err = errors.Join(os.Chown(path, int(v.UID), int(v.GID)), unix.Chmod(path, v.Mode), setFormat(path, v.Format))
	}
	return bytes, files, err
}

// newVolume makes an empty volume, whose data count with those of all volumes.
func newVolume(root, path string) error {
	if err := btrfs.CreateSubvolume(path); err != nil {
		return err
	}
	id, err := btrfs.SubvolumeID(path)
	if err != nil {
		return err
	}
	return btrfs.Assign(root, id)
}

// checkFormats refuses volumes whose content a later release has made.
func checkFormats(saved savedModule, m Module) error {
	for _, v := range saved.Volumes {
		have, ok := m.Formats[v.Name]
		switch {
		case !ok:
			return api.Errorf(api.Conflict, "the backup has a volume %q of %s that this box does not know", v.Name, saved.Title)
		case v.Format > have:
			return api.Errorf(api.Conflict, "the backup's data of %s are of a later version than this box runs: update the box first",
				saved.Title)
		}
	}
	return nil
}
