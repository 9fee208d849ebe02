package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"allotment/bench/peer"
	"allotment/internal/run"
)

// cost is what a piece of work took.
type cost struct {
	wall, cpu time.Duration // cpu of all processes, user and system
}

// builds is what it takes to make a system, and how large it is.
type builds struct {
	cold, changed, again cost   // from nothing; after a change of one file of a module; after none
	disk                 string // raw image
	size, data, download int64  // bytes of the raw image, of it without holes, and of the compressed one
	base                 int64  // bytes of the compressed image without the modules that it brings along
}

// timed runs f and measures it. Only one may run at a time, as the CPU time is that of all children.
func timed(f func() error) (cost, error) {
	before, start := childrenCPU(), time.Now()
	err := f()
	return cost{wall: time.Since(start), cpu: childrenCPU() - before}, err
}

// childrenCPU is the CPU time of all processes that this one has started and waited for, and of theirs.
func childrenCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		panic(fmt.Sprintf("bench: getrusage: %v", err)) // it has no way to fail but a wrong argument
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// buildOurs builds the profile in a clone of the last commit with an empty cache, and again after changing one file.
func (b *bench) buildOurs(ctx context.Context) (builds, error) {
	var r builds
	source, allot := filepath.Join(b.dir, "source"), filepath.Join(b.dir, "allot")
	if err := command(ctx, "git", "clone", "--quiet", ".", source); err != nil {
		return r, err
	}
	if err := command(ctx, "go", "build", "-C", source, "-o", allot, "./cmd/allot"); err != nil {
		return r, err
	}
	out := filepath.Join(b.dir, "out")
	build := func(name string) (cost, error) {
		step := b.progress.Step("build "+name, 0)
		c, err := timed(func() error {
			return command(ctx, allot, "build", b.profile, "--quiet", "--arch", "amd64", "--source", source, "--keys", b.keys,
				"--cache", filepath.Join(b.dir, "cache"), "--out", out)
		})
		step.Done(err)
		return c, err
	}
	var err error
	if r.cold, err = build("from nothing"); err != nil {
		return r, err
	}
	if r.again, err = build("with nothing changed"); err != nil {
		return r, err
	}
	if err = changeModule(source); err != nil {
		return r, err
	}
	if r.changed, err = build("with one file of a module changed"); err != nil {
		return r, err
	}
	return r, b.unpackOurs(ctx, out, &r)
}

// changeModule adds a line to the page of the module page.
func changeModule(source string) error {
	f, err := os.OpenFile(filepath.Join(source, pages, "index.html"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("<!-- changed by bench -->\n")
	return errFirst(err, f.Close())
}

// pages is the folder, in the source, with what both systems serve.
const pages = "modules/page/www"

// unpackOurs finds the compressed image among the outputs and unpacks it.
func (b *bench) unpackOurs(ctx context.Context, out string, r *builds) error {
	found, err := filepath.Glob(filepath.Join(out, "*.raw.zst"))
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("cannot find the one raw.zst in %q: there are %d", out, len(found))
	}
	r.disk = filepath.Join(b.dir, "ours.raw")
	if err := b.tools.Run(ctx, run.Command{Name: "zstd", Args: []string{"--quiet", "-d", found[0], "-o", r.disk}}); err != nil {
		return err
	}
	if r.base, err = b.baseSize(ctx, r.disk); err != nil {
		return err
	}
	return r.measure(found[0])
}

// baseSize compresses what lies before the last partition: that holds nothing but modules.
func (b *bench) baseSize(ctx context.Context, disk string) (int64, error) {
	var said bytes.Buffer
	err := b.tools.Run(ctx, run.Command{Name: "sfdisk", Args: []string{"--json", disk}, Stdout: &said})
	if err != nil {
		return 0, err
	}
	var table struct {
		PartitionTable struct {
			Partitions []struct{ Start int64 } // in sectors of 512 bytes, in the order of the disk
		}
	}
	if err := json.Unmarshal(said.Bytes(), &table); err != nil {
		return 0, fmt.Errorf("cannot read the partition table that sfdisk prints: %w", err)
	}
	partitions := table.PartitionTable.Partitions
	if len(partitions) == 0 {
		return 0, fmt.Errorf("cannot find a partition in %q", disk)
	}
	f, err := os.Open(disk)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var n counter
	base := io.LimitReader(f, partitions[len(partitions)-1].Start*512)
	err = b.tools.Run(ctx, run.Command{Name: "zstd", Args: []string{"--quiet", "-T0", "-7"}, Stdin: base, Stdout: &n})
	return int64(n), err
}

// counter is a writer that only counts.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// measure notes the sizes of the image.
func (r *builds) measure(compressed string) error {
	c, err := os.Stat(compressed)
	if err != nil {
		return err
	}
	f, err := os.Open(r.disk)
	if err != nil {
		return err
	}
	defer f.Close()
	r.download = c.Size()
	r.size, r.data, err = weigh(f)
	return err
}

// weigh returns the length of a disk image, and how much of it lies in blocks of 4 KiB that are not all zero.
func weigh(r io.Reader) (size, data int64, err error) {
	block, zeros := make([]byte, 4096), make([]byte, 4096)
	for {
		n, err := io.ReadFull(r, block)
		size += int64(n)
		if !bytes.Equal(block[:n], zeros[:n]) {
			data += int64(n)
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return size, data, nil
		default:
			return size, data, err
		}
	}
}

// buildPeer builds the Debian that we are measured against, and compresses it about as hard as our own code tries.
func (b *bench) buildPeer(ctx context.Context) (builds, error) {
	dir := filepath.Join(b.dir, "peer")
	var r builds
	if err := os.CopyFS(filepath.Join(dir, "files", "var", "www", "html"), os.DirFS(pages)); err != nil {
		return r, err
	}
	step := b.progress.Step("build debian from nothing", 0)
	var err error
	r.cold, err = timed(func() error {
		r.disk, err = peer.Build(ctx, peer.Options{Tools: b.tools, Dir: dir, FileSystem: "ext4", Packages: []string{"nginx"}})
		if err != nil {
			return err
		}
		return b.tools.Run(ctx, run.Command{Name: "zstd", Args: []string{"--quiet", "-T0", "-7", "--force", r.disk}})
	})
	step.Done(err)
	if err != nil {
		return r, err
	}
	return r, r.measure(r.disk + ".zst")
}

// command runs a program of the host.
func command(ctx context.Context, name string, args ...string) error {
	return run.Host{}.Run(ctx, run.Command{Name: name, Args: args})
}

// errFirst is the first error of some.
func errFirst(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
