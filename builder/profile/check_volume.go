package profile

import (
	"fmt"
	"slices"

	"allotment/image"
)

// classes say how a volume is treated by backup, updates and moves.
var classes = []string{"content", "config", "secret", "cache", "index", "federated"}

func (c *moduleCheck) volumes() {
	names, paths := once{}, once{}
	for i, v := range c.m.Volumes {
		key := item("volume", i)
		c.d.name(key+".name", v.Name, nameForm)
		names.add(c.d, key+".name", v.Name)
		if c.mountPoint(key+".path", v.Path) {
			paths.add(c.d, key+".path", v.Path)
		}
		for _, w := range c.m.Volumes[:i] {
			if inside(v.Path, w.Path) || inside(w.Path, v.Path) {
				c.d.fault(key+".path", "make them neighbours", "volume %q overlaps volume %q at %q", v.Name, w.Name, w.Path)
			}
		}
		c.d.choice(key+".class", v.Class, classes...)
		c.user(key+".user", v.User)
		c.d.number(key+".quota", v.Quota, 0, maxDisk)
		c.d.number(key+".format", v.Format, 0, maxFormat)
		for f := 1; f <= min(v.Format, maxFormat); f++ {
			if !slices.ContainsFunc(c.m.Migrations, func(m image.Migration) bool { return m.Volume == v.Name && m.Format == f }) {
				c.d.fault(key+".format", "add a [[migration]]", "no migration leads volume %q to format %d", v.Name, f)
			}
		}
	}
}

// maxFormat is the highest format that a volume may have.
const maxFormat = 1000

// migrations checks migrations: volumes has seen that none is missing.
func (c *moduleCheck) migrations() {
	steps := once{}
	volumes := names(c.m.Volumes, func(v image.Volume) string { return v.Name })
	for i := range c.m.Migrations {
		key, m := item("migration", i), &c.m.Migrations[i]
		if c.d.known(key+".volume", "volume", m.Volume, volumes) {
			format := c.m.Volumes[slices.Index(volumes, m.Volume)].Format
			if m.Format < 1 || m.Format > format {
				c.d.fault(key+".format", "", "format %d is not one of volume %q, which has %d", m.Format, m.Volume, format)
			}
			steps.add(c.d, key+".format", fmt.Sprintf("%s to %d", m.Volume, m.Format))
		}
		c.process(key, &m.Task)
		unique(c.d, key+".needs", m.Needs)
	}
}

func (c *moduleCheck) backup() {
	b := c.m.Backup
	if b == nil {
		return
	}
	if len(b.Volumes) == 0 {
		c.d.missing("backup.volumes", "name the volumes that are saved")
	}
	unique(c.d, "backup.volumes", b.Volumes)
	volumes := names(c.m.Volumes, func(v image.Volume) string { return v.Name })
	for i, name := range b.Volumes {
		key := item("backup.volumes", i)
		if !c.d.known(key, "volume", name, volumes) {
			continue
		}
		if class := c.m.Volumes[slices.Index(volumes, name)].Class; class == "cache" || class == "index" {
			c.d.fault(key, "leave it out", "volume %q is of class %s, which is never saved", name, class)
		}
	}
	unique(c.d, "backup.open", b.Open)
	for i, name := range b.Open {
		c.d.known(item("backup.open", i), "volume", name, volumes)
	}
	for key, t := range map[string]*image.Task{
		"quiesce": b.Quiesce, "resume": b.Resume, "dump": b.Dump, "verify": b.Verify, "restore-test": b.RestoreTest,
		"export": b.Export,
	} {
		if t != nil {
			c.process(join("backup", key), t)
		}
	}
	if b.Restore != nil {
		c.restore("backup.restore", b.Restore)
	}
	if (b.Quiesce == nil) != (b.Resume == nil) {
		c.d.fault("backup", "give both or none", "what quiesce stops, resume starts again")
	}
	if b.Dump == nil && (b.Verify != nil || b.Restore != nil) {
		c.d.fault("backup", "add [backup.dump]", "verify and restore are of a dump")
	}
}

func (c *moduleCheck) restore(key string, r *image.Restore) {
	c.process(key, &r.Task)
	unique(c.d, key+".stops", r.Stops)
	services := names(c.m.Services, func(s image.Service) string { return s.Name })
	for i, name := range r.Stops {
		c.d.known(item(key+".stops", i), "service", name, services)
	}
}
