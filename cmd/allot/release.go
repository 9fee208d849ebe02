package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"allotment/builder/release"
	"allotment/image"
	"allotment/image/secureboot"
	"allotment/image/validate"
)

// releasing is what all commands of allot release share.
type releasing struct {
	*common
	keys       []string
	passphrase string
}

func newRelease(c *common) *cobra.Command {
	r := &releasing{common: c}
	cmd := &cobra.Command{
		Use:   "release",
		Short: "Keep the repository that devices take their updates from",
		Long: `Keep the repository that devices take their updates from: plain files, signed under The Update Framework, for any web server.

  allot release init repo                       make keys and an empty repository
  allot release add repo IMAGE                  make a built image the newest release of channel candidate
  allot release promote repo garden-club        give channel stable what candidate has
  allot release publish repo /srv/www/updates   bring it to where devices read it; or s3://BUCKET/PREFIX
  allot release refresh repo                    every day, by a timer: sign anew what would expire
  allot release check repo                      judge it as a device does, and say what expires when

Private keys are never in the repository. Each is a pair of files NAME.pub and NAME.key in a key folder (--keys, several times
for several media). NAME.key is encrypted by a passphrase, which is asked for, or read from --passphrase-file or
$ALLOT_RELEASE_PASSPHRASE; or it is one line "command:PROGRAM ARGUMENTS", a program that signs its standard input, such as one for a
hardware token. docs/releasing.md leads through all of it.`,
	}
	f := cmd.PersistentFlags()
	f.StringArrayVar(&r.keys, "keys", nil, "folder of keys; may be given several times (default: $ALLOT_RELEASE_KEYS)")
	f.StringVar(&r.passphrase, "passphrase-file", "", "file of the keys' passphrases, one on a line; new keys get the first")
	cmd.AddCommand(newReleaseInit(r), newReleaseAdd(r), newReleasePromote(r), newReleaseWave(r), newReleaseWithdraw(r),
		newReleasePublish(r), newReleaseRefresh(r), newReleaseExpire(r), newReleaseRotate(r), newReleaseCheck(r), newReleaseKeys(r),
		newReleaseKey(r))
	return cmd
}

// options are those of a repository, and what ends its progress.
func (r *releasing) options(dir string) (release.Options, func(), error) {
	ring, err := r.ring()
	if err == nil {
		err = outside(dir, ring.Dirs)
	}
	report, done := r.progress()
	return release.Options{Dir: dir, Keys: ring, Now: time.Now(), Progress: report}, done, err
}

// outside refuses key folders inside of a repository, which others get to see.
func outside(repo string, keys []string) error {
	repo, err := filepath.Abs(repo)
	if err != nil {
		return err
	}
	for _, dir := range keys {
		path, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		if inside, err := filepath.Rel(repo, path); err == nil && filepath.IsLocal(inside) {
			return fmt.Errorf("cannot use key folder %q inside of the repository; choose another place", dir)
		}
	}
	return nil
}

// open works on the repository in a folder.
func (r *releasing) open(cmd *cobra.Command, dir string, work func(*release.Repository) error) error {
	o, done, err := r.options(dir)
	defer done()
	if err != nil {
		return err
	}
	repo, err := release.Open(cmd.Context(), o)
	if err != nil {
		return err
	}
	defer repo.Close()
	return work(repo)
}

func newReleaseInit(r *releasing) *cobra.Command {
	return &cobra.Command{
		Use:   "init REPO",
		Short: "Make keys and an empty repository",
		Long: `Make keys and an empty repository in a new folder.

The first key folder gets three root keys, of which two must sign, one key for targets, one for each channel, and one each for
snapshot and timestamp, which may stay on the machine that publishes. Keys of these names that are there already are used.
Copy REPO/metadata/1.root.json beside your profiles and name it in them: [update] root = "1.root.json".`,
		Example: "  allot release init repo --keys keys/release",
		Args:    one("REPO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, done, err := r.options(args[0])
			defer done()
			if err != nil {
				return err
			}
			if err := release.Init(cmd.Context(), o); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "made repository %s; devices trust %s\n", args[0],
				filepath.Join(args[0], "metadata", "1.root.json"))
			return nil
		},
	}
}

// waveFlags are the flags that say when devices may take a release.
type waveFlags struct {
	kind  string
	hours int
	start string
}

func (w *waveFlags) add(cmd *cobra.Command, hours int) {
	cmd.Flags().StringVar(&w.kind, "wave", "default", "default (72 h), fast (12 h), or emergency (at once, in no maintenance window)")
	cmd.Flags().IntVar(&w.hours, "hours", hours, "hours until every device may take it; -1 is what the wave has")
	cmd.Flags().StringVar(&w.start, "start", "", "when the wave starts, such as 2026-12-01T02:00:00Z (default: now)")
}

func (w *waveFlags) wave() (image.Wave, error) {
	start := time.Now()
	if w.start != "" {
		var err error
		if start, err = time.Parse(time.RFC3339, w.start); err != nil {
			return image.Wave{}, fmt.Errorf("cannot use start %q: want a time such as 2026-12-01T02:00:00Z", w.start)
		}
	}
	return release.NewWave(w.kind, start, w.hours)
}

func newReleaseAdd(r *releasing) *cobra.Command {
	var wave waveFlags
	var o release.AddOptions
	var cert string
	cmd := &cobra.Command{
		Use:   "add REPO IMAGE",
		Short: "Make an image the newest release of channel candidate",
		Long: `Make a built image (raw, raw.zst, qcow2, vmdk or vhd) the newest release of channel candidate.

The image is judged as allot inspect does. Its parts are packed, and deltas made from the last releases of the same profile and
architecture; each pack and delta is tried as a device would use it. An interrupted add leaves the repository as it was. Needs
the keys of candidate, snapshot and timestamp.`,
		Example: "  allot release add repo out/allotment-garden-club-2026.11.3-amd64.raw.zst --keys keys/release --cert keys/db.crt",
		Args:    exactly("REPO", "IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.Wave, err = wave.wave(); err != nil {
				return err
			}
			return r.open(cmd, args[0], func(repo *release.Repository) error { return r.add(cmd, repo, args[1], cert, o) })
		},
	}
	wave.add(cmd, 0)
	cmd.Flags().StringVar(&o.Notes, "notes", "", "what is new, for the officers, in plain text")
	cmd.Flags().IntVar(&o.Deltas, "deltas", 5, "make deltas from so many releases before")
	cmd.Flags().BoolVar(&o.WithoutRoot, "without-root", false, "take an image that has no root metadata: its boxes take no update after it")
	cmd.Flags().StringVar(&cert, "cert", "", "db certificate that must have signed the boot files, such as keys/db.crt")
	return cmd
}

func (r *releasing) add(cmd *cobra.Command, repo *release.Repository, path, certFile string, o release.AddOptions) error {
	var opts validate.Options
	var err error
	if certFile != "" {
		if opts.Cert, err = secureboot.LoadCertificate(certFile); err != nil {
			return err
		}
	}
	f, err := r.openImage(cmd.Context(), path)
	if err != nil {
		return err
	}
	defer f.Close()
	img, err := release.ReadImage(cmd.Context(), f, f.Size, opts)
	if err != nil {
		return fmt.Errorf("cannot make a release of %q: %w", path, err)
	}
	rel, err := repo.Add(cmd.Context(), img, o)
	if err != nil {
		return err
	}
	var packs, deltas int64
	for _, b := range release.Blobs(rel) {
		if b.From == "" {
			packs += b.Size
		}
	}
	fmt.Fprintf(cmd.OutOrStdout(), "added %s %s for %s to candidate: packs %s, trial %d min\n", rel.Name, rel.Version, rel.Arch,
		megabytes(packs), rel.Trial.Seconds/60)
	for _, d := range rel.Deltas {
		deltas += d.Size
		fmt.Fprintf(cmd.OutOrStdout(), "  delta from %s: %s\n", d.From, megabytes(d.Size))
	}
	return nil
}

// megabytes writes a size in units of 10^6 bytes.
func megabytes(n int64) string { return fmt.Sprintf("%.2f MB", float64(n)/1e6) }

func newReleasePromote(r *releasing) *cobra.Command {
	var wave waveFlags
	var arch string
	cmd := &cobra.Command{
		Use:   "promote REPO NAME",
		Short: "Give channel stable the release that candidate has",
		Long: `Give channel stable the release of profile NAME that channel candidate has, for all its architectures or one. Needs the keys of
stable, snapshot and timestamp.`,
		Example: "  allot release promote repo garden-club --keys keys/release --wave fast",
		Args:    exactly("REPO", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := wave.wave()
			if err != nil {
				return err
			}
			return r.change(cmd, args, "", arch, func(repo *release.Repository, s release.Select) ([]release.Target, error) {
				return repo.Promote(cmd.Context(), s, w)
			})
		},
	}
	wave.add(cmd, -1)
	archFlag(cmd, &arch)
	return cmd
}

func newReleaseWave(r *releasing) *cobra.Command {
	var wave waveFlags
	var arch, channel string
	cmd := &cobra.Command{
		Use:   "wave REPO NAME",
		Short: "Say anew when devices may take a release",
		Long: `Say anew when devices may take the release of profile NAME that a channel has: faster when it mends something urgent, or from a
later time on. Devices that have taken it keep it. Needs the keys of the channel, snapshot and timestamp.`,
		Example: "  allot release wave repo garden-club --keys keys/release --wave emergency",
		Args:    exactly("REPO", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := wave.wave()
			if err != nil {
				return err
			}
			return r.change(cmd, args, channel, arch, func(repo *release.Repository, s release.Select) ([]release.Target, error) {
				return repo.SetWave(cmd.Context(), s, w)
			})
		},
	}
	wave.add(cmd, -1)
	archFlag(cmd, &arch)
	cmd.Flags().StringVar(&channel, "channel", release.Stable, "stable or candidate")
	return cmd
}

func newReleaseWithdraw(r *releasing) *cobra.Command {
	var arch string
	cmd := &cobra.Command{
		Use:   "withdraw REPO NAME VERSION",
		Short: "Keep devices from taking a release",
		Long: `Keep devices from taking a version of profile NAME, in whatever channel has it. Devices that have taken it keep it until a newer
release comes. Needs the keys of the channels, snapshot and timestamp.`,
		Example: "  allot release withdraw repo garden-club 2026.11.3 --keys keys/release",
		Args:    exactly("REPO", "NAME", "VERSION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := image.ParseVersion(args[2])
			if err != nil {
				return err
			}
			return r.change(cmd, args, "", arch, func(repo *release.Repository, s release.Select) ([]release.Target, error) {
				return repo.Withdraw(cmd.Context(), s, v)
			})
		},
	}
	archFlag(cmd, &arch)
	return cmd
}

func archFlag(cmd *cobra.Command, arch *string) {
	cmd.Flags().StringVar(arch, "arch", "", "amd64 or arm64 (default: all)")
}

// change alters what channels say of the targets of a profile, and prints how they are then.
func (r *releasing) change(cmd *cobra.Command, args []string, channel, arch string,
	work func(*release.Repository, release.Select) ([]release.Target, error)) error {
	s := release.Select{Channel: channel, Name: args[1]}
	if channel != "" && channel != release.Stable && channel != release.Candidate {
		return fmt.Errorf("cannot use channel %q: want %s", channel, strings.Join(release.Channels, " or "))
	}
	if arch != "" {
		var err error
		if s.Arch, err = image.ParseArch(arch); err != nil {
			return err
		}
	}
	return r.open(cmd, args[0], func(repo *release.Repository) error {
		targets, err := work(repo, s)
		if err != nil {
			return err
		}
		return printTargets(cmd, repo, targets)
	})
}

// exactly accepts one argument for each name.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return usage(cmd, fmt.Errorf("want %s, not %d arguments", strings.Join(names, " "), len(args)))
	}
}

func newReleasePublish(r *releasing) *cobra.Command {
	var prune bool
	cmd := &cobra.Command{
		Use:   "publish REPO PLACE",
		Short: "Bring the repository to where devices read it",
		Long: `Bring what is in force to a folder of a web server, or to an object store as s3://BUCKET/PREFIX.

The repository is judged first as a device would judge it. Files come in an order in which devices see the old state or the new
one at any time; what is there already is not sent again, so that an interrupted publication goes on where it was. A place that has
something newer, or another repository, is left alone. With --prune, releases and blobs that the repository does not have any more
(see allot release expire) are removed from there afterwards. Needs no keys.

For s3:// the environment says where and who, as for Amazon's own tools: AWS_ENDPOINT_URL (default https://s3.amazonaws.com),
AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or ~/.aws/credentials.`,
		Example: "  allot release publish repo /srv/www/updates\n  allot release publish repo s3://updates.example.org",
		Args:    exactly("REPO", "PLACE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, unlock, err := r.place(cmd, args[1])
			if err != nil {
				return err
			}
			defer unlock()
			return r.open(cmd, args[0], func(repo *release.Repository) error {
				p, err := repo.Publish(cmd.Context(), to)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "published %s: %d files, %s\n", args[1], p.Files, megabytes(p.Bytes))
				if !prune {
					return nil
				}
				gone, err := repo.Prune(cmd.Context(), to)
				fmt.Fprintf(cmd.OutOrStdout(), "removed from there: %d files, %s\n", gone.Files, megabytes(gone.Bytes))
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&prune, "prune", false, "remove from there what the repository does not have any more")
	return cmd
}

// place opens the place that a repository is published at.
func (r *releasing) place(cmd *cobra.Command, arg string) (release.Store, func(), error) {
	if strings.Contains(arg, "://") {
		s, err := release.OpenS3(arg, os.Getenv)
		return s, func() {}, err
	}
	return release.OpenFolder(cmd.Context(), arg)
}
