package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"allotment/builder/release"
	"allotment/internal/run"
)

// ring is the keyring of the key folders.
func (r *releasing) ring() (*release.Keyring, error) {
	dirs := r.keys
	if len(dirs) == 0 {
		dirs = filepath.SplitList(os.Getenv("ALLOT_RELEASE_KEYS"))
	}
	ring := &release.Keyring{Dirs: dirs, Passphrase: askPassphrase, Runner: run.Host{}, Rand: rand.Reader}
	given := []byte(os.Getenv("ALLOT_RELEASE_PASSPHRASE"))
	if r.passphrase != "" {
		var err error
		if given, err = os.ReadFile(r.passphrase); err != nil {
			return nil, fmt.Errorf("cannot read the passphrase: %w", err)
		}
	}
	if r.passphrase != "" || len(given) > 0 {
		ring.Given = bytes.Split(bytes.TrimSpace(given), []byte("\n"))
		ring.Passphrase = notAsked(ring.Given[0])
	}
	return ring, nil
}

// notAsked gives new keys a passphrase; for others there is none but those that were given.
func notAsked(first []byte) func(string, bool) ([]byte, error) {
	return func(_ string, isNew bool) ([]byte, error) {
		switch {
		case len(first) == 0:
			return nil, errors.New("the passphrase is empty")
		case isNew:
			return first, nil
		}
		return nil, errors.New("no passphrase that was given fits, or the file is damaged")
	}
}

// askPassphrase asks at the terminal, twice for new keys.
func askPassphrase(key string, isNew bool) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("cannot ask for the passphrase without a terminal; use --passphrase-file or $ALLOT_RELEASE_PASSPHRASE")
	}
	defer tty.Close()
	ask := func(question string) ([]byte, error) {
		fmt.Fprint(tty, question)
		defer fmt.Fprintln(tty)
		return term.ReadPassword(int(tty.Fd()))
	}
	if !isNew {
		return ask(fmt.Sprintf("Passphrase of key %s: ", key))
	}
	first, err := ask("Passphrase for new keys: ")
	if err != nil {
		return nil, err
	}
	if len(first) < 10 {
		return nil, errors.New("the passphrase is too short: want 10 characters or more, best five random words")
	}
	second, err := ask("The same again: ")
	if err == nil && !bytes.Equal(first, second) {
		err = errors.New("the two passphrases differ")
	}
	return first, err
}

func newReleaseKeys(r *releasing) *cobra.Command {
	return &cobra.Command{
		Use:   "keys REPO",
		Short: "List the keys of all roles, and which are at hand",
		Args:  one("REPO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, err := r.ring()
			if err != nil {
				return err
			}
			return r.open(cmd, args[0], func(repo *release.Repository) error {
				uses, err := repo.KeyUses(ring)
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "ROLE\tMUST SIGN\tKEY\tNAME\tAT HAND")
				for _, u := range uses {
					atHand := "no"
					if u.AtHand {
						atHand = "yes"
					}
					fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", u.Role, u.Threshold, u.ID[:12], u.Name, atHand)
				}
				return w.Flush()
			})
		},
	}
}

func newReleaseKey(r *releasing) *cobra.Command {
	return &cobra.Command{
		Use:   "new-key NAME",
		Short: "Make one key, for init or rotate to use",
		Long: `Make one key in the first key folder, for init or rotate to use, so that whoever will hold it makes it with a passphrase of
their own. Names are ROLE-NUMBER, such as root-2.`,
		Example: "  allot release new-key root-2 --keys /media/stick",
		Args:    one("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, err := r.ring()
			if err == nil {
				_, err = ring.New(args[0])
			}
			if err != nil {
				return fmt.Errorf("cannot make key %q: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "made %s.pub and %s.key in %s\n", args[0], args[0], ring.Dirs[0])
			return nil
		},
	}
}

func newReleaseRefresh(r *releasing) *cobra.Command {
	return &cobra.Command{
		Use:   "refresh REPO [ROLE...]",
		Short: "Sign metadata anew, so that it does not expire",
		Long: `Sign metadata anew as it is: of the roles that are named, or of snapshot and timestamp, which a timer should do every day. Publish
it afterwards. Devices refuse what has expired: root after three years, targets, stable and candidate after one, snapshot after 30
days, timestamp after 14.`,
		Example: "  allot release refresh repo --keys keys/online --passphrase-file /etc/allot/passphrase && allot release publish repo /srv/www/updates",
		Args:    atLeastRepo,
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.open(cmd, args[0], func(repo *release.Repository) error {
				if err := repo.Refresh(cmd.Context(), args[1:]...); err != nil {
					return err
				}
				return printExpiries(cmd, repo, time.Now())
			})
		},
	}
}

func atLeastRepo(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage(cmd, errors.New("want REPO"))
	}
	return nil
}

func newReleaseRotate(r *releasing) *cobra.Command {
	var replace, fresh []string
	cmd := &cobra.Command{
		Use:   "rotate REPO ROLE",
		Short: "Give a role new keys",
		Long: `Give a role new keys in place of all that it has, or of those named with --replace. Keys named with --new are used, or made.

Root: the next root metadata is signed by two of the old and two of the new keys; keys that are kept count for both. Any other
role's new key is named by new root or targets metadata, which takes their keys, and what the role signs is signed anew, by the old
key too if it is at hand. Publish afterwards; then the old key is worth nothing.`,
		Example: "  allot release rotate repo timestamp --keys keys/online --keys /media/root-1 --keys /media/root-2\n" +
			"  allot release rotate repo root --replace 1f2e3d4c --new root-4 --keys /media/root-1 --keys /media/root-2",
		Args: exactly("REPO", "ROLE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.open(cmd, args[0], func(repo *release.Repository) error {
				if err := repo.Rotate(cmd.Context(), args[1], replace, fresh); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s has new keys; publish the repository, and then destroy the old ones\n", args[1])
				return nil
			})
		},
	}
	cmd.Flags().StringArrayVar(&replace, "replace", nil, "first digits of the id of a key that is replaced (default: all; see keys)")
	cmd.Flags().StringArrayVar(&fresh, "new", nil, "name of a new key (default: ROLE and the next number)")
	return cmd
}

func newReleaseExpire(r *releasing) *cobra.Command {
	var keep int
	cmd := &cobra.Command{
		Use:   "expire REPO",
		Short: "Remove old releases",
		Long: `Remove the releases that no channel has and that are older than the newest few of their profile and architecture, with the packs and
deltas that nothing else needs. What devices are offered stays as it is. Needs no keys.`,
		Args: one("REPO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.open(cmd, args[0], func(repo *release.Repository) error {
				gone, err := repo.Expire(cmd.Context(), keep)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "removed %d files, %s\n", gone.Files, megabytes(gone.Bytes))
				}
				return err
			})
		},
	}
	cmd.Flags().IntVar(&keep, "keep", 6, "so many releases of each profile and architecture stay; add makes deltas from them")
	return cmd
}

func newReleaseCheck(r *releasing) *cobra.Command {
	var within int
	cmd := &cobra.Command{
		Use:   "check REPO",
		Short: "Judge a repository as a device does, and say what expires when",
		Long: `Judge a repository, or a folder that one was published to, as a device does that knows its first root alone: all signatures, versions,
hashes and blobs. Show what devices are offered, and when what expires. The exit status is 1 when a device would refuse it, or when
something expires soon: root, targets, stable or candidate within --within days, snapshot or timestamp within 3. Needs no keys.`,
		Args: one("REPO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.open(cmd, args[0], func(repo *release.Repository) error {
				now := time.Now()
				if err := printExpiries(cmd, repo, now); err != nil {
					return err
				}
				targets, err := release.Verify(cmd.Context(), args[0], now, repo.Progress)
				if err != nil {
					return err
				}
				if err := printTargets(cmd, repo, targets); err != nil {
					return err
				}
				return expiring(repo.Expiries(), now, within)
			})
		},
	}
	cmd.Flags().IntVar(&within, "within", 45, "days that offline metadata must still live")
	return cmd
}

// expiring is an error if something expires soon.
func expiring(all []release.Expiry, now time.Time, within int) error {
	const online = 3 // days
	var errs []error
	for _, e := range all {
		days := within
		if e.Online {
			days = online
		}
		if e.Expires.Before(now.AddDate(0, 0, days)) {
			errs = append(errs, fmt.Errorf("%s expires on %s; sign it anew with: allot release refresh REPO %s",
				e.Role, e.Expires.Format(time.DateOnly), e.Role))
		}
	}
	return errors.Join(errs...)
}

func printExpiries(cmd *cobra.Command, repo *release.Repository, now time.Time) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ROLE\tVERSION\tEXPIRES\tIN DAYS")
	for _, e := range repo.Expiries() {
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\n", e.Role, e.Version, e.Expires.UTC().Format(time.DateTime), int(e.Expires.Sub(now).Hours()/24))
	}
	return w.Flush()
}

// printTargets shows what devices are offered.
func printTargets(cmd *cobra.Command, repo *release.Repository, targets []release.Target) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	if len(targets) > 0 {
		fmt.Fprintln(w, "CHANNEL\tRELEASE\tVERSION\tFOR\tWAVE\tFROM\tUNTIL")
	}
	for _, t := range targets {
		rel, err := repo.Release(cmd.Context(), t)
		if err != nil {
			return err
		}
		from := time.Unix(t.Wave.Start, 0).UTC()
		kind := t.Wave.Kind
		if t.Withdrawn {
			kind = "withdrawn"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.Channel, t.Name, rel.Version, t.Arch, kind,
			from.Format(time.DateTime), from.Add(time.Duration(t.Wave.Hours)*time.Hour).Format(time.DateTime))
	}
	return w.Flush()
}
