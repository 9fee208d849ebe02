// Package deb reads Debian binary packages (deb(5)) and control files (deb822(5)) as streams.
package deb

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
)

// Package is an opened binary package.
type Package struct {
	Path    string            // of the file
	Control Stanza            // the fields of its control file
	Files   map[string][]byte // the files of control.tar by name, without those of more than 1 MiB

	f    *os.File
	data member
}

// member is one file in the ar archive.
type member struct {
	name         string
	offset, size int64
}

const (
	arMagic       = "!<arch>\n"
	arHeaderSize  = 60
	maxControlTar = 64 << 20 // bytes, unpacked; the largest in Debian have some 10 MiB
	maxFile       = 1 << 20  // bytes of a file of control.tar that is kept
)

// Open reads the control data of the package at path. Close releases it.
func Open(path string) (*Package, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open package: %w", err)
	}
	p := &Package{Path: path, f: f}
	if err := p.read(); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot read package %q: %w", path, err)
	}
	return p, nil
}

// Close releases the file. Readers of DataTar end with an error after it.
func (p *Package) Close() error { return p.f.Close() }

// DataTar returns the unpacked tar archive of the package's files. Every call starts anew.
func (p *Package) DataTar() (io.ReadCloser, error) {
	r, err := p.open(p.data)
	if err != nil {
		return nil, fmt.Errorf("cannot read package %q: %w", p.Path, err)
	}
	return &namedReader{r, fmt.Sprintf("cannot read package %q", p.Path)}, nil
}

// read finds the members and reads control.tar.
func (p *Package) read() error {
	members, err := readArchive(p.f)
	if err != nil {
		return err
	}
	if len(members) < 3 || members[0].name != "debian-binary" {
		return errors.New("not a Debian package: want members debian-binary, control.tar and data.tar")
	}
	if err := p.checkVersion(members[0]); err != nil {
		return err
	}
	control, data := members[1], members[2]
	if !strings.HasPrefix(control.name, "control.tar") || !strings.HasPrefix(data.name, "data.tar") {
		return fmt.Errorf("members %q and %q where control.tar and data.tar are due", control.name, data.name)
	}
	p.data = data
	return p.readControl(control)
}

// checkVersion reads debian-binary: 2.0, and any later 2.x is said to be compatible.
func (p *Package) checkVersion(m member) error {
	b := make([]byte, min(m.size, 16))
	if _, err := p.f.ReadAt(b, m.offset); err != nil {
		return fmt.Errorf("debian-binary: %w", err)
	}
	if !bytes.HasPrefix(b, []byte("2.")) {
		return fmt.Errorf("debian-binary: format %q where 2.0 is due", bytes.TrimSpace(b))
	}
	return nil
}

// readControl reads the files of control.tar.
func (p *Package) readControl(m member) error {
	r, err := p.open(m)
	if err != nil {
		return err
	}
	defer r.Close()
	p.Files = map[string][]byte{}
	limited := &io.LimitedReader{R: r, N: maxControlTar}
	tr := tar.NewReader(limited)
	for {
		h, err := tr.Next()
		if limited.N == 0 {
			return fmt.Errorf("%s: more than %d MiB", m.name, maxControlTar>>20)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return faultIn(m.name, err)
		}
		if h.Typeflag != tar.TypeReg || h.Size > maxFile {
			continue
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			return faultIn(m.name, err)
		}
		p.Files[path.Clean(h.Name)] = b
	}
	b, ok := p.Files["control"]
	if !ok {
		return fmt.Errorf("%s: no file control in it", m.name)
	}
	p.Control, err = NewStanzaReader(bytes.NewReader(b), "control").Next()
	if err == io.EOF {
		return fmt.Errorf("%s: file control is empty", m.name)
	}
	return err
}

// readArchive lists the members of the ar archive f, and that they lie within it.
func readArchive(f *os.File) ([]member, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	magic := make([]byte, len(arMagic))
	if _, err := f.ReadAt(magic, 0); err != nil || string(magic) != arMagic {
		return nil, errors.New("not an ar archive")
	}
	var members []member
	for at := int64(len(arMagic)); at < info.Size(); {
		m, err := readMember(f, at)
		if err != nil {
			return nil, err
		}
		if m.size > info.Size()-m.offset {
			return nil, fmt.Errorf("cut short: %s ends at byte %d, the file at %d", m.name, m.offset+m.size, info.Size())
		}
		if !strings.HasPrefix(m.name, "_") { // to be ignored, says deb(5)
			members = append(members, m)
		}
		at = m.offset + m.size + m.size%2
	}
	return members, nil
}

// readMember reads the ar header at offset at.
func readMember(f *os.File, at int64) (member, error) {
	h := make([]byte, arHeaderSize)
	if _, err := f.ReadAt(h, at); err != nil {
		return member{}, fmt.Errorf("cut short: member header at byte %d: %w", at, unexpected(err))
	}
	if h[58] != '`' || h[59] != '\n' {
		return member{}, fmt.Errorf("damaged: no member header at byte %d", at)
	}
	size, err := strconv.ParseUint(strings.TrimRight(string(h[48:58]), " "), 10, 40)
	if err != nil {
		return member{}, fmt.Errorf("damaged: member header at byte %d: size: %w", at, err)
	}
	name := strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
	return member{name: name, offset: at + arHeaderSize, size: int64(size)}, nil
}

// faultIn names the member that err was met in.
func faultIn(name string, err error) error {
	return fmt.Errorf("%s: %w", name, unexpected(err))
}

// unexpected turns an end of file into the error that it is in the middle of something.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
