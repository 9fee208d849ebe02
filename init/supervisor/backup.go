package supervisor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/init/backup"
	"allotment/init/container"
	"allotment/init/durable"
	"allotment/init/plan"
)

// What restic gets: memory in bytes, threads, and how little of the processor and of the disk when others want them too.
const (
	resticMemory = 256 << 20
	resticPIDs   = 64
	resticWeight = 20
	resticGroup  = "/allotment-restic"
	readyTime    = 10 * time.Minute // until a restored module must be ready
	mostSpread   = time.Hour        // over which boxes begin their backups
)

// Capabilities of restic: to read what is saved, and to give what is restored to its owners.
var (
	readCapabilities  = []uintptr{unix.CAP_DAC_READ_SEARCH}
	writeCapabilities = []uintptr{unix.CAP_DAC_READ_SEARCH, unix.CAP_DAC_OVERRIDE, unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_FSETID}
)

// openBackup makes the box's backup, once the state partition is open.
func (s *Supervisor) openBackup() (*backup.Service, error) {
	cache := filepath.Join(s.config.State, "backup", "cache")
	if err := durable.MkdirAll(cache, 0o700); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chmod(filepath.Dir(cache), 0o711), os.Chown(cache, plan.BackupID, plan.BackupID)); err != nil {
		return nil, err
	}
	if err := container.Limit(s.config.Container.Cgroup, resticGroup, resticMemory, resticPIDs, resticWeight); err != nil {
		return nil, err
	}
	return backup.Open(backup.Config{
		Root: s.config.State, Profile: s.config.Manifest.Name, Version: string(s.config.Manifest.Version),
		Restic: backup.Restic{
			Reaper: s.reaper, Program: s.config.Container.Self, Args: []string{backup.ResticArgument, s.config.Restic},
			Helper: s.config.Container.Self, Cache: cache, Owner: plan.BackupID, Sys: s.resticRights,
		},
		Box: backupBox{s}, Now: time.Now, Zone: s.zone, Spread: s.backupSpread(), Warn: s.warn,
	})
}

// resticRights are restic's user, capabilities and control group.
func (s *Supervisor) resticRights(writes bool) (*syscall.SysProcAttr, func(), error) {
	group, err := os.Open(filepath.Join(s.config.Container.Cgroup, resticGroup))
	if err != nil {
		return nil, nil, err
	}
	capabilities := readCapabilities
	if writes {
		capabilities = writeCapabilities
	}
	return &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: plan.BackupID, Gid: plan.BackupID},
		AmbientCaps: capabilities, UseCgroupFD: true, CgroupFD: int(group.Fd()),
	}, func() { group.Close() }, nil
}

// backupSpread is the box's own part of an hour, so that not all boxes ask their storage at once.
func (s *Supervisor) backupSpread() time.Duration {
	id, err := os.ReadFile(filepath.Join(s.updateDir(), "seed"))
	if err != nil { // of a box that gets no updates
		id = []byte(s.config.Manifest.Name)
	}
	sum := sha256.Sum256(append([]byte("backup"), id...))
	return time.Duration(binary.BigEndian.Uint64(sum[:8]) % uint64(mostSpread))
}

func (s *Supervisor) zone() *time.Location {
	if f, _, err := s.filesAndPlan(); err == nil {
		if z, err := time.LoadLocation(f.settings.Values().Organisation().TimeZone); err == nil {
			return z
		}
	}
	return time.UTC
}

// startBackup lets backups be made, beside the loop. A box without them works all the same.
func (s *Supervisor) startBackup(ctx context.Context) {
	if s.opened || s.trial != nil || s.stranded || s.config.Restic == "" {
		return
	}
	s.opened = true
	modules := s.plan.Modules
	go func() {
		err := s.endProofs(modules)
		var b *backup.Service
		if err == nil {
			b, err = s.openBackup()
		}
		if err != nil {
			s.warn(fmt.Errorf("there are no backups: %w", err))
			return
		}
		if s.call(func(context.Context) { s.backups = b }) == nil {
			b.Run(ctx)
		}
	}()
}

// backup is the box's backup.
func (s *Supervisor) backup() (b *backup.Service, err error) {
	failed := s.call(func(context.Context) { b = s.backups })
	if failed == nil && b == nil {
		failed = api.Errorf(api.Conflict, "this box can make no backups now")
	}
	return b, failed
}

// Backup implements apiserver.Box.
func (b *Box) Backup() api.BackupStatus {
	k, err := b.supervisor.backup()
	if err != nil {
		return api.BackupStatus{State: api.BackupOff, Text: err.Error(), Lamp: api.Lamp{What: "backup", Level: api.Fair, Text: err.Error()}}
	}
	return k.Status()
}

// SetBackupTarget implements apiserver.Box.
func (b *Box) SetBackupTarget(ctx context.Context, t api.BackupTarget) (api.BackupSheet, error) {
	k, err := b.supervisor.backup()
	if err != nil {
		return api.BackupSheet{}, err
	}
	return k.SetTarget(ctx, t)
}

// RemoveBackupTarget implements apiserver.Box.
func (b *Box) RemoveBackupTarget() error { return b.withBackup((*backup.Service).RemoveTarget) }

// BackupPrinted implements apiserver.Box.
func (b *Box) BackupPrinted() error { return b.withBackup((*backup.Service).Printed) }

// BackupNow implements apiserver.Box.
func (b *Box) BackupNow() error { return b.withBackup((*backup.Service).SaveNow) }

// BackupProve implements apiserver.Box.
func (b *Box) BackupProve() error { return b.withBackup((*backup.Service).ProveNow) }

func (b *Box) withBackup(f func(*backup.Service) error) error {
	k, err := b.supervisor.backup()
	if err != nil {
		return err
	}
	return f(k)
}

// BackupSheet implements apiserver.Box.
func (b *Box) BackupSheet(owner bool) (api.BackupSheet, error) {
	k, err := b.supervisor.backup()
	if err != nil {
		return api.BackupSheet{}, err
	}
	return k.Sheet(owner)
}

// BackupSnapshots implements apiserver.Box.
func (b *Box) BackupSnapshots(ctx context.Context) ([]api.BackupSnapshot, error) {
	k, err := b.supervisor.backup()
	if err != nil {
		return nil, err
	}
	return k.Snapshots(ctx)
}

// RestoreBackup implements apiserver.Box.
func (b *Box) RestoreBackup(ctx context.Context, r api.BackupRestoreRequest) error {
	k, err := b.supervisor.backup()
	if err != nil {
		return err
	}
	return k.Restore(ctx, r)
}

// Export implements apiserver.Box.
func (b *Box) Export(ctx context.Context, w io.Writer) error {
	k, err := b.supervisor.backup()
	if err != nil {
		return err
	}
	return k.Export(ctx, w)
}

// backupBox is the rest of the box as the backup sees it.
type backupBox struct{ *Supervisor }

// Modules implements backup.Box. One that is off keeps what it has, and its last dump.
func (b backupBox) Modules() []backup.Module {
	var all []backup.Module
	_ = b.call(func(context.Context) {
		for _, m := range b.modules {
			all = append(all, b.described(m))
		}
	})
	for _, own := range []string{plan.Portal, plan.Gateway} {
		m := backup.Module{Name: own, Title: own, Formats: map[string]int{"data": 0}}
		m.Volumes = b.existing(own, []string{"data"})
		all = append(all, m)
	}
	return all
}

func (b backupBox) described(m *module) backup.Module {
	out := backup.Module{Name: m.plan.Name, Title: m.plan.Title, Formats: map[string]int{}}
	for _, v := range m.plan.Volumes {
		out.Formats[v.Name] = v.Format
	}
	if d := m.plan.Declared.Backup; d != nil {
		out.Volumes = b.existing(m.plan.Name, d.Volumes)
		if m.on {
			out.Steps = d
		}
	}
	return out
}

// existing are those of the volumes that the box has made.
func (b backupBox) existing(module string, volumes []string) []string {
	var all []string
	for _, v := range volumes {
		if _, err := os.Stat(filepath.Join(b.config.State, "volumes", module, v)); err == nil {
			all = append(all, v)
		}
	}
	return all
}

// Format implements backup.Box.
func (b backupBox) Format(module, volume string) (int, error) { return b.state.Format(module, volume) }

// Step implements backup.Box.
func (b backupBox) Step(ctx context.Context, module, step string) error {
	var last api.Progress
	for p, err := range (&Box{b.Supervisor}).RunTask(ctx, api.Task{Module: module, Kind: api.Backup, Name: step}) {
		if err != nil {
			return err
		}
		last = p
	}
	if !last.OK {
		return fmt.Errorf("%s failed: %s %s", step, last.Problem, last.Output)
	}
	return nil
}

// Hold implements backup.Box.
func (b backupBox) Hold() (release func()) {
	b.changing.Lock()
	return b.changing.Unlock
}

// Ready implements backup.Box.
func (b backupBox) Ready(ctx context.Context, module string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	var why string
	err := b.await(ctx, func() bool {
		m := findModule(b.modules, module)
		if m == nil || !m.on {
			return true
		}
		why = m.trouble()
		return m.state() == "ready" && allDone(m.migrations)
	})
	if err != nil && why != "" {
		return fmt.Errorf("it does not get ready: %s", why)
	}
	return err
}

// Busy implements backup.Box.
func (b backupBox) Busy() (err error) {
	failed := b.call(func(context.Context) {
		switch {
		case b.ending || b.stranded:
			err = errEnding
		case b.trial != nil:
			err = api.Errorf(api.Conflict, "version %s is on trial", b.config.Manifest.Version)
		}
		for _, m := range b.modules {
			switch {
			case m.held:
				err = api.Errorf(api.Conflict, "an update is about to begin")
			case !m.settled:
				err = api.Errorf(api.Conflict, "the box is starting")
			}
		}
	})
	return firstOf(failed, err)
}

// Restart implements backup.Box.
func (b backupBox) Restart(why string) {
	_ = b.call(func(context.Context) {
		b.config.Console.Print("RESTORE-ARMED: %s", why)
		b.reset(why)
	})
}

// Tell implements backup.Box.
func (b backupBox) Tell(level api.Level, text string) {
	b.record(api.Event{Level: level, Kind: "backup", Text: text}, nil)
}

// backupLamp is the backup's line of health; none where there is no backup.
func (s *Supervisor) backupLamp() []api.Lamp {
	b, err := s.backup()
	if err != nil {
		return nil
	}
	return []api.Lamp{b.Lamp()}
}

// exchangeRestored puts what a full restore has fetched in place of the box's own, before anything is started. Services that
// an earlier supervisor of this boot has left make it wait for the next one.
func (s *Supervisor) exchangeRestored() (reset bool, err error) {
	armed, err := backup.Armed(s.config.State)
	if err != nil || !armed {
		return false, err
	}
	if s.booted {
		return true, nil
	}
	if err := backup.Exchange(s.config.State); err != nil {
		return false, fmt.Errorf("cannot put the backup in place: %w", err)
	}
	s.config.Console.Print("RESTORE-EXCHANGED")
	return false, nil
}

// Settings implements backup.Box.
func (b backupBox) Settings() (name, toml string) {
	f, p, err := b.filesAndPlan()
	if err != nil {
		return "", ""
	}
	v := f.settings.Values()
	o := v.Organisation()
	var out strings.Builder
	section(&out, "organisation", map[string]any{
		"name": o.Name, "domain": o.Domain, "language": o.Language, "time-zone": o.TimeZone, "contact": o.Contact})
	for _, m := range p.Modules {
		section(&out, "modules."+m.Name, v.Module(m.Name))
	}
	return o.Name, out.String()
}

// section writes values as a table of TOML, whose basic strings are written as JSON's are.
func section(out *strings.Builder, name string, values map[string]any) {
	if len(values) == 0 {
		return
	}
	fmt.Fprintf(out, "[%s]\n", name)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if b, err := json.Marshal(values[key]); err == nil {
			fmt.Fprintf(out, "%s = %s\n", key, bytes.ReplaceAll(b, []byte{0x7f}, []byte(`\u007f`))) // which JSON leaves as it is
		}
	}
	out.WriteString("\n")
}
