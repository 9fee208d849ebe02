package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"allotment/api"
)

func newHealth(f *deviceFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Show how the box is; exit status 1 if something does not work",
		Args:  cobra.NoArgs,
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			info, err := c.Info(cmd.Context())
			if err != nil {
				return err
			}
			h, err := c.Health(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), h)
			} else {
				err = printHealth(cmd.OutOrStdout(), info, h)
			}
			if err == nil && h.Level == api.Bad {
				err = errors.New("the box is not healthy")
			}
			return err
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printHealth(w io.Writer, info api.Info, h api.Health) error {
	trial := ""
	if info.Trial {
		trial = " on trial"
	}
	fmt.Fprintf(w, "%s, version %s in slot %s%s, up %s: %s\n", info.Title, info.Version, info.Slot, trial,
		seconds(h.Uptime), h.Summary)
	return table(w, func(row func(...any)) {
		for _, l := range h.Lamps {
			row("  "+string(l.Level), l.What, l.Text)
		}
	})
}

// seconds prints a duration as people say it.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f hours", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}

func newModules(f *deviceFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "modules",
		Short: "Show all modules and their services",
		Args:  cobra.NoArgs,
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			all, err := c.Modules(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			return printModules(cmd.OutOrStdout(), all)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printModules(w io.Writer, all []api.Module) error {
	return table(w, func(row func(...any)) {
		for _, m := range all {
			row(m.Name, m.State, m.Title, m.Problem)
			for _, s := range m.Services {
				var notes []string
				if s.Restarts > 0 {
					notes = append(notes, fmt.Sprintf("restarts: %d", s.Restarts))
				}
				if s.Problem != "" {
					notes = append(notes, s.Problem)
				}
				row("  "+s.Name, s.State, "", strings.Join(notes, "; "))
			}
		}
	})
}

func newLogs(f *deviceFlags) *cobra.Command {
	var q api.LogQuery
	cmd := &cobra.Command{
		Use:   "logs [MODULE[.SERVICE]]",
		Short: "Show what services print; without a module, what the box itself says",
		Args:  cobra.MaximumNArgs(1),
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, args []string) error {
			if len(args) == 1 {
				q.Module, q.Service = serviceName(args[0])
			}
			for line, err := range c.Logs(cmd.Context(), q) {
				if err != nil {
					return err
				}
				name := line.Service
				if line.Module != "" {
					name = line.Module + "." + name
				}
				fmt.Fprintln(cmd.OutOrStdout(), stamp(line.Time), name, printable(line.Text))
			}
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on with lines as they come, until Ctrl-C")
	cmd.Flags().IntVarP(&q.Lines, "lines", "n", 100, "how many of the newest lines; -1 for all that are kept")
	return cmd
}

// stamp is a time as all lists of the box show it: UTC, to the second.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

func newEvents(f *deviceFlags) *cobra.Command {
	var q api.EventQuery
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened since the box was started",
		Args:  cobra.NoArgs,
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			for e, err := range c.Events(cmd.Context(), q) {
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s %-4s %-8s %s\n", stamp(e.Time), e.Level, e.Kind, printable(e.Text))
			}
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on with events as they come, until Ctrl-C")
	cmd.Flags().Uint64Var(&q.After, "after", 0, "only events behind the one of this number")
	return cmd
}

func newResources(f *deviceFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "resources",
		Short: "Show memory, processor time and disk, and who uses them",
		Args:  cobra.NoArgs,
		RunE: f.ask(func(cmd *cobra.Command, c *api.Client, _ []string) error {
			r, err := c.Resources(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), r)
			}
			return printResources(cmd.OutOrStdout(), r)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printResources(w io.Writer, r api.Resources) error {
	fmt.Fprintf(w, "memory %s MiB, %s MiB available; disk %s MiB, %s MiB free; up %s, processors busy %.0f s of it\n",
		mib(r.Memory), mib(r.Available), mib(r.Disk), mib(r.DiskFree), seconds(r.Uptime), r.CPU)
	return table(w, func(row func(...any)) {
		row("", "MiB HELD", "CACHE", "PEAK", "LIMIT", "CPU s", "PROCESSES", "START s", "START CPU s")
		usage := func(name string, u api.Usage, more ...any) {
			row(append([]any{name, mib(u.Memory - u.File), mib(u.File), mib(u.MemoryPeak), mib(u.MemoryMax),
				fmt.Sprintf("%.1f", u.CPU), u.Processes}, more...)...)
		}
		usage("the box itself", r.System)
		for _, m := range r.Modules {
			usage(m.Name, m.Usage)
			for _, s := range m.Services {
				usage("  "+s.Name, s.Usage, fmt.Sprintf("%.1f", s.StartSec), fmt.Sprintf("%.1f", s.StartCPU))
			}
			for _, v := range m.Volumes {
				row("  volume "+v.Name, mib(v.Used), "", "", mib(v.Quota))
			}
		}
	})
}

// mib prints bytes in MiB, and nothing where there is no limit.
func mib(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", float64(bytes)/(1<<20))
}
