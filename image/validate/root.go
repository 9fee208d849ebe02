package validate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/erofs/go-erofs"

	"allotment/image"
	"allotment/image/disk"
	"allotment/image/layer"
	"allotment/image/verity"
)

// programs are files that no root can boot without.
var programs = []string{
	"usr/lib/allotment/allot-init", "usr/lib/allotment/allot-supervisor", "usr/lib/allotment/allot-gateway",
	"usr/lib/allotment/allot-portal", "usr/lib/allotment/allot-resolver", "usr/lib/allotment/allot-updater",
	"usr/bin/crun", "usr/sbin/mkfs.btrfs",
}

// root checks slot A: that root hash, tree and data fit, and what the manifest inside says.
func (c *check) root() {
	p, data, ok1 := c.partition(disk.RootA)
	hp, hash, ok2 := c.partition(disk.VerityA)
	if !ok1 || !ok2 {
		return
	}
	sb, err := verity.ReadSuperblock(hash)
	if err != nil {
		c.breach(disk.VerityA, "%v", err)
		return
	}
	c.Room = append(c.Room, Room{disk.RootA, sb.DataSize(), p.Size}, Room{disk.VerityA, verity.HashSize(sb.DataSize()), hp.Size})
	if c.rootHash != nil {
		if err := verity.Verify(data, hash, *c.rootHash); err != nil {
			c.breach(disk.RootA, "does not fit the UKI's root hash: %v", err)
		}
		if p.GUID != c.rootHash.DataUUID().String() || hp.GUID != c.rootHash.HashUUID().String() {
			c.breach(disk.RootA, "GUIDs of %s and %s are not the halves of the root hash", disk.RootA, disk.VerityA)
		}
	}
	files, err := erofs.Open(io.NewSectionReader(data, 0, sb.DataSize()))
	if err != nil {
		c.breach(disk.RootA, "is no EROFS that can be read: %v", err)
		return
	}
	for _, path := range programs {
		if info, err := fs.Stat(files, path); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			c.breach("/"+path, "is not a program in the root")
		}
	}
	c.readManifest(files)
}

// readManifest reads the manifest and compares it with the boot files.
func (c *check) readManifest(files fs.FS) {
	b, err := fs.ReadFile(files, strings.TrimPrefix(image.ManifestPath, "/"))
	if err != nil {
		c.breach(image.ManifestPath, "%v", err)
		return
	}
	m, err := parseManifest(b)
	if err != nil {
		c.breach(image.ManifestPath, "%v", err)
		return
	}
	c.manifest = m
	c.Name, c.Title, c.Kernel, c.Epoch, c.Layers = m.Name, m.Title, m.Kernel, m.Epoch, m.Layers
	for _, mod := range m.Modules {
		c.Modules = append(c.Modules, mod.Name)
	}
	if m.Version != c.Version {
		c.breach(image.ManifestPath, "is of version %s, the UKI of %q", m.Version, c.Version)
	}
	if m.Arch != c.Arch {
		c.breach(image.ManifestPath, "is for %s, the partitions are for %s", m.Arch, c.Arch)
	}
	if m.Kernel != c.uname {
		c.breach(image.ManifestPath, "is for kernel %s, the UKI has %q", m.Kernel, c.uname)
	}
	known := map[image.Digest]bool{}
	for _, l := range m.Layers {
		if known[l.Digest] {
			c.breach(image.ManifestPath, "names layer %s twice", l.Digest.Short())
		}
		known[l.Digest] = true
	}
	for _, mod := range m.Modules {
		for _, d := range mod.Layers {
			if !known[d] {
				c.breach(image.ManifestPath, "module %s needs layer %s, which is not there", mod.Name, d.Short())
			}
		}
	}
}

// parseManifest reads a manifest strictly: it is ours, so that a field that is not known is a mistake.
func parseManifest(b []byte) (*image.Manifest, error) {
	var m image.Manifest
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("goes on behind its end")
	}
	if m.Format != image.ManifestFormat {
		return nil, fmt.Errorf("has format %d, want %d", m.Format, image.ManifestFormat)
	}
	if m.Name == "" || m.Version == "" || m.Arch == "" || m.Epoch <= 0 {
		return nil, errors.New("lacks name, version, architecture or epoch")
	}
	return &m, nil
}

// seed checks the layers in the state partition.
func (c *check) seed() {
	p, state, ok := c.partition(disk.State)
	if !ok || c.manifest == nil {
		return
	}
	seed := c.manifest.Seed
	var sum int64
	for _, l := range c.manifest.Layers {
		if l.Size <= 0 || l.Size%4096 != 0 || sum > p.Size {
			c.breach(image.ManifestPath, "layer %s has an impossible size of %d bytes", l.Name, l.Size)
			return
		}
		sum += l.Size
	}
	if seed.Size != sum || seed.Offset != disk.SeedOffset(sum) || seed.Offset+seed.Size > p.Size {
		c.breach(image.ManifestPath, "seed of %d bytes at %d: want %d at %d, in a state partition of %d",
			seed.Size, seed.Offset, sum, disk.SeedOffset(sum), p.Size)
		return
	}
	c.Room = append(c.Room, Room{disk.State, seed.Size, p.Size})
	at := seed.Offset
	for _, l := range c.manifest.Layers {
		d, _, err := layer.Digest(io.NewSectionReader(state, at, l.Size))
		if err != nil {
			c.breach(disk.State, "layer %s: %v", l.Name, err)
		} else if d != l.Digest {
			c.breach(disk.State, "layer %s has fs-verity digest %s, the manifest says %s", l.Name, d.Short(), l.Digest.Short())
		}
		at += l.Size
	}
	c.wantZeros(disk.State, p.Start, p.Start+seed.Offset)
	c.wantZeros(disk.State, p.Start+at, p.Start+p.Size)
}

// other checks that slot B is empty, and what lies behind the data of slot A.
func (c *check) other() {
	for _, name := range []string{disk.RootB, disk.VerityB} {
		if p, _, ok := c.partition(name); ok {
			c.wantZeros(name, p.Start, p.Start+p.Size)
		}
	}
	for _, room := range c.Room {
		if p, _, ok := c.partition(room.Partition); ok && (p.Name == disk.RootA || p.Name == disk.VerityA) {
			c.wantZeros(p.Name, p.Start+room.Used, p.Start+p.Size)
		}
	}
}
