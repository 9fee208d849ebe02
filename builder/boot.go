package builder

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"allotment/builder/initrd"
	"allotment/builder/kernel"
	"allotment/builder/lock"
	"allotment/builder/rootfs"
	"allotment/image"
	"allotment/image/secureboot"
	"allotment/image/uki"
	"allotment/internal/cache"
)

// kernel fetches the kernel and takes what we need out of its package.
func (b *build) kernel(ctx context.Context) (*kernel.Kernel, error) {
	p, err := b.bootPackage(func(name string) bool { return strings.HasPrefix(name, "linux-image-") })
	if err != nil {
		return nil, err
	}
	debs, err := b.debs(ctx, []lock.Package{p})
	if err != nil {
		return nil, err
	}
	step := b.Progress.Step("take out the kernel and its modules", 0)
	k, err := kernel.Extract(ctx, b.Cache, debs[0].DataTar, p.SHA256)
	step.Done(err)
	return k, err
}

// bootFiles are the files that firmware and boot loaders read.
type bootFiles struct {
	loader      []byte // systemd-boot, signed
	uki         []byte // signed
	kernel      []byte // for GRUB
	initrd      []byte // for GRUB
	cmdline     string // for GRUB
	grubModules string // folder of GRUB's i386-pc modules; empty where there is no BIOS
}

// boot makes the boot files for a root file system.
func (b *build) boot(ctx context.Context, p *parts) (*bootFiles, error) {
	f := &bootFiles{cmdline: b.commandLine(p.root)}
	efi, err := b.bootFolder(ctx, "systemd-boot-efi", "/usr/lib/systemd/boot/efi")
	if err != nil {
		return nil, err
	}
	if b.Arch.BootsBIOS() {
		if f.grubModules, err = b.bootFolder(ctx, "grub-pc-bin", "/usr/lib/grub/i386-pc"); err != nil {
			return nil, err
		}
	}
	if f.kernel, err = os.ReadFile(p.kernel.Image); err != nil {
		return nil, err
	}
	if f.initrd, err = b.initrd(ctx, p.kernel, p.programs); err != nil {
		return nil, err
	}
	step := b.Progress.Step("assemble and sign the boot files", 0)
	err = b.sign(f, p.kernel, efi)
	step.Done(err)
	return f, err
}

// commandLine is the kernel's command line. On amd64 the kernel's own test of the timer interrupt is left out: it fails
// at random in emulators on a busy host, and machines that need it are gone; see docs/decisions.
func (b *build) commandLine(r *rootFS) string {
	words := []string{
		"roothash=" + r.hash.String(),
		"panic=5",
		"gpt",        // use the backup partition table where a power cut has spoilt the first
		"loglevel=4", // errors and worse; the rest is in the log
	}
	if b.Arch == image.ARM64 {
		words = append(words, "console=tty0", "console=ttyAMA0,115200")
	} else {
		words = append(words, "no_timer_check", "console=tty0", "console=ttyS0,115200")
	}
	if b.Profile.Kernel.CommandLine != "" {
		words = append(words, b.Profile.Kernel.CommandLine)
	}
	return strings.Join(words, " ")
}

// initrd packs stage 1.
func (b *build) initrd(ctx context.Context, k *kernel.Kernel, programs string) ([]byte, error) {
	key := cache.Key(b.rootCode, k, programs, b.epoch)
	path, err := b.Cache.Make(ctx, "initrds", key, func(tmp string) error {
		init, err := os.ReadFile(filepath.Join(programs, "allot-init"))
		if err != nil {
			return err
		}
		step := b.Progress.Step("pack the initial RAM file system", 0)
		var out bytes.Buffer
		err = initrd.Write(&out, initrd.Spec{Init: init, Tree: os.DirFS(k.Initramfs), Epoch: b.epoch})
		step.Done(err)
		if err != nil {
			return err
		}
		return os.WriteFile(tmp, out.Bytes(), 0o644)
	})
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// sign assembles the UKI and signs it and systemd-boot. Efi is the folder of systemd's EFI programs.
func (b *build) sign(f *bootFiles, k *kernel.Kernel, efi string) error {
	arch := strings.ToLower(b.Arch.EFIName())
	stub, err := os.ReadFile(filepath.Join(efi, "linux"+arch+".efi.stub"))
	if err != nil {
		return err
	}
	whole, err := uki.Assemble(stub, uki.Image{
		OSRelease: b.osRelease(), Cmdline: f.cmdline, Uname: k.Release, Initrd: f.initrd, Linux: f.kernel,
	})
	if err != nil {
		return err
	}
	if f.uki, err = secureboot.SignPE(whole, b.keys.DB); err != nil {
		return err
	}
	loader, err := os.ReadFile(filepath.Join(efi, "systemd-boot"+arch+".efi"))
	if err != nil {
		return err
	}
	f.loader, err = secureboot.SignPE(loader, b.keys.DB)
	return err
}

// osRelease is the os-release(5) text by which systemd-boot shows and sorts the release.
func (b *build) osRelease() string {
	return fmt.Sprintf("ID=allotment\nNAME=Allotment\nPRETTY_NAME=\"Allotment %[1]s (%[2]s)\"\nIMAGE_ID=%[2]s\n"+
		"IMAGE_VERSION=%[1]s\nVERSION_ID=%[1]s\nARCHITECTURE=%[3]s\n", b.Profile.Version, b.Profile.Name, systemdArch(b.Arch))
}

// systemdArch is the architecture by the name that os-release's ARCHITECTURE has.
func systemdArch(a image.Arch) string {
	if a == image.ARM64 {
		return "arm64"
	}
	return "x86-64"
}

// bootFolder unpacks one folder of a package of the boot tree into the cache and returns its path.
func (b *build) bootFolder(ctx context.Context, name, folder string) (string, error) {
	p, err := b.bootPackage(func(n string) bool { return n == name })
	if err != nil {
		return "", err
	}
	return b.Cache.Make(ctx, "boot", cache.Key(b.rootCode, p.SHA256, folder), func(tmp string) error {
		debs, err := b.debs(ctx, []lock.Package{p})
		if err != nil {
			return err
		}
		tree := rootfs.New()
		if err := tree.AddPackage(ctx, debs[0]); err != nil {
			return err
		}
		return writeFolder(tree, folder, tmp)
	})
}

// writeFolder writes the regular files of a tree's folder to a new folder of the host.
func writeFolder(tree *rootfs.Tree, folder, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for p, n := range tree.All() {
		name, ok := strings.CutPrefix(p, folder+"/")
		if !ok || strings.Contains(name, "/") || n.Content.Len() == 0 {
			continue
		}
		b, err := tree.ReadFile(p)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
