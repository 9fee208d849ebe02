package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"allotment/builder"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/image"
	"allotment/portal/directory"
	"allotment/qemu-tests/vm"
)

const (
	memory   = 1024     // MiB
	diskSize = 16 << 30 // bytes
	people   = 100      // in the directory
)

// writer and reader are the two people who write messages to each other, with their passwords.
const (
	writer, reader = "anna", "bert"
	password       = "correct horse battery staple"
)

// machine is one of the two systems. It stands still but while it is measured.
type machine struct {
	*vm.VM
	name  string
	notes string // file with all that is measured

	atRest float64 // instructions per second when nobody asks it anything
}

// buildOurs makes the image of a profile.
func (b *bench) buildOurs(ctx context.Context, p *profile.Profile, l *lock.Lock) (string, error) {
	r, err := builder.Build(ctx, builder.Options{Profile: p, Lock: l, Source: b.source, Arch: image.AMD64, Keys: b.keys,
		Out: filepath.Join(b.dir, "out"), Cache: b.cache, Progress: b.progress})
	if err != nil {
		return "", err
	}
	return r.Image("qcow2")
}

// boot starts a machine, waits until all its services answer, fills its directory and makes it stand still.
func (b *bench) boot(ctx context.Context, name, disk string) (*machine, error) {
	dir := filepath.Join(b.dir, "machine-"+name)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
		return nil, err
	}
	step := b.progress.Step("boot "+name, 0)
	v, err := vm.Start(ctx, vm.Options{Tools: b.tools, Dir: dir, Memory: memory, Disk: disk, DiskSize: diskSize,
		Args:    []string{"-icount", "shift=auto"}, // counts instructions, which no load of the host changes
		Forward: []int{httpPort, ldapPort, xmppPort}, Limit: vm.Patience(6 * time.Hour)})
	if err != nil {
		step.Done(err)
		return nil, err
	}
	m := &machine{VM: v, name: name, notes: filepath.Join(b.dir, "measured.tsv")}
	if err = m.prepare(ctx); err != nil {
		err = fmt.Errorf("cannot prepare %s, see %q: %w", name, v.Log(), err)
		v.Close()
	}
	step.Done(err)
	return m, err
}

// prepare waits for the services, fills the directory and tries every load once.
func (m *machine) prepare(ctx context.Context) error {
	ctx, stop := context.WithTimeoutCause(ctx, vm.Patience(40*time.Minute), errors.New("the services do not answer"))
	defer stop()
	if err := m.retry(ctx, func() error { return m.fill(ctx) }); err != nil {
		return err
	}
	for _, l := range loads {
		if err := m.retry(ctx, func() error {
			_, err := m.put(ctx, l, 10)
			return err
		}); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return m.pause(ctx)
}

// retry does something until it works: services come up in their own time, and nothing outside says when.
func (m *machine) retry(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-m.Ended():
			return errors.Join(errors.New("the machine ended"), err)
		case <-time.After(time.Second):
		}
	}
}

func openDirectory(m *machine) *directory.Directory {
	return directory.Open(m.Address(ldapPort), func() (string, error) { return portalPassword, nil })
}

// fill adds everybody who is not there yet. Passwords have only those who need them.
func (m *machine) fill(ctx context.Context) error {
	d := openDirectory(m)
	defer d.Close()
	for i := range people {
		p := directory.Person{Name: fmt.Sprintf("member%02d", i)}
		secret := ""
		switch i {
		case 0:
			p.Name, secret = writer, password
		case 1:
			p.Name, secret = reader, password
		}
		p.Given, p.Family = "Member", p.Name
		p.Mail = p.Name + "@club.example"
		err := d.AddPerson(ctx, p)
		if err == nil && secret != "" {
			err = d.SetPassword(ctx, p.Name, secret)
		}
		if err != nil && !errors.Is(err, directory.ErrExists) {
			return err
		}
	}
	return nil
}

// pause makes a machine stand still, and resume lets it go on.
func (m *machine) pause(ctx context.Context) error {
	_, err := m.Execute(ctx, "stop", nil)
	return err
}

func (m *machine) resume(ctx context.Context) error {
	_, err := m.Execute(ctx, "cont", nil)
	return err
}
