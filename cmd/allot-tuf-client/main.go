// Command allot-tuf-client is the device's update client on a command line, so that test suites for clients of The Update
// Framework can drive the code that devices run.
//
//	allot-tuf-client --metadata-dir D init ROOT.json
//	allot-tuf-client --metadata-dir D --metadata-url U refresh
//	allot-tuf-client --metadata-dir D --metadata-url U --target-name T [--target-name T2 ...]
//		--target-base-url B --target-dir O download
//
// It ends with exit code 0 or 1. Trusted metadata lie in D under unversioned names. The time is the system's, unless
// --time gives another (RFC 3339): programs without a C library cannot be deceived by faketime.
package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"allotment/init/durable"
	"allotment/updater/fetch"
	"allotment/updater/trust"
)

// maxTarget bounds what is downloaded, in bytes.
const maxTarget = 64 << 20

func main() {
	if err := command().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "allot-tuf-client:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	metadataDir, metadataURL string
	targetBaseURL, targetDir string
	targetNames              []string
	now                      time.Time
}

func command() *cobra.Command {
	o := options{now: time.Now()}
	c := &cobra.Command{Use: "allot-tuf-client", Short: "Drive the device's update client",
		SilenceUsage: true, SilenceErrors: true}
	f := c.PersistentFlags()
	f.StringVar(&o.metadataDir, "metadata-dir", "", "folder of trusted metadata")
	f.StringVar(&o.metadataURL, "metadata-url", "", "where the repository's metadata are")
	f.StringVar(&o.targetBaseURL, "target-base-url", "", "where the repository's targets are")
	f.StringVar(&o.targetDir, "target-dir", "", "folder for targets")
	f.TimeVar(&o.now, "time", o.now, []string{time.RFC3339}, "what time it is")
	f.StringArrayVar(&o.targetNames, "target-name", nil, "target to download")
	c.AddCommand(
		&cobra.Command{Use: "init ROOT.json", Short: "Trust a root", Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return o.init(args[0]) }},
		&cobra.Command{Use: "refresh", Short: "Update the metadata", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error { _, err := o.refresh(c.Context()); return err }},
		&cobra.Command{Use: "download", Short: "Update the metadata and download targets", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error { return o.download(c.Context()) }},
	)
	return c
}

// rootPath is where the newest trusted root lies; the next refresh starts from it.
func (o *options) rootPath() string { return filepath.Join(o.metadataDir, "root.json") }

func (o *options) init(root string) error {
	b, err := os.ReadFile(root)
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(o.metadataDir, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(o.rootPath(), b, 0o600)
}

// refresh leaves the newest root as root.json even if what follows it fails.
func (o *options) refresh(ctx context.Context) (*trust.Client, error) {
	root, err := os.ReadFile(o.rootPath())
	if err != nil {
		return nil, err
	}
	c, err := trust.New(trust.Config{Dir: o.metadataDir, Root: root, Source: newSource(o.metadataURL, o.targetBaseURL),
		Now: func() time.Time { return o.now }})
	if err != nil {
		return nil, err
	}
	err = c.Refresh(ctx)
	if err := durable.WriteFile(o.rootPath(), c.Root(), 0o600); err != nil {
		return nil, err
	}
	return c, err
}

func (o *options) download(ctx context.Context) error {
	c, err := o.refresh(ctx)
	if err != nil {
		return err
	}
	for _, name := range o.targetNames {
		if err := o.target(ctx, c, name); err != nil {
			return err
		}
	}
	return nil
}

// target downloads one target, unless the file that is there is it.
func (o *options) target(ctx context.Context, c *trust.Client, name string) error {
	t, err := c.Target(ctx, name)
	if err != nil {
		return err
	}
	if t == nil {
		return fmt.Errorf("cannot download %q: no role has it", name)
	}
	path := filepath.Join(o.targetDir, url.PathEscape(name))
	if b, err := os.ReadFile(path); err == nil && t.VerifyLengthHashes(b) == nil {
		return nil
	}
	b, err := c.Read(ctx, t, maxTarget)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, b, 0o600)
}

// source has metadata and targets at addresses that need not be neighbours.
type source struct{ metadata, targets fetch.Source }

func newSource(metadata, targets string) source {
	o := fetch.Options{Rounds: 1, Agent: "allot-tuf-client"}
	return source{fetch.HTTP([]string{metadata}, o), fetch.HTTP([]string{targets}, o)}
}

// Get implements fetch.Source.
func (s source) Get(ctx context.Context, path string, from, to int64) (io.ReadCloser, error) {
	if rest, ok := strings.CutPrefix(path, "metadata/"); ok {
		return s.metadata.Get(ctx, rest, from, to)
	}
	return s.targets.Get(ctx, strings.TrimPrefix(path, "targets/"), from, to)
}
