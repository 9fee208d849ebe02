package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"allotment/builder"
	"allotment/builder/apt"
	"allotment/builder/deb"
	"allotment/builder/delta"
	"allotment/builder/lock"
	"allotment/builder/lock/resolve"
	"allotment/builder/profile"
	"allotment/builder/release"
	"allotment/builder/rootfs"
	"allotment/image"
	format "allotment/image/delta"
	"allotment/image/disk"
	"allotment/image/erofs"
	"allotment/image/validate"
)

// mailPackages are those of a mail server as a club has it, which has no module yet.
var mailPackages = []string{"base-files", "ca-certificates", "postfix", "postfix-ldap", "dovecot-imapd", "dovecot-lmtpd", "dovecot-sieve",
	"dovecot-managesieved", "rspamd", "slapd", "ldap-utils"}

// mailTree is the tree of those packages, whole, on nothing.
const mailTree = "mail"

// pointAge is how much earlier than the newer release's files the older one's are dated: as in life, where every lock has a
// time of its own.
const pointAge = 10 * 7 * 24 * time.Hour

// locks resolves the profile's trees as Debian has them now, and as its point release had them.
type locks struct {
	profile *profile.Profile
	archive *apt.Client
	fresh   *lock.Lock
	old     *lock.Lock // without updates, but for the kernel
	oldest  *lock.Lock // without updates
}

func (b *bench) locks(ctx context.Context, now time.Time) (*locks, error) {
	p, err := profile.Load(filepath.Join(string(b.source), "profiles", b.profile+".toml"))
	if err != nil {
		return nil, err
	}
	p.Archs = []image.Arch{image.AMD64}
	p.Outputs = []string{string(disk.QCOW2)}
	trees := maps.Clone(p.Trees)
	trees[mailTree] = &profile.Tree{Name: mailTree, Packages: mailPackages}
	archive := apt.New(b.cache, p.Debian, 0)
	o := resolve.Options{Trees: trees, Archs: p.Archs, Archive: archive, Cache: b.cache, Now: now, Progress: b.progress}
	fresh, err := resolve.Lock(ctx, o)
	if err != nil {
		return nil, err
	}
	index, err := archive.Update(ctx, p.Archs, now, b.progress)
	if err != nil {
		return nil, err
	}
	fresh.Inputs = lock.InputsOf(p.Trees, p.Archs)
	return &locks{p, archive, fresh, withoutUpdates(fresh, index, false), withoutUpdates(fresh, index, true)}, nil
}

// kernel is a kernel image's package, whose name has its version.
var kernel = regexp.MustCompile(`^linux-image-[0-9][^-]*-amd64$`)

// withoutUpdates is a lock with the same packages in the versions of the point release.
func withoutUpdates(l *lock.Lock, index *apt.Index, kernels bool) *lock.Lock {
	point := map[string]lock.Package{}
	for _, e := range index.Entries[image.AMD64] { // the point release comes first
		name := e.Name
		if kernel.MatchString(name) {
			name = "linux-image"
		}
		if _, ok := point[name]; !ok && e.Archive == apt.Main {
			point[name] = e.Package
		}
	}
	old := *l
	old.Epoch -= int64(pointAge.Seconds())
	old.Trees = map[string]map[image.Arch][]lock.Package{}
	for name, tree := range l.Trees {
		packages := slices.Clone(tree[image.AMD64])
		for i, p := range packages {
			key := p.Name
			if kernel.MatchString(key) {
				key = "linux-image"
			}
			if was, ok := point[key]; ok && (kernels || !strings.HasPrefix(p.Name, "linux-image")) {
				packages[i] = was
			}
		}
		slices.SortFunc(packages, func(a, b lock.Package) int { return cmp.Compare(a.Name, b.Name) })
		old.Trees[name] = map[image.Arch][]lock.Package{image.AMD64: packages}
	}
	return &old
}

// build makes a release and takes it apart.
func (b *bench) build(ctx context.Context, l *locks, packages *lock.Lock, v image.Version) (*release.Image, error) {
	p := *l.profile
	p.Version = v
	r, err := builder.Build(ctx, builder.Options{Profile: &p, Lock: packages, Source: b.source, Arch: image.AMD64, Keys: b.keys,
		Out: filepath.Join(b.dir, string(v)), Cache: b.cache, Progress: b.progress})
	if err != nil {
		return nil, err
	}
	path, err := r.Image(string(disk.QCOW2))
	if err != nil {
		return nil, err
	}
	f, err := disk.Open(ctx, b.tools, path)
	if err != nil {
		return nil, err
	}
	img, err := release.ReadImage(ctx, f, f.Size, validate.Options{})
	if err != nil {
		return nil, err
	}
	for _, part := range append([]delta.Part{img.UKI, img.Root}, img.Layers...) { // a file of each, which programs can read
		if err := b.file(part); err != nil {
			return nil, err
		}
	}
	return img, f.Close()
}

// mail makes the mail server's tree into one part.
func (b *bench) mail(ctx context.Context, l *locks, packages *lock.Lock) (delta.Part, error) {
	list := packages.Trees[mailTree][image.AMD64]
	files, err := l.archive.Fetch(ctx, list, b.progress)
	if err != nil {
		return delta.Part{}, err
	}
	var debs []rootfs.Deb
	for i, p := range list {
		tar, err := deb.DataTarCached(ctx, b.cache, files[i], p.SHA256)
		if err != nil {
			return delta.Part{}, err
		}
		debs = append(debs, rootfs.Deb{Name: p.Name, Version: p.Version, DataTar: tar})
	}
	decl := &profile.Tree{Name: mailTree, Remove: []string{"/usr/share/man", "/usr/share/locale", "/usr/share/info",
		"/usr/share/doc/*/[!c]*", "/usr/share/doc/*/ch*"}}
	tree, err := rootfs.Build(ctx, debs, decl, nil)
	if err != nil {
		return delta.Part{}, err
	}
	epoch := time.Unix(packages.Epoch, 0)
	tar, out := filepath.Join(b.dir, "mail.tar"), filepath.Join(b.dir, fmt.Sprintf("mail-%d", packages.Epoch))
	f, err := os.Create(tar)
	if err != nil {
		return delta.Part{}, err
	}
	defer f.Close()
	if err := tree.WriteTar(f, epoch); err != nil {
		return delta.Part{}, err
	}
	o := erofs.Options{UUID: "00112233-4455-6677-8899-aabbccddeeff", Epoch: epoch}
	if err := erofs.Make(ctx, b.tools, tar, out, o); err != nil {
		return delta.Part{}, err
	}
	r, err := os.Open(out)
	if err != nil {
		return delta.Part{}, err
	}
	defer r.Close()
	d, n, err := image.DigestOf(r)
	if err != nil {
		return delta.Part{}, err
	}
	p := delta.Part{File: format.File{Name: mailTree, Digest: d, Size: n}, ReaderAt: r}
	if err := b.file(p); err != nil {
		return delta.Part{}, err
	}
	p.ReaderAt = nil // it is read from its file from here on
	return p, nil
}

// path is where a part lies as a file.
func (b *bench) path(f format.File) string { return filepath.Join(b.dir, f.Digest.Hex()) }

// file writes a part to a file.
func (b *bench) file(p delta.Part) error {
	f, err := os.Create(b.path(p.File))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, io.NewSectionReader(p, 0, p.Size)); err != nil {
		return err
	}
	return f.Close()
}

// parts lists all parts of a release.
func parts(img *release.Image) []format.File {
	all := []format.File{img.UKI.File, img.Root.File}
	for _, l := range img.Layers {
		all = append(all, l.File)
	}
	return all
}
