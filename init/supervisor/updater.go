package supervisor

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/init/plan"
	"allotment/updater/schedule"
)

// updaterMemory bounds the updater, in bytes; what it writes to disk counts until it is written.
const updaterMemory = 64 << 20

// UpdaterCaps are the updater's capabilities(7). They let a user who is not root write what is root's, where its own rules of
// Landlock let it: the slot that does not run, the layers, which are immutable, and the folder that it shares with us.
func UpdaterCaps() []uintptr {
	return []uintptr{unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_LINUX_IMMUTABLE}
}

// addUpdater makes the updater's unit, which startUpdater lets start. The box is as good without it.
func (s *Supervisor) addUpdater() (err error) {
	if s.config.Updater == "" {
		return nil
	}
	s.updater, err = s.addDaemon(daemonConfig{
		name: "updater", program: s.config.Updater, id: plan.UpdaterID, caps: UpdaterCaps(),
		memory: updaterMemory, pids: 64, weight: 20,
		listen: func() ([]*os.File, error) { return nil, nil },
		ready:  image.Check{Timeout: 30}, ask: func(context.Context) error { return nil }, informed: true,
	})
	if err == nil {
		s.updater.importance = plan.Optional
	}
	return err
}

// startUpdater lets the updater run if there is a place to take updates from, the network, a mirror or a disk, once the state
// partition is open and no release is on trial.
func (s *Supervisor) startUpdater(ctx context.Context) {
	if s.updater == nil || s.updater.prepared || s.settling {
		return
	}
	p, err := schedule.LoadPolicy(s.updateDir())
	if err != nil {
		s.warn(err)
	}
	if len(s.config.Manifest.Update.URLs) == 0 && p.Source == "" {
		return
	}
	if _, ok := p.Disk(); ok {
		go func() {
			if err := s.mountSource(p); err != nil {
				s.log.Warn("the disk that updates are to be taken from", "error", err)
			}
		}()
	}
	s.updater.prepared = true
	s.configureUpdater()
	s.adopt(ctx, s.updater)
}

// configureUpdater tells the updater what has changed.
func (s *Supervisor) configureUpdater() {
	if s.updater == nil || !s.updater.prepared {
		return
	}
	c := s.config.Update
	if s.files != nil {
		c.Zone = s.files.settings.Values().Organisation().TimeZone
	}
	s.configure(s.updater, c)
}
