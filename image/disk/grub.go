package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"allotment/image/esp"
	"allotment/internal/run"
)

// grubModules are the GRUB modules in core.img; it loads nothing else from the disk.
var grubModules = []string{
	"biosdisk", "part_gpt", "fat", "normal", "configfile", "linux", "echo", "test", "hashsum", "gcry_sha256", "sleep",
	"reboot", "serial", "terminal", "loadenv",
}

// grubEarlyConfig is what core.img runs: the configuration on the ESP of the disk that it was started from (prefix).
// GRUB's prompt, where it would wait for ever, is never reached.
const grubEarlyConfig = `configfile $prefix/grub.cfg
echo BOOT-FAIL stage=grub reason=no-configuration
sleep 10
reboot
`

// makeGRUBCore runs grub-mkimage and returns core.img, which finds the ESP as partition number espIndex of its own disk.
func makeGRUBCore(ctx context.Context, r run.Runner, modules string, espIndex int, work string) ([]byte, error) {
	config, core := filepath.Join(work, "early.cfg"), filepath.Join(work, "core.img")
	if err := os.WriteFile(config, []byte(grubEarlyConfig), 0o644); err != nil {
		return nil, err
	}
	args := []string{
		"--format=i386-pc", "--directory=" + modules, "--config=" + config, "--output=" + core,
		fmt.Sprintf("--prefix=(,gpt%d)/%s", espIndex, esp.GRUBFolder),
	}
	if err := r.Run(ctx, run.Command{Name: "grub-mkimage", Args: append(args, grubModules...)}); err != nil {
		return nil, err
	}
	return os.ReadFile(core)
}

// Fields of GRUB's first two sectors (GRUB's include/grub/i386/pc/boot.h and grub-core/boot/i386/pc/diskboot.S).
const (
	bootCode      = 440   // bytes of boot.img, before disk signature and partition entries
	kernelSector  = 0x5c  // in boot.img: where core.img begins
	driveCheck    = 0x66  // in boot.img: a jump that guesses the drive
	blockList     = 0x1f4 // in core.img's first sector: start, length and segment of the rest
	segmentOfRest = 0x820
)

// installGRUB puts boot.img into the first sector, in front of the protective MBR's entries, and core.img into the BIOS
// boot partition, as grub-bios-setup does. Where the next stage lies is patched into both.
func installGRUB(w io.WriterAt, boot, core []byte, bios Partition) error {
	core = append(core, make([]byte, -len(core)&(sectorSize-1))...)
	sectors := len(core)/sectorSize - 1
	if len(boot) != sectorSize || sectors < 1 || int64(len(core)) > bios.Size {
		return fmt.Errorf("cannot install GRUB: boot.img has %d bytes and core.img %d, want 512 and at most %d",
			len(boot), len(core), bios.Size)
	}
	lba := uint64(bios.Start / sectorSize)
	binary.LittleEndian.PutUint64(boot[kernelSector:], lba)
	boot[driveCheck], boot[driveCheck+1] = 0x90, 0x90 // no operation: believe the BIOS which drive it started from
	binary.LittleEndian.PutUint64(core[blockList:], lba+1)
	binary.LittleEndian.PutUint16(core[blockList+8:], uint16(sectors))
	binary.LittleEndian.PutUint16(core[blockList+10:], segmentOfRest)
	if _, err := w.WriteAt(boot[:bootCode], 0); err != nil {
		return fmt.Errorf("cannot install GRUB: %w", err)
	}
	if _, err := w.WriteAt(core, bios.Start); err != nil {
		return fmt.Errorf("cannot install GRUB: %w", err)
	}
	return nil
}

// CheckGRUB checks that the first sector leads to the BIOS boot partition, and what is there to itself.
func CheckGRUB(r io.ReaderAt, bios Partition) error {
	boot, core := make([]byte, sectorSize), make([]byte, sectorSize)
	if _, err := r.ReadAt(boot, 0); err != nil {
		return err
	}
	if _, err := r.ReadAt(core, bios.Start); err != nil {
		return err
	}
	lba := uint64(bios.Start / sectorSize)
	if boot[0] != 0xeb || binary.LittleEndian.Uint64(boot[kernelSector:]) != lba || boot[driveCheck] != 0x90 {
		return errors.New("first sector does not start GRUB from the BIOS boot partition")
	}
	sectors := int64(binary.LittleEndian.Uint16(core[blockList+8:]))
	if binary.LittleEndian.Uint64(core[blockList:]) != lba+1 || sectors == 0 || (sectors+1)*sectorSize > bios.Size ||
		binary.LittleEndian.Uint16(core[blockList+10:]) != segmentOfRest {
		return errors.New("GRUB in the BIOS boot partition does not lead to the rest of itself")
	}
	return nil
}
