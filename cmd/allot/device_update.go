package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"allotment/api"
)

func newUpdate(f *deviceFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "update",
		Short: "Show how the box stays up to date, and say what officers want of that",
		Args:  cobra.NoArgs,
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			u, err := c.Update(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), u)
			}
			return printUpdate(cmd.OutOrStdout(), u)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	yes, no := true, false
	cmd.AddCommand(
		newUpdateAsk(f, "check", "Look for a new version now", (*api.Client).CheckUpdate),
		newUpdateAsk(f, "now", "Update as soon as possible, without waiting for the night", (*api.Client).UpdateNow),
		newUpdateSet(f, "pause", "No updates until resume", api.UpdatePolicy{Paused: &yes}),
		newUpdateSet(f, "resume", "Updates again, also those that were deferred", api.UpdatePolicy{Paused: &no, DeferUntil: &time.Time{}}),
		newUpdateDefer(f), newUpdateWindow(f), newUpdateSource(f), newUpdateHistory(f), newUpdateBack(f))
	return cmd
}

func printUpdate(w io.Writer, u api.Update) error {
	fmt.Fprintf(w, "Version %s runs: %s\n", u.Running, printable(u.Text))
	return table(w, func(row func(...any)) {
		if u.Offered != "" {
			row("  next version", u.Offered)
		}
		if u.Total > 0 {
			row("  fetched", fmt.Sprintf("%.1f of %.1f MB", float64(u.Done)/1e6, float64(u.Total)/1e6))
		}
		if !u.Due.IsZero() {
			row("  to be tried", clockTime(u.Due))
		}
		if u.Reason != "" {
			row("  because", u.Reason)
		}
		if !u.Checked.IsZero() {
			row("  last looked", clockTime(u.Checked))
		}
		for _, line := range wishes(u.Policy) {
			row("  wanted", line)
		}
		if u.Last != nil {
			row("  last update", u.Last.Subject)
		}
		if u.Back != "" {
			row("  can go back to", u.Back)
		}
	})
}

// stamp is a time as people read it, where they are.
func clockTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

// wishes are what officers have set.
func wishes(p api.UpdatePolicy) []string {
	var all []string
	if p.Paused != nil && *p.Paused {
		all = append(all, "no updates (paused)")
	}
	if p.DeferUntil != nil && !p.DeferUntil.IsZero() {
		all = append(all, "no update before "+clockTime(*p.DeferUntil))
	}
	if p.From != nil && p.To != nil && *p.From != "" {
		all = append(all, fmt.Sprintf("restarts only from %s to %s", *p.From, *p.To))
	}
	if p.Metered != nil && *p.Metered {
		all = append(all, "nothing fetched before “now”, as bytes cost money")
	}
	if p.Channel != nil && *p.Channel != "" {
		all = append(all, "channel "+*p.Channel)
	}
	if p.Source != nil && *p.Source != "" {
		all = append(all, "from "+*p.Source)
	}
	return all
}

// newUpdateAsk makes a command that asks for one thing.
func newUpdateAsk(f *deviceFlags, name, short string, do func(*api.Client, context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error { return do(c, cmd.Context()) }),
	}
}

// newUpdateSet makes a command that changes the policy.
func newUpdateSet(f *deviceFlags, name, short string, p api.UpdatePolicy) *cobra.Command {
	return newUpdateAsk(f, name, short, func(c *api.Client, x context.Context) error { return c.SetUpdatePolicy(x, p) })
}

func newUpdateDefer(f *deviceFlags) *cobra.Command {
	return &cobra.Command{
		Use: "defer DAYS", Short: "No update for so many days", Args: one("DAYS"),
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, args []string) error {
			days, err := strconv.Atoi(args[0])
			if err != nil || days < 1 || days > 365 {
				return usage(cmd, fmt.Errorf("want a number of days from 1 to 365, not %q", args[0]))
			}
			until := time.Now().AddDate(0, 0, days)
			return c.SetUpdatePolicy(cmd.Context(), api.UpdatePolicy{DeferUntil: &until})
		}),
	}
}

func newUpdateWindow(f *deviceFlags) *cobra.Command {
	return &cobra.Command{
		Use: "window FROM TO", Short: "The hours in which the box may restart, in the organisation's time zone",
		Example: "  allot device update window 01:00 04:00", Args: cobra.ExactArgs(2),
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, args []string) error {
			return c.SetUpdatePolicy(cmd.Context(), api.UpdatePolicy{From: &args[0], To: &args[1]})
		}),
	}
}

func newUpdateSource(f *deviceFlags) *cobra.Command {
	return &cobra.Command{
		Use: "source [usb:LABEL | URL]", Short: "Take updates from a USB stick or from a mirror; without one, from the publisher",
		Long: `Take updates from a USB stick or from a mirror, which has the files of the publisher's repository: the stick in its
topmost folder. They are checked as those of the publisher are. A stick has the file system FAT32 or btrfs, and a label.
Without an argument updates come from the publisher again.`,
		Example: "  allot device update source usb:UPDATES\n  allot device update source http://mirror.lan/club\n  allot device update source",
		Args:    cobra.MaximumNArgs(1),
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, args []string) error {
			source := strings.Join(args, "")
			return c.SetUpdatePolicy(cmd.Context(), api.UpdatePolicy{Source: &source})
		}),
	}
}

func newUpdateHistory(f *deviceFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "history", Short: "Show all updates that were tried, with the letters about them", Args: cobra.NoArgs,
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			all, err := c.UpdateHistory(cmd.Context())
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if asJSON {
				return printJSON(w, all)
			}
			for i, a := range all {
				if i > 0 {
					fmt.Fprintln(w)
				}
				fmt.Fprintf(w, "%s\n\n%s", printable(a.Subject), printable(a.Letter))
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newUpdateBack(f *deviceFlags) *cobra.Command {
	var confirm bool
	cmd := &cobra.Command{
		Use: "back", Short: "Say what going back to the version of before would lose, or go back", Args: cobra.NoArgs,
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			b, err := c.GoBack(cmd.Context(), confirm)
			if err != nil {
				return err
			}
			return printBack(cmd.OutOrStdout(), b)
		}),
	}
	cmd.Flags().BoolVar(&confirm, "confirm", false, "go back, and lose that")
	return cmd
}

func printBack(w io.Writer, b api.GoBack) error {
	verb := "would lose"
	if b.Begun {
		verb = "loses"
	}
	fmt.Fprintf(w, "Going back from version %s to version %s %s what was written since %s:\n", b.From, b.To, verb, clockTime(b.Since))
	if len(b.Losses) == 0 {
		fmt.Fprintln(w, "  nothing was")
	}
	err := table(w, func(row func(...any)) {
		for _, l := range b.Losses {
			row("  "+l.Module, l.Volume, fmt.Sprintf("%d files", l.Files), fmt.Sprintf("%.1f MB", float64(l.Bytes)/1e6),
				"newest "+clockTime(l.Newest))
		}
	})
	if b.Begun {
		fmt.Fprintln(w, "The box goes back now.")
	}
	return err
}
