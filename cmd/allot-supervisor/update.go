package main

import (
	"time"
	_ "time/tzdata" // the root has no files of time zones

	"allotment/image"
	"allotment/init/boot"
	"allotment/init/settings"
	"allotment/init/supervisor"
	"allotment/updater/attempt"
	"allotment/updater/config"
	"allotment/updater/gate"
	"allotment/updater/letter"
	"allotment/updater/slot"
)

// addUpdates lets new releases be found, tried and judged.
func addUpdates(c *supervisor.Config, facts boot.Facts) {
	c.Gate = gate.New(gate.Config{
		Dir: stateDir + "/update", Counted: facts.Trial,
		Running:   attempt.System{Version: c.Manifest.Version, RootHash: facts.RootHash, Slot: facts.Slot},
		Loader:    func() (gate.Loader, error) { return openLoader(c, facts) },
		Snapshots: gate.Data{Root: stateDir},
		Names:     func() letter.Names { return names(c) },
		Now:       time.Now, Log: c.Log.Logger(),
	})
	c.Updater = programs + "allot-updater"
	c.Update = config.Config{
		Manifest: image.ManifestPath, Disk: facts.Disk, Slot: facts.Slot, RootHash: facts.RootHash,
		API: runDir + "/api.sock", State: stateDir, Run: runDir + "/updater/own", Media: runDir + "/usb",
	}
}

// loader is the boot loader's choice in the words of the record.
type loader struct{ *slot.Store }

func openLoader(c *supervisor.Config, facts boot.Facts) (gate.Loader, error) {
	s, err := slot.Open(slot.Config{Disk: facts.Disk, Arch: c.Manifest.Arch, Log: c.Log.Logger()})
	if err != nil {
		return nil, err
	}
	return loader{s}, nil
}

// Entries implements gate.Loader.
func (l loader) Entries() ([]attempt.Entry, error) {
	entries, err := l.Store.Entries()
	var all []attempt.Entry
	for _, e := range entries {
		all = append(all, attempt.Entry(e))
	}
	return all, err
}

// names are what letters call things.
func names(c *supervisor.Config) letter.Names {
	n := letter.Names{Modules: map[string]string{}}
	for _, m := range c.Manifest.Modules {
		n.Modules[m.Name] = m.Title
	}
	o := c.Manifest.Organisation
	if s, err := settings.Open(stateDir+"/settings", c.Manifest, c.Log.Logger()); err == nil {
		o = s.Values().Organisation()
	}
	n.Organisation = o.Name
	if zone, err := time.LoadLocation(o.TimeZone); err == nil {
		n.Zone = zone
	}
	return n
}
