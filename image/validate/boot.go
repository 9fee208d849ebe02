package validate

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"debug/pe"
	"regexp"
	"slices"
	"strings"

	"allotment/image"
	"allotment/image/disk"
	"allotment/image/disk/fat32"
	"allotment/image/esp"
	"allotment/image/secureboot"
	"allotment/image/uki"
	"allotment/image/verity"
)

// volume is the EFI system partition as it was read.
type volume struct {
	files map[string][]byte
	order []string
}

// loaderInfo is how systemd-boot names itself, for programs that update it.
var loaderInfo = regexp.MustCompile(`#### LoaderInfo: ([ -~]+) ####`)

// boot checks what firmware and boot loaders read: the EFI system partition, and GRUB in front of it.
func (c *check) boot() {
	if bios, _, ok := c.partition(disk.BIOS); ok {
		if err := disk.CheckGRUB(c.r, bios); err != nil {
			c.breach(disk.BIOS, "%v", err)
		}
	}
	e := c.readESP()
	if e == nil {
		return
	}
	c.enrolment(e)
	c.version(e)
	if c.Version == "" {
		return
	}
	c.signed(e, esp.BootPath(c.Arch))
	if m := loaderInfo.FindSubmatch(e.files[esp.BootPath(c.Arch)]); m != nil {
		c.Loader = string(m[1])
	}
	c.signed(e, esp.UKIPath(c.Version))
	if m := c.unified(e); m != nil {
		c.grub(e, m)
	}
	c.nothingElse(e)
}

// maxESP bounds the bytes of all files of the EFI system partition, which are read into memory. Ours are some 100 MiB; a
// forged volume can have each of its files on the same clusters.
const maxESP = 1 << 30

// readESP reads all files into memory.
func (c *check) readESP() *volume {
	p, r, ok := c.partition(disk.ESP)
	if !ok {
		return nil
	}
	v, err := fat32.Read(r, p.Size)
	if err != nil {
		c.breach(disk.ESP, "%v", err)
		return nil
	}
	e := &volume{files: map[string][]byte{}}
	room := int64(maxESP)
	for _, f := range v.Files {
		if room -= f.Size; room < 0 {
			c.breach(f.Path, "is one file too many: they have more than %d MiB", maxESP/mib)
			return nil
		}
		b, err := v.ReadFile(f.Path)
		if err != nil {
			c.breach(f.Path, "%v", err)
			continue
		}
		e.files[f.Path] = b
		e.order = append(e.order, f.Path)
		c.Files = append(c.Files, File{Path: f.Path, Size: f.Size, SHA256: image.NewDigest(sha256.Sum256(b))})
	}
	used := p.Size - v.Free
	c.Room = append(c.Room, Room{disk.ESP, used, p.Size})
	if 3*used > p.Size {
		c.breach(disk.ESP, "has %d MiB free, too few for two more releases", v.Free/mib)
	}
	return e
}

// enrolment checks the variables by which a machine comes to trust the image's keys: each must be signed by the one
// before. Without a given certificate, that in db.auth is what the boot files are compared with.
func (c *check) enrolment(e *volume) {
	var authority *x509.Certificate
	for _, v := range secureboot.Variables {
		path := esp.AuthPath(v)
		auth, ok := e.files[path]
		if !ok {
			c.breach(path, "is missing")
			return
		}
		cert, err := secureboot.OpenVariable(v, auth, authority)
		if err != nil {
			c.breach(path, "%v", err)
			return
		}
		authority = cert
	}
	if c.cert == nil {
		c.cert = authority
	}
	if !authority.Equal(c.cert) {
		c.breach(esp.AuthPath(secureboot.DB), "enrols another certificate than the given one")
	}
}

// version takes the version from the name of the one UKI.
func (c *check) version(e *volume) {
	var found []string
	for _, path := range e.order {
		if strings.HasPrefix(path, "EFI/Linux/") {
			found = append(found, path)
		}
	}
	if len(found) != 1 {
		c.breach("EFI/Linux", "has %d files, want one", len(found))
		return
	}
	name := strings.TrimSuffix(strings.TrimPrefix(found[0], "EFI/Linux/allotment-"), ".efi")
	v, err := image.ParseVersion(name)
	if err != nil || found[0] != esp.UKIPath(v) {
		c.breach(found[0], "is not named allotment-VERSION.efi")
		return
	}
	c.Version = v
}

// signed checks the signature of a file.
func (c *check) signed(e *volume, path string) {
	data, ok := e.files[path]
	switch {
	case !ok:
		c.breach(path, "is missing")
		return
	case c.cert == nil:
		c.breach(path, "cannot be checked without a db certificate")
		return
	}
	if err := secureboot.VerifyPE(data, c.cert); err != nil {
		c.breach(path, "signature: %v", err)
		return
	}
	for i := range c.Files {
		c.Files[i].Signed = c.Files[i].Signed || c.Files[i].Path == path
	}
}

// unified checks the unified kernel image and takes the root hash from it.
func (c *check) unified(e *volume) *uki.Image {
	path := esp.UKIPath(c.Version)
	m, err := uki.Read(bytes.NewReader(e.files[path]))
	if err != nil {
		c.breach(path, "%v", err)
		return nil
	}
	c.CommandLine, c.uname = m.Cmdline, m.Uname
	if got := uki.OSReleaseField(m.OSRelease, "IMAGE_VERSION"); got != string(c.Version) {
		c.breach(path, "says that it is version %q", got)
	}
	if got := machineOf(m.Linux); got != c.Arch {
		c.breach(path, "holds a kernel for %q, want %s", got, c.Arch)
	}
	words := strings.Fields(m.Cmdline)
	if !slices.Contains(words, "panic=5") {
		c.breach(path, "command line lacks panic=5")
	}
	for _, w := range words {
		if hash, ok := strings.CutPrefix(w, "roothash="); ok {
			h, err := verity.ParseRootHash(hash)
			if err != nil || c.rootHash != nil {
				c.breach(path, "command line has no valid root hash, or two: %q", m.Cmdline)
				return &m
			}
			c.rootHash, c.RootHash = &h, hash
		}
	}
	if c.rootHash == nil {
		c.breach(path, "command line has no root hash")
	}
	return &m
}

// machineOf is the architecture of a kernel with EFI stub, or "".
func machineOf(kernel []byte) image.Arch {
	f, err := pe.NewFile(bytes.NewReader(kernel))
	if err != nil {
		return ""
	}
	switch f.Machine {
	case pe.IMAGE_FILE_MACHINE_AMD64:
		return image.AMD64
	case pe.IMAGE_FILE_MACHINE_ARM64:
		return image.ARM64
	}
	return ""
}

// grub checks that GRUB starts what the UKI starts.
func (c *check) grub(e *volume, m *uki.Image) {
	kernel, initrd := e.files[esp.GRUBPath(c.Version, esp.Kernel)], e.files[esp.GRUBPath(c.Version, esp.Initrd)]
	if c.Arch.BootsBIOS() {
		// The UKI's section may be padded behind the kernel.
		if len(kernel) == 0 || len(kernel) > len(m.Linux) || !bytes.Equal(kernel, m.Linux[:len(kernel)]) ||
			len(bytes.Trim(m.Linux[len(kernel):], "\x00")) > 0 {
			c.breach(esp.GRUBPath(c.Version, esp.Kernel), "is not the kernel in the UKI")
		}
		if !bytes.Equal(initrd, m.Initrd) {
			c.breach(esp.GRUBPath(c.Version, esp.Initrd), "is not the initrd in the UKI")
		}
	}
	text, err := disk.TextFiles(c.Arch, c.Version, m.Cmdline, kernel, initrd)
	if err != nil {
		c.breach(disk.ESP, "%v", err)
	}
	for _, f := range text {
		if !bytes.Equal(e.files[f.Path], f.Data) {
			c.breach(f.Path, "is missing or not what belongs to this version, kernel, initrd and command line")
		}
	}
}

// nothingElse wants no file beside those of docs/formats/esp.md.
func (c *check) nothingElse(e *volume) {
	known := []string{esp.BootPath(c.Arch), esp.UKIPath(c.Version)}
	for _, v := range secureboot.Variables {
		known = append(known, esp.AuthPath(v))
	}
	if c.Arch.BootsBIOS() {
		known = append(known, esp.GRUBPath(c.Version, esp.Kernel), esp.GRUBPath(c.Version, esp.Initrd))
	}
	text, err := disk.TextFiles(c.Arch, c.Version, "", nil, nil)
	if err != nil {
		return
	}
	for _, f := range text {
		known = append(known, f.Path)
	}
	for _, path := range e.order {
		if !slices.Contains(known, path) {
			c.breach(path, "does not belong on the ESP")
		}
	}
}
