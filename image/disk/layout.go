// Package disk lays a system out on a disk image: a GPT, an EFI system partition for UEFI, GRUB for BIOS, two slots of
// root and verity partitions, and the state partition with the seed. It converts images into other formats and opens
// them for reading. See docs/formats/disk.md and docs/formats/esp.md.
package disk

import (
	"errors"
	"fmt"

	"allotment/image"
	"allotment/image/disk/fat32"
	"allotment/image/verity"
)

const (
	mib        = 1 << 20
	sectorSize = 512

	defaultESP    = 520 * mib // 8 KiB clusters make a FAT32 only from about 513 MiB on
	defaultRoot   = 256 * mib
	defaultVerity = 16 * mib
	biosSize      = 1 * mib
	edge          = 1 * mib  // before the first and behind the last partition: room for GPT and alignment
	stateStep     = 64 * mib // the state partition's size is a multiple of it
	stateRoom     = 512 * mib
)

// Names of the partitions (GPT partition names, PARTNAME in Linux).
const (
	BIOS    = "bios"
	ESP     = "esp"
	RootA   = "root-a"
	VerityA = "verity-a"
	RootB   = "root-b"
	VerityB = "verity-b"
	State   = "state"
)

// Partition types that do not depend on the architecture (UEFI specification; GNU GRUB; Discoverable Partitions
// Specification, where the last one is for variable data).
const (
	typeBIOS  = "21686148-6449-6e6f-744e-656564454649"
	typeESP   = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	typeState = "4d21b016-b534-45c2-a9fb-5c16e091fd2d"
)

// Partition attributes of the Discoverable Partitions Specification.
const (
	attributeReadOnly = 1 << 60
	attributeNoAuto   = 1 << 63 // not for other systems to mount on their own
)

// Sizes are the sizes in bytes that a profile asks for, multiples of 1 MiB; zero means the default.
type Sizes struct {
	ESP    int64 // default 520 MiB
	Root   int64 // of each slot; default 256 MiB
	Verity int64 // of each slot; default 16 MiB, or more when a full root slot's hash tree needs it
	State  int64 // least size; default and minimum twice the seed and 512 MiB
}

// Partition is one entry of the partition table. Start and Size are in bytes.
type Partition struct {
	Name       string `json:"name"`
	Type       string `json:"type"` // GUID in lower case, as GUID is
	GUID       string `json:"guid"`
	Start      int64  `json:"start"`
	Size       int64  `json:"size"`
	Attributes uint64 `json:"attributes,omitempty"`
}

// Layout says where everything goes. It depends on nothing that is inside, so that the manifest in the root can name the
// seed's place.
type Layout struct {
	Arch       image.Arch
	Size       int64 // of the disk, bytes
	Partitions []Partition
	Seed       image.Seed
}

// NewLayout computes the layout for layers of the given sizes in bytes.
func NewLayout(arch image.Arch, sizes Sizes, layers []int64) (Layout, error) {
	seed, err := newSeed(layers)
	if err != nil {
		return Layout{}, err
	}
	if sizes, err = withDefaults(sizes, seed); err != nil {
		return Layout{}, err
	}
	l := Layout{Arch: arch, Seed: seed}
	if arch.BootsBIOS() {
		l.Partitions = append(l.Partitions, Partition{Name: BIOS, Type: typeBIOS, Size: biosSize})
	}
	root, hash := arch.RootPartitionType(), arch.VerityPartitionType()
	l.Partitions = append(l.Partitions,
		Partition{Name: ESP, Type: typeESP, Size: sizes.ESP},
		Partition{Name: RootA, Type: root, Size: sizes.Root, Attributes: attributeReadOnly},
		Partition{Name: VerityA, Type: hash, Size: sizes.Verity, Attributes: attributeReadOnly},
		Partition{Name: RootB, Type: root, Size: sizes.Root, Attributes: attributeReadOnly | attributeNoAuto},
		Partition{Name: VerityB, Type: hash, Size: sizes.Verity, Attributes: attributeReadOnly | attributeNoAuto},
		Partition{Name: State, Type: typeState, Size: sizes.State, Attributes: attributeNoAuto},
	)
	at := int64(edge)
	for i := range l.Partitions {
		l.Partitions[i].Start = at
		at += l.Partitions[i].Size
	}
	l.Size = at + edge
	return l, nil
}

func newSeed(layers []int64) (image.Seed, error) {
	var seed image.Seed
	for i, size := range layers {
		if size <= 0 || size%4096 != 0 {
			return seed, fmt.Errorf("cannot lay out layer %d: %d bytes, want a multiple of 4096", i, size)
		}
		seed.Size += size
	}
	seed.Offset = SeedOffset(seed.Size)
	return seed, nil
}

// SeedOffset is where in the state partition a seed of the given size lies, in bytes: behind room for the first boot's
// file system, which takes a copy of the seed and what is written until the partition has grown to the disk.
func SeedOffset(seedSize int64) int64 { return roundUp(seedSize+stateRoom, mib) }

// withDefaults fills in the sizes that are zero and refuses those that cannot work, all at once.
func withDefaults(s Sizes, seed image.Seed) (Sizes, error) {
	var errs []error
	for _, f := range []struct {
		name string
		size *int64
		def  int64
		min  int64
	}{
		{"esp", &s.ESP, defaultESP, fat32.MinSize},
		{"root", &s.Root, defaultRoot, 8 * mib},
		{"verity", &s.Verity, max(defaultVerity, roundUp(verity.HashSize(max(s.Root, defaultRoot)), mib)), 1 * mib},
	} {
		if *f.size == 0 {
			*f.size = f.def
		}
		if *f.size%mib != 0 || *f.size < f.min {
			errs = append(errs, fmt.Errorf("cannot make partition %s of %d bytes: want whole MiB, at least %d",
				f.name, *f.size, f.min/mib))
		}
	}
	if need := verity.HashSize(s.Root); s.Verity < need {
		errs = append(errs, fmt.Errorf("cannot make partition verity of %d MiB: the hash tree of a full root slot has %d MiB",
			s.Verity/mib, roundUp(need, mib)/mib))
	}
	s.State = roundUp(max(s.State, seed.Offset+seed.Size), stateStep)
	return s, errors.Join(errs...)
}

// Partition returns the partition of the given name; it panics when there is none.
func (l Layout) Partition(name string) Partition {
	for _, p := range l.Partitions {
		if p.Name == name {
			return p
		}
	}
	panic("disk: layout without partition " + name)
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
