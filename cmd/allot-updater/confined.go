package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"

	"allotment/init/confine"
	"allotment/init/durable"
	"allotment/init/state"
	"allotment/updater/config"
	"allotment/updater/install"
)

// confined gives up all that the updater does not need: see docs/decisions/0015-updater-confined.md.
func confined(path string, c config.Config) error {
	x509.SystemCertPool() // which is kept: its files are out of reach afterwards
	p, err := paths(path, c, func(name string) (string, error) { return state.Partition(c.Disk, name) })
	if err != nil {
		return err
	}
	for _, dir := range append(p.Write[:folders:folders], c.Media) { // what is not there now could not be made later
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("cannot make folder %q: %w", dir, err)
		}
	}
	return confine.To(p, memoryLimit)
}

// folders is how many of the paths that can be written are folders; they come first.
const folders = 3

// paths are all that the updater opens: to read, its configuration at path, name servers, media, what the kernel tells of the
// disk, and the slot that runs; to write, its own folders, the layers, the ESP, and the slot that does not run.
func paths(path string, c config.Config, partition func(name string) (string, error)) (confine.Paths, error) {
	p := confine.Paths{
		Read:  []string{filepath.Dir(path), c.Media},
		Write: []string{c.Run, install.Dir(c.State), filepath.Join(c.State, "layers")},
	}
	var errs error
	// Of resolv.conf, which the supervisor writes in place, it is the file that may be read: what lies beside it are secrets.
	for _, link := range []string{"/etc/resolv.conf", filepath.Join("/sys/class/block", filepath.Base(c.Disk))} {
		to, err := filepath.EvalSymlinks(link)
		errs = errors.Join(errs, err)
		p.Read = append(p.Read, to)
	}
	add := func(to *[]string, names ...string) {
		for _, name := range names {
			device, err := partition(name)
			errs = errors.Join(errs, err)
			*to = append(*to, device)
		}
	}
	runs, other := string(c.Slot), string(install.Other(c.Slot))
	add(&p.Read, "root-"+runs, "verity-"+runs)
	add(&p.Write, "esp", "root-"+other, "verity-"+other)
	if errs != nil {
		return p, fmt.Errorf("cannot find what may be opened: %w", errs)
	}
	return p, nil
}
