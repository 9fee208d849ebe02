// Package npm reads packages of the npm registry as far as a tree needs them: files that a browser is given. Nothing of
// them is ever run, neither scripts nor what they depend on is fetched.
package npm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Folder is where the files of packages lie in a tree: Folder/NAME/.
const Folder = "/usr/share/npm"

// Form is how a tree names a package: NAME@VERSION. Names with a scope (@SCOPE/NAME) are not read.
var Form = regexp.MustCompile(`^([a-z0-9][a-z0-9._-]+)@([0-9][A-Za-z0-9.+-]*)$`)

// Limits of a package.
const (
	maxUnpacked = 1 << 30 // bytes
	maxFiles    = 100_000
)

// Release is what the registry says of one version of a package.
type Release struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Dist    struct {
		Integrity string `json:"integrity"` // sha512-BASE64, as Subresource Integrity (W3C) writes it
	} `json:"dist"`
}

// ReadRelease reads the registry's answer for NAME/VERSION.
func ReadRelease(b []byte, name, version string) (*Release, error) {
	r := &Release{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("cannot read what the registry says of %s@%s: %w", name, version, err)
	}
	if r.Name != name || r.Version != version {
		return nil, fmt.Errorf("cannot use what the registry says: it speaks of %q %q instead of %s@%s", r.Name, r.Version, name, version)
	}
	if !strings.HasPrefix(r.Dist.Integrity, "sha512-") {
		return nil, fmt.Errorf("cannot verify %s@%s: the registry gives %q where sha512-... is due", name, version, r.Dist.Integrity)
	}
	return r, nil
}

// Path is where the registry has the package, below its root.
func (r *Release) Path() string { return fmt.Sprintf("%s/-/%s-%s.tgz", r.Name, r.Name, r.Version) }

// Verify tells whether the file is the one that the registry speaks of.
func (r *Release) Verify(file io.Reader) error {
	want, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.Dist.Integrity, "sha512-"))
	if err != nil {
		return fmt.Errorf("cannot read the hash of %s@%s: %w", r.Name, r.Version, err)
	}
	h := sha512.New()
	if _, err := io.Copy(h, file); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), want) {
		return fmt.Errorf("cannot use %s@%s: its bytes are not those that the registry speaks of", r.Name, r.Version)
	}
	return nil
}

// Is tells whether the file at name looks like a package of the registry: compressed by gzip, unlike any of Debian.
func Is(name string) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	magic := make([]byte, 2)
	_, err = io.ReadFull(f, magic)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil
	}
	return bytes.Equal(magic, []byte{0x1f, 0x8b}), err
}

// file is a member of a package that is kept.
type file struct {
	path    string // in the package
	content []byte
}

// WriteTar writes the regular files of a package as an uncompressed tar file with the paths that they have in a tree,
// sorted, readable by all and owned by root. The same package gives the same bytes.
func WriteTar(ctx context.Context, pkg io.Reader, to io.Writer) error {
	files, err := readFiles(ctx, pkg)
	if err != nil {
		return fmt.Errorf("cannot unpack an npm package: %w", err)
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	i := slices.IndexFunc(files, func(f file) bool { return f.path == "package.json" })
	if i < 0 {
		return errors.New("cannot unpack an npm package: it has no package.json")
	}
	r := &Release{}
	if err := json.Unmarshal(files[i].content, r); err != nil {
		return fmt.Errorf("cannot read package.json: %w", err)
	}
	if !Form.MatchString(r.Name + "@" + r.Version) {
		return fmt.Errorf("cannot use package.json: name %q and version %q", r.Name, r.Version)
	}
	w := tar.NewWriter(to)
	for _, f := range files {
		h := &tar.Header{Name: "." + path.Join(Folder, r.Name, f.path), Mode: 0o644, Size: int64(len(f.content)), Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(f.content); err != nil {
			return err
		}
	}
	return w.Close()
}

// readFiles reads the regular files of a package, by paths without the folder that all are in. Anything else but a folder
// is an error: npm itself makes no such package.
func readFiles(ctx context.Context, pkg io.Reader) ([]file, error) {
	z, err := gzip.NewReader(pkg)
	if err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: z, N: maxUnpacked}
	var files []file
	seen := map[string]bool{}
	for r := tar.NewReader(limited); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := r.Next()
		switch {
		case limited.N == 0 || len(files) > maxFiles:
			return nil, fmt.Errorf("more than %d bytes or %d files", maxUnpacked, maxFiles)
		case errors.Is(err, io.EOF):
			return files, nil
		case err != nil:
			return nil, err
		case h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader:
			continue
		}
		_, name, _ := strings.Cut(h.Name, "/")
		if h.Typeflag != tar.TypeReg || name == "" || path.Clean("/"+name) != "/"+name || seen[name] {
			return nil, fmt.Errorf("cannot use member %q of type %q", h.Name, h.Typeflag)
		}
		seen[name] = true
		content, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name, content})
	}
}
