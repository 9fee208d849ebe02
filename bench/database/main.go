// Command database measures what it costs a database that its files are copied on write: MariaDB's InnoDB, and a writer of
// single pages as LMDB and SQLite are, on a btrfs as the state partition is, with and without no-cow, before and after a
// snapshot. It needs root and a Linux that knows btrfs, and replaces the table in decision 8.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"allotment/builder/apt"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

func main() {
	tools.EnterIfAsked()
	locked := flag.String("lock", "profiles/garden-club.lock", "lock `file` whose tree \"web\" has MariaDB")
	work := flag.String("work", os.TempDir(), "`folder` on the disk that is measured, with 3 GiB free")
	write := flag.String("write", "", "replace the table in this `file`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, *locked, *work, *write); err != nil {
		fmt.Fprintln(os.Stderr, "database:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, locked, work, write string) error {
	dir, err := os.MkdirTemp(work, "allotment-database-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	makers, server, err := openTools(ctx, locked)
	if err != nil {
		return err
	}
	table := "| what | no-cow | snapshot taken | commits/s | KiB written per commit | extents after |\n" +
		"|---|---|---|---:|---:|---:|\n"
	for _, noCOW := range []bool{false, true} {
		d, err := makeDisk(ctx, makers.With(dir), dir)
		if err != nil {
			return err
		}
		rows, err := d.measure(ctx, server.With(dir), noCOW)
		if err := d.close(err); err != nil {
			return err
		}
		for _, r := range rows {
			table += r.String()
			fmt.Fprint(os.Stderr, r)
		}
	}
	fmt.Print(table)
	if write == "" {
		return nil
	}
	return replaceTable(write, table)
}

// openTools opens the builder's own programs, and those of MariaDB.
func openTools(ctx context.Context, locked string) (makers, server *tools.Root, err error) {
	c, err := cache.Default()
	if err != nil {
		return nil, nil, err
	}
	to := progress.Silent{}
	if makers, err = tools.OpenFrom(ctx, c, profile.Debian{}, to); err != nil {
		return nil, nil, err
	}
	l, err := lock.Read(locked)
	if err != nil {
		return nil, nil, err
	}
	arch, err := image.ParseArch(runtime.GOARCH)
	if err != nil {
		return nil, nil, err
	}
	packages, err := withBase(l.All(arch, "debian-base", "web"), arch)
	if err != nil {
		return nil, nil, err
	}
	server, err = tools.OpenPackages(ctx, c, apt.New(c, profile.Debian{}, l.Epoch), packages, to)
	return makers, server, err
}

// withBase adds what a tool root needs besides: packages of the smallest one there is.
func withBase(packages []lock.Package, arch image.Arch) ([]lock.Package, error) {
	l, err := tools.Lock()
	if err != nil {
		return nil, err
	}
	for _, p := range l.Trees["solver"][arch] {
		if !slices.ContainsFunc(packages, func(o lock.Package) bool { return o.Name == p.Name }) {
			packages = append(packages, p)
		}
	}
	return packages, nil
}

// row is one line of the table.
type row struct {
	what            string
	noCOW, snapshot bool
	commits         float64 // each second
	written         float64 // KiB for each commit
	extents         int
}

// String is the row in Markdown.
func (r row) String() string {
	yes := map[bool]string{true: "yes", false: "no"}
	return fmt.Sprintf("| %s | %s | %s | %.0f | %.1f | %d |\n",
		r.what, yes[r.noCOW], yes[r.snapshot], r.commits, r.written, r.extents)
}

// replaceTable puts the table between the two marks of a file.
func replaceTable(path, table string) error {
	const begin, end = "<!-- bench/database -->\n", "<!-- end -->"
	b, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(b), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("cannot find where the table belongs in %q", path)
	}
	return os.WriteFile(path, []byte(before+begin+"\n"+table+"\n"+end+after), 0o644)
}
