package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"allotment/builder/apt"
	"allotment/builder/lock/resolve"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
	format "allotment/image/delta"
	"allotment/internal/run"
)

// peers is what a device would download by other means, in bytes; 0 where it was not measured.
type peers struct {
	full   int64 // zstd -19 of every part
	casync int64 // chunks and index
	rauc   int64 // blocks and index
	ostree int64 // static delta
	pull   int64 // objects that a pull without one fetches
}

const blockSize = 4096

// peerPackages are the peers, in Debian 13, and a minimal system to stand on.
var peerPackages = []string{"base-files", "base-passwd", "bash", "ca-certificates", "coreutils", "dash", "libc-bin", "mount", "netbase",
	"util-linux", "casync", "erofs-utils", "ostree", "zstd"}

// others measures what others cost.
func (b *bench) others(ctx context.Context, pairs []pair) error {
	root, err := b.peerTools(ctx)
	if err != nil {
		return err
	}
	o := other{b, root.With(b.dir), map[image.Digest]int64{}}
	for i := range pairs {
		p := &pairs[i]
		step := b.progress.Step("measure others on "+p.Name, 0)
		err := o.measure(ctx, p)
		step.Done(err)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return nil
}

// peerTools makes a tool root of the peers.
func (b *bench) peerTools(ctx context.Context) (*tools.Root, error) {
	archive := apt.New(b.cache, profile.Debian{}, 0)
	l, err := resolve.Lock(ctx, resolve.Options{
		Trees:   map[string]*profile.Tree{"peers": {Name: "peers", Packages: peerPackages}},
		Archs:   []image.Arch{image.AMD64},
		Archive: archive, Cache: b.cache, Now: time.Now(), Progress: b.progress})
	if err != nil {
		return nil, err
	}
	return tools.OpenPackages(ctx, b.cache, archive, l.Trees["peers"][image.AMD64], b.progress)
}

// other is what measures the others.
type other struct {
	*bench
	tools *tools.Root
	full  map[image.Digest]int64 // of parts that have been packed already
}

func (o other) measure(ctx context.Context, p *pair) error {
	var err error
	if p.peers.full, err = o.fullSize(ctx, p.To); err != nil {
		return err
	}
	if p.peers.rauc, err = o.adaptive(p); err != nil {
		return err
	}
	if p.peers.casync, err = o.casync(ctx, p); err != nil {
		return err
	}
	p.peers.ostree, p.peers.pull, err = o.ostree(ctx, p)
	return err
}

// fullSize packs every part as well as zstd can within reason.
func (o other) fullSize(ctx context.Context, files []format.File) (int64, error) {
	var n int64
	for _, f := range files {
		if _, ok := o.full[f.Digest]; !ok {
			var c counter
			err := o.tools.Run(ctx, run.Command{Name: "zstd", Args: []string{"-19", "--long=27", "-q", "-c", o.path(f)}, Stdout: &c})
			if err != nil {
				return 0, err
			}
			o.full[f.Digest] = int64(c)
		}
		n += o.full[f.Digest]
	}
	return n, nil
}

// adaptive computes what RAUC's adaptive method block-hash-index reads: the index of the new parts, and every block of theirs
// that is not in the old ones, as it is.
func (o other) adaptive(p *pair) (int64, error) {
	had := map[[32]byte]bool{}
	var n int64
	for _, list := range [][]format.File{p.From, p.To} {
		for _, f := range list {
			isNew := !slices.Contains(p.From, f)
			err := blocks(o.path(f), func(h [32]byte) {
				if isNew {
					n += 32
				}
				if !had[h] {
					had[h] = true
					if isNew {
						n += blockSize
					}
				}
			})
			if err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// blocks hashes the blocks of a file.
func blocks(path string, visit func([32]byte)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(f, buf)
		for b := range slices.Chunk(buf[:n], blockSize) {
			visit(sha256.Sum256(b))
		}
		if err != nil {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return nil
			}
			return err
		}
	}
}

// casync makes a chunk store of the old parts and returns by how much the new ones make it grow, with their indexes.
func (o other) casync(ctx context.Context, p *pair) (int64, error) {
	dir, err := os.MkdirTemp(o.dir, "casync-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	store := filepath.Join(dir, "store")
	var sizes [2]int64
	var indexes int64
	for i, list := range [][]format.File{p.From, p.To} {
		for _, f := range list {
			index := filepath.Join(dir, "index.caibx")
			err := o.tools.Run(ctx, run.Command{Name: "casync", Args: []string{"make", "--store=" + store, index, o.path(f)}})
			if err != nil {
				return 0, err
			}
			if st, err := os.Stat(index); err == nil && i == 1 && !slices.Contains(p.From, f) {
				indexes += st.Size()
			}
		}
		if sizes[i], err = folderSize(store); err != nil {
			return 0, err
		}
	}
	return sizes[1] - sizes[0] + indexes, nil
}

// ostree commits the trees of the old EROFS parts and of the new ones, and returns the sizes of a static delta and of the
// objects that only the new commit has.
func (o other) ostree(ctx context.Context, p *pair) (static, pull int64, err error) {
	dir, err := os.MkdirTemp(o.dir, "ostree-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	do := func(name string, args ...string) {
		if err == nil {
			err = o.tools.Run(ctx, run.Command{Name: name, Args: args, Stdout: io.Discard})
		}
	}
	repo := "--repo=" + filepath.Join(dir, "repo")
	do("ostree", "init", repo, "--mode=archive")
	var sizes [2]int64
	for i, list := range [][]format.File{p.From, p.To} {
		tree := filepath.Join(dir, fmt.Sprint("tree", i))
		if err := os.Mkdir(tree, 0o755); err != nil {
			return 0, 0, err
		}
		for _, f := range list {
			out := filepath.Join(tree, f.Name)
			if f.Name == "uki" {
				do("cp", o.path(f), out)
				continue
			}
			do("fsck.erofs", "--extract="+out, "--no-preserve", o.path(f))
		}
		do("ostree", "commit", repo, "--branch=b", "--tree=dir="+tree, "--owner-uid=0", "--owner-gid=0", "--no-xattrs")
		if err != nil {
			return 0, 0, err
		}
		if sizes[i], err = folderSize(filepath.Join(dir, "repo", "objects")); err != nil {
			return 0, 0, err
		}
	}
	do("ostree", "static-delta", "generate", repo, "b")
	if err != nil {
		return 0, 0, err
	}
	static, err = folderSize(filepath.Join(dir, "repo", "deltas"))
	return static, sizes[1] - sizes[0], err
}

// folderSize is how many bytes the files below a folder have.
func folderSize(dir string) (int64, error) {
	var n int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		n += info.Size()
		return nil
	})
	return n, err
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
