package validate

import (
	"strings"

	"allotment/image"
	"allotment/image/disk"
	"allotment/image/verity"
)

const mib = 1 << 20

// table checks the partition table against the layout that images have.
func (c *check) table() {
	parts, err := disk.ReadGPT(c.r, c.Size)
	c.Partitions = parts
	for _, line := range lines(err) {
		c.breach("partition table", "%s", line)
	}
	if len(parts) == 0 {
		return
	}
	c.Arch = archOf(parts)
	want, err := disk.NewLayout(c.Arch, disk.Sizes{}, nil)
	if err != nil {
		c.breach("partition table", "%v", err)
		return
	}
	if got, want := names(parts), names(want.Partitions); got != want {
		c.breach("partition table", "partitions are %s, want %s", got, want)
	}
	guids := map[string]string{}
	for _, p := range parts {
		if p.Start%mib != 0 || p.Size%mib != 0 {
			c.breach(p.Name, "starts at byte %d and has %d: want whole MiB", p.Start, p.Size)
		}
		if other, twice := guids[p.GUID]; twice {
			c.breach(p.Name, "has the same GUID as %s", other)
		}
		guids[p.GUID] = p.Name
		for _, w := range want.Partitions {
			if w.Name == p.Name && w.Type != p.Type {
				c.breach(p.Name, "is of type %s, want %s", p.Type, w.Type)
			}
			if w.Name == p.Name && w.Attributes != p.Attributes {
				c.breach(p.Name, "has attributes %#x, want %#x", p.Attributes, w.Attributes)
			}
		}
	}
	c.slotSizes()
}

// slotSizes checks that both slots can take the same releases.
func (c *check) slotSizes() {
	for _, s := range []struct{ root, hash string }{{disk.RootA, disk.VerityA}, {disk.RootB, disk.VerityB}} {
		root, _, ok1 := c.partition(s.root)
		hash, _, ok2 := c.partition(s.hash)
		if ok1 && ok2 && hash.Size < verity.HashSize(root.Size) {
			c.breach(s.hash, "has %d bytes, too few for the hash tree of a full %s", hash.Size, s.root)
		}
	}
	for _, pair := range [][2]string{{disk.RootA, disk.RootB}, {disk.VerityA, disk.VerityB}} {
		a, _, ok1 := c.partition(pair[0])
		b, _, ok2 := c.partition(pair[1])
		if ok1 && ok2 && a.Size != b.Size {
			c.breach(pair[1], "has %d bytes, but %s has %d", b.Size, pair[0], a.Size)
		}
	}
}

// archOf is the architecture whose root partition type the table has; amd64 if none.
func archOf(parts []disk.Partition) image.Arch {
	for _, p := range parts {
		if p.Type == image.ARM64.RootPartitionType() {
			return image.ARM64
		}
	}
	return image.AMD64
}

func names(parts []disk.Partition) string {
	var s []string
	for _, p := range parts {
		s = append(s, p.Name)
	}
	return strings.Join(s, ", ")
}

// lines are the lines of a joined error, one for each that was joined.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}
