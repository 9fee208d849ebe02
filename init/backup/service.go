package backup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"allotment/api"
	"allotment/image"
	"allotment/init/durable"
)

// Module is a module as far as its backup goes.
type Module struct {
	Name    string
	Title   string
	Volumes []string       // that are saved
	Formats map[string]int // versions that this release's volumes have, by all of their names
	Steps   *image.Backup  // nil: nothing but volumes, of what is no module
}

// Box is what the backup needs of the rest of the box. Its methods can take long.
type Box interface {
	// Modules lists what is saved, in order.
	Modules() []Module
	// Format is the version of a volume's content.
	Format(module, volume string) (int, error)
	// Step runs a step that the running module declares, such as dump.
	Step(ctx context.Context, module, step string) error
	// Hold keeps settings and secrets from changing until release is called.
	Hold() (release func())
	// Prove starts the module beside the running one, with the folders as its volumes, runs its own proof and takes it away
	// again. steps names what was done.
	Prove(ctx context.Context, module string, volumes map[string]string) (steps []string, err error)
	// Settings are the organisation's name, and all settings as TOML.
	Settings() (name, toml string)
	// Ready waits until the module is ready.
	Ready(ctx context.Context, module string) error
	// Mount mounts the file system with that label for user BackupID.
	Mount(label string) (folder string, unmount func() error, err error)
	// Busy is an error in words while nothing may be begun, such as a trial.
	Busy() error
	// Restart resets the machine in order.
	Restart(why string)
	// Tell lets people know what happened.
	Tell(level api.Level, text string)
}

// Config is what a Service works with.
type Config struct {
	Root    string // mount point of the state partition
	Profile string // name, under which snapshots are kept
	Version string // of the release
	Restic  Restic
	Box     Box
	Now     func() time.Time
	Zone    func() *time.Location
	Spread  time.Duration // by which this box begins after others
	Warn    func(error)
}

// Service is the backup of a box.
type Service struct {
	config Config
	store  store
	work   sync.Mutex // held by whoever uses the repository for long

	mu      sync.Mutex // of what follows
	history history
	target  *api.BackupTarget
	restore *restoreRecord
	state   api.BackupState
	step    string
	done    int64
	total   int64
	wanted  chan func(context.Context) // what an officer asked for
}

// Open reads what is known of backups, and takes away what a cut has left on this box.
func Open(c Config) (*Service, error) {
	s := &Service{config: c, store: store{filepath.Join(c.Root, folder)}, wanted: make(chan func(context.Context), 1), state: api.BackupOff}
	if _, err := s.store.load(historyFile, &s.history); err != nil {
		c.Warn(err) // the history is no reason to have no backup
		s.history = history{}
	}
	var t api.BackupTarget
	found, err := s.store.load(targetFile, &t)
	if err != nil {
		return nil, err
	}
	if found {
		s.target, s.state = &t, api.BackupIdle
	}
	var r restoreRecord
	if found, err = s.store.load(restoreFile, &r); err != nil {
		c.Warn(err)
	} else if found {
		s.restore = &r
	}
	if found && r.Stage == stageFetching {
		r.Stage, r.Problem = stageFailed, "the box was stopped before everything was fetched; nothing has changed"
	}
	return s, s.tidy()
}

// Status is how the backup does.
func (s *Service) Status() api.BackupStatus {
	zone := s.config.Zone()
	s.mu.Lock()
	defer s.mu.Unlock()
	h, now := s.history, s.config.Now()
	st := api.BackupStatus{State: s.state, Step: s.step, Done: s.done, Total: s.total, Last: h.Last, Good: h.Good, Proof: h.Proof,
		Proven: h.Proven, Export: h.Export}
	if s.target != nil {
		shown := Shown(*s.target)
		st.Target, st.KeySheet, st.Next = &shown, !h.Printed, s.due(now, zone)
	}
	if s.restore != nil {
		st.Restore = s.restore.shown()
	}
	st.Lamp = s.lamp(now)
	st.Text = s.text(st.Lamp)
	return st
}

func (s *Service) text(l api.Lamp) string {
	switch s.state {
	case api.BackupSaving:
		return "A backup is being made: " + s.step + "."
	case api.BackupProving:
		return "The newest backup is being restored beside the running system, to prove it: " + s.step + "."
	case api.BackupExporting:
		return "Everything is being written out in open formats: " + s.step + "."
	case api.BackupRestoring:
		return "A backup is being restored: " + s.step + "."
	}
	return l.Text
}

// lamp is that of a full restore which is not done, or failed since something was proven; else that of the backups. s.mu is held.
func (s *Service) lamp(now time.Time) api.Lamp {
	switch r := s.restore; {
	case r != nil && r.Stage == stageExchanged:
		return api.Lamp{What: "backup", Level: api.Fair, Text: "A backup is being restored; not all parts work yet."}
	case r != nil && r.Stage == stageFailed && len(r.Modules) > 0 && !s.history.Proven.After(r.Time):
		return api.Lamp{What: "backup", Level: api.Bad, Text: "The backup was restored, but not everything works: " + r.Problem}
	}
	return lamp(s.target, s.history, now)
}

// Lamp is the backup in one line of the box's health.
func (s *Service) Lamp() api.Lamp {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lamp(s.config.Now())
}

// begin takes the turn to use the repository; end gives it back.
func (s *Service) begin(state api.BackupState) (end func(), err error) {
	if !s.work.TryLock() {
		return nil, api.Errorf(api.Conflict, "%s", "another backup or restore is under way")
	}
	if err := s.config.Box.Busy(); err != nil {
		s.work.Unlock()
		return nil, err
	}
	s.mu.Lock()
	s.state = state
	s.mu.Unlock()
	return s.resting, nil
}

// resting gives the turn back.
func (s *Service) resting() {
	s.mu.Lock()
	s.state, s.step, s.done, s.total = api.BackupIdle, "", 0, 0
	if s.target == nil {
		s.state = api.BackupOff
	}
	s.mu.Unlock()
	s.work.Unlock()
}

// doing notes the step that is under way.
func (s *Service) doing(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step, s.done, s.total = fmt.Sprintf(format, args...), 0, 0
}

func (s *Service) tell(done, total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.total = done, total
}

var errNoTarget = api.Errorf(api.Conflict, "there is no target for backups yet")

// open makes a target usable; closed must be called afterwards.
func (s *Service) open(t api.BackupTarget, k Key) (o opened, closed func(), err error) {
	closed = func() {}
	disk := ""
	if t.Kind == USB {
		at, unmount, err := s.config.Box.Mount(t.Label)
		if err != nil {
			return o, closed, api.Errorf(api.Conflict, "cannot use the disk %s: %v", t.Label, err)
		}
		disk = at
		closed = func() {
			if err := unmount(); err != nil {
				s.config.Warn(err)
			}
		}
	}
	if t.Authority != "" {
		if err := durable.WriteFile(s.store.path(authorityFile), []byte(t.Authority), 0o644); err != nil {
			return o, closed, err
		}
	}
	return opened{repositoryOf(t, k, disk, s.config.Restic.Helper, s.store.path(authorityFile)), s.config.Restic, s.config.Profile}, closed, nil
}

// openOwn opens the box's own target.
func (s *Service) openOwn() (opened, func(), error) {
	s.mu.Lock()
	t := s.target
	s.mu.Unlock()
	if t == nil {
		return opened{}, func() {}, errNoTarget
	}
	k, ok, err := s.store.key()
	if err == nil && !ok {
		err = errors.New("the backup's key is missing")
	}
	if err != nil {
		return opened{}, func() {}, err
	}
	return s.open(*t, k)
}

// SetTarget tries the target, with a repository made there if there is none, and uses it from now on.
func (s *Service) SetTarget(ctx context.Context, t api.BackupTarget) (api.BackupSheet, error) {
	if err := CheckTarget(t); err != nil {
		return api.BackupSheet{}, err
	}
	if err := know(ctx, &t); err != nil {
		return api.BackupSheet{}, err
	}
	end, err := s.begin(api.BackupIdle)
	if err != nil {
		return api.BackupSheet{}, err
	}
	defer end()
	k, ok, err := s.store.key()
	if err == nil && !ok {
		if k, err = NewKey(rand.Reader); err == nil {
			err = s.store.keepKey(k) // before anything is encrypted with it
		}
	}
	if err != nil {
		return api.BackupSheet{}, err
	}
	o, closed, err := s.open(t, k)
	if err != nil {
		return api.BackupSheet{}, err
	}
	defer closed()
	limited, cancel := withPatience(ctx)
	defer cancel()
	if err := o.ensure(limited); err != nil {
		return api.BackupSheet{}, api.Errorf(api.Conflict, "cannot back up to %s: %v", Describe(t), inWords(err))
	}
	return api.BackupSheet{Key: k.Text(), Target: Shown(t), New: !ok}, s.use(t, !ok)
}

// withPatience bounds what an officer waits for: restic itself would try for a quarter of an hour.
func withPatience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, officerWaits, fmt.Errorf("the target did not answer within %v", officerWaits))
}

const officerWaits = 2 * time.Minute

// know finds out by what a server is known again.
func know(ctx context.Context, t *api.BackupTarget) (err error) {
	t.Authority = ""
	if t.Kind == Friend {
		return knowFriend(ctx, t)
	}
	if t.Kind == SFTP && t.HostKey == "" {
		if t.HostKey, err = hostKey(t.Address); err != nil {
			return api.Errorf(api.Conflict, "%v", err)
		}
	}
	return nil
}

// use makes the target, which was tried, that of the box.
func (s *Service) use(t api.BackupTarget, newKey bool) error {
	if err := s.store.keep(targetFile, t); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.target = &t
	if newKey {
		s.history.Printed = false
	}
	s.history.Since = s.config.Now()
	return s.store.keep(historyFile, s.history)
}

// RemoveTarget ends backups.
func (s *Service) RemoveTarget() error {
	end, err := s.begin(api.BackupOff)
	if err != nil {
		return err
	}
	defer end()
	if err := s.store.remove(targetFile); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.target = nil
	return nil
}

// Printed notes that the key is on paper.
func (s *Service) Printed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history.Printed = true
	return s.store.keep(historyFile, s.history)
}

// Sheet is what an officer prints; once it was printed, it is for the owner alone.
func (s *Service) Sheet(owner bool) (api.BackupSheet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.target == nil:
		return api.BackupSheet{}, errNoTarget
	case s.history.Printed && !owner:
		return api.BackupSheet{}, api.Errorf(api.Refused, "the sheet was printed, and is not shown again")
	}
	k, _, err := s.store.key()
	return api.BackupSheet{Key: k.Text(), Target: Shown(*s.target)}, err
}

// Snapshots lists the backups at the target.
func (s *Service) Snapshots(ctx context.Context) ([]api.BackupSnapshot, error) {
	if !s.work.TryLock() { // a disk is mounted once
		return nil, api.Errorf(api.Conflict, "another backup or restore is under way")
	}
	defer s.work.Unlock()
	o, closed, err := s.openOwn()
	if err != nil {
		return nil, err
	}
	defer closed()
	limited, cancel := withPatience(ctx)
	defer cancel()
	all, err := o.snapshots(limited, "")
	if err != nil {
		return nil, api.Errorf(api.Conflict, "cannot list the backups: %v", inWords(err))
	}
	list := []api.BackupSnapshot{}
	for _, k := range all {
		list = append(list, api.BackupSnapshot{ID: k.ID, Time: k.Time, Host: k.Host})
	}
	return list, nil
}
