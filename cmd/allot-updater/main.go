// Allot-updater keeps the system up to date: allot-updater CONFIG, the path of an config.Config in JSON. SIGHUP makes it read
// CONFIG again, look at what officers want, and ask for a new release at once; SIGTERM ends it, wherever it is. It needs a user
// of its own with the capabilities that the supervisor gives it; nothing is open to it but what confined.go names.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"time"
	_ "time/tzdata" // the root file system has none

	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/image"
	"allotment/init/state"
	"allotment/init/state/btrfs"
	"allotment/updater"
	"allotment/updater/attempt"
	"allotment/updater/config"
	"allotment/updater/fetch"
	"allotment/updater/install"
	"allotment/updater/schedule"
	"allotment/updater/slot"
)

// memoryLimit is for what Go has, in bytes, of the 64 MiB that the supervisor grants; the collector works harder near it.
const memoryLimit = 40 << 20

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: allot-updater CONFIG")
		os.Exit(2)
	}
	if err := run(os.Args[1], log); err != nil {
		log.Error("updater ends", "error", err)
		os.Exit(1)
	}
}

func run(path string, log *slog.Logger) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, unix.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	c, err := config.Read(path)
	if err != nil {
		return err
	}
	m, err := image.ReadManifest(c.Manifest)
	if err != nil {
		return err
	}
	if err := confined(path, c); err != nil {
		return err
	}
	var zone atomic.Pointer[time.Location]
	zone.Store(location(c, log))
	d, err := updater.New(updater.Options{
		Install: installConfig(c, m, log), Folder: c.Run, Supervisor: api.Unix(c.API), Source: sources(m, filepath.Join(c.Media, config.MediaDisk)),
		Zone: zone.Load, Now: time.Now, Log: log,
	})
	if err != nil {
		return err
	}
	wake := make(chan struct{})
	go func() {
		for range hangups {
			if c, err := config.Read(path); err != nil {
				log.Error("keeping the former configuration", "error", err)
			} else {
				zone.Store(location(c, log))
			}
			wake <- struct{}{}
		}
	}()
	d.Run(ctx, wake)
	return nil
}

func installConfig(c config.Config, m *image.Manifest, log *slog.Logger) install.Config {
	return install.Config{
		State: c.State, Manifest: m, Log: log, Verity: btrfs.CheckVerity,
		Running:   attempt.System{Version: m.Version, RootHash: c.RootHash, Slot: c.Slot},
		Partition: func(name string) (string, error) { return state.Partition(c.Disk, name) },
		Boot: func() (install.Boot, error) {
			return slot.Open(slot.Config{Disk: c.Disk, Arch: m.Arch, Log: log})
		},
	}
}

// sources chooses where releases come from: the disk or the mirror that officers name, else the servers that the system names.
func sources(m *image.Manifest, disk string) func(schedule.Policy) fetch.Source {
	options := fetch.Options{Agent: "allot-updater/" + string(m.Version)}
	var servers fetch.Source
	if len(m.Update.URLs) > 0 {
		servers = fetch.HTTP(m.Update.URLs, options)
	}
	return func(p schedule.Policy) fetch.Source {
		_, usb := p.Disk()
		switch {
		case m.Update.Root == "":
			return nil // there is nobody to be believed
		case usb:
			return fetch.Dir(disk)
		case p.Source != "":
			return fetch.HTTP([]string{p.Source}, options)
		}
		return servers
	}
}

// location is the organisation's time zone.
func location(c config.Config, log *slog.Logger) *time.Location {
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		log.Warn("taking UTC for the time zone", "error", err)
		return time.UTC
	}
	return zone
}
