package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"allotment/builder"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/internal/terminal"
)

// common holds the flags that most commands share.
type common struct {
	source string
	cache  string
	quiet  bool
}

func (c *common) addFlags(f *pflag.FlagSet) {
	f.StringVar(&c.source, "source", "", "folder of Allotment's source code (default: the clone around the current folder)")
	f.StringVar(&c.cache, "cache", "", "cache folder (default: $ALLOT_CACHE, or allotment in the user's cache folder)")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "show no progress")
}

// sourceFolder finds the source code.
func (c *common) sourceFolder() (builder.Source, error) {
	if c.source != "" {
		return builder.FindSource(c.source)
	}
	return builder.FindSource(".")
}

// cacheFolder returns the cache to use.
func (c *common) cacheFolder() (cache.Dir, error) {
	if c.cache == "" {
		return cache.Default()
	}
	d, err := filepath.Abs(c.cache)
	return cache.Dir(d), err
}

// folders finds the source code and the cache.
func (c *common) folders() (builder.Source, cache.Dir, error) {
	source, err := c.sourceFolder()
	if err != nil {
		return "", "", err
	}
	dir, err := c.cacheFolder()
	return source, dir, err
}

// profilePath turns what the user typed, a profile's name or a file, into the path of the profile.
func profilePath(source builder.Source, arg string) string {
	if strings.HasSuffix(arg, ".toml") || strings.ContainsRune(arg, filepath.Separator) {
		return arg
	}
	return filepath.Join(string(source), "profiles", arg+".toml")
}

// lockPath is where the lock of the profile at path lies.
func lockPath(path string) string { return strings.TrimSuffix(path, ".toml") + ".lock" }

// project is what the commands that build need: the profile, its lock and where things are.
type project struct {
	source  builder.Source
	cache   cache.Dir
	profile *profile.Profile
	lock    *lock.Lock
}

// open reads the profile that arg names and its lock.
func (c *common) open(arg string) (*project, error) {
	source, cache, err := c.folders()
	if err != nil {
		return nil, err
	}
	path := profilePath(source, arg)
	p, err := profile.Load(path)
	if err != nil {
		return nil, err
	}
	l, err := lock.Read(lockPath(path))
	if os.IsNotExist(err) {
		return nil, fmt.Errorf("cannot build %q without its lock %q; make it with: allot lock %s", arg, lockPath(path), arg)
	}
	if err != nil {
		return nil, err
	}
	return &project{source: source, cache: cache, profile: p, lock: l}, nil
}

// build builds one architecture of the project, showing progress.
func (c *common) build(ctx context.Context, p *project, arch image.Arch, keys, out string) (*builder.Result, error) {
	report, done := c.progress()
	defer done()
	return builder.Build(ctx, builder.Options{
		Profile: p.profile, Lock: p.lock, Source: p.source, Arch: arch, Keys: keys, Out: out,
		Cache: p.cache, Progress: report,
	})
}

// progress shows steps on standard error until the returned function is called.
func (c *common) progress() (progress.Reporter, func()) {
	if c.quiet {
		return progress.Silent{}, func() {}
	}
	r := terminal.New(os.Stderr)
	return r, func() { r.Close() }
}

// tools opens the tool root, fetched from the given places where the cache lacks it.
func (c *common) tools(ctx context.Context, dir cache.Dir, places profile.Debian) (*tools.Root, error) {
	report, done := c.progress()
	defer done()
	return tools.OpenFrom(ctx, dir, places, report)
}
